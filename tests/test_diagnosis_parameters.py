"""Parameters that do not learn, or should not decay; and normalization over too few rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lastlayer import activations, networks
from lastlayer.regularization import parameters_to_penalize
from structure_cases import Forward, found, mlp, normal, only, trained

X, Y = normal(16, 4), normal(16, 1)


def three(function: Any) -> Forward:
    return Forward(function, a=nn.Linear(4, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 1))


def skips_one(net: Any, x: Tensor) -> Tensor:
    return net.c(torch.relu(net.a(x)))


def detaches(net: Any, x: Tensor) -> Tensor:
    return net.c(net.b(torch.relu(net.a(x))).detach())


def goes_without_gradient(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = net.b(torch.relu(net.a(x)))
    return net.c(hidden)


def takes_the_data(net: Any, x: Tensor) -> Tensor:
    return net.c(net.b(torch.relu(net.a(x))).data)


def rounds(net: Any, x: Tensor) -> Tensor:
    return net.c(net.b(torch.relu(net.a(x))).argsort(1).float())


@pytest.mark.parametrize(
    ("forward", "names", "words"),
    [
        (skips_one, {"b"}, "Nothing in this batch's forward pass uses"),
        (detaches, {"a", "b"}, "it ends at detach in Forward's forward"),
        (goes_without_gradient, {"a", "b"}, "it ran under torch.no_grad()"),
        (takes_the_data, {"a", "b"}, "it ends at data in Forward's forward"),
        (rounds, {"a", "b"}, "it ends at argsort in Forward's forward"),
    ],
)
def test_parameters_without_a_gradient_are_those_that_backward_leaves_out(
    forward: Any, names: set[str], words: str
) -> None:
    network = three(forward)
    F.mse_loss(network(X), Y).backward()
    without = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == names
    network.zero_grad(set_to_none=True)
    findings = found(network, F.mse_loss, X, Y, torch.optim.Adam(network.parameters()))
    finding = only(findings, "unused_parameter", "warning")
    assert words in finding.evidence
    assert finding.numbers["unused"] == 2 * len(names)
    for name in "abc":
        assert (f"layer '{name}'" in finding.where) == (name in names)


def test_a_body_that_the_optimizer_leaves_alone_is_a_note() -> None:
    network = three(detaches)
    only(found(network, F.mse_loss, X, Y, torch.optim.Adam(network.c.parameters())), "unused_parameter", "note")


def all_three(net: Any, x: Tensor) -> Tensor:
    return net.c(net.b(net.a(x)))


@pytest.mark.parametrize(
    ("forward", "loss", "words"),
    [
        (lambda net, x: all_three(net, x).detach(), F.mse_loss, "it ends at detach"),
        (
            all_three,
            lambda raw, target: torch.tensor(F.mse_loss(raw, target).item(), requires_grad=True),
            "value of mse_loss in the loss is read as a plain number",
        ),
        (all_three, lambda raw, target: target.square().mean(), "does not use what the network"),
        (all_three, lambda raw, target: (raw.argmax(1) == 0).float().mean(), "argmax in the loss"),
    ],
    ids=["detached", "number", "another", "argmax"],
)
def test_a_loss_that_depends_on_nothing_is_an_error(forward: Any, loss: Any, words: str) -> None:
    finding = only(found(three(forward), loss, X, Y), "unused_parameter", "error")
    assert finding.where == "the whole network"
    assert words in finding.evidence


def test_an_output_that_the_loss_passes_over_is_a_note() -> None:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(net.a(x))
        return net.c(hidden), net.b(hidden)

    loss = lambda raw, target: F.mse_loss(raw[0], target)  # noqa: E731
    finding = only(found(three(forward), loss, X, Y), "unused_parameter", "note")
    assert finding.where == "layer 'b' (Linear)"


def test_a_single_parameter_that_is_never_used() -> None:
    network = three(skips_one)
    network.b = nn.Linear(8, 8).requires_grad_(False)
    network.scale = nn.Parameter(torch.ones(3))
    findings = [one for one in found(network, F.mse_loss, X, Y) if one.name == "unused_parameter"]
    assert [one.where for one in findings] == ["parameter 'scale'"]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_reentrant_checkpoint_of_plain_inputs() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.c(torch.relu(net.b(checkpoint(net.a, x, use_reentrant=True))))

    finding = only(found(three(forward), F.mse_loss, X, Y), "unused_parameter", "warning")
    assert "use_reentrant=False" in finding.fix


@pytest.mark.parametrize(
    ("layers", "severity"),
    [((2,), "warning"), ((0,), "note"), ((4,), "note"), ((0, 2), "note"), ((2, 4), "note"), ((0, 2, 4), "error")],
)
def test_frozen_layers(layers: tuple[int, ...], severity: str) -> None:
    network = trained(mlp(4, 16, 8, 1))
    for layer in layers:
        network[layer].requires_grad_(False)
    finding = only(found(network, F.mse_loss, X, Y), "frozen_parameter", severity)
    if severity == "error":
        assert finding.where == "the whole network"
    else:
        assert all(f"layer '{layer}' (Linear)" in finding.where for layer in layers)
        sizes = [sum(parameter.numel() for parameter in network[layer].parameters()) for layer in range(0, 5, 2)]
        assert finding.numbers["share"] == pytest.approx(sum(sizes[layer // 2] for layer in layers) / sum(sizes))


def test_a_frozen_layer_that_has_never_learned() -> None:
    """A body that is loaded is not uniform any more; one that was forgotten to load is."""
    network = mlp(4, 64, 8, 1)
    network[0].requires_grad_(False)
    finding = only(found(network, F.mse_loss, X, Y), "frozen_parameter", "warning")
    assert "as PyTorch drew them" in finding.evidence


def test_frozen_biases_and_positions_are_notes() -> None:
    network = mlp(4, 16, 8, 1)
    network[2].bias.requires_grad_(False)
    only(found(network, F.mse_loss, X, Y), "frozen_parameter", "note")
    placed = Forward(lambda net, x: net.b(torch.relu(net.a(x) + net.place)), a=nn.Linear(4, 8), b=nn.Linear(8, 1))
    placed.place = nn.Parameter(torch.randn(8), requires_grad=False)
    only(found(placed, F.mse_loss, X, Y), "frozen_parameter", "note")


def test_parameters_that_the_optimizer_does_not_hold() -> None:
    network = mlp(4, 16, 8, 1)
    findings = found(network, F.mse_loss, X, Y, torch.optim.SGD(network[4].parameters()))
    finding = only(findings, "parameter_not_optimized", "warning")
    assert finding.where == "layer '0' (Linear), layer '2' (Linear)"
    assert finding.numbers == {"missing": 4, "parameters": 6, "foreign": 0}


@pytest.mark.parametrize("make", [lambda network: mlp(4, 16, 8, 1), copy.deepcopy], ids=["another", "copy"])
def test_an_optimizer_of_another_network_moves_nothing(make: Any) -> None:
    network = mlp(4, 16, 8, 1)
    optimizer = torch.optim.Adam(make(network).parameters(), lr=0.1)
    before = [parameter.clone() for parameter in network.parameters()]
    F.mse_loss(network(X), Y).backward()
    optimizer.step()
    assert all(torch.equal(parameter, old) for parameter, old in zip(network.parameters(), before, strict=True))
    network.zero_grad(set_to_none=True)
    finding = only(found(network, F.mse_loss, X, Y, optimizer), "parameter_not_optimized", "error")
    assert "They have the shapes of this network's" in finding.evidence


def test_a_layer_that_was_replaced_after_the_optimizer_was_made() -> None:
    network = mlp(4, 16, 8, 1)
    optimizer = torch.optim.Adam(network.parameters())
    network[4] = nn.Linear(8, 1)
    finding = only(found(network, F.mse_loss, X, Y, optimizer), "parameter_not_optimized", "error")
    assert finding.where == "layer '4' (Linear)"


def test_moving_the_network_keeps_its_parameters_in_the_optimizer() -> None:
    network = mlp(4, 16, 8, 1)
    optimizer = torch.optim.Adam(network.parameters())
    network.double()
    assert not found(network, F.mse_loss, X.double(), Y.double(), optimizer)


def test_parameters_of_the_loss_may_be_in_the_optimizer() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, raw: Tensor, target: Tensor) -> Tensor:
            return F.mse_loss(raw, target) * (-self.log_scale).exp() + self.log_scale

    network, loss = mlp(4, 8, 1), Learned()
    assert not found(network, loss, X, Y, torch.optim.Adam([*network.parameters(), *loss.parameters()]))


class OwnPReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


@pytest.mark.parametrize("activation", [nn.PReLU, activations.PReLU, OwnPReLU])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_slopes_that_decay(activation: Any, decay: float) -> None:
    network = mlp(4, 8, 8, 1, activation=activation)
    findings = found(network, F.mse_loss, X, Y, torch.optim.AdamW(network.parameters(), weight_decay=decay))
    assert bool(findings) == (decay > 0)
    if decay:
        finding = only(findings, "decay_on_slopes", "warning")
        assert finding.numbers == {"weight_decay": pytest.approx(decay), "slopes": 2}
    # The rule that the fix names leaves none of them.
    weights = parameters_to_penalize(network)
    others = [one for one in network.parameters() if all(one is not weight for weight in weights)]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    assert not found(network, F.mse_loss, X, Y, torch.optim.SGD(groups, lr=0.1))


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 64])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_batch_norm_of_few_rows(rows: int, norm: Any) -> None:
    network = nn.Sequential(nn.Linear(4, 8), norm(8), nn.Linear(8, 1))
    findings = found(network, F.mse_loss, normal(rows, 4), normal(rows, 1))
    severity = "error" if rows == 1 else "note" if rows <= 4 else None
    if norm is nn.LayerNorm or severity is None:
        assert not findings
    else:
        finding = only(findings, "batch_norm_of_one", severity)
        assert finding.where == "layer '1' (BatchNorm1d)"
        assert finding.numbers["values"] == rows


def test_batch_norm_counts_pixels_too() -> None:
    def network(*between: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 4, 3), *between, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    x, y = normal(1, 1, 8, 8), normal(1, 4)
    assert not found(network(), F.mse_loss, x, y)
    finding = only(found(network(nn.AdaptiveAvgPool2d(1)), F.mse_loss, x, y), "batch_norm_of_one", "error")
    assert "(1, 4, 1, 1) arrives" in finding.evidence


def test_frozen_batch_norm_is_not_asked() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self[1].eval()
            return self

    network = Frozen(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    assert not found(network, F.mse_loss, normal(1, 4), normal(1, 1))


def test_the_networks_of_this_package_are_fine() -> None:
    network = networks.Linear(4, 8)
    assert not found(network, F.mse_loss, X, normal(16, 8), torch.optim.AdamW(network.parameters()))
