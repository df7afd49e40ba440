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
from lastlayer.model_folder import load_model
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
    return polars.DataFrame(columns | _predictions(model, table))


def evaluate(folder: Path, path: Path, *, weight: str | None = None, thousands: bool = False) -> dict[str, Any]:
    """Every figure on the table's rows that have a target, for the network, the constant and the linear model."""
    model = load_model(folder)
    task = take_apart(read_table(path, thousands=thousands), ",".join(model.target_names), weight=weight)
    rows = task.inputs.height
    if task.targets.width == 1:
        values, present = present_values(task.target)
    else:
        values, present = task.targets.to_numpy(), ~np.isnan(task.targets.to_numpy()).any(axis=1)
        values = values[present]
    if not present.any():
        raise InputError(f"no row has a value of {task.name}; there is nothing to compare with.")
    weights = task.weights()
    figures = model.evaluate(
        task.inputs.filter(present), values, None if weights is None else weights[present].astype(np.float64)
    )
    return {"rows": int(present.sum()), "rows_without_target": int(rows - present.sum()), "figures": figures}


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
