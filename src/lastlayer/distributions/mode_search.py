"""Maxima of a mixture's density: found on a grid that follows every component, then refined by the slope's sign."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lastlayer.distributions.quantile_search import CHUNK, EPSILON, bracketed_root

if TYPE_CHECKING:
    from lastlayer.distributions.mixture import Mixture

# Of each component; fewer where there are many components, which then lie close to each other.
SHARES = (1e-6, 1e-3, 0.02, 0.08, 0.18, 0.3, 0.42, 0.5, 0.58, 0.7, 0.82, 0.92, 0.98, 0.999, 1.0 - 1e-6)
FEWER_SHARES = (1e-3, 0.15, 0.5, 0.85, 0.999)
MANY_COMPONENTS = 24
# Two maxima are distinct if the density between them falls below the lower one by more than this share of it.
LEAST_DIP = 1e-10
# Stands for an open end at 0: much less, and densities would meet numbers without all their digits.
TINY = 1e-300


def best_mode(mixture: Mixture) -> Tensor:
    """The likeliest value of every element, with the gradient of the implicit function.

    Gradient: ``−∂g/∂θ / (∂g/∂y)`` with g the slope of the log density; at a kink or an end, where the density is
    greatest without its slope being 0, that of the one component whose mode it is nearest. Of whole numbers it is 0. Of
    densities made of steps that is the movement of that component's mode, not of the step's edges.
    """
    with torch.no_grad():
        flat = mixture.flat()
        if mixture.discrete:
            value = _likeliest_whole_number(flat)
        else:
            location, at_location = local_maxima(flat)
            best = at_location.nan_to_num(nan=-torch.inf).argmax(0, keepdim=True)
            value = location.gather(0, best)[0]
        value = value.reshape(mixture.shape)
    if not mixture.discrete and torch.is_grad_enabled():
        value = _with_gradient(mixture, value)
    return value.to(mixture.log_weight.dtype)


def local_maxima(flat: Mixture) -> tuple[Tensor, Tensor]:
    """All maxima of the density of float64 mixtures of shape (elements,), and the logarithm of the density there.

    The grid is made of all components' modes, of quantiles of each, of the points midway between the sorted modes, and
    of the support's ends. Signs of the slope at its points and of the differences between them alternate; wherever a
    rise is followed by a fall there is a maximum, and the slope's change of sign is searched to the last digit. Of that
    point and the grid's own the densest is taken, so that kinks and ends are found exactly. The edges of densities made
    of steps are not looked for: there the densest of the grid's points is taken.

    Returns:
        Two tensors of shape (most, elements), ascending, NaN where an element has fewer.
    """
    if not flat.shape.numel():
        return torch.full_like(flat.log_weight[:1], torch.nan), torch.full_like(flat.log_weight[:1], torch.nan)
    size = max(1, CHUNK // _work(flat))
    elements = torch.arange(flat.shape[0], device=flat.log_weight.device)
    parts = [_local_maxima(flat[index]) for index in elements.split(size)]
    most = max(len(part[0]) for part in parts)
    padded = [[_padded(tensor, most) for tensor in part] for part in parts]
    return torch.cat([part[0] for part in padded], 1), torch.cat([part[1] for part in padded], 1)


def slope(mixture: Mixture, value: Tensor) -> Tensor:
    """The derivative of the log density in the value; 0 where there is none."""
    with torch.enable_grad():
        point = value.detach().requires_grad_()
        (result,) = torch.autograd.grad(mixture._log_prob(point).sum(), point)
    return torch.nan_to_num(result, nan=0.0, posinf=0.0, neginf=0.0)


def log_density(flat: Mixture, value: Tensor) -> Tensor:
    """Of float64 mixtures; at an end of an open support what it is just inside, since maxima may lie there."""
    low, high = flat.support.low, flat.support.high
    if not flat.support.low_closed and low > -math.inf:
        value = value.clamp_min(TINY if low == 0.0 else math.nextafter(low, math.inf))
    if not flat.support.high_closed and high < math.inf:
        value = value.clamp_max(-TINY if high == 0.0 else math.nextafter(high, -math.inf))
    return flat._log_prob(value)


def component_modes(flat: Mixture) -> Tensor:
    """Where each component is densest, shape (components, elements)."""
    return flat.components.mode.detach()


def _work(flat: Mixture) -> int:
    """How many densities of components one element's grid takes."""
    count = flat.components.shape[0]
    return count * count * (len(_shares(flat)) + 2)


