"""What a new user gets wrong: every message names what was given and what to do, and nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from command_line import PENGUINS, SHORT, contents, done, environment, process, refused, run, table

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
        (("-t", "y", "--head", "sigmoid"), "'bernoulli', 'categorical'"),
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
