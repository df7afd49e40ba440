"""What the recorder is made of, each against an oracle of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.diagnosis.comparison import best_constant, compare, tail_of
from lastlayer.diagnosis.loss_curve import FIRST, MOST_BLOCKS, LossCurve
from lastlayer.diagnosis.parameter_looks import ParameterWatch
from lastlayer.diagnosis.rerun import Rerun, optimizer_like
from lastlayer.diagnosis.run_data import RunData
from lastlayer.diagnosis.sampling import Sampling
from lastlayer.diagnosis.subject import loss_of


@pytest.mark.parametrize("count", [1, 63, 300, 5001])
def test_the_loss_curve_is_that_of_all_its_values(count: int) -> None:
    random = np.random.default_rng(0)
    values = random.normal(5, 1, count) - np.arange(count) / 1000
    bad = set(range(100, count, 1234))
    curve = LossCurve()
    for place, value in enumerate(values):
        curve.add(torch.tensor(math.nan if place in bad else value, dtype=torch.float64))
    curve.read()
    blocks = curve.blocks
    assert len(blocks) <= MOST_BLOCKS + 1
    assert curve.first == pytest.approx(list(values[:FIRST]))
    assert [block.first for block in blocks] == list(np.cumsum([0, *(block.count for block in blocks)])[:-1])
    assert curve.not_finite == ((100, pytest.approx(values[99])) if bad else None)
    for block in blocks:
        own = [values[place] for place in range(block.first, block.first + block.count) if place not in bad]
        assert block.count - block.not_finite == len(own)
        assert (block.mean, block.deviation) == pytest.approx((np.mean(own), np.std(own)))
        assert (block.lowest, block.highest) == (min(own), max(own))


def test_the_loss_curve_takes_what_loops_have() -> None:
    curve = LossCurve()
    raw = torch.ones(3, requires_grad=True)
    for value in (1, 2.5, raw.sum(), raw * 4, torch.tensor(3, dtype=torch.bfloat16), torch.tensor([[7]])):
        curve.add(value)
    curve.read()
    assert curve.first == [1.0, 2.5, 3.0, 4.0, 3.0, 7.0]
    assert curve.mean_since() == pytest.approx(20.5 / 6)
    assert math.isnan(curve.mean_since())


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(period=128), [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 384]),
        (Sampling(period=256, base=16), [0, 1, 16, 256]),
        (Sampling(100), [0, 100, 200, 300, 400]),
    ],
)
def test_looks_are_many_at_first(sampling: Sampling, expected: list[int]) -> None:
    assert [step for step in range(500) if sampling.is_due(step)] == expected


@pytest.mark.parametrize("seed", range(3))
def test_parameter_looks_are_norms_of_numpy(seed: int) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    optimizer = torch.optim.Adam(
        [{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr": 0.0}], lr=0.01
    )
    network(torch.randn(9, 5)).square().sum().backward()
    watch = ParameterWatch(network)
    before = [own.detach().numpy().copy() for own in network.parameters()]
    gradients = np.concatenate([own.grad.numpy().ravel() for own in network.parameters()])  # type: ignore[union-attr]
    watch.before(optimizer)
    optimizer.step()
    look = watch.after(3)
    after = [own.detach().numpy() for own in network.parameters()]
    ratios = [np.linalg.norm(now - then) / np.linalg.norm(then) for now, then in zip(after, before, strict=True)]
    assert look is not None
    assert (look.step, look.rate, look.finite) == (3, 0.01, True)
    assert look.gradient == pytest.approx(np.sqrt(np.mean(gradients**2)), rel=1e-5)
    assert look.weight == pytest.approx(
        np.sqrt(np.mean(np.concatenate([own.ravel() for own in before]) ** 2)), rel=1e-5
    )
    assert look.largest_update == pytest.approx(max(ratios[0], ratios[2]), rel=1e-5)
    assert look.update == pytest.approx((ratios[0] + ratios[2]) / 2, rel=1e-5)
    assert [each.moved for each in watch.parameters] == [1, 1, 0, 0]
    assert watch.after(4) is None


CLASSES, WIDTH = 3, 4


def quantities(rows: int = 400) -> RunData:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, WIDTH, generator=generator) * torch.tensor([1.0, 5.0, 0.1, 1.0]) + 2
    y = x[:, 0] + 0.1 * x[:, 1] + 0.3 * torch.randn(rows, generator=generator)
    return RunData(x, y.unsqueeze(1))


def classes(rows: int = 400) -> RunData:
    data = quantities(rows)
    y = torch.bucketize(data.target.squeeze(1), torch.tensor([2.2, 3.5]))
    return RunData(data.features, y)


def one_layer(outputs: int, *after: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, outputs), *after)


def entropy(target: Tensor) -> float:
    share = np.bincount(target.numpy()) / len(target)
    return float(-(share * np.log(share)).sum())


def of_two(data: RunData) -> RunData:
    return RunData(data.features, (data.target > 0).float().unsqueeze(1))


@pytest.mark.parametrize(
    ("network", "loss", "data", "expected"),
    [
        (one_layer(1), nn.MSELoss(), quantities(), lambda y: float(y.var(correction=0))),
        (one_layer(1), F.l1_loss, quantities(), lambda y: float((y - y.median()).abs().mean())),
        (one_layer(3), nn.CrossEntropyLoss(), classes(), entropy),
        (one_layer(3), heads.Categorical(classes=3), classes(), entropy),
        (one_layer(3, nn.LogSoftmax(1)), nn.NLLLoss(), classes(), entropy),
        (one_layer(1, nn.Sigmoid()), nn.BCELoss(), of_two(classes()), lambda y: entropy(y.long().flatten())),
        (one_layer(1), losses.BinaryCrossEntropy(), of_two(classes()), lambda y: entropy(y.long().flatten())),
        (one_layer(1, nn.Flatten(0)), nn.MSELoss(reduction="none"),
         RunData(quantities().features, quantities().target[:, 0]), lambda y: float(y.var(correction=0))),
    ],
)  # fmt: skip
def test_the_best_constant(network: nn.Module, loss: Any, data: RunData, expected: Any) -> None:
    found = compare(network, loss, data, data)
    assert found is not None
    # The median of an even number of rows is an interval's end, and absolute errors are flat there.
    assert found.constant == pytest.approx(expected(data.target), rel=2e-3)


def test_an_unbounded_loss_has_no_best_constant() -> None:
    """A negative log-likelihood on scores that no softmax has made probabilities of."""
    data = classes()
    tail = tail_of(one_layer(3), data.some(8))
    assert best_constant(nn.NLLLoss(), loss_of(nn.NLLLoss()), tail, data) is None
    assert compare(one_layer(3), nn.NLLLoss(), data, data) is None


def test_the_linear_predictor_is_that_of_scikit_learn() -> None:
    train, other = quantities(400), quantities(600).take(slice(400, 600))
    x, new = (part.features.double().numpy() for part in (train, other))  # type: ignore[union-attr]
    mean, scale = x.mean(0), x.std(0)
    x, new = (x - mean) / scale, (new - mean) / scale
    ridge = Ridge(alpha=0.5).fit(x, train.target.numpy().ravel())
    expected = np.mean((ridge.predict(new) - other.target.numpy().ravel()) ** 2)
    found = compare(one_layer(1), nn.MSELoss(), train, other)
    assert found is not None
    assert found.linear == pytest.approx(expected, rel=1e-3)

    train, other = classes(400), classes(600).take(slice(400, 600))
    logistic = LogisticRegression(max_iter=1000).fit(x, train.target.numpy())
    expected = -np.log(logistic.predict_proba(new)[np.arange(200), other.target.numpy()]).mean()
    for network, loss in (
        (one_layer(3), nn.CrossEntropyLoss()),
        (one_layer(3, nn.LogSoftmax(-1)), F.nll_loss),
        (one_layer(3), heads.Categorical(classes=3)),
    ):
        found = compare(network, loss, train, other)
        assert found is not None
        assert found.linear == pytest.approx(expected, rel=5e-3)


def test_margins_are_standard_errors() -> None:
    """Of many samples of rows, differences of the two means are spread as the margin says."""
    torch.manual_seed(5)
    network = one_layer(1)
    everything = quantities(12_000)
    found = [
        compare(network, nn.MSELoss(), everything, everything.take(slice(k, k + 200))) for k in range(0, 12_000, 200)
    ]
    differences = [each.network - each.constant for each in found if each is not None]
    margins = [each.constant_margin for each in found if each is not None]
    assert np.std(differences) == pytest.approx(np.sqrt(np.mean(np.square(margins))), rel=0.3)


def test_no_linear_predictor_of_tokens_copies_or_too_few_rows() -> None:
    embedding = nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(10, 3))
    tokens = RunData(torch.randint(9, (90, 2)), torch.randint(3, (90,)))
    found = compare(embedding, nn.CrossEntropyLoss(), tokens, tokens)
    assert found is not None
    assert math.isnan(found.linear)
    x = quantities().features
    assert isinstance(x, Tensor)
    copied = compare(one_layer(WIDTH), nn.MSELoss(), RunData(x, x), RunData(x, x))
    assert copied is not None
    assert math.isnan(copied.linear)


def test_comparing_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
    network.train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    compare(network, nn.MSELoss(), quantities(), quantities())
    assert [module.training for module in network] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(own.grad is None for own in network.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda own: torch.optim.Adam(own, lr=1e-3, amsgrad=True),
        lambda own: torch.optim.AdamW(own, lr=1e-3, weight_decay=0.3),
        lambda own: torch.optim.SGD(own, lr=1e-3, momentum=0.9, nesterov=True),
        lambda own: torch.optim.RMSprop(own, lr=1e-3, alpha=0.8),
        lambda own: torch.optim.Adagrad(own, lr=1e-3),
        lambda own: torch.optim.NAdam(own, lr=1e-3),
        lambda own: torch.optim.Adadelta(own, lr=1e-3),
    ],
)
def test_a_trial_takes_the_same_steps_as_the_optimizer(make: Any) -> None:
    data = quantities(64)
    network = one_layer(1)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make(network.parameters())
    rerun = Rerun(network, nn.MSELoss(), optimizer, data, 64)
    trial = rerun.try_rate("initial", start, 1e-3, 5)
    assert all(torch.equal(value, start[name]) for name, value in network.state_dict().items())
    order = torch.Generator().manual_seed(0)
    for _ in range(5):
        rows = torch.randperm(64, generator=order)
        optimizer.zero_grad()
        F.mse_loss(network(data.features[rows]), data.target[rows]).backward()
        optimizer.step()
    assert trial.loss == pytest.approx(float(F.mse_loss(network(data.features), data.target).detach()), rel=1e-6)


def test_groups_keep_their_rates_relative_to_each_other() -> None:
    network = one_layer(1, nn.Linear(1, 1))
    groups = [{"params": network[0].parameters(), "lr": 0.1}, {"params": network[1].parameters(), "lr": 0.02}]
    made = optimizer_like(torch.optim.SGD(groups, lr=1.0, momentum=0.5), network, one_layer(1, nn.Linear(1, 1)), 0.01)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.01, 0.002])
    assert {group["momentum"] for group in made.param_groups} == {0.5}
