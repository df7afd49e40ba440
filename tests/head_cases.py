"""One instance of every head, with targets that fit it and somebody else's code for its likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import scipy.stats
import torch
from torch import Tensor

from lastlayer import heads
from loss_properties import random


@dataclass(frozen=True)
class Case:
    """One instance of a head.

    Attributes:
        head: the instance.
        targets: valid targets of a given leading shape.
        outside: a target that the head must refuse.
        log_density: per-sample log-likelihood in float64, from somebody else's code.
    """

    head: heads.Head
    targets: Callable[..., Tensor]
    outside: Tensor
    log_density: Callable[[Tensor, Tensor], Tensor]

    def raw(self, *shape: int, seed: int = 1) -> Tensor:
        return 2 * torch.randn(*shape, self.head.raw_size, dtype=torch.float64, generator=random(seed))


def real(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(*shape, dtype=torch.float64, generator=random(2))


def unit(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=random(2))


def _zero_or_one(*shape: int) -> Tensor:
    return (unit(*shape) < 0.3).double()


def _index(classes: int) -> Callable[..., Tensor]:
    return lambda *shape: torch.randint(classes, shape, generator=random(2))


def scipy_density(distribution: object, *link: Callable[[Tensor], Tensor], scale: float = 1.0) -> Callable[..., Tensor]:
    def log_density(raw: Tensor, target: Tensor) -> Tensor:
        location = raw[..., 0]
        for function in link:
            location = function(location)
        return torch.as_tensor(distribution.logpdf(target.numpy(), location.numpy(), scale))

    return log_density


def _bernoulli(raw: Tensor, target: Tensor) -> Tensor:
    return torch.as_tensor(scipy.stats.bernoulli.logpmf(target.numpy(), torch.sigmoid(raw[..., 0]).numpy()))


def _categorical(raw: Tensor, target: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=raw).log_prob(target)


def _multilabel(raw: Tensor, target: Tensor) -> Tensor:
    independent = torch.distributions.Independent(torch.distributions.Bernoulli(logits=raw), 1)
    return independent.log_prob(target)


NORMAL, LAPLACE = scipy.stats.norm, scipy.stats.laplace

# The one place where a new head says how to be tested.
CASES = {
    "bernoulli": Case(heads.Bernoulli(), _zero_or_one, torch.tensor([0.0, 1.5]), _bernoulli),
    "categorical": Case(heads.Categorical(classes=4), _index(4), torch.tensor([0, 4]), _categorical),
    "categorical of two": Case(heads.Categorical(classes=2), _index(2), torch.tensor([0, -1]), _categorical),
    "multilabel": Case(
        heads.MultiLabel(labels=3),
        lambda *shape: _zero_or_one(*shape, 3),
        torch.tensor([[0.0, 1.0, 1.0], [0.0, 2.0, 1.0]]),
        _multilabel,
    ),
    "gaussian": Case(heads.Gaussian(), real, torch.tensor([0.0, math.inf]), scipy_density(NORMAL)),
    "gaussian with a scale": Case(
        heads.Gaussian(scale=0.3), real, torch.tensor([0.0, -math.inf]), scipy_density(NORMAL, scale=0.3)
    ),
    "laplace": Case(heads.Laplace(), real, torch.tensor([0.0, math.inf]), scipy_density(LAPLACE)),
    "laplace with a scale": Case(
        heads.Laplace(scale=4.0), real, torch.tensor([0.0, -math.inf]), scipy_density(LAPLACE, scale=4.0)
    ),
    "unit_interval": Case(
        heads.UnitInterval(scale=0.2), unit, torch.tensor([0.0, 1.01]), scipy_density(NORMAL, torch.sigmoid, scale=0.2)
    ),
    "unit_interval by squared error": Case(
        heads.UnitInterval(scale=0.2, criterion="squared_error"),
        unit,
        torch.tensor([0.0, -0.01]),
        scipy_density(NORMAL, torch.sigmoid, scale=0.2),
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
WITH_SCALE = {name: case for name, case in CASES.items() if hasattr(case.head, "scale")}
every_scale = pytest.mark.parametrize("case", WITH_SCALE.values(), ids=WITH_SCALE)
