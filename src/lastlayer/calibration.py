"""A calibration by name: fitted to held-out predictions, and put on new ones.

The mathematics is in ``uncertainty``; here stands which of it fits which target, and how an estimator spells it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer import distributions
from lastlayer.checks import InputError
from lastlayer.distributions import Distribution
from lastlayer.uncertainty import (
    Isotonic,
    PitRecalibration,
    ScaleRecalibration,
    State,
    Temperature,
    class_probabilities,
    fit_class_temperature,
    fit_isotonic_classes,
    fit_isotonic_labels,
    fit_label_temperature,
    fit_pit_recalibration,
    fit_scale,
)

#: What estimators take, by the kind of target: a spread that is multiplied leaves no whole numbers.
FOR_CLASSES: tuple[str, ...] = ("temperature", "isotonic")
FOR_QUANTITIES: tuple[str, ...] = ("scale", "pit")
FOR_COUNTS: tuple[str, ...] = ("pit",)


def check_calibration(name: str | None, *, over_classes: bool, whole: bool = False) -> None:
    """The calibration fits the kind of target; called before training, so that none is lost at its end.

    Args:
        name: as an estimator was given it; ``None`` for none.
        over_classes: whether the target is classes or labels.
        whole: whether the head is for counts.

    Raises:
        InputError: for a name that is none of those for this kind of target.
    """
    if over_classes:
        fitting, kind = FOR_CLASSES, "classes"
    else:
        fitting, kind = (FOR_COUNTS, "counts") if whole else (FOR_QUANTITIES, "quantities")
    if name is not None and name not in fitting:
        raise InputError(f"calibration is {name!r}; expected {' or '.join(map(repr, fitting))} for {kind}, or None.")


def fit_calibration(
    name: str, distribution: Distribution, target: Tensor, weight: Tensor | None, *, over_classes: bool
) -> State:
    """What makes these held-out predictions calibrated.

    Args:
        name: one of ``FOR_CLASSES`` or ``FOR_QUANTITIES``.
        distribution: the predictions, in the target's units.

    Raises:
        InputError: for a name that is none of those for this kind of target.
    """
    check_calibration(name, over_classes=over_classes, whole=distribution.discrete)
    if name == "scale":
        return fit_scale(distribution, target, sample_weight=weight)
    if name == "pit":
        return fit_pit_recalibration(
            distribution, target, sample_weight=weight, generator=torch.Generator().manual_seed(0)
        )
    if isinstance(distribution, distributions.Bernoulli):
        if name == "temperature":
            return fit_label_temperature(distribution.logit, target, sample_weight=weight)
        return fit_isotonic_labels(distribution.probability, target, sample_weight=weight)
    assert isinstance(distribution, distributions.Categorical)
    if name == "temperature":
        return fit_class_temperature(distribution.logits, target, sample_weight=weight)
    return fit_isotonic_classes(distribution.probability, target, sample_weight=weight)


def calibrated(state: State | None, distribution: Distribution) -> Distribution:
    """The predictions to use instead; without a state they stay as they are."""
    if state is None:
        return distribution
    if isinstance(state, (ScaleRecalibration, PitRecalibration)):
        return state(distribution)
    if isinstance(distribution, distributions.Bernoulli):
        if isinstance(state, Temperature):
            return distributions.Bernoulli(state(distribution.logit))
        assert isinstance(state, Isotonic)
        return distributions.Bernoulli(torch.logit(state(distribution.probability)))
    assert isinstance(distribution, distributions.Categorical)
    if isinstance(state, Temperature):
        return distributions.Categorical(state(distribution.logits))
    assert isinstance(state, Isotonic)
    return distributions.Categorical(state(class_probabilities(distribution)).log())
