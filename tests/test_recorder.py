"""The recorder watches a training from outside: it changes nothing, leaves nothing behind, and copes with any loop."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lastlayer import heads
from lastlayer.checks import InputError, KindError
from lastlayer.diagnosis.evaluation_mode import EvaluationWatch
from lastlayer.diagnosis.recorder import Recorder, bare
from lastlayer.diagnosis.run_questions import judge_run
from lastlayer.diagnosis.run_record import RunRecord


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recorder would note and leave out is raised."""
    monkeypatch.setenv("LASTLAYER_DEBUG", "1")


def rows(count: int = 160, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, width, generator=generator)
    return x, (x[:, :2].sum(1) > 0).long() + (x[:, 2] > 1).long()


def network(*, dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Linear(6, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []), nn.Linear(16, 3))


def hooks_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    on_modules = sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)
    on_parameters = sum(len(own._backward_hooks or ()) for own in module.parameters())
    return (
        on_modules
        + on_parameters
        + len(optimizer._optimizer_step_pre_hooks)
        + len(optimizer._optimizer_step_post_hooks)
    )


def train(
    body: nn.Module,
    optimizer: torch.optim.Optimizer,
    recorder: Recorder | None = None,
    *,
    steps: int = 40,
    batch: int = 32,
) -> list[float]:
    """Mini-batches drawn from the global random state; the losses."""
    x, y = rows()
    losses = []
    for step in range(steps):
        index = torch.randint(len(x), (batch,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(body(x[index]), y[index])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if recorder is not None:
            recorder.log(loss)
            if step % 5 == 4:
                recorder.end_epoch()
    return losses


def outcome(make: Callable[[nn.Module], Any], every: int | None, kind: type[Recorder] | None) -> list[Any]:
    """All that a training leaves behind: losses, what would be drawn next, weights, gradients, modes."""
    body = network(dropout=0.3, norm=True)
    optimizer = make(body)
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002 (the state that users draw from)
    if kind is None:
        losses = train(body, optimizer)
    else:
        x, y = rows()
        options = {"training": (x, y), "validation": (x[:50], y[:50]), "every": every}
        with kind(body, nn.CrossEntropyLoss(), optimizer, **options) as recorder:  # type: ignore[arg-type]
            losses = train(body, optimizer, recorder)
        recorder.findings()
    drawn = [torch.rand(3).tolist(), random.random(), np.random.rand()]  # noqa: NPY002
    state = [value.tolist() for value in body.state_dict().values()]
    gradients = [None if own.grad is None else own.grad.tolist() for own in body.parameters()]
    return [losses, drawn, state, gradients, [module.training for module in body.modules()]]


@pytest.mark.parametrize("every", [None, 1, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda body: torch.optim.Adam(body.parameters(), lr=1e-2),
        lambda body: torch.optim.AdamW(body.parameters(), lr=1e-2, fused=True),
        lambda body: torch.optim.SGD(body.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
    ],
    ids=["adam", "fused adamw", "momentum"],
)
def test_training_is_the_same_bit_for_bit(make: Callable[[nn.Module], Any], every: int | None) -> None:
    assert outcome(make, every, Recorder) == outcome(make, every, None)


class Draws(Recorder):
    """Wrong: takes a random number at every call."""

    def _on_call(self, *given: Any) -> None:
        torch.rand(1)


class Switches(Recorder):
    """Wrong: leaves the network in evaluation after a look."""

    def end_epoch(self, *given: Any) -> None:
        self._network.eval()


class Clears(Recorder):
    """Wrong: a pass of its own on the network itself, and its gradients cleared."""

    def __exit__(self, *error: Any) -> None:
        self._network.zero_grad()
        super().__exit__(*error)


@pytest.mark.parametrize("wrong", [Draws, Switches, Clears])
def test_a_recorder_that_changes_something_is_caught(wrong: type[Recorder]) -> None:
    def make(body: nn.Module) -> Any:
        return torch.optim.Adam(body.parameters(), lr=1e-2)

    assert outcome(make, None, wrong) != outcome(make, None, None)


def test_hooks_are_gone_afterwards_also_after_an_error() -> None:
    body = network()
    optimizer = torch.optim.Adam(body.parameters())
    x, y = rows()
    loss = nn.CrossEntropyLoss()
    with Recorder(body, loss, optimizer, training=(x, y)):
        assert hooks_of(body, optimizer) > 0
        train(body, optimizer, steps=3)
    assert hooks_of(body, optimizer) == 0
    with pytest.raises(IndexError), Recorder(body, loss, optimizer, training=(x, y)):
        [][0]
    assert hooks_of(body, optimizer) == 0
    assert not loss._forward_hooks


def test_an_error_in_the_network_is_the_users_own() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.calls = nn.Linear(6, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 3:
                raise ZeroDivisionError("the third")
            return self.inside(x)

    body = Fails()
    optimizer = torch.optim.Adam(body.parameters())
    with pytest.raises(ZeroDivisionError, match="the third"), Recorder(body, None, optimizer, every=1):
        train(body, optimizer, steps=5)
    assert hooks_of(body, optimizer) == 0


def test_the_record_is_plain_json_and_comes_back() -> None:
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.05)
    x, y = rows()
    with Recorder(body, nn.CrossEntropyLoss(), optimizer, training=(x, y), validation=(x, y)) as recorder:
        train(body, optimizer, recorder)
    record = recorder.record
    text = json.dumps(record.to_dict(), allow_nan=False)
    again = RunRecord.from_dict(json.loads(text))
    assert again.to_dict() == record.to_dict()
    assert judge_run(again) == list(recorder.findings())
    assert judge_run(json.loads(text)) == list(recorder.findings())
    assert (record.network, record.loss, record.optimizer) == ("Sequential", "CrossEntropyLoss", "SGD")
    assert record.steps == sum(block.count for block in record.losses) == 40
    assert [look.step for look in record.looks] == [0, 1, 2, 4, 8, 16, 32]
    assert {look.rate for look in record.looks} == {0.05}
    assert [epoch.step for epoch in record.epochs] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert record.layers[-1].step == 40
    assert {each.name for each in record.parameters} == {name for name, _ in body.named_parameters()}
    assert record.notes == ()


def test_epochs_have_the_mean_of_what_was_logged_in_them() -> None:
    body = network()
    optimizer = torch.optim.Adam(body.parameters())
    with Recorder(body, None, optimizer) as recorder:
        losses = train(body, optimizer, recorder)
    for number, epoch in enumerate(recorder.record.epochs):
        assert epoch.training_loss == pytest.approx(np.mean(losses[5 * number : 5 * number + 5]), rel=1e-6)
    assert recorder.record.first_losses == pytest.approx(losses)


def test_a_loss_module_is_seen_without_a_log() -> None:
    body, loss = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(body.parameters())
    x, y = rows()
    expected = []
    with Recorder(body, loss, optimizer) as recorder:
        for _ in range(12):
            optimizer.zero_grad()
            value = loss(body(x), y)
            value.backward()
            optimizer.step()
            expected.append(float(value.detach()))
            with torch.no_grad():
                loss(body(x), y)
    assert recorder.record.first_losses == pytest.approx(expected)


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = rows()
    for step in range(count):
        start = 16 * step % 144
        yield x[start : start + 16], y[start : start + 16]


def clears_before(body: nn.Module, optimizer: Any) -> None:
    for x, y in batches(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(body(x), y).backward()
        optimizer.step()


def clears_after(body: nn.Module, optimizer: Any) -> None:
    for x, y in batches(30):
        nn.functional.cross_entropy(body(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def clears_to_zero_between_forward_and_backward(body: nn.Module, optimizer: Any) -> None:
    for x, y in batches(30):
        loss = nn.functional.cross_entropy(body(x), y)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()


def clears_by_hand(body: nn.Module, optimizer: Any) -> None:
    for x, y in batches(30):
        nn.functional.cross_entropy(body(x), y).backward()
        optimizer.step()
        for parameter in body.parameters():
            parameter.grad.zero_()


def accumulates(body: nn.Module, optimizer: Any) -> None:
    for number, (x, y) in enumerate(batches(60)):
        (nn.functional.cross_entropy(body(x), y) / 4).backward()
        if number % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()


def two_backwards(body: nn.Module, optimizer: Any) -> None:
    for x, y in batches(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(body(x), y).backward()
        (1e-3 * body[0].weight.square().sum()).backward()
        optimizer.step()


def foreign_backward_first(body: nn.Module, optimizer: Any) -> None:
    """As a discriminator: the generator's loss passes through it before its own zero_grad."""
    for x, y in batches(30):
        body(x.clone().requires_grad_()).sum().backward()
        optimizer.zero_grad()
        nn.functional.cross_entropy(body(x), y).backward()
        optimizer.step()


def scaled(body: nn.Module, optimizer: Any) -> None:
    """With a gradient scaler that skips steps: its first scales are too large."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    for x, y in batches(60):
        optimizer.zero_grad()
        scaler.scale(100 * nn.functional.cross_entropy(body(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("every", [None, 1])
@pytest.mark.parametrize(
    "loop",
    [
        clears_before,
        clears_after,
        clears_to_zero_between_forward_and_backward,
        clears_by_hand,
        accumulates,
        two_backwards,
        foreign_backward_first,
        scaled,
    ],
)
def test_loops_that_clear_their_gradients(loop: Callable[[nn.Module, Any], None], every: int | None) -> None:
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01)
    with Recorder(body, None, optimizer, every=every) as recorder:
        loop(body, optimizer)
    assert recorder.record.uncleared.windows >= 2
    assert recorder.findings().names == []


def never_clears(body: nn.Module, optimizer: Any) -> None:
    for x, y in batches(30):
        nn.functional.cross_entropy(body(x), y).backward()
        optimizer.step()


def accumulates_and_never_clears(body: nn.Module, optimizer: Any) -> None:
    for number, (x, y) in enumerate(batches(60)):
        nn.functional.cross_entropy(body(x), y).backward()
        if number % 2:
            optimizer.step()


def clears_other_parameters(body: nn.Module, optimizer: Any) -> None:
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    for x, y in batches(30):
        other.zero_grad()
        nn.functional.cross_entropy(body(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("loop", [never_clears, accumulates_and_never_clears, clears_other_parameters])
def test_loops_that_do_not(loop: Callable[[nn.Module, Any], None]) -> None:
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.001)
    with Recorder(body, None, optimizer) as recorder:
        loop(body, optimizer)
    found = recorder.findings()
    assert [(finding.name, finding.severity) for finding in found] == [("gradients_not_cleared", "error")]
    assert "after step 0" in found[0].evidence


def test_steps_that_a_scaler_skips_are_not_counted() -> None:
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01)
    with Recorder(body, None, optimizer, every=1) as recorder:
        scaled(body, optimizer)
    record = recorder.record
    assert 0 < record.steps < 60
    assert all(look.finite for look in record.looks)
    assert [look.step for look in record.looks] == list(range(record.steps))


def test_closures_and_searches_of_lbfgs() -> None:
    body = network()
    optimizer = torch.optim.LBFGS(body.parameters(), lr=0.5, max_iter=5)
    x, y = rows()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(body(x), y)
        loss.backward()
        return loss

    with Recorder(body, nn.CrossEntropyLoss(), optimizer, training=(x, y), validation=(x, y)) as recorder:
        for _ in range(12):
            recorder.log(optimizer.step(closure))
    assert recorder.record.steps == 12
    assert recorder.findings().errors == []
    assert recorder.findings().warnings == []

    def forgetful() -> Tensor:
        loss = nn.functional.cross_entropy(body(x), y)
        loss.backward()
        return loss

    with Recorder(body, None, optimizer) as recorder:
        for _ in range(6):
            optimizer.step(forgetful)
    assert recorder.findings().names == ["gradients_not_cleared"]


def test_two_optimizers_of_one_network() -> None:
    body = network()
    first = torch.optim.SGD(body[0].parameters(), lr=0.1)
    last = torch.optim.Adam(body[-1].parameters(), lr=1e-3)
    x, y = rows()
    with Recorder(body, nn.CrossEntropyLoss(), [first, last], training=(x, y)) as recorder:
        for _ in range(20):
            first.zero_grad()
            last.zero_grad()
            loss = nn.functional.cross_entropy(body(x), y)
            loss.backward()
            first.step()
            last.step()
            recorder.log(loss)
    record = recorder.record
    assert record.steps == 20
    assert record.optimizer == "SGD, Adam"
    rates = {each.name: each.rate for each in record.parameters}
    assert rates == {"0.weight": 0.1, "0.bias": 0.1, "2.weight": 1e-3, "2.bias": 1e-3}
    assert all(each.moved == each.looks > 0 for each in record.parameters)
    assert not hooks_of(body, first)
    assert not hooks_of(body, last)


def test_a_network_that_is_called_for_two_losses_in_a_step() -> None:
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
    judge = network()
    of_maker, of_judge = (torch.optim.Adam(each.parameters(), lr=1e-3) for each in (maker, judge))
    x, _ = rows()
    one, zero = torch.ones(32, dtype=torch.long), torch.zeros(32, dtype=torch.long)
    with Recorder(judge, None, of_judge) as of_the_judge, Recorder(maker, None, of_maker) as of_the_maker:
        for step in range(40):
            real = x[4 * step % 128 :][:32]
            with torch.no_grad():
                made = maker(torch.randn(32, 4))
            of_judge.zero_grad()
            loss = nn.functional.cross_entropy(judge(real), one) + nn.functional.cross_entropy(judge(made), zero)
            loss.backward()
            of_judge.step()
            of_the_judge.log(loss)
            of_maker.zero_grad()
            loss = nn.functional.cross_entropy(judge(maker(torch.randn(32, 4))), one)
            loss.backward()
            of_maker.step()
            of_the_maker.log(loss)
    assert of_the_judge.record.calls_per_step == pytest.approx(3, abs=0.2)
    assert of_the_judge.findings().errors == []
    assert of_the_maker.findings().errors == []
    assert of_the_maker.findings().warnings == []


def test_without_an_optimizer_steps_are_what_is_logged() -> None:
    body = network()
    x, y = rows()
    with Recorder(body, nn.CrossEntropyLoss(), training=(x, y)) as recorder:
        for _ in range(20):
            loss = nn.functional.cross_entropy(body(x), y)
            gradients = torch.autograd.grad(loss, list(body.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(body.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
            recorder.log(loss)
    record = recorder.record
    assert record.steps == 20
    assert record.looks == ()
    assert [look.step for look in record.layers] == [1, 16, 20]
    assert recorder.findings().names == []


def test_a_bare_recorder_asks_what_it_can() -> None:
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1)
    with Recorder(body) as recorder:
        train(body, optimizer, recorder)
    assert recorder.findings().names == []
    assert Recorder(body).findings().names == []
    assert Recorder(body).record.steps == 0


def test_a_compiled_network() -> None:
    body = network(dropout=0.2)
    compiled = torch.compile(body, backend="eager")
    optimizer = torch.optim.Adam(body.parameters(), lr=1e-2)
    x, y = rows()
    with Recorder(compiled, nn.CrossEntropyLoss(), optimizer, training=(x, y), validation=(x, y)) as recorder:
        train(compiled, optimizer, recorder, steps=10)
    record = recorder.record
    assert record.network == "Sequential"
    assert record.steps == 10
    assert record.calls_per_step == 1
    assert record.comparison is not None
    assert math.isfinite(record.comparison.network)
    assert bare(compiled) is body


def test_a_distributed_network(tmp_path: Any) -> None:
    if not torch.distributed.is_available():
        pytest.skip("PyTorch was built without torch.distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        body = network()
        spread = nn.parallel.DistributedDataParallel(body)
        optimizer = torch.optim.SGD(spread.parameters(), lr=0.05)
        x, y = rows()
        with Recorder(spread, nn.CrossEntropyLoss(), optimizer, training=(x, y), validation=(x, y)) as recorder:
            train(spread, optimizer, recorder, steps=12)
        assert recorder.record.calls_per_step == 1
        assert {each.name for each in recorder.record.parameters} == {name for name, _ in body.named_parameters()}
        assert recorder.findings().errors == []
    finally:
        torch.distributed.destroy_process_group()


def test_networks_of_several_inputs_tuples_and_names() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
            return self.left(left), self.right(right)

    def loss(raw: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(raw[0] + raw[1], target)

    x, y = rows()
    for features in ((x[:, :3], x[:, 3:]), {"left": x[:, :3], "right": x[:, 3:]}):
        body = Two()
        optimizer = torch.optim.Adam(body.parameters(), lr=1e-2)
        with Recorder(body, loss, optimizer, training=(features, y), validation=(features, y)) as recorder:
            for _ in range(12):
                optimizer.zero_grad()
                raw = body(*features) if isinstance(features, tuple) else body(**features)
                value = loss(raw, y)
                value.backward()
                optimizer.step()
                recorder.log(value)
            recorder.end_epoch()
        assert recorder.record.notes == ()
        assert recorder.record.comparison is None
        assert recorder.findings().errors == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    body = network().to(dtype)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.5)
    x, y = rows()
    x = x.to(dtype)
    with Recorder(body, nn.CrossEntropyLoss(), optimizer, training=(x, y), validation=(x, y)) as recorder:
        for _ in range(25):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(body(x), y)
            loss.backward()
            optimizer.step()
            recorder.log(loss)
    assert recorder.record.notes == ()
    assert recorder.findings().errors == []
    assert {each.dtype for each in recorder.record.parameters} == {str(dtype).removeprefix("torch.")}


def test_a_lazy_network_and_one_row() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))
    x, y = rows(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body(x)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1)
    head = heads.Categorical(classes=3)
    with Recorder(body, head, optimizer, training=(x, y), validation=(x, y)) as recorder:
        for _ in range(10):
            optimizer.zero_grad()
            loss = head.loss(body(x), y)
            loss.backward()
            optimizer.step()
            recorder.log(loss)
        recorder.end_epoch()
    assert recorder.record.notes == ()
    assert recorder.findings().errors == []


def test_what_fails_is_noted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LASTLAYER_DEBUG")

    def broken(self: EvaluationWatch, inputs: Any, step: int) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(EvaluationWatch, "see", broken)
    body = network(dropout=0.5)
    optimizer = torch.optim.Adam(body.parameters())
    x, _ = rows()
    with Recorder(body, None, optimizer) as recorder:
        train(body, optimizer, recorder, steps=5)
        with torch.no_grad():
            body(x)
            body(x)
    assert recorder.record.notes == ("calls without gradients: RuntimeError: out of order",)
    assert recorder.record.steps == 5


def test_looks_are_bounded_in_a_long_run() -> None:
    body = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(body.parameters(), lr=1e-3)
    x = torch.ones(2, 1)
    with Recorder(body, None, optimizer, every=1) as recorder:
        for _ in range(700):
            optimizer.zero_grad()
            loss = body(x).square().mean()
            loss.backward()
            optimizer.step()
            recorder.log(loss)
    record = recorder.record
    assert len(record.looks) <= 128
    assert [look.step for look in record.looks][:16] == list(range(16))
    assert record.looks[-1].step > 690
    assert len(record.losses) <= 257
    assert sum(block.count for block in record.losses) == 700


def test_nothing_is_read_from_the_device_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way for a number to come to the host, counted."""
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01)
    read: list[str] = []
    for name in ("tolist", "item", "__float__", "__bool__", "__int__"):
        whole = getattr(Tensor, name)

        def counted(self: Tensor, *args: Any, whole: Any = whole, name: str = name) -> Any:
            read.append(name)
            return whole(self, *args)

        monkeypatch.setattr(Tensor, name, counted)
    x, y = rows()
    during = []
    with Recorder(body, None, optimizer) as recorder:
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(body(x), y)
            loss.backward()
            before = len(read)
            optimizer.step()
            recorder.log(loss)
            during.append(len(read) - before)
    looked = {0, 1, 2, 4, 8, 16, 32}
    closed = {step + 1 for step in looked}
    assert all(during[step] for step in looked)
    assert not any(count for step, count in enumerate(during) if step not in looked | closed)


def test_what_is_given_is_checked() -> None:
    x, y = rows()
    body = network()
    with pytest.raises(KindError, match="network is str"):
        Recorder("body")  # type: ignore[arg-type]
    with pytest.raises(KindError, match="optimizer is float"):
        Recorder(body, None, 0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="every is 0"):
        Recorder(body, every=0)
    with pytest.raises(InputError, match="training holds features alone"):
        Recorder(body, training=x)
    with pytest.raises(InputError, match="rows"):
        Recorder(body, validation=(x, y[:5]))
    with Recorder(body) as recorder, pytest.raises(InputError, match="at work already"), recorder:
        pass
    with pytest.raises(KindError, match="the loss to log is str"):
        recorder.log("high")  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_seen_without_a_log() -> None:
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=1e38)
    x, y = rows()
    with Recorder(body, None, optimizer) as recorder:
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(body(x), y).backward()
            optimizer.step()
    assert recorder.findings().names == ["not_a_number"]
