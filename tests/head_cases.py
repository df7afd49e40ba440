"""Every head in every mode, with targets that fit it and an oracle of its likelihood from elsewhere.

The oracles are SciPy's and PyTorch's densities, or a few lines of NumPy; the links in front of them are written out
here once more, so that a wrong link is no less found than a wrong density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from lastlayer import heads
from lastlayer.losses.beta_weighted import BetaWeighted
from loss_properties import random


@dataclass(frozen=True)
class Case:
    """One instance of a head.

    Attributes:
        head: the instance.
        targets: valid targets of a given leading shape.
        outside: targets, the second of which the head must refuse.
        log_density: per-sample log-likelihood in float64, from elsewhere.
    """

    head: heads.Head
    targets: Callable[..., Tensor]
    outside: Tensor
    log_density: Callable[[Tensor, Tensor], Tensor]

    def raw(self, *shape: int, seed: int = 1) -> Tensor:
        """Raw outputs of a given leading shape."""
        return 2 * torch.randn(*shape, self.head.raw_size, dtype=torch.float64, generator=random(seed))

    @property
    def labels(self) -> tuple[int, ...]:
        """The axes of one target."""
        return tuple(self.targets(1).shape[1:])

    @property
    def weighted(self) -> bool:
        """Whether the training loss weighs by the predicted scale, and is then nobody's negative log-likelihood."""
        return isinstance(self.head.formula, BetaWeighted)

    @property
    def trains_on_likelihood(self) -> bool:
        """Whether the training loss is the negative log-likelihood."""
        return not (self.weighted or self.head == UNIT_INTERVAL or isinstance(self.head, heads.Quantiles))

    def joint(self, each: Tensor) -> Tensor:
        """Of something per label, the sum of each sample; of anything else, itself."""
        return each.sum(-1) if self.labels else each


