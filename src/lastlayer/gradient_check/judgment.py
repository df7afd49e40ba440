"""One tensor's gradient beside differences: element by element, and along directions that see every element."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lastlayer.gradient_check.differences import Line, Probe, Quotients, default_step, machine_precision
from lastlayer.gradient_check.result import TensorCheck

# An element far below the gradient's root mean square is judged on this share of it: what is negligible there.
_NEGLIGIBLE = 0.01
# Where the first step disagrees: wider ones against rounding, narrower ones against curvature and kinks nearby.
_WIDER = (16.0, 4.0)
_NARROWER = (1 / 8, 1 / 64, 1 / 512, 1 / 4096)
# To convict a gradient, three steps in a row must agree with each other so many times better than with it, and so must
# steps a little off the middle one: coarse rounding, or many kinks, may agree three times by chance.
_AGREEMENT = 20
_OFF = (0.73, 1.37)
# So many elements that are surely wrong are enough: the other suspects are then taken to be wrong as well.
_ENOUGH = 3


@dataclass(frozen=True)
class Options:
    """How thoroughly a gradient is checked, and how strictly."""

    samples: int
    directions: int
    tolerance: float | None
    step: float | None
    generator: torch.Generator


@dataclass(frozen=True)
class Finding:
    """One slope, claimed and measured."""

    verdict: Literal["right", "kink", "unsettled", "wrong"]
    analytic: float
    numerical: float
    relative_error: float
    noise: float

    @property
    def badness(self) -> tuple[float, float]:
        """Worse is greater; of two relative errors that are about equal, the one that weighs more."""
        return float(f"{self.relative_error:.1e}"), abs(self.analytic - self.numerical)


def default_tolerance(dtype: torch.dtype) -> float:
    """5e-7 in float64, 4e-4 in float32: symmetric differences reach it unless the function bends sharply."""
    return machine_precision(dtype) ** (1 / 3) / 10


def check_tensor(probe: Probe, claimed: Tensor | None, *, name: str, how: str, options: Options) -> TensorCheck:
    """All there is to say about one gradient; ``None`` counts as zero."""
    judge = _Judge(probe, claimed, options)
    findings = judge.elements()
    directions = judge.directions(findings)
    kinds = [finding.verdict for finding in findings.values()]
    candidates = {at: finding for at, finding in findings.items() if finding.verdict == "wrong"} or {
        at: finding for at, finding in findings.items() if finding.verdict == "right"
    }
    worst = max(candidates, key=lambda at: candidates[at].badness, default=None)
    shown = candidates[worst] if worst is not None else Finding("right", 0.0, 0.0, 0.0, 0.0)
    wrong_directions = [finding for finding in directions if finding.verdict == "wrong"]
    if wrong_directions and "wrong" not in kinds:
        worst, shown = None, max(wrong_directions, key=lambda finding: finding.badness)
    return TensorCheck(
        name=name,
        how=how,
        shape=tuple(probe.point.shape),
        checked=len(findings),
        directions=sum(finding.verdict != "unsettled" for finding in directions),
        wrong=kinds.count("wrong"),
        wrong_directions=len(wrong_directions),
        kinks=kinds.count("kink"),
        unsettled=kinds.count("unsettled"),
        missing=claimed is None,
        worst=None if worst is None else _index(worst, probe.point.shape),
        analytic=shown.analytic,
        numerical=shown.numerical,
        relative_error=shown.relative_error,
        tolerance=judge.tolerance,
        ratio=_common_ratio(list(findings.values())) if "wrong" in kinds else None,
        noise=max((finding.noise for finding in findings.values()), default=0.0),
        size=judge.size,
    )


class _Judge:
    """One tensor, its claimed gradient, and what counts as equal."""

    def __init__(self, probe: Probe, claimed: Tensor | None, options: Options) -> None:
        point = probe.point
        self._probe, self._options = probe, options
        self._gradient = (
            torch.zeros(point.numel(), dtype=torch.float64, device=point.device)
            if claimed is None
            else claimed.detach().reshape(-1).double()
        )
        self.tolerance = default_tolerance(point.dtype) if options.tolerance is None else options.tolerance
        self._step = default_step(point.dtype) if options.step is None else options.step
        self.size = self._gradient.square().mean().sqrt().item() if point.numel() else 0.0
        self._typical = 0.0

    def elements(self) -> dict[int, Finding]:
        """A finding for every element of the sample, by its position."""
        lines = {position: self._element(position) for position in self._sample()}
        measured = {position: self._measure(line) for position, line in lines.items()}
        # What is typical comes from both sides: a gradient that is 0 everywhere has no size of its own.
        slopes = [one.symmetric for one in measured.values() if one is not None and math.isfinite(one.symmetric)]
        root = math.sqrt(sum(slope**2 for slope in slopes) / len(slopes)) if slopes else 0.0
        self._typical = max(root, self.size if math.isfinite(self.size) else 0.0)
        floor = _NEGLIGIBLE * self._typical
        findings = {position: self._compare(one, floor) for position, one in measured.items()}
        suspects = [position for position, finding in findings.items() if finding.verdict == "wrong"]
        convicted = 0
        for position in sorted(suspects, key=lambda suspect: findings[suspect].badness, reverse=True):
            if convicted == _ENOUGH:
                break
            findings[position] = self._look_again(lines[position], floor)
            convicted += findings[position].verdict == "wrong"
        return findings

    def directions(self, findings: dict[int, Finding]) -> list[Finding]:
        """Slopes along the gradient itself, where it is strongest, and along random signs.

        Where one is wrong and no element of the sample is, halving finds the element that is, and adds it.
        """
        count = self._gradient.numel()
        if count < 2 or not self._gradient.isfinite().all() or not self._options.directions:
            return []
        everything = torch.arange(count, device=self._gradient.device)
        signs = []
        if count > len(findings):
            draws = torch.randint(
                2, (self._options.directions, count), generator=self._options.generator, dtype=torch.int8
            )
            unit = self._unit(everything) / math.sqrt(count)
            signs = [(2.0 * draw.to(unit) - 1.0) * unit for draw in draws]
        if self.size > 0:
            signs.append(self._gradient / self._gradient.norm())
        results = []
        for sizes in signs:
            line = Line(everything, sizes)
            finding = self._judge(line, max((self._gradient * sizes).norm().item(), self._typical))
            results.append(finding)
            if finding.verdict == "wrong" and not any(other.verdict == "wrong" for other in findings.values()):
                position = self._locate(line)
                element = self._judge(self._element(position), _NEGLIGIBLE * self._typical)
                if element.verdict == "wrong":
                    findings[position] = element
        return results

    def _sample(self) -> list[int]:
        """Positions: all, or a random choice and where the gradient is greatest."""
        count = self._gradient.numel()
        if count <= self._options.samples:
            return list(range(count))
        drawn = torch.randint(count, (4 * self._options.samples,), generator=self._options.generator).tolist()
        chosen = dict.fromkeys([int(self._gradient.abs().argmax()), *drawn])
        return sorted(list(chosen)[: self._options.samples])

    def _unit(self, indices: Tensor) -> Tensor:
        """How far elements move for a step of 1: a step that the user gives is taken as it is."""
        if self._options.step is None:
            return self._probe.sizes(indices)
        return torch.ones(len(indices), dtype=torch.float64, device=indices.device)

    def _element(self, position: int) -> Line:
        indices = torch.tensor([position], device=self._gradient.device)
        return Line(indices, self._unit(indices))

    def _measure(self, line: Line, widening: float = 1.0, affected: Tensor | None = None) -> Quotients | None:
        return self._probe.quotients(line, widening * self._step, self._gradient[line.indices], affected)

    def _judge(self, line: Line, floor: float) -> Finding:
        finding = self._compare(self._measure(line), floor)
        return self._look_again(line, floor) if finding.verdict == "wrong" else finding

    def _compare(self, measured: Quotients | None, floor: float) -> Finding:
        """At the first step alone, where whatever is not right is wrong."""
        if measured is None:
            return Finding("unsettled", math.nan, math.nan, 0.0, 0.0)
        claimed, slope = measured.expected, measured.symmetric
        if not math.isfinite(claimed) or not math.isfinite(slope):
            return Finding("wrong", claimed, slope, math.inf, 0.0)
        scale = max(abs(claimed), abs(slope), floor, measured.noise / self.tolerance)
        error = abs(claimed - slope) / scale if claimed != slope else 0.0
        return Finding("right" if error <= self.tolerance else "wrong", claimed, slope, error, measured.noise)

    def _look_again(self, line: Line, floor: float) -> Finding:
        """At other steps: is it the gradient that is wrong, or the first step?"""
        # A change may be lost in the rounding of a large output; a wide step shows which outputs take part.
        affected = self._probe.affected(line, _WIDER[0] * self._step)
        first = self._measure(line, affected=affected)
        finding = self._compare(first, floor)
        if first is None or not math.isfinite(finding.analytic):
            return finding
        # What is small at the first step is small: narrower ones bring the slope of x³ at 0 to 0, and never the ratio.
        floor = max(floor, abs(first.expected), abs(first.symmetric) if math.isfinite(first.symmetric) else 0.0)
        gap = abs(first.expected - first.symmetric)
        judged_by = gap if math.isfinite(gap) else floor
        wider, narrower = (
            [one for one in (self._measure(line, factor, affected) for factor in factors) if one is not None]
            for factors in (_WIDER, _NARROWER)
        )
        # A step so narrow that rounding alone could explain the gap says nothing.
        telling = [one for one in (*wider, first, *narrower) if 4 * one.noise <= judged_by]
        slopes = [(_slope(one), one) for one in telling]
        slopes += [(_extrapolated(one, two), two) for one, two in itertools.pairwise(telling)]
        for slope, one in slopes:
            scale = max(abs(slope), floor)
            if abs(one.expected - slope) <= self.tolerance * scale + one.noise:
                error = min(abs(one.expected - slope) / scale if scale else 0.0, self.tolerance)
                return Finding("right", one.expected, slope, error, one.noise)
        if self._between_the_sides([*wider, first, *narrower], floor):
            return Finding("kink", finding.analytic, finding.numerical, 0.0, finding.noise)
        # Where the function is computed more coarsely than its dtype, narrow steps agree that nothing moves.
        moving = [one for one in telling if one.moved]
        for one, two, three in zip(moving, moving[1:], moving[2:], strict=False):
            _, slope, _ = agreed = sorted(map(_slope, (one, two, three)))
            allowed = abs(two.expected - slope) / _AGREEMENT
            if not agreed[-1] - agreed[0] < allowed:
                continue
            others = [self._measure(line, off * two.step / self._step, affected) for off in _OFF]
            if all(other is not None and abs(_slope(other) - slope) < allowed for other in others):
                error = abs(two.expected - slope) / max(abs(slope), floor)
                return Finding("wrong", two.expected, slope, error, two.noise)
        return Finding("unsettled", finding.analytic, finding.numerical, 0.0, finding.noise)

    def _between_the_sides(self, steps: list[Quotients], floor: float) -> bool:
        """Whether the slopes to both sides stay apart as the step shrinks, and the gradient is one between them.

        Where the function is smooth they approach each other in proportion to the step, where it jumps they part in
        proportion. A kink nearer to the point than rounding lets a step be is one at the point.
        """
        clear = [one for one in steps if 8 * one.noise <= abs(one.forward - one.backward)]
        if len(clear) < 2:
            return False
        wide, last = clear[-2:]
        if not 0.5 <= abs(last.forward - last.backward) / abs(wide.forward - wide.backward) <= 3:
            return False
        slack = self.tolerance * max(abs(last.forward), abs(last.backward), floor) + 2 * last.noise
        low, high = sorted((last.forward, last.backward))
        return low - slack <= last.expected <= high + slack

    def _locate(self, line: Line) -> int:
        """The element that accounts for most of a direction's difference, by halving."""
        while len(line.indices) > 1:
            middle = len(line.indices) // 2
            halves = [
                Line(line.indices[part], math.sqrt(2) * line.sizes[part])
                for part in (slice(middle), slice(middle, None))
            ]
            line = max(halves, key=self._gap)
        return int(line.indices)

    def _gap(self, line: Line) -> float:
        measured = self._measure(line)
        if measured is None:
            return 0.0
        gap = abs(measured.expected - measured.symmetric)
        # A single element is measured per unit moved, several are per step.
        return gap * line.sizes.abs().item() if len(line.indices) == 1 else gap


