"""Reliability: predicted confidence beside how often it was right, bin by bin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import InputError, check_choice
from lastlayer.distributions.distribution import Distribution
from lastlayer.evaluation.reduction import hide_masked
from lastlayer.uncertainty.class_probabilities import class_index, class_probabilities
from lastlayer.uncertainty.weighting import checked_weight

BINNINGS = ("equal_width", "equal_mass")


@dataclass(frozen=True, eq=False)
class Reliability:
    """What a reliability diagram shows: in every field one number a bin, float64; empty bins are left out.

    Attributes:
        low, high: between what confidences the bin lies; ``low`` is outside, ``high`` inside.
        share: of the weight that lies in it; the shares add up to 1.
        confidence: the mean probability of the likeliest class.
        accuracy: the share in which that class happened.
    """

    low: Tensor
    high: Tensor
    share: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def expected_error(self) -> float:
        """The mean distance between confidence and accuracy, each bin with its share."""
        return float((self.share * (self.accuracy - self.confidence).abs()).sum())

    @property
    def largest_error(self) -> float:
        """The largest distance between confidence and accuracy in any bin."""
        return float((self.accuracy - self.confidence).abs().max())


def reliability(
    distribution: Distribution,
    target: Tensor,
    *,
    bins: int = 15,
    binning: str = "equal_width",
    sample_weight: Tensor | None = None,
) -> Reliability:
    """Confidence and accuracy of the likeliest class, in bins of the confidence.

    Domain: distributions over classes or labels; targets are their classes.

    Formula: the confidence is ``max_k p_k``, of labels ``max(p, 1 − p)``. Bins of ``equal_width`` cut [0, 1] into
    ``(i/bins, (i + 1)/bins]``. Bins of ``equal_mass`` hold about as much weight each: a prediction lies in the bin in
    which the middle of all predictions of its confidence falls, so that equal ones stay together.

    Shapes: ``target`` of the distribution's shape; ``sample_weight`` of that shape or of its leading axes.

    Special cases: of equally likely classes the first counts as predicted.

    Raises:
        KindError: if the distribution is not over classes.
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, ``bins`` is not positive, or all weights are zero.
        DomainError: if a target names no class, or a weight is negative, infinite or NaN.

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML (2017);
    equal mass: J. Nixon et al., Measuring calibration in deep learning, CVPR workshops (2019).
    """
    check_choice(binning, BINNINGS, what="binning")
    if bins < 1:
        raise InputError(f"reliability: bins is {bins}; expected a whole number, 1 or more.")
    weight = checked_weight(sample_weight, target, what="reliability")
    index = class_index(distribution, hide_masked(target, weight))
    confidence, predicted = class_probabilities(distribution).detach().double().max(dim=-1)
    confidence, correct, weight = confidence.flatten(), (predicted == index).double().flatten(), weight.flatten()
    place = _equal_width(confidence, bins) if binning == "equal_width" else _equal_mass(confidence, weight, bins)
    empty = torch.zeros(bins, dtype=torch.float64, device=weight.device)
    mass = empty.index_add(0, place, weight)
    held = mass > 0
    if binning == "equal_width":
        edges = torch.arange(bins + 1, dtype=torch.float64, device=weight.device) / bins
        low, high = edges[:-1][held], edges[1:][held]
    else:
        # A bin ends at its largest confidence, and begins where the one before it ends.
        counted = weight > 0
        high = empty.scatter_reduce(0, place[counted], confidence[counted], "amax")[held]
        low = torch.cat([high.new_zeros(1), high[:-1]])
    mass = mass[held]
    return Reliability(
        low,
        high,
        mass / mass.sum(),
        empty.index_add(0, place, weight * confidence)[held] / mass,
        empty.index_add(0, place, weight * correct)[held] / mass,
    )


def expected_calibration_error(
    distribution: Distribution,
    target: Tensor,
    *,
    bins: int = 15,
    binning: str = "equal_width",
    sample_weight: Tensor | None = None,
) -> float:
    """How far the confidence in the likeliest class is off, on average: 0 for the truth and endless rows.

    Formula: ``Σ_b share_b |accuracy_b − confidence_b|`` over the bins of :func:`reliability`: 15 of equal width on the
    probability of the likeliest class, or of equal mass.

    Special cases: not a proper score, and above 0 by chance even for the truth: the more so, the fewer rows a bin has.

    Raises:
        KindError: if the distribution is not over classes.
        ShapeError: if target or weights do not fit the distribution.
        InputError: if there is no row, ``bins`` is not positive, or all weights are zero.
        DomainError: if a target names no class, or a weight is negative, infinite or NaN.

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML (2017).
    """
    return reliability(distribution, target, bins=bins, binning=binning, sample_weight=sample_weight).expected_error


def _equal_width(confidence: Tensor, bins: int) -> Tensor:
    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins
    return torch.searchsorted(edges, confidence)


def _equal_mass(confidence: Tensor, weight: Tensor, bins: int) -> Tensor:
    _, group = torch.unique(confidence, return_inverse=True)
    mass = torch.zeros(int(group.max()) + 1, dtype=torch.float64, device=weight.device).index_add(0, group, weight)
    reached = mass.cumsum(0)
    middle = (reached - 0.5 * mass) / reached[-1]
    return (middle * bins).long().clamp_max(bins - 1)[group]
