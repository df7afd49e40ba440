"""Several networks side by side: each takes its own steps and keeps its own best; together they are a true mixture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lastlayer
from lastlayer import Classifier, LastLayerWarning, Regressor, heads
from lastlayer.checks import InputError
from lastlayer.heads import Head
from lastlayer.networks import Linear
from lastlayer.training import History, Recipe, Rows, forward, loop, step, train
from lastlayer.training.loop import _Best

SMALL: dict[str, Any] = {"hidden": (16,), "max_epochs": 3}
ROWS = np.random.default_rng(0).normal(size=(150, 3))
QUANTITY = ROWS[:, 0] + 0.5 * np.random.default_rng(1).normal(size=150)
CLASS = np.digitize(QUANTITY, [-0.5, 0.5])
LABELS = (ROWS[:, :2] + 0.3 > 0).astype(int)


def fitted(target: str, **options: Any) -> Any:
    """A small model of a quantity, of three classes or of two labels."""
    if target == "quantity":
        return Regressor(**SMALL | {"head": "gaussian:predicted"} | options).fit(ROWS, QUANTITY)
    return Classifier(**SMALL | options).fit(ROWS, CLASS if target == "classes" else LABELS)


every_target = pytest.mark.parametrize("target", ["quantity", "classes", "labels"])


# --- what is predicted ------------------------------------------------------------------------------------------------


@every_target
@pytest.mark.parametrize("options", [{"members": 3}, {"dropout": 0.3, "dropout_members": 4}], ids=["ensemble", "drawn"])
def test_the_prediction_is_the_mixture_of_the_members(target: str, options: dict[str, Any]) -> None:
    model = fitted(target, **options)
    count = max(options.values())
    members, mixture = model.model_.members(ROWS), model.predict_distribution(ROWS)
    y = torch.tensor({"quantity": QUANTITY, "classes": CLASS, "labels": LABELS}[target], dtype=torch.float64)
    each = members.log_prob(y.expand(count, *y.shape))
    assert each.shape == (count, *y.shape)
    expected = torch.logsumexp(each, 0) - math.log(count)
    torch.testing.assert_close(mixture.log_prob(y), expected, rtol=1e-9, atol=1e-9)
    # They are no copies of each other.
    assert (each - each[0]).abs().amax(dim=tuple(range(1, each.dim())))[1:].min() > 1e-3


@every_target
@pytest.mark.parametrize("options", [{}, {"members": 3}, {"dropout": 0.3, "dropout_members": 4}], ids=str)
def test_total_uncertainty_is_its_parts_and_the_mixtures_own(target: str, options: dict[str, Any]) -> None:
    model = fitted(target, **options)
    parts, mixture = model.decompose(ROWS), model.predict_distribution(ROWS)
    assert parts.measure == ("variance" if target == "quantity" else "entropy")
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic)
    whole = mixture.variance if target == "quantity" else mixture.entropy
    torch.testing.assert_close(parts.total, whole, rtol=1e-8, atol=1e-10)
    if options:
        assert (parts.epistemic > 0).all()
    else:
        assert parts.epistemic.abs().max() < 1e-12


def test_the_variance_of_several_is_that_of_the_law_of_total_variance() -> None:
    model = fitted("quantity", members=4)
    members, parts = model.model_.members(ROWS), model.decompose(ROWS)
    mean, variance = members.mean.numpy(), members.variance.numpy()
    np.testing.assert_allclose(parts.aleatoric, variance.mean(0))
    np.testing.assert_allclose(parts.epistemic, mean.var(0), rtol=1e-8)
    np.testing.assert_allclose(model.predict(ROWS), mean.mean(0))


def test_members_disagree_more_where_there_is_no_data() -> None:
    model = Regressor(hidden=(32,), max_epochs=30, members=5, learning_rate=5e-3, bins=0).fit(ROWS, QUANTITY)
    far = np.full((1, 3), 6.0)
    assert model.decompose(far).epistemic.item() > 4 * model.decompose(ROWS).epistemic.median().item()


@every_target
def test_one_member_is_a_single_network(target: str) -> None:
    one, plain = fitted(target, members=1), fitted(target)
    assert one.model_.network.members is None
    assert np.array_equal(one.predict(ROWS), plain.predict(ROWS))


@every_target
@pytest.mark.parametrize("options", [{"members": 3}, {"dropout": 0.3, "dropout_members": 4}], ids=["ensemble", "drawn"])
def test_the_same_seed_gives_the_same_members_bit_for_bit(target: str, options: dict[str, Any], tmp_path: Path) -> None:
    model, again = fitted(target, **options), fitted(target, **options)
    raw = model.model_.raw_of(model.model_.features(ROWS))
    assert torch.equal(raw, again.model_.raw_of(again.model_.features(ROWS)))
    assert torch.equal(raw, model.model_.raw_of(model.model_.features(ROWS)))
    other = fitted(target, **options, random_state=1)
    assert not torch.equal(raw, other.model_.raw_of(other.model_.features(ROWS)))
    model.save(tmp_path / "model")
    loaded: Any = lastlayer.load(tmp_path / "model")
    assert torch.equal(raw, loaded.model_.raw_of(loaded.model_.features(ROWS)))
    assert torch.equal(model.decompose(ROWS).epistemic, loaded.decompose(ROWS).epistemic)


def test_draws_of_dropout_leave_the_random_state_alone() -> None:
    model = fitted("quantity", dropout=0.3, dropout_members=4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.predict(ROWS)
    assert torch.equal(torch.rand(3), expected)


def test_draws_of_dropout_need_dropout() -> None:
    with pytest.raises(InputError, match=r"dropout_members is 4, and the network has no dropout.*dropout=0\.1"):
        Regressor(**SMALL, dropout_members=4).fit(ROWS, QUANTITY)
    # Classes have some unasked.
    Classifier(**SMALL, dropout_members=4).fit(ROWS, CLASS)


@pytest.mark.parametrize("name", ["members", "dropout_members"])
@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_a_count_that_is_none_is_an_error_that_names_it(name: str, count: Any) -> None:
    with pytest.raises(InputError, match=f"^{name} is {count}"):
        Regressor(**SMALL, **{name: count}).fit(ROWS, QUANTITY)


def test_members_that_pass_after_pass_go_on() -> None:
    model = Regressor(**SMALL, members=3, head="gaussian:predicted")
    for _ in range(20):
        model.partial_fit(ROWS, QUANTITY)
    assert model.n_iter_ == 20
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.model_.raw_of(model.model_.features(ROWS)).shape == (3, 150, 2)
    assert (model.decompose(ROWS).epistemic > 0).all()
    assert np.corrcoef(model.predict(ROWS), QUANTITY)[0, 1] > 0.5


def test_members_together_are_likelier_than_they_are_one_by_one() -> None:
    """Jensen's inequality, and a mixture that had its weights wrong would break it."""
    model = fitted("classes", members=4)
    members, y = model.model_.members(ROWS), torch.tensor(CLASS)
    together = model.predict_distribution(ROWS).log_prob(y)
    assert (together >= members.log_prob(y.expand(4, -1)).mean(0)).all()


