"""The record of every layer's signal: its figures beside NumPy's, its parts beside the network's own structure."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lastlayer import heads
from lastlayer.diagnosis.layer_figures import BINS, FLAT, _of_finite_part, _of_signal
from lastlayer.diagnosis.layers import LayerRecord, Signal, record_layers
from lastlayer.diagnosis.signals import judge_layers

ROWS = 50


def agrees(signal: Signal, values: NDArray[np.float64], *, rows: int = 0, digits: int = 9) -> bool:
    """Every figure, by NumPy in float64."""
    counts, edges = np.histogram(values, bins=BINS, range=(values.min(), values.max()))
    expected = {
        "mean": values.mean(),
        "std": values.std(),
        "rms": np.sqrt(np.mean(values**2)),
        "minimum": values.min(),
        "maximum": values.max(),
        "zeros": np.mean(values == 0),
        "finite": 1.0,
        "variation": np.sqrt(values.var(axis=rows).mean()),
    }
    numbers = all(math.isclose(getattr(signal, name), value, rel_tol=10**-digits) for name, value in expected.items())
    # A value on an edge may fall to either side; of half precision many are.
    moved = np.abs(np.array(signal.counts) - counts).sum()
    return numbers and moved <= (2 if digits == 9 else 40) and np.allclose(signal.edges, edges)


def as_numpy(x: Tensor) -> NDArray[np.float64]:
    return x.detach().double().numpy()


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)).double()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(ROWS, width, generator=generator, dtype=torch.float64) for width in (4, 1))
    return x, y


def by_hand(network: nn.Sequential, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of every module, and their gradients, by autograd alone."""
    outputs = []
    for module in network:
        x = module(x)
        x.retain_grad()
        outputs.append(x)
    F.mse_loss(x, y).backward()
    gradients = [output.grad for output in outputs]
    assert all(gradient is not None for gradient in gradients)
    return outputs, gradients  # type: ignore[return-value]


