"""A table or images in the form in which a user's own network and loss take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lastlayer.checks import InputError
from lastlayer.commands.made_up import make_up_inputs, output_of, takes
from lastlayer.commands.source import Source
from lastlayer.commands.task import TakenApart
from lastlayer.heads import choose_head
from lastlayer.heads.targets import present_values
from lastlayer.preprocessing import ImageEncoder, TableEncoder, describe_columns
from lastlayer.preprocessing.frames import as_frame, number_cells
from lastlayer.preprocessing.target_coding import ClassCoding, LabelCoding, QuantityCoding

# Rows that a network is tried on.
_TRIED = 4
# Numbers of more values than this are no classes.
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Coded:
    """A target as a tensor.

    Attributes:
        target: in a form that the loss takes; ``None`` if there is no loss.
        classes: whether it is classes or labels.
        words: what it was made into, as the end of a sentence.
    """

    target: Tensor | None
    classes: bool
    words: str


def features_for(network: nn.Module, source: Source, inputs: Any, path: Path) -> tuple[Tensor, str]:
    """The inputs in the first form that the network takes, and which that is.

    A table's columns as they are, if all are numbers and none is missing; otherwise, or if the network takes another
    width, encoded as ``lastlayer fit`` encodes them. Images as shares of 255, channels first; or flat.

    Raises:
        InputError: if the network takes another width, and works otherwise.
    """
    forms = list(_forms(source, inputs))
    for features, words in forms:
        if output_of(network, features[:_TRIED]) is not None:
            return features, words
    made = make_up_inputs(network)
    if made is not None and made.fits:
        widths = " or ".join(f"{tuple(features.shape[1:])} ({words})" for features, words in forms)
        raise InputError(
            f"{path}: the network takes rows of shape {tuple(made.features.shape[1:])}, and {source.name} has rows of "
            f"shape {widths}. Leave columns out of the table, or write a function that returns (network, loss, "
            f"(features, target)), and name that."
        )
    # It takes nothing at all: what is wrong with it will be said.
    return forms[0]


def _forms(source: Source, inputs: Any) -> Iterator[tuple[Tensor, str]]:
    if source.images is not None:
        images = torch.from_numpy(ImageEncoder(scaling="none").fit_transform(inputs))
        yield images, "pixels as shares of 255"
        yield images.flatten(1), "pixels as shares of 255, flat"
        return
    frame = as_frame(inputs)
    columns = describe_columns(frame)
    if all(column.kind in ("numeric", "boolean", "constant", "identifier") for column in columns):
        numbers = [name for name, dtype in frame.schema.items() if dtype.is_numeric() or str(dtype) == "Boolean"]
        cells = number_cells(frame, numbers)
        if len(numbers) == len(columns) and np.isfinite(cells).all():
            yield torch.from_numpy(cells.astype(np.float32)), "columns as they are in the table"
    yield torch.from_numpy(TableEncoder().fit_transform(frame)), "columns encoded as lastlayer fit does"


def target_for(network: nn.Module, loss: Any, features: Tensor, task: TakenApart) -> Coded:
    """The target in the first form that the loss takes beside the network's output.

    Classes as indices, two of them as 0 and 1, numbers as they are, classes one-hot; labels as 0 and 1. What has as
    many numbers as the output gets its shape.

    Special cases: if the loss takes none of them it is the first; why it takes none is for the doctor to say.
    """
    forms = list(_targets(task))
    if loss is None:
        return Coded(None, choose_head(task.target, name=task.name).head.over_classes, "")
    rows = _tried_rows(network, features)
    raw = output_of(network, features[:rows])
    for coded in forms:
        assert coded.target is not None
        for shaped in _shapes(coded.target, raw):
            if raw is None or _is_for(loss, raw, shaped[:rows]):
                return Coded(shaped, coded.classes, f"; target {coded.words}")
    first = forms[0]
    return Coded(first.target, first.classes, f"; target {first.words}")


def _is_for(loss: Any, raw: Tensor, target: Tensor) -> bool:
    """Whether the loss takes it; one that takes an index for a number as well is no loss of indices."""
    index = not target.is_floating_point()
    return takes(loss, raw, target) and not (index and takes(loss, raw, target.float()))


def _tried_rows(network: nn.Module, features: Tensor) -> int:
    """So few rows that it takes no time, and not as many as there are outputs, which would broadcast."""
    raw = output_of(network, features[:_TRIED])
    return _TRIED if raw is None or _TRIED not in raw.shape[1:] else max(raw.shape[1:]) + 1


def _targets(task: TakenApart) -> Iterator[Coded]:
    if task.targets.width > 1:
        cells = task.targets.filter(task.present).to_numpy()
        labels = LabelCoding(tuple(task.targets.columns)).encode(cells)
        yield Coded(torch.from_numpy(labels), True, "labels as 0 and 1")
        return
    values = present_values(task.target)[0]
    count = len(np.unique(values))
    number = values.dtype.kind in "biuf"
    if not number or 2 <= count <= _MOST_CLASSES:
        index = torch.from_numpy(ClassCoding.learn(values).encode(values))
        yield Coded(index, True, f"{count} classes as indices")
        if count == 2:
            yield Coded(index.float(), True, "two classes as 0 and 1")
    if number:
        yield Coded(torch.from_numpy(QuantityCoding().encode(values)), False, "as it is in the table")
    if count <= _MOST_CLASSES:
        yield Coded(nn.functional.one_hot(index, count).float(), True, f"{count} classes one-hot")


def _shapes(target: Tensor, raw: Tensor | None) -> Iterator[Tensor]:
    """The target in the shape of the output, where it has as many numbers, and as it is."""
    if raw is not None and target.is_floating_point() and raw.numel() == target[: len(raw)].numel():
        yield target.reshape(len(target), *raw.shape[1:])
    yield target
