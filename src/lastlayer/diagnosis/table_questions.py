"""The questions about data, asked about a table as the user has it: columns by name, categories as they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray

from lastlayer.diagnosis.class_balance import MOST_CLASSES, UNBALANCED_CLASSES, Counts, fix_for
from lastlayer.diagnosis.duplicates import (
    DUPLICATED_ROWS,
    MOST_ROWS,
    chance_of_a_twin,
    has_measurements,
    row_keys,
    share_repeated,
)
from lastlayer.diagnosis.finding import Finding, Findings
from lastlayer.diagnosis.inputs import CONSTANT_COLUMN
from lastlayer.diagnosis.leakage import MORE_THAN_INDEPENDENT, NOTICEABLE
from lastlayer.diagnosis.leaks import Values, find_leaks, finding_of
from lastlayer.preprocessing import Column, TableEncoder, describe_columns
from lastlayer.preprocessing.frames import Frame, as_frame, moment_cells, number_cells, text_cells

#: From this share of repeated rows on, rows held out at random are largely known already.
LARGELY_REPEATED = 0.2


def ask_about_table(
    inputs: Any,
    target: NDArray[Any],
    *,
    name: str = "target",
    classes: bool,
    weighted: bool = False,
    columns: Sequence[Column] | None = None,
) -> Findings:
    """What is wrong with a table before anything is learned from it.

    Columns that give the target away, that never change, rows that occur again, classes of very different frequency.

    Special cases: columns that are left out anyway (identifiers, free text) are not asked about, but for constant ones.

    Args:
        inputs: the table without target: pandas, polars, pyarrow, or a 2-D array; only rows that have a target.
        target: the classes or the quantity, shape (n,); or 0/1 labels, shape (n, k).
        name: what the target is called.
        classes: whether it is classes or labels.
        weighted: whether training takes account of how frequent classes are.
        columns: what each column is, if that is known; found out otherwise.

    Example:
        >>> import polars
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(2, size=200)
        >>> table = polars.DataFrame({"x": random.normal(size=200), "paid": np.where(y == 1, "yes", "no")})
        >>> print(ask_about_table(table, y, classes=True).names)
        ['leaking_column']
    """
    frame = as_frame(inputs)
    described = list(describe_columns(frame)) if columns is None else list(columns)
    present = set(frame.columns)
    used = [column for column in described if column.used and column.name in present]
    target = np.asarray(target)
    findings = [*_constant(frame, described), *_repeated(frame, used, target)]
    if target.ndim == 1:
        findings += _leaking(frame, used, target, name, classes=classes)
    if classes and not weighted:
        findings += _unbalanced(target, name)
    return Findings(findings)


def _constant(frame: Frame, columns: Sequence[Column]) -> Iterator[Finding]:
    for column in columns:
        if column.kind == "constant" and column.name in frame.columns:
            yield CONSTANT_COLUMN.found(
                f"column {column.name!r}", f"it is {frame[column.name][0]!r} in each of the {len(frame)} rows."
            )


def _leaking(
    frame: Frame, columns: Sequence[Column], target: NDArray[Any], name: str, *, classes: bool
) -> Iterator[Finding]:
    values = [_values(frame, column) for column in columns]
    goal = np.unique(target, return_inverse=True)[1].astype(np.float64) if classes else target.astype(np.float64)

    def others(places: list[int]) -> NDArray[np.float64]:
        kept = [column.name for place, column in enumerate(columns) if place not in places]
        return TableEncoder(keep=kept).fit_transform(frame.select(kept)).astype(np.float64)

    for leak in find_leaks(values, goal, classes=classes, others=others):
        option = f"--drop {shlex.quote(columns[leak.place].name)}"
        fix = f"Leave the column out ({option}), unless it is known when a prediction is to be made."
        yield finding_of(leak, target=repr(name), rows=len(target), classes=classes, fix=fix)


def _repeated(frame: Frame, columns: Sequence[Column], target: NDArray[Any]) -> Iterator[Finding]:
    if not columns or len(frame) < 2:
        return
    wanted = target.reshape(len(target), -1)
    codes = np.column_stack(
        [_codes(frame, column) for column in columns] + [np.unique(part, return_inverse=True)[1] for part in wanted.T]
    )[:MOST_ROWS]
    share, by_chance = share_repeated(row_keys(codes)), chance_of_a_twin(codes)
    if (
        share < NOTICEABLE
        or share <= MORE_THAN_INDEPENDENT * by_chance
        or not has_measurements(codes[:, : len(columns)])
    ):
        return
    yield DUPLICATED_ROWS.found(
        "the table's rows",
        f"{100 * share:.3g} % of {len(codes)} rows occur again, inputs and target alike; rows held out by chance are "
        f"then in part known.",
        numbers={"share": share, "share_by_chance": by_chance},
        severity="warning" if share >= LARGELY_REPEATED else "note",
        fix="Keep one of each, if they are the same thing twice; or keep all copies on one side of the split.",
    )


def _unbalanced(target: NDArray[Any], name: str) -> Iterator[Finding]:
    for label, part in enumerate(target.reshape(len(target), -1).T):
        kinds, counts = np.unique(part, return_counts=True)
        if not 2 <= len(kinds) <= MOST_CLASSES:
            continue
        several = target.ndim > 1
        found = Counts(torch.from_numpy(counts), len(part), tuple(map(str, kinds)))
        if found.severity is not None:
            yield UNBALANCED_CLASSES.found(
                f"label {label} of {name!r}" if several else f"the target {name!r}",
                found.evidence,
                numbers=found.numbers,
                severity="note" if several else found.severity,
                fix=fix_for(found, binary=len(kinds) == 2),
            )


def _values(frame: Frame, column: Column) -> Values:
    name = f"column {column.name!r}"
    if column.kind == "categorical":
        missing = frame[column.name].is_null().to_numpy()
        return Values(name, np.where(missing, np.nan, _codes(frame, column)), category=True)
    if column.kind == "date":
        moments = moment_cells(frame, column.name)
        return Values(name, np.where(np.isnat(moments), np.nan, moments.astype(np.float64)))
    return Values(name, number_cells(frame, [column.name])[:, 0])


def _codes(frame: Frame, column: Column) -> NDArray[np.int64]:
    """The column's values by number, missing among them."""
    series = frame[column.name]
    cells = text_cells(frame, column.name) if series.dtype == nw.String or column.kind == "categorical" else None
    if cells is not None:
        return np.unique(["" if cell is None else f"={cell}" for cell in cells], return_inverse=True)[1]
    if column.kind == "date":
        return np.unique(moment_cells(frame, column.name), return_inverse=True)[1]
    return np.unique(number_cells(frame, [column.name])[:, 0], return_inverse=True)[1]
