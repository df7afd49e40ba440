"""Images on the scale of a network's input: minus a mean, divided by a standard deviation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from lastlayer.checks import InputError, KindError, LastLayerWarning, ModelFolderError, ShapeError, check_choice
from lastlayer.preprocessing.arrays import without_tensors
from lastlayer.preprocessing.moments import Moments

if TYPE_CHECKING:
    import torch

    from lastlayer.preprocessing.modules import ElementwiseScaling

KINDS = ("channel", "channel_mean", "mean_image", "none")

# How much is in float64 at a time: 2 MiB, which stays in cache.
_BLOCK_VALUES = 2**18


class ImageScaler(TransformerMixin, BaseEstimator):
    """Learn a mean, and maybe a standard deviation, from images, and scale them and later ones by it.

    ====================  ===========================================  ============================  =========
    kind                  subtracts                                    divides by                    as in
    ====================  ===========================================  ============================  =========
    ``"channel"``         the mean of each channel                     its standard deviation        ResNet
    ``"channel_mean"``    the mean of each channel                     nothing                       VGG
    ``"mean_image"``      the mean of each pixel of each channel       nothing                       AlexNet
    ``"none"``            nothing                                      nothing
    ====================  ===========================================  ============================  =========

    Domain: arrays or tensors ``(n, height, width, channels)`` or ``(n, height, width)``, which is one channel; channels
    last. uint8 or any other integers or floats, finite; they are taken as they are, so 0 to 255 stays 0 to 255.

    Formula: ``(x − mean) / scale`` with ``mean = Σ x / N`` and ``scale² = Σ (x − mean)² / N`` over all N pixels of
    a channel in all images.

    Shapes: ``transform`` gives a float32 array ``(n, height, width, channels)``, C-contiguous, as ``inverse_transform``
    does. Memory of ``partial_fit``: one number per channel, or per pixel for the mean image, and a block of images.

    Numerics: float64 until the last step. How the images are split into batches changes only the rounding of float64.

    Special cases: a channel that is constant has scale 1. Only ``"mean_image"`` holds images to one size; of the other
    kinds each batch may have its own. An empty batch changes nothing. Bad input is refused whole; what was learned
    before stays.

    Raises:
        InputError: for an unknown kind, values that are not finite or overflow float32, no image at all; and for
            ``partial_fit`` after ``from_dict``, whose description holds no counts to go on from.
        ShapeError: for other axes, channels or sizes than expected.
        KindError: for something that is no array of numbers.
        NotFittedError: before ``fit``.

    Attributes:
        mean_: float64, ``(channels,)``, or ``(height, width, channels)`` for the mean image.
        scale_: float64, ``(channels,)``; 1 where nothing is divided by.

    Example:
        >>> images = np.array([[[0, 10]], [[20, 30]]], dtype=np.uint8)  # two of them, one pixel high, gray
        >>> scaler = ImageScaler("channel").fit(images)
        >>> scaler.mean_, scaler.scale_
        (array([15.]), array([11.18033989]))
        >>> scaler.transform(images).ravel().round(2).tolist()
        [-1.340000033378601, -0.44999998807907104, 0.44999998807907104, 1.340000033378601]
        >>> ImageScaler("mean_image").fit(images).mean_[:, :, 0]
        array([[10., 20.]])

    Reference: SPEC E2; A. Krizhevsky, I. Sutskever, G. E. Hinton (NeurIPS 2012); K. Simonyan, A. Zisserman (ICLR 2015).
    What the lecture calls ResNet's is how networks of that name are mostly trained since; the paper itself, K. He et
    al. (CVPR 2016), subtracts the mean image.
    """

    def __init__(self, kind: str = "channel") -> None:
        self.kind = kind

    # --- learning ---------------------------------------------------------------------------------------------------

    def fit(self, images: Any, y: Any = None) -> Self:
        """Learns from these images alone."""
        check_choice(self.kind, KINDS, what="kind")
        stack = _as_images(images)
        if not stack.size:
            raise InputError(f"there is no image to learn from: the images have shape {stack.shape}.")
        if stack.shape[1] in (1, 3) and stack.shape[3] > 4:
            message = f"images of shape {stack.shape} look as if the channels came first; they are expected last."
            warnings.warn(message, LastLayerWarning, stacklevel=2)
        return self._learn(stack, Moments("variance" if self.kind == "channel" else "none"))

    def partial_fit(self, images: Any, y: Any = None) -> Self:
        """Learns from these images as well."""
        if not hasattr(self, "moments_"):
            return self.fit(images) if _as_images(images).size else self
        return self._learn(self._expected(images), self._counts())

    def merge(self, other: ImageScaler) -> Self:
        """Learns from the images of another scaler as well: for several workers, each with some of the images."""
        check_is_fitted(self)
        check_is_fitted(other)
        if other.kind != self.kind:
            raise InputError(f"ImageScaler({self.kind!r}) cannot take in ImageScaler({other.kind!r}).")
        if other.mean_.shape != self.mean_.shape:
            raise ShapeError(f"the other's mean has shape {other.mean_.shape}, this one's {self.mean_.shape}.")
        return self._set(self._counts().merge(other._counts()), self.mean_.shape)

    def _learn(self, stack: NDArray[Any], moments: Moments) -> Self:
        shape = stack.shape[1:] if self.kind == "mean_image" else stack.shape[3:]
        if self.kind != "none":
            moments.partial_fit(stack.reshape(-1, math.prod(shape)))
        return self._set(moments, shape)

    def _set(self, moments: Moments, shape: tuple[int, ...]) -> Self:
        none = self.kind == "none"
        self.mean_ = np.zeros(shape) if none else moments.mean.reshape(shape)
        self.scale_ = np.ones(shape[-1])
        if self.kind == "channel":
            self.scale_ = np.where(moments.constant, 1.0, np.sqrt(moments.variance))
        self.moments_: Moments | None = moments
        return self

    def _counts(self) -> Moments:
        if self.moments_ is None:
            raise InputError(
                "this ImageScaler was read from a description, which holds no counts to go on from. Fix: call fit."
            )
        return self.moments_

    # --- scaling ----------------------------------------------------------------------------------------------------

    def transform(self, images: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        return _in_blocks(self._expected(images), lambda block: np.divide(block - self.mean_, self.scale_))

    def inverse_transform(self, images: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        return _in_blocks(self._expected(images), lambda block: block * self.scale_ + self.mean_)

    def to_module(self, *, dtype: torch.dtype | None = None) -> ElementwiseScaling:
        """The same as a module of tensors, ``(..., channels, height, width)``: channels first, as convolutions take.

        Its ``inverse`` goes back. The mean image's size is fixed; the other kinds take any. ``None`` is float32.
        """
        from lastlayer.preprocessing.modules import ElementwiseScaling  # only here, as it loads PyTorch

        check_is_fitted(self)
        mean = self.mean_ if self.kind == "mean_image" else self.mean_[None, None]
        shape = mean.shape if self.kind == "mean_image" else (None, None, len(self.scale_))
        return ElementwiseScaling(
            np.moveaxis(mean, -1, 0), self.scale_[:, None, None], shape=(shape[2], *shape[:2]), dtype=dtype
        )

    def _expected(self, images: Any) -> NDArray[Any]:
        stack = _as_images(images)
        channels = len(self.scale_)
        if stack.shape[3] != channels:
            raise ShapeError(
                f"the images have shape {stack.shape}, {stack.shape[3]} channels; ImageScaler learned from {channels}. "
                f"Expected (n, height, width, {channels}); a single image is images[None]."
            )
        if self.kind == "mean_image" and stack.shape[1:] != self.mean_.shape:
            raise ShapeError(
                f"the images have shape {stack.shape}, and the mean image has {self.mean_.shape}. Fix: resize them, or "
                f"use kind='channel', which takes any size."
            )
        return stack

    # --- what was learned ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All that scaling needs as plain, readable, JSON-able data."""
        check_is_fitted(self)
        return {"kind": self.kind, "mean": self.mean_.tolist(), "scale": self.scale_.tolist()}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> ImageScaler:
        """The scaler that ``to_dict`` described: it scales all images bit for bit alike.

        Raises ``ModelFolderError`` if the description is damaged.
        """
        try:
            scaler = cls(description["kind"])
            check_choice(scaler.kind, KINDS, what="kind")
            mean = np.array(description["mean"], dtype=np.float64)
            scale = np.array(description["scale"], dtype=np.float64)
            if mean.ndim != (3 if scaler.kind == "mean_image" else 1) or scale.shape != mean.shape[-1:]:
                raise ShapeError(f"the mean has shape {mean.shape}, the scale {scale.shape}")
            if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
                raise InputError("the mean and the scale should be finite, and the scale positive")
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFolderError(f"the description of an image scaler is damaged: {error!r}.") from error
        scaler.mean_, scaler.scale_, scaler.moments_ = mean, scale, None
        return scaler

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _as_images(images: Any) -> NDArray[Any]:
    """Images as an array ``(n, height, width, channels)`` of the dtype that they have; shared where that is possible.

    Raises:
        KindError: for something that is no array of real numbers.
        ShapeError: for other than 3 or 4 axes, or images without a pixel.
        InputError: for values that are not finite, naming the first image that holds one.
    """
    try:
        stack = np.asarray(without_tensors(images))
    except ValueError as error:
        raise ShapeError(f"the images are of different shapes: {error}. Fix: resize them to one.") from error
    if stack.dtype.kind not in "buif":
        raise KindError(f"images must be arrays of real numbers, and are {stack.dtype}.")
    if stack.ndim not in (3, 4) or not math.prod(stack.shape[1:]):
        raise ShapeError(
            f"the images have shape {stack.shape}; expected (n, height, width) or (n, height, width, channels), "
            f"a single image as images[None]."
        )
    # The least and the greatest are finite if all are, and take no memory.
    if stack.dtype.kind == "f" and stack.size and not (np.isfinite(stack.min()) and np.isfinite(stack.max())):
        first = int(np.argwhere(~np.isfinite(stack))[0][0])
        raise InputError(f"image {first} (counting from 0) holds a value that is NaN or infinite. Fix: leave it out.")
    return stack if stack.ndim == 4 else stack[..., None]


def _in_blocks(
    stack: NDArray[Any], function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float32]:
    """The function of some images after some, so that never all of them are in float64."""
    result = np.empty(stack.shape, dtype=np.float32)
    step = max(1, _BLOCK_VALUES // math.prod(stack.shape[1:]))
    try:
        with np.errstate(over="raise"):
            for start in range(0, len(stack), step):
                rows = slice(start, start + step)
                result[rows] = function(stack[rows].astype(np.float64))
    except FloatingPointError as error:
        raise InputError("the images hold values too large for float32. Fix: divide them by a constant.") from error
    return result
