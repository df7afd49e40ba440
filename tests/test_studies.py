"""The studies still run, on data made up here; what they measure is in ``studies/results``, never here."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars

ROOT = Path(__file__).parent.parent


def study(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_uci_runs_goes_on_and_writes_its_page(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(120, 3))
    test_index = np.stack([random.permutation(120)[:12] for _ in range(20)])
    target = features[:, 0] + 0.1 * random.normal(size=120)
    np.savez(tmp_path / "uci_toy.npz", X=features, y=target, test_index=test_index)
    options = ("studies/uci.py", "--data", tmp_path, "--out", tmp_path / "out", "--quick", "--configurations", "2,7")
    done = study(*options)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "uci.md").read_text(encoding="utf-8")
    assert "## toy" in page
    assert "ensemble of 5, Gaussian" in page
    assert "4/4" in done.stdout
    weighting = ("studies/beta_weighting.py", "--data", tmp_path, "--out", tmp_path / "out", "--sets", "toy", "--quick")
    assert "| toy | Laplace |" in study(*weighting).stdout
    again = study(*options)
    assert "/4" not in again.stdout
    assert (tmp_path / "out" / "uci.md").read_text(encoding="utf-8") == page


def test_coverage_runs_on_counts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    age = random.uniform(0.2, 0.8, size=1500)
    table = polars.DataFrame({"visits": random.poisson(3 * age), "age": age})
    with gzip.open(tmp_path / "r_doctor_visits.csv.gz", "wb") as file:
        table.write_csv(file)
    done = study("studies/coverage.py", "--data", tmp_path, "--out", tmp_path, "--only", "r_doctor_visits", "--quick")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "coverage.md").read_text(encoding="utf-8")
    for way in ("as predicted", "PIT recalibrated", "conformal", "PIT recalibrated, randomized"):
        assert f"| {way} |" in page


def test_missing_data_is_said(tmp_path: Path) -> None:
    for name, missing in (("uci.py", "uci_*.npz"), ("coverage.py", "california"), ("beta_weighting.py", "uci_")):
        done = study(f"studies/{name}", "--data", tmp_path)
        assert done.returncode == 1
        assert missing in done.stderr
        assert "--data" in done.stderr
