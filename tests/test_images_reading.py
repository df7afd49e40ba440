"""Images from folders, files and archives: which are read, in what order, as what pixels, and what is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_cases import digits, write_folder
from lastlayer.checks import DataFileError, InputError
from lastlayer.preprocessing import holds_images, read_images, without_part


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images, target = digits()
    return write_folder(tmp_path / "digits", images[:12], target[:12] % 3)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_class_by_class_in_the_order_of_the_names(folder: Path) -> None:
    images, target = digits()
    found = read_images(folder)
    order = np.argsort(target[:12] % 3, kind="stable")
    np.testing.assert_array_equal(found.images, images[order])
    assert found.images.dtype == np.uint8
    assert found.columns["class"].to_list() == [str(value) for value in sorted(target[:12] % 3)]
    assert found.columns["file"].to_list() == [f"{target[number] % 3}/{number:04}.png" for number in order]
    assert (found.part, found.notes) == (None, ())


def test_parts_are_told_apart_and_a_class_may_be_called_train(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(folder, both / "train")
    write_folder(both / "TEST", digits()[0][:4], np.array([0, 1, 0, 1]))
    assert (len(read_images(both)), read_images(both).part) == (12, "train")
    assert (len(read_images(both, part="test")), read_images(both, part="test").part) == (4, "test")
    shutil.rmtree(both / "TEST")
    with pytest.raises(DataFileError, match="no test part, only train"):
        read_images(both, part="test")
    traffic = write_folder(tmp_path / "traffic", digits()[0][:4], np.array(["train", "car", "bus", "train"]))
    assert read_images(traffic).part is None
    assert read_images(traffic).columns["class"].to_list() == ["bus", "car", "train", "train"]


def test_images_without_classes_and_a_single_file(tmp_path: Path) -> None:
    images, _ = digits()
    for number in range(3):
        Image.fromarray(images[number]).save(tmp_path / f"{number}.PNG")
    found = read_images(tmp_path)
    assert found.columns.to_dict(as_series=False) == {"file": ["0.PNG", "1.PNG", "2.PNG"]}
    np.testing.assert_array_equal(found.images, images[:3])
    np.testing.assert_array_equal(read_images(tmp_path / "1.PNG").images, images[1:2])


def test_what_is_left_out_is_said(folder: Path) -> None:
    (folder / "0" / "readme.txt").write_text("no image")
    (folder / "0" / ".DS_Store").write_text("hidden")
    (folder / ".cache").mkdir()
    (folder / "empty").mkdir()
    Image.new("L", (8, 8)).save(folder / "loose.png")
    found = read_images(folder)
    assert len(found) == 12
    said = " ".join(found.notes)
    assert "1 file of other kinds" in said
    assert "loose.png" in said
    assert "no image lies in empty" in said
    assert len(found.notes) == 3


# --- pixels -----------------------------------------------------------------------------------------------------------


def one(tmp_path: Path, image: Image.Image, name: str = "image.png", **options: Any) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return read_images(tmp_path / name).images[0]


def test_every_mode_of_a_png_becomes_gray_or_color(tmp_path: Path) -> None:
    gray = np.array([[0, 51], [102, 255]], dtype=np.uint8)
    color = np.stack([gray, gray[::-1], 255 - gray], axis=-1)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(gray)), gray)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(color)), color)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(gray > 100)), 255 * (gray > 100))
    # 65535 is 255: 16 bits are 257 times 8.
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(gray.astype(np.uint16) * 257)), gray)
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    np.testing.assert_array_equal(one(tmp_path, palette), [[[255, 0, 0], [0, 0, 255]], [[0, 0, 255], [255, 0, 0]]])


def test_what_is_transparent_is_laid_over_white(tmp_path: Path) -> None:
    red = np.array([[[200, 0, 0, 0], [200, 0, 0, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(red)), [[[255, 255, 255], [200, 0, 0]]])
    half = np.array([[[0, 0], [0, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(half)), [[255, 0]])


def test_a_photograph_taken_on_its_side_is_turned_back(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    tags = image.getexif()
    tags[0x0112] = 6
    assert one(tmp_path, image, "photo.jpg", exif=tags).shape == (6, 4, 3)


def test_one_in_color_makes_all_of_them_so_and_channels_can_be_asked_for(folder: Path) -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 0] = 100
    Image.fromarray(image).save(folder / "1" / "red.png")
    found = read_images(folder)
    assert found.images.shape == (13, 8, 8, 3)
    gray = found.images[found.columns["file"].to_numpy() != "1/red.png"]
    assert (gray[..., 0] == gray[..., 2]).all()
    alone = read_images(folder, channels=1).images[found.columns["file"].to_list().index("1/red.png")]
    # ITU-R 601-2, the weights that Pillow states: 0.299 of red.
    assert alone.shape == (8, 8)
    assert (alone == 30).all()


def test_files_of_other_sizes_are_named_or_resized(folder: Path) -> None:
    Image.new("L", (20, 10), 77).save(folder / "1" / "wide.png")
    with pytest.raises(DataFileError, match=r"0000\.png has 8 × 8 pixels, .*wide\.png 10 × 20.*--image-size"):
        read_images(folder)
    found = read_images(folder, size=(6, 12))
    assert found.images.shape == (13, 6, 12)
    assert (found.images[found.columns["file"].to_list().index("1/wide.png")] == 77).all()


# --- archives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}_{}", "{1}_{0}"])
def test_archives_have_parts_by_either_convention(tmp_path: Path, name: str) -> None:
    images, target = digits()
    arrays = {
        name.format("x", "train"): images[:30], name.format("y", "train"): target[:30],
        name.format("x", "test"): images[30:40], name.format("y", "test"): target[30:40, None],
        name.format("x", "val"): images[40:45], name.format("y", "val"): target[40:45],
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    for part, rows in (("train", slice(0, 30)), ("test", slice(30, 40))):
        found = read_images(tmp_path / "a.npz", part=part)
        np.testing.assert_array_equal(found.images, images[rows])
        assert found.columns["y"].to_list() == target[rows].tolist()
        assert found.part == part


def test_an_archive_without_parts_has_every_array_as_long_as_a_column(tmp_path: Path) -> None:
    images, target = digits()
    np.savez(tmp_path / "a.npz", x=images[:9], y=target[:9], Y=np.eye(9, 2), names=np.array(["a", "b"]), scale=3.0)
    found = read_images(tmp_path / "a.npz")
    assert found.columns.columns == ["y", "Y_0", "Y_1"]
    assert found.part is None


def test_tables_in_archives_stay_tables(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", X=np.zeros((9, 3)), y=np.arange(9))
    np.savez_compressed(tmp_path / "images.npz", x=np.zeros((9, 8, 8)))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "t.csv").write_text("x\n1\n")
    told = {entry.name: holds_images(entry) for entry in sorted(tmp_path.iterdir())}
    assert told == {"damaged.npz": False, "images.npz": True, "t.csv": False, "table.npz": False}
    assert holds_images(tmp_path)
    assert not holds_images(tmp_path / "nowhere")


def test_the_part_in_a_name() -> None:
    names = {
        "y_train": "y",
        "y_test": "y",
        "train_labels": "labels",
        "X_Test": "X",
        "y": "y",
        "constrained": "constrained",
    }
    assert {name: without_part(name) for name in names} == names


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_named(folder: Path) -> None:
    victim = sorted((folder / "1").iterdir())[0]
    whole = victim.read_bytes()
    for damaged in (whole[:60], b"no image", b""):
        victim.write_bytes(damaged)
        with pytest.raises(DataFileError, match=victim.name):
            read_images(folder)


def test_places_without_images(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataFileError, match="holds no images"):
        read_images(tmp_path / "nothing")
    (tmp_path / "nothing" / "notes.txt").write_text("x")
    with pytest.raises(DataFileError, match="1 file of other kinds"):
        read_images(tmp_path / "nothing")
    with pytest.raises(DataFileError, match=r"Similar names there: digits"):
        read_images(tmp_path / "digit")
    with pytest.raises(InputError, match="part is 'val'"):
        read_images(folder, part="val")


def test_archives_that_hold_no_images_or_too_many(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros((3, 8, 8)), b=np.zeros((3, 8, 8)))
    with pytest.raises(DataFileError, match="'a' and 'b'"):
        read_images(path)
    np.savez(path, y=np.zeros(3))
    with pytest.raises(DataFileError, match="holds none"):
        read_images(path)
    np.savez(path, x=np.zeros((0, 8, 8)))
    with pytest.raises(DataFileError, match="holds no image"):
        read_images(path)
    np.savez(path, x=np.zeros((3, 8, 8)), y=np.array([{}, {}, {}], dtype=object))
    with pytest.raises(DataFileError, match="cannot read"):
        read_images(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFileError, match="Is the file complete"):
        read_images(path)
    with pytest.raises(DataFileError, match="not resized"):
        read_images(path, size=(8, 8))


def test_without_pillow_the_command_that_installs_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataFileError, match=r"pip install 'lastlayer\[images\]'"):
        read_images(folder)
