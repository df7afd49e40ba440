"""``lastlayer fit``: a table in, a model folder out; and what ``--dry-run`` says instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lastlayer.checks import InputError
from lastlayer.commands.task import TableTask, is_quantity, take_apart
from lastlayer.estimators import Classifier, Regressor
from lastlayer.heads import PROBLEM_TYPES
from lastlayer.model_folder import check_place, describe_model
from lastlayer.preprocessing import describe_columns, read_table


def fit(
    path: Path,
    target: str,
    *,
    out: Path,
    head: str | None = None,
    weight: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    balanced: bool = False,
    thousands: bool = False,
    force: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Fits and saves a model; returns what was chosen, why, and how good it is.

    Args:
        path: the table.
        target: see :func:`take_apart`.
        out: the model folder; checked before training.
        balanced: let every class count the same.
        options: of the estimator.
    """
    place = check_place(out, force=force)
    table = read_table(path, thousands=thousands)
    task = take_apart(table, target, weight=weight, drop=tuple(drop))
    name, reason, override, warnings = task.choose(head)
    plan = {
        "table": path.name,
        "rows": table.height,
        "target": task.targets.columns,
        "head": name,
        "problem": _problem(name),
        "reason": reason,
        "override": override,
        "warnings": list(warnings),
    }
    if dry_run:
        return plan | _columns(task, keep)
    estimator: Classifier | Regressor
    if is_quantity(name):
        if balanced:
            raise InputError(f"--balanced is for classes, and head {name} is for a quantity. Leave it out.")
        estimator = Regressor(head=name, keep=tuple(keep), **options)
    else:
        estimator = Classifier(head=name, keep=tuple(keep), class_weight="balanced" if balanced else None, **options)
    estimator.fit(task.inputs, task.target, sample_weight=task.weights())
    estimator.model_.record |= {"choice": plan}
    estimator.save(place, force=force)
    return describe_model(estimator.model_) | {"folder": str(out)}


def _problem(head: str) -> dict[str, str]:
    row = next(row for row in PROBLEM_TYPES if head in row.heads)
    return {"problem": row.problem, "activation": row.activation, "loss": row.loss}


def _columns(task: TableTask, keep: Sequence[str]) -> dict[str, Any]:
    columns = describe_columns(task.inputs, keep=keep)
    return {
        "columns": [{"name": column.name, "kind": column.kind, "missing": column.missing} for column in columns],
        "notes": [column.note for column in columns if column.note],
    }
