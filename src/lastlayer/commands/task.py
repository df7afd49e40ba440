"""From a file and the names of columns to inputs, target and weights."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from lastlayer.checks import InputError
from lastlayer.heads import Choice, ConstantScaleHead, catalog, choose_head
from lastlayer.preprocessing import column_group


@dataclass(frozen=True)
class TableTask:
    """A table taken apart.

    Attributes:
        inputs: every column that is not target, weight or dropped.
        targets: the target's column, or the labels'.
        weight: the weights' column, if one was named.
    """

    inputs: polars.DataFrame
    targets: polars.DataFrame
    weight: polars.Series | None

    @property
    def name(self) -> str:
        """The target's name, or the labels' names."""
        return ", ".join(self.targets.columns)

    @property
    def target(self) -> Any:
        """The one target column, or the table of labels."""
        return self.targets.to_series() if self.targets.width == 1 else self.targets

    def weights(self) -> NDArray[np.float64] | None:
        """The rows' weights; a row without one does not count.

        Raises:
            InputError: if the column holds something else than numbers.
        """
        if self.weight is None:
            return None
        if not (self.weight.dtype.is_numeric() or self.weight.dtype == polars.Boolean):
            raise InputError(f"the weight column {self.weight.name!r} holds {self.weight.dtype}; expected numbers.")
        return self.weight.cast(polars.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()

    def choose(self, head: str | None) -> tuple[str, str, str, tuple[str, ...]]:
        """The head's name, the reason, how to override it, and what deserves a look.

        Args:
            head: the name that the user gave; the target then only has to fit it.

        Raises:
            InputError: if the target cannot be learned, or there is no such head.
        """
        if head is None:
            choice: Choice = choose_head(self.target, name=self.name)
            return choice.head.facts.name, choice.reason, choice.override, choice.warnings
        if head not in catalog():
            raise InputError(f"there is no head {head!r}; expected one of {', '.join(catalog())}.")
        return head, f"You asked for {head}.", "To let the target decide: leave out --head.", ()


def take_apart(
    table: polars.DataFrame, target: str, *, weight: str | None = None, drop: tuple[str, ...] = ()
) -> TableTask:
    """The task that these columns make.

    Args:
        target: a column, a group of columns ``Y`` for ``Y_0 … Y_k``, or several names with commas between.
        weight: a column of row weights.
        drop: columns to leave out.

    Raises:
        InputError: for a name that is not there, with the names that are.
    """
    names = [
        column
        for part in target.split(",")
        for column in ([target] if target in table.columns else column_group(table.columns, part.strip()))
    ]
    names = list(dict.fromkeys(names))
    for name in (*names, *([weight] if weight else []), *drop):
        check_column(table, name)
    aside = {*names, weight, *drop}
    inputs = table.select([name for name in table.columns if name not in aside])
    if not inputs.columns:
        raise InputError(f"the table has no column besides {', '.join(names)}; there is nothing to learn from.")
    return TableTask(inputs, table.select(names), table[weight] if weight else None)


def check_column(table: polars.DataFrame, name: str) -> None:
    """The table has the column.

    Raises:
        InputError: naming those that it has, the nearest first.
    """
    if name in table.columns:
        return
    near = difflib.get_close_matches(name, table.columns, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(table.columns[:20]) + (f" … ({table.width} in all)" if table.width > 20 else "")
    raise InputError(f"there is no column {name!r}.{hint} The table has: {shown}.")


def is_quantity(head: str) -> bool:
    """Whether the head is for a quantity, and not for classes or labels."""
    return issubclass(catalog()[head], ConstantScaleHead)
