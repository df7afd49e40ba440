"""The categorical distribution: one of K classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import DomainError, ShapeError, shape_text
from lastlayer.distributions.distribution import Distribution, check_parameters
from lastlayer.distributions.last_axis import index_before_last_axis, map_before_last_axis
from lastlayer.distributions.support import outside_support
from lastlayer.facts import Interval


@dataclass(frozen=True, eq=False)
class Categorical(Distribution):
    """Categorical distributions over the class indices 0 to K − 1.

    ``mean``, ``variance``, ``median``, ``quantile``, ``interval``, ``cdf`` and ``crps`` are those of the index as a
    number. They mean something where the classes have an order, as in an ordinal regression. For classes without one
    ask for ``probability``, ``mode``, ``log_prob`` and ``entropy``.

    Domain: values are class indices; ``logits`` are real numbers. −∞ rules a class out, as long as one is left.

    Formula: ``log p(k) = logits_k − log Σ_j exp(logits_j)``. CRPS of a class y, the ranked probability score:
    ``Σ_k (F_k − 1{y ≤ k})²``; between two classes and beyond them it is the same integral.

    Shapes: ``logits`` (*shape, K). Indexing, :meth:`map` and the axes of a value are those of ``shape``: the class axis
    always stays.

    Special cases: of equally likely classes the mode is the first.

    Raises:
        ShapeError: if the logits have no class axis, or no class along it.

    Example:
        >>> grade = Categorical(torch.tensor([[1.0, 2.0, 0.0]]))
        >>> grade.probability, grade.mode, grade.crps(torch.tensor([2]))
        (tensor([[0.2447, 0.6652, 0.0900]]), tensor([1.]), tensor([0.8879]))

    Reference: E. S. Epstein, Journal of Applied Meteorology 8 (1969) for the ranked probability score.
    """

    logits: Tensor
    discrete = True

    def __post_init__(self) -> None:
        check_parameters(self, logits=self.logits)
        if self.logits.dim() == 0 or self.logits.shape[-1] == 0:
            raise ShapeError(f"Categorical: logits have shape {shape_text(self.logits)}; expected (..., K), K classes.")

    @classmethod
    def from_cumulative_logits(cls, cumulative: Tensor) -> Self:
        """Of ordered classes, by the logits of not exceeding each but the last: ``P(Y ≤ k) = σ(cumulative_k)``.

        Formula: with neighbors a ≤ b, ``log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − exp(a − b))``.

        Shapes: cumulative (*shape, K − 1), nondecreasing along its last axis.

        Numerics: nothing cancels: however far out in either tail, a class's logarithm is right to rounding. Two
        equal neighbors leave no probability between them; its logarithm is held at that of the least positive normal
        number of the dtype, where it has no gradient, so that everything stays finite.

        Raises:
            ShapeError: if there is no last axis with one logit at least.
            DomainError: if the logits are not floating, or fall along the last axis.

        Example:
            >>> Categorical.from_cumulative_logits(torch.tensor([-1.0, 1.0])).probability
            tensor([0.2689, 0.4621, 0.2689])

        Reference: P. McCullagh, J. Royal Statistical Society B 42 (1980).
        """
        if not cumulative.is_floating_point():
            raise DomainError(f"Categorical: cumulative logits are of {cumulative.dtype}; expected a floating dtype.")
        if cumulative.dim() == 0 or cumulative.shape[-1] == 0:
            raise ShapeError(
                f"Categorical: cumulative logits have shape {shape_text(cumulative)}; expected (..., K − 1), one for "
                f"each class but the last."
            )
        gap = cumulative[..., 1:] - cumulative[..., :-1]
        if bool((gap < 0).any()):
            raise DomainError("Categorical: cumulative logits fall along their last axis; expected them in order.")
        sure = torch.zeros_like(cumulative[..., :1])
        not_above = torch.cat([F.logsigmoid(cumulative), sure], dim=-1)
        above_last = torch.cat([sure, F.logsigmoid(-cumulative)], dim=-1)
        between = torch.log(-torch.expm1(-gap.clamp_min(torch.finfo(gap.dtype).tiny)))
        return cls(not_above + above_last + torch.cat([sure, between, sure], dim=-1))

    @property
    def shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def support(self) -> Interval:  # type: ignore[override]
        """From the first class to the last."""
        return Interval(0.0, self.logits.shape[-1] - 1.0, low_closed=True, high_closed=True)

    @property
    def log_probability(self) -> Tensor:
        """Of every class, shape (*shape, K)."""
        return torch.log_softmax(self.logits, dim=-1)

    @property
    def probability(self) -> Tensor:
        """Of every class, shape (*shape, K)."""
        return torch.softmax(self.logits, dim=-1)

    @property
    def mean(self) -> Tensor:
        return (self.probability * self._classes).sum(dim=-1)

    @property
    def variance(self) -> Tensor:
        return (self.probability * (self._classes - self.mean.unsqueeze(-1)) ** 2).sum(dim=-1)

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(dim=-1).to(self.logits.dtype)

    @property
    def entropy(self) -> Tensor:
        # A class that is ruled out has a logarithm of −∞, which its probability of 0 must not meet.
        log_probability = self.log_probability
        finite = log_probability.clamp_min(torch.finfo(log_probability.dtype).min)
        return -(log_probability.exp() * finite).sum(dim=-1)

    def mixed(self, weight: Tensor | None = None) -> Categorical:
        """The mixture over the first axis: again categorical, with the means of the probabilities.

        Args:
            weight: of every member, shape (members,) or that of the distributions, not negative; equal where left out.

        Raises:
            ShapeError: if there is no first axis, or the weights' shape is neither.
            DomainError: if a weight is negative or not finite, or all of an element's are 0.
        """
        from lastlayer.distributions.mixture import Mixture

        log_weight = Mixture.of(self, weight).log_weight.unsqueeze(-1)
        # Nothing of a member without weight is looked at, be it NaN.
        logits = self.logits.masked_fill(log_weight == -math.inf, 0.0)
        return Categorical(torch.logsumexp(torch.log_softmax(logits, dim=-1) + log_weight, dim=0))

    def map(self, change: Callable[[Tensor], Tensor]) -> Categorical:
        return Categorical(map_before_last_axis(self, change, self.logits))

    def __getitem__(self, index: Any) -> Categorical:
        return Categorical(self.logits[index_before_last_axis(index)])

    @property
    def _classes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)

    def _cumulative(self) -> Tensor:
        """``P(Y ≤ k)`` of every class; of the last exactly 1."""
        cumulative = self.probability.cumsum(dim=-1).clamp_max(1.0)
        return torch.cat([cumulative[..., :-1], torch.ones_like(cumulative[..., :1])], dim=-1)

    def _at(self, table: Tensor, value: Tensor) -> Tensor:
        """Of a table (*shape, K) the entry of each value's class; the nearest class's outside the support."""
        index = value.nan_to_num(0.0).clamp(0, table.shape[-1] - 1).long().unsqueeze(-1)
        return table.expand(*value.shape, table.shape[-1]).gather(-1, index).squeeze(-1)

    def _log_prob(self, value: Tensor) -> Tensor:
        allowed = (value >= 0) & (value < self.logits.shape[-1]) & (value == value.floor())
        return torch.where(allowed, self._at(self.log_probability, value), outside_support(value))

    def _cdf(self, value: Tensor) -> Tensor:
        cdf = torch.where(value >= 0, self._at(self._cumulative(), value), torch.zeros_like(value))
        return torch.where(value.isnan(), value, cdf)

    def _quantile(self, share: Tensor) -> Tensor:
        # searchsorted wants the shares of one distribution along the last axis.
        cumulative = self._cumulative()
        shares = share.expand(torch.broadcast_shapes(share.shape, self.shape))
        along = len(shares.shape) - len(self.shape)
        several = shares.reshape((shares.shape[:along].numel(), *self.shape)).movedim(0, -1).contiguous()
        found = torch.searchsorted(cumulative.detach().contiguous(), several).clamp_max(self.logits.shape[-1] - 1)
        return found.movedim(-1, 0).reshape((*shares.shape[:along], *self.shape)).to(self.logits.dtype)

    def _crps(self, value: Tensor) -> Tensor:
        # From class k to class k + 1 the cdf is F_k; `passed` is the part of that unit that lies below the value.
        probability, last = self.probability, self.logits.shape[-1] - 1
        below = probability[..., :-1].cumsum(dim=-1)
        above = probability[..., 1:].flip(-1).cumsum(dim=-1).flip(-1)
        inside = value.clamp(0, last)
        passed = (inside.unsqueeze(-1) - self._classes[:-1]).clamp(0.0, 1.0)
        return (below**2 * passed + above**2 * (1.0 - passed)).sum(dim=-1) + (value - inside).abs()
