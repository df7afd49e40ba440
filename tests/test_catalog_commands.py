"""``lastlayer losses``, ``activations`` and ``heads``: tables of all, one with its curves, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from io import StringIO

import pytest
import torch
from rich.console import Console

from command_line import Outcome, done, environment, process, refused
from lastlayer import activations, heads, losses
from lastlayer.activations.softmax import Softmax
from lastlayer.commands import catalog as commands
from lastlayer.commands.catalog import details, listing
from lastlayer.facts import Interval
from lastlayer.losses.squared_error import SquaredError, SquaredErrorFormula
from lastlayer.report.catalog import catalog_text, details_text, in_ascii
from lastlayer.report.plot import plot

CATALOGS = {"losses": losses.catalog, "activations": activations.catalog, "heads": heads.catalog}
ENTRIES = [(kind, name) for kind, catalog in CATALOGS.items() for name in catalog()]
DRAWN = [entry for entry in ENTRIES if entry[0] != "heads"]
every_kind = pytest.mark.parametrize("kind", CATALOGS)


def flat(text: str) -> str:
    """On one line, whatever was wrapped where."""
    return " ".join(text.split())


def shown(renderable: object, width: int = 80) -> str:
    screen = Console(file=StringIO(), width=width, highlight=False)
    screen.print(renderable)
    return screen.file.getvalue()


# --- all of a kind ----------------------------------------------------------------------------------------------------


@every_kind
def test_without_a_name_all_are_listed(kind: str) -> None:
    outcome = done(kind)
    assert outcome.err == ""
    for name, entry in CATALOGS[kind]().items():
        row = next(line for line in outcome.out.splitlines() if line.split()[:1] == [name])
        assert row.split()[1:]
        if kind == "activations":
            assert str(entry.facts.range) in row
    assert f"lastlayer {kind} NAME" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


@every_kind
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_table_fits_every_width_and_leaves_nothing_out(kind: str, width: int, ascii_only: bool) -> None:
    records = listing(kind)
    text = shown(catalog_text(kind, records, ascii_only=ascii_only), width)
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    for record in records:
        assert record["name"] in words
        said = record["likelihood"] if kind == "heads" else record["use_when"]
        assert words >= set((in_ascii(said) if ascii_only else said).split())


@every_kind
def test_the_list_as_json_is_the_facts(kind: str) -> None:
    records = done(kind, "--json").json
    catalog = CATALOGS[kind]()
    assert [record["name"] for record in records] == list(catalog)
    for record, entry in zip(records, catalog.values(), strict=True):
        fields = {field.name for field in dataclasses.fields(entry.facts)} - {"example"}
        assert set(record) == fields
        for field in fields:
            value = getattr(entry.facts, field)
            assert record[field] == (str(value) if isinstance(value, Interval) else value)


# --- one of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_one_is_shown_with_all_that_is_known(kind: str, name: str) -> None:
    outcome = done(kind, name)
    screen = flat(outcome.out)
    facts = CATALOGS[kind]()[name].facts
    keys = {
        "losses": ("formula", "gradient", "link", "minimum", "optimal_constant", "use_when", "avoid_when"),
        "activations": ("formula", "derivative", "range", "use_when", "avoid_when"),
        "heads": ("target", "activation", "loss", "likelihood"),
    }[kind]
    for key in ("name", "title", "reference", *keys):
        assert flat(str(getattr(facts, key))).replace(" ", "") in screen.replace(" ", ""), key
    if kind == "losses":
        assert f"raw output {facts.raw}" in screen
        assert ("not convex" in screen) == (not facts.convex)
        assert ("not smooth" in screen) == (not facts.smooth)
        assert "reduction='mean'" in screen
    assert outcome.err == ""
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize(("kind", "name"), DRAWN)
def test_the_curves_are_those_of_the_function(kind: str, name: str) -> None:
    curves = done(kind, name, "--json").json["curves"]
    x = torch.tensor(curves["x"], dtype=torch.float64)
    slope = "gradient" if kind == "losses" else "derivative"
    assert 1 <= len(curves["lines"]) <= 2
    for line in curves["lines"]:
        value, derivative = (torch.tensor(line[key], dtype=torch.float64) for key in ("value", slope))
        assert len(value) == len(derivative) == len(x)
        assert value.max() - value.min() > 1e-6
        if name == "binary_step":
            # Its derivative knows nothing of the jump.
            continue
        # The mean value theorem: between two points the value rises by a slope that lies between theirs.
        step, turn = x.diff(), derivative.diff().abs()
        off = (value.diff() - step * (derivative[1:] + derivative[:-1]) / 2).abs()
        assert (off <= step * (turn + 1e-3 * derivative.abs().max()) + 1e-12).all()


@pytest.mark.parametrize(
    ("name", "labels", "at_zero"),
    [
        ("squared_error", ["y = 0"], [0.0]),
        ("binary_cross_entropy", ["y = 0", "y = 1"], [math.log(2), math.log(2)]),
        ("cross_entropy", ["y = class 0", "y = class 1"], [math.log(5), math.log(5)]),
    ],
)
def test_the_targets_of_the_curves(name: str, labels: list[str], at_zero: list[float]) -> None:
    curves = done("losses", name, "--json").json["curves"]
    middle = len(curves["x"]) // 2
    assert curves["x"][middle] == pytest.approx(0.0, abs=1e-12)
    assert [line["label"] for line in curves["lines"]] == labels
    assert [line["value"][middle] for line in curves["lines"]] == pytest.approx(at_zero, abs=1e-12)
    said = done("losses", name).out
    assert all(label in said for label in labels)


def test_a_plot_over_one_of_several_says_so() -> None:
    assert "raw output 0 of 0 to 4, the others at 0" in done("losses", "cross_entropy").out
    assert Softmax.facts.profile in flat(done("activations", "softmax").out)
    assert "others at 0" not in done("losses", "squared_error").out


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(), [0.0]),
        (Interval(0, 1, low_closed=True, high_closed=True), [0.0, 1.0]),
        (Interval(0, 1), [0.25, 0.75]),
        (Interval(0), [1.0, 3.0]),
        (Interval(0, low_closed=True), [0.0, 3.0]),
        (Interval(high=0.0), [-3.0, -1.0]),
        (Interval(high=0.0, high_closed=True), [-3.0, 0.0]),
    ],
)
def test_targets_of_the_curves_lie_in_the_domain(
    interval: Interval, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = dataclasses.replace(SquaredErrorFormula.facts, target=interval)
    monkeypatch.setattr(SquaredErrorFormula, "facts", facts)
    lines = details("losses", "squared_error")["curves"]["lines"]
    assert [line["label"] for line in lines] == [f"y = {value:g}" for value in expected]
    for line, target in zip(lines, expected, strict=True):
        assert interval.contains(torch.tensor(target, dtype=torch.float64))
        assert line["value"][80] == pytest.approx(target**2)


def test_a_target_that_is_a_row_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def example(n: int, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        raw, target = SquaredErrorFormula.facts.example(3 * n, **options)
        return raw.reshape(n, 3), torch.eye(3, dtype=target.dtype)[torch.arange(n) % 3]

    class Rows(SquaredErrorFormula):
        facts = dataclasses.replace(SquaredErrorFormula.facts, name="rows", example=example)
        event_dims = 1

        def value(self, raw: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return super().value(raw, target).sum(-1)

    class OfRows(SquaredError):
        @property
        def formula(self) -> Rows:
            return Rows()

    monkeypatch.setitem(commands._CATALOGS, "losses", lambda: {"rows": OfRows()})
    curves = details("losses", "rows")["curves"]
    assert [line["label"] for line in curves["lines"]] == ["y = (1, 0, 0)", "y = (0, 1, 0)"]
    assert curves["shows"] == "raw output 0 of 0 to 2, the others at 0"
    assert curves["lines"][0]["value"][80] == pytest.approx(1.0)
    assert curves["lines"][0]["gradient"][80] == pytest.approx(-2.0)


def test_options_stand_with_their_defaults() -> None:
    options = done("losses", "cross_entropy", "--json").json["options"]
    expected = {"weight": None, "label_smoothing": 0.0, "ignore_index": -100, "reduction": "mean"}
    assert expected.items() <= options.items()
    assert not {"raw", "target"} & set(options)
    assert done("activations", "leaky_relu", "--json").json["options"] == {"slope": 0.01}
    assert done("activations", "relu", "--json").json["options"] == {}
    assert "options" not in done("activations", "relu").out
    assert done("heads", "categorical", "--json").json["options"] == {"classes": "required"}
    assert "lower=0.125, upper=0.3333" in done("activations", "rrelu").out


def test_capitals_and_hyphens_do_not_matter() -> None:
    for spelled in ("binary_cross_entropy", "Binary-Cross-Entropy", "BINARY_CROSS_ENTROPY"):
        assert done("losses", spelled, "--json").json["name"] == "binary_cross_entropy"
    assert done("activations", "ReLU", "--json").json["name"] == "relu"


@pytest.mark.parametrize(
    ("kind", "wrong", "meant"),
    [
        ("losses", "cros_entropy", "'cross_entropy'"),
        ("losses", "CrossEntropy", "'cross_entropy'"),
        ("activations", "leakyrelu", "'leaky_relu'"),
        ("heads", "gausian", "'gaussian'"),
    ],
)
def test_an_unknown_name_is_refused_with_what_may_be_meant(kind: str, wrong: str, meant: str) -> None:
    for arguments in ((kind, wrong), (kind, wrong, "--json")):
        message = refused(*arguments)
        assert f"named {wrong!r}. Did you mean" in message
        assert meant in message
        assert f"lastlayer {kind} lists them all" in message


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    message = refused("losses", "zzz")
    assert message == "error: there is no loss named 'zzz'. lastlayer losses lists them all."


# --- on other screens -------------------------------------------------------------------------------------------------


def in_a_process(*arguments: str, **settings: str) -> Outcome:
    return process(*arguments, env=environment(**settings))


def test_a_screen_that_knows_ascii_only_gets_nothing_else() -> None:
    settings = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    drawn = in_a_process("losses", "binary_cross_entropy", **settings)
    assert drawn.code == 0
    assert drawn.out.isascii()
    assert "-y log sigma(s) - (1 - y) log sigma(-s)" in flat(drawn.out)
    assert "*: y = 0, o: y = 1" in drawn.out
    assert "\\u" not in drawn.out
    listed = in_a_process("activations", **settings)
    assert listed.code == 0
    assert listed.out.isascii()
    assert "\\u" not in listed.out
    assert "(-inf, inf)" in listed.out


def test_another_screen_gets_braille() -> None:
    drawn = in_a_process("activations", "tanh", PYTHONIOENCODING="utf-8", COLUMNS="100")
    assert any("\u2801" <= character <= "\u28ff" for character in drawn.out)
    assert max(map(len, drawn.out.splitlines())) <= 100


@pytest.mark.parametrize("width", [40, 63, 64, 80, 120, 300])
@pytest.mark.parametrize(
    ("kind", "name"), [("losses", "cross_entropy"), ("activations", "gelu"), ("heads", "gaussian")]
)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_one_fits_every_width(kind: str, name: str, width: int, ascii_only: bool) -> None:
    text = shown(details_text(details(kind, name), width=width, ascii_only=ascii_only), width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    assert text.isascii() or not ascii_only
    if kind != "heads":
        value, slope = (
            next(number for number, line in enumerate(lines) if f"{key} over" in line)
            for key in ("value", "gradient" if kind == "losses" else "derivative")
        )
        assert (value == slope) == (width >= 64)


def test_signs_are_typed_in_ascii() -> None:
    assert in_ascii("−Σ_c σ(s)² ≤ ½ ‖y‖₁ → ∞, Müller") == "-sum_c sigma(s)^2 <= 1/2 ||y||1 -> inf, Muller"
    assert in_ascii("\u2603") == "<snowman>"


@every_kind
def test_every_fact_can_be_typed_in_ascii(kind: str) -> None:
    typed = in_ascii(json.dumps(listing(kind), ensure_ascii=False))
    assert typed.isascii()
    assert [record["name"] for record in json.loads(typed)] == list(CATALOGS[kind]())


# --- the plot ---------------------------------------------------------------------------------------------------------

X = [index / 20 for index in range(-40, 41)]


def test_a_line_goes_from_corner_to_corner() -> None:
    rows = plot(X, [X], width=44, height=9, ascii_only=True)
    canvas = [row[4:] for row in rows[:9]]
    assert len(rows) == 11
    assert canvas[0].rstrip().endswith("*")
    assert canvas[8].startswith("*")
    columns = [row.index("*") for row in canvas]
    assert columns == sorted(columns, reverse=True)
    assert rows[0].startswith("  2+")
    assert rows[4].startswith("  0+")
    assert rows[8].startswith(" -2+")
    assert rows[10].split() == ["-2", "0", "2"]


def test_every_column_of_a_curve_is_drawn_and_a_jump_is_joined() -> None:
    step = [0.0 if value < 0 else 1.0 for value in X]
    rows = plot(X, [step], width=44, height=9, ascii_only=True)
    canvas = [row.ljust(44)[5:] for row in rows[:9]]
    heights = [{row for row in range(9) if canvas[row][column] == "*"} for column in range(39)]
    assert all(heights)
    assert heights[0] == {8}
    assert heights[-1] == {0}
    assert set(range(1, 8)) <= set().union(*heights[18:21])


def test_braille_dots_lie_on_the_curve() -> None:
    """Dot by dot, with the numbering of Unicode: 1 2 3 down on the left, 4 5 6 on the right, 7 and 8 below."""
    rows = plot(X, [[value**2 for value in X]], width=44, height=9)
    margin = rows[0].index("┤") + 1
    bits = {(0, 0): 1, (0, 1): 2, (0, 2): 4, (1, 0): 8, (1, 1): 16, (1, 2): 32, (0, 3): 64, (1, 3): 128}
    lit = {
        (2 * place + column, 4 * line + row)
        for line, text in enumerate(rows[:9])
        for place, character in enumerate(text[margin:])
        if character != " "
        for (column, row), bit in bits.items()
        if (ord(character) - 0x2800) & bit
    }
    columns = 2 * (44 - margin)
    for column in range(columns):
        value = (-2 + 4 * column / (columns - 1)) ** 2
        expected = (4 - value) / 4 * 35
        assert min(abs(row - expected) for at, row in lit if at == column) < 1
    assert {column for column, _ in lit} == set(range(columns))


def test_the_second_curve_is_dotted_and_the_first_stays_on_top() -> None:
    def dots(rows: list[str]) -> int:
        return sum(bin(ord(character) - 0x2800).count("1") for row in rows for character in row if character > "\u2800")

    assert dots(plot(X, [X], width=60)) > 2 * dots(plot(X, [[math.nan] * len(X), X], width=60)) > 0
    both = "".join(plot(X, [X, X], width=60, ascii_only=True))
    assert "*" in both
    assert "o" not in both


@pytest.mark.parametrize("gap", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_leaves_a_gap(gap: float) -> None:
    curve = [gap if value > 0 else value for value in X]
    rows = plot(X, [curve], width=44, height=9, ascii_only=True)
    columns = {column for row in rows[:9] for column, character in enumerate(row[5:]) if character == "*"}
    assert columns
    assert max(columns) <= 20


@pytest.mark.parametrize(
    ("curve", "low", "high"),
    [
        ([0.0] * len(X), "-0.5", "0.5"),
        ([1e-12 * value for value in X], None, None),
        ([1e12 * value for value in X], None, None),
        ([math.nan] * len(X), "0.0", "1.0"),
        ([0.0025 + 0.995 * (value > 0) for value in X], "0.0", "1.0"),
    ],
)
def test_the_axis_fits_what_is_drawn(curve: list[float], low: str | None, high: str | None) -> None:
    rows = plot(X, [curve], width=60)
    assert len(rows) == 13
    assert max(map(len, rows)) <= 60
    if low is not None:
        assert rows[0].split("┤")[0].strip() == high
        assert rows[10].split("┤")[0].strip() == low
