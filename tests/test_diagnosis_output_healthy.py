"""Last layers and losses that are right, among them those that look like a fault at first."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from output_cases import (
    BINARY,
    CLASSES,
    COUNT,
    INDEX,
    ONE_HOT,
    REAL,
    ROWS,
    SHARE,
    Ends,
    Members,
    X,
    column,
    findings_of,
    loud,
    mlp,
    own_sigmoid,
    softmax_by_hand,
)


class Attention(nn.Module):
    """Ends in what attention gives, or in a layer behind it."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.query, self.value, self.last = nn.Linear(6, 5), nn.Linear(6, 20), last

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.query(x), -1).unsqueeze(1)
        return self.last((weights @ self.value(x).unflatten(-1, (5, 4))).squeeze(1))


class Experts(nn.Module):
    """A gate's softmax, times what the experts give."""

    def __init__(self, outputs: int, each: Any = torch.nn.Identity()) -> None:  # noqa: B008
        super().__init__()
        self.gate, self.experts = nn.Linear(6, 3), nn.ModuleList([nn.Linear(6, outputs) for _ in range(3)])
        self.each = each

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.gate(x), -1).unsqueeze(1)
        return (share * torch.stack([self.each(expert(x)) for expert in self.experts], -1)).sum(-1)


class Similarity(nn.Module):
    """Of two views of every row with those of all others."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.temperature = mlp(8), nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.normalize(self.body(x), dim=-1), F.normalize(self.body(x + 0.1), dim=-1)
        return first @ second.T * self.temperature.exp()


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return torch.sigmoid(self.decoder(code)), mean, log_variance


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.states, self.last = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.states(self.embed(x))[0])


class Distribution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(2)

    def forward(self, x: Tensor) -> torch.distributions.Normal:
        mean, scale = self.body(x).unbind(-1)
        return torch.distributions.Normal(mean, F.softplus(scale) + 1e-3)


def _clip(raw: Tensor, target: Tensor) -> Tensor:
    place = torch.arange(len(raw))
    return 0.5 * (F.cross_entropy(raw, place) + F.cross_entropy(raw.T, place))


def _clip_by_hand(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.log(raw.exp().diag() / raw.exp().sum(0)).mean()


def _evidence(result: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
    p, mean, log_variance = result
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
    return F.binary_cross_entropy(p, target, reduction="sum") + divergence


def _distilled(raw: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(raw / 2, -1), F.softmax(target / 2, -1), reduction="batchmean")


def _cox(raw: Tensor, target: Tensor) -> Tensor:
    raw = raw[target.argsort(descending=True)]
    return -(raw - torch.log(torch.cumsum(raw.exp(), 0))).mean()


def _mixture(raw: Tensor, target: Tensor) -> Tensor:
    logits, mean, log_scale = raw.chunk(3, -1)
    error = (target.unsqueeze(1) - mean) / log_scale.exp()
    return -torch.logsumexp(F.log_softmax(logits, -1) - 0.5 * error**2 - log_scale, -1).mean()


def _with_entropy(raw: Tensor, target: Tensor) -> Tensor:
    p = raw.softmax(-1)
    return F.cross_entropy(raw, target) + 0.01 * (p * (p + 1e-9).log()).sum(-1).mean()


def _policy(probability: Tensor, target: Tensor) -> Tensor:
    return -(probability[torch.arange(len(target)), target].log() * REAL).mean()


def _ordinal(raw: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(raw, (torch.arange(4) < target.unsqueeze(1)).float())


def _focal(raw: Tensor, target: Tensor) -> Tensor:
    log_p = F.log_softmax(raw, -1).gather(1, target.unsqueeze(1))
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def _two_by_hand(p: Tensor, target: Tensor) -> Tensor:
    return -(target * p.clamp_min(1e-7).log() + (1 - target) * torch.log(1 - p + 1e-7)).mean()


def _groups(raw: Tensor, target: Tensor) -> Tensor:
    """Of pairs of classes, whose probabilities add up."""
    log_p = F.log_softmax(raw, -1).unflatten(-1, (2, 2)).logsumexp(-1)
    return F.nll_loss(log_p, target // 2)


def _preferences(raw: Tensor, target: Tensor) -> Tensor:
    log_p = F.log_softmax(raw, -1)
    return -F.logsigmoid(0.1 * (log_p.gather(1, target.unsqueeze(1)) - log_p[:, :1])).mean()


def _evidential(raw: Tensor, target: Tensor) -> Tensor:
    evidence = F.relu(raw) + 1
    return (evidence.sum(1).log() - evidence.gather(1, target.unsqueeze(1)).squeeze(1).log()).mean()


def _taylor_softmax(raw: Tensor) -> Tensor:
    powers = 1 + raw + 0.5 * raw**2
    return powers / powers.sum(1, keepdim=True)


def _pinball(raw: Tensor, target: Tensor) -> Tensor:
    levels = torch.tensor([0.1, 0.5, 0.9])
    error = target.unsqueeze(1) - raw
    return torch.maximum(levels * error, (levels - 1) * error).mean()


def _ranked(probability: Tensor, target: Tensor) -> Tensor:
    return (probability.cumsum(1) - F.one_hot(target, CLASSES).cumsum(1)).square().sum(1).mean()


SOFTMAX, LOG_SOFTMAX = nn.Softmax(1), nn.LogSoftmax(1)
TOKENS = torch.arange(16 * 7).reshape(16, 7) % 20
PIXELS = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CODER = (nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
Case = tuple[nn.Module, Any, Any, Tensor]

CASES: dict[str, Case] = {
    "attention": (Attention(nn.Linear(4, 4)), nn.CrossEntropyLoss(), X, INDEX),
    "attention at the end": (Attention(nn.Identity()), nn.CrossEntropyLoss(), X, INDEX),
    "gate of experts": (Experts(4), nn.CrossEntropyLoss(), X, INDEX),
    "gate of probabilities": (Experts(4, nn.Softmax(-1)), lambda p, y: F.nll_loss(p.log(), y), X, INDEX),
    "log-softmax and NLL": (mlp(4, LOG_SOFTMAX), nn.NLLLoss(), X, INDEX),
    "log-softmax in bfloat16": (mlp(4, LOG_SOFTMAX).bfloat16(), nn.NLLLoss(), X.bfloat16(), INDEX),
    "softmax, log, NLL": (mlp(4, SOFTMAX), lambda p, y: F.nll_loss(torch.log(p), y), X, INDEX),
    "guarded logarithm": (mlp(4, SOFTMAX), lambda p, y: F.nll_loss(torch.log(p + 1e-8), y), X, INDEX),
    "clamped logarithm": (mlp(4, SOFTMAX), lambda p, y: F.nll_loss(p.clamp(1e-7, 1 - 1e-7).log(), y), X, INDEX),
    "softmax by hand": (Ends(4, softmax_by_hand), lambda p, y: F.nll_loss(p.log(), y), X, INDEX),
    "cross-entropy by hand": (mlp(4, SOFTMAX), lambda p, y: -(F.one_hot(y, 4) * p.log()).sum(1).mean(), X, INDEX),
    "groups of classes": (mlp(4), _groups, X, INDEX),
    "sigmoid and BCE": (column(1, nn.Sigmoid()), nn.BCELoss(), X, BINARY),
    "own sigmoid and BCE": (Ends(1, own_sigmoid), nn.BCELoss(), X, BINARY),
    "BCE by hand": (column(1, nn.Sigmoid()), _two_by_hand, X, BINARY),
    "both classes of a sigmoid": (
        mlp(1, nn.Sigmoid()), lambda p, y: F.nll_loss(torch.log(torch.cat([1 - p, p], 1)), y.long()), X, BINARY,
    ),
    "one column of a softmax": (mlp(2, SOFTMAX), lambda p, y: F.binary_cross_entropy(p[:, 1], y), X[:2], BINARY[:2]),
    "softmax and BCE": (mlp(4, SOFTMAX), nn.BCELoss(), X, ONE_HOT),
    "labels": (mlp(4, nn.Sigmoid()), nn.BCELoss(), X, ONE_HOT),
    "product of sigmoids": (Ends(2, lambda raw: raw.sigmoid().prod(-1)), nn.BCELoss(), X, BINARY),
    "autoencoder": (nn.Sequential(*CODER), nn.BCELoss(), PIXELS, PIXELS),
    "autoencoder, squared error": (nn.Sequential(*CODER), nn.MSELoss(), PIXELS, PIXELS),
    "variational": (Variational(), _evidence, X, torch.sigmoid(X)),
    "tanh for bounded targets": (column(1, nn.Tanh()), nn.MSELoss(), X, 2 * SHARE - 1),
    "tanh for signs": (column(1, nn.Tanh()), nn.MSELoss(), X, 2 * BINARY - 1),
    "stars": (Ends(1, lambda raw: 1 + 4 * raw.sigmoid()[:, 0]), nn.MSELoss(), X, 1 + 4 * SHARE),
    "ReLU for counts": (column(1, nn.ReLU()), nn.MSELoss(), X, COUNT),
    "softplus for rates": (column(1, nn.Softplus()), nn.PoissonNLLLoss(log_input=False), X, COUNT),
    "exp for rates": (Ends(1, lambda raw: raw.exp()[:, 0]), nn.PoissonNLLLoss(log_input=False), X, COUNT),
    "log-rates": (column(1), nn.PoissonNLLLoss(), X, COUNT),
    "logarithmic error": (
        column(1, nn.Softplus()), lambda raw, y: F.mse_loss(torch.log(raw + 1), torch.log(y + 1)), X, COUNT,
    ),
    "generator": (mlp(1), lambda raw, y: F.binary_cross_entropy_with_logits(raw, torch.ones_like(raw)), X, BINARY),
    "non-saturating": (mlp(1), lambda raw, y: F.softplus(-raw).mean(), X, BINARY),
    "critic": (column(1), lambda raw, y: ((2 * y - 1) * raw).mean(), X, BINARY),
    "distillation": (mlp(4), _distilled, X, X[:, :4]),
    "smoothed labels": (mlp(4), nn.CrossEntropyLoss(label_smoothing=0.1), X, INDEX),
    "focal loss by hand": (mlp(4), _focal, X, INDEX),
    "hinge": (column(1), lambda raw, y: F.relu(1 - (2 * y - 1) * raw).mean(), X, BINARY),
    "margin": (mlp(4), nn.MultiMarginLoss(), X, INDEX),
    "margin of probabilities": (mlp(4, SOFTMAX), nn.MultiMarginLoss(margin=0.3), X, INDEX),
    "survival": (column(1), _cox, X, REAL),
    "mixture by hand": (mlp(9), _mixture, X, REAL),
    "entropy beside": (mlp(4), _with_entropy, X, INDEX),
    "policy": (mlp(4, SOFTMAX), _policy, X, INDEX),
    "ordinal by hand": (mlp(4), _ordinal, X, INDEX),
    "similarities": (Similarity(), _clip, X, REAL),
    "similarities by hand": (Similarity(), _clip_by_hand, X, REAL),
    "distribution": (Distribution(), lambda predicted, y: -predicted.log_prob(y).mean(), X, REAL),
    "sequence": (Tokens(), lambda raw, y: F.cross_entropy(raw.transpose(1, 2), y), TOKENS, TOKENS % CLASSES),
    "sequence, flat": (Tokens(), lambda raw, y: F.cross_entropy(raw.flatten(0, 1), y.flatten()), TOKENS, TOKENS % 4),
    "CTC": (
        Tokens(), lambda raw, y: F.ctc_loss(raw.log_softmax(-1).transpose(0, 1), y, [7] * 16, [2] * 16), TOKENS,
        TOKENS[:, :2] % 3 + 1,
    ),
    "sum of probabilities": (mlp(4, SOFTMAX), lambda p, y: F.binary_cross_entropy(p[:, :2].sum(1), y), X, BINARY),
    "rest of probabilities": (mlp(4, SOFTMAX), lambda p, y: -torch.log(1 - p[:, :2].sum(1)).mean(), X, BINARY),
    "either of two": (
        Ends(2, lambda r: 1 - (1 - r[:, 0].sigmoid()) * (1 - r[:, 1].sigmoid())), nn.BCELoss(), X, BINARY,
    ),
    "chance to survive": (Ends(1, lambda raw: 1 - torch.exp(-F.softplus(raw[:, 0]))), nn.BCELoss(), X, BINARY),
    "distances": (mlp(4), lambda raw, y: -F.logsigmoid(-(raw - X[:, :4]).square().sum(-1)).mean(), X, BINARY),
    "prototypes": (
        mlp(4), lambda raw, y: F.cross_entropy(-(raw.unsqueeze(1) - torch.eye(4)).square().sum(-1), y), X, INDEX,
    ),
    "preferences": (mlp(4), _preferences, X, INDEX),
    "evidence": (mlp(4), _evidential, X, INDEX),
    "another softmax": (Ends(4, _taylor_softmax), lambda p, y: F.nll_loss(p.log(), y), X, INDEX),
    "quantiles in order": (
        Ends(3, lambda r: torch.cat([r[:, :1], r[:, :1] + F.softplus(r[:, 1:]).cumsum(1)], 1)), _pinball, X, REAL,
    ),
    "rows of ranks": (mlp(4, SOFTMAX), _ranked, X, INDEX),
    "scaled cosines": (mlp(4, SOFTMAX), lambda p, y: F.cross_entropy(50 * p, y), X, INDEX),
    "clamped logits": (Ends(4, lambda raw: raw.clamp(-10, 10)), nn.CrossEntropyLoss(), X, INDEX),
    "soft-capped logits": (Ends(4, lambda raw: 10 * torch.tanh(raw / 10)), nn.CrossEntropyLoss(), X, INDEX),
    "leaky end": (column(1, nn.LeakyReLU()), nn.MSELoss(), X, REAL),
    "learned slope": (column(1, nn.PReLU()), nn.MSELoss(), X, REAL),
    "normalized end": (mlp(1, nn.BatchNorm1d(1), nn.Flatten(0)), nn.MSELoss(), X, REAL),
    "members": (Members(4, nn.Identity()), lambda raw, y: sum(F.cross_entropy(one, y) for one in raw), X, INDEX),
    "mean of members": (Members(4, nn.Softmax(-1)), lambda p, y: F.nll_loss(p.mean(0).log(), y), X, INDEX),
    "no gradient": (mlp(4), lambda raw, y: (raw.argmax(1) != y).float().mean(), X, INDEX),
    "not a number": (mlp(4), nn.CrossEntropyLoss(), X.masked_fill(X > 2, torch.nan), INDEX),
    "huge": (mlp(1, nn.Flatten(0)), nn.MSELoss(), 1e6 * X, 1e30 * REAL),
    "one row": (mlp(1, nn.Sigmoid()), nn.BCELoss(), X[:1], BINARY[:1, None]),
    "no rows": (column(1, nn.ReLU()), nn.MSELoss(), X[:0], REAL[:0]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_right_ends_are_left_alone(case: str) -> None:
    network, loss, features, target = CASES[case]
    assert loud(findings_of(network, loss, features, target)) == []


def _network_for(raw: Tensor) -> nn.Module:
    return column(1) if raw.dim() == 1 else mlp(raw.shape[-1])


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "in a lambda"])
@pytest.mark.parametrize("name", losses.catalog())
def test_every_loss_of_ours_takes_raw_outputs(name: str, wrapped: bool) -> None:
    loss = losses.catalog()[name]
    raw, target = loss.facts.example(ROWS, generator=torch.Generator().manual_seed(0))
    given = (lambda raw, y: loss(raw, y)) if wrapped else loss
    assert loud(findings_of(_network_for(raw), given, X, target)) == []


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "in a lambda"])
@pytest.mark.parametrize("name", heads.catalog())
def test_every_head_takes_raw_outputs(name: str, wrapped: bool) -> None:
    head = heads.catalog()[name].default()
    _, target = head.facts.example(ROWS, generator=torch.Generator().manual_seed(0))
    given = (lambda raw, y: head.loss(raw, y)) if wrapped else head
    assert loud(findings_of(mlp(head.raw_size), given, X, target)) == []


def test_rows_that_add_up_to_nearly_one_are_no_probabilities() -> None:
    """Where nothing is known of how they came about, the numbers have to be right."""

    def shares(total: float) -> Ends:
        def split(raw: Tensor) -> Tensor:
            part = raw[:, :1].sigmoid() * raw[:, 1:].sigmoid()
            return torch.cat([part, total - part], 1)

        return Ends(2, split)

    assert loud(findings_of(shares(1.01), nn.CrossEntropyLoss(), X, INDEX % 2)) == []
    assert loud(findings_of(shares(1.0), nn.CrossEntropyLoss(), X, INDEX % 2)) == ["softmax_before_cross_entropy"]


def test_two_samples_whose_probabilities_add_up_to_one() -> None:
    """Of one class each, from a softmax over the classes: the axis is right."""
    network = mlp(2, SOFTMAX)
    nn.init.zeros_(network[2].weight)
    nn.init.zeros_(network[2].bias)
    assert loud(findings_of(network, lambda p, y: F.binary_cross_entropy(p[:, 1], y), X[:2], BINARY[:2])) == []


def test_probabilities_of_groups_are_no_second_softmax() -> None:
    assert list(findings_of(mlp(4), _groups)) == []


def test_without_a_loss_or_a_target_there_is_nothing_to_ask() -> None:
    assert list(findings_of(mlp(4, SOFTMAX), nn.CrossEntropyLoss(), X, None)) == []
    assert list(findings_of(mlp(4, SOFTMAX), None)) == []
    # But what the network does to itself can be seen.
    assert loud(findings_of(mlp(4, SOFTMAX, SOFTMAX), None)) == ["link_applied_twice"]


def test_numbers_stay_plain_where_the_output_is_not_a_number() -> None:
    features = X.masked_fill(X > 1, torch.nan)
    for network, loss, target in (
        (mlp(4), nn.NLLLoss(), INDEX),
        (mlp(4, SOFTMAX), nn.CrossEntropyLoss(), INDEX),
        (column(1), lambda raw, y: -(y * raw.log()).mean(), BINARY),
        (mlp(2), lambda raw, y: (raw[:, 1].log() + ((y - raw[:, 0]) / raw[:, 1]) ** 2).mean(), REAL),
        (column(1, nn.ReLU()), nn.MSELoss(), REAL),
        (column(1, nn.Sigmoid()), nn.MSELoss(), BINARY),
    ):
        for finding in findings_of(network, loss, features, target):
            assert all(math.isfinite(number) for number in finding.numbers.values()), str(finding)


def test_a_forward_pass_that_fails_is_left_to_others() -> None:
    assert list(findings_of(nn.Sequential(nn.Linear(5, 4), SOFTMAX), nn.CrossEntropyLoss())) == []
