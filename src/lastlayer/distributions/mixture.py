"""The mixture of any distributions: what a mixture density network predicts, and what any ensemble does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lastlayer.checks import DomainError, KindError, ShapeError, shape_text
from lastlayer.distributions import quadrature
from lastlayer.distributions.affine import Affine
from lastlayer.distributions.distribution import Distribution, check_parameters
from lastlayer.distributions.mixture_crps import mixture_crps
from lastlayer.distributions.mode_search import best_mode, local_maxima
from lastlayer.distributions.quantile_search import CHUNK, mixture_quantile
from lastlayer.facts import Interval


@dataclass(frozen=True, eq=False)
class Mixture(Distribution):
    """Mixtures of K distributions of one kind: a draw is a draw of one component, chosen by its weight.

    It is what a mixture density network predicts, and what an ensemble does whose members are the components (deep
    ensembles, Monte Carlo dropout, folds): ``prediction.mixed()``. The mixture is the average of densities, never of
    parameters, so members that disagree make it wide, or give it several modes.

    Domain: values are those of the components; weights are not negative and sum to 1. A weight may be exactly 0
    (``log_weight`` −∞); then nothing of that component is looked at, be it infinite or NaN, and its gradients are 0.

    Formula: density ``p(y) = Σ_k w_k p_k(y)``, cdf ``Σ_k w_k F_k(y)``; variance ``Σ_k w_k v_k + Σ_k w_k (m_k − m)²``,
    the part within the components (aleatoric) and the part between them (epistemic, where they are an ensemble's
    members). The quantile is the root of the cdf, the mode the best of the density's maxima, both searched for; neither
    is a mean of the components' own.

    Gradient: of everything but samples, with respect to every parameter and weight, as far as the components' own
    methods have one; of quantile and mode it is that of the implicit function. The entropy of densities made of steps
    has only the part that comes from their heights.

    Shapes: the components lie along the first axis: they have shape ``(K, *shape)``, and so has ``log_weight``, which
    is normalized along it.

    Numerics: quantiles and modes are found in float64 to the last digits of the dtype. The CRPS of Gaussians and of
    Laplaces is a closed form; that of others, and the entropy, are quadratures to about 1e-7 (:mod:`quadrature` says
    when).

    Raises:
        ShapeError: if the shapes of components and weights differ.
        DomainError: if the weights are not floating, or do not sum to 1.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> members = Gaussian(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [1.0]]))
        >>> members.mixed().mean, members.mixed().within_variance, members.mixed().between_variance
        (tensor([2.]), tensor([1.]), tensor([4.]))

    Reference: C. M. Bishop, Mixture density networks, Aston University NCRG/94/004 (1994); B. Lakshminarayanan et al.,
    NeurIPS (2017) for ensembles; SPEC A7.
    """

    components: Distribution
    log_weight: Tensor

    def __post_init__(self) -> None:
        if not self.log_weight.is_floating_point():
            raise DomainError(f"Mixture: log_weight is of {self.log_weight.dtype}; expected a floating dtype.")
        if not self.components.shape or self.components.shape[0] == 0:
            raise ShapeError(
                f"Mixture: the components have shape {tuple(self.components.shape)}; expected (components, ...), at "
                f"least one component along the first axis."
            )
        if self.log_weight.shape != self.components.shape:
            raise ShapeError(
                f"Mixture: log_weight has shape {shape_text(self.log_weight)}, the components "
                f"{tuple(self.components.shape)}; expected one weight for each component of every element. "
                f"Mixture.of takes weights of shape (components,) too."
            )
        total = self.log_weight.detach().exp().sum(0)
        if bool(((total - 1.0).abs() > max(1e-3, 8.0 * torch.finfo(total.dtype).eps)).any()):
            raise DomainError(
                f"Mixture: the weights' sums along the first axis go from {float(total.min()):.4g} to "
                f"{float(total.max()):.4g}; expected 1. Pass log_weight.log_softmax(0), or use Mixture.of, which "
                f"normalizes."
            )

    @classmethod
    def of(cls, components: Distribution, weight: Tensor | None = None) -> Mixture:
        """The mixture over the first axis of some distributions, with weights that need not sum to 1.

        A mixture of mixtures (an ensemble of mixture density networks) becomes one mixture of all their components.

        Args:
            components: of shape (K, *shape).
            weight: of shape (K,) or (K, *shape), not negative, not all 0; equal where left out. A weight of exactly 0
                has gradient 0.

        Raises:
            ShapeError: if the weights' shape is neither.
            DomainError: if a weight is negative or not finite, or all of an element's are 0.
        """
        if not isinstance(components, Distribution):
            raise KindError(f"Mixture.of: components is a {type(components).__name__}; expected a Distribution.")
        if not components.shape or components.shape[0] == 0:
            raise ShapeError(
                f"Mixture.of: the components have shape {tuple(components.shape)}; expected (components, ...), at "
                f"least one component along the first axis."
            )
        log_weight = _log_weight(components, weight)
        if isinstance(components, Mixture):
            inner = components.components
            # Inner axes are (M, K, ...): the inner mixture's own components come first.
            joint = components.log_weight + log_weight
            return cls(inner.map(_merged), _merged(joint))
        return cls(components, log_weight)

    @property
    def shape(self) -> torch.Size:
        return self.components.shape[1:]

    @property
    def support(self) -> Interval:  # type: ignore[override]
        """Where values lie: that of the components."""
        return self.components.support

    @property
    def discrete(self) -> bool:  # type: ignore[override]
        """Whether values are whole numbers: as those of the components."""
        return self.components.discrete

    @property
    def weight(self) -> Tensor:
        """Of every component, shape (K, *shape); they sum to 1 along the first axis."""
        return self.log_weight.softmax(0)

    @property
    def mean(self) -> Tensor:
        start, weight, distance = self._distances()
        return start + (weight * distance).sum(0)

    @property
    def variance(self) -> Tensor:
        return self.within_variance + self.between_variance

    @property
    def within_variance(self) -> Tensor:
        """The mean of the components' variances: of an ensemble, what no further member would take away (aleatoric)."""
        return (self.weight * self._sound(self.weight == 0).variance).sum(0)

    @property
    def between_variance(self) -> Tensor:
        """The variance of the components' means: of an ensemble, what its members disagree about (epistemic)."""
        _, weight, distance = self._distances()
        return (weight * (distance - (weight * distance).sum(0)) ** 2).sum(0)

    @property
    def mode(self) -> Tensor:
        """The likeliest value: the best of all maxima of the density; :func:`mode_search.local_maxima` finds them."""
        return best_mode(self)

    @property
    def modes(self) -> Tensor:
        """All maxima of the density, most dense first, shape (most, *shape), NaN where an element has fewer.

        Two maxima are told apart if between them the density falls below the lower of both by more than a share of
        1e-10. A flat top counts once. Not differentiable: ``mode`` is.

        Raises:
            DomainError: if values are whole numbers.
        """
        if self.discrete:
            raise DomainError("Mixture.modes: values are whole numbers; expected a density. mode gives the likeliest.")
        with torch.no_grad():
            location, log_density = local_maxima(self.flat())
            order = log_density.nan_to_num(nan=-torch.inf).argsort(dim=0, descending=True, stable=True)
            location = location.gather(0, order)
        return location.reshape(len(location), *self.shape).to(self.log_weight.dtype)

    @property
    def entropy(self) -> Tensor:
        """``E[−log p(Y)]`` in nats, by quadrature over nodes that follow every component: see :mod:`quadrature`."""
        return quadrature.entropy(self)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, shape (n, *shape): of a component by weight each, then from that one alone."""
        with torch.no_grad():
            count, size = self.components.shape[0], self.shape.numel()
            total = self.weight.double().reshape(count, size).cumsum(0).T.contiguous()
            share = torch.rand(size, n, dtype=torch.float64, device=total.device, generator=generator)
            # The first component whose share in the running sum is beyond the draw: never one of weight 0.
            chosen = torch.searchsorted(total, share * total[:, -1:], right=True).clamp_max(count - 1)
            index = (chosen * size + torch.arange(size, device=total.device).unsqueeze(-1)).T.reshape(-1)
            every = self.components.map(lambda parameter: parameter.reshape(count * size))
            drawn = [every[part].sample(1, generator=generator)[0] for part in index.split(CHUNK)]
            drawn = drawn or [self.log_weight.new_empty(0)]
            return torch.cat(drawn).reshape(n, *self.shape)

    def affine(self, shift: float, scale: float) -> Distribution:
        moved = self.components.affine(shift, scale)
        # Of a kind that is not its own in other units, moving the mixture as a whole keeps more digits.
        return Affine(self, shift, scale) if isinstance(moved, Affine) else Mixture(moved, self.log_weight)

    def map(self, change: Callable[[Tensor], Tensor]) -> Mixture:
        def each(parameter: Tensor) -> Tensor:
            changed = [change(component) for component in parameter.unbind(0)]
            check_parameters(self, **{f"component {index}": part for index, part in enumerate(changed)})
            return torch.stack(changed)

        return Mixture(self.components.map(each), each(self.log_weight))

    def __getitem__(self, index: Any) -> Mixture:
        behind = (slice(None), *index) if isinstance(index, tuple) else (slice(None), index)
        return Mixture(self.components[behind], self.log_weight[behind])

    def double(self) -> Mixture:
        """In float64, with weights that sum to 1 to its digits; empty components are copies of the heaviest one."""
        log_weight = self.log_weight.double()
        log_weight = log_weight - torch.logsumexp(log_weight, 0)
        return Mixture(self._sound(self.log_weight == -torch.inf).map(lambda part: part.double()), log_weight)

    def flat(self) -> Mixture:
        """As ``double``, detached, of shape (elements,): what the searches work on."""
        shape = (self.components.shape[0], self.shape.numel())
        double = self.double()
        components = double.components.map(lambda parameter: parameter.detach().reshape(shape))
        return Mixture(components, double.log_weight.detach().reshape(shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        each = self._sound(self.log_weight == -torch.inf)._log_prob(self._for_each(value))
        each = each + self.log_weight.log_softmax(0)
        axis = -1 - len(self.shape)
        # Outside every component's support the sum is of nothing, and its derivative is 0, not 0/0.
        nothing = (each == -torch.inf).all(axis)
        total = torch.logsumexp(each.masked_fill(nothing.unsqueeze(axis), 0.0), axis)
        return total.masked_fill(nothing, -torch.inf)

    def _cdf(self, value: Tensor) -> Tensor:
        weight = self.weight
        each = self._sound(weight == 0)._cdf(self._for_each(value))
        # Rounded, the weights may not sum to 1; where every component's cdf is 1, so is the mixture's.
        return (weight * each).sum(-1 - len(self.shape)) / weight.expand_as(each).sum(-1 - len(self.shape))

    def _quantile(self, share: Tensor) -> Tensor:
        return mixture_quantile(self, share)

    def _crps(self, value: Tensor) -> Tensor:
        return mixture_crps(self, value)

    def _for_each(self, value: Tensor) -> Tensor:
        """A value, once for each component: (..., K, *shape)."""
        lead = value.shape[: value.dim() - len(self.shape)]
        return value.unsqueeze(len(lead)).expand(*lead, *self.components.shape)

    def _distances(self) -> tuple[Tensor, Tensor, Tensor]:
        """A mean to start from, the weights, and how far from that start each component's mean lies.

        Moments are taken of the distances: the means themselves may be large beside their differences.
        """
        weight = self.weight
        means = self._sound(weight == 0).mean
        start = means.detach().gather(0, self.log_weight.argmax(0, keepdim=True))[0]
        start = torch.where(torch.isfinite(start), start, torch.zeros_like(start))
        return start, weight, means - start

    def _sound(self, empty: Tensor) -> Distribution:
        """The components, those without weight replaced by the heaviest: no infinity of theirs is multiplied by 0."""
        if not bool(empty.any()):
            return self.components
        heaviest = self.log_weight.argmax(0, keepdim=True)

        def filled(parameter: Tensor) -> Tensor:
            further = (1,) * (parameter.dim() - empty.dim())
            index = heaviest.reshape(*heaviest.shape, *further).expand(1, *parameter.shape[1:])
            return torch.where(empty.reshape(*empty.shape, *further), parameter.gather(0, index), parameter)

        return self.components.map(filled)


def _merged(parameter: Tensor) -> Tensor:
    """The first two axes as one."""
    return parameter.reshape(-1, *parameter.shape[2:])


def _log_weight(components: Distribution, weight: Tensor | None) -> Tensor:
    """Normalized along the first axis, of the components' shape and dtype."""
    template = components.mean
    shape, count = components.shape, components.shape[0]
    if weight is None:
        weight = torch.ones(count, dtype=template.dtype, device=template.device)
    weight = torch.as_tensor(weight, dtype=template.dtype, device=template.device)
    if weight.shape != (count,) and weight.shape != shape:
        raise ShapeError(
            f"Mixture.of: the weights have shape {shape_text(weight)}, the components {tuple(shape)}; expected "
            f"({count},), or {tuple(shape)} for weights of every element."
        )
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()) or not bool((weight.sum(0) > 0).all()):
        raise DomainError("Mixture.of: expected weights that are finite, not negative, and not all 0.")
    if weight.dim() < len(shape):
        weight = weight.reshape(count, *(1 for _ in shape[1:])).expand(shape)
    present = weight > 0
    log_weight = torch.where(present, weight, torch.ones_like(weight)).log().masked_fill(~present, -torch.inf)
    return log_weight - torch.logsumexp(log_weight, 0)
