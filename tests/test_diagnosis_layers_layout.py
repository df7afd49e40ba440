"""Which axis is which: units, rows, members and the weights of a unit, told by the operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lastlayer.diagnosis.layers import ParameterRecord, record_layers
from lastlayer.networks import Linear, SharedLinear

ROWS = 50


def as_numpy(x: Tensor) -> NDArray[np.float64]:
    return x.detach().double().numpy()


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 2))


class Tokens(nn.Module):
    """(n, T, D) throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)).mean(1))


class ByHand(nn.Module):
    """A layer of one's own, weights laid out (inputs, outputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(2, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.weight) @ self.last.T


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, tuple[int, ...]]] = {
    "columns": (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (ROWS, 3), 5, (0,)),
    "images": (conv, (ROWS, 3, 8, 8), 5, (0, 2, 3)),
    "tokens": (Tokens, (ROWS, 7, 3), 5, (0, 1)),
    "by hand": (ByHand, (ROWS, 3), 5, (0,)),
    "members": (
        lambda: nn.Sequential(Linear(3, 5, members=4), nn.ReLU(), Linear(5, 2, members=4)),
        (ROWS, 3),
        20,
        (1,),
    ),
    "shared members": (
        lambda: nn.Sequential(SharedLinear(3, 5, members=4, diverse=True), nn.ReLU(), SharedLinear(5, 2, members=4)),
        (ROWS, 3),
        5,
        (0, 1),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_units_and_rows_are_told_by_the_weights(name: str) -> None:
    make, shape, units, others = LAYOUTS[name]
    torch.manual_seed(3)
    network, x = make(), torch.randn(shape)
    seen: list[Tensor] = []

    def watched(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watch(given: Tensor, *arguments: object, **keywords: object) -> Tensor:
            seen.append(function(given, *arguments, **keywords))
            return seen[-1]

        return watch

    relu = next(layer for layer in record_layers(network, x) if layer.name == "relu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", watched(F.relu))
        patch.setattr(torch, "relu", watched(torch.relu))
        network(x)
    assert relu.units == units
    zero = as_numpy(seen[0]) == 0
    assert relu.dead_units == zero.all(axis=others).sum()
    assert relu.active_units == (~zero).all(axis=others).sum()
    rows = 1 if "members" in name else 0
    assert relu.output.variation == pytest.approx(np.sqrt(as_numpy(seen[0]).var(axis=rows).mean()))


def weights_of_the_first(network: nn.Module, x: Tensor) -> ParameterRecord:
    first = next(layer for layer in record_layers(network, x) if layer.role == "weight")
    return next(parameter for parameter in first.parameters if "weight" in parameter.name)


@pytest.mark.parametrize(
    ("network", "units"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), 4),
        (nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)), 4),
        (nn.Sequential(nn.ConvTranspose1d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)), 4),
        (nn.Sequential(nn.Unflatten(1, (1, 3)), nn.LSTM(3, 4, batch_first=True)), 4),
        (nn.Sequential(Linear(3, 4, members=2), nn.ReLU(), Linear(4, 1, members=2)), 4),
        (ByHand(), 5),
    ],
    ids=["linear", "convolution", "transposed convolution", "gates", "members", "by hand"],
)
def test_units_that_are_alike(network: nn.Module, units: int) -> None:
    """Equal weights of the units of one layer are seen whichever axis they lie on, and whatever stands beside them."""
    x = torch.randn(ROWS, 3, 1) if "Conv" in str(network) else torch.randn(ROWS, 3)
    first = weights_of_the_first(network, x)
    assert first.units == units
    assert first.units_differ is not None
    assert first.units_differ > 0.01
    with torch.no_grad():
        weight = network.get_parameter(first.name)
        # One unit's weights for all of them; gates and members have each their own.
        if isinstance(network, ByHand) or "Transpose" in str(network):
            weight.copy_(weight[:, :1].expand_as(weight))
        elif "LSTM" in str(network):
            weight.copy_(weight.view(4, 4, 3)[:, :1].expand(4, 4, 3).reshape(16, 3))
        elif weight.dim() == 3 and "Conv" not in str(network):
            weight.copy_(weight[:, :1].expand_as(weight))
        else:
            weight.copy_(weight[:1].expand_as(weight))
    assert weights_of_the_first(network, x).units_differ == 0
