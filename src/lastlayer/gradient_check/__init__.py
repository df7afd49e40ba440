"""Gradients against differences: is what backward computes the derivative of what forward computes?

``check`` holds :func:`check_gradient`; ``subject`` says what moves and what is claimed of it, for a function, a loss,
an activation or a module; ``differences`` moves it; ``judgment`` compares; ``result`` says it in words.
"""

from lastlayer.gradient_check.check import check_gradient
from lastlayer.gradient_check.differences import numerical_gradient
from lastlayer.gradient_check.result import GradientCheck, GradientError, TensorCheck

__all__ = ["GradientCheck", "GradientError", "TensorCheck", "check_gradient", "numerical_gradient"]
