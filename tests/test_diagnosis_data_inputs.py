"""The doctor's questions about inputs: their scale, their sign, columns that never change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from sklearn import datasets
from torch import Tensor, nn

from lastlayer.diagnosis import inputs
from lastlayer.diagnosis.arrivals import arrivals
from lastlayer.diagnosis.examination import examine
from lastlayer.diagnosis.finding import Findings
from lastlayer.diagnosis.inputs import constant_column, same_sign_inputs, unscaled_inputs
from lastlayer.diagnosis.subject import Subject


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def seeded(network: nn.Module) -> nn.Module:
    """The same weights in every run."""
    drawn = generator(1)
    with torch.no_grad():
        for parameter in network.parameters():
            bound = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.uniform_(-bound, bound, generator=drawn)
    return network


def mlp(width: int, outputs: int = 1, *, behind: nn.Module | None = None) -> nn.Module:
    between = [] if behind is None else [behind]
    return seeded(nn.Sequential(nn.Linear(width, 16), *between, nn.ReLU(), nn.Linear(16, outputs)))


def findings(network: nn.Module, features: Any, target: Tensor | None = None, loss: Any = None) -> Findings:
    return examine(inputs.CHECKS, network, loss, (features, target))


def said(network: nn.Module, features: Any) -> dict[str, str]:
    """Severity by name."""
    return {finding.name: finding.severity for finding in findings(network, features)}


def column(factor: float, shift: float = 0.0) -> Tensor:
    """Eight standard normal columns, the third of them scaled and shifted."""
    x = normal(200, 8)
    x[:, 2] = factor * x[:, 2] + shift
    return x


# --- scale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features",
    [column(100.0), column(1.0, 2000.0), column(0.005), 50 * normal(200, 8), 0.02 * normal(200, 8), column(1e4, 7e4)],
    ids=["large", "years", "tiny", "all large", "all tiny", "grams"],
)
def test_columns_that_one_rate_cannot_serve_are_found(features: Tensor) -> None:
    assert said(mlp(8), features)["unscaled_inputs"] == "warning"


@pytest.mark.parametrize(
    "features",
    [normal(200, 8), column(5.0), column(0.1), column(1.0, 3.0), 5 * normal(200, 8), normal(200, 8).clamp(0, 1)],
    ids=["standardized", "five", "a tenth", "shifted", "all five", "in [0, 1]"],
)
def test_columns_that_are_learned_from_well_are_left_alone(features: Tensor) -> None:
    assert "unscaled_inputs" not in said(mlp(8), features)


def test_the_scale_of_the_absurd_is_an_error() -> None:
    assert said(mlp(8), column(1e7))["unscaled_inputs"] == "error"


def test_the_evidence_names_the_column_and_its_figures() -> None:
    (finding,) = examine((unscaled_inputs,), mlp(8), None, column(300.0, 1000.0))
    assert "column 2" in finding.evidence
    assert "layer '0' (Linear)" in finding.where
    x = column(300.0, 1000.0)[:, 2].double()
    assert finding.numbers["largest"] == pytest.approx(float(x.square().mean().sqrt()))
    assert f"{float(x.mean()):.3g}" in finding.evidence


def held_back(features: Tensor, optimizer: str) -> float:
    """How much of what standardized columns would have taught 160 steps on these do not teach."""
    x = normal(512, 8)
    target = (torch.tanh(x @ normal(8, 4, seed=3)) @ normal(4, 1, seed=4)) / 2
    losses = []
    for given in (x, features):
        network = mlp(8)
        rate = {"adam": 1e-2, "sgd": 1e-2}[optimizer]
        steps = (
            torch.optim.Adam(network.parameters(), lr=rate)
            if optimizer == "adam"
            else torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
        )
        for _ in range(160):
            steps.zero_grad()
            value = nn.functional.mse_loss(network(given), target)
            value.backward()
            steps.step()
        losses.append(min(float(value.detach().nan_to_num(1e9)), float(target.var())))
    return (losses[1] - losses[0]) / (float(target.var()) - losses[0])


def test_what_is_found_does_hold_learning_back_and_what_is_not_does_not() -> None:
    def changed(factor: float, shift: float = 0.0) -> Tensor:
        x = normal(512, 8).clone()
        x[:, 2] = factor * x[:, 2] + shift
        return x

    bad, fine = changed(1.0, 300.0), changed(3.0)
    assert "unscaled_inputs" in said(mlp(8), bad)
    assert "unscaled_inputs" not in said(mlp(8), fine)
    assert held_back(bad, "sgd") > 0.5
    assert held_back(bad, "adam") > 0.1
    assert max(held_back(fine, "sgd"), held_back(fine, "adam")) < 0.1


def test_trying_says_what_standardizing_does() -> None:
    x = column(300.0)
    (finding,) = examine((unscaled_inputs,), mlp(8), nn.MSELoss(), (x, normal(200, 1)))
    assert finding.tried is not None
    assert "with standardized columns" in finding.tried
    as_it_is = float(finding.tried.split("as it is, from ")[1].split(" ")[0])
    with torch.no_grad():
        assert as_it_is == pytest.approx(float(nn.MSELoss()(mlp(8)(x[:128]), normal(200, 1)[:128])), rel=0.01)


def test_images_of_bytes_are_found_and_shares_are_not() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)))
    images = torch.randint(256, (40, 3, 8, 8), generator=generator()).float()
    (finding,) = examine((unscaled_inputs,), network, None, images)
    assert "channels 0, 1 and 2 of 3" in finding.evidence
    assert "255" in finding.fix
    assert not examine((unscaled_inputs,), network, None, images / 255)


def test_raw_flat_images_are_found_too() -> None:
    pixels, _ = datasets.load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32)
    assert said(mlp(64), 16 * x)["unscaled_inputs"] == "warning"
    assert "unscaled_inputs" not in said(mlp(64), x / 16)


# --- what makes it harmless ------------------------------------------------------------------------------------------


def test_normalization_in_front_makes_any_scale_harmless() -> None:
    network = nn.Sequential(nn.BatchNorm1d(8), *mlp(8))
    assert not said(network, column(1e4, 7e4))


def test_scaling_inside_the_forward_is_seen() -> None:
    class Net(nn.Module):
        def __init__(self, mean: Tensor, std: Tensor) -> None:
            super().__init__()
            self.body = mlp(8)
            self.register_buffer("mean", mean)
            self.register_buffer("std", std)

        def forward(self, x: Tensor) -> Tensor:
            return self.body((x - self.mean) / self.std)

    x = column(1e4, 7e4)
    assert not said(Net(x.mean(0), x.std(0)), x)
    # The wrong twin: figures that are none of these columns'.
    assert "unscaled_inputs" in said(Net(torch.zeros(8), torch.ones(8)), x)


def test_normalization_of_rows_does_not_help_columns() -> None:
    # Every row becomes one large number beside seven that hardly vary.
    network = nn.Sequential(nn.LayerNorm(8), *mlp(8))
    (arrival,) = arrivals(Subject(network, None, column(1.0, 7e4), None))
    assert not arrival.untouched
    assert float(arrival.std.max()) < 1e-3
    assert said(network, column(1.0, 7e4))["same_sign_inputs"] == "warning"


@pytest.mark.parametrize("behind", [nn.BatchNorm1d(16), nn.LayerNorm(16)], ids=["batch", "layer"])
def test_normalization_behind_the_layer_takes_a_common_scale_out_but_no_ratio(behind: nn.Module) -> None:
    network = mlp(8, behind=behind)
    assert "unscaled_inputs" not in said(network, 80 * normal(200, 8))
    assert said(network, column(500.0))["unscaled_inputs"] == "warning"


def test_one_hot_and_rare_columns_beside_standardized_ones_are_fine() -> None:
    kinds = nn.functional.one_hot(torch.randint(50, (300,), generator=generator()), 50).float()
    rare = (torch.rand(300, 3, generator=generator()) < 0.01).float()
    assert not said(mlp(61), torch.cat([normal(300, 8), kinds, rare], dim=1))


def test_sparse_counts_are_fine_and_sparse_sums_of_money_are_not() -> None:
    present = (torch.rand(300, 40, generator=generator()) < 0.05).float()
    counts = present * torch.poisson(torch.full((300, 40), 2.0), generator=generator())
    assert "unscaled_inputs" not in said(mlp(40), counts)
    money = torch.cat([normal(300, 8), 5000 * present[:, :1]], dim=1)
    assert said(mlp(9), money)["unscaled_inputs"] == "warning"


# --- kinds of networks and inputs ------------------------------------------------------------------------------------


class Two(nn.Module):
    """Numbers and categories, each with a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.names, self.last = nn.Linear(4, 8), nn.Embedding(10, 8), nn.Linear(8, 1)

    def forward(self, numbers: Tensor, names: Tensor) -> Tensor:
        return self.last(torch.relu(self.numbers(numbers) + self.names(names)))


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x)
        return self.last(states[:, -1])


