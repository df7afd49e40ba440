"""From what was read and the names of columns to inputs, target and weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from lastlayer.checks import InputError
from lastlayer.commands.source import Source
from lastlayer.heads import Choice, choose_head, from_text, named
from lastlayer.heads.targets import present_values
from lastlayer.preprocessing import column_group, without_part
from lastlayer.preprocessing.image_reading import CLASS, FILE


@dataclass(frozen=True)
class TakenApart:
    """A table or images taken apart.

    Attributes:
        inputs: every column that is not target, weight or dropped; or the images.
        targets: the target's column, or the labels'.
        weight: the weights' column, if one was named.
        name: what the user called the target.
    """

    inputs: Any
    targets: polars.DataFrame
    weight: polars.Series | None
    name: str

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which rows have a target, or every one of their labels."""
        columns = [present_values(column)[1] for column in self.targets]
        return np.logical_and.reduce(columns)

    @property
    def rows_without_target(self) -> int:
        """How many have none."""
        return int((~self.present).sum())

    @property
    def present_inputs(self) -> Any:
        """The inputs that have a target."""
        return self.inputs[np.flatnonzero(self.present)]

    @property
    def target(self) -> Any:
        """The one target column, or the table of labels."""
        return self.targets.to_series() if self.targets.width == 1 else self.targets

    def weights(self) -> NDArray[np.float64] | None:
        """The rows' weights; a row without one does not count.

        Raises:
            InputError: if the column holds something else than numbers of 0 or more, one of them above 0.
        """
        if self.weight is None:
            return None
        name = self.weight.name
        if not (self.weight.dtype.is_numeric() or self.weight.dtype == polars.Boolean):
            raise InputError(f"the weight column {name!r} holds {self.weight.dtype}; expected numbers of 0 or more.")
        weights = self.weight.cast(polars.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()
        wrong = np.flatnonzero((weights < 0) | np.isinf(weights))
        if wrong.size:
            raise InputError(
                f"the weight column {name!r} holds {weights[wrong[0]]:g} in row {wrong[0]} (counting from 0); expected "
                f"numbers of 0 or more."
            )
        if not (weights[self.present] > 0).any():
            raise InputError(f"the weight column {name!r} is 0 in every row with a target. Name another column.")
        return weights

    def choose(self, head: str | None) -> tuple[str, str, str, tuple[str, ...]]:
        """The head's name, the reason, how to override it, and what deserves a look.

        Args:
            head: the name that the user gave; the target then only has to fit it.

        Raises:
            InputError: if the target cannot be learned, or there is no such head.
        """
        if head is None:
            choice: Choice = choose_head(self.target, name=self.name)
            return choice.head.facts.name, choice.reason, _override(choice), choice.warnings
        otherwise = "To let the target decide: leave out --head."
        if head == "auto":
            return head, "You asked for the likeliest of the heads that fit.", otherwise, ()
        if is_quantity(head):
            from_text(head)
        elif ":" in head:
            raise InputError(f"head {head!r}: heads for classes take no options. Write {head.partition(':')[0]}.")
        self._check_classes(head)
        return head, f"You asked for {head}.", otherwise, ()

    def _check_classes(self, head: str) -> None:
        """Numbers with a fraction are no classes.

        Raises:
            InputError: if the head is for classes and the target holds such a number.
        """
        if self.targets.width > 1 or is_quantity(head):
            return
        values, _ = present_values(self.target)
        fractions = values[values != np.floor(values)] if values.dtype.kind == "f" else values[:0]
        if fractions.size:
            raise InputError(
                f"head {head} is for classes, and {self.name!r} holds numbers with a fraction, such as "
                f"{fractions[0]:g}. Leave out --head, or write the classes as text or whole numbers."
            )


def take_apart(
    source: Source, target: str | Sequence[str] | None, *, weight: str | None = None, drop: tuple[str, ...] = ()
) -> TakenApart:
    """The task that these columns make.

    Args:
        target: a column, a group of columns ``Y`` for ``Y_0 … Y_k``, or several names with commas between; or a list of
            columns. ``None`` for the class of images that lie in folders.
        weight: a column of row weights.
        drop: columns to leave out.

    Raises:
        InputError: for a name that is not there, with the names that are.
    """
    table = source.columns
    if target is None:
        target = _usual_target(source)
    if isinstance(target, str):
        parts = [target] if target in table.columns else [part.strip() for part in target.split(",")]
        if source.kind == "images":
            # Of an archive with two parts, y_train is the y of the one that is read.
            known = [column_group(table.columns, part)[0] in table.columns for part in parts]
            parts = [part if there else without_part(part) for part, there in zip(parts, known, strict=True)]
        names = list(dict.fromkeys(column for part in parts for column in column_group(table.columns, part)))
    else:
        target, names = ", ".join(target), list(target)
    for name in (*names, *([weight] if weight else []), *drop):
        check_column(source, name)
    for other, option in ((weight, "--weight"), *((column, "--drop") for column in drop)):
        if other in names:
            raise InputError(f"column {other!r} is the target, and {option} names it too. Name it once.")
    aside = {*names, weight, *drop}
    inputs = source.inputs_without(aside)
    return TakenApart(inputs, table.select(names), table[weight] if weight else None, target)


def check_column(source: Source, name: str) -> None:
    """There is such a column.

    Raises:
        InputError: naming those that there are, the nearest first.
    """
    columns = source.columns.columns
    if name in columns:
        return
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"there is no column {name!r}.{hint} {_columns_in_words(source)}")


def _columns_in_words(source: Source) -> str:
    """Which columns there are, in a sentence."""
    columns = source.columns.columns
    shown = ", ".join(columns[:20]) + (f" … ({len(columns)} in all)" if len(columns) > 20 else "")
    if source.kind == "table":
        return f"The table has: {shown}."
    if columns == [FILE]:
        return "Of the images their files alone are known: put those of each class into a folder of its own."
    return f"Of the images is known: {shown or 'nothing else, so there are no labels'}."


def _usual_target(source: Source) -> str:
    """What is learned where nobody names a target.

    Raises:
        InputError: if that is not plain.
    """
    if CLASS in source.columns.columns and FILE in source.columns.columns:
        return CLASS
    raise InputError(f"which column is to be predicted? Name it with --target. {_columns_in_words(source)}")


def _override(choice: Choice) -> str:
    """How to choose otherwise, as the command spells it."""
    if not choice.alternatives:
        return "No other head fits this target."
    return "\n".join(f"--head {name}: {when}" for name, when in choice.alternatives.items())


def is_quantity(head: str) -> bool:
    """Whether the head, as text, is for a quantity, and not for classes or labels."""
    return head == "auto" or not named(head.partition(":")[0]).over_classes
