"""Penalties on parameters: their values and gradients, what they cover, and that weight decay is the same thing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import lastlayer
from lastlayer.checks import InputError, KindError
from lastlayer.gradient_check import check_gradient
from lastlayer.regularization import l1_penalty, l2_penalty, parameters_to_penalize
from lastlayer.training import Recipe


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = random(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]


class ChannelNorm2d(nn.Module):
    """A normalization as people write their own: scale and shift of three axes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.gamma * images + self.beta


class ChannelPReLU(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full(shape, 0.25))


def every_kind() -> nn.Module:
    return nn.ModuleDict(
        {
            "convolution": nn.Conv2d(3, 4, 3),
            "batch": nn.BatchNorm2d(4),
            "layer": nn.LayerNorm((4, 6, 6)),
            "group": nn.GroupNorm(2, 4),
            "rms": nn.RMSNorm((6, 6)),
            "own": ChannelNorm2d(4),
            "shared": nn.PReLU(),
            "slopes": nn.PReLU(4),
            "axes": ChannelPReLU(4, 1, 1),
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "recurrent": nn.LSTM(4, 4),
            "embedding": nn.Embedding(5, 4),
            "last": nn.Linear(4, 1),
        }
    )


WEIGHTS = {
    "convolution.weight",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "recurrent.weight_ih_l0",
    "recurrent.weight_hh_l0",
    "embedding.weight",
    "last.weight",
}


def names(network: nn.Module, chosen: list[nn.Parameter]) -> set[str]:
    spelled = {id(parameter): name for name, parameter in network.named_parameters()}
    assert len({id(parameter) for parameter in chosen}) == len(chosen)
    return {spelled[id(parameter)] for parameter in chosen}


# --- values and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_the_formulas(strength):
    parameters = tensors((3, 2), (4,), ())
    everything = torch.cat([parameter.reshape(-1) for parameter in parameters])
    assert_close(l1_penalty(parameters, strength), strength * everything.abs().sum())
    assert_close(l2_penalty(parameters, strength), strength / 2 * (everything @ everything))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_l2_is_the_weight_itself_to_the_last_bit(dtype):
    weight = torch.randn(1000, dtype=dtype, generator=random()).requires_grad_()
    l2_penalty([weight], 0.1).backward()
    assert torch.equal(weight.grad, torch.tensor(0.1, dtype=dtype) * weight.detach())


