"""Losses: each a function, a module of the same name, and a formula with its facts.

Every loss takes the network's raw output, not probabilities: the link belongs to the loss.
"""

from difflib import get_close_matches
from inspect import signature
from typing import Any

from lastlayer.checks import InputError
from lastlayer.losses.absolute_error import AbsoluteError, absolute_error
from lastlayer.losses.asymmetric import Asymmetric, asymmetric
from lastlayer.losses.beta_nll import BetaNLL, beta_nll
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropy, binary_cross_entropy
from lastlayer.losses.cauchy_schwarz import CauchySchwarz, cauchy_schwarz
from lastlayer.losses.cross_entropy import CrossEntropy, class_weights, cross_entropy
from lastlayer.losses.cumulative_logit_nll import CumulativeLogitNLL, cumulative_logit_nll
from lastlayer.losses.expectation import (
    Chebyshev,
    Expectation,
    RegularizedExpectation,
    chebyshev,
    expectation,
    regularized_expectation,
)
from lastlayer.losses.focal import Focal, focal
from lastlayer.losses.gamma_nll import GammaNLL, gamma_nll
from lastlayer.losses.gaussian_nll import GaussianNLL, gaussian_nll
from lastlayer.losses.hinge import CubedHinge, Hinge, SquaredHinge, cubed_hinge, hinge, squared_hinge
from lastlayer.losses.huber import Huber, SmoothL1, huber, smooth_l1
from lastlayer.losses.laplace_nll import LaplaceNLL, laplace_nll
from lastlayer.losses.log_cosh import LogCosh, log_cosh
from lastlayer.losses.log_normal_nll import LogNormalNLL, log_normal_nll
from lastlayer.losses.loss import Loss
from lastlayer.losses.mixture_nll import MixtureNLL, mixture_nll
from lastlayer.losses.negative_binomial_nll import NegativeBinomialNLL, negative_binomial_nll
from lastlayer.losses.one_hot_error import L1, L2, l1, l2
from lastlayer.losses.poisson import PoissonNLL, poisson_nll
from lastlayer.losses.quantile import Quantile, quantile
from lastlayer.losses.quantiles import Quantiles, quantiles
from lastlayer.losses.squared_error import SigmoidSquaredError, SquaredError, sigmoid_squared_error, squared_error
from lastlayer.losses.squared_log import SquaredLog, squared_log
from lastlayer.losses.student_t_nll import StudentTNLL, student_t_nll
from lastlayer.losses.tanimoto import Tanimoto, tanimoto
from lastlayer.losses.two_sided_cross_entropy import TwoSidedCrossEntropy, two_sided_cross_entropy

_MODULES: tuple[type[Loss], ...] = (
    SquaredError,
    AbsoluteError,
    Huber,
    SmoothL1,
    LogCosh,
    Quantile,
    SigmoidSquaredError,
    BinaryCrossEntropy,
    Focal,
    Asymmetric,
    CrossEntropy,
    TwoSidedCrossEntropy,
    L1,
    L2,
    Expectation,
    RegularizedExpectation,
    Chebyshev,
    Hinge,
    SquaredHinge,
    CubedHinge,
    SquaredLog,
    Tanimoto,
    CauchySchwarz,
    PoissonNLL,
    GaussianNLL,
    LaplaceNLL,
    StudentTNLL,
    LogNormalNLL,
    GammaNLL,
    BetaNLL,
    NegativeBinomialNLL,
    CumulativeLogitNLL,
    Quantiles,
    MixtureNLL,
)


def catalog() -> dict[str, Loss]:
    """Every loss by name, with its default options: ``.facts``, ``.value``, ``.gradient``, and callable."""
    return {loss.facts.name: loss for loss in (module() for module in _MODULES)}


def by_name(name: str, **options: Any) -> Loss:
    """The loss of that name, with these options.

    Raises:
        InputError: for a name that no loss has, with the nearest ones, or an option that it does not have.

    Example:
        >>> by_name("huber", delta=2.0)
        Huber(delta=2.0, reduction='mean')
    """
    modules = {module().facts.name: module for module in _MODULES}
    if name not in modules:
        near = get_close_matches(name, modules) or sorted(modules)
        raise InputError(f"no loss is called {name!r}. Fix: {', '.join(near)}.")
    known = list(signature(modules[name]).parameters)
    if unknown := [option for option in options if option not in known]:
        raise InputError(f"{name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(known)}.")
    return modules[name](**options)


__all__ = [
    "L1",
    "L2",
    "AbsoluteError",
    "Asymmetric",
    "BetaNLL",
    "BinaryCrossEntropy",
    "CauchySchwarz",
    "Chebyshev",
    "CrossEntropy",
    "CubedHinge",
    "CumulativeLogitNLL",
    "Expectation",
    "Focal",
    "GammaNLL",
    "GaussianNLL",
    "Hinge",
    "Huber",
    "LaplaceNLL",
    "LogCosh",
    "LogNormalNLL",
    "Loss",
    "MixtureNLL",
    "NegativeBinomialNLL",
    "PoissonNLL",
    "Quantile",
    "Quantiles",
    "RegularizedExpectation",
    "SigmoidSquaredError",
    "SmoothL1",
    "SquaredError",
    "SquaredHinge",
    "SquaredLog",
    "StudentTNLL",
    "Tanimoto",
    "TwoSidedCrossEntropy",
    "absolute_error",
    "asymmetric",
    "beta_nll",
    "binary_cross_entropy",
    "by_name",
    "catalog",
    "cauchy_schwarz",
    "chebyshev",
    "class_weights",
    "cross_entropy",
    "cubed_hinge",
    "cumulative_logit_nll",
    "expectation",
    "focal",
    "gamma_nll",
    "gaussian_nll",
    "hinge",
    "huber",
    "l1",
    "l2",
    "laplace_nll",
    "log_cosh",
    "log_normal_nll",
    "mixture_nll",
    "negative_binomial_nll",
    "poisson_nll",
    "quantile",
    "quantiles",
    "regularized_expectation",
    "sigmoid_squared_error",
    "smooth_l1",
    "squared_error",
    "squared_hinge",
    "squared_log",
    "student_t_nll",
    "tanimoto",
    "two_sided_cross_entropy",
]
