"""Forward passes that break off: what is said, and whether what is advised makes the network run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.diagnosis.misfits import misfit_of
from lastlayer.diagnosis.operation import Refused
from lastlayer.diagnosis.subject import run
from structure_cases import Forward, classes, found, mlp, normal, only

Network = Callable[[], nn.Module]


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)]


IMAGES = normal(8, 1, 12, 12)
# What is wrong, what arrives, the layer, what is said of it, what is advised, and the network as advised.
CASES: dict[str, tuple[Network, Tensor, str, str, str, Network]] = {
    "flatten forgotten": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Linear(576, 3)),
        IMAGES, "layer '2' (Linear)", "(..., 576), and (8, 4, 12, 12) arrives from layer '1' (ReLU)",
        "Insert nn.Flatten() before it",
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(576, 3)),
    ),
    "flatten and width": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(99, 3)),
        IMAGES, "layer '2' (Linear)", "(8, 4, 10, 10)", "gives 400 features, and make it nn.Linear(400, 3)",
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)),
    ),
    "pooling over pixels": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 3)),
        IMAGES, "layer '1' (Linear)", "(8, 4, 10, 10)", "x.mean((2, 3))",
        lambda: Forward(lambda net, x: net.b(net.a(x).mean((2, 3))), a=nn.Conv2d(1, 4, 3), b=nn.Linear(4, 3)),
    ),
    "width": (
        lambda: mlp(5, 8, 3), normal(8, 4), "layer '0' (Linear)", "(..., 5), and (8, 4) arrives from the inputs",
        "nn.Linear(4, 8)", lambda: mlp(4, 8, 3),
    ),
    "sequence the other way round": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Flatten(), nn.LazyLinear(3)),
        normal(8, 5, 6), "layer '0' (Linear)", "(8, 5, 6)", "x.transpose(1, 2)",
        lambda: nn.Sequential(Forward(lambda net, x: x.mT), nn.Linear(5, 8), nn.Flatten(), nn.LazyLinear(3)),
    ),
    "one number per row": (
        lambda: nn.Linear(1, 3), normal(8), "linear in Linear's forward", "(8,) arrives", "x.unsqueeze(-1)",
        lambda: nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 3)),
    ),
    "channels last": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), *head(4)),
        IMAGES.permute(0, 2, 3, 1), "layer '0' (Conv2d)", "(n, 1, height, width), and (8, 12, 12, 1)",
        "x.permute(0, 3, 1, 2)",
        lambda: nn.Sequential(Forward(lambda net, x: x.permute(0, 3, 1, 2)), nn.Conv2d(1, 4, 3), *head(4)),
    ),
    "no channels": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), *head(4)),
        IMAGES.squeeze(1), "layer '0' (Conv2d)", "(8, 12, 12)", "x.unsqueeze(1)",
        lambda: nn.Sequential(nn.Unflatten(1, (1, 12)), nn.Conv2d(1, 4, 3), *head(4)),
    ),
    "flat images": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), *head(4)),
        normal(8, 432), "layer '0' (Conv2d)", "(8, 432)", "nn.Unflatten(1, (3, 12, 12))",
        lambda: nn.Sequential(nn.Unflatten(1, (3, 12, 12)), nn.Conv2d(3, 4, 3), *head(4)),
    ),
    "colors": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), *head(4)),
        normal(8, 3, 12, 12), "layer '0' (Conv2d)", "(8, 3, 12, 12)", "nn.Conv2d(3, 4, ...)",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), *head(4)),
    ),
    "maps too small": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(5), nn.Conv2d(4, 4, 3), *head(4)),
        IMAGES, "layer '2' (Conv2d)", "at least (3, 3)", "padding='same'",
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(5), nn.Conv2d(4, 4, 3, padding="same"), *head(4)),
    ),
    "steps before channels": (
        lambda: nn.Sequential(nn.Conv1d(5, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)),
        normal(8, 9, 5), "layer '0' (Conv1d)", "(n, 5, length), and (8, 9, 5)", "x.transpose(1, 2)",
        lambda: nn.Sequential(
            Forward(lambda net, x: x.mT), nn.Conv1d(5, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)
        ),
    ),
    "transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), *head(4)),
        IMAGES, "layer '0' (ConvTranspose2d)", "(n, 3, height, width)", "nn.ConvTranspose2d(1, 4, ...)",
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 3), *head(4)),
    ),
    "batch norm of another width": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(16), nn.Linear(8, 3)),
        normal(8, 4), "layer '1' (BatchNorm1d)", "(n, 16, ...), and (8, 8)", "nn.BatchNorm1d(8)",
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    ),
    "quantities into an embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)),
        normal(8, 2).abs(), "layer '0' (Embedding)", "whole numbers", "x.long()",
        lambda: nn.Sequential(Forward(lambda net, x: x.long()), nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)),
    ),
    "indices beyond the table": (
        lambda: nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)),
        torch.tensor([[1, 5], [2, 3]]), "layer '0' (Embedding)", "rows 0 to 4, and numbers from 1 to 5",
        "Count from 0, x - 1, or make it nn.Embedding(6, 4)",
        lambda: nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(8, 3)),
    ),
    "a view that does not divide": (
        lambda: Forward(lambda net, x: net.b(net.a(x).view(-1, 99)), a=nn.Conv2d(1, 4, 3), b=nn.Linear(400, 3)),
        IMAGES, "view in Forward's forward", "(8, 4, 10, 10) from layer 'a' (Conv2d)", "x.flatten(1), which",
        lambda: Forward(lambda net, x: net.b(net.a(x).flatten(1)), a=nn.Conv2d(1, 4, 3), b=nn.Linear(400, 3)),
    ),
    "a view of what lies scattered": (
        lambda: Forward(lambda net, x: net.b(x.mT.view(len(x), -1)), b=nn.Linear(12, 3)),
        normal(8, 3, 4), "view in Forward's forward", "do not lie in one piece", "x.reshape(...)",
        lambda: Forward(lambda net, x: net.b(x.mT.reshape(len(x), -1)), b=nn.Linear(12, 3)),
    ),
    "double precision": (
        lambda: mlp(4, 8, 3), normal(8, 4).double(), "layer '0' (Linear)",
        "Its weights are float32, and float64 arrives from the inputs", "x.float(); NumPy's numbers are float64",
        lambda: nn.Sequential(Forward(lambda net, x: x.float()), mlp(4, 8, 3)),
    ),
    "a single-precision batch": (
        lambda: mlp(4, 8, 3).double(), normal(8, 4), "layer '0' (Linear)",
        "Its weights are float64, and float32 arrives", "x.double()",
        lambda: nn.Sequential(Forward(lambda net, x: x.double()), mlp(4, 8, 3).double()),
    ),
    "whole numbers": (
        lambda: mlp(4, 8, 3), classes(8, 9, 4), "layer '0' (Linear)", "int64 arrives", "x.float()",
        lambda: nn.Sequential(Forward(lambda net, x: x.float()), mlp(4, 8, 3)),
    ),
    "bytes": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), *head(4)), IMAGES.byte(), "layer '0' (Conv2d)", "uint8 arrives",
        "x.float()", lambda: nn.Sequential(Forward(lambda net, x: x.float()), nn.Conv2d(1, 4, 3), *head(4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_and_what_is_advised(name: str) -> None:
    torch.manual_seed(0)
    make, x, where, evidence, fix, mended = CASES[name]
    y = classes(len(x), 3)
    finding = only(found(make(), nn.CrossEntropyLoss(), x, y), "layer_shape_mismatch", "error")
    assert finding.where == where
    assert evidence in finding.evidence
    assert fix in finding.fix
    # What is advised works: on the doctor's copy, and when it is followed.
    shape = tuple(mended()(x).shape)
    assert finding.tried is not None
    assert str(shape) in finding.tried
    assert "layer_shape_mismatch" not in found(mended(), nn.CrossEntropyLoss(), x, y).names


@pytest.mark.parametrize(
    ("network", "x", "evidence", "fix"),
    [
        (
            Forward(lambda net, x: net.b(net.a(x)[0][:, -1]), a=nn.LSTM(5, 4, batch_first=True), b=nn.Linear(4, 3)),
            normal(8, 6, 7),
            "(n, steps, 5), and (8, 6, 7) arrives from the inputs",
            "nn.LSTM(7, 4)",
        ),
        (
            Forward(lambda net, x: net.b(net.a(x)[0][:, -1]), a=nn.GRU(5, 4, batch_first=True), b=nn.Linear(4, 3)),
            normal(8, 5, 7),
            "(8, 5, 7)",
            "x.transpose(1, 2)",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm1d(4)),
            IMAGES,
            "(8, 4, 10, 10) arrives from layer '0' (Conv2d)",
            "nn.BatchNorm2d(4)",
        ),
        (nn.Sequential(nn.Linear(4, 8), nn.BatchNorm2d(8)), normal(8, 4), "(8, 8) arrives", "nn.BatchNorm1d(8)"),
        (nn.TransformerEncoderLayer(8, 2, 16), normal(8, 6, 7), "(..., 8), and (8, 6, 7)", "nn.Linear(7, 8)"),
        (
            Forward(lambda net, x: net.b(x + torch.relu(net.a(x))), a=nn.Linear(4, 8), b=nn.Linear(8, 3)),
            normal(8, 4),
            "(8, 4) arrives from the inputs and (8, 8) from relu in Forward's forward",
            "nn.Linear(4, 8)",
        ),
        (
            Forward(lambda net, x: net.b(torch.cat([x, net.a(x)], 1)), a=nn.Conv2d(1, 4, 3), b=nn.Flatten()),
            IMAGES,
            "(8, 1, 12, 12) from the inputs and (8, 4, 10, 10) from layer 'a' (Conv2d)",
            "pad, crop or interpolate",
        ),
        (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)), normal(8, 4), "(..., 6), and (8, 4)", "nn.LayerNorm(4)"),
    ],
    ids=["lstm", "gru", "norm 1d", "norm 2d", "attention", "residual", "joined", "layer norm"],
)
def test_what_is_said_of_what_is_not_tried(network: nn.Module, x: Tensor, evidence: str, fix: str) -> None:
    finding = only(found(network, nn.CrossEntropyLoss(), x, classes(len(x), 3)), "layer_shape_mismatch", "error")
    assert evidence in finding.evidence
    assert fix in finding.fix


class Unfinished(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x)


def test_other_errors_are_told_with_the_line_they_come_from() -> None:
    finding = only(found(Unfinished(), F.mse_loss, normal(8, 4), normal(8, 3)), "forward_fails", "error")
    assert "no attribute 'second'" in finding.evidence
    assert "test_diagnosis_shape_errors.py, return self.second(x)" in finding.evidence
    two = Forward(lambda net, x, y: x)
    assert "TypeError" in only(found(two, F.mse_loss, normal(8, 4), normal(8, 3)), "forward_fails").evidence


def test_an_error_in_backward_names_what_writes_over_what() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        hidden = torch.sigmoid(net.first(x))
        hidden += 1
        return net.last(hidden)

    network = Forward(forward, first=nn.Linear(4, 8), last=nn.Linear(8, 1))
    finding = only(found(network, F.mse_loss, normal(8, 4), normal(8, 1)), "forward_fails", "error")
    assert finding.where == "add in Forward's forward"
    assert "output of sigmoid in Forward's forward" in finding.evidence


def test_tensors_on_several_devices() -> None:
    error = RuntimeError("Expected all tensors to be on the same device, but found at least two devices")
    refused = Refused(
        name="linear", module="first", kind="Linear", parents=(None, None), parameters=("first.weight",),
        shapes=((8, 4), (3, 4)), dtypes=(torch.float32, torch.float32),
        devices=(torch.device("cpu"), torch.device("cuda", 0)), error=error,
    )  # fmt: skip
    misfit = misfit_of(refused)
    assert misfit is not None
    assert "on cpu and cuda:0; cpu arrives from the inputs" in misfit.evidence
    assert "features.to(device)" in misfit.repairs[0].sentence


def test_errors_of_the_loss_are_left_to_others() -> None:
    assert not found(mlp(4, 3), F.nll_loss, normal(8, 4), normal(8, 3))


def test_a_call_that_nothing_is_known_of_has_no_explanation() -> None:
    network = Forward(lambda net, x: torch.einsum("ijk->i", x))
    passed = run(network, None, normal(8, 4), None, training=True)
    assert passed.failure is not None
    assert passed.failure.refused is not None
    assert misfit_of(passed.failure.refused) is None
    assert (
        only(found(network, F.mse_loss, normal(8, 4), normal(8)), "forward_fails").where
        == "einsum in Forward's forward"
    )


def does_not_run(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(9, 3), *more)


@pytest.mark.parametrize(
    ("network", "loss", "y", "name"),
    [
        (does_not_run(nn.Softmax(dim=1)), nn.CrossEntropyLoss(), classes(8, 3), "softmax_before_cross_entropy"),
        (
            does_not_run(nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())),
            lambda raw, target: F.binary_cross_entropy_with_logits(raw, target),
            torch.ones(8, 1),
            "sigmoid_before_logit_loss",
        ),
        (does_not_run(nn.Softmax(dim=1)), nn.NLLLoss(), classes(8, 3), None),
        (does_not_run(nn.Sigmoid()), nn.BCELoss(), torch.ones(8, 3), None),
        (does_not_run(nn.Softmax(dim=1), nn.Linear(3, 3)), nn.CrossEntropyLoss(), classes(8, 3), None),
    ],
)
def test_a_link_before_the_loss_is_read_where_it_does_not_run(
    network: nn.Module, loss: Any, y: Tensor, name: str | None
) -> None:
    names = set(found(network, loss, normal(8, 4), y).names) - {"layer_shape_mismatch"}
    assert names == ({name} if name else set())


class ForPredictions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.first(x)
        if self.training:
            return scores
        return torch.softmax(scores, dim=1)


def test_a_softmax_for_predictions_alone_is_none_before_the_loss() -> None:
    only(found(ForPredictions(), nn.CrossEntropyLoss(), normal(8, 4), classes(8, 3)), "layer_shape_mismatch")
