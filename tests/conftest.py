"""What several test files stand on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from command_line import SHORT, done, table


@pytest.fixture(autouse=True)
def _distributions_check_their_arguments() -> None:
    """As they do in a fresh process: ``torch.compile`` switches it off for good, and other tests have compiled."""
    torch.distributions.Distribution.set_default_validate_args(True)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of a small table, ``model``, and the table, ``t.csv``."""
    folder = tmp_path_factory.mktemp("fitted")
    path = table(folder / "t.csv", town=["Ulm", "Bonn"] * 20)
    done("fit", path, "-t", "y", "-o", folder / "model", *SHORT)
    return folder


@pytest.fixture
def place(fitted: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to damage."""
    shutil.copytree(fitted, tmp_path / "place")
    return tmp_path / "place"
