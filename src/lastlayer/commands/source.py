"""What a command is given: a table or images, read from where it lies."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars
from numpy.typing import NDArray

from lastlayer.checks import InputError, LastLayerWarning
from lastlayer.model import Model
from lastlayer.preprocessing import (
    ImageEncoder,
    holds_images,
    image_size_text,
    kind_of_encoder,
    read_images,
    read_table,
)

_HOLDS = {"table": "is a table", "images": "holds images"}
_LEARNED = {"table": "a table", "images": "images"}


@dataclass(frozen=True)
class Source:
    """A table, or images with what is known of each.

    Attributes:
        kind: ``"table"`` or ``"images"``.
        name: of the file or folder.
        columns: what can be named, a row for each input: of a table all of it.
        images: of images, their pixels; ``None`` of a table.
        part: ``"train"`` or ``"test"`` where it is one part of several.
        notes: what deserves a look, in sentences.
    """

    kind: str
    name: str
    columns: polars.DataFrame
    images: NDArray[Any] | None = None
    part: str | None = None
    notes: tuple[str, ...] = ()

    def inputs_without(self, columns: set[str | None]) -> Any:
        """What is learned from: the images, or the table without those columns."""
        if self.images is not None:
            return self.images
        return self.columns.select([name for name in self.columns.columns if name not in columns])

    @property
    def noun(self) -> str:
        """What there is of it."""
        return "row" if self.images is None else "image"

    @property
    def in_words(self) -> str:
        """What it is, on the screen: its name and how much there is of what."""
        count = len(self.columns) if self.images is None else len(self.images)
        counted = f"{count} {self.noun}" if count == 1 else f"{count} {self.noun}s"
        part = f", its {self.part} part" if self.part else ""
        size = "" if self.images is None else f" of {image_size_text(self.images)}"
        return f"{self.name}{part}, {counted}{size}"


def read_source(
    path: Path,
    *,
    part: str,
    model: Model | None = None,
    image_size: str | None = None,
    thousands: bool = False,
    of_tables: Mapping[str, Any] | None = None,
) -> Source:
    """The table or the images in a path.

    Args:
        part: ``"train"`` or ``"test"``, of images that have both.
        model: what they are for: images are read with as many channels as it learned from.
        image_size: ``"32"`` or ``"32x48"``, height and width that image files are resized to.
        thousands: see :func:`lastlayer.preprocessing.read_table`.
        of_tables: other options of the command that say something of tables alone.

    Raises:
        InputError: for an option that does not fit, or another kind of input than the model's.
    """
    # A name without an ending was meant for a folder.
    kind = "images" if holds_images(path) or not (path.suffix or path.exists()) else "table"
    learned = kind if model is None else kind_of_encoder(model.encoder)
    if kind != learned:
        raise InputError(f"{path} {_HOLDS[kind]}, and the model learned from {_LEARNED[learned]}. Give it such.")
    if kind == "table":
        if image_size is not None:
            raise InputError(f"--image-size is for images, and {path} is a table. Leave it out.")
        return Source(kind, path.name, read_table(path, thousands=thousands))
    for option, value in {"thousands": thousands, **(of_tables or {})}.items():
        if value:
            raise InputError(f"--{option} is for tables, and {path} holds images. Leave it out.")
    encoder = None if model is None else model.encoder
    channels = encoder.channels_ if isinstance(encoder, ImageEncoder) and encoder.channels_ in (1, 3) else None
    found = read_images(path, part=part, size=_size(image_size), channels=channels)
    return Source(kind, path.name, found.columns, found.images, found.part, found.notes)


def say(*notes: str) -> None:
    """Says what deserves a look."""
    for note in notes:
        warnings.warn(note, LastLayerWarning, stacklevel=3)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if match is None:
        raise InputError(f"--image-size is {text!r}; expected pixels such as 32, or height and width such as 32x48.")
    return int(match[1]), int(match[2] or match[1])
