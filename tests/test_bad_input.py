"""What goes wrong for a new user: every message names what was given and what to do, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

import lastlayer
from command_line import COMMAND, PENGUINS, SHORT, contents, done, environment, process, refused, run, table
from lastlayer import files, model_folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of a small table, ``model``, and the table, ``t.csv``."""
    folder = tmp_path_factory.mktemp("fitted")
    path = table(folder / "t.csv", town=["Ulm", "Bonn"] * 20)
    done("fit", path, "-t", "y", "-o", folder / "model", *SHORT)
    return folder


@pytest.fixture
def place(fitted: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to damage."""
    shutil.copytree(fitted, tmp_path / "place")
    return tmp_path / "place"


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_brings_up_its_like(place: Path) -> None:
    table(place / "customers.csv")
    message = refused("fit", place / "custmers.csv", "-t", "y", "-o", place / "new")
    assert "no such file" in message
    assert "custmers.csv" in message
    assert "customers.csv" in message
    assert "there is no folder" in refused("predict", place / "model", place / "nowhere" / "t.csv").lower()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"x,y\n", "no rows"),
        (b"x,y\n1,2\n3,4,5\n", "line 3 has 3 cells"),
        (b"x,x,y\n1,2,3\n", "more than one column named 'x'"),
        (b"x,y\n\xff\xfe,1\n", "not UTF-8"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    message = refused("fit", tmp_path / "t.csv", "-t", "y", "-o", tmp_path / "m")
    assert "t.csv" in message
    assert said in message
    assert list(contents(tmp_path)) == ["t.csv"]


def test_a_name_with_an_unknown_ending_or_a_folder(place: Path) -> None:
    (place / "t.xlsx").write_bytes(b"PK")
    assert ".parquet" in refused("fit", place / "t.xlsx", "-t", "y", "-o", place / "m")
    (place / "folder.csv").mkdir()
    assert "is a folder" in refused("fit", place / "folder.csv", "-t", "y", "-o", place / "m")
    message = refused("fit", place / ("n" * 300 + ".csv"), "-t", "y", "-o", place / "m")
    assert "name too long" in message.lower()


# --- columns ----------------------------------------------------------------------------------------------------------


def test_a_column_that_is_not_there_brings_up_its_like(place: Path) -> None:
    path, new = place / "t.csv", place / "new"
    message = refused("fit", PENGUINS, "-t", "specis", "-o", new)
    assert "'specis'" in message
    assert "Did you mean 'species'?" in message
    assert "body_mass_g" in message
    for option in ("--weight", "--drop", "--keep"):
        assert "Did you mean 'town'?" in refused("fit", path, "-t", "y", option, "twon", "-o", new)
    assert "Did you mean 'town'?" in refused("predict", place / "model", path, "--id", "twon")
    table(place / "other.csv", rows=5).write_text("x,z\n1,2\n")
    assert "no column 'y'" in refused("evaluate", place / "model", place / "other.csv")
    assert not new.exists()


def test_only_the_target(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("y\n0\n1\n0\n")
    assert "nothing to learn from" in refused("fit", tmp_path / "t.csv", "-t", "y", "-o", tmp_path / "m")
    path = table(tmp_path / "u.csv")
    assert "Add the columns" in refused("fit", path, "-t", "y", "--drop", "x", "--drop", "z", "-o", tmp_path / "m")


def test_evaluating_without_any_input_column(place: Path) -> None:
    (place / "y.csv").write_text("y\n0\n1\n")
    message = refused("evaluate", place / "model", place / "y.csv")
    assert "no column besides y" in message
    assert "x, z, town" in message


def test_a_column_named_twice_over(place: Path) -> None:
    for option in ("--weight", "--drop"):
        message = refused("fit", place / "t.csv", "-t", "y", option, "y", "-o", place / "new")
        assert "'y'" in message
        assert option in message


def test_ten_thousand_columns(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(12, 10_000)).round(2)
    wide = polars.DataFrame(values, schema=[f"c{index}" for index in range(10_000)])
    wide.with_columns(y=polars.Series([0, 1] * 6)).write_csv(tmp_path / "t.csv")
    screen = done("fit", tmp_path / "t.csv", "-t", "y", "-o", tmp_path / "m", "--max-epochs", "1").out
    assert "10000 encoded columns" in screen
    assert "and 9970 more" in screen
    assert len(screen.splitlines()) < 60
    assert len(done("predict", tmp_path / "m", tmp_path / "t.csv", "--json").json) == 12


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([7] * 40, "constant"),
        (list(range(100, 140)), "identifier"),
        ([f"person {index}" for index in range(40)], "identifier"),
        ([None] * 40, "no value"),
        ([f"2024-01-{1 + index % 28:02}" for index in range(40)], "dates"),
        (["inf"] + [index / 7 for index in range(39)], "infinite"),
    ],
)
def test_a_target_that_cannot_be_learned(tmp_path: Path, values: list[Any], said: str) -> None:
    path = table(tmp_path / "t.csv", y=values)
    message = refused("fit", path, "-t", "y", "-o", tmp_path / "m")
    assert "'y'" in message
    assert said in message
    assert message.count(".") >= 2  # what is wrong, and what to do
    assert list(contents(tmp_path)) == ["t.csv"]


def test_the_way_out_is_spelled_as_the_command_takes_it(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", y=list(range(40)))
    assert "--head gaussian" in refused("fit", path, "-t", "y", "-o", tmp_path / "m")
    done("fit", path, "-t", "y", "--head", "gaussian", "-o", tmp_path / "m", *SHORT)


def test_a_class_with_a_single_row_is_learned_with_a_note(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", y=["a"] * 20 + ["b"] * 19 + ["c"])
    screen = " ".join(done("fit", path, "-t", "y", "-o", tmp_path / "m", *SHORT).out.split())
    assert "class c has a single row" in screen
    assert "merge it with another class" in screen
    assert "class c has a single row" in " ".join(done("fit", path, "-t", "y", "--dry-run").out.split())
    rows = done("predict", tmp_path / "m", path, "--json").json
    assert set(rows[0]) == {"prediction", "probability_a", "probability_b", "probability_c"}


def test_rows_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", y=[None, None, None] + [0, 1] * 18 + [1])
    outcome = done("fit", path, "-t", "y", "-o", tmp_path / "m", *SHORT)
    assert "3 of 40 rows have no target and are left out" in outcome.message
    assert "3 rows without it left out" in outcome.out
    assert "3 without a target passed over" in done("evaluate", tmp_path / "m", path).out
    nothing = table(tmp_path / "nothing.csv", y=[None] * 40)
    assert "no row has a value of 'y'" in refused("evaluate", tmp_path / "m", nothing)


def test_one_row_and_two(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("x,y\n1,2\n")
    assert "constant" in refused("fit", tmp_path / "one.csv", "-t", "y", "-o", tmp_path / "m")
    (tmp_path / "two.csv").write_text("x,y\n1,a\n2,b\n")
    screen = done("fit", tmp_path / "two.csv", "-t", "y", "-o", tmp_path / "m", *SHORT).out
    assert "too few to hold any out" in screen
    assert [
        row["prediction"] in ("a", "b") for row in done("predict", tmp_path / "m", tmp_path / "two.csv", "--json").json
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-t", "x", "--head", "categorical"), "numbers with a fraction"),
        (("-t", "x", "--head", "bernoulli"), "numbers with a fraction"),
        (("-t", "x", "--head", "unit_interval"), "outside [0, 1]"),
        (("-t", "town", "--head", "gaussian"), "Classifier"),
        (("-t", "y", "--head", "multilabel"), "does not fit this target"),
        (("-t", "y", "--head", "sigmoid"), "bernoulli, categorical"),
        (("-t", "x", "--balanced"), "--balanced is for classes"),
        (("-t", "x,y"), "0 and 1 only"),
        (("-t", "y,"), "no column ''"),
        (("-t", "y", "--weight", "x"), "0 or more"),
        (("-t", "y", "--weight", "town"), "expected numbers"),
        (("-t", "y", "--device", "abacus"), "'cpu' or 'cuda'"),
        (("-t", "y", "--seed", str(2**40)), "the seed is"),
        (("-t", "y", "--max-epochs", "0"), "--max-epochs"),
    ],
)
def test_an_option_that_does_not_fit(place: Path, arguments: tuple[str, ...], said: str) -> None:
    outcome = run("fit", place / "t.csv", "-o", place / "new", *arguments)
    assert outcome.code == 2, outcome
    assert said in outcome.message
    assert "internal" not in outcome.err
    assert not (place / "new").exists()


def test_weights_that_are_all_zero(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", w=[0] * 40)
    assert "'w' is 0 in every row" in refused("fit", path, "-t", "y", "--weight", "w", "-o", tmp_path / "m")


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_missing_number_is_no_fault_and_an_infinite_one_is(tmp_path: Path) -> None:
    numbers = [index / 7 for index in range(39)]
    path = table(tmp_path / "nan.csv", x=["nan", *numbers])
    done("fit", path, "-t", "y", "-o", tmp_path / "m", *SHORT)
    assert len(done("predict", tmp_path / "m", path, "--json").json) == 40
    infinite = table(tmp_path / "inf.csv", x=[*numbers, "-inf"])
    message = refused("fit", infinite, "-t", "y", "-o", tmp_path / "n")
    assert "column 'x' holds -inf in row 39" in message
    assert "leave the cell empty" in message
    assert "-inf in row 39" in refused("predict", tmp_path / "m", infinite)
    assert not (tmp_path / "n").exists()


def test_text_where_training_saw_numbers(place: Path) -> None:
    path = table(place / "text.csv", z=["1.5", "unknown", *["2"] * 38])
    before = done("predict", place / "model", place / "t.csv", "-o", place / "p.csv") and contents(place)
    message = refused("predict", place / "model", path, "-o", place / "p.csv")
    for said in ("'z'", "row 1", "'unknown'", "leave unknown cells empty"):
        assert said in message
    assert contents(place) == before


def test_columns_that_are_missing_moved_or_new_and_categories_never_seen(place: Path) -> None:
    data = polars.read_csv(place / "t.csv")
    expected = done("predict", place / "model", place / "t.csv").out
    data.select("town", "y", "z", "x").with_columns(more=polars.lit("?!")).write_csv(place / "moved.csv")
    moved = done("predict", place / "model", place / "moved.csv")
    assert moved.out == expected
    assert moved.err == ""
    data.drop("z").write_csv(place / "short.csv")
    short = done("predict", place / "model", place / "short.csv")
    assert "note: the table has no column 'z'" in short.message
    assert len(short.out.splitlines()) == 41
    data.with_columns(town=polars.lit("Paris")).write_csv(place / "paris.csv")
    assert len(done("predict", place / "model", place / "paris.csv").out.splitlines()) == 41
    data.select(other="x").write_csv(place / "other.csv")
    message = refused("predict", place / "model", place / "other.csv")
    assert "none of the columns learned from" in message
    assert "'other'" in message


def test_a_class_never_seen_cannot_be_judged(place: Path) -> None:
    path = table(place / "new.csv", y=[0, 1, 5, 5] * 10)
    message = refused("evaluate", place / "model", path)
    assert "5, which training never saw" in message
    assert "0, 1" in message


def test_labels_that_are_text_cannot_be_judged(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", a=[0, 1] * 20, b=[0, 0, 1, 1] * 10)
    done("fit", path, "-t", "a,b", "-o", tmp_path / "m", *SHORT)
    words = table(tmp_path / "w.csv", a=["no", "yes"] * 20, b=[0, 0, 1, 1] * 10)
    assert "no number" in refused("evaluate", tmp_path / "m", words)
    some = table(tmp_path / "s.csv", a=[None, 1] * 20, b=[0, 0, 1, 1] * 10)
    assert done("evaluate", tmp_path / "m", some, "--json").json["rows_without_target"] == 20


def test_an_identifier_that_would_be_overwritten(place: Path) -> None:
    path = table(place / "p.csv", prediction=list(range(40)))
    message = refused("predict", place / "model", path, "--id", "prediction")
    assert "'prediction'" in message
    assert "Rename" in message


# --- model folders that are none, or damaged --------------------------------------------------------------------------

READERS: tuple[tuple[str, ...], ...] = (("predict", "t.csv"), ("evaluate", "t.csv"), ("show",))


def refused_by_all(place: Path, name: str = "model", readers: tuple[tuple[str, ...], ...] = READERS) -> str:
    """The one message with which every command that reads the model refuses it; and nothing is changed."""
    before = contents(place)
    messages = {refused(command, place / name, *(place / file for file in files)) for command, *files in readers}
    assert contents(place) == before
    assert len(messages) == 1
    message = messages.pop()
    assert str(place / name) in message
    return message


def test_a_folder_that_is_not_there_or_no_model(place: Path) -> None:
    (place / "empty").mkdir()
    assert "there is no model folder" in refused_by_all(place, "nothing")
    assert "Models beside it: model" in refused_by_all(place, "modell")
    assert "no readable model.json" in refused_by_all(place, "empty")
    assert "is a file" in refused_by_all(place, "t.csv")
    with pytest.raises(lastlayer.LastLayerError, match=r"no readable model\.json"):
        lastlayer.load(place / "empty")


def rewrite(place: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = False) -> None:
    """Change what model.json says, with a checksum that fits if ``sign``."""
    path = place / "model" / "model.json"
    description = json.loads(path.read_text())
    change(description)
    if sign:
        description["sha256"] = model_folder._checksum(description)
    path.write_text(json.dumps(description))


def test_a_description_that_is_no_json(place: Path) -> None:
    path = place / "model" / "model.json"
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"[" * 100_000, b"\xff" + whole):
        path.write_bytes(damaged)
        assert "no valid JSON" in refused_by_all(place)
    for foreign in (b"[]", b"{}", b'{"format": "keras", "schema": 1}', b"null"):
        path.write_bytes(foreign)
        assert "does not say it is a lastlayer model" in refused_by_all(place)


def test_a_description_laid_out_otherwise_is_still_the_same(place: Path) -> None:
    expected = done("predict", place / "model", place / "t.csv").out
    rewrite(place, lambda description: None)
    assert done("predict", place / "model", place / "t.csv").out == expected


def test_a_description_with_one_field_changed(place: Path) -> None:
    whole = (place / "model" / "model.json").read_bytes()

    def other_classes(description: dict[str, Any]) -> None:
        description["target"]["classes"] = [1, 0]

    def other_mean(description: dict[str, Any]) -> None:
        description["preprocessing"]["columns"][0]["mean"] += 1.0

    def no_record(description: dict[str, Any]) -> None:
        del description["record"]

    def no_checksum(description: dict[str, Any]) -> None:
        del description["sha256"]

    for change in (other_classes, other_mean, no_record, no_checksum):
        (place / "model" / "model.json").write_bytes(whole)
        rewrite(place, change)
        message = refused_by_all(place)
        assert "model.json has been edited" in message
        assert "Fit again" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", {}),
        ("network", None),
        ("head", {"name": "magic"}),
        ("head", "bernoulli"),
        ("target", []),
        ("preprocessing", {"columns": 3}),
        ("baselines", {"constant": None}),
    ],
)
def test_a_description_that_makes_no_sense_is_damaged_even_when_signed(place: Path, key: str, value: Any) -> None:
    rewrite(place, lambda description: description.update({key: value}), sign=True)
    assert "is damaged" in refused_by_all(place, readers=READERS[:2])  # show rebuilds nothing


def test_a_later_schema_names_the_version_to_install(place: Path) -> None:
    rewrite(place, lambda description: description.update(schema=2, versions={"lastlayer": "9.1"}))
    message = refused_by_all(place)
    assert "schema 2" in message
    assert "lastlayer 9.1" in message


def test_weights_that_are_truncated_or_of_another_model(place: Path) -> None:
    weights = place / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    assert "truncated, edited or from another model" in refused_by_all(place)
    done("fit", place / "t.csv", "-t", "y", "-o", place / "other", "--seed", "1", *SHORT)
    shutil.copy(place / "other" / "model.safetensors", weights)
    assert "truncated, edited or from another model" in refused_by_all(place)
    weights.write_bytes(whole)
    done("predict", place / "model", place / "t.csv")


def test_a_folder_with_a_file_missing(place: Path) -> None:
    weights = (place / "model" / "model.safetensors").read_bytes()
    (place / "model" / "model.safetensors").unlink()
    assert "model.safetensors" in refused_by_all(place)
    (place / "model" / "model.safetensors").write_bytes(weights)
    (place / "model" / "model.json").unlink()
    assert "model.json" in refused_by_all(place)


# --- what was there stays ---------------------------------------------------------------------------------------------


def test_what_is_no_model_is_never_touched_not_even_by_force(place: Path) -> None:
    (place / "thesis").mkdir()
    (place / "thesis" / "chapter.tex").write_text("years of work")
    (place / "keras").mkdir()
    (place / "keras" / "model.json").write_text('{"class_name": "Sequential"}')
    (place / "link").symlink_to(place / "model")
    before = contents(place)
    for name in ("thesis", "keras", "t.csv", "link"):
        for force in ((), ("--force",)):
            message = refused("fit", place / "t.csv", "-t", "y", "-o", place / name, *force, *SHORT)
            assert str(place / name) in message
            assert "Name another folder" in message
    assert "not a folder" in refused("fit", place / "t.csv", "-t", "y", "-o", place / "t.csv" / "m", *SHORT)
    assert contents(place) == before


def test_files_that_someone_put_beside_the_model_stay(place: Path) -> None:
    done("predict", place / "model", place / "t.csv", "-o", place / "model" / "predictions.csv")
    before = contents(place)
    message = refused("fit", place / "t.csv", "-t", "y", "-o", place / "model", "--force", *SHORT)
    assert "predictions.csv" in message
    assert "Move those files" in message
    assert contents(place) == before


def test_the_folder_one_is_in_is_no_place_for_a_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "work").mkdir()
    monkeypatch.chdir(place / "work")
    for out in (".", "..", place / "work"):
        assert "the folder you are in" in refused("fit", "../t.csv", "-t", "y", "-o", out, "--force", *SHORT)
    monkeypatch.chdir(place / "model")
    assert "the folder you are in" in refused("fit", "../t.csv", "-t", "y", "-o", "../model", "--force", *SHORT)


def test_predictions_go_where_they_can_and_leave_the_rest_alone(place: Path) -> None:
    (place / "folder.csv").mkdir()
    before = contents(place)
    for out, said in (("p.txt", ".csv, .parquet"), ("nowhere/p.csv", "no folder"), ("folder.csv", "directory")):
        message = refused("predict", place / "model", place / "t.csv", "-o", place / out)
        assert said in message
        assert str(place / out) in message
    assert contents(place) == before


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_at_the_last_moment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = place / "model", place / "t.csv"
    for name in ("p.csv", "p.parquet"):
        done("predict", model, data, "-o", place / name)
    before = contents(place)
    monkeypatch.setattr(os, "fsync", full_disk)
    for arguments in (
        ("fit", data, "-t", "y", "-o", model, "--force", "--seed", "1", *SHORT),
        ("fit", data, "-t", "y", "-o", place / "new", *SHORT),
        ("predict", model, data, "-o", place / "p.csv"),
        ("predict", model, data, "-o", place / "p.parquet"),
    ):
        message = refused(*arguments)
        assert "No space left on device" in message
        assert "cannot be written" in message or "cannot write" in message
        assert contents(place) == before
        assert sorted(entry.name for entry in place.iterdir()) == ["model", "p.csv", "p.parquet", "t.csv"]


def test_a_rename_that_fails_gives_the_old_model_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = contents(place), Path.rename

    def refuse_new(path: Path, target: Path) -> Path:
        if path.name not in ("model", "old"):
            full_disk()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    # As where the system has no exchange of two folders.
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    for out in ("model", "new"):
        message = refused("fit", place / "t.csv", "-t", "y", "-o", place / out, "--force", "--seed", "1", *SHORT)
        assert "Nothing was changed" in message
        assert contents(place) == before
        assert sorted(entry.name for entry in place.iterdir()) == ["model", "t.csv"]


def test_a_file_that_may_not_grow(place: Path) -> None:
    before = contents(place)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    arguments = ("fit", place / "t.csv", "-t", "y", "-o", place / "model", "--force", *SHORT)
    outcome = process(*arguments, preexec_fn=small_files)
    assert outcome.code == 2, outcome
    assert "File too large" in outcome.message
    assert "Nothing was changed" in outcome.message
    assert "Traceback" not in outcome.err
    assert contents(place) == before


def test_a_screen_that_is_a_full_disk(fitted: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, "predict", str(fitted / "model"), str(fitted / "t.csv")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=300,
        )
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "internal" not in result.stderr
    assert "Traceback" not in result.stderr
    assert "ignored" not in result.stderr


@pytest.mark.parametrize("closed_after", [1, 0])
def test_a_reader_that_has_enough(fitted: Path, closed_after: int) -> None:
    shown = ("show", fitted / "model") if closed_after else ("predict", fitted / "model", fitted / "t.csv")
    with subprocess.Popen(
        [*COMMAND, *map(str, shown)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for _ in range(closed_after):
            running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(timeout=300) == 0


# --- interruptions ----------------------------------------------------------------------------------------------------

# Fits again over the model in argv[1] from the table argv[2], and stops for good at the moment named by argv[3].
DYING = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from lastlayer import files
    from lastlayer.cli import app

    place, table, moment = sys.argv[1:]

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "first fsync":
        os.fsync = die
    elif moment == "second fsync":
        calls = []
        os.fsync = lambda file: die() if calls else calls.append(file)
    else:
        files.shutil.rmtree = die
    app(["fit", table, "-t", "y", "-o", place, "--force", "--seed", "1", "--max-epochs", "1"])
    """
)


