"""Every case of every distribution, and what the property tests of all of them share.

A new file of cases is one line in ``CASES``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import continuous_cases
import discrete_cases
import mixture_cases
from lastlayer.distributions.distribution import Distribution

CASES = {
    case.name: case
    for case in (
        *continuous_cases.CASES,
        *discrete_cases.CASES,
        *mixture_cases.CASES,
    )
}  # fmt: skip

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
continuous = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if not case.distribution.discrete], ids=lambda case: case.name
)

MIDDLE = (0.02, 0.1, 0.3, 0.45, 0.6, 0.8, 0.97)
# Between two of these shares a distribution function is nearly a polynomial. A case whose density has a kink or a jump
# has it at one of them: at a twentieth, say.
GRID = torch.cat(
    [
        torch.sigmoid(torch.linspace(-6.9, 6.9, 201, dtype=torch.float64)),
        torch.arange(1, 20, dtype=torch.float64) / 20,
    ]
).unique()


def apart(distribution: Distribution) -> Tensor:
    """The width of the middle half: a scale that every distribution has."""
    low, high = distribution.interval(0.5)
    return high - low


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