# --- training ---------------------------------------------------------------------------------------------------------


class Members(nn.Module):
    """Linear models side by side, weights given."""

    def __init__(self, members: int, outputs: int) -> None:
        super().__init__()
        self.members = members
        self.last = Linear(3, outputs, members=members)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(features)


TRAINED: list[tuple[Head, Tensor]] = [
    (heads.Gaussian(), torch.tensor(QUANTITY).float()),
    (heads.Gaussian(scale="predicted"), torch.tensor(QUANTITY).float()),
    (heads.Mixture(3), torch.tensor(QUANTITY).float()),
    (heads.Poisson(), torch.tensor(CLASS).float()),
    (heads.Categorical(3), torch.tensor(CLASS)),
    (heads.Ordinal(3), torch.tensor(CLASS)),
    (heads.MultiLabel(2), torch.tensor(LABELS).float()),
]


@pytest.mark.parametrize(("head", "target"), TRAINED, ids=lambda value: getattr(type(value), "__name__", ""))
@pytest.mark.parametrize("weighted", [False, True])
def test_each_member_takes_the_step_of_its_own_loss(head: Head, target: Tensor, weighted: bool) -> None:
    features = torch.tensor(ROWS).float()
    weight = torch.rand(150, generator=torch.Generator().manual_seed(1)) if weighted else None
    torch.manual_seed(2)
    network = Members(3, head.raw_size)
    alone = []
    for member in range(3):
        single = nn.Linear(3, head.raw_size)
        single.weight.data.copy_(network.last.weight[member])
        single.bias.data.copy_(network.last.bias[member])
        loss = step(single, head, torch.optim.SGD(single.parameters(), lr=0.1), Rows(features, target, weight))
        alone.append((single, loss))
    loss = step(network, head, torch.optim.SGD(network.parameters(), lr=0.1), Rows(features, target, weight))
    torch.testing.assert_close(loss, torch.stack([each for _, each in alone]).mean())
    for member, (single, _) in enumerate(alone):
        torch.testing.assert_close(network.last.weight[member], single.weight)
        torch.testing.assert_close(network.last.bias[member], single.bias)


