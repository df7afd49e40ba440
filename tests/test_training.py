"""The step, the batches, the schedules, the loop: what training promises."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lastlayer.checks import InputError
from lastlayer.heads import Bernoulli, Categorical, Gaussian, Head, MultiLabel
from lastlayer.training import SCHEDULES, History, Plan, Recipe, Rows, forward, hold_out, one_thread, step, train


def plan(rows: int = 64, **changes: object) -> Plan:
    return Recipe(**changes).plan(rows, classes=True)  # type: ignore[arg-type]


def no_figure(raw: Tensor, target: Tensor) -> float:
    return 0.0


def classes(rows: int = 64, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 4, generator=generator)
    return Rows(features, (features[:, 0] > 0).long())


class Odd(nn.Module):
    """A user's own module: parameters used twice, a branch, nothing that a library could know."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8) / 2)
        self.last = nn.Linear(16, outputs)

    def forward(self, features: Tensor) -> Tensor:
        hidden = features @ self.weight
        return self.last(torch.cat([hidden.tanh(), (2 * hidden).sin()], dim=1))


TARGETS: list[tuple[Head, Callable[[Tensor], Tensor]]] = [
    (Bernoulli(), lambda x: (x[:, 0] > 0).long()),
    (Categorical(classes=3), lambda x: x[:, :3].argmax(1)),
    (MultiLabel(labels=2), lambda x: (x[:, :2] > 0).float()),
    (Gaussian(), lambda x: x[:, 0] * x[:, 1]),
]


@pytest.mark.parametrize(("head", "make"), TARGETS, ids=lambda value: getattr(type(value), "__name__", ""))
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_the_step_of_the_loss_under_autograd(
    head: Head, make: Callable[[Tensor], Tensor], weighted: bool
) -> None:
    features = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    rows = Rows(features, make(features), torch.rand(32) if weighted else None)
    torch.manual_seed(2)
    ours = Odd(head.raw_size)
    theirs = Odd(head.raw_size)
    theirs.load_state_dict(ours.state_dict())
    loss = step(ours, head, torch.optim.SGD(ours.parameters(), lr=0.1), rows)
    expected = head.loss(theirs(features), rows.target, sample_weight=rows.weight)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    expected.backward()
    optimizer.step()
    torch.testing.assert_close(loss, expected.detach())
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_an_epoch_is_a_partition_into_batches_of_one_size(batch_size: int) -> None:
    rows = Rows(torch.arange(64.0)[:, None], torch.arange(64))
    batches = list(rows.batches(batch_size, generator=torch.Generator().manual_seed(0)))
    assert sorted(torch.cat([batch.target for batch in batches]).tolist()) == list(range(64))
    assert all(torch.equal(batch.features[:, 0].long(), batch.target) for batch in batches)
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_every_epoch_is_a_fresh_partition_unless_the_order_is_fixed() -> None:
    rows = Rows(torch.arange(64.0)[:, None], torch.arange(64))
    generator = torch.Generator().manual_seed(0)
    first, second = ([b.target.tolist() for b in rows.batches(8, generator=generator)] for _ in range(2))
    assert first != second
    fixed = [batch.target.tolist() for batch in rows.batches(8, generator=generator, shuffle=False)]
    assert fixed == torch.arange(64).reshape(8, 8).tolist()


