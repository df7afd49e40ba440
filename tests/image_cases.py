"""Small images that tests learn from: scikit-learn's digits, as they are and moved about on a larger ground."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


@cache
def digits() -> Images:
    """1797 digits, 8 × 8, 0 to 240, and which they are."""
    data = load_digits()
    return (data.images * 15).astype(np.uint8), data.target.astype(np.int64)


@cache
def moved_digits(classes: int = 4) -> Images:
    """The first of those classes, each at a random place on 16 × 16 pixels: hard for a linear model."""
    images, target = digits()
    images, target = images[target < classes], target[target < classes]
    random = np.random.default_rng(0)
    ground = np.zeros((len(images), 16, 16), dtype=np.uint8)
    for image, place, (down, right) in zip(images, ground, random.integers(0, 9, (len(images), 2)), strict=True):
        place[down : down + 8, right : right + 8] = image
    return ground, target


def write_folder(folder: Path, images: NDArray[Any], classes: NDArray[Any], *, ending: str = "png") -> Path:
    """The images as files, in one folder for each class, numbered in their order."""
    for number, (image, name) in enumerate(zip(images, classes, strict=True)):
        (folder / str(name)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(name) / f"{number:04}.{ending}")
    return folder
