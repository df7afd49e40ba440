"""Images moved a little at random while training: more of them than there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.checks import InputError


class RandomShift(nn.Module):
    """Moves every image up or down and left or right by up to so many pixels while training, each on its own.

    What comes in at the border is 0: what scaling has made the mean, and what the padding of a convolution looks like.
    All shifts from ``-pixels`` to ``pixels`` are as likely, in both directions.

    Shapes: ``(n, channels, height, width)``, kept.

    Special cases: nothing is moved in evaluation mode, or with ``pixels=0``. The same random state moves alike.

    Raises:
        InputError: if ``pixels`` is no whole number of 0 or more.

    Example:
        >>> RandomShift(1).eval()(torch.eye(3)[None, None])[0, 0]
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])

    Reference: the translations among the distortions of Y. LeCun et al., Proceedings of the IEEE 86 (1998), III-A.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        if isinstance(pixels, bool) or int(pixels) != pixels or pixels < 0:
            raise InputError(f"pixels is {pixels!r}; expected a whole number of 0 or more.")
        self.pixels = int(pixels)

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.pixels == 0:
            return images
        count, channels, height, width = images.shape
        padded = F.pad(images, [self.pixels] * 4)
        down, right = torch.randint(2 * self.pixels + 1, (2, count, 1), device=images.device)
        rows = (down + torch.arange(height, device=images.device)).view(count, 1, height, 1)
        columns = (right + torch.arange(width, device=images.device)).view(count, 1, 1, width)
        image = torch.arange(count, device=images.device).view(count, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
        return padded[image, channel, rows, columns]

    def extra_repr(self) -> str:
        return f"pixels={self.pixels}"
