"""A link where the loss has its own: found wherever it is written, with the limit that it sets."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import activations, heads, losses
from lastlayer.diagnosis import output_and_loss, output_range
from output_cases import (
    BINARY,
    CLASSES,
    COUNT,
    IMAGES,
    INDEX,
    ONE_HOT,
    PIXELS,
    REAL,
    SHARE,
    Ends,
    Members,
    X,
    column,
    findings_of,
    loud,
    mlp,
    own_sigmoid,
    sigmoid_by_hand,
    softmax_by_hand,
    the_one,
)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trials, which are tested by themselves and take most of the time."""
    for question in (output_and_loss, output_range):
        monkeypatch.setattr(question, "tried_without", lambda *args, **options: None)


def _one_hot_likelihood(raw: Tensor, target: Tensor) -> Tensor:
    return -(F.one_hot(target, CLASSES) * F.log_softmax(raw, -1)).sum(-1).mean()


def _by_logsumexp(raw: Tensor, target: Tensor) -> Tensor:
    return (raw.logsumexp(-1) - raw.gather(-1, target.unsqueeze(-1)).squeeze(-1)).mean()


def _by_distribution(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Categorical(logits=raw).log_prob(target).mean()


LAYER = "layer '3' (Softmax)"
SOFTMAX: dict[str, tuple[nn.Module, Any, Tensor, Tensor, str]] = {
    "module": (mlp(4, nn.Softmax(1)), nn.CrossEntropyLoss(), X, INDEX, LAYER),
    "function in forward": (Ends(4, lambda raw: F.softmax(raw, -1)), F.cross_entropy, X, INDEX, "softmax in Ends"),
    "method and clamp": (
        Ends(4, lambda raw: raw.softmax(-1).clamp(1e-6, 1)), nn.CrossEntropyLoss(torch.rand(4)), X, INDEX, "softmax",
    ),
    "by hand": (Ends(4, softmax_by_hand), nn.CrossEntropyLoss(), X, INDEX, "Ends's forward"),
    "activation of ours": (mlp(4, activations.Softmax()), nn.CrossEntropyLoss(), X, ONE_HOT, "layer '3'"),
    "in the loss": (mlp(4), lambda raw, y: F.cross_entropy(torch.softmax(raw, -1), y), X, INDEX, "softmax in the loss"),
    "log-softmax": (mlp(4, nn.Softmax(1)), lambda p, y: F.nll_loss(F.log_softmax(p, -1), y), X, INDEX, LAYER),
    "one-hot likelihood": (mlp(4, nn.Softmax(1)), _one_hot_likelihood, X, INDEX, LAYER),
    "logsumexp": (mlp(4, nn.Softmax(1)), _by_logsumexp, X, INDEX, LAYER),
    "distribution": (mlp(4, nn.Softmax(1)), _by_distribution, X, INDEX, LAYER),
    "our function": (mlp(4, nn.Softmax(1)), losses.cross_entropy, X, INDEX, LAYER),
    "our module": (mlp(4, nn.Softmax(1)), losses.CrossEntropy(label_smoothing=0.1), X, INDEX, LAYER),
    "ours in a lambda": (mlp(4, nn.Softmax(1)), lambda p, y: losses.cross_entropy(p, y), X, INDEX, LAYER),
    "head": (mlp(4, nn.Softmax(1)), heads.Categorical(4), X, INDEX, LAYER),
    "loss of a head": (mlp(4, nn.Softmax(1)), heads.Categorical(4).loss, X, INDEX, LAYER),
    "dense": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)), nn.CrossEntropyLoss(), IMAGES, PIXELS, "layer '1'"),
    "dense of ours": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax2d()), functools.partial(losses.cross_entropy, dim=1), IMAGES,
        PIXELS, "layer '1' (Softmax2d)",
    ),
    "members": (
        Members(4, nn.Softmax(-1)), lambda p, y: losses.cross_entropy(p, y.expand(3, -1)), X, INDEX, "'members.0.3'",
    ),
    "members of PyTorch": (
        Members(4, nn.Softmax(-1)), lambda p, y: sum(F.cross_entropy(one, y) for one in p), X, INDEX, "'members.0.3'",
    ),
    "per sample": (mlp(4, nn.Softmax(1)), nn.CrossEntropyLoss(reduction="none"), X, INDEX, LAYER),
    "one row": (mlp(4, nn.Softmax(1)), nn.CrossEntropyLoss(), X[:1], INDEX[:1], LAYER),
    "float64": (mlp(4, nn.Softmax(1)).double(), nn.CrossEntropyLoss(), X.double(), INDEX, LAYER),
    "bfloat16": (mlp(4, nn.Softmax(1)).bfloat16(), nn.CrossEntropyLoss(), X.bfloat16(), INDEX, LAYER),
}  # fmt: skip


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("form", SOFTMAX)
def test_softmax_before_cross_entropy(form: str) -> None:
    network, loss, features, target, where = SOFTMAX[form]
    findings = findings_of(network, loss, features, target)
    found = the_one(findings, "softmax_before_cross_entropy")
    assert loud(findings) == ["softmax_before_cross_entropy"]
    assert found.severity == "error"
    assert where in found.where
    # PyTorch's own loss of the best that probabilities can do: all of it on the right class.
    best = F.cross_entropy(torch.eye(CLASSES), torch.arange(CLASSES))
    assert found.numbers["least_loss"] == pytest.approx(float(best), rel=1e-6)
    assert found.numbers["greatest_probability"] == pytest.approx(float(torch.softmax(torch.eye(CLASSES), -1).max()))