def test_schedules_fall_as_the_lecture_says() -> None:
    """SPEC D2: constant, ∝ 1/m, ∝ 1/√m, step, cosine; m counts epochs from 1."""
    at = {name: [schedule(epoch, 9) for epoch in (0.0, 3.0, 8.0)] for name, schedule in SCHEDULES.items()}
    assert at["constant"] == [1, 1, 1]
    assert at["inverse"] == pytest.approx([1, 1 / 4, 1 / 9])
    assert at["inverse_sqrt"] == pytest.approx([1, 1 / 2, 1 / 3])
    assert at["step"] == pytest.approx([1, 0.1, 0.01])
    assert at["cosine"] == pytest.approx([1, 0.5 + 0.5 * math.cos(math.pi / 3), 0.5 + 0.5 * math.cos(8 * math.pi / 9)])
    assert set(at) == {"constant", "inverse", "inverse_sqrt", "step", "cosine"}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "momentum", "sgd"])
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_every_optimizer_and_schedule_learns(optimizer: str, schedule: str) -> None:
    rows = classes(256)
    torch.manual_seed(0)
    network, head = Odd(2), Categorical(classes=2)
    before = float(head.loss(forward(network, rows.features), rows.target))
    rate = 0.01 if optimizer.startswith("adam") else 0.1
    settled = plan(256, optimizer=optimizer, schedule=schedule, learning_rate=rate, max_epochs=20, average=0.0)
    train(network, head, rows, None, settled, generator=torch.Generator().manual_seed(0), headline=no_figure)
    assert float(head.loss(forward(network, rows.features), rows.target)) < 0.6 * before


