"""What the output cannot reach: targets beyond an activation, scales without a positive link."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.diagnosis import output_and_loss, output_range
from lastlayer.diagnosis.output_range import unreachable_share
from lastlayer.diagnosis.spans import Span
from output_cases import BINARY, COUNT, INDEX, REAL, SHARE, Ends, X, column, findings_of, loud, mlp, the_one


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    for question in (output_and_loss, output_range):
        monkeypatch.setattr(question, "tried_without", lambda *args, **options: None)


def _flat(function: Any) -> Ends:
    return Ends(1, lambda raw: function(raw).squeeze(-1))


def _scripted(network: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Deprecated, and in use.
        scripted: nn.Module = torch.jit.script(network)
    return scripted


def _log_cosh(raw: Tensor, target: Tensor) -> Tensor:
    return torch.log(torch.cosh(raw - target)).mean()


SIGNED: dict[str, tuple[nn.Module, Any, Tensor, str]] = {
    "ReLU": (column(1, nn.ReLU()), nn.MSELoss(), REAL, "layer '3' (ReLU)"),
    "ReLU in forward": (_flat(F.relu), F.l1_loss, REAL, "relu in Ends's forward"),
    "clamp": (_flat(lambda raw: raw.clamp(min=0)), nn.SmoothL1Loss(), REAL, "clamp in Ends's forward"),
    "softplus": (_flat(F.softplus), losses.Huber(), REAL, "softplus in Ends's forward"),
    "sigmoid": (_flat(torch.sigmoid), nn.HuberLoss(), 3 * REAL, "sigmoid in Ends's forward"),
    "tanh": (_flat(torch.tanh), F.mse_loss, 2 * REAL, "tanh in Ends's forward"),
    "head": (mlp(1, nn.ReLU()), heads.Gaussian(), REAL, "layer '3' (ReLU)"),
    "quadratic by hand": (column(1, nn.ReLU()), lambda raw, y: ((raw - y) ** 2).mean(), REAL, "layer '3' (ReLU)"),
    "another loss by hand": (column(1, nn.ReLU()), _log_cosh, REAL, "layer '3' (ReLU)"),
    "the other way round": (column(1, nn.ReLU()), lambda raw, y: F.mse_loss(y, raw), REAL, "layer '3' (ReLU)"),
    "scripted": (_scripted(column(1, nn.ReLU())), nn.MSELoss(), REAL, "RecursiveScriptModule"),
    "recurrent states": (
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.GRU(3, 1)), lambda raw, y: F.mse_loss(raw[0][:, -1, 0], y), 3 * REAL,
        "layer '1' (GRU)",
    ),
    "one column of three": (
        mlp(3, nn.ReLU()), F.mse_loss, torch.stack([REAL.abs(), REAL, REAL.abs()], 1), "layer '3' (ReLU)",
    ),
    "logits": (column(1, nn.ReLU()), nn.BCEWithLogitsLoss(), BINARY, "layer '3' (ReLU)"),
}  # fmt: skip


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("form", SIGNED)
def test_outputs_that_cannot_reach_the_targets(form: str) -> None:
    network, loss, target, where = SIGNED[form]
    findings = findings_of(network, loss, X, target)
    assert loud(findings) == ["relu_before_signed_target"]
    found = the_one(findings, "relu_before_signed_target")
    assert found.severity == "error"
    assert where in found.where


def test_the_share_that_cannot_be_learned() -> None:
    """The best a ReLU can do is max(0, y): what is left of the variance, in NumPy."""
    found = the_one(findings_of(column(1, nn.ReLU()), nn.MSELoss(), X, REAL), "relu_before_signed_target")
    y = REAL.double().numpy()
    assert found.numbers["share_of_variance"] == pytest.approx(
        np.mean((np.maximum(y, 0) - y) ** 2) / np.var(y), rel=1e-5
    )
    assert found.numbers["share_of_targets"] == pytest.approx(np.mean(y < 0))
    assert found.tried is not None
    assert found.tried.startswith("Without layer '3' (ReLU), 40 steps of Adam")


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_share_has_no_units(scale: float) -> None:
    target = torch.tensor([-1.0, 2.0, 5.0])
    expected = unreachable_share(Span(low=0.0), target)
    assert expected == pytest.approx(1.0 / float(((target - 2.0) ** 2).sum()))
    assert unreachable_share(Span(low=0.0), scale * target) == pytest.approx(expected)


def test_shares_at_the_edges() -> None:
    assert unreachable_share(Span(0.0, 1.0), torch.empty(0)) == 0.0
    assert unreachable_share(Span(0.0, 1.0), torch.tensor([torch.nan, torch.inf, 0.5])) == 0.0
    assert unreachable_share(Span(0.0, 1.0), torch.full((5,), 2.0)) == 1.0
    assert unreachable_share(Span(1.0, 2.0), torch.zeros(5)) == 1.0
    # One pixel that hardly varies does not decide over an image.
    image = torch.tensor([[0.0, 1.01], [1.0, 1.02], [0.0, 1.01]])
    assert unreachable_share(Span(0.0, 1.0), image) < 0.005


@pytest.mark.usefixtures("untried")
def test_how_bad_it_is_depends_on_how_much_is_lost() -> None:
    for dip, severity in ((0.5, "note"), (2.0, "warning"), (8.0, "error")):
        target = 10 * SHARE.clone()
        target[3] = -dip
        findings = findings_of(column(1, nn.ReLU()), nn.MSELoss(), X, target)
        assert [finding.severity for finding in findings] == [severity], str(findings)


@pytest.mark.usefixtures("untried")
def test_what_is_masked_need_not_be_reached() -> None:
    missing = torch.where(SHARE < 0.3, -1.0, 5 * SHARE)
    network = column(1, nn.Softplus())
    assert loud(findings_of(network, lambda raw, y: ((raw - y) ** 2 * (y >= 0)).mean(), X, missing)) == []
    assert loud(findings_of(network, lambda raw, y: ((raw - y) ** 2).mean(), X, missing)) == [
        "relu_before_signed_target"
    ]


@pytest.mark.usefixtures("untried")
def test_scores_cut_before_cross_entropy_are_a_warning() -> None:
    network = mlp(4, nn.ReLU())
    found = the_one(findings_of(network, nn.CrossEntropyLoss(), X, INDEX), "relu_before_signed_target")
    assert found.severity == "warning"
    assert found.numbers["share_cut"] == pytest.approx(float((network(X) == 0).double().mean()))


def _gaussian(raw: Tensor, target: Tensor) -> Tensor:
    mean, scale = raw.unbind(-1)
    return (torch.log(scale) + 0.5 * ((target - mean) / scale) ** 2).mean()


def _gaussian_of_variance(raw: Tensor, target: Tensor) -> Tensor:
    return (0.5 * raw[:, 1].log() + (target - raw[:, 0]) ** 2 / (2 * raw[:, 1])).mean()


def _laplace(raw: Tensor, target: Tensor) -> Tensor:
    return (torch.log(raw[:, 1]) + (target - raw[:, 0]).abs() * (1 / raw[:, 1])).mean()


def _gaussian_of_square(raw: Tensor, target: Tensor) -> Tensor:
    return (raw[:, 1].log() + (target - raw[:, 0]) ** 2 / (2 * raw[:, 1] ** 2)).mean()


def _normal(raw: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Normal(raw[:, 0], raw[:, 1]).log_prob(target).mean()


def _pytorch(raw: Tensor, target: Tensor) -> Tensor:
    return F.gaussian_nll_loss(raw[:, 0], target, raw[:, 1])


def _pytorch_by_name(raw: Tensor, target: Tensor) -> Tensor:
    return nn.GaussianNLLLoss()(raw[:, 0], target, var=raw[:, 1])


SCALES: dict[str, tuple[nn.Module, Any, str]] = {
    "PyTorch's": (mlp(2), _pytorch, "layer '2' (Linear)"),
    "PyTorch's by name": (mlp(2), _pytorch_by_name, "layer '2' (Linear)"),
    "Gaussian by hand": (mlp(2), _gaussian, "layer '2' (Linear)"),
    "variance by hand": (mlp(2), _gaussian_of_variance, "layer '2' (Linear)"),
    "squared by hand": (mlp(2), _gaussian_of_square, "layer '2' (Linear)"),
    "Laplace by hand": (mlp(2), _laplace, "layer '2' (Linear)"),
    "distribution": (mlp(2), _normal, "Normal(scale=…)"),
}


@pytest.mark.parametrize("form", SCALES)
def test_scale_without_a_positive_link(form: str) -> None:
    network, loss, where = SCALES[form]
    findings = findings_of(network, loss, X, REAL)
    assert loud(findings) == ["scale_without_positive_link"]
    found = the_one(findings, "scale_without_positive_link")
    assert found.severity == "error"
    assert where in found.where


def test_how_many_scales_are_not_positive() -> None:
    network = mlp(2)
    found = the_one(findings_of(network, _pytorch, X, REAL), "scale_without_positive_link")
    scales = network(X)[:, 1].detach()
    assert found.numbers["least"] == pytest.approx(float(scales.min()))
    assert found.numbers["share_not_positive"] == pytest.approx(float((scales <= 0).double().mean()))


def test_scales_that_happen_to_be_positive_are_found_all_the_same() -> None:
    network = mlp(2)
    nn.init.constant_(network[2].bias, 5.0)
    for loss in (_pytorch, _gaussian):
        found = the_one(findings_of(network, loss, X, REAL), "scale_without_positive_link")
        assert found.numbers["share_not_positive"] == 0.0


@pytest.mark.usefixtures("untried")
def test_a_rectified_variance_is_a_warning() -> None:
    def rectified(raw: Tensor, target: Tensor) -> Tensor:
        return F.gaussian_nll_loss(raw[:, 0], target, F.relu(raw[:, 1] - 0.1))

    assert the_one(findings_of(mlp(2), rectified, X, REAL), "scale_without_positive_link").severity == "warning"


@pytest.mark.parametrize(
    "positive",
    [torch.exp, F.softplus, torch.square, torch.abs, lambda r: F.elu(r) + 1.001, lambda r: torch.sigmoid(r) + 0.1],
    ids=["exp", "softplus", "square", "abs", "elu", "sigmoid"],
)
def test_positive_links_are_right(positive: Any) -> None:
    for loss in (_pytorch, _gaussian, _normal):
        own = lambda raw, y, loss=loss: loss(torch.stack([raw[:, 0], positive(raw[:, 1])], 1), y)  # noqa: E731
        assert loud(findings_of(mlp(2), own, X, REAL)) == []


class TwoParts(nn.Module):
    """A location and a positive scale, made and put together in the network, as it should be."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.how = mlp(2), how

    def forward(self, x: Tensor) -> Tensor:
        both = self.body(x)
        scale = F.softplus(both[:, 1]) + 1e-3
        if self.how == "in place":
            both = both.clone()
            both[:, 1] = scale
            return both
        return (
            torch.stack([both[:, 0], scale], -1) if self.how == "stack" else torch.cat([both[:, :1], scale[:, None]], 1)
        )


