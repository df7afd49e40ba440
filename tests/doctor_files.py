"""Files as users of ``lastlayer doctor`` have them, and the command run on them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from command_line import run
from lastlayer.diagnosis import Findings

# The lecture's model, as it is printed there (SPEC D9).
LECTURE = """
import torch
from torch import nn
from torch.nn import Module

class LinearLayer(Module):
    def __init__(self, in_sz, out_sz):
        super().__init__()
        t1 = torch.randn(in_sz, out_sz)
        self.w = nn.Parameter(t1)
        t2 = torch.randn(out_sz)
        self.b = nn.Parameter(t2)

    def forward(self, activations):
        t = torch.mm(activations, self.w)
        return t + self.b

class FullBasicModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 128, 3)
        self.fc = LinearLayer(128, 10)

    def forward(self, x):
        t1 = self.conv(x)
        t2 = nn.functional.relu(t1)
        t3 = self.fc(t1)
        return nn.functional.softmax(t3)
"""

NETS = """
import torch
from torch import nn

class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))

class Wide(nn.Module):
    def __init__(self, width, depth=2):
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, x):
        return self.layer(x)

def make():
    print("made")
    return Small()

def pair():
    return Small(), nn.BCEWithLogitsLoss()

def whole():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    return Small(), nn.MSELoss(), (1000 * x, x[:, :1] + x[:, 1:] ** 2)

def by_name():
    network, loss, batch = whole()
    return {"network": network, "loss": loss, "batch": batch, "validation": batch}

def misspelled():
    return {"network": Small(), "los": nn.MSELoss()}

def raises():
    raise RuntimeError("no data in [folder]")

ready = Small()
number = 3
"""


def flat(text: str) -> str:
    """On one line, whatever was wrapped where."""
    return " ".join(text.split())


def written(folder: Path, text: str, name: str = "net.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def examined(*arguments: object) -> dict[str, Any]:
    """The record of a run that worked, whatever it found."""
    outcome = run("doctor", *arguments, "--json")
    assert outcome.code in (0, 3), outcome.err
    result: dict[str, Any] = outcome.json
    assert (outcome.code == 3) is (result["errors"] > 0)
    assert result["findings"] == Findings.from_dict(result).to_dict()["findings"]
    return result


def names(result: dict[str, Any]) -> set[str]:
    return {finding["name"] for finding in result["findings"]}
