"""``lastlayer doctor --layers``: the signal of every layer, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import done, refused, table
from doctor_files import written
from lastlayer.report.layers_text import histogram

DEEP = """
import torch
from torch import nn

def deep():
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (nn.Linear(16, 16), nn.Tanh())]
    network = nn.Sequential(*layers, nn.Linear(16, 3))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.2)
    return network
"""


def test_layers_are_shown_from_the_input_to_the_output(tmp_path: Path) -> None:
    path = written(tmp_path, DEEP, "deep.py")
    screen = done("doctor", f"{path}:deep", "--loss", "cross_entropy", "--layers").out
    rows = [line for line in screen.splitlines() if "Linear " in line or "Tanh " in line]
    assert [row.split()[:2] for row in rows] == [[str(place), ("Linear", "Tanh")[place % 2]] for place in range(9)]
    sizes = [float(row.split()[2]) for row in rows[::2]]
    # 16 inputs of variance 1 behind weights of 0.2 have a standard deviation of 0.8, and less behind each tanh.
    assert sizes[0] == pytest.approx(0.8, rel=0.2)
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    assert "%" in rows[1]
    assert "%" not in rows[0]


def test_layers_as_json(tmp_path: Path) -> None:
    path = written(tmp_path, DEEP, "deep.py")
    plain = done("doctor", f"{path}:deep", "--loss", "cross_entropy", "--json").json
    assert "layers" not in plain
    layers = done("doctor", f"{path}:deep", "--loss", "cross_entropy", "--layers", "--json").json["layers"]
    assert len(layers) == 9
    assert all(sum(layer["output"]["counts"]) == 64 * layer["units"] for layer in layers)
    assert all(layer["gradient"]["std"] > 0 for layer in layers)


def test_a_model_folder_needs_a_batch_for_its_layers(tmp_path: Path) -> None:
    data = table(tmp_path / "t.csv")
    done("fit", data, "-t", "y", "-o", tmp_path / "m", "--max-epochs", "1")
    assert "--data" in refused("doctor", tmp_path / "m", "--layers")
    assert "last Linear" in done("doctor", tmp_path / "m", "--data", data, "--layers").out


def test_a_histogram_shows_all_that_is_not_empty() -> None:
    assert histogram([0, 0, 1, 0, 100, 100, 0, 0], width=4) == " ▁█ "
    assert histogram([5, 5, 5], width=3, ascii_only=True) == "@@@"
    assert histogram([0] * 40).strip() == ""
