"""Where the weights start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lastlayer.heads import Head
from lastlayer.networks import Linear


@torch.no_grad()
def start_as_constant(last: nn.Linear | Linear, head: Head, target: Tensor, sample_weight: Tensor) -> None:
    """Sets the last layer so that the network starts as the best constant predictor of its head.

    Its weights become zero and its bias the head's marginal optimum: the mean, the log-odds, the log class
    frequencies, for every member alike. The first steps are then not spent on finding the level of the target.
    """
    nn.init.zeros_(last.weight)
    last.bias.copy_(head.initial_bias(target, sample_weight))