def test_the_gradient_of_l1_is_the_sign_and_zero_at_zero():
    weight = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 5.0], requires_grad=True)
    l1_penalty([weight], 0.1).backward()
    assert torch.equal(weight.grad, torch.tensor(0.1) * torch.tensor([-1.0, 0.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_the_gradient_is_that_of_the_value(penalty):
    parameters = tensors((3, 2), (4,), ())
    result = check_gradient(lambda *parameters: penalty(parameters, 0.7), *parameters)
    assert result, str(result)
    assert torch.autograd.gradgradcheck(lambda *parameters: l2_penalty(parameters, 0.7), parameters)


def test_the_strength_can_be_learned():
    (weight,), strength = tensors((3,)), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for penalty, size in ((l1_penalty, weight.abs().sum()), (l2_penalty, weight.square().sum() / 2)):
        (gradient,) = torch.autograd.grad(penalty([weight], strength), strength)
        assert_close(gradient, size)


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_over_nothing_it_is_zero_with_dtype_and_device(penalty):
    norm = nn.BatchNorm1d(3).double()
    for parameters in (norm, norm.to("meta")):
        nothing = penalty(parameters, 1.0)
        assert (nothing.shape, nothing.dtype) == ((), torch.float64)
        assert nothing.device == norm.weight.device
    for parameters in ([], iter(()), nn.ReLU(), torch.empty(0)):
        assert torch.equal(penalty(parameters, 1.0), torch.tensor(0.0))
    loss = nn.Linear(2, 1)(torch.ones(2)).sum() + penalty([], 1.0)
    loss.backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    weight = torch.full((1000,), 300.0, dtype=dtype, requires_grad=True)
    assert_close(l1_penalty([weight], 1.0), torch.tensor(1000 * weight[0].item()))
    penalty = l2_penalty([weight], 1.0)
    assert_close(penalty, torch.tensor(500 * weight[0].item() ** 2))
    penalty.backward()
    assert torch.equal(weight.grad, weight.detach())
    assert l2_penalty([], 1.0).dtype == torch.float32
    assert l2_penalty(nn.BatchNorm1d(2).to(dtype), 1.0).dtype == torch.float32


def test_a_tensor_is_one_parameter_and_the_same_one_counts_once():
    (weight,) = tensors((2, 3))
    assert_close(l2_penalty(weight, 1.0), weight.square().sum() / 2)
    assert_close(l2_penalty([weight, weight], 1.0), weight.square().sum() / 2)
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    assert_close(l1_penalty(tied, 1.0), tied[0].weight.abs().sum())
    assert_close(l1_penalty([*tied[0].parameters(), *tied[1].parameters()], 1.0), tied[0].weight.abs().sum())


def test_what_is_not_possible_is_an_error():
    for strength in (-1.0, math.nan, math.inf):
        for penalty in (l1_penalty, l2_penalty):
            with pytest.raises(InputError, match=r"strength is .*expected a number of 0 or more"):
                penalty([torch.ones(2)], strength)
    with pytest.raises(KindError, match=r"parameters hold tuple.*not network\.named_parameters\(\)"):
        l2_penalty(nn.Linear(2, 2).named_parameters(), 1.0)
    with pytest.raises(InputError, match="include is 'biases'; expected one of 'weights', 'all'"):
        l2_penalty(nn.Linear(2, 2), 1.0, include="biases")


# --- what they cover --------------------------------------------------------------------------------------------------


def test_weights_are_matrices_and_kernels():
    network = every_kind()
    assert names(network, parameters_to_penalize(network)) == WEIGHTS
    assert names(network, parameters_to_penalize(network, "all")) == {name for name, _ in network.named_parameters()}
    chosen = parameters_to_penalize(network, lambda name, parameter: "bias" in name and parameter.dim() == 1)
    assert names(network, chosen) == {
        name for name, parameter in network.named_parameters() if "bias" in name and parameter.dim() == 1
    }


def test_parameters_that_are_frozen_are_left_out():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    network[0].requires_grad_(False)
    assert names(network, parameters_to_penalize(network)) == {"1.weight"}
    assert names(network, parameters_to_penalize(network, "all")) == {"1.weight", "1.bias"}
    assert_close(l2_penalty(network, 2.0), network[1].weight.square().sum())


def test_the_objective_of_dropout_covers_weights_and_biases_without_the_half():
    """SPEC B19: λ Σ (‖W‖² + ‖b‖²)."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1))
    expected = 0.01 * sum(layer.weight.square().sum() + layer.bias.square().sum() for layer in (network[0], network[2]))
    assert_close(l2_penalty(network, 2 * 0.01, include="all"), expected)


# --- weight decay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("include", ["weights", "all"])
def test_weight_decay_of_sgd_is_the_l2_penalty(momentum, include):
    features = torch.randn(16, 4, dtype=torch.float64, generator=random())
    target = torch.randn(16, 1, dtype=torch.float64, generator=random(1))
    torch.manual_seed(0)
    decayed = nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.LayerNorm(8), nn.Linear(8, 1)).double()
    penalized, plain = copy.deepcopy(decayed), copy.deepcopy(decayed)
    chosen = parameters_to_penalize(decayed, include)
    others = [parameter for parameter in decayed.parameters() if all(parameter is not one for one in chosen)]
    by_decay = torch.optim.SGD(
        [{"params": chosen, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.05, momentum=momentum
    )
    by_penalty = torch.optim.SGD(penalized.parameters(), lr=0.05, momentum=momentum)
    by_nothing = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=momentum)
    for _ in range(20):
        for network, optimizer, penalty in (
            (decayed, by_decay, None),
            (penalized, by_penalty, lambda: l2_penalty(penalized, 0.1, include=include)),
            (plain, by_nothing, None),
        ):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(features), target)
            (loss if penalty is None else loss + penalty()).backward()
            optimizer.step()
    assert_close(list(decayed.parameters()), list(penalized.parameters()), rtol=1e-12, atol=1e-14)
    assert (decayed[0].weight - plain[0].weight).abs().max() > 1e-3


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "momentum", "sgd"])
def test_the_recipe_decays_what_is_penalized(optimizer):
    network = every_kind()
    network["last"].requires_grad_(False)
    plan = Recipe(optimizer=optimizer, weight_decay=0.3).plan(100, classes=True)
    groups = plan.build_optimizer(network).param_groups
    decayed = [parameter for group in groups if group["weight_decay"] for parameter in group["params"]]
    assert names(network, decayed) == WEIGHTS - {"last.weight"}
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    everything = [parameter for group in groups for parameter in group["params"]]
    assert names(network, everything) == {name for name, _ in network.named_parameters()} - {"last.weight", "last.bias"}


def test_l1_makes_zeros_and_l2_does_not():
    features = torch.randn(200, 10, dtype=torch.float64, generator=random())
    target = features[:, :1] + 0.1 * torch.randn(200, 1, dtype=torch.float64, generator=random(1))
    sizes = {}
    for penalty in (l1_penalty, l2_penalty):
        weight = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
        for step in range(2000):
            loss = (features @ weight.t() - target).square().mean() + penalty(weight, 0.2)
            (gradient,) = torch.autograd.grad(loss, weight)
            with torch.no_grad():
                weight -= 0.1 / (1 + step / 20) * gradient
        sizes[penalty] = weight.detach().abs()[0]
    assert (sizes[l1_penalty][1:] < 1e-3).all()
    assert (sizes[l2_penalty][1:] > 1e-3).any()
    assert sizes[l1_penalty][0] == pytest.approx(1 - 0.2 / 2, abs=0.05)
    assert sizes[l2_penalty][0] == pytest.approx(1 / (1 + 0.2 / 2), abs=0.05)


def test_the_room_is_public():
    assert lastlayer.regularization.l2_penalty is l2_penalty
