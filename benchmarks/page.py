"""What every page of results says of where it was measured."""

from __future__ import annotations

import platform

import sklearn
import torch


def versions() -> str:
    """The libraries whose versions matter, in a line."""
    return (
        f"scikit-learn {sklearn.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} thread(s), {platform.machine()}."
    )
