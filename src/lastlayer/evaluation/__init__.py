"""How a formula is evaluated, decided once for all losses.

``formula`` says what a formula is, ``reduction`` turns per-sample values into a mean, with weights and masks. ``paths``
chooses the way and says why; ``blockwise``, ``kernels`` and ``compiled`` are the ways that take value and gradient in
one sweep, ``node`` ties them into autograd, ``evaluate`` is all of it in one call, and ``fused_linear`` puts the last
layer's product before it.
"""

from lastlayer.evaluation.buffers import release_memory
from lastlayer.evaluation.evaluate import evaluate, gradient_of_values, mean_and_gradient
from lastlayer.evaluation.formula import Elementwise, Formula, Scaled, Summed, weighted_mean
from lastlayer.evaluation.fused_linear import fused_linear
from lastlayer.evaluation.paths import PATHS, Choice, choose_path, evaluate_with
from lastlayer.evaluation.true_class import OfIndex, TrueClass

__all__ = [
    "PATHS",
    "Choice",
    "Elementwise",
    "Formula",
    "OfIndex",
    "Scaled",
    "Summed",
    "TrueClass",
    "choose_path",
    "evaluate",
    "evaluate_with",
    "fused_linear",
    "gradient_of_values",
    "mean_and_gradient",
    "release_memory",
    "weighted_mean",
]
