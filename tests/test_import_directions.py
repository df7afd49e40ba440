"""Imports run one way along the flow of the data, and no room reaches into a later one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lastlayer

PACKAGE = Path(lastlayer.__file__).parent

# Each room and what it may import of ours, beside itself. In the order of the flow.
MAY_IMPORT: dict[str, set[str]] = {
    "checks": set(),
    "facts": set(),
    "files": set(),
    "log_gamma": set(),
    "activations": {"checks", "facts"},
    "evaluation": {"checks", "facts"},
    "losses": {"checks", "evaluation", "facts", "log_gamma"},
    "distributions": {"checks", "facts", "log_gamma"},
    "heads": {"checks", "distributions", "evaluation", "facts", "losses"},
    "last_layer": {"checks", "evaluation", "heads", "losses"},
    "networks": {"activations", "checks"},
    "initialization": {"activations", "checks", "heads", "networks"},
    "uncertainty": {"activations", "checks", "distributions", "evaluation", "facts", "networks"},
    "preprocessing": {"checks", "files"},
    "regularization": {"checks"},
    "training": {"checks", "heads", "regularization"},
    "gradient_check": {"checks"},
    "metrics": {"distributions", "heads", "preprocessing", "uncertainty"},
    "baselines": {"heads", "training"},
    "calibration": {"checks", "distributions", "uncertainty"},
    "diagnosis": {
        "activations", "baselines", "checks", "evaluation", "facts", "gradient_check", "heads", "initialization",
        "losses",
        "networks", "preprocessing", "regularization", "training",
    },
    "model": {
        "baselines", "calibration", "distributions", "heads", "metrics", "networks", "preprocessing", "training",
        "uncertainty",
    },
    "model_folder": {"baselines", "checks", "files", "heads", "model", "networks", "preprocessing", "uncertainty"},
    "fitting": {
        "baselines", "calibration", "checks", "diagnosis", "heads", "initialization", "metrics", "model", "networks",
        "preprocessing", "training",
    },
    "head_by_validation": {"distributions", "fitting", "heads", "uncertainty"},
    "estimators": {
        "checks", "distributions", "fitting", "head_by_validation", "heads", "model", "model_folder", "preprocessing",
        "training", "uncertainty",
    },
    "report": {"diagnosis", "preprocessing"},
    "commands": {
        "activations", "checks", "diagnosis", "estimators", "facts", "heads", "losses", "model", "model_folder",
        "preprocessing",
    },
    "cli": {"checks", "commands", "model_folder", "preprocessing", "report"},
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """The rooms that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it out from the package's name"
            names |= {
                f"{node.module}.{alias.name}" if node.module == "lastlayer" else str(node.module)
                for alias in node.names
            }
    return {name.split(".")[1] for name in names if name.startswith("lastlayer.")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in ("__init__", "__main__"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_flow(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    beyond = imports(path) - MAY_IMPORT[room] - {room}
    assert not beyond, f"{path.name} in {room} imports {', '.join(sorted(beyond))}"


def test_the_flow_has_no_circle() -> None:
    done: set[str] = set()
    waiting = dict(MAY_IMPORT)
    while waiting:
        ready = [room for room, allowed in waiting.items() if allowed <= done]
        assert ready, f"a circle among {sorted(waiting)}"
        done |= set(ready)
        for room in ready:
            del waiting[room]


def test_a_wrong_import_is_caught(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from lastlayer.training import step\nfrom lastlayer import estimators\n")
    assert imports(wrong) == {"training", "estimators"}
