"""LSUV: every layer's output has variance 1 on the batch that was given."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lastlayer import LastLayerWarning, heads, initialize
from lastlayer.activations import Maxout, PReLU, RReLU
from lastlayer.checks import InputError, KindError
from lastlayer.initialization import LSUV
from lastlayer.networks import Linear, SharedLinear


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Odd(nn.Module):
    """An activation that no gain is made for: its moment depends on the scale, and its mean is not 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(0.3 * x) * torch.cos(x) + x.abs()


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        Odd(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, groups=4, bias=False),
        RReLU(),
        nn.Dropout(0.5),
        nn.ConvTranspose2d(24, 8, 4, stride=2),
        PReLU(8),
        nn.Flatten(),
        Maxout(8 * 10 * 10, 30, 3),
        Odd(),
        nn.Linear(30, 5),
    )


def images(rows: int = 40) -> Tensor:
    return 3 + 5 * torch.randn(rows, 3, 12, 12, generator=generator(1))


def deviations(network: nn.Module, batch: Any) -> dict[str, float]:
    """By hooks of the test's own: the deviation of every layer's output in evaluation mode."""
    found: dict[str, float] = {}
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, Maxout, Linear, SharedLinear)
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: found.update({name: float(out.std(correction=0))}))
        for name, module in network.named_modules()
        if isinstance(module, layers)
    ]
    modes = {name: module.training for name, module in network.named_modules()}
    with torch.no_grad():
        network.eval()(batch)
    for name, module in network.named_modules():
        module.training = modes[name]
    for hook in hooks:
        hook.remove()
    return found


def test_every_layer_of_a_convolutional_network_has_variance_1() -> None:
    network, batch = convolutional(), images()
    initialize(network, rule="orthogonal", generator=generator())
    assert max(abs(std - 1) for std in deviations(network, batch).values()) > 0.5
    record = initialize(network, rule="lsuv", batch=batch, generator=generator())
    found = deviations(network, batch)
    assert len(found) == len(record.layers) == 5
    for row in record.layers:
        assert found[row.name] ** 2 == pytest.approx(1.0, abs=0.01)
        assert row.output_std == pytest.approx(found[row.name], rel=1e-5)
        assert row.rule == "lsuv"
    weights = {name: module.weight.detach() for name, module in network.named_modules() if name in found}
    for row in record.layers:
        assert row.std == pytest.approx(float(weights[row.name].square().mean().sqrt()), rel=1e-4)
    assert "output std" in str(record).splitlines()[0]


def test_on_other_rows_it_is_nearly_1() -> None:
    network = convolutional()
    initialize(network, rule="lsuv", batch=images(), generator=generator())
    other = 3 + 5 * torch.randn(400, 3, 12, 12, generator=generator(2))
    assert all(abs(std - 1) < 0.1 for std in deviations(network, other).values())


def test_the_weights_are_orthogonal_but_for_their_scale() -> None:
    network = nn.Sequential(nn.Linear(9, 6), Odd(), nn.Linear(6, 6))
    initialize(network.double(), rule=LSUV(tolerance=1e-9), batch=torch.randn(50, 9, dtype=torch.float64))
    for layer in (network[0], network[2]):
        product = layer.weight.detach() @ layer.weight.detach().T
        torch.testing.assert_close(product, product[0, 0] * torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("layer", [Linear(7, 20, members=3), SharedLinear(7, 20, members=3, diverse=True)], ids=str)
def test_layers_of_members_too(layer: nn.Module) -> None:
    network = nn.Sequential(layer, nn.Tanh(), Linear(20, 4, members=3))
    batch = 0.01 * torch.randn(100, 7)
    initialize(network, rule="lsuv", batch=batch)
    assert all(abs(std**2 - 1) < 0.01 for std in deviations(network, batch).values())


@pytest.mark.parametrize("scale", [1e-35, 1e-10, 1e10, 1e35])
@pytest.mark.parametrize("rows", [1, 100])
def test_inputs_of_any_scale(scale: float, rows: int) -> None:
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    batch = scale * torch.randn(rows, 20, generator=generator(3))
    initialize(network, rule="lsuv", batch=batch, generator=generator())
    assert all(abs(std**2 - 1) < 0.01 for std in deviations(network, batch).values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 10)).to(dtype)
    batch = torch.randn(200, 20).to(dtype)
    initialize(network, rule="lsuv", batch=batch)
    # bfloat16 has 8 bits: weights and outputs are rounded by up to 0.4%.
    assert all(abs(std**2 - 1) < 0.02 for std in deviations(network, batch).values())


def test_biases_and_a_head_are_kept() -> None:
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 2))
    batch = torch.randn(200, 20)
    initialize(network, rule="lsuv", batch=batch, bias=0.5, head=heads.Categorical(2), target=[0, 1, 1, 1])
    found = deviations(network, batch)
    assert [found[name] ** 2 for name in ("0", "2")] == pytest.approx([1, 1], abs=0.01)
    assert (network[2].bias == 0.5).all()
    assert not network[4].weight.any()
    assert torch.softmax(network(batch), 1)[0].tolist() == pytest.approx([0.25, 0.75])