def test_several_inputs_by_position_and_by_name() -> None:
    numbers, names = 1000 * normal(60, 4), torch.randint(10, (60,), generator=generator())
    for features in ((numbers, names), {"numbers": numbers, "names": names}):
        (finding,) = findings(seeded(Two()), features)
        assert finding.name == "unscaled_inputs"
        assert "layer 'numbers' (Linear)" in finding.where
    assert not findings(seeded(Two()), (normal(60, 4), names))


def test_sequences_and_transformers() -> None:
    x = normal(30, 7, 4)
    assert not findings(seeded(Sequence()), x)
    assert said(seeded(Sequence()), 500 * x) == {"unscaled_inputs": "warning"}
    transformer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    assert not findings(transformer, x)
    assert "unscaled_inputs" in said(transformer, 500 * x)


def test_a_layer_of_ones_own_is_seen() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(normal(8, 3) / 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.mm(x, self.w)

    assert "unscaled_inputs" in said(Own(), column(100.0))
    assert not said(Own(), normal(200, 8))


def test_tokens_say_nothing() -> None:
    network = nn.Sequential(nn.Embedding(1000, 8), nn.Flatten(), nn.Linear(40, 1))
    assert not findings(network, torch.randint(1000, (60, 5), generator=generator()))


def test_embeddings_may_start_small_and_columns_beside_them_are_looked_at() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names, self.first = nn.Embedding(10, 8), nn.Linear(12, 4)
            nn.init.normal_(self.names.weight, std=0.002)

        def forward(self, numbers: Tensor, names: Tensor) -> Tensor:
            return self.first(torch.cat([numbers, self.names(names)], dim=1))

    names = torch.randint(10, (60,), generator=generator())
    assert not findings(Beside(), (normal(60, 4), names))
    assert not findings(Beside(), (0.001 * normal(60, 4), names))
    (finding,) = findings(Beside(), (300 * normal(60, 4), names))
    assert "columns 0, 1, 2 and 3 of 12" in finding.evidence


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    network = mlp(8).to(dtype)
    assert not findings(network, normal(64, 8).to(dtype), normal(64, 1).to(dtype), nn.MSELoss()).warnings
    assert "unscaled_inputs" in said(network, column(200.0)[:64].to(dtype))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_raise_no_alarm(rows: int) -> None:
    assert not findings(mlp(8), normal(rows, 8) + 3).warnings


def test_what_cannot_be_told_is_left_alone() -> None:
    broken = normal(50, 8)
    broken[3, 4] = torch.nan
    assert not findings(mlp(8), broken)
    assert not findings(mlp(5), normal(50, 8)), "the forward pass fails"
    assert not findings(mlp(8), torch.zeros(0, 8))


def test_nothing_of_the_callers_is_changed() -> None:
    network, x = mlp(8, behind=nn.Dropout(0.5)), column(300.0)
    network[0].eval()
    before, given = copy.deepcopy(network.state_dict()), x.clone()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    findings(network, x, normal(200, 1), nn.MSELoss())
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(x, given)
    assert network.training
    assert not network[0].training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


# --- sign ------------------------------------------------------------------------------------------------------------


def test_columns_far_from_zero_are_found_and_unit_ones_noted() -> None:
    assert said(mlp(8), normal(200, 8) + 15)["same_sign_inputs"] == "warning"
    assert said(mlp(8), torch.rand(200, 8, generator=generator())) == {"same_sign_inputs": "note"}
    assert "same_sign_inputs" not in said(mlp(8), normal(200, 8) + 1)


def test_a_normalization_over_the_batch_takes_means_out() -> None:
    assert not said(mlp(8, behind=nn.BatchNorm1d(16)), normal(200, 8) + 15)
    # The wrong twin: one over the units does not.
    assert "same_sign_inputs" in said(mlp(8, behind=nn.LayerNorm(16)), normal(200, 8) + 15)


def test_unit_images_get_a_note_and_centered_ones_nothing() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)))
    images = torch.rand(40, 1, 8, 8, generator=generator())
    assert said(network, images) == {"same_sign_inputs": "note"}
    assert not said(network, (images - images.mean()) / images.std())


