"""The command from end to end: fit, predict, evaluate, show, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest

import lastlayer
from command_line import COMMAND, PENGUINS, SHORT, contents, done, environment, process, refused, run, table
from lastlayer.preprocessing import read_table

SPECIES = ["Adelie", "Chinstrap", "Gentoo"]


@pytest.fixture(scope="module")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the penguins' species."""
    folder = tmp_path_factory.mktemp("penguins") / "model"
    done("fit", PENGUINS, "--target", "species", "--out", folder, *SHORT)
    return folder


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_says_what_it_did_and_why_and_what_comes_next(tmp_path: Path) -> None:
    outcome = done("fit", PENGUINS, "--target", "species", "--out", tmp_path / "my model", *SHORT)
    screen = outcome.out
    for said in ("species", "categorical", "softmax", "cross-entropy", "3 distinct strings", "flipper_length_mm"):
        assert said in screen
    for heading in ("Target", "Columns", "Network", "Training", "How good"):
        assert heading in screen
    assert "constant" in screen
    assert "linear" in screen
    assert f"lastlayer predict '{tmp_path / 'my model'}' TABLE" in screen
    assert outcome.err == ""
    assert sorted(contents(tmp_path)) == ["my model/model.json", "my model/model.safetensors"]


def test_fit_as_json_is_the_description_of_the_model(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = done("fit", PENGUINS, "--target", "species", "--out", out, "--json", *SHORT).json
    assert result["folder"] == str(out)
    assert result["head"]["name"] == "categorical"
    assert result["target"] == {"names": ["species"], "kind": "classes", "classes": SPECIES}
    assert result["record"]["choice"]["reason"].startswith("'species' holds 3 distinct strings")
    assert len(result["record"]["training"]["validation_loss"]) == 2
    assert set(result["record"]["figures"]) == {"network", "constant", "linear"}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", name=[f"row {index}" for index in range(40)])
    before = contents(tmp_path)
    screen = done("fit", path, "--target", "y", "--out", tmp_path / "model", "--dry-run").out
    for said in ("bernoulli", "sigmoid", "--head gaussian", "--keep name", "Nothing was trained or written"):
        assert said in screen
    plan = done("fit", path, "--target", "y", "--out", tmp_path / "model", "--dry-run", "--json").json
    assert plan["head"] == "bernoulli"
    assert plan["columns"][0] == {"name": "x", "kind": "numeric", "missing": 0}
    assert contents(tmp_path) == before


def test_a_dry_run_beside_a_model_says_that_a_real_one_would_stop(tmp_path: Path, penguins: Path) -> None:
    outcome = done("fit", PENGUINS, "--target", "species", "--out", penguins, "--dry-run")
    assert "--force" in outcome.message
    assert "without --dry-run this would stop" in outcome.message


def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    for wrong in (("--keep", "nope"), ("--head", "gaussian", "--balanced"), ("--device", "abacus"), ("--seed", "-1")):
        assert wrong[-1].lstrip("-") in refused("fit", path, "-t", "y", "--dry-run", *wrong)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        done("fit", PENGUINS, "-t", "species", "-o", tmp_path / name, "--seed", seed, *SHORT)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_drop_leaves_columns_out_and_keep_takes_them_in(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", user_id=list(range(40)), same=[1] * 40)
    plain = done("fit", path, "-t", "y", "--dry-run", "--json").json
    kinds = {column["name"]: column["kind"] for column in plain["columns"]}
    assert kinds == {"x": "numeric", "z": "numeric", "user_id": "identifier", "same": "constant"}
    fitted = done(
        "fit",
        path,
        "-t",
        "y",
        "-o",
        tmp_path / "m",
        "--drop",
        "z",
        "--drop",
        "same",
        "--keep",
        "user_id",
        "--json",
        *SHORT,
    ).json
    kinds = {column["name"]: column["kind"] for column in fitted["preprocessing"]["columns"]}
    assert kinds == {"x": "numeric", "user_id": "numeric"}


def test_rows_count_by_their_weight_and_the_weight_is_no_input(tmp_path: Path) -> None:
    # Two rows alike but for the target: their weights alone decide.
    y, weight = [0, 1] * 50, [1, 3] * 50
    path = table(tmp_path / "t.csv", rows=100, x=[1.0, 1.0] * 50, w=weight, z=[0.5, 0.5, 1.5, 1.5] * 25, y=y)
    model = done("fit", path, "-t", "y", "--weight", "w", "-o", tmp_path / "m", "--json", *SHORT).json
    assert [column["name"] for column in model["preprocessing"]["columns"]] == ["x", "z"]
    probability = np.mean([row["probability_1"] for row in done("predict", tmp_path / "m", path, "--json").json])
    assert probability == pytest.approx(0.75, abs=0.03)
    weighted = done("evaluate", tmp_path / "m", path, "--weight", "w", "--json").json["figures"]["constant"]
    plain = done("evaluate", tmp_path / "m", path, "--json").json["figures"]["constant"]
    assert weighted["accuracy"] == pytest.approx(0.75)
    assert plain["accuracy"] == pytest.approx(0.5)


def test_balanced_decides_as_if_classes_were_alike_and_keeps_probabilities(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    target = [0] * 360 + [1] * 40
    path = table(tmp_path / "t.csv", rows=400, x=(random.normal(size=400) + target).tolist(), y=target)
    means, decided = [], []
    for name, more in (("plain", ()), ("balanced", ("--balanced",))):
        done("fit", path, "-t", "y", "-o", tmp_path / name, *more, *SHORT)
        rows = done("predict", tmp_path / name, path, "--json").json
        means.append(np.mean([row["probability_1"] for row in rows]))
        decided.append(np.mean([row["prediction"] for row in rows]))
    assert means == pytest.approx([0.1, 0.1], abs=0.05)
    assert decided[0] < 0.1
    assert decided[1] > 0.2


def test_a_head_by_name_overrides_the_choice(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    model = done("fit", path, "-t", "y", "--head", "laplace", "-o", tmp_path / "m", "--json", *SHORT).json
    assert model["head"]["name"] == "laplace"
    assert model["record"]["choice"]["reason"] == "You asked for laplace."
    assert model["record"]["choice"]["problem"]["loss"] == "absolute error"
    assert "absolute error" in done("show", tmp_path / "m").out


def test_force_replaces_a_model_and_without_it_nothing_changes(tmp_path: Path) -> None:
    path, out = table(tmp_path / "t.csv"), tmp_path / "m"
    done("fit", path, "-t", "y", "-o", out, *SHORT)
    before = contents(tmp_path)
    message = refused("fit", path, "-t", "y", "-o", out, "--seed", "1", *SHORT)
    assert str(out) in message
    assert "--force" in message
    assert contents(tmp_path) == before
    done("fit", path, "-t", "y", "-o", out, "--seed", "1", "--force", *SHORT)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert after["m/model.safetensors"] != before["m/model.safetensors"]
    done("show", out)


def test_force_works_where_the_system_cannot_exchange_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = table(tmp_path / "t.csv"), tmp_path / "m"
    done("fit", path, "-t", "y", "-o", out, *SHORT)
    before = contents(tmp_path)
    monkeypatch.setattr("lastlayer.files._exchange", lambda one, other: False)
    done("fit", path, "-t", "y", "-o", out, "--seed", "1", "--force", *SHORT)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert after["m/model.safetensors"] != before["m/model.safetensors"]


def test_an_empty_folder_is_filled_and_folders_on_the_way_are_made(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        done("fit", path, "-t", "y", "-o", out, *SHORT)
        done("show", out)


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predictions_on_the_screen_are_csv_in_the_order_of_the_rows(tmp_path: Path, penguins: Path) -> None:
    outcome = done("predict", penguins, PENGUINS)
    assert outcome.err == ""
    (tmp_path / "screen.csv").write_text(outcome.out)
    predictions = read_table(tmp_path / "screen.csv")
    assert predictions.columns == ["prediction", *(f"probability_{name}" for name in SPECIES)]
    probability = predictions.drop("prediction").to_numpy()
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-9)
    assert [SPECIES[index] for index in probability.argmax(axis=1)] == predictions["prediction"].to_list()
    # The same rows in another order give the same predictions in that order.
    read_table(PENGUINS).reverse().write_csv(tmp_path / "reversed.csv")
    backwards = done("predict", penguins, tmp_path / "reversed.csv", "--json").json
    np.testing.assert_allclose(
        [list(row.values())[1:] for row in reversed(backwards)], probability, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_predictions_go_to_a_file_beside_the_identifier(tmp_path: Path, penguins: Path, ending: str) -> None:
    data = read_table(PENGUINS)
    data = data.with_columns(tag=polars.Series([f"p{index}" for index in range(data.height)])).sample(
        fraction=1.0, shuffle=True, seed=0
    )
    data.write_csv(tmp_path / "data.csv")
    out = tmp_path / f"predictions{ending}"
    outcome = done("predict", penguins, tmp_path / "data.csv", "--id", "tag", "-o", out)
    assert outcome.out == ""
    assert "344 predictions are in" in outcome.message
    assert str(out) in outcome.err.replace("\n", "")
    predictions = read_table(out)
    assert predictions.columns[:2] == ["tag", "prediction"]
    assert predictions["tag"].to_list() == data["tag"].to_list()
    screen = done("predict", penguins, tmp_path / "data.csv", "--json").json
    assert predictions["prediction"].to_list() == [row["prediction"] for row in screen]
    written = done("predict", penguins, tmp_path / "data.csv", "-o", out, "--json").json
    assert written == {"rows": 344, "columns": list(screen[0]), "file": str(out)}


def test_a_loaded_model_predicts_what_the_fitted_one_did(tmp_path: Path) -> None:
    data = read_table(PENGUINS)
    fitted = lastlayer.Classifier(max_epochs=2).fit(data.drop("species"), data["species"])
    fitted.save(tmp_path / "model")
    loaded = lastlayer.load(tmp_path / "model")
    expected = fitted.predict_proba(data.drop("species"))
    assert (loaded.predict_proba(data.drop("species")) == expected).all()
    rows = done("predict", tmp_path / "model", PENGUINS, "--json").json
    assert ([[row[f"probability_{name}"] for name in SPECIES] for row in rows] == expected).all()
    assert "negative log-likelihood" in done("show", tmp_path / "model").out


def test_a_quantity_comes_with_its_scale(tmp_path: Path) -> None:
    out = tmp_path / "m"
    model = done("fit", PENGUINS, "-t", "body_mass_g", "-o", out, "--json", *SHORT)
    assert model.json["head"]["name"] == "gaussian"
    assert model.err.startswith("note: 2 of 344 rows have no target")
    assert model.json["record"]["choice"]["rows_without_target"] == 2
    rows = done("predict", out, PENGUINS, "--json").json
    assert list(rows[0]) == ["prediction", "standard_deviation"]
    assert 3000 < np.mean([row["prediction"] for row in rows]) < 5500
    assert len({row["standard_deviation"] for row in rows}) == 1
    screen = done("evaluate", out, PENGUINS).out
    assert "root mean squared error" in screen
    assert "on 342 rows of penguins.csv.gz; 2 without a target passed over" in screen


def test_several_labels_from_named_columns(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    labels = {name: random.integers(0, 2, 60).tolist() for name in "abc"}
    path, out = table(tmp_path / "t.csv", rows=60, **labels), tmp_path / "m"
    model = done("fit", path, "--target", "a,b, c", "-o", out, "--json", *SHORT).json
    assert model["head"]["name"] == "multilabel"
    assert model["target"]["names"] == ["a", "b", "c"]
    rows = done("predict", out, path, "--json").json
    assert list(rows[0]) == ["a", "b", "c", "probability_a", "probability_b", "probability_c"]
    for row in rows:
        assert [row[name] for name in "abc"] == [int(row[f"probability_{name}"] > 0.5) for name in "abc"]
    assert set(done("evaluate", out, path, "--json").json["figures"]["network"]) >= {"label_accuracy", "f1_micro"}
    assert "all labels right" in done("show", out).out


def test_several_labels_from_an_array_of_an_archive(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    X, Y = random.normal(size=(50, 3)), random.integers(0, 2, (50, 2))
    np.savez(tmp_path / "t.npz", X=X, Y=Y, names=np.array(["a", "b"]))
    out = tmp_path / "m"
    screen = done("fit", tmp_path / "t.npz", "--target", "Y", "-o", out, *SHORT).out
    assert "Y_0, Y_1" in screen
    assert "'Y' is 2 columns of 0 and 1" in screen
    rows = done("predict", out, tmp_path / "t.npz", "--json").json
    assert list(rows[0]) == ["Y_0", "Y_1", "probability_Y_0", "probability_Y_1"]
    assert len(rows) == 50


# --- evaluate and show ------------------------------------------------------------------------------------------------


def test_evaluate_sets_the_network_beside_simpler_models(penguins: Path) -> None:
    screen = done("evaluate", penguins, PENGUINS).out
    for said in ("network", "constant", "linear", "accuracy", "ROC AUC", "on 344 rows of penguins.csv.gz"):
        assert said in screen
    result = done("evaluate", penguins, PENGUINS, "--json").json
    assert result["rows"] == 344
    assert result["rows_without_target"] == 0
    predicted = [row["prediction"] for row in done("predict", penguins, PENGUINS, "--json").json]
    accuracy = np.mean(np.array(predicted) == read_table(PENGUINS)["species"].to_numpy())
    assert result["figures"]["network"]["accuracy"] == pytest.approx(accuracy)


def test_a_figure_that_is_not_defined_is_a_dash_and_null(tmp_path: Path) -> None:
    path, out = table(tmp_path / "t.csv"), tmp_path / "m"
    done("fit", path, "-t", "x", "-o", out, *SHORT)
    one = table(tmp_path / "one.csv", rows=1)
    assert done("evaluate", out, one, "--json").json["figures"]["network"]["r2"] is None
    screen = done("evaluate", out, one).out
    assert "–" in screen
    assert "nan" not in screen
    assert "on 1 row of" in screen


def test_show_tells_all_of_the_model(penguins: Path) -> None:
    screen = done("show", penguins).out
    for said in ("species", "categorical", "bill_depth_mm", "dropout", "training loss", "validation loss", "held out"):
        assert said in screen
    description = done("show", penguins, "--json").json
    assert description == json.loads((penguins / "model.json").read_text())


def test_show_says_that_training_was_cut_short(penguins: Path) -> None:
    training = json.loads((penguins / "model.json").read_text())["record"]["training"]
    assert training["best_epoch"] == 2
    assert "give it more epochs" in " ".join(done("show", penguins).out.split())


def test_show_says_which_rows_the_network_has_learned_from(tmp_path: Path) -> None:
    record = done("fit", PENGUINS, "-t", "species", "-o", tmp_path / "m", "--json", *SHORT).json["record"]
    screen = " ".join(done("show", tmp_path / "m").out.split())
    assert f"{record['rows']['training']} to train on, {record['rows']['held_out']} held out" in screen
    assert record["refitted_on_all_rows"] is ("trained again on all 344 rows, for 2 epochs" in screen)
    assert record["refitted_on_all_rows"] is ("before the network was trained again" in screen)


# --- the command itself -----------------------------------------------------------------------------------------------


# Completion is asked for as the shell's own script asks. `--show-completion` would look for the shell it was called
# from, which differs from machine to machine.
@pytest.mark.parametrize(
    ("arguments", "asked", "answered"),
    [
        (("--help",), {}, "evaluate"),
        (("fit", "--help"), {}, "--target"),
        (("predict", "-h"), {}, "--interval"),
        ((), {"_LASTLAYER_COMPLETE": "source_bash"}, "COMP_WORDS"),
        ((), {"_LASTLAYER_COMPLETE": "complete_bash", "COMP_WORDS": "lastlayer pre", "COMP_CWORD": "1"}, "predict"),
    ],
)
def test_help_and_completion_answer_without_loading_pytorch(
    arguments: tuple[str, ...], asked: dict[str, str], answered: str
) -> None:
    program = (
        "import atexit, sys\n"
        "from lastlayer.cli import main\n"
        "sys.argv[0] = 'lastlayer'\n"
        "heavy = ('torch', 'polars', 'sklearn', 'scipy', 'numpy')\n"
        "atexit.register(lambda: print('LOADED', *[name for name in heavy if name in sys.modules]))\n"
        "main()\n"
    )
    outcome = process(*arguments, program=(COMMAND[0], "-c", program), env=environment(**asked))
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "LOADED"
    assert answered in outcome.out


def test_help_names_every_command_and_option() -> None:
    commands = done("--help").out
    for name in ("fit", "predict", "evaluate", "show"):
        assert name in commands
    options = done("fit", "--help").out
    for name in ("--target", "--out", "--head", "--seed", "--force", "--dry-run", "--json", "TABLE"):
        assert name in options


def test_completion_knows_the_commands() -> None:
    words = {"_LASTLAYER_COMPLETE": "complete_bash", "COMP_WORDS": "lastlayer pre", "COMP_CWORD": "1"}
    program = (COMMAND[0], "-c", "import sys; sys.argv[0] = 'lastlayer'; from lastlayer.cli import main; main()")
    assert process(program=program, env=environment(**words)).out.split() == ["predict"]


def test_a_process_of_its_own_keeps_results_and_remarks_apart(tmp_path: Path) -> None:
    out = tmp_path / "m"
    outcome = process("fit", PENGUINS, "-t", "sex", "-o", out, "--json", *SHORT)
    assert outcome.code == 0, outcome.err
    assert outcome.json["folder"] == str(out)
    assert outcome.message == "note: 11 of 344 rows have no target and are left out."
    assert "\x1b" not in outcome.out + outcome.err


def test_a_screen_that_knows_ascii_only_is_no_reason_to_crash(penguins: Path) -> None:
    outcome = process("show", penguins, env=environment(PYTHONIOENCODING="ascii"))
    assert outcome.code == 0, outcome.err
    assert "categorical" in outcome.out


def test_options_that_do_not_exist_are_refused() -> None:
    for arguments in (("fit", PENGUINS), ("fit", PENGUINS, "-t", "species", "--nope"), ("nope",)):
        outcome = run(*arguments)
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
