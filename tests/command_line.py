"""The command as tests run it: in this process where that is enough, in its own where signals and pipes matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
from typer.testing import CliRunner

from lastlayer.cli import app

PENGUINS = Path(__file__).parents[1] / "data" / "penguins.csv.gz"
SHORT = ("--max-epochs", "2")
COMMAND = (sys.executable, "-c", "from lastlayer.cli import main; main()")


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left on the screen."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """Standard error on one line."""
        return " ".join(self.err.split())


def run(*arguments: object) -> Outcome:
    """The command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Outcome(result.exit_code, result.stdout, result.stderr)


def done(*arguments: object) -> Outcome:
    """The same, and it worked."""
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(*arguments: object) -> str:
    """The same, and it was refused as wrong input, with one message that is returned and nothing else."""
    outcome = run(*arguments)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.count("error:") == 1
    assert "internal" not in outcome.err
    assert "Traceback" not in outcome.err
    return outcome.message


def environment(**more: str) -> dict[str, str]:
    """For a process of its own, without a colour or a width of the surrounding terminal."""
    left_out = ("LASTLAYER_DEBUG", "FORCE_COLOR", "COLUMNS")
    return {key: value for key, value in os.environ.items() if key not in left_out} | {"OMP_NUM_THREADS": "1"} | more


def process(*arguments: object, program: Sequence[str] = COMMAND, **options: Any) -> Outcome:
    """The command in a process of its own."""
    options.setdefault("env", environment())
    result = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)
    return Outcome(result.returncode, result.stdout, result.stderr)


def table(path: Path, rows: int = 40, **columns: Any) -> Path:
    """A CSV file of two numeric columns and a 0/1 target ``y``, with other columns added or put in their place."""
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, rows)).round(3).tolist()
    content = {"x": x, "z": z, "y": [int(value > 0) for value in x], **columns}
    polars.DataFrame(content, strict=False).write_csv(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
