"""``lastlayer fit``: a table or images in, a model folder out; and what ``--dry-run`` says instead."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lastlayer.checks import InputError, LastLayerWarning, ModelFolderError, check_device, check_seed
from lastlayer.commands.source import read_source
from lastlayer.commands.task import TakenApart, check_column, is_quantity, take_apart
from lastlayer.estimators import Classifier, Regressor
from lastlayer.heads import PROBLEM_TYPES, named
from lastlayer.model_folder import check_place, describe_model
from lastlayer.preprocessing import describe_columns, image_size_text


def fit(
    path: Path,
    target: str | None,
    *,
    out: Path,
    head: str | None = None,
    weight: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    balanced: bool = False,
    thousands: bool = False,
    image_size: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Fits and saves a model; returns what was chosen, why, and how good it is.

    Args:
        path: of a table or images.
        target: see :func:`take_apart`.
        out: the model folder; checked before training.
        balanced: let every class count the same.
        options: of the estimator.
    """
    check_device(options.get("device", "cpu"))
    check_seed(options.get("random_state", 0))
    try:
        check_place(out, force=force)
    except ModelFolderError as error:
        if not dry_run:
            raise
        warnings.warn(f"without --dry-run this would stop here: {error}", LastLayerWarning, stacklevel=2)
    of_tables = {"drop": drop, "keep": keep}
    source = read_source(path, part="train", image_size=image_size, thousands=thousands, of_tables=of_tables)
    task = take_apart(source, target, weight=weight, drop=tuple(drop))
    if source.kind == "table" and not task.inputs.columns:
        raise InputError(
            f"the table has no column left besides {', '.join(source.columns.columns)}; there is nothing to learn "
            f"from. Add the columns to predict it from."
        )
    for column in keep:
        check_column(dataclasses.replace(source, columns=task.inputs), column)
    weights = task.weights()
    name, reason, override, notes = task.choose(head)
    if balanced and is_quantity(name):
        raise InputError(f"--balanced is for classes, and head {name} is for a quantity. Leave it out.")
    estimator: Classifier | Regressor
    if is_quantity(name):
        estimator = Regressor(head=name, keep=tuple(keep), **options)
    else:
        estimator = Classifier(head=name, keep=tuple(keep), class_weight="balanced" if balanced else None, **options)
    estimator.check_options()
    plan = {
        "data": source.in_words,
        "kind": source.kind,
        "part": source.part,
        "rows": source.columns.height if source.images is None else len(source.images),
        "rows_without_target": task.rows_without_target,
        "target": task.targets.columns,
        "head": name,
        "problem": _problem(name),
        "reason": reason,
        "override": override,
        "warnings": [*notes, *source.notes],
    }
    if dry_run:
        return plan | (_columns(task, keep) if source.kind == "table" else _pixels(task))
    estimator.fit(task.inputs, task.target, sample_weight=weights)
    estimator.model_.record |= {"choice": plan}
    estimator.save(out, force=force)
    return describe_model(estimator.model_) | {"folder": str(out)}


def _problem(head: str) -> dict[str, str]:
    if head == "auto":
        return {"problem": "a quantity", "activation": "the likeliest head's", "loss": "the likeliest head's"}
    facts = named(head.partition(":")[0]).facts
    problem = next((row.problem for row in PROBLEM_TYPES if facts.name in row.heads), facts.title)
    return {
        "problem": problem,
        "activation": facts.activation,
        "loss": facts.loss.replace("_", " ").replace("cross entropy", "cross-entropy"),
    }


def _columns(task: TakenApart, keep: Sequence[str]) -> dict[str, Any]:
    columns = describe_columns(task.inputs, keep=keep)
    return {
        "columns": [{"name": column.name, "kind": column.kind, "missing": column.missing} for column in columns],
        "notes": [column.note for column in columns if column.note],
    }


def _pixels(task: TakenApart) -> dict[str, Any]:
    images = task.inputs
    return {"images": image_size_text(images), "smallest": images.min(), "largest": images.max()}
