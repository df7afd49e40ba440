"""Each question about a run of training, on a run that has the fault and on its healthy twin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, make_moons
from torch import Tensor, nn

from lastlayer import Classifier, heads
from lastlayer.diagnosis.finding import Finding, Findings
from lastlayer.diagnosis.recorder import Recorder
from lastlayer.diagnosis.run_questions import FAULTS, RUN_CHECKS, judge_run
from lastlayer.diagnosis.run_record import EpochFigures, LossBlock, RunRecord
from lastlayer.uncertainty import dropout_members

Rows = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTLAYER_DEBUG", "1")


@cache
def digits() -> tuple[Rows, Rows]:
    features, target = load_digits(return_X_y=True)
    x = torch.tensor((features - features.mean()) / features.std(), dtype=torch.float32)
    y = torch.tensor(target)
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@cache
def moons(noise: float = 0.2) -> tuple[Rows, Rows]:
    features, target = make_moons(600, noise=noise, random_state=0)
    x, y = torch.tensor(features, dtype=torch.float32), torch.tensor(target, dtype=torch.float32).unsqueeze(1)
    return (x[:400], y[:400]), (x[400:], y[400:])


@cache
def sums() -> tuple[Rows, Rows]:
    """A quantity that is nearly a linear function of ten columns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(800, 10, generator=generator)
    y = x[:, :5].sum(1, keepdim=True) / 5**0.5 + 0.2 * torch.randn(800, 1, generator=generator)
    return (x[:600], y[:600]), (x[600:], y[600:])


@dataclass
class Run:
    """How a network is trained.

    Attributes:
        network, optimizer: make them.
        data: training and validation rows.
        loss: a head, a module or a function.
        evaluate: whether in evaluation mode for the validation loss.
    """

    network: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    data: tuple[Rows, Rows]
    loss: Any
    epochs: int = 8
    batch: int = 50
    evaluate: bool = True
    told: bool = True

    def __call__(self) -> Recorder:
        torch.manual_seed(0)
        network = self.network()
        optimizer = self.optimizer(network.parameters())
        (x, y), (x_other, y_other) = self.data
        compute = self.loss.loss if isinstance(self.loss, heads.Head) else self.loss
        told = {"training": (x, y), "validation": (x_other, y_other)} if self.told else {}
        with Recorder(network, self.loss if self.told else None, optimizer, **told) as recorder:
            for _ in range(self.epochs):
                network.train()
                for index in torch.randperm(len(x)).split(self.batch):
                    optimizer.zero_grad()
                    value = compute(network(x[index]), y[index])
                    value.backward()
                    optimizer.step()
                    recorder.log(value)
                if self.evaluate:
                    network.eval()
                with torch.no_grad():
                    recorder.end_epoch(validation_loss=compute(network(x_other), y_other))
        return recorder


def mlp(*widths: int, activation: Any = nn.ReLU, dropout: float = 0.0) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for left, right in itertools.pairwise(widths[:-1]):
            layers += [nn.Linear(left, right), activation(), *([nn.Dropout(dropout)] if dropout else [])]
        return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

    return make


def adam(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def sgd(rate: float, momentum: float = 0.0) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum)


def named(findings: Findings, name: str) -> Finding:
    found = [finding for finding in findings if finding.name == name]
    assert len(found) == 1, findings
    return found[0]


def loud(findings: Findings) -> list[str]:
    """The names of errors and warnings."""
    return [finding.name for finding in (*findings.errors, *findings.warnings)]


CE, BCE, MSE = nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(), nn.MSELoss()


@pytest.mark.parametrize(
    "run",
    [
        Run(mlp(64, 32, 10), adam(3e-3), digits(), CE),
        Run(mlp(64, 32, 10), sgd(0.1), digits(), CE),
        Run(mlp(64, 32, 10, activation=nn.Tanh), sgd(0.02, 0.9), digits(), heads.Categorical(classes=10)),
        Run(mlp(64, 64, 10, dropout=0.5), adam(3e-3), digits(), F.cross_entropy, epochs=12),
        Run(mlp(2, 32, 32, 1), adam(1e-2), moons(), BCE, epochs=15),
        Run(mlp(2, 16, 1, activation=nn.Tanh), adam(3e-2), moons(), BCE, epochs=30, batch=400),
        Run(mlp(10, 32, 1), adam(1e-2), sums(), MSE, epochs=10),
        Run(mlp(10, 32, 1, activation=nn.SiLU), adam(5e-3), sums(), nn.L1Loss(), epochs=15),
        Run(mlp(10, 1), sgd(0.05), sums(), MSE),
    ],
    ids=lambda run: "",
)
def test_healthy_runs_are_silent(run: Run) -> None:
    recorder = run()
    assert loud(recorder.findings()) == []
    assert recorder.record.notes == ()
    assert loud(Findings(judge_run({**recorder.record.to_dict(), "trials": [], "comparison": None}))) == []


