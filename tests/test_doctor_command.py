"""``lastlayer doctor``: a user's file or a model folder in, findings out, and what a newcomer gets wrong."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch

from command_line import PENGUINS, SHORT, contents, done, refused, run, table
from doctor_files import LECTURE, NETS, examined, flat, names, written
from lastlayer.commands.user_file import split_reference, user_module
from lastlayer.diagnosis.model_record import judge_model_record


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    return written(tmp_path, NETS, "nets.py")


# --- the lecture's model ----------------------------------------------------------------------------------------------


def test_the_mistakes_of_the_lectures_model_are_found_by_one_command(tmp_path: Path) -> None:
    path = written(tmp_path, LECTURE)
    outcome = run("doctor", path, "--loss", "cross_entropy")
    assert outcome.code == 3, outcome.err
    screen = flat(outcome.out)
    for name in (
        "value_never_used",
        "layer_shape_mismatch",
        "softmax_without_dimension",
        "softmax_before_cross_entropy",
    ):
        assert name in screen
    assert "FullBasicModel" in screen
    assert "made up" in screen


def test_mended_nothing_is_left(tmp_path: Path) -> None:
    mended = (
        LECTURE.replace("self.fc(t1)", "self.fc(t2.mean((2, 3)))")
        .replace("return nn.functional.softmax(t3)", "return t3")
        .replace("torch.randn(in_sz, out_sz)", "torch.randn(in_sz, out_sz) / in_sz**0.5")
    )
    result = examined(written(tmp_path, mended), "--loss", "cross_entropy")
    assert not result["errors"] + result["warnings"], result["findings"]


# --- what a name may stand for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Small", "make", "pair", "ready"])
def test_classes_functions_and_networks_are_examined(nets: Path, name: str) -> None:
    result = examined(f"{nets}:{name}")
    assert result["examined"]["network"] == f"{name} of {nets}"
    assert result["examined"]["parameters"] == 33
    assert result["examined"]["loss"] == ("BCEWithLogitsLoss" if name == "pair" else None)
    assert "(64, 2), made up" in result["examined"]["batch"]


def test_a_batch_of_ones_own_is_what_is_examined(nets: Path) -> None:
    result = examined(f"{nets}:whole")
    assert "unscaled_inputs" in names(result)
    assert result["examined"]["batch"] == "the batch that whole gives"
    # The validation rows are those learned from.
    result = examined(f"{nets}:by_name")
    assert {"unscaled_inputs", "duplicated_rows"} <= names(result)
    assert result["errors"] >= 1


def test_what_the_file_prints_does_not_disturb_the_result(nets: Path) -> None:
    outcome = run("doctor", f"{nets}:make", "--json")
    assert json.loads(outcome.out)["examined"]["network"].startswith("make")
    assert "made" in outcome.err


def test_without_a_name_the_one_network_that_no_other_is_built_from(tmp_path: Path) -> None:
    assert examined(written(tmp_path, LECTURE))["examined"]["network"].startswith("FullBasicModel")


def test_the_files_own_loss_is_taken_if_there_is_one(tmp_path: Path) -> None:
    path = written(tmp_path, "from torch import nn\nnet = nn.Linear(3, 2)\ncriterion = nn.NLLLoss()\n")
    result = examined(f"{path}:net")
    assert result["examined"]["loss"] == "NLLLoss"
    assert "log_softmax_missing" in names(result)
    assert examined(f"{path}:net", "--loss", "cross_entropy")["examined"]["loss"] == "CrossEntropyLoss"


def test_a_file_imports_what_lies_beside_it_and_nothing_stays_behind(tmp_path: Path) -> None:
    written(tmp_path, "width = 5\n", "beside_it.py")
    path = written(tmp_path, "from torch import nn\nfrom beside_it import width\nnet = nn.Linear(width, 1)\n")
    before, modules, places = contents(tmp_path), set(sys.modules), list(sys.path)
    assert "(64, 5)" in examined(f"{path}:net")["examined"]["batch"]
    assert contents(tmp_path) == before
    assert sys.path == places
    assert "net" not in set(sys.modules) - modules


def test_a_file_with_a_name_that_is_taken_is_read_all_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, "from torch import nn\nnet = nn.Linear(4, 1)\n", "json.py")
    with user_module(path) as module:
        assert module.net.in_features == 4
    assert sys.modules["json"] is json


def test_main_blocks_do_not_run(tmp_path: Path) -> None:
    path = written(tmp_path, "from torch import nn\nnet = nn.Linear(4, 1)\nif __name__ == '__main__':\n    1 / 0\n")
    examined(f"{path}:net")


def test_the_same_twice_and_no_random_state_touched(nets: Path) -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 (the state that users draw from)
    expected = (torch.rand(1), random.random(), np.random.rand())  # noqa: NPY002
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    first = examined(f"{nets}:pair")
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002
    assert examined(f"{nets}:pair") == first


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("net.py:Net", "net.py", "Net"),
        ("net.py", "net.py", None),
        ("net.py:", "net.py", None),
        (r"C:\work\net.py:Net", r"C:\work\net.py", "Net"),
        (r"C:\work\model", r"C:\work\model", None),
        ("a:b/net.py:models.Net", "a:b/net.py", "models.Net"),
    ],
)
def test_references(text: str, path: str, name: str | None) -> None:
    assert split_reference(text) == (Path(path), name)


# --- a table beside a file --------------------------------------------------------------------------------------------


def test_a_table_is_given_as_the_network_takes_it(nets: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows=200)
    result = examined(f"{nets}:Small", "--data", path, "--target", "y")
    assert result["examined"]["loss"] == "BCEWithLogitsLoss"
    assert "columns as they are in the table" in result["examined"]["batch"]
    assert any("ends without an activation" in note for note in result["examined"]["notes"])
    # y says whether x is positive, and z is noise.
    assert names(result) == {"leaking_column"}
    text = table(tmp_path / "text.csv", rows=200, z=["a", "b"] * 100)
    encoded = written(tmp_path, "from torch import nn\nnet = nn.Linear(3, 1)\n")
    result = examined(f"{encoded}:net", "--data", text, "-t", "y", "--loss", "BCEWithLogitsLoss")
    assert "encoded as lastlayer fit does" in result["examined"]["batch"]


def test_raw_columns_and_a_quantity(nets: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(2, 300))
    y = 5000 + 700 * (x[0] + x[1] ** 2)
    path = table(tmp_path / "t.csv", rows=300, x=(1000 * x[0]).tolist(), z=x[1].tolist(), y=y.tolist())
    result = examined(f"{nets}:Small", "--data", path, "-t", "y", "--loss", "mse")
    assert {"unscaled_inputs", "unscaled_target"} <= names(result)
    assert "shape_mismatch" not in names(result)
    assert not result["errors"]


def test_classes_of_penguins(tmp_path: Path) -> None:
    path = written(
        tmp_path, "from torch import nn\nnet = nn.Sequential(nn.Linear(15, 8), nn.ReLU(), nn.Linear(8, 3))\n"
    )
    result = examined(f"{path}:net", "--data", PENGUINS, "-t", "species")
    assert result["examined"]["loss"] == "CrossEntropyLoss"
    assert "3 classes as indices" in result["examined"]["batch"]
    assert not result["errors"] + result["warnings"], result["findings"]


def test_images_as_a_convolution_takes_them(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    images = drawn.integers(256, size=(120, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=(images.mean((1, 2)) > 127).astype(np.uint8))
    path = written(
        tmp_path,
        """
        from torch import nn
        conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        flat = nn.Linear(64, 2)
        """,
    )
    for name, shape in (("conv", "shares of 255"), ("flat", "shares of 255, flat")):
        result = examined(f"{path}:{name}", "--data", tmp_path / "images.npz", "-t", "y")
        assert shape in result["examined"]["batch"]
        assert "unscaled_inputs" not in names(result)


def test_a_target_that_the_loss_does_not_take_is_a_finding(nets: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows=90, y=[0, 1, 2] * 30)
    arguments = ("--data", path, "-t", "y", "--loss", "cross_entropy")
    assert "too_few_outputs" in names(examined(f"{nets}:Small", *arguments))
    two = written(tmp_path, "from torch import nn\nnet = nn.Linear(2, 2)\n", "two.py")
    assert "too_few_outputs" in names(examined(f"{two}:net", *arguments))


# --- a model folder ---------------------------------------------------------------------------------------------------


def test_a_models_record_is_judged_and_with_data_its_network_too(fitted: Path) -> None:
    result = examined(fitted / "model")
    assert result["examined"]["loss"] == "head bernoulli"
    assert any("--data TABLE" in note for note in result["examined"]["notes"])
    result = examined(fitted / "model", "--data", fitted / "t.csv")
    assert result["examined"]["data"] == "t.csv, 40 rows"
    assert not result["errors"], result["findings"]
    assert run("doctor", fitted / "model").code == 0


def test_a_model_that_learned_from_a_leak(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    y = drawn.integers(2, size=200)
    path = table(tmp_path / "t.csv", rows=200, y=y.tolist(), paid=np.where(y == 1, "yes", "no").tolist())
    done("fit", path, "-t", "y", "-o", tmp_path / "model", *SHORT)
    outcome = run("doctor", tmp_path / "model", "--data", path)
    assert outcome.code == 3, outcome.err
    assert "column 'paid'" in flat(outcome.out)
    assert "--drop paid" in flat(outcome.out)


@pytest.mark.parametrize("more", [("--members", "3"), ("--balanced",)], ids=["members", "balanced"])
def test_members_and_weighted_classes(tmp_path: Path, more: tuple[str, ...]) -> None:
    drawn = np.random.default_rng(0)
    y = (np.arange(300) % 60 == 0).astype(int)
    path = table(tmp_path / "t.csv", rows=300, y=y.tolist(), x=(drawn.normal(size=300) + y).tolist())
    done("fit", path, "-t", "y", "-o", tmp_path / "model", *more, *SHORT)
    result = examined(tmp_path / "model", "--data", path)
    assert not result["errors"], result["findings"]
    assert ("unbalanced_classes" in names(result)) is ("--balanced" not in more)


def test_folders_that_are_no_model_and_options_that_are_for_files(fitted: Path, tmp_path: Path) -> None:
    assert "no model folder" in refused("doctor", tmp_path)
    assert "--loss is for a file" in refused("doctor", fitted / "model", "--loss", "mse")
    assert "--target is for a file" in refused("doctor", fitted / "model", "--target", "y")
    polars.DataFrame({"x": [1.0, 2.0]}).write_csv(tmp_path / "other.csv")
    assert "there is no column 'y'" in refused("doctor", fitted / "model", "--data", tmp_path / "other.csv")


def test_figures_beside_simpler_models_are_judged() -> None:
    def record(network: float, constant: float | None, linear: float | None) -> dict[str, Any]:
        figures = {"network": {"nll": network}, "constant": {"nll": constant}, "linear": {"nll": linear}}
        return {"figures": figures, "judged_on": "held-out rows"}

    assert not judge_model_record(record(0.5, 0.7, 0.6))
    assert judge_model_record(record(0.8, 0.7, 0.6)).names == ["worse_than_constant"]
    (finding,) = judge_model_record(record(0.65, 0.7, 0.6))
    assert (finding.name, finding.severity) == ("worse_than_linear", "note")
    assert "0.65" in finding.evidence
    assert not judge_model_record(record(0.65, None, None))
    assert not judge_model_record({})