def real(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(*shape, dtype=torch.float64, generator=random(2))


def unit(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=random(2))


def _unit_and_its_ends(*shape: int) -> Tensor:
    """Every tenth value or so at an end."""
    return (1.2 * unit(*shape) - 0.1).clamp(0.0, 1.0)


def _positive(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random(2)).exp()


def _count(*shape: int) -> Tensor:
    return torch.poisson(3 * _positive(*shape), generator=random(3))


def _zero_or_one(*shape: int) -> Tensor:
    return (unit(*shape) < 0.3).double()


def _index(classes: int) -> Callable[..., Tensor]:
    return lambda *shape: torch.randint(classes, shape, generator=random(2))


def scipy_density(distribution: Any, *link: Callable[[Tensor], Tensor], scale: float = 1.0) -> Callable[..., Tensor]:
    """A location through the links, and one scale."""

    def log_density(raw: Tensor, target: Tensor) -> Tensor:
        location = raw[..., 0]
        for function in link:
            location = function(location)
        return torch.as_tensor(distribution.logpdf(target.numpy(), location.numpy(), scale))

    return log_density


def _oracle(log_density: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """From NumPy: of the target, then of each raw output."""

    def asked(raw: Tensor, target: Tensor) -> Tensor:
        return torch.as_tensor(log_density(target.numpy(), *np.moveaxis(raw.numpy(), -1, 0)), dtype=torch.float64)

    return asked


def softplus(raw: Any) -> Any:
    return np.logaddexp(0.0, raw)


def _scale(raw: Any) -> Any:
    return 1e-3 + softplus(raw)


def _concentration(raw: Any) -> Any:
    return 1.0 / _scale(raw) ** 2


def _log_normal(y: Any, location: Any, scale: Any) -> Any:
    return scipy.stats.lognorm.logpdf(y, _scale(scale), scale=np.exp(location))


def _gamma(y: Any, log_mean: Any, scale: Any) -> Any:
    a = _concentration(scale)
    return scipy.stats.gamma.logpdf(y, a, scale=np.exp(log_mean) / a)


def _beta(y: Any, logit: Any, scale: Any) -> Any:
    a, b = scipy.special.expit(logit) * _concentration(scale), scipy.special.expit(-logit) * _concentration(scale)
    return scipy.stats.beta.logpdf(np.clip(y, 1e-4, 1 - 1e-4), a, b)


def _negative_binomial(y: Any, log_mean: Any, scale: Any) -> Any:
    k = _concentration(scale)
    return scipy.stats.nbinom.logpmf(y, k, k / (k + np.exp(log_mean)))


def _categorical(raw: Tensor, target: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=raw).log_prob(target)


def _multilabel(raw: Tensor, target: Tensor) -> Tensor:
    independent = torch.distributions.Independent(torch.distributions.Bernoulli(logits=raw), 1)
    return independent.log_prob(target)


def _ordinal(raw: Tensor, target: Tensor) -> Tensor:
    """Differences of neighboring sigmoids, as the definition has it."""
    steps = np.concatenate([raw.numpy()[..., :1], softplus(raw.numpy()[..., 1:])], axis=-1)
    below = scipy.special.expit(np.cumsum(steps, axis=-1))
    ends = np.ones_like(below[..., :1])
    probability = np.diff(np.concatenate([0 * ends, below, ends], axis=-1), axis=-1)
    return torch.as_tensor(np.log(np.take_along_axis(probability, target.numpy()[..., None], -1)[..., 0]))


def _mixture(density: Any, *shape: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum over components, by NumPy."""

    def log_density(raw: Tensor, target: Tensor) -> Tensor:
        logit, location, scale = np.split(raw.numpy(), 3, axis=-1)
        share = scipy.special.softmax(logit, axis=-1)
        each = density.logpdf(target.numpy()[..., None], *shape, location, _scale(scale))
        return torch.as_tensor(scipy.special.logsumexp(each, b=share, axis=-1))

    return log_density


def _knots(levels: tuple[float, ...], middle: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Piece by piece: even between two quantiles, an exponential tail beyond the outer ones."""

    def one(raw: Any, y: float) -> float:
        quantile = [0.0] * len(levels)
        quantile[middle] = raw[middle]
        for k in range(middle + 1, len(levels)):
            quantile[k] = quantile[k - 1] + softplus(raw[k])
        for k in reversed(range(middle)):
            quantile[k] = quantile[k + 1] - softplus(raw[k])
        density = np.diff(levels) / np.diff(quantile)
        if y < quantile[0]:
            return math.log(density[0]) - (quantile[0] - y) * density[0] / levels[0]
        if y >= quantile[-1]:
            return math.log(density[-1]) - (y - quantile[-1]) * density[-1] / (1 - levels[-1])
        return math.log(density[np.searchsorted(quantile, y, side="right") - 1])

    def log_density(raw: Tensor, target: Tensor) -> Tensor:
        rows = zip(raw.reshape(-1, len(levels)).numpy(), target.flatten().tolist(), strict=True)
        return torch.tensor([one(row, y) for row, y in rows], dtype=torch.float64).reshape(target.shape)

    return log_density


NORMAL, LAPLACE, STUDENT_T, LOGISTIC = scipy.stats.norm, scipy.stats.laplace, scipy.stats.t, scipy.stats.logistic

_gaussian_of_both = _oracle(lambda y, location, scale: NORMAL.logpdf(y, location, _scale(scale)))
# Not SciPy's, which takes the logarithm of a density that has long been 0.
_laplace_of_both = _oracle(lambda y, location, scale: -abs(y - location) / _scale(scale) - np.log(2 * _scale(scale)))
_AT_INFINITY = torch.tensor([0.0, math.inf])

UNIT_INTERVAL = heads.UnitInterval(scale=0.2)

# The one place where a new head says how to be tested.
CASES = {
    "bernoulli": Case(
        heads.Bernoulli(),
        _zero_or_one,
        torch.tensor([0.0, 1.5]),
        _oracle(lambda y, logit: scipy.stats.bernoulli.logpmf(y, scipy.special.expit(logit))),
    ),
    "categorical": Case(heads.Categorical(classes=4), _index(4), torch.tensor([0, 4]), _categorical),
    "categorical of two": Case(heads.Categorical(classes=2), _index(2), torch.tensor([0, -1]), _categorical),
    "ordinal": Case(heads.Ordinal(classes=5), _index(5), torch.tensor([4, 5]), _ordinal),
    "ordinal of two": Case(heads.Ordinal(classes=2), _index(2), torch.tensor([1, -1]), _ordinal),
    "multilabel": Case(
        heads.MultiLabel(labels=3),
        lambda *shape: _zero_or_one(*shape, 3),
        torch.tensor([[0.0, 1.0, 1.0], [0.0, 2.0, 1.0]]),
        _multilabel,
    ),
    "gaussian": Case(heads.Gaussian(), real, _AT_INFINITY, scipy_density(NORMAL)),
    "gaussian with a scale": Case(heads.Gaussian(scale=0.3), real, -_AT_INFINITY, scipy_density(NORMAL, scale=0.3)),
    "gaussian with a fitted scale": Case(
        heads.Gaussian(fitted_scale=2.5), real, _AT_INFINITY, scipy_density(NORMAL, scale=2.5)
    ),
    "gaussian, predicted": Case(heads.Gaussian(scale="predicted", beta=0.0), real, _AT_INFINITY, _gaussian_of_both),
    "gaussian, predicted and weighted": Case(
        heads.Gaussian(scale="predicted", beta=0.5), real, _AT_INFINITY, _gaussian_of_both
    ),
    "laplace": Case(heads.Laplace(), real, _AT_INFINITY, scipy_density(LAPLACE)),
    "laplace with a scale": Case(heads.Laplace(scale=4.0), real, -_AT_INFINITY, scipy_density(LAPLACE, scale=4.0)),
    "laplace, predicted": Case(heads.Laplace(scale="predicted", beta=0.0), real, _AT_INFINITY, _laplace_of_both),
    "laplace, predicted and weighted": Case(
        heads.Laplace(scale="predicted", beta=0.5), real, _AT_INFINITY, _laplace_of_both
    ),
    "student_t": Case(
        heads.StudentT(),
        real,
        _AT_INFINITY,
        _oracle(lambda y, location, scale, v: STUDENT_T.logpdf(y, 2.01 + softplus(v), location, _scale(scale))),
    ),
    "student_t with degrees of freedom": Case(
        heads.StudentT(degrees_of_freedom=3.5),
        real,
        _AT_INFINITY,
        _oracle(lambda y, location, scale: STUDENT_T.logpdf(y, 3.5, location, _scale(scale))),
    ),
    "mixture": Case(heads.Mixture(components=2), real, _AT_INFINITY, _mixture(NORMAL)),
    "mixture of laplaces": Case(heads.Mixture(2, "laplace"), real, _AT_INFINITY, _mixture(LAPLACE)),
    "mixture of logistics": Case(heads.Mixture(2, "logistic"), real, _AT_INFINITY, _mixture(LOGISTIC)),
    "mixture of student_t": Case(heads.Mixture(2, "student_t"), real, _AT_INFINITY, _mixture(STUDENT_T, 4.0)),
    "mixture of one": Case(heads.Mixture(components=1), real, _AT_INFINITY, _mixture(NORMAL)),
    "quantiles": Case(heads.Quantiles(), real, _AT_INFINITY, _knots((0.05, 0.25, 0.5, 0.75, 0.95), 2)),
    "two quantiles": Case(heads.Quantiles(levels=(0.1, 0.9)), real, _AT_INFINITY, _knots((0.1, 0.9), 0)),
    "log_normal": Case(heads.LogNormal(), _positive, torch.tensor([1.0, 0.0]), _oracle(_log_normal)),
    "gamma": Case(heads.Gamma(), _positive, torch.tensor([1.0, -2.0]), _oracle(_gamma)),
    "unit_interval": Case(
        UNIT_INTERVAL, unit, torch.tensor([0.0, 1.01]), scipy_density(NORMAL, torch.sigmoid, scale=0.2)
    ),
    "unit_interval by squared error": Case(
        heads.UnitInterval(scale=0.2, criterion="squared_error"),
        unit,
        torch.tensor([0.0, -0.01]),
        scipy_density(NORMAL, torch.sigmoid, scale=0.2),
    ),
    "unit_interval with a fitted scale": Case(
        heads.UnitInterval(fitted_scale=0.1, criterion="squared_error"),
        unit,
        torch.tensor([0.0, -0.01]),
        scipy_density(NORMAL, torch.sigmoid, scale=0.1),
    ),
    "beta": Case(heads.Beta(), _unit_and_its_ends, torch.tensor([0.0, 1.01]), _oracle(_beta)),
    "poisson": Case(
        heads.Poisson(),
        _count,
        torch.tensor([0.0, -1.0]),
        _oracle(lambda y, log_rate: scipy.stats.poisson.logpmf(y, np.exp(log_rate))),
    ),
    "negative_binomial": Case(heads.NegativeBinomial(), _count, torch.tensor([0.0, 2.5]), _oracle(_negative_binomial)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def every(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """The cases of which something is true."""
    chosen = {name: case for name, case in CASES.items() if wanted(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


#: Those with a scale of their own that is one for all: given, or to be fitted.
WITH_SCALE = {name: case for name, case in CASES.items() if getattr(case.head, "scale", "predicted") != "predicted"}
every_scale = pytest.mark.parametrize("case", WITH_SCALE.values(), ids=WITH_SCALE)