@pytest.mark.parametrize(
    ("run", "severity"),
    [
        (Run(mlp(64, 64, 10), adam(1.0), digits(), CE), "error"),
        (Run(mlp(64, 32, 10), sgd(30.0), digits(), CE), "error"),
        (Run(mlp(64, 32, 10, activation=nn.Tanh), sgd(3.0, 0.9), digits(), CE), "error"),
        (Run(mlp(10, 32, 1), adam(3.0), sums(), MSE), "error"),
        (Run(mlp(64, 32, 32, 10), sgd(1.5), digits(), CE), "error"),
    ],
    ids=["adam", "descent", "momentum", "quantity", "died"],
)
def test_a_rate_that_is_too_high(run: Run, severity: str) -> None:
    recorder = run()
    found = named(recorder.findings(), "learning_rate_too_high")
    assert found.severity == severity
    rate = recorder.record.looks[0].rate
    assert found.numbers["best_rate"] < rate
    assert f"from {rate:g} to about {found.numbers['best_rate']:g}" in found.fix
    assert found.tried is not None
    assert found.numbers["best_loss"] < found.numbers["start"]


def test_the_rate_it_suggests_learns() -> None:
    run = Run(mlp(64, 64, 10), adam(1.0), digits(), CE)
    suggested = named(run().findings(), "learning_rate_too_high").numbers["best_rate"]
    mended = Run(mlp(64, 64, 10), adam(suggested), digits(), CE)()
    assert "learning_rate_too_high" not in mended.findings().names
    assert mended.record.epochs[-1].validation_loss < 0.5


def test_another_fault_is_not_blamed_on_the_rate() -> None:
    """Labels that have nothing to do with the images: no rate learns them, and none is to blame."""
    (x, y), other = digits()
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    recorder = Run(mlp(64, 16, 10), adam(1e-3), ((x, shuffled), other), CE, epochs=3)()
    assert not {"learning_rate_too_high", "learning_rate_too_low"} & set(recorder.findings().names)


@pytest.mark.parametrize(
    "run",
    [
        Run(mlp(64, 32, 10), adam(1e-6), digits(), CE),
        Run(mlp(64, 32, 10), sgd(1e-5), digits(), CE),
        Run(mlp(10, 32, 1, activation=nn.Tanh), sgd(1e-5, 0.9), sums(), MSE),
    ],
    ids=["adam", "descent", "momentum"],
)
def test_a_rate_that_is_too_low(run: Run) -> None:
    recorder = run()
    found = named(recorder.findings(), "learning_rate_too_low")
    assert found.severity == "warning"
    assert found.numbers["best_rate"] >= 100 * found.numbers["rate"]
    assert found.tried is not None


def test_rates_are_judged_by_the_curve_where_nothing_can_be_tried() -> None:
    high = Run(mlp(64, 32, 10, activation=nn.Tanh), sgd(3.0, 0.9), digits(), CE, told=False)().findings()
    assert named(high, "learning_rate_too_high").severity == "error"
    back = Run(mlp(64, 64, 10), adam(1.0), digits(), CE, told=False)().findings()
    assert "before it fell to 2.2" in named(back, "learning_rate_too_high").evidence
    low = Run(mlp(64, 32, 10), sgd(1e-4), digits(), CE, epochs=20, told=False)().findings()
    assert named(low, "learning_rate_too_low").severity == "warning"
    fine = Run(mlp(64, 32, 10), sgd(0.1), digits(), CE, told=False)().findings()
    assert fine.names == []


@pytest.mark.parametrize("often", [True, False])
def test_a_schedule_that_ends_too_early(often: bool) -> None:
    torch.manual_seed(0)
    network = mlp(64, 32, 10)()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.6)
    x, y = digits()[0]
    with Recorder(network, CE, optimizer, training=(x, y)) as recorder:
        for step in range(120):
            optimizer.zero_grad()
            loss = CE(network(x[step % 20 * 50 :][:50]), y[step % 20 * 50 :][:50])
            loss.backward()
            optimizer.step()
            recorder.log(loss)
            if often or step % 20 == 19:
                schedule.step()
    found = [finding for finding in recorder.findings() if finding.name == "learning_rate_too_low"]
    assert [finding.where for finding in found] == (["the schedule"] if often else [])


