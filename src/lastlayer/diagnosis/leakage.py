"""Does the data give away what is to be learned: by a column, or by rows on both sides of the split?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.diagnosis.duplicates import (
    DUPLICATED_ROWS,
    MOST_ROWS,
    chance_of_a_twin,
    has_measurements,
    row_keys,
    share_repeated,
    share_seen,
)
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.leaks import LEAKING_COLUMN, Values, find_leaks, finding_of
from lastlayer.diagnosis.subject import Features, Subject

#: From this share of the validation rows on, and this many, figures are noticeably too good.
NOTICEABLE, FEWEST = 0.01, 3
#: More than chance: so many times what independent columns would give, where a column measures something; or so many
#: times what the training rows have among themselves. Where all columns are grades, counts or pixels of a few shades,
#: they depend on each other, and alike rows may be many.
MORE_THAN_INDEPENDENT, MORE_THAN_AMONG_THEMSELVES = 100.0, 3.0
#: From this share on there is no validation at all.
NEARLY_ALL = 0.99
# Columns that are looked at one by one; of pixels and the like none gives a target away.
_MOST_COLUMNS = 500


def leaking_column(subject: Subject) -> Iterator[Finding]:
    """A column that alone says what the target is."""
    features, target = _all_rows(subject)
    if target is None or target.dim() == 0:
        return
    wanted = target.reshape(-1) if target.numel() == len(target) else _one_hot_index(target)
    tables = [tensor for tensor in _tensors(features) if tensor.dim() == 2 and len(tensor) == len(target)]
    if wanted is None or not tables or any(not tensor.is_floating_point() for tensor in tables):
        return
    matrix = torch.cat([tensor.detach().double().cpu() for tensor in tables], dim=1).numpy()
    goal = wanted.detach().double().cpu().numpy()
    if matrix.shape[1] > _MOST_COLUMNS or not np.isfinite(matrix).all() or not np.isfinite(goal).all():
        return
    classes = not wanted.is_floating_point() or len(np.unique(goal)) == 2
    several = len(tables) > 1
    columns = [
        Values(f"column {place} of the inputs{' put together' if several else ''}", matrix[:, place])
        for place in range(matrix.shape[1])
    ]
    leaks = find_leaks(columns, goal, classes=classes, others=lambda places: np.delete(matrix, places, axis=1))
    for leak in leaks:
        yield finding_of(leak, target="the target", rows=len(goal), classes=classes)


def duplicated_rows(subject: Subject) -> Iterator[Finding]:
    """Validation rows, features and target, that are among the rows to learn from."""
    features, target = _all_rows(subject)
    if subject.validation is None or target is None:
        return
    parts, other_parts = _arrays(features, target), _arrays(*subject.validation)
    if not parts or [part.shape[1:] for part in parts] != [part.shape[1:] for part in other_parts]:
        return
    # Of numbers in another precision no row would be the same.
    other_parts = [other.astype(part.dtype) for part, other in zip(parts, other_parts, strict=True)]
    keys, other_keys = row_keys(*parts), row_keys(*other_parts)
    count, share = share_seen(other_keys, keys)
    if count < FEWEST or share < NOTICEABLE:
        return
    among_themselves = share_repeated(keys)
    by_chance = chance_of_a_twin(*parts)
    usual = MORE_THAN_AMONG_THEMSELVES * among_themselves + NOTICEABLE
    copied = share > MORE_THAN_INDEPENDENT * by_chance and has_measurements(*parts[:-1])
    if not copied and share <= usual:
        return
    expected = f"by chance about {100 * by_chance:.2g} % would be" if by_chance > 1e-6 else "by chance none would be"
    known = "rows to learn from" if subject.training is not None else "rows of the batch"
    yield DUPLICATED_ROWS.found(
        "the validation rows",
        f"{count} of {len(other_keys)} ({100 * share:.3g} %) are also among the {len(keys)} {known}, features and "
        f"target alike; {expected}.",
        numbers={
            "rows": float(count),
            "share": share,
            "share_among_training_rows": among_themselves,
            "share_by_chance": by_chance,
        },
        severity="error" if share >= NEARLY_ALL else None,
    )


def _all_rows(subject: Subject) -> tuple[Features, Tensor | None]:
    """All rows to learn from, where they are known; those of the batch otherwise."""
    return (subject.features, subject.target) if subject.training is None else subject.training


def _one_hot_index(target: Tensor) -> Tensor | None:
    """The class of every row of 0 and 1 with a single 1; ``None`` of anything else."""
    if target.dim() != 2 or not bool(((target == 0) | (target == 1)).all()) or not bool((target.sum(1) == 1).all()):
        return None
    return target.argmax(1)


def _tensors(features: Features) -> list[Tensor]:
    values = (
        features.values() if isinstance(features, dict) else features if isinstance(features, tuple) else [features]
    )
    return [value for value in values if isinstance(value, Tensor)]


def _arrays(features: Features, target: Tensor) -> list[NDArray[Any]]:
    """Features and target as arrays, the first ``MOST_ROWS`` rows; nothing if they differ in number."""
    tensors = [*_tensors(features), target]
    if any(tensor.dim() == 0 or len(tensor) != len(target) for tensor in tensors) or len(tensors) < 2:
        return []
    shown = [tensor[:MOST_ROWS].detach().cpu() for tensor in tensors]
    return [(tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for tensor in shown]


FAULTS: tuple[Fault, ...] = (LEAKING_COLUMN, DUPLICATED_ROWS)
CHECKS: tuple[Check, ...] = (leaking_column, duplicated_rows)
