"""Parts of the questions about the last layer: spans, what is known of a tensor, probing, leaving an operation out."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import activations, heads, losses
from lastlayer.diagnosis import output_range
from lastlayer.diagnosis.examination import examine
from lastlayer.diagnosis.loss_calls import calls_of, returned_end
from lastlayer.diagnosis.loss_probing import traits_by_behavior
from lastlayer.diagnosis.loss_traits import own_traits
from lastlayer.diagnosis.output_probing import probed_span
from lastlayer.diagnosis.spans import REAL as ALL
from lastlayer.diagnosis.spans import UNIT, Span
from lastlayer.diagnosis.subject import Subject
from lastlayer.diagnosis.without_operation import with_few_rows, without
from output_cases import BINARY, CHECKS, INDEX, ONE_HOT, REAL, SHARE, Ends, X, column, mlp, own_sigmoid, softmax_by_hand


@pytest.mark.parametrize("name", [name for name, one in activations.catalog().items() if one.facts.elementwise])
def test_spans_are_the_ranges_of_the_facts(name: str) -> None:
    activation = activations.catalog()[name]
    span, known = ALL.through(activation.double()), activation.facts.range
    assert span is not None
    # The facts print gelu's and silu's least value to three places.
    assert span.low == pytest.approx(known.low, abs=1e-3)
    assert span.high == pytest.approx(known.high, abs=1e-3)


@pytest.mark.parametrize("span", [ALL, Span(0.0, 1.0), Span(-2.0, 3.0), Span(low=1.0), Span(high=-0.5)])
def test_spans_hold_what_arithmetic_gives(span: Span) -> None:
    """Numbers of the span, computed with: none leaves the span that is claimed, and its ends are approached."""
    drawn = torch.cat([torch.linspace(-1e4, 1e4, 2001), torch.linspace(-20.0, 20.0, 8001)]).double()
    drawn = drawn[(drawn >= span.low) & (drawn <= span.high)]
    for claimed, values in (
        (span.times(-2.5), -2.5 * drawn),
        (span.times(0.0), 0.0 * drawn),
        (span.plus(Span(1.0, 1.0)), drawn + 1.0),
        (span.cut(-1.0, 0.5), drawn.clamp(-1.0, 0.5)),
        (span.cut(0.0, None), drawn.clamp(min=0.0)),
        (span.through(torch.tanh), drawn.tanh()),
        (span.through(F.silu), F.silu(drawn)),
        (span.under(3.0), 3.0 / drawn[drawn != 0]),
    ):
        assert claimed is not None
        # Between two of the points at which a function is asked it may turn: silu's least value is off by 1e-6.
        assert not bool((claimed.distance(values) > 1e-5).any()), claimed
        for end, reached in ((claimed.low, float(values.min())), (claimed.high, float(values.max()))):
            assert math.isinf(end) or reached == pytest.approx(end, abs=2e-2), claimed


def test_functions_of_no_single_element_have_no_span() -> None:
    assert ALL.through(lambda points: points.sum()) is None
    assert ALL.through(lambda points: points.unsqueeze(0)) is None
    assert ALL.through(lambda points: points.nonexistent) is None


ENDS: dict[str, tuple[Any, Span]] = {
    "nothing": (lambda raw: raw, ALL),
    "views": (lambda raw: raw.sigmoid().T.reshape(-1, 2)[:, 1].unsqueeze(0).float().contiguous(), UNIT),
    "in place": (lambda raw: raw.clone().sigmoid_(), UNIT),
    "pooled": (lambda raw: raw.relu().mean(0), Span(low=0.0)),
    "summed": (lambda raw: raw.sigmoid().sum(0), Span(low=0.0)),
    "stretched": (lambda raw: 5 - 4 * raw.sigmoid(), Span(1.0, 5.0)),
    "sigmoid by hand": (lambda raw: 1 / (1 + torch.exp(-raw)), UNIT),
    "residual": (lambda raw: raw.sigmoid() + raw, ALL),
    "sum of sigmoids": (lambda raw: raw.sigmoid() + raw.sigmoid(), Span(0.0, 2.0)),
    "scaled by a tensor": (lambda raw: raw.tanh() * torch.tensor(3.0), Span(-3.0, 3.0)),
    "sigmoid of sigmoid": (lambda raw: raw.sigmoid().sigmoid(), Span(0.5, 1 / (1 + math.exp(-1)))),
    "stacked": (lambda raw: torch.stack([raw.sigmoid(), raw.tanh()]), Span(-1.0, 1.0)),
    "one of the stacked": (lambda raw: torch.stack([raw.tanh(), raw.sigmoid()])[1], UNIT),
    "unbound": (lambda raw: torch.stack([raw.tanh(), raw.sigmoid()]).unbind(0)[1], UNIT),
    "chosen": (lambda raw: torch.where(raw > 0, raw.exp(), raw.sigmoid()), Span(low=0.0)),
    "guarded": (lambda raw: raw.softmax(-1).clamp_min(1e-6) + 1e-8, Span(1e-6, 1.0)),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_can_be_said_of_an_output(name: str) -> None:
    function, expected = ENDS[name]
    subject = Subject(Ends(4, function), None, X, None)
    span = returned_end(subject).span
    assert span is not None
    assert span.low == pytest.approx(expected.low, abs=1e-3)
    assert span.high == pytest.approx(expected.high, abs=1e-3)
    # And it is true of the numbers.
    raw = subject.training_pass.raw
    assert raw is not None
    assert float(span.distance(raw).max()) < 1e-6


@pytest.mark.parametrize(
    "function", [lambda r: r * r, lambda r: r / r.norm(dim=-1, keepdim=True), softmax_by_hand, own_sigmoid]
)
def test_of_what_is_not_understood_nothing_is_said(function: Any) -> None:
    span = returned_end(Subject(Ends(4, function), None, X, None)).span
    assert span is None or span == ALL


def test_a_long_loop_without_weights_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_range, "tried_without", lambda *args, **options: None)

    def loop(raw: Tensor) -> Tensor:
        for _ in range(1500):
            raw = raw.tanh()
        return raw

    findings = examine(CHECKS, Ends(1, lambda raw: loop(raw).squeeze(-1)), nn.MSELoss(), (X, 5 * REAL))
    assert "check_failed" not in findings.names


KNOWN: dict[str, tuple[Any, Tensor, str]] = {
    "classes": (lambda raw, y: (raw.logsumexp(-1) - raw.gather(-1, y[:, None])[:, 0]).sum(), INDEX, "cross-entropy"),
    "of probabilities": (lambda raw, y: F.cross_entropy(raw, y) * 3 + 1, ONE_HOT, "cross-entropy"),
    "binary": (lambda raw, y: (F.softplus(raw) - y * raw).sum(), BINARY, "binary cross-entropy with logits"),
    "of a probability": (
        lambda raw, y: -(y * raw.log() + (1 - y) * (1 - raw).log()).mean(), BINARY, "binary cross-entropy",
    ),
    "likelihood": (lambda raw, y: -raw.gather(-1, y[:, None]).mean(), INDEX, "the negative log-likelihood of classes"),
    "squared": (lambda raw, y: 0.5 * (raw - y).square().sum(), REAL, "the squared error"),
    "squared sigmoid": (lambda raw, y: (raw.sigmoid() - y).square().mean(), SHARE, "the squared error of a sigmoid"),
    "squared softmax": (lambda raw, y: F.mse_loss(raw.softmax(-1), y), ONE_HOT, "the squared error of a softmax"),
    "absolute": (lambda raw, y: 2 * (raw - y).abs().mean() + 7, REAL, "the absolute error"),
    "rate": (lambda raw, y: (raw.exp() - y * raw).mean(), BINARY, "the Poisson loss of a log-rate"),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_a_loss_is_known_by_what_it_gives(name: str) -> None:
    loss, target, expected = KNOWN[name]
    network = column(1) if target.dim() == 1 and target.is_floating_point() else mlp(4)
    traits = traits_by_behavior(Subject(network, loss, X, target))
    assert traits is not None
    assert traits.name == expected


@pytest.mark.parametrize(
    "loss",
    [
        lambda raw, y: F.huber_loss(raw, y, delta=0.1),
        lambda raw, y: torch.log(torch.cosh(raw - y)).mean(),
        lambda raw, y: -F.mse_loss(raw, y),
        lambda raw, y: raw.sum() * 0,
        lambda raw, y: raw.sum() * torch.nan,
        lambda raw, y: raw.mean(),
        lambda raw, y: raw.nonexistent,
    ],
)
def test_another_loss_is_not_taken_for_one_that_is_known(loss: Any) -> None:
    traits = traits_by_behavior(Subject(column(1), loss, X, REAL))
    assert traits is None or traits.name not in ("the squared error", "the absolute error")


def test_our_losses_are_known_however_they_are_given() -> None:
    for loss in (
        losses.cross_entropy,
        losses.CrossEntropy(),
        functools.partial(losses.cross_entropy, dim=1),
        heads.Categorical(4),
        heads.Categorical(4).loss,
    ):
        traits = own_traits(loss)
        assert traits is not None
        assert traits.links == ("softmax",)
        assert traits.of_classes
    assert own_traits(heads.Gaussian(scale="predicted")).links == ("identity", "softplus")  # type: ignore[union-attr]
    for other in (nn.CrossEntropyLoss(), F.cross_entropy, lambda raw, y: raw, None, 3):
        assert own_traits(other) is None


def test_an_unseen_output_is_driven_to_its_ends() -> None:
    subject = Subject(Ends(1, own_sigmoid), nn.MSELoss(), X, REAL)
    assert probed_span(subject) == UNIT
    assert probed_span(Subject(column(1, nn.Tanh()), None, X, None)) == Span(-1.0, 1.0)
    assert probed_span(Subject(column(1, nn.ReLU()), None, X, None)) == Span(low=0.0)
    zero = mlp(1, nn.ReLU())
    nn.init.zeros_(zero[2].weight)
    nn.init.zeros_(zero[2].bias)
    for network in (column(1), column(1, nn.LeakyReLU()), mlp(4, nn.LayerNorm(4)), zero):
        assert probed_span(Subject(network, None, X, None)) is None


def test_an_operation_is_left_out_wherever_it_is_written() -> None:
    plain = mlp(4)
    for network, loss in (
        (nn.Sequential(*plain, nn.Softmax(1)), nn.CrossEntropyLoss()),
        (nn.Sequential(*plain), lambda raw, y: F.cross_entropy(raw.softmax(-1), y)),
    ):
        subject = Subject(network, loss, X, INDEX)
        (call,) = calls_of(subject)
        assert call.end.link is not None
        mended, mended_loss = without(subject, [call.end.link])
        expected = F.cross_entropy(plain(X), INDEX)
        torch.testing.assert_close(mended_loss(mended(X), INDEX), expected)
        # Every time anew.
        torch.testing.assert_close(mended_loss(mended(X), INDEX), expected)


def test_only_that_one_call_is_left_out() -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid(), nn.Flatten(0))
    subject = Subject(network, nn.BCEWithLogitsLoss(), X, BINARY)
    (call,) = calls_of(subject)
    assert call.end.link is not None
    mended, _ = without(subject, [call.end.link])
    torch.testing.assert_close(mended(X), network[2](network[1](network[0](X))).flatten())


def test_a_trial_takes_a_few_rows() -> None:
    rows = torch.randn(500, 6)
    few, words = with_few_rows(Subject(mlp(4), None, (rows,), torch.zeros(500)))
    assert few.rows == 128
    assert words == ", on its first 128 rows"
    # Of images, fewer: 100 filters of 20 x 20 make 40 000 numbers of every one.
    images = Subject(nn.Conv2d(1, 100, 1), None, torch.randn(100, 1, 20, 20), torch.zeros(100))
    assert with_few_rows(images)[0].rows == 25
    same, words = with_few_rows(Subject(mlp(4), None, X, INDEX))
    assert same.rows == len(X)
    assert words == ""


def test_examining_leaves_no_trace() -> None:
    for network, loss, target in (
        (mlp(4, nn.Dropout(0.5), nn.Softmax(1)), nn.CrossEntropyLoss(), INDEX),
        (mlp(1, nn.BatchNorm1d(1), nn.Sigmoid(), nn.Flatten(0)), nn.MSELoss(), BINARY),
        (Ends(1, own_sigmoid), nn.BCEWithLogitsLoss(), BINARY),
        (column(1, nn.ReLU()), lambda raw, y: torch.log(torch.cosh(raw - y)).mean(), REAL),
    ):
        network.eval()
        network[0].train() if isinstance(network, nn.Sequential) else None
        modes = [module.training for module in network.modules()]
        state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
        examine(CHECKS, network, loss, (X, target))
        assert [module.training for module in network.modules()] == modes
        torch.testing.assert_close(dict(network.state_dict()), dict(state), rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), random)
        assert all(parameter.grad is None for parameter in network.parameters())