def test_a_loss_that_is_thrown_up_and_comes_back() -> None:
    values = [2.3, 2.2, *[9.0] * 20, *[2.0 * 0.97**step for step in range(200)]]
    blocks = tuple(LossBlock(place, 1, value, 0.0, value, value) for place, value in enumerate(values))
    record = RunRecord(steps=len(values), first_losses=tuple(values[:64]), losses=blocks)
    assert [(found.name, found.severity) for found in judge_run(record)] == [("learning_rate_too_high", "warning")]
    calm = tuple(LossBlock(place, 1, min(value, 3.0), 0.0, min(value, 3.0), 3.0) for place, value in enumerate(values))
    assert judge_run(RunRecord(steps=len(values), first_losses=(2.3, 2.2, 3.0), losses=calm)) == []


def test_overfitting_and_its_healthy_twin() -> None:
    (x, y), other = moons(0.5)
    few = ((x[:40], y[:40]), other)
    bad = Run(mlp(2, 128, 128, 1), adam(5e-3), few, BCE, epochs=150, batch=20)()
    found = named(bad.findings(), "overfitting")
    assert found.severity == "warning"
    assert found.numbers["last"] > found.numbers["least"]
    epochs = bad.record.epochs
    best = min(range(len(epochs)), key=lambda place: epochs[place].validation_loss)
    assert abs(found.numbers["epoch"] - epochs[best].number) <= 10
    short = Run(mlp(2, 128, 128, 1), adam(5e-3), few, BCE, epochs=max(6, best), batch=20)()
    assert "overfitting" not in short.findings().names


def curves(training: list[float], validation: list[float | None], **more: Any) -> dict[str, Any]:
    return {
        "best_epoch": None,
        "stopped": "max_epochs",
        "training_loss": training,
        "validation_loss": validation,
        **more,
    }


def test_the_curves_of_a_saved_model_are_enough() -> None:
    falling = [1.0 * 0.9**epoch for epoch in range(30)]
    turned: list[float | None] = [max(1.0 - 0.1 * epoch, 0.4 + 0.03 * (epoch - 6)) for epoch in range(30)]
    (found,) = judge_run(curves(falling, turned))
    assert (found.name, found.severity) == ("overfitting", "warning")
    (kept,) = judge_run(curves(falling, turned, best_epoch=7))
    assert (kept.name, kept.severity) == ("overfitting", "note")
    assert "epoch 7 were kept" in kept.evidence
    flat: list[float | None] = [max(1.0 - 0.1 * epoch, 0.4) for epoch in range(30)]
    assert judge_run(curves(falling, flat)) == []
    noise = torch.randn(30, generator=torch.Generator().manual_seed(0)) * 0.05
    noisy: list[float | None] = [max(1.0 - 0.1 * epoch, 0.4) + float(noise[epoch]) for epoch in range(30)]
    assert judge_run(curves(falling, noisy)) == []
    # Both rise: that is divergence.
    both = judge_run(curves([0.4 + 0.05 * epoch for epoch in range(30)], turned))
    assert [finding.name for finding in both] == ["learning_rate_too_high"]
    creeping = judge_run(curves([1.0 - 0.001 * epoch for epoch in range(30)], [None] * 30))
    assert [(finding.name, finding.severity) for finding in creeping] == [("learning_rate_too_low", "note")]
    (stopped,) = judge_run(curves([1.0, 0.9], [None, None], stopped="not finite"))
    assert (stopped.name, stopped.severity) == ("not_a_number", "error")
    assert judge_run(curves([], [])) == []


def test_a_model_of_the_estimators_is_silent() -> None:
    (x, y), _ = moons()
    model = Classifier(max_epochs=40, random_state=0, verbose=False).fit(x.numpy(), y.squeeze(1).long().numpy())
    found = Findings(judge_run(model.model_.record["training"]))
    assert loud(found) == []


def test_worse_than_a_constant() -> None:
    train, (x_other, y_other) = digits()
    bad = Run(mlp(64, 32, 10), adam(3e-3), (train, (x_other, 9 - y_other)), CE, epochs=10)().findings()
    found = named(bad, "worse_than_constant")
    assert found.severity == "error"
    assert found.numbers["constant"] == pytest.approx(math.log(10), abs=0.05)
    assert "scaled as the training rows" in found.fix
    unlearned = Run(mlp(64, 32, 10), sgd(30.0), digits(), CE)().findings()
    assert "Nothing was learned" in named(unlearned, "worse_than_constant").fix