def _shares(flat: Mixture) -> tuple[float, ...]:
    return SHARES if flat.components.shape[0] <= MANY_COMPONENTS else FEWER_SHARES


def _padded(tensor: Tensor, length: int) -> Tensor:
    return torch.cat([tensor, tensor.new_full((length - len(tensor), *tensor.shape[1:]), torch.nan)])


def _grid(flat: Mixture) -> Tensor:
    modes = component_modes(flat).sort(0).values
    shares = torch.tensor(_shares(flat), dtype=modes.dtype, device=modes.device)
    quantiles = flat.components._quantile(shares[:, None, None].expand(-1, *flat.components.shape)).flatten(0, 1)
    ends = [modes.new_full((1, modes.shape[1]), end) for end in (flat.support.low, flat.support.high)]
    grid = torch.cat([modes, 0.5 * (modes[1:] + modes[:-1]), quantiles, *ends])
    # What is infinite (an end, or a component there) is put where a point already is.
    anywhere = torch.where(torch.isfinite(grid), grid, torch.full_like(grid, torch.inf)).amin(0)
    return torch.where(torch.isfinite(grid), grid, anywhere).sort(0).values


def _local_maxima(flat: Mixture) -> tuple[Tensor, Tensor]:
    grid = _grid(flat)
    on_grid = log_density(flat, grid)
    left, right, element, turn = _turns(grid, slope(flat, grid), on_grid)
    low, high = grid[left, element], grid[right, element]

    def problem(rows: Tensor) -> Callable[[Tensor], Tensor]:
        part = flat[element[rows]]
        return lambda x: -slope(part, x)

    low, high = bracketed_root(problem, low, high, torch.zeros_like(low))
    # The first point inside the bracket is there for kinks: a bracket of two edges has its summit on the grid.
    nodes = [grid[index, element] for index in (left, torch.minimum(left + 1, right), right)]
    candidates = torch.stack([high, low, *nodes])
    at_candidates = torch.nan_to_num(log_density(flat[element], candidates), nan=-torch.inf, posinf=torch.inf)
    # Of equals the first: the slope tells a smooth summit better than the density, which is flat there.
    best = at_candidates.argmax(0, keepdim=True)
    value, at_value = candidates.gather(0, best)[0], at_candidates.gather(0, best)[0]
    snapped = _snapped(value, at_value, candidates, at_candidates)
    valley = _valleys(on_grid, turn, left, right, element)
    return _distinct(snapped, at_value, valley, element, turn, flat.shape[0])


def _snapped(value: Tensor, at_value: Tensor, candidates: Tensor, at_candidates: Tensor) -> Tensor:
    """A grid's point within a few roundings that is as dense: at a kink the search ends on either side of it."""
    searched, _, *nodes = candidates
    _, _, *at_nodes = at_candidates
    for node, at_node in zip(nodes, at_nodes, strict=True):
        near = (value - node).abs() <= 8.0 * EPSILON * node.abs()
        value = torch.where(near & (value != searched) & (at_node >= at_value), node, value)
    return value


