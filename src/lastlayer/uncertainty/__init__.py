"""Uncertainty: how good predicted distributions are, how to mend them on held-out rows, and what they are made of.

Look: ``scores`` (proper scores, PIT, coverage and width), ``reliability`` (confidence beside accuracy). Mend the
distribution: ``prior_correction`` (class weights undone), ``temperature`` and ``isotonic`` (classes and labels),
``scale_recalibration`` and ``pit_recalibration`` (quantities and counts). Promise: ``conformal``, its ``intervals``,
``sets`` and ``cross_conformal``; ``distributional_conformal`` at any level from one list of scores. Several members:
``monte_carlo_dropout``, and ``decomposition``, what they agree on and what not. What is fitted is an immutable object
with ``to_dict`` and ``from_dict`` in plain JSON; :func:`from_dict` here finds out which.
"""

from typing import Any

from lastlayer.checks import InputError
from lastlayer.uncertainty.class_probabilities import class_probabilities
from lastlayer.uncertainty.conformal import conformal_quantile, least_rows
from lastlayer.uncertainty.conformal_intervals import (
    ConformalQuantiles,
    ScaledResidual,
    fit_conformal_quantiles,
    fit_scaled_residual,
)
from lastlayer.uncertainty.conformal_sets import ConformalSets, fit_class_sets, set_sizes
from lastlayer.uncertainty.cross_conformal import CrossConformal, fit_cross_conformal
from lastlayer.uncertainty.decomposition import Decomposition, decompose
from lastlayer.uncertainty.distributional_conformal import (
    conformal_share_interval,
    conformal_threshold,
    distance_from_middle,
)
from lastlayer.uncertainty.isotonic import Isotonic, fit_isotonic_classes, fit_isotonic_labels
from lastlayer.uncertainty.level_map import LevelMap
from lastlayer.uncertainty.monte_carlo_dropout import dropout_members
from lastlayer.uncertainty.pit_recalibration import PitRecalibration, fit_pit_recalibration
from lastlayer.uncertainty.prior_correction import correct_class_logits, correct_label_logits
from lastlayer.uncertainty.recalibrated import Recalibrated
from lastlayer.uncertainty.recalibrated_counts import RecalibratedCounts
from lastlayer.uncertainty.reliability import Reliability, expected_calibration_error, reliability
from lastlayer.uncertainty.rescaled import Rescaled
from lastlayer.uncertainty.scale_recalibration import ScaleRecalibration, fit_scale
from lastlayer.uncertainty.scores import (
    brier_score,
    coverage,
    interval_score,
    mean_crps,
    mean_nll,
    mean_width,
    randomized_pit,
)
from lastlayer.uncertainty.state import State
from lastlayer.uncertainty.temperature import Temperature, fit_class_temperature, fit_label_temperature

_STATES: tuple[type[State], ...] = (
    Temperature,
    Isotonic,
    ScaleRecalibration,
    PitRecalibration,
    ScaledResidual,
    ConformalQuantiles,
    ConformalSets,
    CrossConformal,
)


def from_dict(state: dict[str, Any]) -> State:
    """What was fitted, from what its ``to_dict`` gave.

    Raises:
        InputError: for a name that nothing here has, or fields that do not fit.
    """
    known = {kind.name: kind for kind in _STATES}
    name = state.get("name")
    if name not in known:
        raise InputError(f"there is no calibration named {name!r}; expected one of {', '.join(map(repr, known))}.")
    return known[name].from_dict(state)


__all__ = [
    "ConformalQuantiles",
    "ConformalSets",
    "CrossConformal",
    "Decomposition",
    "Isotonic",
    "LevelMap",
    "PitRecalibration",
    "Recalibrated",
    "RecalibratedCounts",
    "Reliability",
    "Rescaled",
    "ScaleRecalibration",
    "ScaledResidual",
    "State",
    "Temperature",
    "brier_score",
    "class_probabilities",
    "conformal_quantile",
    "conformal_share_interval",
    "conformal_threshold",
    "correct_class_logits",
    "correct_label_logits",
    "coverage",
    "decompose",
    "distance_from_middle",
    "dropout_members",
    "expected_calibration_error",
    "fit_class_sets",
    "fit_class_temperature",
    "fit_conformal_quantiles",
    "fit_cross_conformal",
    "fit_isotonic_classes",
    "fit_isotonic_labels",
    "fit_label_temperature",
    "fit_pit_recalibration",
    "fit_scale",
    "fit_scaled_residual",
    "from_dict",
    "interval_score",
    "least_rows",
    "mean_crps",
    "mean_nll",
    "mean_width",
    "randomized_pit",
    "reliability",
    "set_sizes",
]
