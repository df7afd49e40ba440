"""The uncertainty of an ensemble in two parts: what its members agree is noise, and what they disagree about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, check_choice, shape_text
from lastlayer.distributions.distribution import Distribution
from lastlayer.uncertainty.class_probabilities import class_probabilities, over_classes

MEASURES = ("variance", "entropy")


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Total uncertainty = aleatoric + epistemic, for each element.

    Attributes:
        total: of the mixed prediction.
        aleatoric: the members' own, on average: noise that more rows do not take away.
        epistemic: the rest, never negative: it comes from the members' disagreement, and shrinks as rows are added.
        measure: ``"variance"`` (the target's units squared) or ``"entropy"`` (nats).
    """

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    measure: str


def decompose(members: Distribution, *, weight: Tensor | None = None, measure: str | None = None) -> Decomposition:
    """An ensemble's uncertainty as aleatoric and epistemic.

    Domain: any distribution whose members lie along the first axis of its shape.

    Formula: of the ``"variance"``, the law of total variance: aleatoric ``Σ w_m Var_m``, epistemic
    ``Σ w_m (mean_m − mean)²``. Of the ``"entropy"``: total ``H(Σ w_m p_m)``, aleatoric ``Σ w_m H(p_m)``, epistemic
    their difference, the mutual information of value and member, at least 0 and at most log(members).

    Shapes: members ``(members, *shape)``, ``weight`` ``(members,)``, the parts ``shape``.

    Numerics: the variance of the means is a sum of squares, the mutual information of classes a sum of relative
    entropies ``Σ w_m KL(p_m ‖ p)``, each held at 0 from below: rounding never makes a part negative, and members that
    agree get about 0 exactly. The total is the sum of the parts.

    Special cases: one member has nothing epistemic. Without ``measure``, entropy for classes and labels, variance for
    quantities and counts. The entropy of a mixture of densities is that of :meth:`Distribution.mixed`, as exact as it.
    A variance that is infinite or NaN stays so in the total.

    Raises:
        ShapeError: if there is no axis of members, no member, or not one weight for each.
        DomainError: if a weight is negative or not finite, or all are zero.
        InputError: if the measure is neither of the two.

    Example:
        >>> from lastlayer.distributions.gaussian import Gaussian
        >>> parts = decompose(Gaussian(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]])))
        >>> parts.total, parts.aleatoric, parts.epistemic
        (tensor([3.5000]), tensor([2.5000]), tensor([1.]))

    Reference: S. Depeweg et al., Decomposition of uncertainty in Bayesian deep learning, ICML (2018).
    """
    if not members.shape or not members.shape[0]:
        raise ShapeError(f"the distribution has shape {tuple(members.shape)}; expected (members, ...), at least one.")
    measure = ("entropy" if over_classes(members) else "variance") if measure is None else measure
    check_choice(measure, MEASURES, what="measure")
    share = _shares(members, weight)
    if measure == "variance":
        return _variance(members, share)
    return _class_entropy(members, share) if over_classes(members) else _entropy(members, share)


def _shares(members: Distribution, weight: Tensor | None) -> Tensor:
    """The weights of the members, adding up to 1, with an axis of 1 for each axis of ``shape``."""
    template = members.mean
    count = members.shape[0]
    weight = template.new_ones(count) if weight is None else weight.to(template.device, template.dtype)
    if weight.shape != (count,):
        raise ShapeError(f"the weights have shape {shape_text(weight)}; expected one for each of {count} members.")
    if not bool(((weight >= 0) & weight.isfinite()).all()) or not bool((weight > 0).any()):
        raise DomainError(f"the weights are {weight.tolist()!r}; expected numbers from 0 up, not all 0.")
    return (weight / weight.sum()).reshape(-1, *(1 for _ in members.shape[1:]))


def _average(share: Tensor, values: Tensor) -> Tensor:
    # A member of weight 0 does not count, whatever it says.
    return torch.where(share > 0, share * values, 0.0).sum(dim=0)


def _variance(members: Distribution, share: Tensor) -> Decomposition:
    aleatoric = _average(share, members.variance)
    # Differences from one member that counts, not from 0: a large common mean takes no digits from them.
    mean = members.mean
    offset = mean - mean[share.flatten().argmax()]
    epistemic = _average(share, (offset - _average(share, offset)).square())
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic, "variance")


def _class_entropy(members: Distribution, share: Tensor) -> Decomposition:
    probability = class_probabilities(members)
    share = share.unsqueeze(-1)
    mixed = _average(share, probability)
    aleatoric = _average(share, torch.special.entr(probability)).sum(dim=-1)
    # A probability next to nothing may be 0 once it is weighted: held above it, or their ratio would be infinite.
    tiny = torch.finfo(probability.dtype).tiny
    relative = probability * (probability.clamp_min(tiny).log() - mixed.clamp_min(tiny).log())
    epistemic = _average(share, relative).sum(dim=-1).clamp_min(0.0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic, "entropy")


def _entropy(members: Distribution, share: Tensor) -> Decomposition:
    aleatoric = _average(share, members.entropy)
    epistemic = (members.mixed(share.flatten()).entropy - aleatoric).clamp_min(0.0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic, "entropy")