def _turns(grid: Tensor, slopes: Tensor, on_grid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where a rise is followed by a fall: the grid's indices on both sides, the element, which one of the element's."""
    difference = torch.nan_to_num(on_grid[1:] - on_grid[:-1], nan=0.0)
    noise = 8.0 * EPSILON * (1.0 + torch.nan_to_num(on_grid[1:].abs(), nan=0.0, posinf=0.0))
    difference = difference.masked_fill(difference.abs() <= noise, 0.0)
    points, size = grid.shape
    signs = torch.zeros(2 * points + 1, size, dtype=torch.int8, device=grid.device)
    # Before the first point the density rises, behind the last it falls, by definition.
    signs[0], signs[-1] = 1, -1
    signs[1:-1:2] = slopes.sign().to(torch.int8)
    signs[2:-1:2] = difference.sign().to(torch.int8)
    place = torch.arange(len(signs), device=grid.device).unsqueeze(-1)
    last = torch.where(signs != 0, place, torch.zeros_like(place)).cummax(0).values
    before = last[:-1]
    rising = signs.gather(0, before) > 0
    turned = rising & (signs[1:] < 0)
    element, position = turned.T.nonzero().unbind(1)
    start = before[position, element]
    # Signs at odd places belong to points, those at even places to the edge between the two points beside them.
    left = (start - 1).div(2, rounding_mode="floor").clamp_min(0)
    right = (position + 1).div(2, rounding_mode="floor").clamp_max(points - 1)
    turn = turned.T.cumsum(1)[element, position] - 1
    return left, right, element, turn


def _valleys(on_grid: Tensor, turn: Tensor, left: Tensor, right: Tensor, element: Tensor) -> Tensor:
    """The least of the grid's densities between each maximum and the one before it; +∞ for the first."""
    points, size = on_grid.shape
    begins = torch.zeros(points + 1, size, dtype=torch.int64, device=on_grid.device)
    begins.index_put_((right, element), torch.ones_like(right), accumulate=True)
    segment = begins[:-1].cumsum(0)
    most = int(segment.max()) + 1
    least = on_grid.new_full((most, size), torch.inf)
    least.scatter_reduce_(0, segment, torch.nan_to_num(on_grid, nan=torch.inf, posinf=torch.inf), "amin")
    return least[turn, element]


def _distinct(
    value: Tensor, at_value: Tensor, valley: Tensor, element: Tensor, turn: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    most = int(turn.max()) + 1
    table = [value.new_full((most, size), torch.nan) for _ in range(3)]
    for row, column in zip(table, (value, at_value, valley), strict=True):
        row[turn, element] = column
    location, density, between = table
    kept, kept_density = torch.full_like(location, torch.nan), torch.full_like(location, torch.nan)
    every = torch.arange(size, device=value.device)
    number = torch.zeros_like(every)
    kept[0], kept_density[0] = location[0], density[0]
    lowest = torch.full_like(location[0], torch.inf)
    for index in range(1, most):
        present = ~torch.isnan(location[index])
        lowest = torch.where(present, torch.minimum(lowest, between[index]), lowest)
        current = kept_density[number, every]
        apart = present & (torch.minimum(current, density[index]) - lowest > LEAST_DIP)
        higher = present & ~apart & (density[index] > current)
        number = number + apart.long()
        changed = apart | higher
        kept[number[changed], every[changed]] = location[index][changed]
        kept_density[number[changed], every[changed]] = density[index][changed]
        lowest = torch.where(changed, torch.full_like(lowest, torch.inf), lowest)
    used = int(number.max()) + 1
    return kept[:used], kept_density[:used]


def _likeliest_whole_number(flat: Mixture) -> Tensor:
    """The best whole number between the least and the greatest of the components' modes, of which all are candidates.

    The grid's way would need the slope; instead all whole numbers are looked at, block by block.
    """
    modes = component_modes(flat)
    low, high = modes.amin(0), modes.amax(0)
    best, at_best = low.clone(), flat._log_prob(low)
    block = max(1, CHUNK // max(1, flat.components.shape[0] * flat.shape[0]))
    start = low + 1.0
    while bool((start <= high).any()):
        length = min(block, int((high - start).max()) + 1)
        numbers = start + torch.arange(length, dtype=low.dtype, device=low.device).unsqueeze(-1)
        numbers = torch.minimum(numbers, high)
        densities = flat._log_prob(numbers)
        densest, index = densities.max(0)
        better = densest > at_best
        best = torch.where(better, numbers.gather(0, index.unsqueeze(0))[0], best)
        at_best = torch.where(better, densest, at_best)
        start = start + length
    return best


def _with_gradient(mixture: Mixture, value: Tensor) -> Tensor:
    """The same value, with the derivatives of the slope's root: two of Newton's steps that move nothing."""
    double = mixture.double()
    if not double._log_prob(value).requires_grad:
        return value
    own = double.components.mode
    with torch.no_grad():
        nearest = (own - value).abs().nan_to_num(nan=torch.inf).argmin(0, keepdim=True)
    kink = own.gather(0, nearest)[0]
    kink = torch.where(torch.isfinite(value), kink - kink.detach(), torch.zeros_like(kink))
    point = value.clone().requires_grad_()
    for _ in range(2):
        (tangent,) = torch.autograd.grad(double._log_prob(point).sum(), point, create_graph=True)
        (curvature,) = torch.autograd.grad(tangent.sum(), point, create_graph=True, allow_unused=True)
        if curvature is None:
            return value + kink
        smooth = curvature < 0
        missing = torch.where(smooth, tangent - tangent.detach(), torch.zeros_like(tangent))
        point = point - missing / torch.where(smooth, curvature, -torch.ones_like(curvature))
    return torch.where(smooth, point, value + kink)
