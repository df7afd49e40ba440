"""The subject: passes on copies, with the caller's world left as it was; and fixes tried on copies."""

from __future__ import annotations

import copy
import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.checks import InputError, KindError
from lastlayer.diagnosis.copies import copy_of
from lastlayer.diagnosis.examination import ask, examine, read_batch
from lastlayer.diagnosis.subject import Subject, call, run
from lastlayer.diagnosis.trial import compare, train_a_copy


def batch(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4, generator=generator), torch.randn(rows, 1, generator=generator)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(3, 1))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_unchanged(module: nn.Module, before: dict[str, Tensor]) -> None:
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_leaves_network_batch_and_random_states_as_they_were(training: bool) -> None:
    module, (x, y) = network().train(not training), batch()
    module[0].weight.grad = torch.full_like(module[0].weight, 7.0)
    before, features, target = state_of(module), x.clone(), y.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    passed = run(module, F.mse_loss, x, y, training=training)
    assert passed.failure is None
    assert passed.network.training is training
    assert_unchanged(module, before)
    assert module.training is not training
    assert module[2].training is not training
    assert torch.equal(module[0].weight.grad, torch.full_like(module[0].weight, 7.0))
    assert module[4].weight.grad is None
    assert torch.equal(x, features)
    assert torch.equal(y, target)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_other_generators_that_a_network_draws_from_are_as_they_were() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * random.random() + float(np.random.rand())  # noqa: NPY002

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    run(Noisy(), None, batch()[0], None, training=True)
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_the_pass_has_the_loss_and_gradients_of_a_plain_step() -> None:
    module, (x, y) = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), batch()
    passed = run(module, nn.MSELoss(), x, y, training=True)
    value = F.mse_loss(module(x), y)
    value.backward()
    torch.testing.assert_close(passed.value, value.detach())
    for (_, ours), (_, theirs) in zip(passed.network.named_parameters(), module.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    "loss",
    [
        heads.Gaussian(),
        losses.Huber(),
        losses.huber,
        nn.SmoothL1Loss(reduction="none"),
        lambda raw, target: (raw - target).abs(),
    ],
    ids=["head", "module", "function", "per sample", "lambda"],
)
def test_losses_of_every_kind_give_one_number(loss: Any) -> None:
    x, y = batch()
    raw = heads.Gaussian().raw_size if isinstance(loss, heads.Gaussian) else 1
    target = y.squeeze(1) if isinstance(loss, heads.Gaussian) else y
    passed = run(nn.Linear(4, raw), loss, x, target, training=True)
    assert passed.failure is None
    assert passed.value is not None
    assert passed.value.dim() == 0
    assert all(parameter.grad is not None for parameter in passed.network.parameters())


def test_networks_that_work_in_place_do_not_spoil_the_batch() -> None:
    class Greedy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x -= x.mean(0)
            return x.relu_()

    x, y = batch()
    before = x.clone()
    run(Greedy(), lambda raw, target: target.mul_(0).sum() + raw.sum(), x, y, training=True)
    call(Greedy(), x)
    assert torch.equal(x, before)
    assert bool(y.any())


def test_inputs_by_position_and_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 1)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.last(torch.cat([left, right], 1))

    x, y = batch()
    for features in ((x, x), {"left": x, "right": x}):
        passed = run(Two(), F.mse_loss, features, y, training=True)
        assert passed.failure is None
        assert passed.raw is not None
        assert passed.raw.shape == (6, 1)
        assert Subject(Two(), F.mse_loss, features, y).rows == 6


def test_no_gradient_reaches_what_the_loss_holds_beside_the_network() -> None:
    module, (x, y) = network(), batch()
    critic = nn.Linear(1, 1)
    critic.weight.grad = torch.full((1, 1), 3.0)

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        penalty = sum(parameter.square().sum() for parameter in module.parameters())
        return F.mse_loss(critic(raw), target) + 0.1 * penalty

    passed = run(module, loss, x, y, training=True)
    assert passed.failure is None
    assert passed.network[0].weight.grad is not None
    assert all(parameter.grad is None for parameter in module.parameters())
    assert critic.bias.grad is None
    assert torch.equal(critic.weight.grad, torch.full((1, 1), 3.0))
    train_a_copy(Subject(module, loss, x, y), steps=2)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert critic.bias.grad is None


def test_a_loss_with_parameters_and_buffers_is_copied() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, raw: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            return self.scale * F.mse_loss(raw, target)

    loss, (x, y) = Learned(), batch()
    run(network(), loss, x, y, training=True)
    assert loss.scale.grad is None
    assert float(loss.calls) == 0


def test_hooks_of_the_user_do_not_run_and_stay() -> None:
    module, (x, y) = network(), batch()
    seen: list[Tensor] = []
    handle = module[0].register_forward_hook(lambda layer, args, result: seen.append(result))
    module(x)
    passed = run(module, F.mse_loss, x, y, training=True)
    assert len(seen) == 1
    assert handle.id in module[0]._forward_hooks
    assert not passed.network[0]._forward_hooks


def test_hooks_that_are_part_of_the_network_run() -> None:
    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = nn.Linear(4, 3), nn.Linear(3, 1)
            self.body.register_forward_hook(self.note)

        def note(self, layer: nn.Module, args: Any, result: Tensor) -> None:
            self.noted = result

        def forward(self, x: Tensor) -> Tensor:
            self.body(x)
            return self.last(self.noted)

    x, y = batch()
    module = Noting()
    assert run(module, F.mse_loss, x, y, training=True).failure is None
    assert not hasattr(module, "noted")