def test_figures_of_activations_and_gradients(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    layers = record_layers(network, batch[0], nn.MSELoss(), batch[1])
    outputs, gradients = by_hand(network, *batch)
    assert [layer.label for layer in layers] == [
        f"layer '{place}' ({type(module).__name__})" for place, module in enumerate(network)
    ]
    for layer, output, gradient in zip(layers, outputs, gradients, strict=True):
        assert agrees(layer.output, as_numpy(output))
        assert layer.gradient is not None
        assert agrees(layer.gradient, as_numpy(gradient))
    assert layers[2].input == layers[1].output
    # Deliberately wrong: over units in place of rows.
    assert not agrees(layers[0].output, as_numpy(outputs[0]), rows=1)


def test_parameters(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    layers = record_layers(network, batch[0], nn.MSELoss(), batch[1])
    F.mse_loss(network(batch[0]), batch[1]).backward()
    found = {parameter.name: parameter for layer in layers for parameter in layer.parameters}
    assert list(found) == [name for name, _ in network.named_parameters()]
    for name, parameter in network.named_parameters():
        record = found[name]
        assert record.shape == tuple(parameter.shape)
        assert math.isclose(record.norm, np.linalg.norm(as_numpy(parameter)), rel_tol=1e-9)
        assert math.isclose(record.std, as_numpy(parameter).std(), rel_tol=1e-9, abs_tol=1e-12)
        assert parameter.grad is not None
        assert record.gradient_norm is not None
        assert math.isclose(record.gradient_norm, np.linalg.norm(as_numpy(parameter.grad)), rel_tol=1e-6)


def test_units_on_flat_sides(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        network[0].bias[:3] = -30.0
        network[0].bias[3] = 30.0
        network[2].weight[0] *= 200
    relu, tanh = (layer for layer in record_layers(network, batch[0]) if layer.role == "activation")
    before = as_numpy(network[0](batch[0]))
    assert relu.units == 16
    assert relu.flat_sides == 1
    assert relu.saturated == pytest.approx(np.mean(before <= 0))
    assert relu.dead_units == np.sum((before <= 0).all(axis=0)) >= 3
    assert relu.active_units == np.sum((before > 0).all(axis=0)) >= 1
    slope = 1 - np.tanh(as_numpy(network[:3](batch[0]))) ** 2
    assert tanh.flat_sides == 2
    assert tanh.saturated == pytest.approx(np.mean(slope < FLAT))
    assert tanh.saturated_units == np.sum((slope < FLAT).mean(axis=0) >= 0.95)


@pytest.mark.parametrize(
    ("module", "flat"),
    [
        (nn.ReLU(inplace=True), 1),
        (nn.ReLU6(), 1),
        (nn.Hardswish(), 1),
        (nn.ELU(inplace=True), 1),
        (nn.GELU(), 1),
        (nn.Threshold(0.1, 0.0, inplace=True), 1),
        (nn.Hardtanh(), 2),
        (nn.Sigmoid(), 2),
        (nn.Softsign(), 2),
        (nn.LeakyReLU(0.1, inplace=True), 0),
        (nn.RReLU(), 0),
        (nn.PReLU(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_every_activation_is_read_by_its_slope(module: nn.Module, flat: int) -> None:
    """Far on the left; a slope by symmetric differences of the module itself."""
    torch.manual_seed(0)
    linear = nn.Linear(4, 6).double()
    nn.init.constant_(linear.bias, -8.0)
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    record = record_layers(nn.Sequential(linear, module.double(), nn.Linear(6, 1).double()), x)[1]
    assert record.flat_sides == flat
    if not flat:
        assert record.saturated is None
        assert record.dead_units is None
        return
    before, step = linear(x).detach(), 1e-6
    slope = (module((before + step).clone()) - module((before - step).clone())) / (2 * step)
    steepest = 0.25 if isinstance(module, nn.Sigmoid) else 1.0
    assert record.saturated == pytest.approx((slope.abs() < FLAT * steepest).double().mean().item())


def test_structure() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.gate = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.norm, self.last = nn.LayerNorm(6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            y = x + self.branch(self.norm(x)) * torch.sigmoid(self.gate(x)).view(-1, 6)
            return torch.sigmoid(self.last(y))

    layers = record_layers(Net(), torch.randn(ROWS, 3))
    names = [layer.module or layer.name for layer in layers]
    assert names == ["stem", "relu", "norm", "branch", "gate", "sigmoid", "last", "sigmoid"]
    assert [layer.role for layer in layers[:4]] == ["weight", "activation", "normalization", "weight"]
    assert {names[source] for source in layers[6].sources} == {"relu", "branch", "sigmoid"}
    assert [layer.hidden for layer in layers] == [True] * 6 + [False] * 2
    assert [layer.gate for layer in layers if layer.name == "sigmoid"] == [True, False]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_far_from_one(scale: float) -> None:
    """The square of what lies in float32's last decades is 0 there, and in its first infinite; the figures are not."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    x, y = torch.randn(ROWS, 4), torch.randn(ROWS, 1)
    plain = record_layers(network, x, nn.MSELoss(), y)

    def scaled(raw: Tensor, target: Tensor) -> Tensor:
        return scale * F.mse_loss(raw, target)

    for layer, other in zip(record_layers(network, x, scaled, y), plain, strict=True):
        assert layer.gradient is not None
        assert other.gradient is not None
        assert layer.gradient.rms == pytest.approx(scale * other.gradient.rms, rel=1e-4)
        assert np.abs(np.subtract(layer.gradient.counts, other.gradient.counts)).sum() <= 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype, network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    narrow = network.to(dtype)
    layers = record_layers(narrow, batch[0].to(dtype), nn.MSELoss(), batch[1].to(dtype))
    assert agrees(layers[0].output, as_numpy(narrow[0](batch[0].to(dtype))), digits=9 if dtype == torch.float64 else 5)


def test_what_is_not_finite_is_counted_apart(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    x = batch[0].clone()
    x[0, 0], x[1, 1] = math.inf, math.nan
    first = record_layers(network, x, nn.MSELoss(), batch[1])[0]
    finite = as_numpy(network[0](x))
    assert first.output.finite == np.isfinite(finite).mean() < 1
    finite = finite[np.isfinite(finite)]
    assert first.output.maximum == finite.max()
    assert first.output.std == pytest.approx(finite.std())
    assert sum(first.output.counts) == len(finite)
    nothing = record_layers(network, torch.full_like(x, math.nan))[0].output
    assert nothing.finite == 0
    assert math.isnan(nothing.rms)
    assert sum(nothing.counts) == 0


@pytest.mark.parametrize("rows", [0, 1, None])
def test_both_ways_to_reduce_agree(rows: int | None) -> None:
    """The one for the host, which asks whether all is finite, and the one for a device, which does not."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(ROWS, 30, generator=generator, dtype=torch.float64)
    for x in (normal, normal.relu(), 1e-200 * normal, 3 + 0 * normal, 0 * normal):
        for_device, for_host = _of_finite_part(x, rows), _of_signal(x, rows)
        assert torch.allclose(for_device[:8], for_host[:8], rtol=1e-9, atol=0, equal_nan=True)
        assert (for_device[8:] - for_host[8:]).abs().sum() <= 2
        assert for_host[8:].sum() == x.numel()


def test_as_plain_data(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    x = torch.full_like(batch[0], math.nan)
    for features, loss in ((batch[0], nn.MSELoss()), (batch[0], None), (x, nn.MSELoss()), (batch[0][:1], nn.MSELoss())):
        layers = record_layers(network, features, loss, batch[1][: len(features)])
        text = json.dumps([layer.to_dict() for layer in layers], allow_nan=False)
        again = tuple(LayerRecord.from_dict(each) for each in json.loads(text))
        assert repr(again) == repr(layers)  # NaN is not equal to itself.
        assert len(json.loads(text)[0]["output"]["edges"]) == BINS + 1
    with torch.no_grad():
        network[0].weight[0, 0] = math.nan
    (first, *_) = record_layers(network, batch[0])
    again_first = LayerRecord.from_dict(json.loads(json.dumps(first.to_dict(), allow_nan=False)))
    assert math.isnan(again_first.parameters[0].norm)
    assert not judge_layers([again_first], rows=ROWS)


def test_no_trace_is_left(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    network.insert(2, nn.Dropout(0.5))
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    first = record_layers(network, batch[0], nn.MSELoss(), batch[1])
    assert torch.equal(random, torch.get_rng_state())
    assert first == record_layers(network, batch[0], nn.MSELoss(), batch[1])
    assert not any(
        module.training or module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    evaluated = record_layers(network, batch[0], nn.MSELoss(), batch[1], training=False)
    assert evaluated[2].input == evaluated[1].output
    assert first[2].input != first[1].output


def test_inputs_of_every_kind(batch: tuple[Tensor, Tensor]) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.first, self.last = nn.Embedding(5, 3), nn.Linear(4, 3), nn.Linear(6, 2)

        def forward(self, x: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
            raw = self.last(torch.cat([torch.tanh(self.first(x)), self.embedding(kind)], dim=1))
            return raw[:, :1], raw[:, 1:]

    kind = torch.randint(5, (ROWS,))
    for features in ((batch[0], kind), {"x": batch[0], "kind": kind}):
        layers = record_layers(Named().double(), features, lambda raw, target: F.mse_loss(raw[0], target), batch[1])
        assert [layer.name for layer in layers] == ["linear", "tanh", "embedding", "linear"]
        assert layers[2].parameters[0].units_differ is None
        assert set(layers[3].sources) == {1, 2}
    by_head = record_layers(nn.Linear(4, 1).double(), batch[0], heads.Gaussian(), batch[1][:, 0])
    assert by_head[0].gradient is not None


def test_what_cannot_be_run_gives_what_there_was(batch: tuple[Tensor, Tensor]) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(4, 1)).double()
    assert [layer.name for layer in record_layers(network, batch[0], nn.MSELoss(), batch[1])] == ["linear", "relu"]
    assert record_layers(nn.Sequential(nn.Linear(4, 3)).double(), batch[0][:0]) == ()
    assert record_layers(nn.Identity(), batch[0]) == ()


def test_one_row_has_no_variation(network: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    (first, *_) = record_layers(network, batch[0][:1], nn.MSELoss(), batch[1][:1])
    assert math.isnan(first.output.variation)
    assert first.output.rms > 0
