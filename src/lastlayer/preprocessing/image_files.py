"""Image files into one array of pixels, by Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lastlayer.checks import DataFileError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg")
_INSTALL = "pip install 'lastlayer[images]'"
# Of EXIF: how a camera was held, and the values that exchange height and width.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")


def is_image_file(path: Path) -> bool:
    """Whether a name ends as that of an image file does."""
    return path.name.lower().endswith(ENDINGS)


def decode_files(
    files: Sequence[Path], *, size: tuple[int, int] | None = None, channels: int | None = None
) -> NDArray[np.uint8]:
    """The pixels of image files, shape (n, height, width) if all are gray, else (n, height, width, 3).

    See :func:`lastlayer.preprocessing.read_images` for what becomes of each kind of file.

    Args:
        files: at least one.
        size: height and width to resize to; ``None`` where all are one size.
        channels: 1 or 3, whatever the files are; ``None`` to go by them.

    Raises:
        DataFileError: if Pillow is missing, files differ in size, or one cannot be decoded; naming it.
    """
    _check_pillow()
    headers = [_decoded(file, _header) for file in files]
    if channels is None:
        channels = 1 if all(gray for _, gray in headers) else 3
    if size is None:
        size = _one_size(files, [own for own, _ in headers])
    pixels = np.empty((len(files), *size, *(() if channels == 1 else (channels,))), dtype=np.uint8)
    for number, file in enumerate(files):
        pixels[number] = _decoded(file, _pixels, size, channels)
    return pixels


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise DataFileError(f"image files are read by Pillow, which is not installed. Install it: {_INSTALL}") from None


def _decoded(file: Path, ask: Any, *arguments: Any) -> Any:
    """What a function makes of an opened file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow's own limit is twice as high, and an error.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                return ask(image, *arguments)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (
            "it is no PNG or JPEG, whatever its name says" if isinstance(error, Image.UnidentifiedImageError) else error
        )
        raise DataFileError(f"cannot read {file}: {reason}. Replace it, or move it away.") from None


def _header(image: Image) -> tuple[tuple[int, int], bool]:
    """Height and width as it is to be seen, and whether it is gray."""
    height, width = image.height, image.width
    if image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
        height, width = width, height
    return (height, width), image.mode in _GRAY


def _one_size(files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise DataFileError(
                f"images differ in size: {files[0]} has {_in_words(sizes[0])} pixels, {file} {_in_words(size)}. Resize "
                f"them while they are read, with --image-size 32 (size=(32, 32)) for example."
            )
    return sizes[0]


def _in_words(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _pixels(image: Image, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    from PIL import Image as pillow
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 65535 becomes 255. Pillow's own conversion would cut off at 255.
        image = pillow.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
    return np.asarray(image)
