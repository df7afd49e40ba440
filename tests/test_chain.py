"""Networks that write their backward out: the same numbers as autograd, or autograd itself."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lastlayer import activations
from lastlayer.checks import InputError, ShapeError
from lastlayer.heads import Categorical, Gaussian, Head
from lastlayer.networks import ACTIVATIONS, Linear, PiecewiseLinear, SharedLinear, TabularNetwork
from lastlayer.regularization import parameters_to_penalize
from lastlayer.training import Recipe, Rows, step, update

LEARNS_OR_DRAWS = {"prelu", "rrelu", "maxout", "softmax", "log_softmax"}
WRITTEN_OUT = sorted(set(ACTIVATIONS) - LEARNS_OR_DRAWS)


def network(
    activation: str = "tanh",
    *,
    members: int | None = None,
    shared: bool = False,
    dropout: float = 0.0,
    bins: int = 3,
    outputs: int = 2,
) -> TabularNetwork:
    numeric = np.random.RandomState(0).randn(50, 2).astype(np.float32)
    return TabularNetwork(
        inputs=4, numeric=2, outputs=outputs, hidden=(7, 5), activation=activation, dropout=dropout,
        codes=PiecewiseLinear.learn(numeric, bins), members=members, shared=shared,
    )  # fmt: skip


def features(rows: int = 11) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("members", "shared"), [(None, False), (3, False), (3, True)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("activation", WRITTEN_OUT)
def test_the_written_backward_is_autograds(activation: str, dropout: float, members: int | None, shared: bool) -> None:
    torch.manual_seed(0)
    one = network(activation, members=members, dropout=dropout, shared=shared).double()
    if shared:
        # Away from 1, where a forgotten factor would not be seen.
        with torch.no_grad():
            for layer in one.body[:1]:
                layer.output_scale.uniform_(0.5, 2.0)
    assert one.writes_backward
    x, state = features().double(), torch.random.get_rng_state()
    raw, tape = one.record(x)
    upstream = torch.randn_like(raw)
    one.backpropagate(tape, upstream)
    torch.random.set_rng_state(state)
    again = one(x)
    torch.testing.assert_close(raw, again.detach(), rtol=0, atol=0)
    expected = torch.autograd.grad(again, list(one.parameters()), upstream)
    for parameter, gradient in zip(one.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", sorted(LEARNS_OR_DRAWS))
def test_what_learns_draws_or_mixes_units_is_left_to_autograd(activation: str) -> None:
    assert not network(activation).writes_backward


def test_a_wrong_derivative_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations.Tanh, "_pull_back", lambda self, x, value, gradient: gradient * (1 - value))
    with pytest.raises(AssertionError):
        test_the_written_backward_is_autograds("tanh", 0.0, None, False)


@pytest.mark.parametrize("how", ["hook", "backward hook", "frozen", "hook of a parameter", "hook of the whole"])
def test_somebody_who_watches_gets_autograd(how: str) -> None:
    one = network()
    if how == "hook":
        one.body[1].register_forward_hook(lambda *_: None)
    elif how == "backward hook":
        one.body[2].register_full_backward_hook(lambda *_: None)
    elif how == "frozen":
        one.last.bias.requires_grad_(False)
    elif how == "hook of a parameter":
        one.body[0].weight.register_hook(lambda gradient: gradient * 0)
    else:
        one.register_forward_hook(lambda *_: None)
    assert not one.writes_backward
    before = one.last.bias.detach().clone(), one.body[0].weight.detach().clone()
    optimizer = torch.optim.SGD([own for own in one.parameters() if own.requires_grad], lr=0.1)
    step(one, Categorical(classes=2), optimizer, Rows(features(), torch.zeros(11, dtype=torch.long)))
    assert torch.equal(before[0], one.last.bias) == (how == "frozen")
    assert torch.equal(before[1], one.body[0].weight) == (how == "hook of a parameter")


def test_a_layer_put_in_later_is_run() -> None:
    one = network("relu")
    one.body[1] = activations.Tanh()
    torch.testing.assert_close(one.record(features())[0], one(features()).detach())


@pytest.mark.parametrize("head", [Categorical(classes=2), Gaussian()])
@pytest.mark.parametrize("weighted", [False, True])
def test_members_together_take_the_steps_of_each_alone(head: Head, weighted: bool) -> None:
    """Five Adam steps of three members at once, and of the three networks one after another."""
    torch.manual_seed(3)
    together = network("silu", members=3, outputs=head.raw_size).double()
    alone = []
    for member in range(3):
        one = network("silu", outputs=head.raw_size).double()
        one.load_state_dict(
            {
                name: value[member] if "codes" not in name else value
                for name, value in together.state_dict().items()
            }
        )  # fmt: skip
        alone.append(one)
    x = features(20).double()
    target = (x[:, 0] > 0).long() if isinstance(head, Categorical) else x[:, 0] * x[:, 1]
    rows = Rows(x, target, torch.rand(20, dtype=torch.float64) if weighted else None)
    plan = Recipe(optimizer="adam", learning_rate=0.01).plan(20, classes=True)
    optimizer = plan.build_optimizer(together)
    losses = [step(together, head, optimizer, rows) for _ in range(5)]
    own_losses = []
    for member, one in enumerate(alone):
        own = plan.build_optimizer(one)
        own_losses.append([step(one, head, own, rows) for _ in range(5)])
        torch.testing.assert_close(together(x)[member], one(x), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(torch.stack(losses), torch.tensor(own_losses, dtype=torch.float64).mean(0))


def test_members_may_each_have_rows_of_their_own() -> None:
    """Weights (rows, members): a member of weight 0 on a row does not see it, as in the folds of a cross-validation."""
    torch.manual_seed(4)
    together = network(members=2, outputs=1).double()
    x = features(10).double()
    weight = torch.ones(10, 2, dtype=torch.float64)
    weight[:4, 0] = 0
    blind = x[:, 0].clone()
    blind[:4] = torch.nan
    plan = Recipe(optimizer="sgd", learning_rate=0.1).plan(10, classes=False)
    changed = []
    for first in (0.0, 1e3):
        one = copy.deepcopy(together)
        target = x[:, 1].clone()
        target[:4] = first
        step(one, Gaussian(), plan.build_optimizer(one), Rows(x, target, weight))
        changed.append(one(x).detach())
    torch.testing.assert_close(changed[0][0], changed[1][0], rtol=0, atol=0)
    assert not torch.allclose(changed[0][1], changed[1][1])


def test_linear_without_members_is_pytorchs() -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 4, 3)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_linear_of_members_takes_shared_rows_or_each_its_own() -> None:
    layer, x = Linear(3, 2, members=4), torch.randn(5, 3)
    torch.testing.assert_close(layer(x), layer(x.expand(4, 5, 3).contiguous()))
    for wrong in (torch.randn(5, 2), torch.randn(3, 5, 3), torch.randn(3)):
        with pytest.raises(ShapeError, match=r"expected"):
            layer(wrong)
    with pytest.raises(InputError, match="members is 0"):
        Linear(3, 2, members=0)


def test_members_are_refused_where_the_activation_learns() -> None:
    with pytest.raises(InputError, match="needs one that has none"):
        network("prelu", members=2)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "momentum"])
def test_update_is_the_optimizers_step(optimizer: str) -> None:
    torch.manual_seed(0)
    one = network()
    other = copy.deepcopy(one)
    plan = Recipe(optimizer=optimizer, learning_rate=0.05, weight_decay=0.1).plan(11, classes=True)
    ours, theirs = plan.build_optimizer(one), plan.build_optimizer(other)
    for _ in range(4):
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        update(ours)
        theirs.step()
        for group in (*ours.param_groups, *theirs.param_groups):
            group["lr"] *= 0.5
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0)
    assert str(ours.state_dict()) == str(theirs.state_dict())


def test_update_runs_the_hooks_of_the_optimizer() -> None:
    one = network()
    optimizer, seen = Recipe().plan(11, classes=True).build_optimizer(one), []
    for _ in range(2):
        for parameter in one.parameters():
            parameter.grad = torch.ones_like(parameter)
        update(optimizer)
        optimizer.register_step_post_hook(lambda *_: seen.append(1))
    assert seen == [1]


def test_a_shared_layer_is_a_linear_layer_of_each_members_own_weights() -> None:
    torch.manual_seed(0)
    layer, x = SharedLinear(3, 2, members=4, diverse=True), torch.randn(5, 3)
    assert set(layer.input_scale.unique().tolist()) == {-1.0, 1.0}
    with torch.no_grad():
        layer.output_scale.uniform_(0.5, 2.0)
    for member, result in enumerate(layer(x)):
        weight = layer.output_scale[member].unsqueeze(1) * layer.weight * layer.input_scale[member]
        torch.testing.assert_close(result, nn.functional.linear(x, weight, layer.bias[member]))
    torch.testing.assert_close(layer(x), layer(x.expand(4, 5, 3).contiguous()))
    assert [tuple(own.shape) for own in parameters_to_penalize(layer)] == [(2, 3)]
    for wrong in (torch.randn(5, 2), torch.randn(3, 5, 3), torch.randn(3)):
        with pytest.raises(ShapeError, match="expected"):
            layer(wrong)


def test_members_that_share_weights_descend_the_mean_of_their_losses() -> None:
    torch.manual_seed(5)
    one = network("silu", members=3, shared=True, outputs=1).double()
    x = features(20).double()
    rows = Rows(x, x[:, 0] * x[:, 1])
    loss = torch.stack([Gaussian().loss(raw, rows.target) for raw in one(x)]).mean()
    expected = torch.autograd.grad(loss, list(one.parameters()))
    optimizer = torch.optim.SGD(one.parameters(), lr=0.0)
    torch.testing.assert_close(step(one, Gaussian(), optimizer, rows), loss.detach())
    for parameter, gradient in zip(one.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
