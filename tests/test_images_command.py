"""Images at the command line: from a folder or an archive to a model folder, predictions and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from PIL import Image

import lastlayer
from command_line import PENGUINS, SHORT, contents, done, refused
from image_cases import digits, write_folder
from lastlayer.training import loop

COUNT, HELD = 160, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits as a folder, as an archive in parts, and as one without."""
    place = tmp_path_factory.mktemp("images")
    images, target = digits()
    for part, rows in (("train", slice(0, COUNT)), ("test", slice(COUNT, COUNT + HELD))):
        write_folder(place / "digits" / part, images[rows], target[rows])
    order = read_order(target[:COUNT])
    test_order = COUNT + read_order(target[COUNT : COUNT + HELD])
    np.savez(
        place / "digits.npz",
        x_train=images[order], y_train=target[order].astype(str),
        x_test=images[test_order], y_test=target[test_order].astype(str),
    )  # fmt: skip
    np.savez(
        place / "plain.npz",
        x=images[order], y=target[order].astype(str), number=target[order], half=target[order] / 2 + 0.1, tag=order,
        weight=np.ones(COUNT),
    )  # fmt: skip
    return place


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    done("fit", data / "digits", "-o", data / "model", *SHORT)
    return data / "model"


def read_order(target: np.ndarray) -> np.ndarray:
    """In which order a folder of them is read: by class, then by name."""
    return np.argsort(target, kind="stable")


# --- one way, whatever the images lie in ------------------------------------------------------------------------------


def test_a_folder_an_archive_and_an_array_give_the_same_predictions(data: Path, model: Path, tmp_path: Path) -> None:
    from_folder = done("predict", model, data / "digits")
    rows = polars.read_csv(from_folder.out.encode())
    assert rows.columns == ["file", "prediction", *(f"probability_{digit}" for digit in range(10))]
    assert rows.height == HELD
    assert "the test part is predicted" in from_folder.message
    assert rows["file"][0].startswith("0/")
    probability = rows.select("^probability_.*$").to_numpy()

    done("fit", data / "digits.npz", "--target", "y_train", "-o", tmp_path / "m", *SHORT)
    from_archive = polars.read_csv(done("predict", tmp_path / "m", data / "digits.npz").out.encode())
    assert "file" not in from_archive.columns
    np.testing.assert_array_equal(from_archive.select("^probability_.*$").to_numpy(), probability)
    crossed = polars.read_csv(done("predict", model, data / "digits.npz").out.encode())
    np.testing.assert_array_equal(crossed.select("^probability_.*$").to_numpy(), probability)

    with np.load(data / "digits.npz") as archive:
        fitted = lastlayer.Classifier(max_epochs=2).fit(archive["x_train"], archive["y_train"])
        np.testing.assert_array_equal(fitted.predict_proba(archive["x_test"]), probability)
        np.testing.assert_array_equal(lastlayer.load(model).predict_proba(archive["x_test"]), probability)


def test_fit_learns_the_training_part_and_evaluate_judges_the_test_part(data: Path, model: Path) -> None:
    record = done("show", model, "--json").json["record"]
    assert (record["choice"]["part"], record["choice"]["rows"], record["choice"]["kind"]) == ("train", COUNT, "images")
    screen = " ".join(done("show", model).out.split())
    assert f"digits, its train part, {COUNT} images of 8 × 8 pixels, 1 channel" in screen
    assert "convolutional, relu" in screen
    assert "each channel to mean 0 and standard deviation 1" in screen
    assert str(record["parameters"]) in screen
    judged = done("evaluate", model, data / "digits")
    assert f"on {HELD} images of digits, its test part" in judged.out
    result = done("evaluate", model, data / "digits", "--json").json
    assert (result["rows"], result["part"]) == (HELD, "test")
    rows = polars.read_csv(done("predict", model, data / "digits").out.encode(), schema_overrides={"prediction": str})
    correct = np.mean([row["file"].split("/")[0] == row["prediction"] for row in rows.to_dicts()])
    assert result["figures"]["network"]["accuracy"] == pytest.approx(correct)
    assert set(result["figures"]) == {"network", "constant", "linear"}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(data: Path) -> None:
    before = contents(data / "digits")
    screen = " ".join(done("fit", data / "digits.npz", "-t", "y", "--dry-run", "-o", data / "none").out.split())
    assert f"digits.npz, its train part, {COUNT} images of 8 × 8 pixels" in screen
    assert "values 0 to 240" in screen
    assert not (data / "none").exists()
    assert contents(data / "digits") == before


# --- what there is beside the images ----------------------------------------------------------------------------------


