"""What ``lastlayer doctor`` makes up for a network without data, losses by name, and how findings are shown."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
import torch
from rich.console import Console

from command_line import done
from lastlayer.commands.loss_names import PYTORCH, loss_by_name
from lastlayer.commands.made_up import make_up_inputs, make_up_target, takes
from lastlayer.diagnosis import Findings
from lastlayer.diagnosis.fault import Fault
from lastlayer.report.findings_text import findings_text

# --- what is made up --------------------------------------------------------------------------------------------------


def nn_of(text: str) -> torch.nn.Module:
    network = eval(text, {"nn": torch.nn, "torch": torch})
    assert isinstance(network, torch.nn.Module)
    return network


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("nn.Linear(7, 2)", (64, 7)),
        ("nn.Sequential(nn.Flatten(), nn.Linear(784, 10))", (64, 784)),
        ("nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))", (64, 3, 28, 28)),
        ("nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4 * 28 * 28, 2))", (64, 3, 32, 32)),
        ("nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU())", (64, 2, 16)),
        ("nn.LSTM(5, 8, batch_first=True)", None),
        ("nn.Sequential(nn.Embedding(30, 4), nn.Flatten(), nn.Linear(64, 2))", (64, 16)),
        ("nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 1))", (64, 6)),
        ("nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)", (64, 16, 16)),
    ],
)
def test_inputs_are_of_a_shape_that_the_network_takes(text: str, shape: tuple[int, ...] | None) -> None:
    made = make_up_inputs(nn_of(text))
    assert made is not None
    if shape is None:
        assert not made.fits, "it returns several tensors, which no loss of ours takes"
    else:
        assert (made.fits, tuple(made.features.shape)) == (True, shape)


LOSSES = [
    *PYTORCH,
    "focal",
    "tanimoto",
    "quantile",
    "gaussian",
    "laplace",
    "poisson",
    "bernoulli",
    "unit_interval",
    "gamma",
    "beta",
    "MSELoss",
    "HuberLoss",
]


@pytest.mark.parametrize("name", LOSSES)
def test_targets_are_of_a_kind_that_the_loss_takes(name: str) -> None:
    loss = loss_by_name(name, width=3)
    width = getattr(loss, "raw_size", 3)
    network = torch.nn.Linear(4, width)
    features = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    target, words = make_up_target(network, loss, features)
    assert target is not None
    assert words
    assert takes(loss, network(features), target)


@pytest.mark.parametrize("name", ["categorical", "ordinal", "multilabel", "mixture:2", "gaussian:predicted"])
def test_heads_by_name(name: str) -> None:
    head = loss_by_name(name, width=4)
    network = torch.nn.Linear(4, head.raw_size)
    target, _ = make_up_target(network, head, torch.zeros(64, 4))
    assert target is not None
    assert torch.isfinite(head.loss(network(torch.zeros(64, 4)), target))


def test_an_own_loss_gets_the_target_that_it_means() -> None:
    def of_quantities(raw: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((raw[:, 0] - target) ** 2 / raw[:, 1].exp() + raw[:, 1]).mean()

    def of_classes(raw: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.nll_loss(raw.log_softmax(-1), target)

    network, features = torch.nn.Linear(4, 2), torch.zeros(64, 4)
    quantities, classes = (make_up_target(network, loss, features)[0] for loss in (of_quantities, of_classes))
    assert quantities is not None
    assert quantities.is_floating_point()
    assert classes is not None
    assert not classes.is_floating_point()


# --- the text ---------------------------------------------------------------------------------------------------------


def shown(result: dict[str, Any], width: int = 80) -> str:
    screen = Console(file=StringIO(), width=width, highlight=False)
    screen.print(findings_text(result))
    return screen.file.getvalue()


def test_the_text_has_everything_in_order_of_severity() -> None:
    fault = Fault("a_fault", "a fault", "note", "why", "mend [it]", "nowhere")
    findings = Findings(
        [
            fault.found("layer 'x[0]'", "a note's evidence"),
            fault.found("layer '1'", "an error's evidence", severity="error", tried="it helped"),
        ]
    )
    looked = {
        "network": "Net",
        "parameters": 3,
        "loss": None,
        "batch": "b",
        "data": None,
        "questions": ["q"],
        "notes": [],
    }
    text = shown({"examined": looked, **findings.to_dict()})
    assert text.index("an error's evidence") < text.index("a note's evidence")
    for part in ("layer 'x[0]'", "mend [it]", "it helped", "Found: 1 error, 1 note."):
        assert part in text
    assert "looked for" not in text
    nothing = shown({"examined": looked, **Findings().to_dict()})
    assert "looked for" in nothing
    assert "Nothing found." in nothing


def test_nothing_is_cut_on_a_narrow_screen() -> None:
    fault = Fault("a_fault", "a fault", "warning", "why", "fix " * 20, "nowhere")
    looked = {
        "network": "N" * 60,
        "parameters": 3,
        "loss": None,
        "batch": "b",
        "data": None,
        "questions": [],
        "notes": [],
    }
    text = shown({"examined": looked, **Findings([fault.found("w", "word " * 30 + "end")]).to_dict()}, width=40)
    assert text.count("word") == 30
    assert "end" in text
    assert text.replace("\n", "").count("N") >= 60


def test_help_says_that_the_file_is_run_and_what_the_exit_codes_are() -> None:
    screen = " ".join(done("doctor", "--help").out.split())
    assert "FILE.py is run" in screen
    assert "Exit code 3" in screen
