"""``lastlayer predict`` and ``lastlayer evaluate``: a model folder, and a table or images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars

from lastlayer.checks import InputError, check_choice
from lastlayer.commands.source import read_source, say
from lastlayer.commands.task import check_column, take_apart
from lastlayer.heads.targets import present_values
from lastlayer.model import Model
from lastlayer.model_folder import load_model, plain
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.image_reading import FILE
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding, QuantityCoding


def predict(
    folder: Path,
    path: Path,
    *,
    identifier: str | None = None,
    interval: float | None = None,
    quantiles: str | None = None,
    statistic: str | None = None,
    thousands: bool = False,
    image_size: str | None = None,
) -> polars.DataFrame:
    """Predictions in the order of the rows, with the identifier's column first; of image files that is their name.

    Args:
        interval: the share of the central interval to add, for quantities.
        quantiles: shares with commas between, for quantities.
        statistic: ``"mean"``, ``"median"`` or ``"mode"``; ``None`` for what the head's loss is least at.

    Raises:
        InputError: for an option that does not fit the model, or a share outside [0, 1].
    """
    model = load_model(folder)
    asked = _Asked(interval, _numbers(quantiles), statistic)
    if not isinstance(model.coding, QuantityCoding) and asked != _Asked():
        raise InputError(
            f"{folder} predicts classes; --interval, --quantiles and --statistic are for quantities. Leave them out."
        )
    source = read_source(path, part="test", model=model, image_size=image_size, thousands=thousands)
    part = (f"of {source.name} the {source.part} part is predicted.",) if source.part else ()
    say(*part, *source.notes)
    columns: dict[str, Any] = {}
    if identifier is None and source.kind == "images" and FILE in source.columns.columns:
        identifier = FILE
    if identifier is not None:
        check_column(source, identifier)
        columns[identifier] = source.columns[identifier]
    inputs = source.inputs_without(set())
    predictions = (
        _quantity(model, inputs, asked) if isinstance(model.coding, QuantityCoding) else _classes(model, inputs)
    )
    if identifier in predictions:
        raise InputError(
            f"the predictions have a column {identifier!r} of their own, so the table's cannot be carried over beside "
            f"it. Rename the table's column, or leave out --id."
        )
    return polars.DataFrame(columns | predictions)


def evaluate(
    folder: Path, path: Path, *, weight: str | None = None, thousands: bool = False, image_size: str | None = None
) -> dict[str, Any]:
    """Every figure on the rows that have a target, for the network, the constant and the linear model."""
    model = load_model(folder)
    source = read_source(path, part="test", model=model, image_size=image_size, thousands=thousands)
    say(*source.notes)
    task = take_apart(source, model.target_names, weight=weight)
    if isinstance(model.encoder, TableEncoder) and not task.inputs.columns:
        learned = ", ".join(column.name for column in model.encoder.columns_ if column.used)
        raise InputError(f"the table has no column besides {task.name}; the model learned from {learned}.")
    present = task.present
    if not present.any():
        raise InputError(f"no row has a value of {task.name!r}; there is nothing to compare with.")
    values = present_values(task.target)[0] if task.targets.width == 1 else task.targets.filter(present).to_numpy()
    weights = task.weights()
    figures = model.evaluate(
        task.present_inputs, values, None if weights is None else weights[present].astype(np.float64)
    )
    return {
        "part": source.part,
        "noun": source.noun,
        "rows": int(present.sum()),
        "rows_without_target": task.rows_without_target,
        "figures": plain(figures),
    }


@dataclass(frozen=True)
class _Asked:
    """What of a quantity's distribution is to be printed beside the prediction."""

    interval: float | None = None
    quantiles: tuple[float, ...] = ()
    statistic: str | None = None

    def __post_init__(self) -> None:
        for share in (*self.quantiles, *(() if self.interval is None else (self.interval,))):
            if not 0 <= share <= 1:
                raise InputError(f"{share:g} is no share; expected numbers from 0 to 1, such as 0.9.")
        if self.statistic is not None:
            check_choice(self.statistic, ("mean", "median", "mode"), what="statistic")


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--quantiles {text!r} is no list of numbers; expected one such as 0.1,0.5,0.9.") from None


def _quantity(model: Model, inputs: Any, asked: _Asked) -> dict[str, Any]:
    distribution = model.distribution(inputs)
    value = getattr(distribution, asked.statistic or model.head.statistic)
    columns = {"prediction": value.numpy(), "standard_deviation": distribution.standard_deviation.numpy()}
    if asked.interval is not None:
        low, high = distribution.interval(asked.interval)
        name = f"{100 * asked.interval:g}"
        columns |= {f"low_{name}": low.numpy(), f"high_{name}": high.numpy()}
    for share in asked.quantiles:
        columns[f"quantile_{share:g}"] = distribution.quantile(share).numpy()
    return columns


def _classes(model: Model, inputs: Any) -> dict[str, Any]:
    probability = model.probability(inputs)
    if isinstance(model.coding, ClassCoding):
        columns: dict[str, Any] = {"prediction": polars.Series(model.coding.decode(model.decide(inputs)).tolist())}
        names = [str(name) for name in model.coding.classes]
    else:
        assert isinstance(model.coding, LabelCoding)
        names = list(model.coding.names)
        columns = {name: (probability[:, index] > 0.5).astype(np.int8) for index, name in enumerate(names)}
    return columns | {f"probability_{name}": probability[:, index] for index, name in enumerate(names)}