class Branches(nn.Module):
    """Called in another order than registered, one layer never, one twice, with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 1)
        self.unused = nn.Linear(6, 6)
        self.twice = nn.Linear(6, 6)
        self.first = nn.Linear(4, 6)

    def forward(self, left: Tensor, *, right: Tensor) -> Tensor:
        x = self.first(left) + self.first(right)
        x = self.twice(torch.sin(x)) + x
        return self.last(input=self.twice(x))


def test_the_order_is_that_of_the_calls_and_what_is_not_called_is_named() -> None:
    network = Branches()
    before = copy.deepcopy(network)
    batch = {"left": torch.randn(50, 4), "right": 2 * torch.randn(50, 4)}
    with pytest.warns(LastLayerWarning, match=r"'unused': left unscaled, since the network does not call it"):
        record = initialize(network, rule="lsuv", batch=batch)
    rows = {row.name: row for row in record.layers}
    assert rows["unused"].output_std is None
    first = network.first(batch["left"]).detach()
    assert float(first.std(correction=0)) == pytest.approx(1.0, abs=0.01)
    output = network(**batch).detach()
    assert float(output.std(correction=0)) == pytest.approx(1.0, abs=0.01)
    assert not torch.equal(before.unused.weight, network.unused.weight)


def test_an_embedding_keeps_its_variance_and_a_tied_weight_is_scaled_where_it_multiplies() -> None:
    class Language(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.embedding, self.scores = nn.Embedding(30, 8), nn.Linear(8, 30, bias=False)
            if tied:
                self.scores.weight = self.embedding.weight

        def forward(self, index: Tensor) -> Tensor:
            return self.scores(torch.tanh(self.embedding(index)))

    batch = torch.randint(3, (40, 5), generator=generator())
    for tied in (False, True):
        network = Language(tied)
        embedding, scores = initialize(network, rule="lsuv", batch=batch, generator=generator()).layers
        assert embedding.output_std is None
        assert scores.output_std == pytest.approx(1.0, abs=0.005)
        if tied:
            assert embedding.std == scores.std
        else:
            torch.testing.assert_close(
                network.embedding.weight.detach(), torch.randn(30, 8, 1, generator=generator())[..., 0]
            )


def test_outputs_that_are_the_same_everywhere_do_not_blow_up() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    with pytest.warns(LastLayerWarning, match="'0', '2': left unscaled, since on this batch its output is the same"):
        record = initialize(network, rule="lsuv", batch=torch.zeros(20, 4))
    assert all(0 < row.std < 1 for row in record.layers)
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())

    class Dead(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x - 1e9)

    network[1] = Dead()
    with pytest.warns(LastLayerWarning, match="^initialize: '2': left unscaled"):
        initialize(network, rule="lsuv", batch=torch.randn(20, 4))
    network[1] = nn.Threshold(0.0, math.inf)
    with pytest.warns(LastLayerWarning, match="^initialize: '2': left unscaled.* not finite"):
        initialize(network, rule="lsuv", batch=torch.randn(20, 4))
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def test_a_weight_whose_scale_does_nothing_is_left() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(10, 10)))
    with pytest.warns(LastLayerWarning, match="'2': left unscaled, since its output does not follow"):
        initialize(network, rule="lsuv", batch=torch.randn(50, 10))
    assert 0.01 < float(network[2].parametrizations.weight.original.detach().std()) < 1


def test_modes_random_state_hooks_and_statistics_are_as_they_were() -> None:
    network = convolutional()
    network[1].eval()
    network[6].p = 0.9
    seen: list[float] = []
    network[4].register_forward_hook(lambda _, __, output: seen.append(float(output.std(correction=0))))
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    initialize(network, rule="lsuv", batch=images(), generator=generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert [len(module._forward_hooks) for module in network] == [int(place == 4) for place in range(13)]
    assert network[1].num_batches_tracked == 0
    # The user's own hook sees the layer as it is in the end.
    assert seen[-1] == pytest.approx(1.0, abs=0.01)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    other = convolutional()
    other[1].eval()
    initialize(other, rule="lsuv", batch=images(), generator=generator())
    assert all(map(torch.equal, network.parameters(), other.parameters()))


def test_a_network_that_fails_midway_has_its_modes_back() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5).eval(), Fails())
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match="could not be called with the batch"):
        initialize(network, rule="lsuv", batch=torch.ones(2, 3))
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


WRONG: list[tuple[Any, type[Exception], str]] = [
    (torch.randn(3, 5), InputError, "could not be called with the batch .RuntimeError"),
    ((torch.randn(3, 4), torch.zeros(3)), InputError, "without targets; a tuple is taken as several inputs"),
    (torch.randn(0, 4), InputError, r"shape \(0, 4\); expected some rows"),
    (torch.full((3, 4), math.nan), InputError, "not finite"),
    ("batch", KindError, "the batch is str; expected the network's input"),
    ([1.0, 2.0], KindError, "the batch is list"),
    (3, KindError, "the batch is int"),
]


@pytest.mark.parametrize(("batch", "kind", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_batch_is_an_error_and_changes_nothing(batch: Any, kind: type[Exception], message: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(kind, match=message):
        initialize(network, rule="lsuv", batch=batch)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": math.nan}, {"iterations": 0}], ids=str)
def test_options_that_cannot_be_reached_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="LSUV: tolerance is"):
        LSUV(**options)


def test_a_scale_of_the_variance_in_place_of_the_deviation_is_caught() -> None:
    """A wrong twin by hand: one division by the variance leaves the variance 1/v, unless v is 1."""
    network, batch = nn.Sequential(nn.Linear(20, 20)), 3 * torch.randn(100, 20)
    initialize(network, rule="orthogonal")
    with torch.no_grad():
        network[0].weight /= network(batch).var(correction=0)
    assert abs(deviations(network, batch)["0"] ** 2 - 1) > 0.5
