"""What every predicted distribution can be asked: the one contract of ``head.distribution(raw)``."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError, KindError, ShapeError, shape_text
from lastlayer.facts import Interval


class Distribution(ABC):
    """Distributions of one number each, one for every element of ``shape``.

    A distribution is an immutable dataclass whose fields are tensors of one shape and one floating dtype; it mutates
    nothing and follows their device. Subclasses write the mathematics in ``_quantile``, ``_log_prob``, ``_cdf`` and
    ``_crps``, which may take it that shapes are right; the public methods check.

    Shapes: with ``shape`` that of the distribution,

    - ``mean``, ``variance``, ``standard_deviation``, ``median``, ``mode``, ``entropy``: ``shape``;
    - ``log_prob(y)``, ``cdf(y)``, ``crps(y)``: y's own shape, which is ``shape`` or ``(..., *shape)`` for several
      values each; a Python number stands for every element. Nothing else broadcasts: ``(n,)`` against ``(n, 1)`` is
      an error;
    - ``quantile(q)``: ``shape`` for a number, ``(len(q), *shape)`` for a sequence of numbers;
    - ``interval(p)``: the pair of its ends, each shaped as ``quantile(p)``;
    - ``sample(n)``: ``(n, *shape)``.

    Units: values in those of the target, ``entropy`` and ``log_prob`` in nats, ``crps`` in the target's units.

    Gradients: everything but samples can be differentiated with respect to the parameters. What comes from SciPy says
    so; it has a first derivative, and an error where a second is not to be had.
    """

    #: Where values lie.
    support: Interval
    #: Whether values are whole numbers: ``log_prob`` is then the logarithm of a probability, not of a density.
    discrete: ClassVar[bool] = False

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """One distribution for each element."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expectation; infinite or NaN where there is none, as in SciPy."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """The expected squared distance from the mean; infinite or NaN where there is none."""

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        """The likeliest value: where the density, or the probability, is greatest."""

    @property
    @abstractmethod
    def entropy(self) -> Tensor:
        """``E[−log p(Y)]`` in nats; of a density it is the differential entropy, which may be negative."""

    @abstractmethod
    def _log_prob(self, value: Tensor) -> Tensor:
        """Where the value lies outside the support: −∞."""

    @abstractmethod
    def _cdf(self, value: Tensor) -> Tensor:
        """The probability of a value at most this."""

    @abstractmethod
    def _quantile(self, share: Tensor) -> Tensor:
        """The least value with ``cdf(value) >= share``; ``share`` is in [0, 1] and broadcasts against ``shape``."""

    @abstractmethod
    def _crps(self, value: Tensor) -> Tensor:
        """``E|Y − y| − ½ E|Y − Y′|``."""

    @property
    def standard_deviation(self) -> Tensor:
        """The root of the variance."""
        return self.variance.sqrt()

    @property
    def median(self) -> Tensor:
        """The least value that half of the probability does not exceed."""
        return self.quantile(0.5)

    def log_prob(self, value: Tensor | float) -> Tensor:
        """Logarithm of the density, or of the probability, at a value; −∞ outside the support, NaN at NaN.

        Raises:
            ShapeError: if the value's last axes are not ``shape``.
        """
        return self._log_prob(self._values(value))

    def cdf(self, value: Tensor | float) -> Tensor:
        """The probability of a value at most this.

        Raises:
            ShapeError: if the value's last axes are not ``shape``.
        """
        return self._cdf(self._values(value))

    def crps(self, value: Tensor | float) -> Tensor:
        """Continuous ranked probability score ``∫ (F(x) − 1{y ≤ x})² dx``: least, in expectation, for the truth.

        For a distribution that is a point it is the absolute error, and it is in the target's units.

        Raises:
            ShapeError: if the value's last axes are not ``shape``.

        Reference: T. Gneiting, A. E. Raftery, J. American Statistical Association 102 (2007).
        """
        return self._crps(self._values(value))

    def quantile(self, q: float | Sequence[float] | Tensor) -> Tensor:
        """The value that a share ``q`` of the probability does not exceed; the least such value of a discrete one.

        Raises:
            DomainError: if a share does not lie in [0, 1].
            ShapeError: if ``q`` is neither a number nor a sequence of numbers.
        """
        share = self._shares(q, what="q")
        values = self._quantile(share.reshape((*share.shape, *(1 for _ in self.shape))))
        return values.expand((*share.shape, *self.shape))

    def interval(self, p: float | Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
        """The central interval that holds a share ``p``: as much is left out below it as above.

        Of a discrete distribution it holds at least that share.

        Raises:
            DomainError: if a share does not lie in [0, 1].
            ShapeError: if ``p`` is neither a number nor a sequence of numbers.
        """
        share = self._shares(p, what="p")
        tail = 0.5 - 0.5 * share
        return self.quantile(tail), self.quantile(1.0 - tail)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws of each distribution, shape (n, *shape); detached from the parameters."""
        like = self._like
        share = torch.rand(n, *self.shape, dtype=like.dtype, device=like.device, generator=generator)
        # 0 is drawn now and then, 1 never: both have infinite quantiles where the support has no end. The 0 stands for
        # all that is less than the least share drawn, eps/2; half of that is in its middle.
        return self._quantile(share.clamp_min(0.25 * torch.finfo(share.dtype).eps))

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same kind of distribution with every parameter changed: moved to a device, indexed, reshaped.

        ``change`` sees tensors whose axes are ``shape``'s and must treat all alike.
        """
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {field.name: getattr(self, field.name) for field in fields}
        return type(self)(**{n: change(v) if isinstance(v, Tensor) else v for n, v in values.items()})

    def __getitem__(self, index: Any) -> Self:
        """The distributions at these elements: ``distribution[3]``, ``distribution[:, 0]``."""
        return self.map(lambda parameter: parameter[index])

    def affine(self, shift: float, scale: float) -> Distribution:
        """The distribution of ``shift + scale · Y``: what was predicted in other units.

        Raises:
            DomainError: if the scale is not positive, or the values are whole numbers.
        """
        from lastlayer.distributions.affine import Affine

        return Affine(self, shift, scale)

    def mixed(self, weight: Tensor | None = None) -> Distribution:
        """The mixture over the first axis: what an ensemble predicts whose members lie along it.

        Args:
            weight: of every member, shape (members,), not negative; equal where left out.
        """
        from lastlayer.distributions.mixture import Mixture

        return Mixture.of(self, weight)

    @property
    def _like(self) -> Tensor:
        """A parameter, whichever comes first: every answer has its dtype and device."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            part = getattr(self, field.name)
            if isinstance(part, Distribution):
                return part._like
            if isinstance(part, Tensor):
                return part
        return self.mean

    def _values(self, value: Tensor | float) -> Tensor:
        """A value as the subclass takes it: of the parameters' dtype and device, its last axes ``shape``."""
        like = self._like
        if not isinstance(value, Tensor):
            return torch.full(self.shape, float(value), dtype=like.dtype, device=like.device)
        trailing = value.shape[value.dim() - len(self.shape) :]
        if value.dim() < len(self.shape) or trailing != self.shape:
            raise ShapeError(
                f"{type(self).__name__}: the value has shape {shape_text(value)}; expected {tuple(self.shape)}, or "
                f"(..., {', '.join(map(str, self.shape))}) for several values each."
            )
        return value.to(like.dtype)

    def _shares(self, share: float | Sequence[float] | Tensor, *, what: str) -> Tensor:
        like = self._like
        shares = torch.as_tensor(share, dtype=like.dtype, device=like.device)
        if shares.dim() > 1:
            raise ShapeError(f"{what} has shape {shape_text(shares)}; expected a number or a sequence of numbers.")
        if not bool(((shares >= 0) & (shares <= 1)).all()):
            raise DomainError(f"{what} is {share!r}; expected shares in [0, 1].")
        return shares


def check_parameters(distribution: Distribution, **parameters: Tensor) -> None:
    """All parameters are floating tensors of one shape and dtype.

    Raises:
        ShapeError: naming the shapes that differ.
        DomainError: if one is not a floating tensor.
        KindError: naming the dtypes that differ.
    """
    name = type(distribution).__name__
    for label, parameter in parameters.items():
        if not isinstance(parameter, Tensor) or not parameter.is_floating_point():
            raise DomainError(f"{name}: {label} is {parameter!r}; expected a tensor of floating dtype.")
    shapes = {label: shape_text(parameter) for label, parameter in parameters.items()}
    if len({parameter.shape for parameter in parameters.values()}) > 1:
        raise ShapeError(f"{name}: the parameters' shapes differ, {shapes}; expected one shape for all.")
    dtypes = {label: str(parameter.dtype) for label, parameter in parameters.items()}
    if len(set(dtypes.values())) > 1:
        raise KindError(f"{name}: the parameters' dtypes differ, {dtypes}; expected one for all. Fix: convert them.")


def normal_cdf(z: Tensor) -> Tensor:
    """The standard Gaussian distribution function, to the last digits of either tail.

    ``torch.special.ndtr`` is ½(1 + erf), of which the lower tail is lost: from z = −6 on in float32, −8 in float64.
    """
    return 0.5 * torch.erfc(-math.sqrt(0.5) * z)


LOG_2PI = math.log(2.0 * math.pi)