def _soft_margin_by_hand(raw: Tensor, target: Tensor) -> Tensor:
    return (F.softplus(raw) - target * raw).mean()


def _by_bernoulli(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Bernoulli(logits=raw).log_prob(target).mean()


def _dice(raw: Tensor, target: Tensor) -> Tensor:
    p = torch.sigmoid(raw)
    return 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)


def _logits_and_dice(raw: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(raw, target) + _dice(raw, target)


def _focal_of_its_own(raw: Tensor, target: Tensor) -> Tensor:
    p = torch.sigmoid(raw)
    hit = torch.where(target > 0, p, 1 - p).clamp(1e-6, 1)
    return -((1 - hit) ** 2 * hit.log()).mean()


SIGMOID: dict[str, tuple[nn.Module, Any, Tensor, str]] = {
    "module": (column(1, nn.Sigmoid()), nn.BCEWithLogitsLoss(), BINARY, "layer '3' (Sigmoid)"),
    "function in forward": (
        Ends(1, lambda raw: torch.sigmoid(raw)[:, 0]), F.binary_cross_entropy_with_logits, BINARY, "sigmoid in Ends",
    ),
    "by hand": (Ends(1, sigmoid_by_hand), nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), BINARY, "Ends's forward"),
    "half a tanh": (Ends(1, lambda raw: (raw.tanh()[:, 0] + 1) / 2), nn.BCEWithLogitsLoss(), BINARY, "tanh in Ends"),
    "not seen from outside": (Ends(1, own_sigmoid), nn.BCEWithLogitsLoss(), BINARY, "OwnSigmoid in Ends"),
    "in the loss": (
        column(1), lambda raw, y: F.binary_cross_entropy_with_logits(raw.sigmoid(), y), BINARY, "sigmoid in the loss",
    ),
    "our function": (column(1, nn.Sigmoid()), losses.binary_cross_entropy, BINARY, "layer '3' (Sigmoid)"),
    "our focal loss": (column(1, nn.Sigmoid()), losses.Focal(), BINARY, "layer '3' (Sigmoid)"),
    "ours in a lambda": (column(1, nn.Sigmoid()), lambda p, y: losses.focal(p, y), BINARY, "layer '3' (Sigmoid)"),
    "head": (mlp(1, nn.Sigmoid()), heads.Bernoulli(), BINARY, "layer '3' (Sigmoid)"),
    "head of shares": (mlp(1, nn.Sigmoid()), heads.UnitInterval(), SHARE, "layer '3' (Sigmoid)"),
    "head of labels": (mlp(4, nn.Sigmoid()), heads.MultiLabel(4), ONE_HOT, "layer '3' (Sigmoid)"),
    "softplus by hand": (column(1, nn.Sigmoid()), _soft_margin_by_hand, BINARY, "layer '3' (Sigmoid)"),
    "distribution": (column(1, nn.Sigmoid()), _by_bernoulli, BINARY, "layer '3' (Sigmoid)"),
    "logits beside dice": (mlp(4, nn.Sigmoid()), _logits_and_dice, ONE_HOT, "layer '3' (Sigmoid)"),
    "labels": (mlp(4, nn.Sigmoid()), nn.MultiLabelSoftMarginLoss(), ONE_HOT, "layer '3' (Sigmoid)"),
}  # fmt: skip


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("form", SIGMOID)
def test_sigmoid_before_a_loss_of_logits(form: str) -> None:
    network, loss, target, where = SIGMOID[form]
    findings = findings_of(network, loss, X, target)
    found = the_one(findings, "sigmoid_before_logit_loss")
    assert loud(findings) == ["sigmoid_before_logit_loss"]
    assert found.severity == "error"
    assert where in found.where
    ends = torch.sigmoid(torch.tensor([0.0, 1.0]))
    assert found.numbers["least_probability"] == pytest.approx(float(ends[0]))
    assert found.numbers["greatest_probability"] == pytest.approx(float(ends[1]))
    # Of a 0 the best that a "logit" of 0 can do.
    zero = F.binary_cross_entropy_with_logits(torch.zeros(1), torch.zeros(1))
    assert found.numbers["least_loss"] == pytest.approx(float(zero))