def test_worse_than_a_linear_model() -> None:
    held_back = Run(mlp(64, 1, 10, activation=nn.Tanh), adam(1e-2), digits(), CE, epochs=25)().findings()
    found = named(held_back, "worse_than_linear")
    assert found.severity == "warning"
    assert found.numbers["linear"] < 0.5 < found.numbers["network"]
    early = Run(mlp(64, 32, 10), adam(1e-3), digits(), CE, epochs=4)().findings()
    assert named(early, "worse_than_linear").severity == "note"


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="none"), lambda raw, y: F.cross_entropy(raw, y, reduction="none")]
)
def test_losses_of_every_sample(loss: Any) -> None:
    recorder = Run(mlp(64, 32, 10), adam(3e-3), digits(), lambda raw, y: loss(raw, y).mean(), epochs=3)()
    recorder._loss = loss
    found = recorder.record.comparison
    assert found is not None
    network = recorder._network.eval()
    x, y = digits()[1]
    assert found.network == pytest.approx(float(F.cross_entropy(network(x), y).detach()), rel=1e-5)


def test_judged_in_training_mode() -> None:
    right = Run(mlp(64, 64, 10, dropout=0.5), adam(3e-3), digits(), CE)
    found = named(Run(**{**vars(right), "evaluate": False})().findings(), "dropout_in_evaluation")
    assert found.severity == "warning"
    assert found.numbers["of_validation"] == 8
    assert "'2' (Dropout)" in found.evidence
    assert found.tried is not None
    assert "dropout_in_evaluation" not in right().findings().names
    # Nothing to switch: the mode makes no difference.
    plain = Run(mlp(64, 64, 10), adam(3e-3), digits(), CE, evaluate=False)
    assert "dropout_in_evaluation" not in plain().findings().names


