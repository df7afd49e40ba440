"""A formula as a compiled loop.

An elementwise formula is straight-line arithmetic on one raw output and one target. ``translation`` reads it as such
from the formula's own PyTorch code, ``scalar_math`` has the elementary functions in a form that vectorizes, and
``loops`` runs the result over memory, on as many threads as PyTorch may use. A softmax of class scores has a pair of
loops in ``softmax_loops``, between which the formula says what it makes of the true class. So a new loss has its kernel
by being there, and there is no second place where its mathematics stands. Numba compiles; where it is not installed,
or a formula is of another kind, the blockwise path serves.
"""

from lastlayer.evaluation.kernels.running import not_quicker, obstacle, run

__all__ = ["not_quicker", "obstacle", "run"]
