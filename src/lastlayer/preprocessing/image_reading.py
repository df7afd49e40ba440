"""Reading images: a folder of PNG and JPEG files, one such file, or a NumPy archive.

A folder has one subfolder for each class, or ``train`` and ``test`` with those in them. An archive has one array of
images and arrays as long beside it, or the same twice, with ``train`` and ``test`` in their names.
"""

from __future__ import annotations

import difflib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from lastlayer.checks import DataFileError, check_choice
from lastlayer.preprocessing.image_files import ENDINGS, decode_files, is_image_file
from lastlayer.preprocessing.reading import READABLE

PARTS = ("train", "test")
#: What the columns of a folder are called.
FILE, CLASS = "file", "class"
# How archives and folders call a part: a suffix or a prefix of a name, or the whole of it.
_SPELLINGS = {"train": "train", "training": "train", "test": "test", "val": "other", "valid": "other",
              "validation": "other"}  # fmt: skip
_SUFFIX = re.compile(rf"^(.+)_({'|'.join(_SPELLINGS)})$", re.IGNORECASE)
_PREFIX = re.compile(rf"^({'|'.join(_SPELLINGS)})_(.+)$", re.IGNORECASE)


@dataclass(frozen=True)
class ImageSet:
    """Images, and what is known of each.

    Attributes:
        images: shape (n, height, width), or (n, height, width, channels).
        columns: one row for each image, such as its class, its file, or the other arrays of its archive.
        part: ``"train"`` or ``"test"`` where there is more than this one part; ``None`` where it is all there is.
        notes: what was left out, in sentences.
    """

    images: NDArray[Any]
    columns: polars.DataFrame
    part: str | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def holds_images(path: str | os.PathLike[str]) -> bool:
    """Whether a path is to be read as images: a folder, an image file, or an archive with an array of images.

    An archive that is damaged is for :func:`read_table` to complain of, and so is a folder with the name of a table.
    """
    path = Path(path)
    if path.is_dir():
        return not path.name.lower().endswith(READABLE)
    if is_image_file(path):
        return True
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        return any(map(_is_images, _headers(path).values()))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return False


def read_images(
    path: str | os.PathLike[str],
    *,
    part: str = "train",
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> ImageSet:
    """The images in a folder, a file or an archive, with what is known of each.

    Folders: ``folder/<class>/*.png``, or ``folder/train/<class>`` and ``folder/test/<class>``; ``.png``, ``.jpg`` and
    ``.jpeg``. The columns are ``file``, the path in the folder, and ``class``. Files that lie in the folder itself have
    no class, and are read only where there are no subfolders of images.
    Files: gray if all of them are, else red, green and blue; a palette is looked up, what is transparent is laid over
    white, a turned photograph is turned back, 16 bits become 8. All are one size, or are resized to ``size``.
    Archives: the array of three axes or four; the columns are the arrays as long, named as in :func:`read_table`, with
    ``y_train`` and ``train_y`` called ``y``.

    Args:
        part: ``"train"`` or ``"test"``, of what has both.
        size: height and width to resize files to; ``None`` to leave them as they are.
        channels: 1 or 3, whatever the files are; ``None`` to go by them.

    Raises:
        DataFileError: if there are no images, or they differ in size, or one of them cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/digits.npz", x_train=np.zeros((5, 8, 8)), y_train=[0, 1, 2, 3, 4])
        ...     digits = read_images(f"{folder}/digits.npz")
        >>> digits.images.shape, digits.columns.columns
        ((5, 8, 8), ['y'])
    """
    check_choice(part, PARTS, what="part")
    path = Path(path)
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=3)
        hint = f" Similar names there: {', '.join(near)}." if near else ""
        raise DataFileError(f"no such file or folder: {path}.{hint}")
    if path.suffix.lower() == ".npz":
        if size is not None:
            raise DataFileError(f"{path} is an archive; its images are not resized. Resize them before you save it.")
        return _read_archive(path, part)
    if path.is_dir():
        return _read_folder(path, part, size, channels)
    if not is_image_file(path):
        raise DataFileError(f"{path} holds no images: its name should end in {', '.join(ENDINGS)} or .npz.")
    return ImageSet(decode_files([path], size=size, channels=channels), polars.DataFrame({FILE: [path.name]}))


def without_part(name: str) -> str:
    """A name as it is in either part.

    >>> without_part("y_train"), without_part("test_labels"), without_part("y")
    ('y', 'labels', 'y')
    """
    return _split_name(name)[0]


def _split_name(name: str) -> tuple[str, str | None]:
    """The name without its part, and the part."""
    if match := _SUFFIX.match(name):
        return match[1], _SPELLINGS[match[2].lower()]
    if match := _PREFIX.match(name):
        return match[2], _SPELLINGS[match[1].lower()]
    return name, None


def _check_part(path: Path, part: str, there: Sequence[str]) -> None:
    if part not in there:
        raise DataFileError(
            f"{path} has no {part} part, only {' and '.join(there)}. Name a file or folder that holds those images and "
            f"no others."
        )


