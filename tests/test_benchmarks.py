"""The benchmarks still run; what they measure is in ``benchmarks/results``, never here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["benchmarks/training.py", "--quick"], "| lastlayer, its own network |"),
        (["benchmarks/losses.py", "--quick", "--only", "cross_entropy", "--dtypes", "float32"], "| cross_entropy |"),
        (["benchmarks/small_problems.py", "--quick"], "| cross_entropy |"),
        (["benchmarks/fused_linear.py", "--quick", "--dtypes", "float32"], "| fused_linear, cross_entropy |"),
        (["benchmarks/ensembles.py", "--quick"], "| lastlayer, 16 members together |"),
        (["benchmarks/tables.py", "--data", "data", "--only", "penguins", "--seeds", "1"], "| penguins |"),
    ],
    ids=["training", "losses", "small", "fused_linear", "ensembles", "tables"],
)
def test_a_benchmark_runs(arguments: list[str], expected: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_missing_data_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/tables.py", "--data", "data", "--only", "adult"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "adult: there is no" in done.stderr
    assert "--data" in done.stderr
