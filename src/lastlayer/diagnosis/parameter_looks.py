"""What a step does to the parameters: their gradients, and how far they move for their size."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lastlayer.diagnosis.run_record import Look, ParameterLooks

#: Elements of a parameter that are looked at, evenly spread: the root mean square of so many is known to a percent.
ELEMENTS = 1 << 14
#: A gradient below so many last places of the others is rounding: of a bias before batch normalization, which has none.
LAST_PLACES = 100
MOST_OF_OTHERS = 0.1


@dataclass
class _Counts:
    dtype: str
    looks: int = 0
    moved: int = 0
    rate: float = 0.0


class ParameterWatch:
    """Measures single steps of an optimizer: call :meth:`before` and :meth:`after` around one.

    Figures are reduced where the parameters are, and read by the host once, after the step.

    Args:
        network: whose parameters are named; others of the optimizer are passed over.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._counts: dict[str, _Counts] = {}
        self._waiting: list[tuple[str, Tensor, Tensor, Tensor, float]] = []

    @torch.no_grad()
    def before(self, optimizer: Optimizer) -> None:
        """Notes gradients and parameters as the step finds them."""
        names = {id(parameter): name for name, parameter in self._network.named_parameters()}
        self._waiting = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                gradient, name = parameter.grad, names.get(id(parameter))
                if name is None or gradient is None or gradient.is_sparse or parameter.numel() == 0:
                    continue
                pair = (_some(parameter).clone(), _some(gradient).clone())
                self._waiting.append((name, parameter, *pair, float(group.get("lr", math.nan))))

    @torch.no_grad()
    def after(self, step: int) -> Look | None:
        """What the step did; ``None`` if it had no gradients."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return None
        reduced = []
        for _, parameter, before, pulled, _ in waiting:
            now = _some(parameter)
            moves = (now - before).float()
            finite = torch.isfinite(now).all()
            any_moves = (moves != 0).any().float()
            squares = [_mean_square(pulled), _mean_square(before), moves.square().mean()]
            reduced.append(torch.stack([*squares, any_moves, finite.float()]))
        figures = _on_host(reduced)
        elements = sum(parameter.numel() for _, parameter, *_ in waiting)
        sizes = [parameter.numel() / elements for _, parameter, *_ in waiting]
        gradient = sum(share * slope for share, (slope, *_) in zip(sizes, figures, strict=True))
        weight = sum(share * size for share, (_, size, *_) in zip(sizes, figures, strict=True))
        updates: list[float] = []
        for (name, parameter, *_, rate), (slope, size, change, moved, _) in zip(waiting, figures, strict=True):
            self._count(name, parameter, rate, moved=bool(moved), slope=slope, of_all=gradient)
            # Of biases and gains that start at 0 or 1 the share says nothing.
            if parameter.dim() > 1 and size > 0:
                updates.append(math.sqrt(change / size) if math.isfinite(change / size) else math.inf)
        return Look(
            step=step,
            rate=max(rate for *_, rate in waiting),
            gradient=math.sqrt(gradient) if gradient >= 0 else math.nan,
            weight=math.sqrt(weight) if weight >= 0 else math.nan,
            update=statistics.median(updates) if updates else math.nan,
            largest_update=max(updates) if updates else math.nan,
            finite=all(finite for *_, finite in figures),
        )

    def _count(self, name: str, parameter: Tensor, rate: float, *, moved: bool, slope: float, of_all: float) -> None:
        """Takes note of whether a parameter moved, if its gradient is one beside those of all."""
        counts = self._counts.setdefault(name, _Counts(str(parameter.dtype).removeprefix("torch.")))
        rounding = min(LAST_PLACES * torch.finfo(parameter.dtype).eps, MOST_OF_OTHERS)
        if slope > rounding**2 * of_all:
            counts.looks += 1
            counts.moved += moved
            counts.rate = max(counts.rate, rate)

    @property
    def parameters(self) -> tuple[ParameterLooks, ...]:
        """Every parameter that had a gradient, and what the steps looked at did to it."""
        return tuple(
            ParameterLooks(name, counts.dtype, counts.looks, counts.moved, counts.rate)
            for name, counts in self._counts.items()
        )


def _some(tensor: Tensor) -> Tensor:
    """Elements evenly spread over the tensor, as many as are looked at."""
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    return flat[:: -(-len(flat) // ELEMENTS)]


def _mean_square(values: Tensor) -> Tensor:
    return values.float().square().mean()


def _on_host(reduced: list[Tensor]) -> list[list[float]]:
    if len({each.device for each in reduced}) == 1:
        result: list[list[float]] = torch.stack(reduced).tolist()
        return result
    return [each.tolist() for each in reduced]