@pytest.mark.parametrize("moment", ["first fsync", "second fsync", "after the move"])
def test_a_process_killed_while_it_saves_leaves_a_whole_model(place: Path, moment: str) -> None:
    before = contents(place / "model")
    outcome = process(place / "model", place / "t.csv", moment, program=(sys.executable, "-c", DYING))
    assert outcome.code == -signal.SIGKILL, outcome.err
    after = contents(place / "model")
    assert (after == before) is (moment != "after the move")
    lastlayer.load(place / "model")
    done("predict", place / "model", place / "t.csv")
    done("fit", place / "t.csv", "-t", "y", "-o", place / "model", "--force", *SHORT)


# Sends itself Ctrl-C where argv[1] says, as often as argv[2] says, and goes on as the command with the rest.
INTERRUPTED = textwrap.dedent(
    """
    import os, signal, sys
    import lastlayer.fitting as fitting, lastlayer.training.loop as loop, lastlayer.commands.fit as command
    from lastlayer.cli import main

    moment, times = sys.argv[1], int(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]

    def before(module, name, from_call=1):
        real, calls = getattr(module, name), []

        def interrupted(*arguments, **options):
            calls.append(name)
            if len(calls) == from_call:
                os.kill(os.getpid(), signal.SIGINT)
            return real(*arguments, **options)

        setattr(module, name, interrupted)

    if moment == "reading":
        before(command, "read_table")
    else:
        before(loop, "one_epoch", from_call=3)
    if times == 2:
        before(fitting, "fit_baselines")
    main()
    """
)


