"""How a formula is evaluated, decided once for all losses.

``formula`` says what a formula is; ``reduction`` turns per-sample values into a mean, with weights and masks;
``evaluate`` holds the ways to run one.
"""

from lastlayer.evaluation.evaluate import evaluate, mean_and_gradient, to_computed
from lastlayer.evaluation.formula import Elementwise, Formula, Scaled, Summed, weighted_mean

__all__ = [
    "Elementwise",
    "Formula",
    "Scaled",
    "Summed",
    "evaluate",
    "mean_and_gradient",
    "to_computed",
    "weighted_mean",
]