@pytest.mark.parametrize("how", ["stack", "cat", "in place"])
@pytest.mark.parametrize("loss", [_pytorch, _gaussian, _gaussian_of_variance, _laplace, _normal])
def test_a_positive_scale_is_told_from_the_location_beside_it(how: str, loss: Any) -> None:
    assert loud(findings_of(TwoParts(how), loss, X, REAL)) == []


def test_counts_are_reached_by_what_is_positive() -> None:
    for last in (nn.ReLU(), nn.Softplus()):
        assert loud(findings_of(column(1, last), nn.MSELoss(), X, COUNT)) == []


def _normal_density(y: Tensor, m: Tensor, s: Tensor) -> Tensor:
    return torch.exp(-0.5 * ((y - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))


def _normal_density_of_variance(y: Tensor, m: Tensor, v: Tensor) -> Tensor:
    return (-((y - m) ** 2) / (2 * v)).exp() / torch.sqrt(2 * math.pi * v)


def _laplace_density(y: Tensor, m: Tensor, s: Tensor) -> Tensor:
    return 1 / (2 * s) * torch.exp(-(y - m).abs() / s)


def _mixture(density: Any, link: Any) -> Any:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        share, middle, scale = raw.chunk(3, dim=1)
        return -torch.log((share.softmax(1) * density(target.unsqueeze(1), middle, link(scale))).sum(1) + 1e-12).mean()

    return loss


@pytest.mark.parametrize("density", [_normal_density, _normal_density_of_variance, _laplace_density])
def test_a_density_of_a_raw_scale(density: Any) -> None:
    network = mlp(6)
    findings = findings_of(network, _mixture(density, lambda raw: raw), X, REAL)
    found = the_one(findings, "scale_without_positive_link")
    assert loud(findings) == ["scale_without_positive_link"]
    assert (found.severity, found.where) == ("error", "layer '2' (Linear)")
    raw = network(X).detach()[:, 4:]
    assert found.numbers["share_not_positive"] == pytest.approx(float((raw <= 0).double().mean()))
    for link in (torch.exp, lambda raw: F.softplus(raw) + 1e-3):
        assert loud(findings_of(network, _mixture(density, link), X, REAL)) == []


def test_dividing_by_what_changes_sign_is_no_density() -> None:
    def ratio(raw: Tensor, target: Tensor) -> Tensor:
        return torch.tanh((target - raw[:, 0]) / raw[:, 1]).square().mean()

    def bumps(raw: Tensor, target: Tensor) -> Tensor:
        width = raw[:, 1]
        return (-torch.exp(-(((target - raw[:, 0]) / width) ** 2)) / width.abs().add(1)).mean()

    for loss in (ratio, bumps):
        assert "scale_without_positive_link" not in loud(findings_of(mlp(2), loss, X, REAL))
