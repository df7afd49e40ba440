"""Small pictures for the pages of the studies: arrays as tiles with headings, as a PNG, by the standard library."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# A sign, and five rows of three bits.
_FONT = """
a25755 b65656 c34443 d65556 e74647 f74644 g34553 h55755 i72227 j11152 k55655 l44447 m57755 n65555 o25552 p65644 q25563
r65655 s34216 t72222 u55557 v55552 w55775 x55255 y55222 z71247 075557 126227 271747 371717 455711 574717 674757 771122
875757 975717 .00002 -00700
"""
_SIGNS = {entry[0]: entry[1:] for entry in _FONT.split()} | {" ": "00000"}


def gray(values: NDArray[np.floating], high: float = 1.0) -> Pixels:
    """Black at 0, white from ``high`` on."""
    return np.repeat(_bytes(values / high)[..., None], 3, axis=-1)


def heat(values: NDArray[np.floating], high: float = 1.0) -> Pixels:
    """Black at 0, then red, yellow, and white from ``high`` on."""
    return np.stack([_bytes(3 * values / high - start) for start in range(3)], axis=-1)


def text(line: str, size: int = 2) -> Pixels:
    """A line of text, white on black."""
    bits = [[[int(bit) for bit in f"{int(row):03b}0"] for row in _SIGNS[sign]] for sign in line.lower()]
    mask = np.concatenate([np.array(sign, dtype=np.uint8) for sign in bits], axis=1)
    return _larger(np.repeat(255 * mask[..., None], 3, axis=-1), size)


def bar(high: float, width: int, height: int) -> Pixels:
    """The colors of ``heat`` from 0 to ``high``, with both figures beside them."""
    colors = np.repeat(heat(np.linspace(0.0, 1.0, width))[None], height, axis=0)
    return beside([text("0"), colors, text(f"{high:.2f}")], gap=8)


def tiles(columns: dict[str, list[Pixels]], *, size: int = 3, gap: int = 6) -> Pixels:
    """Pictures in columns under their headings, each pixel a square of ``size``."""
    drawn = [
        below([text(heading), *(_larger(picture, size) for picture in pictures)], gap=gap)
        for heading, pictures in columns.items()
    ]
    return beside(drawn, gap=gap)


def below(parts: list[Pixels], *, gap: int) -> Pixels:
    """One under the other, from the left."""
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, gap), (0, width - part.shape[1]), (0, 0))) for part in parts]
    return np.concatenate(padded)[:-gap]


def beside(parts: list[Pixels], *, gap: int) -> Pixels:
    """One beside the other, from the top."""
    return below([part.swapaxes(0, 1) for part in parts], gap=gap).swapaxes(0, 1)


def framed(picture: Pixels, margin: int = 12) -> Pixels:
    """With a black margin all around."""
    return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)))


def write_png(path: Path, picture: Pixels) -> None:
    """Writes an array of shape (height, width, 3) as a PNG file."""
    height, width, _ = picture.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    # Eight bits of red, green and blue; every row begins with its filter, 0 for none.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = np.pad(picture.reshape(height, -1), ((0, 0), (1, 0))).tobytes()
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def _bytes(values: NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(255 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
    return pixels


def _larger(picture: Pixels, size: int) -> Pixels:
    return picture.repeat(size, axis=0).repeat(size, axis=1)
