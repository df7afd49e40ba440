"""Images as the float array that a convolutional network reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from lastlayer.checks import InputError, KindError, LastLayerWarning, ModelFolderError, ShapeError
from lastlayer.preprocessing.image_scaling import ImageScaler

# Pixels are read as 0 to 1 up to here, and as 0 to 255 beyond.
_LARGEST_OF_UNIT = 1.5


class ImageEncoder(TransformerMixin, BaseEstimator):
    """Learn from images how to scale them, and scale them and later ones in the same way.

    Domain: arrays or tensors ``(n, height, width)`` or ``(n, height, width, channels)``, channels last, of integers,
    truth values or finite floats; or a list of single images of one size.

    Shapes: float32 ``(n, channels, height, width)``, as PyTorch's convolutions take them.

    Numerics: scaled in batches, so that the only copy of all images is the result. Whole numbers are taken as shares of
    255 (of 65535 for 16 bits), so that a network sees numbers of the order of 1 whatever the scaling.

    Special cases: in ``transform``, images whose values lie between 0 and 1 where training saw 0 to 255, or the other
    way round, get a ``LastLayerWarning``.

    Args:
        scaling: a kind of :class:`lastlayer.preprocessing.ImageScaler`: ``"channel"``, ``"channel_mean"``,
            ``"mean_image"`` or ``"none"``.

    Raises: ``InputError`` for no image, or values that are not finite; ``ShapeError`` in ``transform`` for images of
    another size or number of channels.

    >>> images = np.array([[[0, 255]], [[255, 0]]], dtype=np.uint8)  # two of them, one pixel high, gray
    >>> ImageEncoder().fit(images).transform(images).tolist()
    [[[[-1.0, 1.0]]], [[[1.0, -1.0]]]]
    """

    kind: ClassVar[str] = "images"

    def __init__(self, *, scaling: str = "channel") -> None:
        self.scaling = scaling

    def fit(self, X: Any, y: Any = None) -> ImageEncoder:
        images = as_images(X)
        scaler = ImageScaler(self.scaling).fit(images)
        self.scaler_ = scaler
        self.unit_ = _unit(images) if self.scaling != "channel" else 1.0
        self.largest_ = float(images.max())
        self._set_shape(*images.shape[1:])
        return self

    def _set_shape(self, height: int, width: int, channels: int) -> None:
        self.height_, self.width_, self.channels_ = int(height), int(width), int(channels)
        self.n_features_in_ = self.height_ * self.width_ * self.channels_

    def transform(self, X: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        images = as_images(X)
        expected = (self.height_, self.width_, self.channels_)
        if images.shape[1:] != expected:
            raise ShapeError(
                f"these are images of {image_text(*images.shape[1:])}, and the model learned from "
                f"{image_text(*expected)}. Give images like those; image files are resized by --image-size "
                f"(read_images(..., size=))."
            )
        self._warn_of_range(images)
        scaled: NDArray[np.float32] = self.scaler_.transform(images)
        if self.unit_ != 1.0:
            scaled /= np.float32(self.unit_)
        return np.ascontiguousarray(np.moveaxis(scaled, -1, 1))

    def _warn_of_range(self, images: NDArray[Any]) -> None:
        """Says so where pixels are shares, and those of training were not, or the other way round."""
        if not len(images):
            return
        largest = float(images.max())
        learned, now = (value > _LARGEST_OF_UNIT for value in (self.largest_, largest))
        if learned != now and largest > 0 and (now or images.dtype.kind == "f"):
            warnings.warn(
                f"these pixels go up to {largest:g}, and those learned from went up to {self.largest_:g}: are they on "
                f"another scale? Expected both 0 to 255, or both 0 to 1.",
                LastLayerWarning,
                stacklevel=3,
            )

    @property
    def numeric_width_(self) -> int:
        """How many of the first columns of the result are scaled numbers: pixels are no columns."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain, JSON-able data."""
        check_is_fitted(self)
        return {
            "height": self.height_,
            "width": self.width_,
            "channels": self.channels_,
            "unit": self.unit_,
            "largest": self.largest_,
            "scaling": self.scaler_.to_dict(),
        }

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> ImageEncoder:
        """The encoder that ``to_dict`` described.

        Raises ``ModelFolderError`` if the description is damaged.
        """
        try:
            scaler = ImageScaler.from_dict(description["scaling"])
            encoder = cls(scaling=scaler.kind)
            encoder.scaler_ = scaler
            encoder.unit_, encoder.largest_ = float(description["unit"]), float(description["largest"])
            encoder._set_shape(*(description[name] for name in ("height", "width", "channels")))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFolderError(f"the description of an image encoder is damaged: {error!r}.") from error
        return encoder


def is_images(inputs: Any) -> bool:
    """Whether inputs are an array or tensor of three axes or four, or a list of single images."""
    if isinstance(inputs, list | tuple):
        return len(inputs) > 0 and getattr(inputs[0], "ndim", None) in (2, 3)
    return getattr(inputs, "ndim", None) in (3, 4) and hasattr(inputs, "__array__")


def as_images(inputs: Any) -> NDArray[Any]:
    """Images as an array of four axes, channels last, at least one of them; no value is changed or copied.

    Raises:
        ShapeError: for other axes, or channels that come first.
        InputError: if there is no image, or no pixel.
        KindError: for something that is no number.
    """
    images = _stacked(inputs) if isinstance(inputs, list | tuple) else _array(inputs)
    if images.dtype.kind not in "buif":
        raise KindError(f"the images hold {images.dtype}; expected whole numbers, truth values or floats.")
    if images.ndim not in (3, 4):
        raise ShapeError(
            f"the images have shape {images.shape}; expected (n, height, width) or (n, height, width, channels). One "
            f"image alone is image[None]."
        )
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1] in (1, 3) and min(images.shape[2:]) > 4:
        raise ShapeError(
            f"the images have shape {images.shape}, as if their channels came first; expected (n, height, width, "
            f"channels). Move them last: images.transpose(0, 2, 3, 1), of tensors images.permute(0, 2, 3, 1)."
        )
    if 0 in images.shape:
        raise InputError(f"the images have shape {images.shape}: there is no pixel in them. Give at least one image.")
    return images.view(np.uint8) if images.dtype.kind == "b" else images


def _array(inputs: Any) -> NDArray[Any]:
    if hasattr(inputs, "detach"):
        inputs = inputs.detach().cpu()
        # NumPy has no bfloat16.
        inputs = (inputs.float() if "bfloat16" in str(inputs.dtype) else inputs).numpy()
    return np.asarray(inputs)


def _stacked(inputs: Sequence[Any]) -> NDArray[Any]:
    """Single images as one array."""
    arrays = [_array(image) for image in inputs]
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ShapeError(
                f"images differ in size: the first has shape {arrays[0].shape}, number {number} (counting from 0) "
                f"{array.shape}. Resize them first."
            )
    return np.stack(arrays)


def image_text(height: int, width: int, channels: int) -> str:
    """How images are named in messages: ``28 × 28 pixels, 1 channel``."""
    return f"{height} × {width} pixels, {channels} {'channel' if channels == 1 else 'channels'}"


def image_size_text(images: NDArray[Any]) -> str:
    """The same of an array of images of three axes or four."""
    return image_text(*images.shape[1:], *((1,) if images.ndim == 3 else ()))


def _unit(images: NDArray[Any]) -> float:
    """What one is for the values of whole numbers."""
    if images.dtype.kind == "f" or images.max() <= 1:
        return 1.0
    return 255.0 if images.max() <= 255 else 65535.0