def test_a_network_with_the_results_of_its_last_pass_is_copied() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 1)
            self.seen: dict[str, list[Tensor]] = {}

        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.first(x)
            self.seen["hidden"] = [self.hidden]
            return self.last(self.hidden)

    module, (x, y) = Keeping(), batch()
    module(x)
    with pytest.raises(RuntimeError):
        copy.deepcopy(module)
    assert run(module, F.mse_loss, x, y, training=True).failure is None
    assert module.hidden.grad_fn is not None


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:DeprecationWarning")
def test_norms_that_work_by_hooks_keep_them(norm: str) -> None:
    layer = getattr(torch.nn.utils, norm)(nn.Linear(4, 3))
    module, (x, y) = nn.Sequential(layer, nn.Linear(3, 1)), batch()
    before = state_of(module)
    passed = run(module, F.mse_loss, x, y, training=True)
    assert passed.failure is None
    assert all(parameter.grad is not None for parameter in passed.network.parameters())
    assert_unchanged(module, before)


def test_lazy_modules_learn_their_shapes_on_the_copy_alone() -> None:
    module, (x, y) = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(1)), batch()
    passed = run(module, F.mse_loss, x, y, training=True)
    assert passed.failure is None
    assert [operation.kind for operation in passed.of_network] == [
        "Linear",
        "ReLU",
        "Linear",
    ]
    assert all(isinstance(one, nn.parameter.UninitializedParameter) for one in module.parameters())


def test_what_nobody_can_copy_is_shared() -> None:
    module, (x, y) = network(), batch()
    module.lock = threading.Lock()  # type: ignore[assignment]
    copied = copy_of(module)
    assert copied.lock is module.lock
    assert copied[0].weight is not module[0].weight
    assert run(module, F.mse_loss, x, y, training=True).failure is None


def test_a_network_that_refuses_to_be_copied_is_told_once() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 1)

        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("there is one of me")

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x)

    x, y = batch()
    with pytest.raises(KindError, match="there is one of me"):
        copy_of(Single())

    def looking(subject: Subject) -> list[Any]:
        return [subject.training_pass.raw][:0]

    assert len(ask((looking, looking), Subject(Single(), F.mse_loss, x, y))) == 1


def test_a_train_method_of_the_networks_own_is_used() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self[1].eval()
            return None  # type: ignore[return-value]

    module, (x, y) = Frozen(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)), batch()
    passed = run(module, F.mse_loss, x, y, training=True)
    assert passed.network.training
    assert not passed.network[1].training


def test_the_modes_of_the_caller_do_not_matter() -> None:
    module, (x, y) = network(), batch()
    with torch.no_grad():
        assert run(module, F.mse_loss, x, y, training=True).network[0].weight.grad is not None
    with torch.inference_mode():
        passed = run(module, F.mse_loss, x + 0, y, training=True)
        assert passed.failure is None
        assert passed.network[0].weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_autocast(dtype: torch.dtype) -> None:
    x, y = (tensor.to(dtype) for tensor in batch())
    passed = run(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).to(dtype), F.mse_loss, x, y, training=True)
    assert passed.failure is None
    assert passed.value is not None
    assert passed.value.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        passed = run(network(), F.mse_loss, *batch(), training=True)
    assert passed.failure is None
    assert passed.of_network[0].output.dtype == torch.bfloat16


@pytest.mark.parametrize("stage", ["forward", "loss", "backward"])
def test_a_pass_that_breaks_off_says_where(stage: str) -> None:
    class Breaking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            return x.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            raise ZeroDivisionError("in backward")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4 if stage != "forward" else 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return Breaking.apply(self.last(x))

    x, y = batch()
    loss = F.mse_loss if stage != "loss" else F.nll_loss
    passed = run(Network(), loss, x, y, training=True)
    assert passed.failure is not None
    assert passed.failure.stage == stage
    assert (passed.raw is None) == (stage == "forward")
    assert passed.failure.module == ("last" if stage == "forward" else "")


def test_without_a_target_it_is_the_forward_pass_alone() -> None:
    passed = run(network(), F.mse_loss, batch()[0], None, training=True)
    assert passed.value is None
    assert passed.raw is not None
    assert not passed.of_loss


def test_examine_says_what_it_takes() -> None:
    x, y = batch()
    with pytest.raises(KindError, match=r"expected a torch\.nn\.Module"):
        examine((), lambda x: x, F.mse_loss, (x, y))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="features"):
        examine((), network(), F.mse_loss, 3)
    assert read_batch([[x, x], y])[0] == (x, x)
    assert read_batch(x) == (x, None)


def test_a_fix_is_tried_on_copies() -> None:
    x = batch(64)[0]
    target = (x.sum(1) > 0).long()
    with_softmax = nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=1))
    before = state_of(with_softmax)
    subject = Subject(with_softmax, nn.CrossEntropyLoss(), x, target)
    first, again = train_a_copy(subject, steps=10), train_a_copy(subject, steps=10)
    assert first == again
    assert len(first.losses) == 11
    assert first.last < first.first
    told = compare(subject, lambda: (with_softmax[0], subject.loss), fix="without the softmax")
    assert told is not None
    assert told.startswith("without the softmax, 40 steps")
    assert_unchanged(with_softmax, before)


def test_a_trial_ends_where_the_loss_is_not_finite() -> None:
    x, y = batch()
    trial = train_a_copy(Subject(nn.Linear(4, 1), lambda raw, target: (raw - target).sum().log(), x, y), steps=5)
    assert len(trial.losses) == 1
    assert trial.last != trial.last
    subject = Subject(nn.Linear(4, 1), F.mse_loss, x, y)
    assert compare(subject, lambda: (nn.Linear(9, 1), F.mse_loss), fix="with another") is None
