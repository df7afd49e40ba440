"""The doctor's findings as text in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_COLOR = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def findings_text(result: dict[str, Any]) -> RenderableType:
    """What was examined, every finding in order of severity, and how many there are of each.

    Args:
        result: ``Findings.to_dict()``, and under ``"examined"`` what was looked at.
    """
    findings = [part for finding in result["findings"] for part in (Text(), _finding(finding))]
    return Group(_examined(result), *findings, Text(), Text(summary(result), style="bold"))


def summary(result: dict[str, Any]) -> str:
    """How many findings of each severity there are, in a sentence."""
    counts = [(result[f"{severity}s"], severity) for severity in _COLOR]
    said = [f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts if count]
    if not said:
        return "Nothing found."
    return f"Found: {', '.join(said)}."


def _examined(result: dict[str, Any]) -> RenderableType:
    examined = result["examined"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    rows = {
        "network": f"{examined['network']}, {examined['parameters']} parameters",
        "loss": examined["loss"] or "none",
        "data": examined["data"],
        "on": examined["batch"],
        # Where something is found, it says itself what was looked for.
        "looked for": "" if result["findings"] else ", ".join(examined["questions"]),
    }
    for name, value in rows.items():
        if value:
            grid.add_row(name, Text(value))
    for note in examined["notes"]:
        grid.add_row("", Text(note, style="dim"))
    return grid


def _finding(finding: dict[str, Any]) -> RenderableType:
    head = Text.assemble((finding["severity"], _COLOR[finding["severity"]]), "  ", (finding["name"], "bold"), "  ")
    head.append(finding["where"])
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim", no_wrap=True, min_width=len("tried"))
    lines.add_column(overflow="fold")
    lines.add_row("", Text(finding["evidence"]))
    lines.add_row("fix", Text(finding["fix"]))
    if finding["tried"]:
        lines.add_row("tried", Text(finding["tried"]))
    return Group(head, Padding(lines, (0, 0, 0, 2)))
