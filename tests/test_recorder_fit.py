"""The record of the library's own training: it costs no step, changes nothing, and is judged like any other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lastlayer import heads
from lastlayer.diagnosis.comparison import comparison_of_rows
from lastlayer.diagnosis.fit_watch import FitWatch
from lastlayer.diagnosis.run_questions import judge_run
from lastlayer.diagnosis.run_record import RunRecord
from lastlayer.networks import PiecewiseLinear, TabularNetwork
from lastlayer.training import History, Recipe, Rows, train


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTLAYER_DEBUG", "1")


def rows(seed: int, count: int = 300) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return Rows(x, (x[:, 0] + 0.5 * x[:, 1].square() + 0.3 * torch.randn(count, generator=generator) > 0.5).long())


def trained(
    *, watched: bool, members: int | None = None, rate: float = 2e-3
) -> tuple[TabularNetwork, History, FitWatch]:
    torch.manual_seed(0)
    head = heads.Categorical(classes=2)
    network = TabularNetwork(
        inputs=6, numeric=6, outputs=head.raw_size, hidden=(32, 32), activation="relu", dropout=0.1,
        codes=PiecewiseLinear.learn(rows(0).features.numpy(), 4), members=members,
    )  # fmt: skip
    plan = Recipe(max_epochs=20, batch_size=50, learning_rate=rate).plan(300, classes=True)
    watch = FitWatch(network, head, rows(0), plan)
    history = train(
        network,
        head,
        rows(0),
        rows(1),
        plan,
        generator=torch.Generator().manual_seed(0),
        headline=lambda raw, target: 0.0,
        watch=watch if watched else lambda history: None,
    )
    return network, history, watch


def values(network: TabularNetwork) -> list[Tensor]:
    return list(network.state_dict().values())


@pytest.mark.parametrize("members", [None, 3])
def test_the_fit_is_the_same_bit_for_bit(members: int | None) -> None:
    plain, history, _ = trained(watched=False, members=members)
    drawn = torch.rand(3)
    seen, history_seen, watch = trained(watched=True, members=members)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(one, other) for one, other in zip(values(plain), values(seen), strict=True))
    assert history.epochs == history_seen.epochs
    assert seen.writes_backward
    record = watch.record(history_seen)
    assert record.notes == ()
    assert [look.step for look in record.layers] == [6, 96, 120]
    assert record.steps == 120
    assert [epoch.validation_loss for epoch in record.epochs] == [epoch.validation_loss for epoch in history.epochs]
    assert record.layers[0].layers[0]["gradient"] is not None


def test_the_record_is_judged_from_its_json() -> None:
    _, history, watch = trained(watched=True)
    record = watch.record(history)
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert RunRecord.from_dict(json.loads(text)).to_dict() == record.to_dict()
    found = judge_run(json.loads(text))
    assert [finding for finding in found if finding.severity != "note"] == []
    _, history, watch = trained(watched=True, rate=3.0)
    assert "not_a_number" in [finding.name for finding in judge_run(watch.record(history).to_dict())]


def test_losses_of_single_rows_are_compared_in_pairs() -> None:
    random = np.random.default_rng(0)
    network, constant, linear = random.normal([[0.7], [0.5], [0.4]], 0.2, (3, 200))
    _, history, watch = trained(watched=True)
    losses = {"network": network, "constant": constant, "linear": linear}
    record = watch.record(history, {name: torch.tensor(each) for name, each in losses.items()})
    found = record.comparison
    assert found is not None
    assert (found.network, found.constant) == pytest.approx((network.mean(), constant.mean()))
    # The paired test of SciPy has the same standard error.
    t = stats.ttest_rel(network, constant).statistic
    assert (found.network - found.constant) / found.constant_margin == pytest.approx(t)
    assert found.features == 6
    assert {finding.name for finding in judge_run(record)} == {"worse_than_constant", "worse_than_linear"}
    alike = comparison_of_rows(*(torch.tensor(constant),) * 3, features=6)
    assert judge_run(RunRecord(comparison=alike)) == []
