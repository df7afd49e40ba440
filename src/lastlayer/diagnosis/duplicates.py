"""Which rows occur again, and whether that can be chance: on plain arrays, for tensors and tables alike."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lastlayer.diagnosis.fault import Fault

#: Rows that are looked at on each side.
MOST_ROWS = 50_000
#: Distinct values from which a column is a measurement.
MANY_VALUES = 32
#: Rows that its values are counted on.
MOST_COMPARED = 2000
# A product of shares this small, as a logarithm, is never.
_NEVER = -80.0

DUPLICATED_ROWS = Fault(
    name="duplicated_rows",
    title="rows to validate on that were learned from",
    severity="warning",
    why=(
        "A row that the network has learned from says nothing of new rows, and validation figures are better than what "
        "comes later. It happens when rows are copied (to balance classes, to augment) before they are split."
    ),
    fix="Remove copies before the split, or keep all copies of a row on one side (scikit-learn's GroupShuffleSplit).",
    reference="S. Kaufman, S. Rosset, C. Perlich, O. Stitelman, Leakage in data mining, ACM TKDD 6 (2012)",
)


def row_keys(*parts: NDArray[Any]) -> list[bytes]:
    """One key per row; rows have the same key if they are alike to the last bit, but for the sign of zero.

    Args:
        parts: arrays of as many rows, of any further shape.
    """
    matrices = [np.ascontiguousarray(_with_one_zero(part).reshape(len(part), -1)) for part in parts]
    keys = []
    for row in range(len(matrices[0])):
        digest = hashlib.blake2b(digest_size=16)
        for matrix in matrices:
            digest.update(matrix[row].tobytes())
        keys.append(digest.digest())
    return keys


def share_seen(keys: list[bytes], among: list[bytes]) -> tuple[int, float]:
    """How many of the rows occur among the others, and their share."""
    known = set(among)
    count = sum(key in known for key in keys)
    return count, count / max(1, len(keys))


def share_repeated(keys: list[bytes]) -> float:
    """The share of rows that occur again among themselves."""
    counts = Counter(keys)
    return sum(count for count in counts.values() if count > 1) / max(1, len(keys))


def chance_of_a_twin(*parts: NDArray[Any]) -> float:
    """How likely a row would have a twin among the rows if columns were independent, each with the values it has."""
    logarithm = math.log(max(len(parts[0]), 1))
    for part in parts:
        for column in part.reshape(len(part), -1).T:
            _, counts = np.unique(column, return_counts=True)
            logarithm += math.log(float(np.square(counts / len(column)).sum()))
            if logarithm < _NEVER:
                return 0.0
    return min(1.0, math.exp(logarithm))


def has_measurements(*parts: NDArray[Any]) -> bool:
    """Whether some column has more values than grades, categories or shades have: ``MANY_VALUES``."""
    columns = (column for part in parts for column in part.reshape(len(part), -1).T)
    return any(len(np.unique(column[:MOST_COMPARED])) >= MANY_VALUES for column in columns)


def _with_one_zero(part: NDArray[Any]) -> NDArray[Any]:
    return part + part.dtype.type(0) if part.dtype.kind == "f" else part
