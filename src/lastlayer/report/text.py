"""A model's record as text in the terminal."""

from __future__ import annotations

import itertools
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

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
}
_LESS_IS_BETTER = ("nll", "rmse", "mae")


def choice_text(plan: dict[str, Any]) -> RenderableType:
    """The last layer, the loss, why, and how to choose otherwise."""
    problem = plan["problem"]
    return _pairs(
        ("target", ", ".join(plan["target"])),
        ("problem", problem["problem"]),
        ("last layer", f"head {plan['head']}, activation {problem['activation']}"),
        ("loss", problem["loss"]),
        ("why", plan["reason"]),
        ("otherwise", plan["override"]),
    )


def columns_text(columns: list[dict[str, Any]], notes: list[str]) -> RenderableType:
    """What each column is taken for, and what is left out and why."""
    by_kind: dict[str, list[str]] = {}
    for column in columns:
        missing = f" ({column['missing']} missing)" if column["missing"] else ""
        by_kind.setdefault(column["kind"], []).append(column["name"] + missing)
    lines: list[RenderableType] = [_pairs(*((kind, _shortened(names)) for kind, names in by_kind.items()))]
    lines += [Text(f"· {note}", style="yellow") for note in notes[:20]]
    if len(notes) > 20:
        lines.append(Text(f"· and {len(notes) - 20} more such columns.", style="yellow"))
    return Group(*lines)


def figures_text(figures: dict[str, dict[str, float | None]], title: str) -> RenderableType:
    """The network beside the constant and the linear model; the best of each row in bold."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    for key in figures["network"]:
        values = [figures[name].get(key) for name in figures]
        known = [value for value in values if value is not None]
        best = (min(known) if key in _LESS_IS_BETTER else max(known)) if known else None
        cells = [Text(number(value), style="bold" if value == best else "") for value in values]
        table.add_row(_TITLES.get(key, key), *cells)
    return table


def verdict(figures: dict[str, dict[str, float | None]]) -> str:
    """Whether the network earns its keep, in a sentence."""
    likelihood = {name: column["nll"] for name, column in figures.items() if column["nll"] is not None}
    network = likelihood.pop("network", None)
    if network is None or not likelihood:
        return ""
    better = [name for name, value in likelihood.items() if value <= network]
    if not better:
        return "The network beats the constant and the linear model."
    return (
        f"The network is no better than the {' and the '.join(better)} model here: the inputs say little that is not "
        f"simple, or there are too few rows. Prefer the simpler one."
    )


def training_text(training: dict[str, Any], rows: dict[str, int]) -> RenderableType:
    """Training and validation loss as two curves, with the best epoch."""
    epochs = len(training["training_loss"])
    ended = {
        "patience": "the validation loss no longer fell",
        "max_epochs": "all epochs were run",
        "interrupted": "it was interrupted",
        "not finite": "the loss was no longer a number",
    }[training["stopped"]]
    pairs = [
        ("rows", f"{rows['training']} to train on, {rows['held_out']} held out"),
        ("epochs", f"{epochs}, best {training['best_epoch']}; ended because {ended}"),
        ("seconds", number(training["seconds"])),
    ]
    for title, key in (("training loss", "training_loss"), ("validation loss", "validation_loss")):
        values = [value for value in training[key] if value is not None]
        if values:
            pairs.append((title, f"{sparkline(values)}  {number(values[0])} → {number(values[-1])}"))
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
    record, network = description["record"], description["network"]
    columns = description["preprocessing"]["columns"]
    hidden = " × ".join(map(str, network["hidden"])) or "none"
    parts: list[RenderableType] = []
    if "choice" in record:
        parts += [_heading("Target"), choice_text(record["choice"])]
    parts += [
        _heading("Columns"),
        columns_text(columns, [column["note"] for column in columns if column["note"]]),
        _heading("Network"),
        _pairs(
            ("inputs", f"{network['inputs']} encoded columns and {network['codes']} piecewise-linear codes"),
            ("hidden", f"{hidden}, {network['activation']}, dropout {network['dropout']}"),
            ("outputs", str(network["outputs"])),
        ),
    ]
    if "training" in record:
        parts += [_heading("Training"), training_text(record["training"], record["rows"])]
    if "figures" in record:
        parts += [
            _heading("How good"),
            figures_text(record["figures"], title=f"on {record['judged_on']}"),
            Text(verdict(record["figures"])),
        ]
    return Group(*parts)


def print_notes(console: Console, notes: list[str]) -> None:
    """What deserves a look, a line each."""
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}")


def number(value: float | None) -> str:
    """A figure with four digits that count; a dash where it is not defined."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


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
