"""From a target to its head: the lecture's table of problem types, and what looks at real targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lastlayer.checks import InputError
from lastlayer.heads.bernoulli import Bernoulli
from lastlayer.heads.categorical import Categorical
from lastlayer.heads.gaussian import Gaussian
from lastlayer.heads.head import Head
from lastlayer.heads.multi_label import MultiLabel
from lastlayer.heads.targets import present_values, to_array

# A whole-number target with more distinct values than this is a quantity.
_MOST_INTEGER_CLASSES = 20
# … and so is one whose values come up fewer times than this each, on average: too few to learn a class from.
_FEWEST_ROWS_PER_CLASS = 5
# Below this many rows "every value is different" is no sign of an identifier.
_FEWEST_ROWS_TO_JUDGE = 20


@dataclass(frozen=True)
class ProblemType:
    """One row of the lecture's table *cost and last-layer activation functions* (SPEC A1–A5, source S1)."""

    problem: str
    activation: str
    loss: str
    heads: tuple[str, ...]


PROBLEM_TYPES = (
    ProblemType("binary classification", "sigmoid", "binary cross-entropy", ("bernoulli",)),
    ProblemType("multiclass, single-label classification", "softmax", "cross-entropy", ("categorical",)),
    ProblemType("multiclass, multilabel classification", "sigmoid per label", "binary cross-entropy", ("multilabel",)),
    ProblemType("regression to arbitrary values", "none", "squared error or absolute error", ("gaussian", "laplace")),
    ProblemType(
        "regression to values between 0 and 1", "sigmoid", "binary cross-entropy or squared error", ("unit_interval",)
    ),
)


@dataclass(frozen=True)
class Choice:
    """What was chosen for a target, and why.

    Attributes:
        head: the head to use.
        reason: the ground of the choice, in a sentence.
        alternatives: other heads that would fit, by the name that overrides the choice, each with when to prefer it.
        warnings: what about the target deserves a look.
    """

    head: Head
    reason: str
    alternatives: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def problem(self) -> ProblemType:
        """The row of the lecture's table."""
        return next(row for row in PROBLEM_TYPES if self.head.facts.name in row.heads)

    @property
    def override(self) -> str:
        """How to choose otherwise, in a sentence."""
        if not self.alternatives:
            return "No other head fits this target."
        options = "; ".join(f"head={name!r}: {when}" for name, when in self.alternatives.items())
        return f"To override: {options}."


def choose_head(target: Any, *, name: str = "target") -> Choice:
    """The head that fits a target, with the reason and how to override it.

    Two values are binary; a few distinct strings, booleans or whole numbers are classes; several columns of 0 and 1
    are labels; other numbers are real. Missing values are passed over.

    Args:
        target: one column (list, NumPy array, pandas, polars or pyarrow column, tensor), or a table of 0/1 columns.
        name: what to call the target in messages.

    Raises:
        InputError: if the target is empty, constant, an identifier, a date, or several columns that are not all 0/1.

    Example:
        >>> choice = choose_head(["cat", "dog", "cat", "bird"])
        >>> choice.head
        Categorical(classes=3)
        >>> choice.reason
        "'target' holds 3 distinct strings, so exactly one of several classes."

    Reference: SPEC A1–A5; the table is :data:`PROBLEM_TYPES`.
    """
    array = to_array(target)
    if array.ndim == 2 and array.shape[1] > 1:
        columns = getattr(target, "columns", None)
        labels = [f"column {index}" for index in range(array.shape[1])] if columns is None else list(map(str, columns))
        return _choose_labels(array, labels, name)
    present, _ = present_values(array[:, 0] if array.ndim == 2 else target)
    if present.size == 0:
        raise InputError(f"{name!r} holds no value in any of its {len(array)} rows. Name another target column.")
    if present.dtype.kind == "f" and np.isinf(present).any():
        raise InputError(f"{name!r} holds an infinite value. Remove those rows, or leave the cell empty.")
    if present.dtype.kind == "M":
        raise InputError(f"{name!r} holds dates. Turn them into a number first, such as days since a first day.")
    distinct, counts = np.unique(present, return_counts=True)
    if distinct.size == 1:
        raise InputError(
            f"{name!r} is constant: every row is {distinct[0]}. There is nothing to learn; name another target, or add "
            f"rows where it differs."
        )
    if distinct.size == 2:
        return _choose_binary(distinct, counts, name)
    if present.dtype.kind in "iu":
        return _choose_integer(present, distinct, counts, name)
    if present.dtype.kind == "f":
        return _choose_real(present, distinct, name)
    return _choose_strings(present, distinct, counts, name)


def _choose_labels(array: NDArray[Any], names: list[str], name: str) -> Choice:
    cells, _ = present_values(array.ravel())
    if cells.dtype.kind not in "biuf" or not np.isin(cells, (0, 1)).all():
        raise InputError(
            f"{name!r} is {array.shape[1]} columns, and not all of them hold 0 and 1 only. Several targets at once are "
            f"labels that hold or not; fit one model per column for anything else."
        )
    labels = array.shape[1]
    changes = [np.unique(present_values(column)[0]).size > 1 for column in array.T]
    constant = [label for label, change in zip(names, changes, strict=True) if not change]
    warnings = [f"{name!r}: {', '.join(constant)} never changes."] if constant else []
    if cells.size == array.size and (array.astype(float).sum(axis=1) == 1).all():
        warnings.append(
            f"{name!r}: every row has exactly one label. If they exclude each other, make them one column of "
            f"classes: a softmax then knows it."
        )
    return Choice(
        head=MultiLabel(labels=labels),
        reason=f"{name!r} is {labels} columns of 0 and 1, so any number of {labels} labels can hold at once.",
        alternatives={},
        warnings=tuple(warnings),
    )


