"""What a forward forgets to say: layers in a plain list, dropout without training=, a softmax over the samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structure_cases import Forward, classes, found, mlp, normal, only


class Listed(nn.Module):
    """Hidden layers in whatever ``keep`` makes of a list of them."""

    def __init__(self, keep: Any) -> None:
        super().__init__()
        self.hidden = keep([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden.values() if isinstance(self.hidden, dict) else self.hidden:
            x = torch.relu(layer(x))
        return self.last(x)


@pytest.mark.parametrize(
    ("keep", "fix"),
    [
        (list, "nn.ModuleList(...)"),
        (tuple, "nn.ModuleList(...)"),
        (lambda layers: dict(enumerate(layers)), "nn.ModuleDict(...)"),
    ],
    ids=["list", "tuple", "dict"],
)
def test_layers_in_a_plain_container(keep: Any, fix: str) -> None:
    network = Listed(keep)
    findings = found(network, F.cross_entropy, normal(16, 4), classes(16, 3), torch.optim.Adam(network.parameters()))
    finding = only(findings, "parameter_not_optimized", "error")
    assert "self.hidden" in finding.where
    assert "'hidden[0].weight'" in finding.evidence
    assert fix in finding.fix
    assert finding.numbers["missing"] == 4


def test_layers_that_are_known_or_in_the_optimizer_are_fine() -> None:
    for network in (Listed(nn.ModuleList), Listed(list)):
        everything = [*network.parameters()] + [one for layer in network.hidden for one in layer.parameters()]
        optimizer = torch.optim.Adam(set(everything))
        assert not found(network, F.cross_entropy, normal(16, 4), classes(16, 3), optimizer)


def test_a_list_of_what_is_registered_too_is_fine() -> None:
    network = mlp(4, 8, 3)
    network.in_order = [network[0], network[2]]
    assert not found(network, F.cross_entropy, normal(16, 4), classes(16, 3))


def dropping(**options: Any) -> nn.Module:
    return Forward(lambda net, x: net.last(F.dropout(x, **options)), last=nn.Linear(4, 3))


@pytest.mark.parametrize("options", [{}, {"p": 0.2}, {"p": 0.2, "training": True}], ids=str)
def test_dropout_that_never_stops(options: Any) -> None:
    finding = only(
        found(dropping(**options), F.cross_entropy, normal(16, 4), classes(16, 3)), "dropout_in_evaluation", "warning"
    )
    assert f"{options.get('p', 0.5):.0%}" in finding.evidence
    assert "training=self.training" in finding.fix


def test_dropout_that_knows_when_to_stop_is_fine() -> None:
    layer = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    call = Forward(lambda net, x: net.last(F.dropout(x, 0.5, net.training)), last=nn.Linear(4, 3))
    for network in (layer, call, dropping(p=0.0)):
        assert not found(network, F.cross_entropy, normal(16, 4), classes(16, 3))


def attending(axis: int) -> nn.Module:
    def forward(net: Any, x: Tensor) -> Tensor:
        share = torch.softmax(net.score(x).squeeze(-1), dim=axis)
        return net.last((share.unsqueeze(-1) * x).sum(1))

    return Forward(forward, score=nn.Linear(6, 1), last=nn.Linear(6, 3))


def test_attention_over_the_batch() -> None:
    for axis in (0, -2):
        finding = only(
            found(attending(axis), F.cross_entropy, normal(16, 5, 6), classes(16, 3)),
            "softmax_over_wrong_axis",
            "error",
        )
        assert "(16, 5)" in finding.evidence
        assert "other rows" in finding.evidence


def test_attention_within_the_sample_is_fine() -> None:
    for batch in (normal(16, 5, 6), normal(5, 5, 6)):
        assert not found(attending(1), F.cross_entropy, batch, classes(len(batch), 3))


def test_a_softmax_over_the_first_axis_that_mixes_no_samples_is_fine() -> None:
    """Axis 0 of weights that all samples share is an axis of the network's, not of the batch."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(x @ torch.softmax(net.mix, dim=0))

    network = Forward(forward, last=nn.Linear(4, 3))
    network.mix = nn.Parameter(torch.randn(16, 4))
    assert not found(network, F.cross_entropy, normal(16, 16), classes(16, 3))


def test_a_loss_that_takes_its_softmax_over_the_samples() -> None:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return -torch.softmax(raw, 0).gather(1, target[:, None]).log().mean()

    only(found(mlp(4, 8, 3), loss, normal(16, 4), classes(16, 3)), "softmax_over_wrong_axis", "error")


def test_a_contrastive_loss_is_fine() -> None:
    """Every sample against every other, in both directions."""

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        likeness = raw @ raw.t().detach()
        own = torch.arange(len(raw))
        both = (torch.softmax(likeness, axis) for axis in (0, 1))
        return -sum(share.gather(1, own[:, None]).clamp_min(1e-9).log().mean() for share in both)

    assert "softmax_over_wrong_axis" not in found(mlp(4, 8, 3), loss, normal(16, 4), classes(16, 3)).names


class Adds(nn.Module):
    """Adds a place to a word, and forgets the sum, if told to."""

    def __init__(self, forgets: bool) -> None:
        super().__init__()
        self.place, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.forgets = forgets

    def forward(self, x: Tensor) -> Tensor:
        if self.forgets:
            x + self.place(x)
            F.normalize(x * self.place.weight[0])
        else:
            x = x + self.place(x)
        return self.last(x)


def test_sums_and_calls_that_are_thrown_away() -> None:
    findings = found(Adds(True), F.cross_entropy, normal(16, 4), classes(16, 3))
    lost = [finding for finding in findings if finding.name == "value_never_used"]
    assert len(lost) == 2
    assert any("x + self.place(x)" in finding.evidence for finding in lost)
    assert not found(Adds(False), F.cross_entropy, normal(16, 4), classes(16, 3))
