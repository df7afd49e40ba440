"""Model folders that are none or damaged are refused, and what is there already is never lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lastlayer
from command_line import COMMAND, SHORT, contents, done, environment, process, refused
from lastlayer import files, model_folder

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
    later = model_folder.SCHEMA + 1
    rewrite(place, lambda description: description.update(schema=later, versions={"lastlayer": "9.1"}))
    message = refused_by_all(place)
    assert f"schema {later}" in message
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
