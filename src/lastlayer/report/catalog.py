"""Losses, activations and heads as text in the terminal: a table of all, or one with its curves."""

from __future__ import annotations

import unicodedata
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lastlayer.report.plot import LETTERS, STROKES, plot

# What is said of one, in this order, where its record has it.
_TITLES = {
    "formula": "formula",
    "gradient": "gradient",
    "derivative": "derivative",
    "target": "target",
    "raw": "raw output",
    "range": "range",
    "link": "link",
    "activation": "activation",
    "loss": "loss",
    "likelihood": "likelihood",
    "minimum": "minimum",
    "optimal_constant": "best constant",
    "shape": "shape",
    "saturates": "saturates",
    "parameters": "learned",
    "use_when": "use when",
    "avoid_when": "not when",
    "spelling": "as text",
    "options": "options",
    "reference": "reference",
}
_ASCII = {
    "−": "-", "–": "-", "±": "+-", "·": "*", "×": "x", "∘": "o", "²": "^2", "³": "^3", "√": "sqrt", "∞": "inf",
    "≥": ">=", "≤": "<=", "≠": "!=", "≈": "~", "∝": "~", "∈": "in", "→": "->", "∂": "d", "Σ": "sum", "‖": "||",
    "…": "...", "⁄": "/",
}  # fmt: skip


def catalog_text(kind: str, records: list[dict[str, Any]], *, ascii_only: bool = False) -> RenderableType:
    """A table of all of a kind: name, what is known of it, what it is and when to use it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(_SINGULAR[kind], no_wrap=True, style="bold")
    table.add_column(_KNOWN[kind], max_width=22)
    table.add_column("what it is" if kind == "heads" else "what it is, when to use it")
    for index, record in enumerate(records):
        known, said = _in_short(kind, record)
        about = Text.assemble((record["title"], "italic"), *(f"\n{line}" for line in said))
        cells = [Text(record["name"]), Text("\n".join(known)), about]
        table.add_row(*(_spelled(cell, ascii_only) for cell in cells), end_section=index == len(records) - 1)
    return Group(table, Text(f"lastlayer {kind} NAME shows one of them."))


_KNOWN = {"losses": "target, link, shape", "activations": "range, shape", "heads": "target, loss"}
_SINGULAR = {"losses": "loss", "activations": "activation", "heads": "head"}


def _in_short(kind: str, record: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is known of one, and what it is for, a line each."""
    if kind == "losses":
        return [_target(record), record["link"], _shape(record)], [f"when {record['use_when']}"]
    if kind == "activations":
        return [record["range"], _monotonic(record), _sides(record)], [f"when {record['use_when']}"]
    return [record["target"], record["loss"]], [f"activation {record['activation']}, likelihood {record['likelihood']}"]


def details_text(record: dict[str, Any], *, width: int, ascii_only: bool = False) -> RenderableType:
    """One of a catalog: formula, domain, when to use it, options, reference, and its curves.

    Args:
        width: columns of the screen.
        ascii_only: whether the output knows ASCII only.
    """
    said = record | {"options": _options_text(record["options"])}
    if record.get("spelling"):
        said["spelling"] = f"{record['name']}:{record['spelling']}"
    if "convex" in record:
        said |= {"shape": _shape(record), "target": _target(record)}
    if "monotonic" in record:
        shape = f"{_monotonic(record)}, {_derivative_monotonic(record)}; {_sides(record)}"
        said |= {"shape": shape, "saturates": _saturation(record)}
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, title in _TITLES.items():
        if said.get(key):
            grid.add_row(title, _spelled(Text(said[key]), ascii_only))
    heading = Text.assemble((record["name"], "bold"), f"  {record['title']}")
    parts: list[RenderableType] = [_spelled(heading, ascii_only), grid]
    if "curves" in record:
        parts += [Text(), curves_text(record["curves"], width=width, ascii_only=ascii_only)]
    return Group(*parts)


def curves_text(curves: dict[str, Any], *, width: int, ascii_only: bool = False) -> Group:
    """Value and derivative beside each other, or one below the other on a narrow screen."""
    lines = curves["lines"]
    beside = width >= 64
    # Wider than this a plot says no more.
    each = max(min((width - 3) // 2 if beside else width, 58), 24)
    panels = []
    for key in ("value", "derivative", "gradient"):
        if key in lines[0]:
            rows = plot(curves["x"], [line[key] for line in lines], width=each, ascii_only=ascii_only)
            panels.append([f"{key} over {curves['over']}".center(each), *rows])
    drawn = (
        [f"{left:<{each}}   {right}" for left, right in zip(*panels, strict=True)]
        if beside
        else [*panels[0], *panels[1]]
    )
    notes = [curves["shows"]] if curves["shows"] else []
    if len(lines) > 1:
        strokes = LETTERS if ascii_only else STROKES
        notes.append(", ".join(f"{stroke}: {line['label']}" for stroke, line in zip(strokes, lines, strict=True)))
    elif lines[0]["label"]:
        notes.append(f"for {lines[0]['label']}")
    return Group(
        Text("\n".join(drawn), no_wrap=True, overflow="crop"),
        *(_spelled(Text(note, style="dim"), ascii_only) for note in notes),
    )


def in_ascii(text: str) -> str:
    """The text in ASCII: Greek letters by their names, signs as they are typed."""
    return "".join(character if character.isascii() else _typed(character) for character in text)


def _typed(character: str) -> str:
    if character in _ASCII:
        return _ASCII[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        letter = name.split()[-1]
        return letter.capitalize() if "CAPITAL" in name else letter.lower()
    parts = unicodedata.normalize("NFKD", character)
    typed = "".join(_ASCII.get(part, part if part.isascii() else "") for part in parts)
    return typed or f"<{name.lower()}>"


def _spelled(text: Text, ascii_only: bool) -> Text:
    if not ascii_only or text.plain.isascii():
        return text
    # A translated text has other lengths, and spans of style no more fit.
    return Text(in_ascii(text.plain), style=text.style)


def _target(record: dict[str, Any]) -> str:
    return record["target"] or "classes"


def _shape(record: dict[str, Any]) -> str:
    """Of a loss whether it is convex and smooth."""
    return f"{'' if record['convex'] else 'not '}convex, {_smooth(record)}"


def _monotonic(record: dict[str, Any]) -> str:
    return "monotonic" if record["monotonic"] else "not monotonic"


def _derivative_monotonic(record: dict[str, Any]) -> str:
    """Whether the derivative is monotonic, too, said beside whether the value is."""
    if record["monotonic"] == record["derivative_monotonic"]:
        return "and so is its derivative" if record["monotonic"] else "nor is its derivative"
    return "its derivative is" if record["derivative_monotonic"] else "its derivative is not"


def _sides(record: dict[str, Any]) -> str:
    return f"{_smooth(record)}{', zero-centered' if record['zero_centered'] else ''}"


def _smooth(record: dict[str, Any]) -> str:
    return "smooth" if record["smooth"] else "not smooth"


def _saturation(record: dict[str, Any]) -> str:
    sides = [
        f"{word} {record[key]:g}"
        for key, word in (("saturates_below", "below"), ("saturates_above", "above"))
        if record[key] is not None
    ]
    return " and ".join(sides) if sides else "never"


def _options_text(options: dict[str, Any]) -> str:
    return ", ".join(name if value == "required" else f"{name}={_shortly(value)}" for name, value in options.items())


def _shortly(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
