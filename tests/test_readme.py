"""The README's Python runs as it is printed, and says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lastlayer.heads import PROBLEM_TYPES, catalog

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # The distribution is of the same table; the rest goes on where the loop ended.
    before = {1: 0, 3: 2, 4: 2, 5: 2}.get(number, number)
    code = "\n".join(BLOCKS[before : number + 1])
    exec(compile(code, f"README block {number}", "exec"), {})


def test_the_estimator_takes_five_lines_and_the_loop_about_ten() -> None:
    assert len(BLOCKS) == 6
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 5


def test_the_table_of_last_layers_is_that_of_the_code() -> None:
    table = README.split("## Which last layer?")[1].split("`lastlayer.choose_head")[0]
    rows = re.findall(r"^\| (?:one|exactly|any|a )[^\n]*", table, flags=re.MULTILINE)
    assert len(rows) == len(PROBLEM_TYPES)
    for row, problem in zip(rows, PROBLEM_TYPES, strict=True):
        assert f"| {problem.activation} |" in row
        named = {name.lower() for name in re.findall(r"`(\w+)`", row)}
        assert named == {catalog()[head].__name__.lower() for head in problem.heads}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