class TwoParts(nn.Module):
    """A location and a scale that has been made positive already, put together in one of the usual ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.how = mlp(2), how

    def forward(self, x: Tensor) -> Tensor:
        both = self.body(x)
        if self.how == "cat":
            return torch.cat([both[:, :1], F.softplus(both[:, 1:])], dim=-1)
        if self.how == "stack":
            return torch.stack([both[:, 0], both[:, 1].exp()], dim=-1)
        both = both.clone()
        both[:, 1] = F.softplus(both[:, 1])
        return both


def _poisson_by_hand(raw: Tensor, target: Tensor) -> Tensor:
    return (raw.exp() - target * raw).mean()


TWICE: dict[str, tuple[nn.Module, Any, Tensor, str]] = {
    "two sigmoids": (column(1, nn.Sigmoid(), nn.Sigmoid()), nn.BCELoss(), BINARY, "layer '3' (Sigmoid)"),
    "two softmaxes": (
        Ends(4, lambda raw: F.log_softmax(F.softmax(raw, -1), -1)), nn.NLLLoss(), INDEX, "softmax in Ends's forward",
    ),
    "sigmoid, then softmax": (
        Ends(4, lambda raw: raw.sigmoid().softmax(-1)), lambda p, y: F.nll_loss(p.log(), y), INDEX, "sigmoid in",
    ),
    "sigmoid before cross-entropy": (mlp(4, nn.Sigmoid()), nn.CrossEntropyLoss(), INDEX, "layer '3' (Sigmoid)"),
    "softmax before logits": (mlp(4, nn.Softmax(1)), nn.BCEWithLogitsLoss(), ONE_HOT, "layer '3' (Softmax)"),
    "tanh before cross-entropy": (mlp(4, nn.Tanh()), nn.CrossEntropyLoss(), INDEX, "layer '3' (Tanh)"),
    "tanh before logits": (column(1, nn.Tanh()), nn.BCEWithLogitsLoss(), BINARY, "layer '3' (Tanh)"),
    "softplus before logits": (column(1, nn.Softplus()), nn.BCEWithLogitsLoss(), BINARY, "layer '3' (Softplus)"),
    "log-sigmoid before logits": (column(1, nn.LogSigmoid()), nn.BCEWithLogitsLoss(), BINARY, "layer '3' (LogSigmoid)"),
    "softplus before a head": (mlp(1, nn.Softplus()), heads.Poisson(), COUNT, "layer '3' (Softplus)"),
    "exp before a rate": (Ends(1, lambda raw: raw.exp()[:, 0]), nn.PoissonNLLLoss(), COUNT, "exp in Ends's forward"),
    "exp before a rate by hand": (Ends(1, lambda raw: raw.exp()[:, 0]), _poisson_by_hand, COUNT, "exp in Ends"),
    "scale of a Gaussian": (TwoParts("cat"), heads.Gaussian(scale="predicted"), REAL, "softplus in TwoParts's forward"),
    "scale of a Laplace": (TwoParts("stack"), heads.Laplace(scale="predicted"), REAL, "exp in TwoParts's forward"),
    "scale in place": (TwoParts("slice"), losses.GaussianNLL(), REAL, "softplus in TwoParts's forward"),
    "dice of its own sigmoid": (mlp(4, nn.Sigmoid()), _dice, ONE_HOT, "layer '3' (Sigmoid)"),
    "focal loss of its own sigmoid": (column(1, nn.Sigmoid()), _focal_of_its_own, BINARY, "layer '3' (Sigmoid)"),
    "a sigmoid before the loss of probabilities": (
        column(1, nn.Sigmoid()), lambda p, y: F.binary_cross_entropy(p.sigmoid(), y), BINARY, "layer '3' (Sigmoid)",
    ),
    "a softmax before its logarithm": (
        mlp(4, nn.Softmax(1)), lambda p, y: F.nll_loss(p.softmax(1).log(), y), INDEX, "layer '3' (Softmax)",
    ),
    "Tanimoto in a lambda": (mlp(4, nn.Softmax(1)), lambda p, y: losses.tanimoto(p, y), INDEX, "layer '3' (Softmax)"),
}  # fmt: skip


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("form", TWICE)
def test_links_applied_twice(form: str) -> None:
    network, loss, target, where = TWICE[form]
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["link_applied_twice"]
    assert where in the_one(findings, "link_applied_twice").where


@pytest.mark.parametrize("loss", [_dice, _focal_of_its_own, _logits_and_dice])
def test_one_sigmoid_is_enough(loss: Any) -> None:
    assert loud(findings_of(mlp(4), loss, X, ONE_HOT)) == []


@pytest.mark.usefixtures("untried")
def test_a_scale_behind_two_links_has_a_floor() -> None:
    found = the_one(findings_of(TwoParts("cat"), heads.Gaussian(scale="predicted"), X, REAL), "link_applied_twice")
    # What the head itself makes of 0, without its own floor.
    least = float(heads.Gaussian(scale="predicted", minimum_scale=1e-9).scale_of(torch.zeros(1, 2)))
    assert found.numbers["least_scale"] == pytest.approx(least)


@pytest.mark.usefixtures("untried")
def test_a_log_softmax_before_cross_entropy_is_a_note() -> None:
    findings = findings_of(mlp(4, nn.LogSoftmax(1)), nn.CrossEntropyLoss())
    assert [(finding.name, finding.severity) for finding in findings] == [("link_applied_twice", "note")]


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("size", [2, 10, 1000])
def test_the_limit_is_what_more_training_cannot_pass(size: int) -> None:
    """Of scores between −1 and 1: the least cross-entropy there is, which the best of them have."""
    network = nn.Sequential(nn.Linear(6, size), nn.Tanh())
    findings = findings_of(network, nn.CrossEntropyLoss(), X, torch.arange(len(X)) % size)
    best = 2 * F.one_hot(torch.tensor([0]), size).float() - 1
    expected = float(F.cross_entropy(best, torch.tensor([0])))
    assert the_one(findings, "link_applied_twice").numbers["least_loss"] == pytest.approx(expected, rel=1e-5)


def test_removing_the_softmax_is_tried() -> None:
    for network, loss in (
        (mlp(4, nn.Softmax(1)), nn.CrossEntropyLoss()),
        (Ends(4, lambda raw: raw.softmax(-1)), nn.CrossEntropyLoss()),
        (mlp(4), lambda raw, y: F.cross_entropy(raw.softmax(-1), y)),
    ):
        found = the_one(findings_of(network, loss, X, INDEX), "softmax_before_cross_entropy")
        assert found.tried is not None
        assert found.tried.startswith(f"Without {found.where}, 40 steps of Adam")


def test_removing_the_sigmoid_is_tried() -> None:
    found = the_one(
        findings_of(column(1, nn.Sigmoid()), nn.BCEWithLogitsLoss(), X, BINARY), "sigmoid_before_logit_loss"
    )
    assert found.tried is not None
    # Removing the exponential alone would leave something else than raw scores.
    by_hand = findings_of(Ends(1, sigmoid_by_hand), nn.BCEWithLogitsLoss(), X, BINARY)
    found = the_one(by_hand, "sigmoid_before_logit_loss")
    assert found.tried is None
    assert found.fix.startswith("Give binary_cross_entropy_with_logits the output of layer 'body.2' (Linear) as it is")


def _last_module_is_softmax(network: nn.Module) -> bool:
    """The wrong twin: a doctor that looks at the last module only."""
    return isinstance(list(network.modules())[-1], nn.Softmax)


class Attention(nn.Module):
    """Attention, whose softmax is the last module that was made, and not the output."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.last = nn.Linear(6, 5), nn.Linear(6, 30), nn.Linear(6, 4)
        self.attend = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.attend(self.query(x)).unsqueeze(1)
        return self.last((weights @ self.value(x).unflatten(-1, (5, 6))).squeeze(1))


@pytest.mark.usefixtures("untried")
def test_looking_at_the_last_module_is_not_enough() -> None:
    right = {
        "function in forward": (Ends(4, lambda raw: F.softmax(raw, -1)), nn.CrossEntropyLoss(), True),
        "in the loss": (mlp(4), lambda raw, y: F.cross_entropy(raw.softmax(-1), y), True),
        "attention": (Attention(), nn.CrossEntropyLoss(), False),
        "right loss": (mlp(4, nn.Softmax(1)), lambda p, y: F.nll_loss(p.log(), y), False),
    }
    for name, (network, loss, broken) in right.items():
        assert ("softmax_before_cross_entropy" in loud(findings_of(network, loss))) == broken, name
        assert _last_module_is_softmax(network) != broken, f"{name} does not tell the twin"
