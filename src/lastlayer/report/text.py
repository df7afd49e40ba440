"""A model's record as text in the terminal."""

from __future__ import annotations

import itertools
import math
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lastlayer.preprocessing.columns import LEFT_OUT

# What people compare by, and whether less is better.
_TITLES = {
    "nll": "negative log-likelihood (nats)",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "label_accuracy": "accuracy per label",
    "subset_accuracy": "all labels right",
    "f1_micro": "F1 over all labels",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
    "crps": "continuous ranked probability score",
    "coverage_90": "held by the 90 % interval",
    "width_90": "width of the 90 % interval",
    "brier": "Brier score",
    "ece": "expected calibration error (15 bins)",
}
_LESS_IS_BETTER = ("nll", "rmse", "mae", "crps", "width_90", "brier", "ece")
#: What is best at a value of its own.
_WANTED = {"coverage_90": 0.9}


def plan_text(plan: dict[str, Any]) -> RenderableType:
    """What ``fit --dry-run`` says: what would be learned and how, and from what."""
    if plan["kind"] == "images":
        pixels = _pairs(("images", plan["images"]), ("values", f"{plan['smallest']:g} to {plan['largest']:g}"))
        return Group(_heading("Target"), choice_text(plan), _heading("Images"), pixels)
    return Group(
        _heading("Target"), choice_text(plan), _heading("Columns"), columns_text(plan["columns"], plan["notes"])
    )


def choice_text(plan: dict[str, Any]) -> RenderableType:
    """The last layer, the loss, why, and how to choose otherwise."""
    problem = plan["problem"]
    without = (
        f", {_counted(plan['rows_without_target'], 'row')} without it left out" if plan["rows_without_target"] else ""
    )
    pairs = _pairs(
        (plan["kind"], plan["data"]),
        ("target", _shortened(plan["target"]) + without),
        ("problem", problem["problem"]),
        ("last layer", f"head {plan['head']}, activation {problem['activation']}"),
        ("loss", problem["loss"]),
        ("why", plan["reason"]),
        ("otherwise", plan["override"]),
    )
    return Group(pairs, *_notes(plan["warnings"]))


def columns_text(columns: list[dict[str, Any]], notes: list[str]) -> RenderableType:
    """What each column is taken for, and what is left out and why."""
    by_kind: dict[str, list[str]] = {}
    for column in columns:
        missing = f" ({column['missing']} missing)" if column["missing"] else ""
        by_kind.setdefault(column["kind"], []).append(column["name"] + missing)
    used = [kind for kind in by_kind if kind not in LEFT_OUT]
    ordered = used + [kind for kind in by_kind if kind in LEFT_OUT]
    most = 20
    more = [f"and {len(notes) - most} more such columns."] if len(notes) > most else []
    pairs = _pairs(*((kind, _shortened(by_kind[kind])) for kind in ordered))
    return Group(pairs, *_notes(notes[:most] + more))


def figures_text(figures: dict[str, dict[str, float | None]], title: str) -> RenderableType:
    """The network beside the constant and the linear model; the best of each row in bold."""
    table = Table(title=title, title_justify="left", title_style="dim", box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    for key in figures["network"]:
        values = [figures[name].get(key) for name in figures]
        known = [value for value in values if value is not None]
        wanted = _WANTED.get(key)
        if wanted is not None:
            best = min(known, key=lambda value: abs(value - wanted), default=None)
        else:
            best = (min(known) if key in _LESS_IS_BETTER else max(known)) if known else None
        cells = [
            Text(cell, style="bold" if value == best else "") for cell, value in zip(_row(values), values, strict=True)
        ]
        table.add_row(_TITLES.get(key, key), *cells)
    return table


def verdict(figures: dict[str, dict[str, float | None]], record: dict[str, Any] | None = None) -> str:
    """Whether the network earns its keep, in a sentence or two.

    Args:
        figures: of the network and the simpler models.
        record: how training was planned and went, where that is known: what was cut short says little.
    """
    likelihood = {name: column["nll"] for name, column in figures.items() if column["nll"] is not None}
    network = likelihood.pop("network", None)
    if network is None or not likelihood:
        return ""
    better = [name for name, value in likelihood.items() if value <= network]
    if not better:
        sentence = "By its likelihood the network beats the constant and the linear model."
        # A rate that falls to 0 makes the last epoch the best; of a network that is ahead that says nothing.
        by_plan = record is not None and record["plan"]["schedule"] == "cosine"
        return f"{sentence} {_IMPROVING}" if _cut_short(record) and not by_plan else sentence
    sentence = f"By its likelihood the network is no better than the {' and the '.join(better)} model here."
    if _cut_short(record):
        return f"{sentence} {_IMPROVING}"
    return (
        f"{sentence} The inputs say little that is not simple, or there are too few rows: prefer the "
        f"{'constant' if 'constant' in better and len(better) == 1 else 'simpler'} one."
    )


_IMPROVING = "It was still getting better when training ended: give it more epochs before you judge."


def _cut_short(record: dict[str, Any] | None) -> bool:
    """Whether the last epoch that training was allowed was its best."""
    training = None if record is None else record.get("training")
    if training is None or training["stopped"] not in ("max_epochs", "interrupted"):
        return False
    return bool(training["validation_loss"]) and training["best_epoch"] == len(training["validation_loss"])


def training_text(record: dict[str, Any]) -> RenderableType:
    """Training and validation loss as two curves, with the best epoch, and whether all rows were learned from after."""
    training, rows = record["training"], record["rows"]
    epochs = len(training["training_loss"])
    ended = {
        "patience": "the validation loss no longer fell",
        "max_epochs": "all epochs were run",
        "interrupted": "it was interrupted",
        "not finite": "the loss was no longer a number",
    }[training["stopped"]]
    kept = f"best {training['best_epoch']}" if training["best_epoch"] else "none better than the best constant"
    pairs = [
        ("rows", f"{rows['training']} to train on, {rows['held_out']} held out"),
        ("epochs", f"{epochs}, {kept}; ended because {ended}"),
        ("seconds", number(training["seconds"])),
    ]
    for title, key in (("training loss", "training_loss"), ("validation loss", "validation_loss")):
        values = [value for value in training[key] if value is not None]
        if len(values) == 1:
            pairs.append((title, number(values[0])))
        elif values:
            pairs.append((title, f"{sparkline(values)}  {number(values[0])} → {number(values[-1])}"))
    if record.get("refitted_on_all_rows"):
        everything, best = rows["training"] + rows["held_out"], training["best_epoch"]
        pairs.append(("then", f"trained again on all {everything} rows, for {_counted(best, 'epoch')}"))
    return _pairs(*pairs)


def sparkline(values: list[float], width: int = 40) -> str:
    """Values as a row of bars, the means of equal stretches where there are more than ``width``."""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[left:right]) / (right - left) for left, right in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[round((value - low) / (high - low) * 7) if high > low else 0] for value in means)