def test_arrays_beside_the_images_are_targets_weights_and_identifiers(data: Path, tmp_path: Path) -> None:
    done("fit", data / "plain.npz", "-t", "number", "--weight", "weight", "-o", tmp_path / "m", *SHORT)
    rows = polars.read_csv(done("predict", tmp_path / "m", data / "plain.npz", "--id", "tag").out.encode())
    with np.load(data / "plain.npz") as archive:
        assert rows["tag"].to_list() == archive["tag"].tolist()
    done("evaluate", tmp_path / "m", data / "plain.npz", "--weight", "weight")


def test_a_quantity_per_image_has_its_interval(data: Path, tmp_path: Path) -> None:
    fitted = done(
        "fit", data / "plain.npz", "-t", "half", "--head", "gaussian", "--shifts", "1", "-o", tmp_path / "m", "--json",
        *SHORT,
    )  # fmt: skip
    assert fitted.json["network"]["shifts"] == 1
    rows = polars.read_csv(done("predict", tmp_path / "m", data / "plain.npz", "--interval", "0.9").out.encode())
    assert (rows["low_90"] < rows["high_90"]).all()
    assert "shifted by up to 1 pixel" in " ".join(done("show", tmp_path / "m").out.split())


def test_files_are_read_as_the_model_learned_them(data: Path, model: Path, tmp_path: Path) -> None:
    images, _ = digits()
    large = np.kron(images[0], np.ones((2, 2), dtype=np.uint8))
    Image.fromarray(np.stack([large] * 3, axis=-1)).save(tmp_path / "color.png")
    assert "8 × 8 pixels" in refused("predict", model, tmp_path / "color.png")
    resized = done("predict", model, tmp_path / "color.png", "--image-size", "8", "--json").json
    assert resized[0]["file"] == "color.png"
    Image.fromarray(images[0]).save(tmp_path / "gray.png")
    gray = done("predict", model, tmp_path / "gray.png", "--json").json
    assert [row["probability_0"] for row in gray] == pytest.approx([row["probability_0"] for row in resized], abs=0.05)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits", "--members", "2"), "for a table"),
        (("digits", "--keep", "x"), "--keep is for tables"),
        (("digits", "--drop", "x"), "--drop is for tables"),
        (("digits", "--thousands"), "--thousands is for tables"),
        (("digits", "--network", "vgg"), "network is 'vgg'"),
        (("digits", "--network", "lenet"), "12 × 12 at least"),
        (("digits", "--image-size", "big"), "--image-size is 'big'"),
        (("digits", "-t", "clas"), "Did you mean 'class'"),
        (("digits.npz",), "which column is to be predicted"),
        (("digits.npz", "-t", "label"), "Of the images is known: y"),
        (("plain.npz", "-t", "y", "--image-size", "8"), "not resized"),
        (("digits/train/3",), "a folder of its own"),
        (("nowhere",), "no such file or folder"),
    ],
)
def test_what_cannot_be_learned(data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    path, *options = arguments
    assert said in refused("fit", data / path, *options, "-o", tmp_path / "m", *SHORT)
    assert not (tmp_path / "m").exists()


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", digits()[0][:12], np.array(["cat"] * 12))
    assert "'class' is constant" in refused("fit", tmp_path / "one", "-o", tmp_path / "m", *SHORT)


def test_a_model_of_images_wants_images_and_one_of_tables_a_table(data: Path, model: Path, fitted: Path) -> None:
    for command in ("predict", "evaluate"):
        assert "is a table, and the model learned from images" in refused(command, model, PENGUINS)
        assert "holds images, and the model learned from a table" in refused(command, fitted / "model", data / "digits")
    assert "there is no column 'class'" in refused("evaluate", model, data / "plain.npz")
    assert "--image-size is for images" in refused("predict", fitted / "model", fitted / "t.csv", "--image-size", "8")


def test_the_options_of_images_are_refused_for_tables(tmp_path: Path) -> None:
    for options in (("--network", "lenet"), ("--shifts", "2"), ("--image-size", "32")):
        assert "for images" in refused("fit", PENGUINS, "-t", "species", *options, "-o", tmp_path / "m", *SHORT)
    assert "--target" in refused("fit", PENGUINS, "-o", tmp_path / "m")


def test_interrupted_training_keeps_the_best_epoch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.one_epoch, []

    def interrupted(*arguments: Any, **options: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "one_epoch", interrupted)
    outcome = done("fit", data / "digits", "-o", tmp_path / "m", "--json")
    assert outcome.json["record"]["training"]["stopped"] == "interrupted"
    assert "interrupted after epoch 2" in outcome.message
    done("predict", tmp_path / "m", data / "digits")
