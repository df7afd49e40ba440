"""SciPy's distribution functions and their inverses on tensors, differentiable in value and shape parameters.

Every function is elementwise, of a standard distribution: location and scale are the caller's arithmetic. Arguments
broadcast; the result has their common dtype and their device. Computed in float64 on the CPU, where SciPy is.

Gradient: in the value it is the density, in the share its reciprocal, both in closed form and differentiable again. In
a shape parameter θ it is a symmetric difference in float64, of fourth order, of the logarithm of the smaller tail; its
relative error is about 1e-8, more where the distribution hardly depends on θ (a Student-t with more than 1e6 degrees of
freedom). A second derivative in which a shape parameter takes part by such a difference is an error, never a zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lastlayer.checks import LastLayerError
from lastlayer.distributions.distribution import LOG_2PI
from lastlayer.log_gamma import log_beta, log_gamma_half_step, stirling_error

# Of the distance over which the distribution function changes shape: truncation and rounding are then about equal.
_STEP = 4e-3


def log_gamma_kernel(value: Tensor, concentration: Tensor) -> Tensor:
    """``log(value · density)`` of the standard gamma distribution, for positive values.

    It is ``a log y − y − log Γ(a)``, with the distance of y from a in the place of the terms that cancel.
    """
    distance = value - concentration
    near = distance.abs() < 0.5 * concentration
    ratio = torch.where(near, distance / concentration, torch.zeros_like(distance))
    far = torch.where(near, concentration, value)
    log_ratio = torch.where(near, torch.log1p(ratio), far.log() - concentration.log())
    return concentration * log_ratio - distance + 0.5 * (concentration.log() - LOG_2PI) - stirling_error(concentration)


def log_student_t(value: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """The logarithm of the standard Student-t density."""
    tail = 0.5 * (degrees_of_freedom + 1.0) * log1p_square(value / degrees_of_freedom.sqrt())
    return log_gamma_half_step(0.5 * degrees_of_freedom) - 0.5 * LOG_2PI - tail


def log1p_square(value: Tensor) -> Tensor:
    """``log(1 + x²)``, also where the square overflows."""
    small = value.abs() < 1.0
    low = torch.where(small, value, torch.zeros_like(value))
    high = torch.where(small, torch.ones_like(value), value.abs())
    return torch.where(small, torch.log1p(low**2), 2.0 * high.log() + torch.log1p(high.reciprocal() ** 2))


def _log_gamma_density(value: Tensor, concentration: Tensor) -> Tensor:
    inside = (value > 0) & (value < torch.inf)
    safe = torch.where(inside, value, torch.ones_like(value))
    # At 0 the limit from the right: it is what the derivative of a quantile of 0 needs.
    limit = -torch.xlogy(1.0 - concentration, torch.zeros_like(value))
    density = log_gamma_kernel(safe, concentration) - safe.log()
    return torch.where(inside | value.isnan(), density, torch.where(value == 0, limit, -torch.inf))


def log_beta_density(value: Tensor, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """The logarithm of the beta density; −∞ outside [0, 1], and what the limit is at its ends."""
    inside = (value >= 0) & (value <= 1) | value.isnan()
    safe = torch.where(inside, value, torch.full_like(value, 0.5))
    powers = torch.xlogy(concentration1 - 1.0, safe) + torch.special.xlog1py(concentration0 - 1.0, -safe)
    return torch.where(inside, powers - log_beta(concentration1, concentration0), -torch.inf)


@dataclass(frozen=True)
class _Family:
    """A standard continuous distribution: SciPy's functions of NumPy arrays, and its density in PyTorch.

    Attributes:
        cdf, survival, quantile: of (value or share, *parameters).
        log_density: of (value, *parameters), differentiable.
        breadth: of (index, *parameters): over what distance of that parameter the distribution function changes.
    """

    cdf: Callable[..., Any]
    survival: Callable[..., Any]
    quantile: Callable[..., Any]
    log_density: Callable[..., Tensor]
    breadth: Callable[..., Tensor]

    def slope(self, index: int, value: Tensor, *parameters: Tensor) -> Tensor:
        """The derivative of the distribution function in one parameter, by a symmetric difference."""
        step = _STEP * self.breadth(index, *parameters)
        lower = _on_cpu(self.cdf, value, *parameters)
        upper = _on_cpu(self.survival, value, *parameters)
        # Of the smaller tail, where digits are, and of its logarithm, which is nearly straight in the parameter.
        tail, sign = torch.where(lower <= upper, lower, upper), torch.where(lower <= upper, 1.0, -1.0)

        def log_tail(steps: float) -> Tensor:
            moved = [p + steps * step if i == index else p for i, p in enumerate(parameters)]
            below, above = (_on_cpu(function, value, *moved) for function in (self.cdf, self.survival))
            return torch.where(lower <= upper, below, above).clamp_min(torch.finfo(torch.float64).tiny).log()

        difference = 8.0 * (log_tail(1.0) - log_tail(-1.0)) - (log_tail(2.0) - log_tail(-2.0))
        return sign * tail * difference / (12.0 * step)


def _on_cpu(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
    arrays = [argument.detach().cpu().numpy() for argument in arguments]
    with np.errstate(all="ignore"):
        result = np.asarray(function(*arrays), dtype=np.float64)
    return torch.from_numpy(result).to(arguments[0].device)


class _Elementwise(torch.autograd.Function):
    """What the functions share: under ``torch.func.vmap`` the mapped axis is one more axis."""

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        def in_front(argument: Any, axis: int | None) -> Any:
            if not isinstance(argument, Tensor):
                return argument
            if axis is None:
                return argument.expand(info.batch_size, *argument.shape)
            return argument.movedim(axis, 0)

        return cls.apply(*(in_front(*pair) for pair in zip(arguments, in_dims, strict=True))), 0


class _Cdf(_Elementwise):
    """``F(value; parameters)``."""

    @staticmethod
    def forward(family: _Family, value: Tensor, *parameters: Tensor) -> Tensor:
        return _on_cpu(family.cdf, value, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.family = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        value, *parameters = ctx.saved_tensors
        needs_value, *needs = ctx.needs_input_grad[1:]
        in_value = gradient * ctx.family.log_density(value, *parameters).exp() if needs_value else None
        slopes = [
            gradient * _Slope.apply(ctx.family, index, value, *parameters) if needed else None
            for index, needed in enumerate(needs)
        ]
        return None, in_value, *slopes


class _Quantile(_Elementwise):
    """The x with ``F(x; parameters) = share``; its derivatives are those of an inverse function."""

    @staticmethod
    def forward(family: _Family, share: Tensor, *parameters: Tensor) -> Tensor:
        return _on_cpu(family.quantile, share, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.family = inputs[0]
        ctx.save_for_backward(*inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        _, *parameters, value = ctx.saved_tensors
        needs_share, *needs = ctx.needs_input_grad[1:]
        per_share = torch.exp(-ctx.family.log_density(value, *parameters))

        def in_parameter(index: int) -> Tensor:
            slope = _Slope.apply(ctx.family, index, value, *parameters)
            # An end of the support stays where it is, whatever the density there.
            fixed = slope == 0
            return -gradient * slope * torch.where(fixed, torch.zeros_like(per_share), per_share)

        slopes = [in_parameter(index) if needed else None for index, needed in enumerate(needs)]
        return None, gradient * per_share if needs_share else None, *slopes


class _Slope(_Elementwise):
    """``∂F/∂θ`` of one shape parameter, a number that cannot be differentiated again."""

    @staticmethod
    def forward(family: _Family, index: int, value: Tensor, *parameters: Tensor) -> Tensor:
        return family.slope(index, value, *parameters)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise LastLayerError(
            "a second derivative in a shape parameter (concentration, degrees of freedom) of a distribution function "
            "or quantile; only the first is there. Fix: detach the parameter, or differentiate log_prob instead."
        )


def _apply(function: type[_Elementwise], family: _Family, *arguments: Tensor) -> Tensor:
    dtype = arguments[0].dtype
    for argument in arguments[1:]:
        dtype = torch.promote_types(dtype, argument.dtype)
    result: Tensor = function.apply(family, *(x.double() for x in torch.broadcast_tensors(*arguments)))
    return result.to(dtype)


def _inverted(share: Any, guess: Any, cdf: Callable[..., Any], low: float, high: float, *parameters: Any) -> Any:
    """The guesses, and in the place of those that miss their share the x with ``log x`` in [low, high] that does not.

    SciPy's inverses give up in the far tail, with NaN, ∞ or a number that is no root. ``cdf`` rises with x.
    """
    with np.errstate(all="ignore"):
        wrong = ~(np.abs(cdf(guess, *parameters) - share) <= 1e-6 * share) & (share > 0) & (share < 1)
    if not wrong.any():
        return guess
    share, rest = share[wrong], [parameter[wrong] for parameter in parameters]
    below, above = np.full(share.shape, low), np.full(share.shape, high)
    for _ in range(64):
        middle = 0.5 * (below + above)
        short = cdf(np.exp(middle), *rest) < share
        below, above = np.where(short, middle, below), np.where(short, above, middle)
    result = np.array(guess)
    # A root too small for a number is 0.
    result[wrong] = np.where(below == low, 0.0, np.exp(above))
    return result


def _student_t_cdf(value: Any, degrees_of_freedom: Any) -> Any:
    # Where its square overflows SciPy's no longer falls. Long before that it is a power.
    far = 1e100
    power = np.maximum(-value / far, 1.0) ** -degrees_of_freedom
    return special.stdtr(degrees_of_freedom, np.clip(value, -far, far)) * power


def _student_t_quantile(share: Any, degrees_of_freedom: Any) -> Any:
    # By symmetry from the lower tail, and of the reciprocal, which rises with the share.
    tail = np.minimum(share, 1.0 - share)
    guess = np.abs(special.stdtrit(degrees_of_freedom, tail))
    found = _inverted(tail, 1.0 / guess, lambda x, df: _student_t_cdf(-1.0 / x, df), -709.0, 709.0, degrees_of_freedom)
    distance = np.where(tail == 0, np.inf, np.where(tail == 0.5, 0.0, 1.0 / found))
    return np.where(np.isnan(share), np.nan, np.sign(share - 0.5) * distance)


def _beta_quantile(share: Any, concentration1: Any, concentration0: Any) -> Any:
    guess = special.betaincinv(concentration1, concentration0, share)
    return _inverted(
        share, guess, lambda x, a, b: special.betainc(a, b, x), -745.0, 0.0, concentration1, concentration0
    )


_STUDENT_T = _Family(
    cdf=_student_t_cdf,
    survival=lambda value, df: _student_t_cdf(-value, df),
    quantile=_student_t_quantile,
    log_density=log_student_t,
    breadth=lambda index, df: df,
)
_GAMMA = _Family(
    cdf=lambda value, a: np.where(value < 0, 0.0, special.gammainc(a, np.maximum(value, 0.0))),
    survival=lambda value, a: np.where(value < 0, 1.0, special.gammaincc(a, np.maximum(value, 0.0))),
    quantile=lambda share, a: special.gammaincinv(a, share),
    log_density=_log_gamma_density,
    breadth=lambda index, a: torch.minimum(a, a.sqrt()),
)
_BETA = _Family(
    cdf=lambda value, a, b: special.betainc(a, b, np.clip(value, 0.0, 1.0)),
    survival=lambda value, a, b: special.betaincc(a, b, np.clip(value, 0.0, 1.0)),
    quantile=_beta_quantile,
    log_density=log_beta_density,
    breadth=lambda index, *ab: torch.minimum(ab[index], (ab[index] * (1.0 + ab[index] / ab[1 - index])).sqrt()),
)


def student_t_cdf(value: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """The standard Student-t distribution function.

    Example:
        >>> student_t_cdf(torch.tensor([-1.0, 0.0]), torch.tensor(1.0))
        tensor([0.2500, 0.5000])
    """
    return _apply(_Cdf, _STUDENT_T, value, degrees_of_freedom)


def student_t_quantile(share: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    """The inverse of :func:`student_t_cdf`; ∓∞ at 0 and 1.

    Example:
        >>> student_t_quantile(torch.tensor([0.1, 0.5]), torch.tensor(1.0))
        tensor([-3.0777,  0.0000])
    """
    return _apply(_Quantile, _STUDENT_T, share, degrees_of_freedom)


def gamma_cdf(value: Tensor, concentration: Tensor) -> Tensor:
    """The distribution function of a gamma distribution of rate 1: the regularized lower incomplete gamma function.

    Numerics: SciPy's, also where PyTorch has its own: at a concentration of 300 PyTorch's is off by 1e-9.

    Example:
        >>> gamma_cdf(torch.tensor([0.5, 2.0]), torch.tensor(1.0))
        tensor([0.3935, 0.8647])
    """
    return _apply(_Cdf, _GAMMA, value, concentration)


def gamma_quantile(share: Tensor, concentration: Tensor) -> Tensor:
    """The inverse of :func:`gamma_cdf`; 0 and ∞ at 0 and 1.

    Example:
        >>> gamma_quantile(torch.tensor([0.0, 0.5]), torch.tensor(1.0))
        tensor([0.0000, 0.6931])
    """
    return _apply(_Quantile, _GAMMA, share, concentration)


def beta_cdf(value: Tensor, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """The distribution function of a beta distribution: the regularized incomplete beta function.

    Example:
        >>> beta_cdf(torch.tensor([0.25, 2.0]), torch.tensor(2.0), torch.tensor(1.0))
        tensor([0.0625, 1.0000])
    """
    return _apply(_Cdf, _BETA, value, concentration1, concentration0)


def beta_quantile(share: Tensor, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """The inverse of :func:`beta_cdf`.

    Example:
        >>> beta_quantile(torch.tensor([0.0625, 1.0]), torch.tensor(2.0), torch.tensor(1.0))
        tensor([0.2500, 1.0000])
    """
    return _apply(_Quantile, _BETA, share, concentration1, concentration0)
