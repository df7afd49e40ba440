"""The doctor's questions about what gives the target away: columns, rows on both sides of the split, whole tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn import datasets
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from command_line import PENGUINS
from lastlayer.diagnosis import leakage
from lastlayer.diagnosis.duplicates import chance_of_a_twin, row_keys, share_repeated, share_seen
from lastlayer.diagnosis.examination import examine
from lastlayer.diagnosis.finding import Findings
from lastlayer.diagnosis.leakage import duplicated_rows, leaking_column
from lastlayer.diagnosis.leaks import Values, find_leaks
from lastlayer.diagnosis.table_questions import ask_about_table
from lastlayer.preprocessing import read_table
from test_diagnosis_data_inputs import generator, mlp, normal

RANDOM = np.random.default_rng(0)
ROWS = 300
CELLS = RANDOM.normal(size=(ROWS, 5))
NOISE = RANDOM.normal(size=ROWS)
QUANTITY = CELLS[:, 0] + 0.5 * CELLS[:, 1] ** 2 + 0.5 * NOISE
CLASSES = np.digitize(CELLS[:, 0] + 0.8 * NOISE, [-0.6, 0.6])


def leaks(cells: NDArray[Any], target: NDArray[Any], *, classes: bool) -> Findings:
    features = torch.tensor(cells, dtype=torch.float32)
    wanted = torch.tensor(target) if classes else torch.tensor(target, dtype=torch.float32).unsqueeze(1)
    network = mlp(cells.shape[1], int(target.max()) + 1 if classes else 1)
    loss = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    return examine((leaking_column,), network, loss, (features, wanted))


def beside(column: NDArray[Any]) -> NDArray[Any]:
    """The cells with a column put between them, at place 2."""
    return np.insert(CELLS, 2, column, axis=1)


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "severity"),
    [
        (QUANTITY, "error"),
        (-3 * QUANTITY + 100, "error"),
        (np.exp(QUANTITY), "warning"),
        (QUANTITY + 1e-3 * NOISE, "warning"),
        (QUANTITY + 0.3 * RANDOM.normal(size=ROWS), None),
        (NOISE, None),
    ],
    ids=["itself", "in other units", "its exponential", "measured again", "with noise", "what is missing"],
)
def test_columns_beside_a_quantity(column: NDArray[Any], severity: str | None) -> None:
    found = leaks(beside(column), QUANTITY, classes=False)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    if severity:
        assert found[0].where == "column 2 of the inputs"
        left = 1 - spearmanr(column, QUANTITY)[0] ** 2
        assert found[0].numbers["left"] == pytest.approx(left, abs=1e-5)


@pytest.mark.parametrize(
    ("column", "severity"),
    [
        (CLASSES, "error"),
        (np.array([5.0, -1.0, 2.0])[CLASSES], "error"),
        (CLASSES + 0.01 * NOISE, "warning"),
        (np.argsort(np.argsort(CLASSES, kind="stable")), "warning"),
        (CLASSES + 0.5 * NOISE, None),
        (RANDOM.permutation(ROWS), None),
    ],
    ids=[
        "itself",
        "other names",
        "measured",
        "number of rows sorted by class",
        "with noise",
        "number of shuffled rows",
    ],
)
def test_columns_beside_classes(column: NDArray[Any], severity: str | None) -> None:
    found = leaks(beside(column), CLASSES, classes=True)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    if severity:
        tree = DecisionTreeClassifier(max_leaf_nodes=3).fit(column.reshape(-1, 1), CLASSES)
        wrong = (tree.predict(column.reshape(-1, 1)) != CLASSES).sum()
        assert found[0].numbers["left"] == pytest.approx(wrong / (ROWS - np.bincount(CLASSES).max()))


def test_a_column_known_but_for_a_few_rows_still_gives_it_away() -> None:
    column = CLASSES.copy()
    column[0] = (column[0] + 1) % 3
    assert leaks(beside(column), CLASSES, classes=True).warnings
    column[:30] = (column[:30] + 1) % 3
    assert not leaks(beside(column), CLASSES, classes=True)


def test_one_hot_targets_and_two_classes() -> None:
    two = (CLASSES > 0).astype(np.int64)
    assert leaks(beside(1 - two), two, classes=True).errors
    features, one_hot = torch.tensor(beside(CLASSES), dtype=torch.float32), nn.functional.one_hot(torch.tensor(CLASSES))
    assert examine((leaking_column,), mlp(6, 3), nn.CrossEntropyLoss(), (features, one_hot.float())).errors


def test_two_columns_that_give_it_away_are_both_found() -> None:
    cells = np.column_stack([CELLS, CLASSES, 2 - CLASSES])
    assert {finding.where for finding in leaks(cells, CLASSES, classes=True)} == {
        "column 5 of the inputs",
        "column 6 of the inputs",
    }


def test_an_easy_problem_has_no_leak() -> None:
    # Every column says it all; and a line through the other columns says it as well.
    apart = CLASSES[:, None] + 0.05 * RANDOM.normal(size=(ROWS, 4))
    assert not leaks(apart, CLASSES, classes=True)
    total = CELLS.sum(axis=1)
    assert not leaks(np.column_stack([CELLS, total]), total, classes=False)
    # A toy of one column.
    assert not leaks(CELLS[:, :1], 2 * CELLS[:, 0], classes=False)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_real_data_have_no_leak(name: str) -> None:
    features, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    assert not leaks(features[:600], target[:600], classes=name != "diabetes")


def test_the_width_of_an_irises_petal_is_the_best_of_honest_columns() -> None:
    # The figure in the comment of SAYS_ALL.
    features, target = datasets.load_iris(return_X_y=True)
    tree = DecisionTreeClassifier(max_leaf_nodes=3).fit(features[:, 3:], target)
    assert 1 - (tree.predict(features[:, 3:]) != target).sum() / 100 == pytest.approx(0.94)


def test_few_rows_wide_tables_reconstructions_and_tokens_are_left_alone() -> None:
    assert not leaks(beside(CLASSES)[:40], CLASSES[:40], classes=True)
    x = normal(100, 8)
    assert not examine((leaking_column,), mlp(8, 8), nn.MSELoss(), (x, x)), "an autoencoder"
    tokens = torch.randint(5, (100, 8), generator=generator())
    network = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(16, 5))
    assert not examine((leaking_column,), network, nn.CrossEntropyLoss(), (tokens, tokens[:, 0]))
    assert not examine((leaking_column,), mlp(8), nn.MSELoss(), x)


def test_a_category_of_rows_of_its_own_says_nothing() -> None:
    # Every row another name: the classes of the other rows of that name are none.
    names = Values("name", np.arange(ROWS, dtype=float), category=True)
    honest = [Values("x", CELLS[:, 0]), Values("z", CELLS[:, 1])]
    for target, classes in ((CLASSES.astype(float), True), (QUANTITY, False)):
        assert not find_leaks([*honest, names], target, classes=classes, others=lambda _: CELLS[:, :2])
    # The wrong twin: taken for numbers in the order of the classes, they say it all.
    numbers = Values("name", np.argsort(np.argsort(CLASSES)).astype(float))
    assert find_leaks([*honest, numbers], CLASSES.astype(float), classes=True, others=lambda _: CELLS[:, :2])


# --- rows -------------------------------------------------------------------------------------------------------------


def duplicates(batch: Any, validation: Any, **more: Any) -> Findings:
    width = batch[0].shape[1] if isinstance(batch[0], Tensor) else 8
    return examine((duplicated_rows,), mlp(width), nn.MSELoss(), batch, validation=validation, **more)


def test_rows_on_both_sides_are_found_and_counted() -> None:
    x, y = normal(400, 8), normal(400, 1, seed=3)
    others = (torch.cat([normal(90, 8, seed=4), x[:10]]), torch.cat([normal(90, 1, seed=5), y[:10]]))
    (finding,) = duplicates((x, y), others)
    assert (finding.severity, finding.numbers["rows"]) == ("warning", 10.0)
    assert "10 of 100 (10 %)" in finding.evidence
    assert not duplicates((x, y), (normal(100, 8, seed=4), normal(100, 1, seed=5)))
    # The same inputs measured again are no copies.
    assert not duplicates((x, y), (x[:100], normal(100, 1, seed=5)))


def test_validating_on_what_was_learned_from_is_an_error() -> None:
    x, y = normal(100, 8), normal(100, 1)
    assert duplicates((x, y), (x, y))[0].severity == "error"


def test_all_rows_to_learn_from_are_looked_at_where_they_are_known() -> None:
    x, y = normal(400, 8), normal(400, 1)
    batch, validation = (x[:20], y[:20]), (x[300:], y[300:])
    assert not duplicates(batch, validation)
    assert duplicates(batch, validation, training=(x, y)).errors


def test_a_pair_or_two_by_accident_is_nothing() -> None:
    x, y = normal(400, 8), normal(400, 1)
    assert not duplicates(
        (x, y), (torch.cat([normal(98, 8, seed=1), x[:2]]), torch.cat([normal(98, 1, seed=2), y[:2]]))
    )


def test_tables_of_few_values_repeat_by_chance() -> None:
    coins = (torch.rand(600, 4, generator=generator()) < 0.5).float()
    sums = coins.sum(1, keepdim=True)
    assert not duplicates((coins[:450], sums[:450]), (coins[450:], sums[450:]))
    # The wrong twin: copies in a table where hardly a row repeats by chance.
    fine = torch.cat([coins, normal(600, 2)], dim=1)
    fine[450:500] = fine[:50]
    sums[450:500] = sums[:50]
    assert duplicates((fine[:450], sums[:450]), (fine[450:], sums[450:]))


def test_drawings_of_a_few_shades_repeat_by_nature() -> None:
    # Discs on a small canvas: their pixels depend on each other, so that independent columns say nothing.
    place, size = (
        torch.randint(4, 12, (800, 2), generator=generator()),
        torch.randint(2, 4, (800, 1), generator=generator(1)),
    )
    grid = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"))
    discs = ((grid - place[..., None, None]).square().sum(1) <= size[..., None].square()).float().reshape(800, 256)
    assert chance_of_a_twin(discs.numpy()) < 1e-3
    assert not duplicates((discs[:600], discs[:600]), (discs[600:], discs[600:]))
    shaded = discs + 0.1 * normal(800, 256)
    shaded[600:700], discs[600:700] = shaded[:100], discs[:100]
    assert duplicates((shaded[:600], discs[:600]), (shaded[600:], discs[600:]))


def test_images_other_precisions_and_several_inputs() -> None:
    images, y = torch.rand(60, 1, 8, 8, generator=generator()), normal(60, 1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    (finding,) = examine(
        (duplicated_rows,), network, nn.MSELoss(), (images, y), validation=(images[:20].double(), y[:20].double())
    )
    assert finding.numbers["share"] == 1.0
    x = normal(60, 8).bfloat16()
    assert duplicates((x, y), (x[:30], y[:30]))
    pair = {"left": normal(60, 4), "right": normal(60, 4, seed=9)}
    few = {name: part[:30] for name, part in pair.items()}
    assert duplicates((pair, y), (few, y[:30]))
    few["right"] = few["right"] + 1
    assert not duplicates((pair, y), (few, y[:30]))


def test_repeated_rows_are_counted_as_pandas_counts_them() -> None:
    cells = RANDOM.integers(3, size=(500, 6))
    keys = row_keys(cells)
    assert share_repeated(keys) == pytest.approx(pandas.DataFrame(cells).duplicated(keep=False).mean())
    count, share = share_seen(keys[400:], keys[:400])
    known = {tuple(row) for row in cells[:400].tolist()}
    assert count == sum(tuple(row) in known for row in cells[400:].tolist())
    assert share == count / 100
    assert row_keys(np.array([[0.0], [-0.0]]))[0] == row_keys(np.array([[-0.0], [0.0]]))[0]


def test_the_chance_of_a_twin_is_what_drawing_rows_shows() -> None:
    shares = [[0.5, 0.5], [0.7, 0.2, 0.1], [0.25] * 4, [1 / 30] * 30, [1 / 20] * 20]

    def drawn(rows: int) -> NDArray[Any]:
        return np.column_stack([RANDOM.choice(len(share), size=rows, p=share) for share in shares])

    table = drawn(400)
    among, new = row_keys(table), row_keys(drawn(20_000))
    assert chance_of_a_twin(table) == pytest.approx(share_seen(new, among)[1], rel=0.25)


# --- tables -----------------------------------------------------------------------------------------------------------


def table(**columns: Any) -> polars.DataFrame:
    town = RANDOM.choice(["Ulm", "Bonn", "Kiel"], size=ROWS)
    return polars.DataFrame({"x": CELLS[:, 0], "z": CELLS[:, 1], "town": town, **columns})


@pytest.mark.parametrize(
    ("column", "severity"),
    [
        (np.array(["low", "middle", "high"])[CLASSES], "error"),
        (np.array(["a b", "a b", "c"])[CLASSES], None),
        ([f"{index % 20}-{kind}" for index, kind in enumerate(CLASSES)], "warning"),
        (CLASSES * 10.0 + 0.1 * NOISE, "warning"),
        (np.array([f"{2000 + kind}-01-01" for kind in CLASSES], dtype="datetime64[D]"), "error"),
    ],
    ids=["names", "two of three", "many names", "numbers", "dates"],
)
def test_columns_of_a_table_that_give_classes_away(column: Any, severity: str | None) -> None:
    found = ask_about_table(table(grade=column), CLASSES, name="y", classes=True)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    if severity:
        assert found[0].where == "column 'grade'"
        assert "--drop grade" in found[0].fix


def test_a_category_that_gives_a_quantity_away() -> None:
    exact = np.round(QUANTITY).clip(-2, 2)
    names = [f"kind {value}" for value in exact]
    assert not ask_about_table(table(kind=names), QUANTITY, classes=False)
    assert ask_about_table(table(kind=names), exact, classes=False).names == ["leaking_column"]


def test_identifiers_are_left_out_anyway() -> None:
    ordered = np.sort(CLASSES)
    frame = polars.DataFrame({"user_id": np.arange(ROWS), "x": CELLS[:, 0], "z": CELLS[:, 1]})
    assert not ask_about_table(frame, ordered, classes=True)
    # The wrong twin: a name and a step that do not look like an identifier's.
    assert ask_about_table(frame.rename({"user_id": "place"}) * polars.Series([3]), ordered, classes=True).names == [
        "leaking_column"
    ]


@pytest.mark.parametrize(
    "kind", [polars.DataFrame, pandas.DataFrame, pyarrow.table], ids=["polars", "pandas", "pyarrow"]
)
def test_tables_of_every_kind_with_missing_cells(kind: Any) -> None:
    grade = [None if index % 10 == 0 else ["low", "middle", "high"][value] for index, value in enumerate(CLASSES)]
    x = [None if index % 7 == 0 else value for index, value in enumerate(CELLS[:, 0].tolist())]
    columns = {"x": x, "z": CELLS[:, 1].tolist(), "grade": grade, "same": [1] * ROWS, "empty": [None] * ROWS}
    found = ask_about_table(kind(columns), CLASSES, classes=True)
    assert found.names == ["leaking_column", "constant_column"]
    columns["grade"] = columns["grade"][1:] + columns["grade"][:1]
    assert ask_about_table(kind(columns), CLASSES, classes=True).names == ["constant_column"]


def test_rows_that_occur_again() -> None:
    frame = table()
    twice = polars.concat([frame, frame[:60]])
    target = np.concatenate([QUANTITY, QUANTITY[:60]])
    (finding,) = ask_about_table(twice, target, classes=False)
    assert finding.numbers["share"] == pytest.approx(twice.with_columns(y=target).is_duplicated().mean())
    assert finding.severity == "warning"
    assert not ask_about_table(frame, QUANTITY, classes=False)
    # Of few values they repeat by chance.
    coins = polars.DataFrame(RANDOM.integers(2, size=(ROWS, 4)), schema=list("abcd"), orient="row")
    assert not ask_about_table(coins, RANDOM.integers(2, size=ROWS), classes=True)


def test_rare_classes_by_name_unless_they_are_weighted() -> None:
    target = np.array(["common"] * 294 + ["rare"] * 6)
    (finding,) = ask_about_table(table(), target, name="y", classes=True)
    assert finding.name == "unbalanced_classes"
    assert "class rare has 6 of 300" in finding.evidence
    assert not ask_about_table(table(), target, classes=True, weighted=True)
    labels = np.column_stack([CLASSES > 0, target == "rare"]).astype(float)
    (finding,) = ask_about_table(table(), labels, name="y", classes=True)
    assert (finding.severity, finding.where) == ("note", "label 1 of 'y'")


@pytest.mark.parametrize(("target", "classes"), [("species", True), ("sex", True), ("body_mass_g", False)])
def test_the_penguins_are_healthy(target: str, classes: bool) -> None:
    penguins = read_table(PENGUINS).filter(polars.col(target).is_not_null())
    assert not ask_about_table(penguins.drop(target), penguins[target].to_numpy(), classes=classes)


def test_every_check_of_the_file_is_listed() -> None:
    assert set(leakage.CHECKS) == {leaking_column, duplicated_rows}
