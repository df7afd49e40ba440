"""Every page of docs: its Python runs and prints what the page says, its links lead somewhere, its table is the code's.

Python that is run stands in a fenced block of ``python`` with prompts; a page's blocks share their names, and a block
ends in an empty line, without which the fence would count as output.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from torch import Tensor

from lastlayer import heads
from lastlayer.distributions import Distribution

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def examples(text: str, name: str) -> doctest.DocTest:
    """The page's fenced Python as one doctest; every other line is blank, so that line numbers are the page's."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        inside = line.rstrip() == "```python" if fence else inside
        lines.append(line if inside and not fence else "")
    return doctest.DocTestParser().get_doctest("\n".join(lines) + "\n", {"__name__": "__main__"}, name, name, 0)


def failures(text: str, name: str = "page") -> str:
    """What doctest says of each example that fails; nothing where all is well."""
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples(text, name), out=said.append)
    return "".join(said)


@every_page
def test_what_a_page_prints_is_what_its_python_does(page: Path) -> None:
    said = failures(page.read_text(encoding="utf-8"), page.name)
    assert not said, said


@every_page
def test_no_python_with_prompts_is_passed_over(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(examples(text, page.name).examples) == len(re.findall(r"^\s*>>> ", text, flags=re.MULTILINE))


@every_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_a_page_that_lies_is_caught() -> None:
    assert "Got:\n    2" in failures("```python\n>>> 1 + 1\n3\n\n```\n")
    assert "ZeroDivisionError" in failures("```python\n>>> 1 / 0\n\n```\n")
    assert failures("```python\n>>> a = 1\n\n```\ntext\n```python\n>>> a\n1\n\n```\n") == ""
    assert failures("```text\n>>> 1 / 0\n```\n") == ""


def head_table() -> str:
    """Target, head, loss and what can be asked of the prediction, for every head of the catalog."""
    lines = ["| target | head | loss | parameters | point prediction | distribution |", "|---|---|---|---|---|---|"]
    for name, kind in heads.catalog().items():
        raw, _ = kind.facts.example(2)
        lines.append(row(name, kind.default(), kind.facts.loss, raw))
        if "predicted" in (kind.facts.spelling or ""):
            spelled = f"{name}:predicted"
            head = heads.from_text(spelled)
            lines.append(row(spelled, head, head.formula.facts.name, raw.expand(-1, head.raw_size)))
    return "\n".join(lines)


def row(spelled: str, head: heads.Head, loss: str, raw: Tensor) -> str:
    parameters = ", ".join(f"`{parameter}`" for parameter in head.parameters(raw))
    cells = (
        head.facts.target,
        f"`{spelled}`, `heads.{type(head).__name__}`",
        f"`{loss}`",
        parameters,
        head.statistic,
        described(head, head.distribution(raw)),
    )
    return f"| {' | '.join(cells)} |"


def described(head: heads.Head, distribution: Distribution) -> str:
    """Its class, what its values are, and what it can be asked beside what every distribution can."""
    kind = type(distribution)
    values = "classes" if head.over_classes else "whole numbers" if distribution.discrete else "density"
    own = [
        name
        for name, member in vars(kind).items()
        if isinstance(member, property) and not name.startswith("_") and name not in {*dir(Distribution), "support"}
    ]
    return f"`{kind.__name__}`, {values}{'; also ' if own else ''}{', '.join(f'`{name}`' for name in own)}"


def test_the_table_of_heads_is_that_of_the_catalog() -> None:
    page = (ROOT / "docs" / "likelihoods.md").read_text(encoding="utf-8")
    printed = re.search(r"<!-- heads: begin -->\n\n(.*)\n\n<!-- heads: end -->", page, flags=re.DOTALL)
    assert printed is not None
    assert printed[1] == head_table(), f"docs/likelihoods.md: between the marks has to stand\n\n{head_table()}"


def test_the_page_names_every_question_of_the_contract() -> None:
    page = (ROOT / "docs" / "likelihoods.md").read_text(encoding="utf-8")
    operators = {"affine", "map", "mixed", "shape", "support", "discrete"}
    public = {name for name in vars(Distribution) if not name.startswith("_")} - operators
    assert {name for name in public if not re.search(rf"`{name}(\(\w\))?`", page)} == set()