def test_the_best_weights_are_kept() -> None:
    """SPEC D4, on labels that are half noise: the validation loss falls, and must rise in the end."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 48, 4, generator=generator)
    labels = (features[..., 0] + torch.randn(2, 48, generator=generator) > 0).long()
    noise, other = Rows(features[0], labels[0]), Rows(features[1], labels[1])
    torch.manual_seed(0)
    network, head = Odd(2), Categorical(classes=2)
    settled = plan(48, learning_rate=0.02, weight_decay=0.0, patience=15, max_epochs=400)
    history = train(network, head, noise, other, settled, generator=generator, headline=no_figure)
    curve = [epoch.validation_loss for epoch in history.epochs]
    assert history.stopped == "patience"
    assert history.best_epoch > 0
    assert len(curve) == history.best_epoch + 15
    kept = float(head.loss(forward(network, other.features), other.target))
    assert kept == pytest.approx(min(curve), rel=1e-6)
    assert kept < curve[-1]


def test_an_interruption_keeps_the_best_weights() -> None:
    rows, head = classes(), Categorical(classes=2)
    torch.manual_seed(0)
    network = Odd(2)

    def interrupt(history: History) -> None:
        if len(history.epochs) == 3:
            raise KeyboardInterrupt

    settled = plan(learning_rate=0.01, max_epochs=50)
    history = train(
        network, head, rows, rows, settled, generator=torch.Generator(), headline=no_figure, watch=interrupt
    )
    assert history.stopped == "interrupted"
    assert len(history.epochs) == 3
    best = history.epochs[history.best_epoch - 1].validation_loss
    assert float(head.loss(forward(network, rows.features), rows.target)) == pytest.approx(best, rel=1e-6)


def test_a_loss_that_is_no_number_ends_training_with_good_weights() -> None:
    features = torch.randn(64, 4)
    rows = Rows(features, features[:, 0] * 1e30)
    torch.manual_seed(0)
    network = Odd(1)
    settled = plan(optimizer="sgd", learning_rate=1e6, max_epochs=20)
    history = train(network, Gaussian(), rows, rows, settled, generator=torch.Generator(), headline=no_figure)
    assert history.stopped == "not finite"
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_full_batch_training_takes_weights_as_repetitions() -> None:
    """The same problem twice, with a weight of 2 and with the row twice: the same weights after an epoch."""
    rows = classes(16)
    counts = torch.tensor([1, 2, 0, 3] * 4)
    weighted = Rows(rows.features, rows.target, counts.float())
    index = torch.repeat_interleave(torch.arange(16), counts)
    results = []
    for data in (weighted, rows.take(index)):
        torch.manual_seed(0)
        network = Odd(2)
        settled = plan(len(data), optimizer="sgd", learning_rate=0.5, batch_size=100, max_epochs=20, average=0.0)
        train(network, Categorical(classes=2), data, None, settled, generator=torch.Generator(), headline=no_figure)
        results.append(torch.cat([parameter.detach().ravel() for parameter in network.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_weight_decay_is_for_matrices() -> None:
    groups = plan(weight_decay=0.5).build_optimizer(Odd(2)).param_groups
    decayed = {parameter.dim() > 1: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decayed == {True: 0.5, False: 0.0}


@pytest.mark.parametrize("rows", [1, 10, 333, 5_000, 1_000_000])
def test_a_plan_settles_every_number(rows: int) -> None:
    settled = Recipe().plan(rows, classes=True)
    assert 1 <= settled.batch_size <= 256
    steps = math.ceil(rows / settled.batch_size)
    assert settled.max_epochs >= 60
    assert settled.max_epochs * steps >= 4000
    assert settled.patience * steps >= 500
    assert settled.patience < settled.max_epochs


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "adan"},
        {"schedule": "linear"},
        {"batch_size": 0},
        {"max_epochs": 2.5},
        {"patience": True},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"weight_decay": -1.0},
        {"average": 1.0},
    ],
)
def test_a_wrong_number_is_an_error_that_names_it(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is .*expected"):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_every_class_is_trained_on_and_gives_its_share() -> None:
    labels = np.repeat([0, 1, 2, 3], [60, 30, 9, 1])
    train_index, held = hold_out(100, 0.2, np.random.RandomState(0), classes=labels)
    assert sorted([*train_index, *held]) == list(range(100))
    assert np.bincount(labels[held], minlength=4).tolist() == [12, 6, 2, 0]
    assert set(labels[train_index]) == {0, 1, 2, 3}


@pytest.mark.parametrize(("rows", "fraction", "expected"), [(9, 0.5, 0), (10, 0.01, 1), (100, 0.0, 0), (100, 0.25, 25)])
def test_how_many_rows_are_held_out(rows: int, fraction: float, expected: int) -> None:
    train_index, held = hold_out(rows, fraction, np.random.RandomState(0))
    assert len(held) == expected
    assert len(train_index) == rows - expected


def test_one_thread_is_given_back_also_when_nested() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_gradient_of_the_mean_loss_is_the_mean_of_the_samples_gradients() -> None:
    """SPEC D7, over the weights of a whole network."""
    torch.manual_seed(0)
    network, head, rows = Odd(3).double(), Categorical(classes=3), classes(16)
    features = rows.features.double()
    network.zero_grad()
    head.loss(network(features), rows.target).backward()
    of_the_mean = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    for row in range(16):
        head.loss(network(features[row : row + 1]), rows.target[row : row + 1]).backward()
    for expected, parameter in zip(of_the_mean, network.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad / 16, expected, rtol=1e-12, atol=1e-15)


def test_a_network_that_normalizes_its_batches_trains_and_predicts_row_by_row() -> None:
    """SPEC D6: the z-score within each batch while it trains, and never another row's business afterwards."""
    torch.manual_seed(0)
    normalize = nn.BatchNorm1d(4, affine=False)
    network = nn.Sequential(normalize, nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    rows = classes(512)
    rows.features.mul_(100.0).add_(1000.0)
    seen: list[Tensor] = []
    normalize.register_forward_hook(lambda module, given, out: seen.append(out.detach()) if module.training else None)
    history = train(
        network, Categorical(classes=2), rows, None, plan(512, max_epochs=20),
        generator=torch.Generator().manual_seed(0), headline=no_figure,
    )  # fmt: skip
    for batch in seen:
        torch.testing.assert_close(batch.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
        torch.testing.assert_close(batch.std(0, correction=0), torch.ones(4), rtol=1e-4, atol=0)
    assert history.epochs[-1].training_loss < 0.3
    together = forward(network, rows.features)
    alone = torch.cat([forward(network, rows.features[row : row + 1]) for row in range(8)])
    torch.testing.assert_close(alone, together[:8], rtol=1e-5, atol=1e-5)
    assert ((together[:, 1] > together[:, 0]).long() == rows.target).float().mean() > 0.9
