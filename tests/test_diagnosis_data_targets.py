"""The doctor's questions about targets: their scale beside the first output, and how even their classes are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.diagnosis import class_balance, target_scale
from lastlayer.diagnosis.class_balance import Counts, fix_for
from lastlayer.diagnosis.examination import examine
from lastlayer.diagnosis.finding import Findings
from test_diagnosis_data_inputs import generator, mlp, normal, seeded

X = normal(200, 8)
Y = normal(200, 1, seed=2)


def scale(network: nn.Module, loss: Any, target: Tensor, features: Tensor = X) -> str | None:
    """The severity of what is said of the target's scale."""
    found = examine(target_scale.CHECKS, network, loss, (features, target))
    return found[0].severity if found else None


# --- scale ------------------------------------------------------------------------------------------------------------

LOSSES = [
    nn.MSELoss(),
    nn.L1Loss(),
    nn.HuberLoss(),
    nn.SmoothL1Loss(),
    losses.SquaredError(),
    losses.LogCosh(),
    F.mse_loss,
    lambda raw, target: 0.5 * ((raw - target) ** 2).sum(),
    lambda raw, target: (raw - target).abs(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: getattr(loss, "__name__", str(loss)))
@pytest.mark.parametrize(
    ("factor", "shift", "severity"),
    [
        (1.0, 0.0, None),
        (3.0, 0.0, None),
        (0.1, 0.0, None),
        (1.0, 2.0, None),
        (30.0, 0.0, "warning"),
        (1.0, 40.0, "warning"),
        (0.01, 0.0, "warning"),
        (2e4, 3e5, "warning"),
        (1.0, 7.0, "note"),
    ],
)
def test_targets_by_their_distance_from_the_first_output(
    loss: Any, factor: float, shift: float, severity: str | None
) -> None:
    assert scale(mlp(8), loss, factor * Y + shift) == severity


@pytest.mark.parametrize(
    "head", [heads.Gaussian(), heads.Gaussian(scale="predicted"), heads.Laplace(), heads.StudentT(), heads.Mixture(3)]
)
def test_heads_of_quantities(head: heads.Head) -> None:
    network = mlp(8, head.raw_size)
    assert scale(network, head, Y[:, 0]) is None
    assert scale(network, head, 100 * Y[:, 0] + 500) == "warning"


@pytest.mark.parametrize(
    ("loss", "outputs", "target"),
    [
        (nn.CrossEntropyLoss(), 3, torch.arange(200) % 3),
        (nn.CrossEntropyLoss(), 3, F.one_hot(torch.arange(200) % 3, 3).float()),
        (nn.BCEWithLogitsLoss(), 1, (Y > 0).float()),
        (heads.Poisson(), 1, torch.poisson(torch.full((200,), 900.0), generator=generator())),
        (nn.PoissonNLLLoss(), 1, torch.poisson(torch.full((200, 1), 900.0), generator=generator())),
        (heads.Gamma(), 2, 1000 + 100 * Y[:, 0].abs()),
        (None, 1, 1000 * Y),
        (lambda raw, target: ((raw - target) / target).square().mean(), 1, 1000 + Y),
    ],
    ids=["classes", "one-hot", "binary", "poisson", "poisson of PyTorch", "gamma", "no loss", "relative error"],
)
def test_losses_that_do_not_compare_by_difference_are_left_alone(loss: Any, outputs: int, target: Tensor) -> None:
    assert scale(mlp(8, outputs), loss, target) is None


def test_gaussian_likelihood_of_pytorch_and_by_hand() -> None:
    def of_pytorch(raw: Tensor, target: Tensor) -> Tensor:
        return F.gaussian_nll_loss(raw[:, 0], target, F.softplus(raw[:, 1]) + 1e-3)

    def by_hand(raw: Tensor, target: Tensor) -> Tensor:
        return (raw[:, 1] + 0.5 * ((target - raw[:, 0]) * torch.exp(-raw[:, 1])) ** 2).mean()

    for loss in (of_pytorch, by_hand):
        assert scale(mlp(8, 2), loss, Y[:, 0]) is None
        assert scale(mlp(8, 2), loss, 300 * Y[:, 0]) == "warning"


class Scaled(nn.Module):
    """A network that puts its output into the target's units itself."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.body, self.factor, self.shift = mlp(8), factor, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.factor + self.shift


def test_a_network_that_starts_in_the_targets_units_is_healthy() -> None:
    assert scale(Scaled(50.0, 700.0), nn.MSELoss(), 50 * Y + 700) is None
    # The wrong twin: another factor.
    assert scale(Scaled(0.5, 700.0), nn.MSELoss(), 50 * Y + 700) == "warning"
    started = mlp(8)
    nn.init.constant_(started[-1].bias, 40.0)
    assert scale(started, nn.MSELoss(), Y + 40) is None
    assert scale(mlp(8), nn.MSELoss(), Y + 40) == "warning"


def test_outputs_behind_a_function_that_has_its_own_range_are_left_to_other_questions() -> None:
    for last in (nn.Sigmoid(), nn.Tanh()):
        assert scale(nn.Sequential(*mlp(8), last), nn.MSELoss(), 100 * Y) is None
    assert scale(nn.Sequential(*mlp(8), nn.Softplus()), nn.MSELoss(), 100 * Y.abs()) == "warning"


def test_inputs_that_throw_the_first_output_far_off_are_no_matter_of_the_target() -> None:
    assert scale(mlp(8), nn.MSELoss(), Y, 1e4 * X) is None


def test_several_targets_are_judged_each() -> None:
    found = examine(target_scale.CHECKS, mlp(8, 2), nn.MSELoss(), (X, torch.cat([Y, 500 * Y], dim=1)))
    assert found[0].where == "the target's column 1"
    assert found[0].numbers["standard_deviation"] == pytest.approx(float((500 * Y).std(correction=0)))


def test_trying_it_shows_losses_in_the_targets_own_units() -> None:
    (finding,) = examine(target_scale.CHECKS, mlp(8), nn.MSELoss(), (X, 100 * Y + 1000))
    assert finding.tried is not None
    with_fix, without = finding.tried.split("; as it is")
    assert float(with_fix.rsplit(" to ", 1)[1]) < 1.5 * float((100 * Y).var())
    assert float(without.rstrip(".").rsplit(" to ", 1)[1]) > 50 * float((100 * Y).var())
    assert f"{float((100 * Y + 1000).mean()):.4g}" in finding.fix


def test_half_precision_few_rows_constants_and_nothing_at_all() -> None:
    assert scale(mlp(8).bfloat16(), nn.MSELoss(), (500 * Y).bfloat16(), X.bfloat16()) == "warning"
    assert scale(mlp(8), nn.MSELoss(), 500 * Y[:4], X[:4]) is None
    assert scale(mlp(8), nn.MSELoss(), torch.full((200, 1), 5.0)) is None
    assert scale(mlp(8), nn.MSELoss(), torch.full((200, 1), torch.nan)) is None
    assert scale(mlp(8), nn.MSELoss(), torch.zeros(0, 1), X[:0]) is None


# --- classes ----------------------------------------------------------------------------------------------------------


def balance(network: nn.Module, loss: Any, target: Tensor, features: Tensor | None = None, **more: Any) -> Findings:
    rows = normal(len(target), 8) if features is None else features
    return examine(class_balance.CHECKS, network, loss, (rows, target), **more)


def severity(found: Findings) -> str | None:
    return found[0].severity if found else None


def drawn(*counts: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((100, 100, 100), None),
        ((300, 100, 40), None),
        ((400, 300, 20), "note"),
        ((900, 100, 9), "warning"),
        ((30, 1, 1), "note"),
        ((10, 1, 1), None),
        ((500, 200, 0), "warning"),
        ((12, 6, 0), None),
    ],
)
def test_classes_by_their_frequency(counts: tuple[int, ...], expected: str | None) -> None:
    assert severity(balance(mlp(8, 3), nn.CrossEntropyLoss(), drawn(*counts))) == expected


@pytest.mark.parametrize(
    ("loss", "outputs", "form"),
    [
        (nn.CrossEntropyLoss(), 2, lambda y: y),
        (nn.CrossEntropyLoss(), 2, lambda y: F.one_hot(y, 2).float()),
        (losses.CrossEntropy(), 2, lambda y: y),
        (heads.Categorical(2), 2, lambda y: y),
        (nn.BCEWithLogitsLoss(), 1, lambda y: y.float().unsqueeze(1)),
        (heads.Bernoulli(), 1, lambda y: y.float()),
        (lambda raw, target: F.cross_entropy(raw, target, reduction="none"), 2, lambda y: y),
        (nn.Sequential(nn.Identity()), 1, lambda y: y.float()),
    ],
    ids=["indices", "one-hot", "ours", "head", "logits", "Bernoulli", "per sample", "none"],
)
def test_classes_in_every_form(loss: Any, outputs: int, form: Any) -> None:
    if isinstance(loss, nn.Sequential):
        assert not balance(mlp(8, 1), None, form(drawn(990, 10)))
        return
    (finding,) = balance(mlp(8, outputs), loss, form(drawn(990, 10)))
    assert finding.severity == "warning"
    assert finding.numbers == {"rarest": 10.0, "most_frequent": 990.0, "samples": 1000.0}
    assert "1 to 99" in finding.evidence


@pytest.mark.parametrize(
    ("loss", "outputs", "form"),
    [
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 99.0])), 2, lambda y: y),
        (losses.CrossEntropy(weight=torch.tensor([1.0, 20.0])), 2, lambda y: y),
        (lambda raw, target: F.cross_entropy(raw, target, weight=torch.tensor([0.1, 0.9])), 2, lambda y: y),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(99.0)), 1, lambda y: y.float().unsqueeze(1)),
        (losses.Focal(), 1, lambda y: y.float().unsqueeze(1)),
        (lambda raw, target: losses.focal(raw, target, gamma=1.0), 1, lambda y: y.float().unsqueeze(1)),
    ],
    ids=["weight", "ours", "function", "pos_weight", "focal", "focal function"],
)
def test_losses_that_take_account_of_it_are_left_alone(loss: Any, outputs: int, form: Any) -> None:
    assert not balance(mlp(8, outputs), loss, form(drawn(990, 10)))


def test_a_weight_for_the_wrong_class_takes_no_account() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([99.0, 1.0]))
    assert severity(balance(mlp(8, 2), loss, drawn(990, 10))) == "warning"


def test_the_weights_of_the_fix_are_those_of_scikit_learn() -> None:
    target = drawn(500, 300, 5)
    (finding,) = balance(mlp(8, 3), nn.CrossEntropyLoss(), target)
    written = finding.fix.split("torch.tensor([")[1].split("]")[0]
    expected = 3 * compute_class_weight("balanced", classes=np.arange(3), y=target.numpy())
    assert [float(each) for each in written.split(",")] == pytest.approx(expected, rel=0.005)
    assert "pos_weight=torch.tensor(99)" in fix_for(Counts(torch.tensor([990, 10]), 1000), binary=True)


@pytest.mark.parametrize(("few", "rows"), [(10, 512), (0, 64), (3, 64), (1, 1000)])
def test_the_certain_ratio_is_by_exact_bounds(few: int, rows: int) -> None:
    upper = binomtest(few, rows, alternative="less").proportion_ci(0.95, method="exact").high
    lower = binomtest(rows - few, rows, alternative="greater").proportion_ci(0.95, method="exact").low
    assert Counts(torch.tensor([rows - few, few]), rows).certain_ratio == pytest.approx(lower / upper)


def test_a_small_batch_of_ten_even_classes_hardly_ever_raises_an_alarm() -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        counts = torch.from_numpy(np.bincount(random.integers(10, size=64), minlength=10))
        alarms += Counts(counts, 64).severity is not None
    assert alarms == 0


def test_all_training_rows_count_where_they_are_known() -> None:
    rows = drawn(2000, 20)
    shown = torch.cat([rows[:60], rows[-1:]])
    network, loss = mlp(8, 2), nn.CrossEntropyLoss()
    assert severity(balance(network, loss, shown)) != "warning"
    assert severity(balance(network, loss, shown, training=(normal(2020, 8), rows))) == "warning"
    # A batch that was drawn evenly on purpose is what the loss sees.
    assert not balance(network, loss, drawn(30, 30), training=(normal(2020, 8), rows))


def test_labels_and_letters_are_a_note_and_masks_a_warning() -> None:
    labels = torch.stack([drawn(500, 500), drawn(990, 10)], dim=1).float()
    (finding,) = balance(mlp(8, 2), nn.BCEWithLogitsLoss(), labels)
    assert (finding.severity, finding.where) == ("note", "label 1 of the target")
    masks = (torch.rand(20, 1, 16, 16, generator=generator()) < 0.01).float()
    network = seeded(nn.Conv2d(1, 1, 3, padding=1))
    assert severity(balance(network, nn.BCEWithLogitsLoss(), masks, normal(20, 1, 16, 16))) == "warning"
    assert not balance(network, nn.BCEWithLogitsLoss(), masks, masks), "what is drawn again is no class"
    classes = (torch.rand(20, 16, 16, generator=generator()) < 0.01).long()
    network = seeded(nn.Conv2d(1, 2, 3, padding=1))
    assert severity(balance(network, nn.CrossEntropyLoss(), classes, normal(20, 1, 16, 16))) == "note"


def test_quantities_words_and_drawings_have_no_balance() -> None:
    assert not balance(mlp(8), nn.MSELoss(), normal(500, 1))
    words = torch.multinomial(1 / torch.arange(1.0, 201), 3000, replacement=True, generator=generator())
    assert not balance(mlp(8, 200), nn.CrossEntropyLoss(), words)
    drawings = (torch.rand(20, 3, 8, 8, generator=generator()) < 0.01).float()
    network = seeded(nn.Conv2d(3, 3, 3, padding=1))
    assert not balance(network, nn.BCEWithLogitsLoss(), drawings, drawings)


def test_ignored_samples_do_not_count() -> None:
    target = drawn(400, 400)
    target[100:400] = -100
    assert not balance(mlp(8, 2), nn.CrossEntropyLoss(), target)