def model_text(description: dict[str, Any]) -> RenderableType:
    """All of a model: data, head and why, network, curves, figures."""
    record, preprocessing = description["record"], description["preprocessing"]
    parts: list[RenderableType] = []
    if "choice" in record:
        parts += [_heading("Target"), choice_text(record["choice"])]
    if preprocessing["kind"] == "images":
        parts += [_heading("Images"), _images_text(preprocessing)]
    else:
        columns = preprocessing["columns"]
        notes = [column["note"] for column in columns if column["note"]]
        parts += [_heading("Columns"), columns_text(columns, notes)]
    parts += [_heading("Network"), _network_text(description["network"], record.get("parameters"))]
    if "training" in record:
        parts += [_heading("Training"), training_text(record)]
    if "figures" in record:
        before = ", before the network was trained again on all" if record.get("refitted_on_all_rows") else ""
        parts += [
            _heading("How good"),
            figures_text(record["figures"], title=f"on {record['judged_on']}{before}"),
            Text(verdict(record["figures"], record)),
        ]
    return Group(*parts)


def _images_text(encoder: dict[str, Any]) -> RenderableType:
    """What images look like, and how they are scaled."""
    scaled = {
        "channel": "each channel to mean 0 and standard deviation 1",
        "channel_mean": "the mean of each channel subtracted",
        "mean_image": "the mean image subtracted",
        "none": "not at all",
    }[encoder["scaling"]["kind"]]
    size = f"{encoder['height']} × {encoder['width']} pixels, {_counted(encoder['channels'], 'channel')}"
    return _pairs(("images", f"{size}, values up to {encoder['largest']:g}"), ("scaled", scaled))


def _network_text(network: dict[str, Any], parameters: int | None) -> RenderableType:
    """What the network reads, its body, and what it puts out."""
    options = f"{network['activation']}, dropout {network['dropout']}"
    if network["kind"] == "tabular":
        inputs = [_counted(network["inputs"], "encoded column")]
        if network["codes"]:
            inputs.append(_counted(network["codes"], "piecewise-linear code"))
        hidden = " × ".join(map(str, network["hidden"]))
        pairs = [("inputs", " and ".join(inputs)), ("hidden", f"{hidden}, {options}" if hidden else "none")]
    else:
        if network["shifts"]:
            options += f", batches shifted by up to {_counted(network['shifts'], 'pixel')}"
        pooled = f", {network['pooling']} pooling" if "pooling" in network else ""
        pairs = [("body", f"{network['kind']}{pooled}, {options}")]
    pairs.append(("outputs", str(network["outputs"])))
    if parameters is not None:
        pairs.append(("weights", str(parameters)))
    return _pairs(*pairs)


def number(value: float | None) -> str:
    """A figure with four digits that count; a dash where it is not defined."""
    if value is None:
        return "–"
    return f"{value:.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.4g}"


def _row(values: list[float | None]) -> list[str]:
    """Figures to compare, with as many decimals as four digits of the first take, so that their points align."""
    first = next((abs(value) for value in values if value), 1.0)
    decimals = 3 - math.floor(math.log10(first))
    if not (decimals <= 6 and all(value is None or abs(value) < 1e9 for value in values)):
        return [number(value) for value in values]
    return ["–" if value is None else f"{value:.{max(decimals, 0)}f}" for value in values]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _notes(notes: list[str]) -> list[RenderableType]:
    """A line each, its further lines indented."""
    grid = Table.grid(padding=(0, 1))
    for note in notes:
        grid.add_row(Text("·", style="yellow"), Text(note, style="yellow", overflow="fold"))
    return [grid] if notes else []


def _shortened(names: list[str], most: int = 30) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _pairs(*pairs: tuple[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(value))
    return grid
