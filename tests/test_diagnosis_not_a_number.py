"""NaN and infinity: where they come from, beside what PyTorch's own anomaly detection says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.diagnosis.not_a_number import first_not_finite
from lastlayer.diagnosis.subject import run
from structure_cases import Forward, classes, found, mlp, normal, only

X, Y = normal(32, 4), normal(32, 1)


def network(between: Any, outputs: int = 1) -> Forward:
    torch.manual_seed(0)
    parts = {"first": nn.Linear(4, 8), "last": nn.Linear(8, outputs)}
    return Forward(lambda net, x: net.last(between(net.first(x))), **parts)


def half(h: Tensor) -> Tensor:
    """Each number or 0, by a mask that autograd multiplies with."""
    return h * (h > 0)


FORWARD = {
    "logarithm": (lambda h: torch.log(F.relu(h)), "log", "infinity", "0 or less"),
    "logarithm of negatives": (torch.log, "log", "NaN", "0 or less"),
    "quotient": (lambda h: h / F.relu(h), "div", "infinity", "divides by 0"),
    "reciprocal": (lambda h: F.relu(h).reciprocal(), "reciprocal", "infinity", "divides by 0"),
    "division by a number": (lambda h: h / 0.0, "div", "infinity", "divides by 0"),
    "root": (torch.sqrt, "sqrt", "NaN", "negative"),
    "power": (lambda h: h**0.5, "pow", "NaN", "negative"),
    "exponential": (lambda h: torch.exp(1000 * h), "exp", "infinity", "float32 ends at 3.4e+38"),
    "own softmax": (
        lambda h: (power := torch.exp(1000 * h)) / power.sum(1, keepdim=True), "exp", "infinity", "ends at",
    ),
    "arcsine": (lambda h: torch.asin(3 * h), "asin", "NaN", "from -1 to 1"),
    "spread of one": (lambda h: h / h[:1].std(0), "std", "NaN", "n is 1"),
    "everything masked": (
        lambda h: torch.softmax(h.masked_fill(torch.arange(32)[:, None] == 3, -torch.inf), 1), "softmax", "NaN",
        "whole row",
    ),
    "half precision": (lambda h: (h.half() * 60000).float(), "mul", "infinity", "float16 ends at 65504"),
    "mean of nothing": (lambda h: h + h[:0].mean(), "mean", "NaN", "no elements"),
    "in place": (lambda h: h.log_(), "log", "NaN", "0 or less"),
    "a module": (lambda h: Forward(lambda net, x: torch.log(x * 0))(h), "log", "infinity", "0 or less"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.filterwarnings("ignore:std\\(\\). degrees of freedom:UserWarning")
def test_the_first_operation_whose_output_is_not_finite(name: str) -> None:
    between, operation, what, words = FORWARD[name]
    finding = only(found(network(between), F.mse_loss, X, Y), "not_a_number", "error")
    assert finding.where.startswith(f"{operation} in ")
    assert what in finding.evidence
    assert words in finding.evidence
    # The count is that of the operation's own output.
    passed = run(network(between), F.mse_loss, X, Y, training=True)
    culprit = first_not_finite(passed.operations)
    assert culprit is not None
    assert culprit.stage == "forward"
    assert culprit.count == int((~culprit.operation.output.isfinite()).sum()) > 0
    assert all(parent is None or parent.output.isfinite().all() for parent in culprit.operation.parents) or name == (
        "everything masked"
    )


BACKWARD = {
    "root": (lambda h: torch.sqrt(half(h)), "sqrt", "slope of a root is infinite at 0"),
    "power": (lambda h: half(h) ** 0.3, "pow", "slope of a root is infinite at 0"),
    "own norm": (lambda h: h + half(h - 99).pow(2).sum(1, keepdim=True).sqrt(), "sqrt", "slope of a root"),
    "where": (lambda h: torch.where(h > 0, torch.log(half(h)), 0.0), "log", "torch.where hides its value"),
    "where and a root": (lambda h: torch.where(h > 0, torch.sqrt(half(h)), 0.0), "sqrt", "torch.where hides its value"),
    "arcsine": (lambda h: torch.asin(h.sign() + 0 * h), "asin", "infinite at -1 and 1"),
    "one of several": (lambda h: torch.tanh(g := half(h)) + g.sqrt() + g.exp(), "sqrt", "slope of a root"),
}  # fmt: skip


@pytest.mark.parametrize("name", BACKWARD)
def test_the_first_operation_whose_gradient_is_not_finite(name: str) -> None:
    between, operation, words = BACKWARD[name]
    finding = only(found(network(between), F.mse_loss, X, Y), "not_a_number", "error")
    assert finding.where == f"{operation} in Forward's forward"
    assert words in finding.evidence
    assert "gradient that it passes on" in finding.evidence


@pytest.mark.parametrize("name", ["where", "where and a root"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.filterwarnings("ignore:Error detected in")
def test_it_is_the_one_that_anomaly_detection_names(name: str) -> None:
    between, operation, _ = BACKWARD[name]
    with torch.autograd.set_detect_anomaly(True), pytest.raises(RuntimeError) as raised:
        F.mse_loss(network(between)(X), Y).backward()
    named = re.search(r"Function '(\w+?)Backward\d' returned nan", str(raised.value))
    assert named is not None
    assert named[1].lower() == operation


def test_a_parameter_whose_own_gradient_is_not_finite() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight / (1 + self.weight.pow(2).sum().sqrt())

    only(found(Scaled(), F.mse_loss, X, Y), "not_a_number", "error")

    class Rooted(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.sqrt(self.weight)

    assert only(found(Rooted(), F.mse_loss, X, Y), "not_a_number").where == "sqrt in Rooted's forward"


@pytest.mark.parametrize(
    ("loss", "operation"),
    [
        (lambda raw, target: torch.log(raw).mean(), "log in the loss"),
        (lambda raw, target: ((raw - target) / (target - target)).mean(), "div in the loss"),
        (lambda raw, target: (raw - target).mul(0).sum().sqrt(), "sqrt in the loss"),
        (lambda raw, target: F.mse_loss(raw, target) * torch.exp(target * 1e4).max(), "exp in the loss"),
    ],
)
def test_in_the_loss(loss: Any, operation: str) -> None:
    assert only(found(mlp(4, 8, 1), loss, X, Y), "not_a_number", "error").where == operation


@pytest.mark.parametrize("loss", [losses.Huber(), losses.huber, heads.Laplace(), heads.StudentT()])
def test_behind_losses_with_a_node_of_their_own(loss: Any) -> None:
    outputs = loss.raw_size if isinstance(loss, heads.Head) else 1
    target = Y.squeeze(1) if isinstance(loss, heads.Head) else Y
    bad = network(lambda h: torch.log(F.relu(h)), outputs)
    assert only(found(bad, loss, X, target), "not_a_number", "error").where == "log in Forward's forward"


def test_a_masked_class_that_is_right() -> None:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(raw.masked_fill(torch.arange(5) == 0, -torch.inf), target)

    finding = only(found(mlp(4, 8, 5), loss, X, classes(32, 5)), "not_a_number", "error")
    assert finding.where == "cross_entropy in the loss"
    assert "for the class that is right" in finding.evidence
    assert not found(mlp(4, 8, 5), loss, X, classes(32, 4) + 1)


def test_a_custom_function_whose_backward_is_not_finite() -> None:
    class Divided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            return x.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient / 0

    findings = [one for one in found(network(Divided.apply), F.mse_loss, X, Y) if one.name == "not_a_number"]
    assert [one.where for one in findings] == ["Divided in Forward's forward"]


def test_what_comes_from_outside_is_named() -> None:
    bad = X.clone()
    bad[3, 1], bad[4, 1], bad[4, 2] = torch.nan, torch.nan, torch.inf
    finding = only(found(mlp(4, 8, 1), F.mse_loss, bad, Y), "not_a_number", "error")
    assert finding.where == "the inputs"
    assert finding.evidence == "3 of 128 numbers are NaN, in 2 of 32 rows and columns 1, 2."
    gaps = Y.clone()
    gaps[5] = torch.nan
    assert only(found(mlp(4, 8, 1), F.mse_loss, X, gaps), "not_a_number", "error").where == "the target"
    spoiled = mlp(4, 8, 1)
    with torch.no_grad():
        spoiled[2].bias.fill_(torch.inf)
    assert only(found(spoiled, F.mse_loss, X, Y), "not_a_number", "error").where == "parameter '2.bias'"
    normalized = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    normalized[1].running_var.fill_(torch.nan)
    assert only(found(normalized, F.mse_loss, X, Y), "not_a_number").where == "buffer '1.running_var'"


def test_gaps_in_the_inputs_of_a_network_that_does_not_run_are_a_warning() -> None:
    bad = X.clone()
    bad[0, 0] = torch.nan
    findings = found(mlp(5, 8, 1), F.mse_loss, bad, Y)
    assert {(one.name, one.severity) for one in findings} == {
        ("layer_shape_mismatch", "error"), ("not_a_number", "warning"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "between",
    [
        lambda h: torch.softmax(h.masked_fill(torch.eye(8, dtype=torch.bool)[:1], -torch.inf), 1),
        lambda h: torch.where(h > 0, torch.log(h.clamp(min=1e-6)), 0.0),
        lambda h: h / h.norm(dim=1, keepdim=True),
        lambda h: F.normalize(half(h - 99)),
        lambda h: torch.nan_to_num(torch.log(half(h)).detach(), neginf=0.0) + h,
        lambda h: (h.detach() / 0).amax(1, keepdim=True).isinf() + h,
    ],
)
def test_what_does_no_harm_is_not_told(between: Any) -> None:
    assert not found(network(between), F.mse_loss, X, Y)


def test_an_infinite_gradient_that_is_thrown_away_is_a_note() -> None:
    # ReLU's backward is 0 where its input is not positive, whatever arrives: no gradient of a parameter is touched.
    module = network(lambda h: torch.sqrt(F.relu(h)))
    F.mse_loss(module(X), Y).backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    module.zero_grad(set_to_none=True)
    finding = only(found(module, F.mse_loss, X, Y), "not_a_number", "note")
    assert "throws these away" in finding.evidence


def test_without_anything_wrong_there_is_no_culprit() -> None:
    for target in (Y, None):
        assert first_not_finite(run(mlp(4, 8, 1), F.mse_loss, X, target, training=True).operations) is None
    assert first_not_finite(()) is None


def test_without_a_loss_the_result_is_looked_at() -> None:
    assert only(found(network(torch.log), None, X, None), "not_a_number").where == "log in Forward's forward"
