"""The kinds of input, and the one place where an encoder is chosen: a table has columns, images have pixels.

Whatever the kind, the way is the same: an encoder learns from inputs, and turns them into features.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lastlayer.checks import ModelFolderError
from lastlayer.preprocessing.frames import Frame
from lastlayer.preprocessing.image_encoding import ImageEncoder
from lastlayer.preprocessing.tables import TableEncoder

#: A table, or images as an array. Both have a length, and rows by ``inputs[index]``.
Inputs: TypeAlias = Frame | NDArray[Any]


class Encoder(Protocol):
    """What turns inputs into features and can be written down; ``n_features_in_`` are an input's columns or values."""

    n_features_in_: int

    def fit(self, X: Any, y: Any = None) -> Encoder:
        """Learns how to encode such inputs."""

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features, the first axis that of the inputs."""

    @property
    def numeric_width_(self) -> int:
        """How many of the first columns of a table's features are scaled numbers."""

    def to_dict(self) -> dict[str, Any]:
        """What was learned, as plain JSON."""

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Encoder:
        """The encoder that ``to_dict`` described."""


#: By the kind of input.
ENCODERS: dict[str, type[Encoder]] = {"table": TableEncoder, "images": ImageEncoder}


def kind_of(inputs: Inputs) -> str:
    """The kind of inputs that are checked already, a key of ``ENCODERS``."""
    return "images" if isinstance(inputs, np.ndarray) else "table"


def new_encoder(inputs: Inputs, *, keep: Collection[str], max_categories: int, image_scaling: str) -> Encoder:
    """The encoder for such inputs, which has yet to learn."""
    if kind_of(inputs) == "images":
        return ImageEncoder(scaling=image_scaling)
    return TableEncoder(keep=keep, max_categories=max_categories)


def kind_of_encoder(encoder: Encoder) -> str:
    """The kind of inputs that it encodes."""
    return next(kind for kind, own in ENCODERS.items() if isinstance(encoder, own))


def encoder_to_dict(encoder: Encoder) -> dict[str, Any]:
    """What was learned, with the kind of input."""
    return {"kind": kind_of_encoder(encoder), **encoder.to_dict()}


def encoder_from_dict(description: dict[str, Any]) -> Encoder:
    """The encoder that :func:`encoder_to_dict` described.

    Raises:
        ModelFolderError: if the description is damaged.
    """
    kind = description.get("kind")
    if kind not in ENCODERS:
        raise ModelFolderError(f"there is no kind of input {kind!r}; expected one of {', '.join(ENCODERS)}.")
    return ENCODERS[kind].from_dict(description)