def test_all_gradients_of_a_unit_do_have_one_sign() -> None:
    # What the note says: of a single row, for every unit.
    network = mlp(8)
    network(torch.rand(1, 8, generator=generator())).backward()
    gradient = network[0].weight.grad
    assert bool(((gradient >= 0).all(1) | (gradient <= 0).all(1)).all())


# --- constants -------------------------------------------------------------------------------------------------------


def test_a_constant_column_is_noted_and_most_are_a_warning() -> None:
    x = normal(200, 8)
    x[:, 5] = 7.0
    (finding,) = examine((constant_column,), mlp(8), None, x)
    assert (finding.severity, "column 5 of 8 is 7" in finding.evidence) == ("note", True)
    x[:, :6] = 7.0
    (finding,) = examine((constant_column,), mlp(8), None, x)
    assert finding.severity == "warning"
    (finding,) = examine((constant_column,), mlp(8), None, torch.zeros(200, 8))
    assert finding.severity == "warning"


def test_categories_that_do_not_come_up_and_borders_of_images_are_silent() -> None:
    x = torch.cat([normal(200, 4), torch.zeros(200, 4)], dim=1)
    assert not examine((constant_column,), mlp(8), None, x)
    pixels, _ = datasets.load_digits(return_X_y=True)
    assert not examine((constant_column,), mlp(64), None, torch.tensor(pixels, dtype=torch.float32) / 16)
    # Standardized by more rows than are shown: a pixel lit in one of 1300 rows is the same in 500 of them.
    lit = torch.full((500, 1), -((1 / 1300) ** 0.5))
    assert not examine((constant_column,), mlp(5), None, torch.cat([normal(500, 4), lit], dim=1))
    (finding,) = examine((constant_column,), mlp(5), None, torch.cat([normal(500, 4), lit - 1], dim=1))
    assert "column 4" in finding.evidence


@pytest.mark.parametrize("check", [unscaled_inputs, same_sign_inputs, constant_column])
def test_real_tables_standardized_are_healthy(check: Any) -> None:
    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        features, _ = getattr(datasets, f"load_{name}")(return_X_y=True)
        x = torch.tensor((features - features.mean(0)) / features.std(0), dtype=torch.float32)
        assert not examine((check,), mlp(x.shape[1]), None, x), name


def test_irises_in_centimeters_are_learned_from_well_enough() -> None:
    features, _ = datasets.load_iris(return_X_y=True)
    assert not findings(mlp(4), torch.tensor(features, dtype=torch.float32)).warnings