def _choose_binary(distinct: NDArray[Any], counts: NDArray[np.int_], name: str) -> Choice:
    return Choice(
        head=Bernoulli(),
        reason=f"{name!r} holds two values, {distinct[0]} and {distinct[1]}, so one of two classes.",
        alternatives=(
            {"gaussian": "if the two numbers are measurements of a quantity"} if distinct.dtype.kind in "iuf" else {}
        ),
        warnings=_warn_single_rows(distinct, counts, name),
    )


def _choose_integer(present: NDArray[Any], distinct: NDArray[Any], counts: NDArray[np.int_], name: str) -> Choice:
    rows_each = present.size / distinct.size
    if distinct.size <= _MOST_INTEGER_CLASSES and rows_each >= _FEWEST_ROWS_PER_CLASS:
        return Choice(
            head=Categorical(classes=int(distinct.size)),
            reason=(
                f"{name!r} holds {distinct.size} distinct whole numbers, {distinct[0]} to {distinct[-1]}, about "
                f"{rows_each:.0f} rows each: few enough to give every one its own probability, so classes. They could "
                f"also be a quantity; the values alone cannot tell."
            ),
            alternatives={
                "ordinal": "if they are grades: classes with an order",
                "gaussian": "if the numbers measure something, so that 2 lies between 1 and 3",
                "laplace": "as gaussian, and outliers should not rule the fit",
            }
            | _for_counts(distinct),
            warnings=_warn_single_rows(distinct, counts, name),
        )
    if (
        present.size >= _FEWEST_ROWS_TO_JUDGE
        and distinct.size == present.size
        and int(distinct[-1]) - int(distinct[0]) == present.size - 1
    ):
        raise InputError(
            f"{name!r} numbers the rows: {present.size} different whole numbers without a gap, {distinct[0]} to "
            f"{distinct[-1]}. An identifier cannot be predicted; name another target, or say head='gaussian' "
            f"(--head gaussian) if it is "
            f"a quantity after all."
        )
    too = "too many" if distinct.size > _MOST_INTEGER_CLASSES else "too few rows each"
    return Choice(
        head=Gaussian(),
        reason=(
            f"{name!r} holds {distinct.size} distinct whole numbers in {present.size} rows, {too} to be classes, "
            f"so a quantity."
        ),
        alternatives=_REAL_ALTERNATIVES
        | _for_counts(distinct)
        | {"categorical": "if every number stands for a class", "auto": _AUTO},
    )


def _choose_real(present: NDArray[Any], distinct: NDArray[Any], name: str) -> Choice:
    alternatives = dict(_REAL_ALTERNATIVES)
    reason = f"{name!r} holds {distinct.size} distinct numbers, so a real quantity."
    if distinct[0] >= 0 and distinct[-1] <= 1:
        reason += " All of them lie in [0, 1]."
        alternatives["unit_interval"] = "if it can never leave [0, 1], as a proportion cannot"
        alternatives["beta"] = "the same, and its spread differs from row to row"
    elif distinct[0] > 0:
        alternatives["gamma"] = "if it can never be negative, and varies in proportion to its mean"
    if distinct.size <= _MOST_INTEGER_CLASSES and (present == np.floor(present)).all():
        reason += " They are whole, so they could be classes, but they are stored as decimals."
        alternatives["categorical"] = "if every number stands for a class"
    alternatives["auto"] = _AUTO
    return Choice(head=Gaussian(), reason=reason, alternatives=alternatives)


def _choose_strings(present: NDArray[Any], distinct: NDArray[Any], counts: NDArray[np.int_], name: str) -> Choice:
    if present.size >= _FEWEST_ROWS_TO_JUDGE and distinct.size > 0.5 * present.size:
        raise InputError(
            f"{name!r} holds {distinct.size} different texts in {present.size} rows: an identifier or free text, with "
            f"too few rows of each to learn from. Name another target, or group its values first."
        )
    return Choice(
        head=Categorical(classes=int(distinct.size)),
        reason=f"{name!r} holds {distinct.size} distinct strings, so exactly one of several classes.",
        alternatives={},
        warnings=_warn_single_rows(distinct, counts, name),
    )


_REAL_ALTERNATIVES = {
    "laplace": "if outliers should not rule the fit (absolute error, the median)",
    "gaussian:predicted": "if the noise differs from row to row",
    "student_t": "the same, and some targets are far off",
    "mixture:5": "if one input can have several distinct answers",
}
_AUTO = "to try those that fit, and take the likeliest on rows held out"


def _for_counts(distinct: NDArray[Any]) -> dict[str, str]:
    return {"negative_binomial": "if they count something"} if distinct[0] >= 0 else {}


def _warn_single_rows(distinct: NDArray[Any], counts: NDArray[np.int_], name: str) -> tuple[str, ...]:
    single = [str(value) for value in distinct[counts == 1][:5]]
    if not single:
        return ()
    return (
        f"{name!r}: class {', '.join(single)} has a single row, which can be learned from or checked, not both. Add "
        f"rows, or merge it with another class.",
    )