# --- folders ----------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path, part: str, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    parts = {_SPELLINGS[entry.name.lower()]: entry for entry in _folders(folder) if entry.name.lower() in _SPELLINGS}
    of_parts = "train" in parts and len(parts) == len(_folders(folder))
    if of_parts:
        _check_part(folder, part, [name for name in parts if name in PARTS])
    place = parts[part] if of_parts else folder
    files, classes, notes = _files(place)
    images = decode_files(files, size=size, channels=channels)
    columns: dict[str, list[str]] = {FILE: [file.relative_to(place).as_posix() for file in files]}
    if classes:
        columns[CLASS] = classes
    return ImageSet(images, polars.DataFrame(columns), part if of_parts else None, tuple(notes))


def _files(place: Path) -> tuple[list[Path], list[str], list[str]]:
    """The image files of a folder by name, the class of each (none where there are no classes), and notes."""
    loose, others = _images_in(place)
    found = {entry.name: _images_in(entry) for entry in _folders(place)}
    files = [file for inside, _ in found.values() for file in inside]
    notes = []
    if files:
        classes = [name for name, (inside, _) in found.items() for _ in inside]
        empty = [name for name, (inside, _) in found.items() if not inside]
        others += sum(count for _, count in found.values())
        if empty:
            notes.append(f"no image lies in {', '.join(empty[:5])}: left out.")
        if loose:
            notes.append(f"{_files_in_words(len(loose))} in no folder of a class, such as {loose[0].name}: left out.")
    else:
        files, classes = loose, []
    if not files:
        inside = f"{_files_in_words(others)} of other kinds" if others else "nothing that could be one"
        raise DataFileError(
            f"{place} holds no images: {inside}. Expected one subfolder for each class, with {', '.join(ENDINGS)} "
            f"files in it."
        )
    if others:
        notes.append(f"{_files_in_words(others)} of other kinds than {', '.join(ENDINGS)} left out.")
    return files, classes, notes


def _files_in_words(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images_in(place: Path) -> tuple[list[Path], int]:
    """The image files in a folder, and how many other files there are; hidden ones are passed over."""
    files = sorted(entry for entry in place.iterdir() if entry.is_file() and not entry.name.startswith("."))
    images = [file for file in files if is_image_file(file)]
    return images, len(files) - len(images)


# --- archives ---------------------------------------------------------------------------------------------------------

Header = tuple[tuple[int, ...], np.dtype[Any]]


def _headers(path: Path) -> dict[str, Header]:
    """Shape and type of every array, without reading it."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                major, _ = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            headers[member.removesuffix(".npy")] = (shape, dtype)
    return headers


def _is_images(header: Header) -> bool:
    shape, dtype = header
    return len(shape) in (3, 4) and dtype.kind in "buif"


def _read_archive(path: Path, part: str) -> ImageSet:
    try:
        headers = _headers(path)
        parts = _parts(headers)
        if "train" in parts or "test" in parts:
            _check_part(path, part, [name for name in parts if name in PARTS])
            chosen, of_parts = parts[part], True
        else:
            chosen, of_parts = {name: name for name in headers}, False
        images = _one_of_images(path, chosen, headers)
        count = headers[chosen[images]][0][0]
        # A scalar has no length.
        alike = [name for name, full in chosen.items() if headers[full][0][:1] == (count,) and name != images]
        with np.load(path, allow_pickle=False) as archive:
            pixels = archive[chosen[images]]
            columns = [column for name in alike for column in _columns(name, archive[chosen[name]])]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(f"cannot read {path} as a NumPy archive: {error}. Is the file complete?") from None
    if count == 0:
        raise DataFileError(f"{path}: {chosen[images]!r} holds no image.")
    return ImageSet(pixels, polars.DataFrame(columns), part if of_parts else None)


def _parts(headers: Mapping[str, Header]) -> dict[str, dict[str, str]]:
    """Of every part that has images, its arrays: the name without the part, and the full one."""
    parts: dict[str, dict[str, str]] = {}
    for full in headers:
        name, part = _split_name(full)
        if part is not None:
            parts.setdefault(part, {})[name] = full
    return {part: names for part, names in parts.items() if any(_is_images(headers[full]) for full in names.values())}


def _one_of_images(path: Path, chosen: Mapping[str, str], headers: Mapping[str, Header]) -> str:
    found = [name for name, full in chosen.items() if _is_images(headers[full])]
    if len(found) != 1:
        which = " and ".join(repr(chosen[name]) for name in found) or "none"
        raise DataFileError(
            f"{path} should hold one array of images, of shape (n, height, width) or (n, height, width, channels), and "
            f"holds {which}."
        )
    return found[0]


def _columns(name: str, array: NDArray[Any]) -> list[polars.Series]:
    """An array as columns; what is no column is none."""
    if array.ndim == 2 and array.shape[1] > 1:
        return [polars.Series(f"{name}_{index}", column) for index, column in enumerate(array.T)]
    return [polars.Series(name, array.reshape(len(array)))] if array.ndim in (1, 2) else []
