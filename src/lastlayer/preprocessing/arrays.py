"""Tensors among arrays, without loading PyTorch for those who have none."""

from __future__ import annotations

import sys
from typing import Any


def without_tensors(values: Any) -> Any:
    """A tensor as a NumPy array of the same numbers, from whatever device; anything else as it is.

    Example:
        >>> without_tensors([1, 2])
        [1, 2]
    """
    torch = sys.modules.get("torch")  # where there is a tensor, PyTorch is loaded
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    # The one floating dtype of PyTorch that NumPy lacks.
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