def calls(use: Callable[[nn.Module, Tensor, int], None], *, told: bool = False, every: int = 10) -> Findings:
    """Training of a network with dropout and batch normalization, with something else every few steps."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    (x, y), (x_other, y_other) = moons()
    validation = (x_other, y_other) if told else None
    with Recorder(network, BCE, optimizer, validation=validation) as recorder:
        with torch.no_grad():
            network(x[:5])
        for step in range(60):
            index = torch.randint(400, (40,))
            optimizer.zero_grad()
            BCE(network(x[index]), y[index]).backward()
            optimizer.step()
            if step % every == every - 1:
                use(network, x_other, step)
    return recorder.findings()


def in_batches(network: nn.Module, x: Tensor, step: int) -> None:
    with torch.inference_mode():
        for part in x.split(50):
            network(part.clone())


def in_evaluation(network: nn.Module, x: Tensor, step: int) -> None:
    network.eval()
    in_batches(network, x, step)
    network.train()


def draws(network: nn.Module, x: Tensor, step: int) -> None:
    with torch.no_grad():
        for _ in range(10):
            network(x)


def draws_of_ours(network: nn.Module, x: Tensor, step: int) -> None:
    dropout_members(network, x, 10)


def collects_statistics(network: nn.Module, x: Tensor, step: int) -> None:
    torch.optim.swa_utils.update_bn(x.split(50), network)


def own_examples(network: nn.Module, x: Tensor, step: int) -> None:
    with torch.no_grad():
        network(torch.randn(40, 2))


@pytest.mark.parametrize(
    ("use", "every", "severity"),
    [
        (in_batches, 10, "warning"),
        (in_evaluation, 10, None),
        (draws, 10, "note"),
        (draws_of_ours, 10, None),
        (collects_statistics, 10, None),
        (own_examples, 1, "note"),
        (own_examples, 10, "warning"),
    ],
)
def test_calls_without_gradients(use: Any, every: int, severity: str | None) -> None:
    found = [each.severity for each in calls(use, every=every) if each.name == "dropout_in_evaluation"]
    assert found == ([] if severity is None else [severity])


def test_validation_rows_are_known_again() -> None:
    def judged(network: nn.Module, x: Tensor, step: int) -> None:
        with torch.no_grad():
            network(x[10:60].clone())

    found = named(calls(judged, told=True, every=1), "dropout_in_evaluation")
    assert found.severity == "warning"
    assert found.numbers["of_validation"] > 0


def test_a_parameter_that_never_moves() -> None:
    def train(
        groups: Callable[[nn.Sequential], list[dict[str, Any]]], dtype: torch.dtype = torch.float32
    ) -> list[Finding]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1)).to(dtype)
        optimizer = torch.optim.SGD(groups(network), lr=0.02)
        (x, y), _ = sums()
        with Recorder(network, None, optimizer) as recorder:
            for _ in range(40):
                optimizer.zero_grad()
                F.mse_loss(network(x.to(dtype)), y.to(dtype)).backward()
                optimizer.step()
        return [finding for finding in recorder.findings() if finding.name == "frozen_parameter"]

    # The first layer's bias has no gradient but rounding, because of the normalization behind it.
    assert train(lambda network: [{"params": network.parameters()}]) == []
    (found,) = train(lambda network: [{"params": network[3].parameters()}, {"params": network[0].weight, "lr": 0.0}])
    assert "'0.weight'" in found.where
    assert "learning rate of its group is 0" in found.evidence
    (found,) = train(lambda network: [{"params": network.parameters(), "lr": 1e-6}], torch.bfloat16)
    assert "rounded away in bfloat16" in found.evidence


def nan_after(steps: int, make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> tuple[Finding, Recorder]:
    torch.manual_seed(0)
    network = mlp(10, 16, 1)()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    x, y = make(*sums()[0])
    with Recorder(network, MSE, optimizer, training=(x, y)) as recorder:
        for step in range(60):
            rows = slice(10 * step, 10 * step + 10)
            optimizer.zero_grad()
            loss = MSE(network(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            recorder.log(loss)
    assert recorder.record.notes == ()
    found = named(recorder.findings(), "not_a_number")
    assert found.severity == "error"
    assert found.numbers["step"] == steps
    return found, recorder


def test_nan_from_a_row() -> None:
    def spoil(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[333, 4] = math.nan
        return x, y

    found, recorder = nan_after(33, spoil)
    assert found.where == "the inputs"
    assert "column 4" in found.evidence
    assert "learning_rate_too_high" not in recorder.findings().names
    assert recorder.record.losses[-1].not_finite


def test_nan_from_an_operation_that_training_leads_to() -> None:
    class Root(nn.Module):
        """Fine at first; later the root is asked of a number below 0."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sqrt(self.weight * x)

    network = Root()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    x, y = torch.ones(8, 1), -torch.ones(8, 1)
    with Recorder(network, MSE, optimizer, training=(x, y)) as recorder:
        for _ in range(60):
            optimizer.zero_grad()
            loss = MSE(network(x), y)
            loss.backward()
            optimizer.step()
            recorder.log(loss)
    found = named(recorder.findings(), "not_a_number")
    assert "sqrt" in found.where
    assert "Repeated on a copy" in found.evidence


def test_a_loss_that_grows_until_it_overflows() -> None:
    recorder = Run(mlp(10, 32, 1, activation=nn.Identity), sgd(5.0), sums(), MSE)()
    found = recorder.findings()
    assert "grown step by step" in named(found, "not_a_number").evidence
    assert named(found, "learning_rate_too_high").severity == "error"


def test_units_that_die_on_the_way() -> None:
    """One huge step sends every unit below 0; the rate is fine before and after."""
    torch.manual_seed(0)
    network = mlp(10, 16, 1)()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    (x, y), _ = sums()
    with Recorder(network, MSE, optimizer, training=(x, y)) as recorder:
        for step in range(60):
            optimizer.zero_grad()
            loss = MSE(network(x), y)
            loss.backward()
            optimizer.step()
            recorder.log(loss)
            if step == 20:
                with torch.no_grad():
                    network[0].bias.fill_(-100.0)
    found = named(recorder.findings(), "dead_units")
    assert "'1' (ReLU)" in found.where
    assert found.evidence.startswith("After 60 steps")


def test_a_question_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LASTLAYER_DEBUG")
    broken = RunRecord(epochs=(EpochFigures(1, 0, "none", 1.0),) * 9)  # type: ignore[arg-type]
    found = judge_run(broken)
    assert found
    assert {finding.name for finding in found} == {"check_failed"}


def test_faults_are_described() -> None:
    assert len(RUN_CHECKS) == 8
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    for fault in FAULTS:
        assert fault.severity in ("error", "warning")
        assert fault.why.endswith(".")
        assert fault.fix.endswith(".")