def interrupted(moment: str, times: int, *arguments: object) -> Any:
    return process(moment, times, *arguments, program=(sys.executable, "-c", INTERRUPTED))


def test_control_c_in_training_keeps_the_best_so_far(place: Path) -> None:
    arguments = ("fit", place / "t.csv", "-t", "y", "-o", place / "new", "--max-epochs", "500")
    outcome = interrupted("training", 1, *arguments)
    assert outcome.code == 0, outcome.err
    assert "note: training was interrupted after epoch 2" in outcome.message
    assert "is kept" in outcome.message
    assert "it was interrupted" in outcome.out
    assert len(lastlayer.load(place / "new").loss_curve_) == 2
    done("predict", place / "new", place / "t.csv")


@pytest.mark.parametrize(("moment", "times"), [("training", 2), ("reading", 1)])
def test_control_c_before_there_is_a_model_leaves_all_as_it_was(place: Path, moment: str, times: int) -> None:
    before = contents(place)
    outcome = interrupted(moment, times, "fit", place / "t.csv", "-t", "y", "-o", place / "model", "--force")
    assert outcome.code == 130
    assert "interrupted; nothing was written" in outcome.message
    assert "Traceback" not in outcome.err
    assert contents(place) == before


def test_control_c_from_outside(place: Path) -> None:
    arguments = ["fit", place / "t.csv", "-t", "y", "-o", place / "new", "--max-epochs", "1000000"]
    # A program that says when the second epoch begins, and then has no hurry.
    program = textwrap.dedent(
        """
        import sys, time
        import lastlayer.training.loop as loop
        from lastlayer.cli import main

        real, epochs = loop.one_epoch, []

        def slow(*arguments, **options):
            if epochs:
                print("one epoch is done", file=sys.stderr, flush=True)
                time.sleep(300)
            epochs.append(real(*arguments, **options))
            return epochs[-1]

        loop.one_epoch = slow
        main()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "one epoch is done\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "note: training was interrupted" in " ".join(err.split())
    assert "The model is in" in out
    assert "Traceback" not in err
    lastlayer.load(place / "new")


# --- our own faults ---------------------------------------------------------------------------------------------------


def test_a_fault_of_ours_says_so_without_a_traceback(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by [red]zero[/]")

    monkeypatch.setattr("lastlayer.commands.predict.load_model", broken)
    monkeypatch.delenv("LASTLAYER_DEBUG", raising=False)
    outcome = run("predict", fitted / "model", fitted / "t.csv")
    assert outcome.code == 1
    assert outcome.out == ""
    assert "internal error: ZeroDivisionError: by [red]zero[/]" in outcome.message
    assert "LASTLAYER_DEBUG=1" in outcome.message
    assert "Traceback" not in outcome.err


def test_a_fault_of_ours_shows_its_traceback_on_demand(fitted: Path) -> None:
    program = (
        "import lastlayer.commands.predict as p; p.load_model = lambda folder: 1 / 0;"
        "from lastlayer.cli import main; main()"
    )
    arguments = ("predict", fitted / "model", fitted / "t.csv")
    outcome = process(*arguments, program=(sys.executable, "-c", program), env=environment(LASTLAYER_DEBUG="1"))
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError" in outcome.err


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    data = polars.DataFrame(
        {"[red]x[/]": [0.5, 1.5] * 20, "[/]": [3.5, 4.5, 5.5, 6.5] * 10, "y": ["[b]a", "[/b]"] * 20}
    )
    data.write_csv(tmp_path / "t.csv")
    screen = done("fit", tmp_path / "t.csv", "-t", "y", "-o", tmp_path / "[b]m", *SHORT).out
    assert "[red]x[/]" in screen
    assert "[/b] and [b]a" in screen
    assert "[b]m" in screen
    assert "[/]" in refused("fit", tmp_path / "t.csv", "-t", "[/x]", "-o", tmp_path / "n")
