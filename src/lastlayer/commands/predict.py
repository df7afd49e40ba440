"""``lastlayer predict`` and ``lastlayer evaluate``: a model folder and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars

from lastlayer.checks import InputError
from lastlayer.commands.task import check_column, take_apart
from lastlayer.heads.targets import present_values
from lastlayer.model import Model
from lastlayer.model_folder import load_model, plain
from lastlayer.preprocessing import read_table
from lastlayer.preprocessing.target_coding import ClassCoding, QuantityCoding


def predict(folder: Path, path: Path, *, identifier: str | None = None, thousands: bool = False) -> polars.DataFrame:
    """Predictions in the order of the table's rows, with the identifier's column first if one is named."""
    model = load_model(folder)
    table = read_table(path, thousands=thousands)
    columns: dict[str, Any] = {}
    if identifier is not None:
        check_column(table, identifier)
        columns[identifier] = table[identifier]
    predictions = _predictions(model, table)
    if identifier in predictions:
        raise InputError(
            f"the predictions have a column {identifier!r} of their own, so the table's cannot be carried over beside "
            f"it. Rename the table's column, or leave out --id."
        )
    return polars.DataFrame(columns | predictions)


def evaluate(folder: Path, path: Path, *, weight: str | None = None, thousands: bool = False) -> dict[str, Any]:
    """Every figure on the table's rows that have a target, for the network, the constant and the linear model."""
    model = load_model(folder)
    task = take_apart(read_table(path, thousands=thousands), model.target_names, weight=weight)
    if not task.inputs.columns:
        learned = ", ".join(column.name for column in model.encoder.columns_ if column.used)
        raise InputError(f"the table has no column besides {task.name}; the model learned from {learned}.")
    present = task.present
    if not present.any():
        raise InputError(f"no row has a value of {task.name!r}; there is nothing to compare with.")
    values = present_values(task.target)[0] if task.targets.width == 1 else task.targets.filter(present).to_numpy()
    weights = task.weights()
    figures = model.evaluate(
        task.inputs.filter(present), values, None if weights is None else weights[present].astype(np.float64)
    )
    return {
        "rows": int(present.sum()),
        "rows_without_target": task.rows_without_target,
        "figures": plain(figures),
    }


def _predictions(model: Model, table: polars.DataFrame) -> dict[str, Any]:
    if isinstance(model.coding, QuantityCoding):
        centre = model.centre(table)
        return {"prediction": centre, "scale": np.full(len(centre), model.scale())}
    probability = model.probability(table)
    if isinstance(model.coding, ClassCoding):
        columns: dict[str, Any] = {
            "prediction": polars.Series(model.coding.decode(probability.argmax(axis=1)).tolist())
        }
        names = [str(name) for name in model.coding.classes]
    else:
        names = list(model.coding.names)
        columns = {name: (probability[:, index] > 0.5).astype(np.int8) for index, name in enumerate(names)}
    return columns | {f"probability_{name}": probability[:, index] for index, name in enumerate(names)}
