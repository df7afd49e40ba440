"""What a gradient check found: numbers for programs, plain words for people."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lastlayer.checks import LastLayerError


class GradientError(LastLayerError, AssertionError):
    """A gradient that is not the derivative of its function."""


@dataclass(frozen=True)
class TensorCheck:
    """One tensor's gradient beside differences.

    Attributes:
        name: the parameter as ``named_parameters`` spells it, or the input as the function does.
        how: where the gradient comes from: "backward", "the closed form", "the derivative".
        shape: of the tensor.
        checked, directions: how many elements and how many directions were compared.
        wrong: how many elements differ; ``wrong_directions`` how many directions.
        kinks: elements where the slopes to both sides differ and the gradient lies between them, which is right.
        unsettled: elements where the differences agree with themselves no better than with the gradient.
        missing: whether backward gives no gradient at all (None).
        worst: index of the worst element; ``None`` if none was compared, or if only a direction differs.
        analytic, numerical, relative_error: gradient, differences and their relative error there.
        tolerance: the relative error that is allowed.
        ratio: gradient / differences, where it is the same at every element; ``None`` if it is not, or if all is right.
        noise: slopes smaller than this are lost in the rounding of the function.
        size: root mean square of the gradient.
    """

    name: str
    how: str
    shape: tuple[int, ...]
    checked: int
    directions: int
    wrong: int
    wrong_directions: int
    kinks: int
    unsettled: int
    missing: bool
    worst: tuple[int, ...] | None
    analytic: float
    numerical: float
    relative_error: float
    tolerance: float
    ratio: float | None
    noise: float
    size: float

    @property
    def passed(self) -> bool:
        """No element and no direction is wrong, and the differences settle at half of the elements at least."""
        return not self.wrong and not self.wrong_directions and 2 * self.unsettled <= self.checked

    @property
    def unused(self) -> bool:
        """No gradient, and none is missed: nothing depends on the tensor."""
        return self.missing and self.passed

    @property
    def label(self) -> str:
        """The tensor in words: ``2.weight`` is the weight of '2'."""
        module, _, leaf = self.name.rpartition(".")
        return f"{leaf} of '{module}'" if module else self.name

    def __str__(self) -> str:
        if self.unused:
            return f"{self.label} gets no gradient, and nothing depends on it."
        if self.passed:
            return f"{self.label} is right ({self.checked} elements, {self.directions} directions)."
        if not self.wrong and not self.wrong_directions:
            return (
                f"{self.label} cannot be judged: the differences do not settle at {self.unsettled} of {self.checked} "
                f"elements; the function is rounded coarsely, or rough, there. Fix: check in float64."
            )
        return f"{self.label} is wrong: {self._difference()}{self._spread()}."

    def _difference(self) -> str:
        where = (
            f"at {list(self.worst)} " if self.worst else "" if self.worst == () else "along a direction of them all "
        )
        gives = f"{self.how} gives no gradient (None)" if self.missing else f"{self.how} gives {self.analytic:.6g}"
        return (
            f"{where}{gives}, differences give {self.numerical:.6g} "
            f"(relative error {self.relative_error:.2g}, allowed {self.tolerance:.0e})"
        )

    def _spread(self) -> str:
        """How the other elements are."""
        if self.missing:
            return "; it is detached on the way, or its backward forgets it"
        if self.worst is None:
            return "; no single element stands out"
        if self.ratio is not None and self.checked > 1:
            return f"; every checked element is {_ratio_in_words(self.ratio)}"
        return f"; {self.wrong} of {self.checked} checked elements are wrong"


@dataclass(frozen=True)
class GradientCheck:
    """What :func:`check_gradient` found; true if every gradient is right.

    Attributes:
        tensors: one row per tensor and way of computing its gradient.
        problem: why nothing could be compared, in words; ``None`` if it could.
        notes: what else is worth knowing, a sentence each.
    """

    tensors: tuple[TensorCheck, ...]
    problem: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Everything could be compared, and nothing is wrong."""
        return self.problem is None and all(row.passed for row in self.tensors)

    @property
    def wrong(self) -> tuple[TensorCheck, ...]:
        """The rows that did not pass."""
        return tuple(row for row in self.tensors if not row.passed)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        if self.problem is not None:
            return self.problem
        lines = [self._headline(), *map(str, self.wrong), *(str(row) for row in self.tensors if row.unused)]
        lines += [
            f"{row.label} has {row.kinks} of {row.checked} elements at a kink, where the slopes to both sides differ; "
            f"{row.how} gives one between them."
            for row in self.tensors
            if row.kinks
        ]
        lines += [
            f"{row.label} has {row.unsettled} of {row.checked} elements where the differences do not settle."
            for row in self.tensors
            if row.unsettled and row.passed
        ]
        return "\n".join([*lines, *self.notes])

    def _headline(self) -> str:
        if self.wrong:
            return f"{len(self.wrong)} of {_count(len(self.tensors), 'gradient')} did not pass."
        elements, directions = (sum(getattr(row, name) for row in self.tensors) for name in ("checked", "directions"))
        if not elements:
            return "There is nothing to compare: every tensor is empty."
        worst = max(self.tensors, key=lambda row: row.relative_error)
        return (
            f"Right: {_count(len(self.tensors), 'gradient')}, {_count(elements, 'element')} and "
            f"{_count(directions, 'direction')} compared; largest relative error {worst.relative_error:.1e} "
            f"({worst.label}), allowed {worst.tolerance:.0e}."
        )

    def raise_if_wrong(self) -> None:
        """Nothing, if every gradient is right.

        Raises:
            GradientError: with all that ``str`` says.
        """
        if not self.passed:
            raise GradientError(str(self))


def _ratio_in_words(ratio: float) -> str:
    for special, words in ((0.0, "0"), (-1.0, "right but for its sign"), (0.5, "half"), (2.0, "twice")):
        if math.isclose(ratio, special, rel_tol=0.01):
            return words if special <= 0 else f"about {words} of what it should be".replace("twice of", "twice")
    return f"about {ratio:.3g} times what it should be"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
