"""Which heads a quantity could have, by where its values lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A count that is so large on average is a quantity with rounding; its heads are slower and no better.
_LARGEST_MEAN_COUNT = 1e4


def admissible_heads(target: NDArray[Any]) -> dict[str, str]:
    """The heads worth trying on a quantity, as text, each with what speaks for it.

    Args:
        target: present, finite numbers.

    Example:
        >>> list(admissible_heads(np.array([0.0, 3.0, 1.0, 4.0])))[-2:]
        ['poisson', 'negative_binomial']
    """
    values = np.asarray(target, dtype=np.float64)
    heads = {
        "gaussian": "one scale for all",
        "gaussian:predicted": "a scale of its own for every row",
        "laplace:predicted": "the same with heavier tails",
        "student_t": "tails as heavy as the data have them",
        "mixture:5": "any shape, several modes",
    }
    if (values > 0).all():
        heads |= {"log_normal": "positive, errors as ratios", "gamma": "positive, spread in proportion to the mean"}
    if ((values >= 0) & (values <= 1)).all():
        heads["beta"] = "between 0 and 1"
    if (values >= 0).all() and (values == np.floor(values)).all() and values.mean() < _LARGEST_MEAN_COUNT:
        heads |= {"poisson": "counts", "negative_binomial": "counts with more variance than Poisson's"}
    return heads
