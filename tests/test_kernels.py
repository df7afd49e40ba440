"""What a kernel is made of: functions of one number, and the translation of a formula into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation_cases import CATALOG, KERNELS, every_kernel, needs_numba
from lastlayer.evaluation.formula import Elementwise
from lastlayer.evaluation.kernels import running
from lastlayer.evaluation.kernels.translation import NotElementwise, translate
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.huber import HuberFormula
from lastlayer.losses.squared_error import SquaredErrorFormula
from loss_properties import random

#: The function, its exact counterpart on float64, and how many units in the last place it may be off.
FUNCTIONS: dict[str, tuple[Callable, float]] = {
    "exp": (np.exp, 1.1),
    "expm1": (np.expm1, 1.6),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 1.5),
    "sqrt": (np.sqrt, 0.51),
    "sigmoid": (lambda x: 0.5 * (1.0 + np.tanh(0.5 * x)), 2.3),
    "log_sigmoid": (lambda x: -np.logaddexp(0.0, -x), 2.0),
    "softplus": (lambda x: np.logaddexp(0.0, x), 2.0),
    "tanh": (np.tanh, 2.5),
    "sinh": (np.sinh, 2.3),
    "cosh": (np.cosh, 1.6),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