def _slope(one: Quotients) -> float:
    """The symmetric quotient, or at the edge of the function's domain the one to the inside."""
    return next((slope for slope in (one.symmetric, one.forward, one.backward) if math.isfinite(slope)), math.nan)


def _extrapolated(wide: Quotients, narrow: Quotients) -> float:
    """Both without their error in proportion to the square of the step, as a smooth function has it."""
    ratio = (wide.step / narrow.step) ** 2
    return (ratio * narrow.symmetric - wide.symmetric) / (ratio - 1)


def _common_ratio(findings: list[Finding]) -> float | None:
    """Claimed over measured slope, where it is the same wherever there is a slope to speak of."""
    greatest = max(abs(finding.numerical) for finding in findings if math.isfinite(finding.numerical))
    ratios = sorted(
        finding.analytic / finding.numerical
        for finding in findings
        if abs(finding.numerical) > max(_NEGLIGIBLE * greatest, 100 * finding.noise)
    )
    if not ratios or not all(map(math.isfinite, ratios)) or ratios[-1] - ratios[0] > 0.01 * abs(ratios[0]):
        return None
    return ratios[len(ratios) // 2]


def _index(position: int, shape: torch.Size) -> tuple[int, ...]:
    index: list[int] = []
    for size in reversed(shape):
        position, place = divmod(position, size)
        index.insert(0, place)
    return tuple(index)