def test_every_member_keeps_its_own_best_by_hand() -> None:
    network = Members(3, 1)

    def set_to(value: float) -> None:
        for parameter in network.parameters():
            parameter.data.fill_(value)

    best = _Best(network)
    for epoch, losses in enumerate([(5.0, 5.0, 5.0), (4.0, 6.0, 5.0), (3.0, 4.0, 5.0), (3.5, 1.0, 7.0)]):
        set_to(float(epoch))
        assert best.see(torch.tensor(losses), epoch)
    set_to(4.0)
    assert not best.see(torch.tensor([3.0, 1.0, 5.0]), 4)
    assert best.weights["last.weight"][:, 0, 0].tolist() == [2.0, 3.0, 0.0]
    assert best.weights["last.bias"][:, 0].tolist() == [2.0, 3.0, 0.0]
    assert best.epoch == 2


def _plan(**options: Any) -> Any:
    return Recipe(**{"batch_size": 150, "average": 0.0, "learning_rate": 0.05} | options).plan(150, classes=False)


def _losses(watch: Any = lambda history: None, **options: Any) -> list[Tensor]:
    """Of three members on rows held out: at the start, after every epoch, and, last, with the weights kept."""
    generator = torch.Generator().manual_seed(4)
    target = torch.randn(2, 150, generator=generator)
    features = torch.randn(2, 150, 3, generator=generator)
    torch.manual_seed(0)
    network, head, losses = Members(3, 2), heads.Gaussian(scale="predicted", beta=0.0), []
    validation = Rows(features[1], target[1])

    def figure(raw: Tensor, target: Tensor) -> float:
        losses.append(torch.stack([head.negative_log_likelihood(own, target).mean() for own in raw]))
        return 0.0

    train(
        network, head, Rows(features[0], target[0]), validation, _plan(**options), generator=generator, headline=figure,
        watch=watch,
    )  # fmt: skip
    kept = forward(network, validation.features)
    losses.append(torch.stack([head.negative_log_likelihood(own, validation.target).mean() for own in kept]))
    return losses


def test_training_ends_with_each_members_best_weights() -> None:
    losses = _losses(max_epochs=60, patience=60)
    seen, kept = torch.stack(losses[:-1]), losses[-1]
    torch.testing.assert_close(kept, seen.min(0).values)
    # Else the test could not tell.
    assert len(set(seen.argmin(0).tolist())) > 1
    assert (seen[-1] > kept).all()


def test_an_interruption_keeps_the_best_so_far_of_each_member() -> None:
    def interrupt(history: History) -> None:
        if len(history.epochs) == 25:
            raise KeyboardInterrupt

    losses = _losses(watch=interrupt, max_epochs=60, patience=60)
    assert len(losses) == 27
    torch.testing.assert_close(losses[-1], torch.stack(losses[:-1]).min(0).values)


def test_control_c_keeps_what_members_have_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.one_epoch, []

    def interrupted(*arguments: Any, **options: Any) -> float:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "one_epoch", interrupted)
    with pytest.warns(LastLayerWarning, match="interrupted after epoch 2"):
        model = fitted("quantity", members=3, max_epochs=10)
    assert model.n_iter_ == 2
    assert model.model_.record["training"]["stopped"] == "interrupted"
    assert np.isfinite(model.predict(ROWS)).all()


def test_one_member_that_gets_better_keeps_all_training() -> None:
    """Patience counts from the last time that any member was at its best."""
    losses = _losses(max_epochs=60, patience=4)
    seen = torch.stack(losses[:-1])
    last = max(int(seen[:, member].argmin()) for member in range(3))
    assert len(seen) == last + 4 + 1
    assert int(seen.argmin(0).min()) + 4 + 1 < len(seen)


def test_a_weight_of_zero_is_a_row_left_out_for_members_too() -> None:
    weight = np.r_[np.ones(100), np.zeros(50)]
    options: dict[str, Any] = SMALL | {"members": 2, "head": "gaussian"}
    weighted = Regressor(**options).fit(ROWS, QUANTITY, sample_weight=weight)
    left_out = Regressor(**options).fit(ROWS[:100], QUANTITY[:100])
    np.testing.assert_allclose(weighted.predict(ROWS), left_out.predict(ROWS), rtol=1e-4, atol=1e-5)
