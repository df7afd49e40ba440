"""The study of per-pixel uncertainty runs on made-up images, finds what is there, and says what is missing."""

from __future__ import annotations

import importlib
import re
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        return importlib.import_module("dense_uncertainty")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright rectangles on black, each with a gradient."""
    generator = np.random.default_rng(0)
    images = np.zeros((650, 28, 28), dtype=np.uint8)
    for image in images:
        top, left = generator.integers(2, 10, 2)
        height, width = generator.integers(8, 16, 2)
        image[top : top + height, left : left + width] = generator.integers(60, 200) + 5 * np.arange(width)
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "fashion_mnist.npz", x_train=images[:550], x_test=images[550:])
    return folder


def run(study: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["dense_uncertainty.py", *map(str, arguments)])
    try:
        study.main()
    finally:
        torch.set_num_threads(threads)


def figures(page: str, row: str) -> list[float]:
    line = re.search(rf"^\| {re.escape(row)} \|(.*)\|$", page, flags=re.MULTILINE)
    assert line is not None, page
    return [float(cell) for cell in line[1].split("|")]


def test_the_page_shows_what_a_predicted_scale_is_worth(
    study: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study, monkeypatch, "--data", data, "--out", tmp_path, "--quick")
    page = (tmp_path / "dense_uncertainty.md").read_text(encoding="utf-8")
    predicted, alone = figures(page, "predicted"), figures(page, "one for all, trained by squared error")
    assert predicted[0] < alone[0] - 0.2
    assert predicted[3] < alone[3]
    assert predicted[5] == pytest.approx(0.9, abs=0.09)
    same_means = figures(page, "one for all, around the same means")
    assert predicted[4] == same_means[4]
    assert predicted[0] < same_means[0]
    assert_is_png(tmp_path / "dense_uncertainty.png")
    assert "](dense_uncertainty.png)" in page


def test_the_laplace_runs_as_well_and_a_seed_repeats(
    study: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = study.Size(train=40, held_out=20, test=20, epochs=1, channels=4, batch=20)
    monkeypatch.setattr(study, "QUICK", tiny)
    pages = []
    for seed in (1, 1, 2):
        run(study, monkeypatch, "--data", data, "--out", tmp_path, "--quick", "--head", "laplace", "--seed", seed)
        pages.append((tmp_path / "dense_uncertainty.md").read_text(encoding="utf-8"))
    row = "one for all, trained by absolute error"
    assert figures(pages[0], row) == figures(pages[1], row) != figures(pages[2], row)
    assert all(np.isfinite(figures(pages[0], "predicted")))


def test_noise_rises_from_corner_to_corner(study: ModuleType) -> None:
    clean = torch.full((400, 28, 28), 0.5)
    images = study.corrupt(clean, torch.Generator().manual_seed(0))
    assert float(images.strength.min()) >= study.WEAKEST - 1e-6
    assert float(images.strength.max()) <= study.STRONGEST + 1e-6
    corners = images.strength[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.amin(1).max()) < study.WEAKEST + 1e-5
    assert float(corners.amax(1).min()) > study.STRONGEST - 1e-5
    standardized = (images.noisy - clean) / images.strength
    assert float(standardized.std()) == pytest.approx(1.0, abs=0.01)


def test_missing_or_unfit_data_is_said(
    study: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"there is no .*fashion_mnist.npz. Pass --data"):
        run(study, monkeypatch, "--data", tmp_path, "--quick")
    with pytest.raises(SystemExit, match="holds 550 and 100 images; expected 6000 and 2000"):
        run(study, monkeypatch, "--data", data / "fashion_mnist.npz", "--out", tmp_path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(SystemExit, match="has no x_test, x_train"):
        run(study, monkeypatch, "--data", tmp_path / "other.npz", "--quick")
    assert not list(tmp_path.glob("*.md"))


def test_a_picture_is_the_png_of_its_pixels(study: ModuleType, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    study.write_png(tmp_path / "p.png", pixels)
    np.testing.assert_array_equal(assert_is_png(tmp_path / "p.png"), pixels)


def assert_is_png(path: Path) -> np.ndarray:
    """Reads a PNG back, chunk by chunk with its checksums, as the format's specification has it."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, {}
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", content[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, color, rest) == (8, 2, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)
