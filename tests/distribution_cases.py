"""What a distribution's property tests run over: the distribution, and an independent oracle of each of its elements.

The cases are in files of their own, ``continuous_cases`` the first; ``distribution_registry`` lists the files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer.distributions.distribution import Distribution

SHARES = (1e-100, 1e-30, 1e-12, 1e-6, 1e-3, 0.02, 0.1, 0.3, 0.45, 0.6, 0.8, 0.97, 0.999, 1 - 1e-6, 1 - 1e-12)


@dataclass(frozen=True)
class Case:
    """One distribution in float64, and SciPy's frozen twin of each of its elements.

    Attributes:
        name: of the case.
        distribution: of shape (n,), float64.
        oracles: n frozen SciPy distributions (logpdf or logpmf, cdf, ppf, mean, var, std, median, entropy), or what
            answers like one.
        modes: of each element, by hand or by a formula of a named source.
        shares: where the oracle's quantiles are asked for; fewer where SciPy's own are wrong far out.
        tolerance: relative and absolute, of everything compared with the oracle; wider where SciPy loses digits.
    """

    name: str
    distribution: Distribution
    oracles: Sequence[Any]
    modes: Sequence[float]
    shares: Sequence[float] = SHARES
    tolerance: float = 1e-10

    def asked(self, question: str, *arguments: Tensor) -> Tensor:
        """What every oracle answers, stacked along the last axis as the distribution's elements are."""
        columns = [
            np.asarray(getattr(oracle, question)(*(argument[..., i].numpy() for argument in arguments)))
            for i, oracle in enumerate(self.oracles)
        ]
        return torch.as_tensor(np.stack(columns, axis=-1), dtype=torch.float64)

    def points(self, *shares: float) -> Tensor:
        """The oracles' quantiles at these shares, by default the case's own; shape (shares, n)."""
        columns = [[float(oracle.ppf(share)) for share in shares or self.shares] for oracle in self.oracles]
        return torch.tensor(columns, dtype=torch.float64).T

    @property
    def log_density(self) -> str:
        """What SciPy calls ``log_prob``."""
        return "logpmf" if self.distribution.discrete else "logpdf"


def parameters(distribution: Distribution) -> list[Tensor]:
    """The tensors that a distribution is made of, whatever it is made of."""
    found: list[Tensor] = []

    def note(parameter: Tensor) -> Tensor:
        found.append(parameter)
        return parameter

    distribution.map(note)
    return found


def with_parameters(distribution: Distribution, values: Sequence[Tensor]) -> Distribution:
    """The same distribution made of these tensors."""
    waiting = iter(values)
    return distribution.map(lambda _: next(waiting))


def in_dtype(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """For ``Distribution.map``: floating parameters in that dtype."""
    return lambda parameter: parameter.to(dtype) if parameter.is_floating_point() else parameter
