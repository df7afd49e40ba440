"""The trace: every operation of a pass, where it ran, what went in and out, what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.subject import run
from lastlayer.diagnosis.trace import Trace

ROWS = 6


def features(*shape: int) -> Tensor:
    return torch.randn(*(shape or (ROWS, 4)), generator=torch.Generator().manual_seed(0))


def traced(network: nn.Module, x: Tensor | None = None, loss: Any = None) -> tuple[Operation, ...]:
    """The operations of a pass, with gradients of a loss that every output matters to."""
    x = features() if x is None else x
    loss = loss or (lambda raw, target: raw.square().sum())
    passed = run(network, loss, x, torch.zeros(len(x)), training=True)
    assert passed.failure is None, passed.failure
    return passed.operations


class Body(nn.Module):
    """Two layers and whatever a test puts between them."""

    def __init__(self, between: Any = torch.relu, width: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(width, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def names_of(operations: tuple[Operation, ...]) -> list[str]:
    return [operation.name for operation in operations if not operation.within_loss]


def one(operations: tuple[Operation, ...], name: str) -> Operation:
    (found,) = [operation for operation in operations if operation.name == name]
    return found


def chain_holds(operations: tuple[Operation, ...]) -> bool:
    """Whether the last linear layer is known to come from the first."""
    linear = [operation for operation in operations if operation.name == "linear"]
    return linear[0] in set(linear[-1].ancestors())


def test_modules_and_functions_are_seen_alike() -> None:
    modules = traced(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)))
    functions = traced(Body(F.relu))
    methods = traced(Body(lambda h: h.relu()))
    for operations in (modules, functions, methods):
        assert names_of(operations) == ["linear", "relu", "linear"]
        first, relu, last = operations[:3]
        assert relu.parents == (first,)
        assert relu.children == [last]
        assert relu.role == "activation"
        assert first.role == "weight"
        torch.testing.assert_close(relu.output, first.output.clamp(min=0), rtol=0, atol=0)
    assert [operation.module for operation in modules[:3]] == ["0", "1", "2"]
    assert modules[1].label == "layer '1' (ReLU)"
    assert functions[1].label == "relu in Body's forward"


def test_inputs_outputs_and_gradients_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    network = Body(torch.tanh)
    operations = traced(network)
    x = features()
    first = network.first(x)
    first.retain_grad()
    hidden = torch.tanh(first)
    hidden.retain_grad()
    raw = network.second(hidden)
    raw.square().sum().backward()
    linear, tanh, last = operations[:3]
    torch.testing.assert_close(linear.output, first.detach())
    torch.testing.assert_close(linear.gradient, first.grad)
    torch.testing.assert_close(tanh.gradient, hidden.grad)
    torch.testing.assert_close(tanh.input, first.detach())
    torch.testing.assert_close(tanh.slope, 1 - hidden.detach() ** 2)
    torch.testing.assert_close(last.gradient, 2 * raw.detach())
    assert linear.parameters == ("first.weight", "first.bias")
    assert last.returned
    assert not tanh.returned


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h.relu_(),
        lambda h: F.relu(h, inplace=True),
        lambda h: F.relu_(h),
        lambda h: h.view(-1).relu_().view(ROWS, 3),
        lambda h: (h.view(-1).relu_(), h)[1],
        lambda h: torch.relu(h, out=torch.empty(ROWS, 3)) if not torch.is_grad_enabled() else h.clamp_(min=0),
    ],
    ids=["method", "option", "function", "view used", "base used", "clamp"],
)
def test_what_is_overwritten_is_kept_as_it_was(between: Any) -> None:
    torch.manual_seed(0)
    network = Body(between)
    operations = traced(network)
    first = next(operation for operation in operations if operation.name == "linear")
    expected = network.first(features()).detach()
    torch.testing.assert_close(first.output, expected)
    assert bool((expected < 0).any())
    written = next(operation for operation in operations if operation.in_place)
    torch.testing.assert_close(written.input.reshape(ROWS, 3), expected)
    torch.testing.assert_close(written.output.reshape(ROWS, 3), expected.clamp(min=0))
    assert chain_holds(operations)
    # What is used afterwards is what was written, also by another name.
    last = [operation for operation in operations if operation.name == "linear"][-1]
    assert written in set(last.ancestors())


def test_assigning_to_parts_of_a_tensor_is_an_operation() -> None:
    def put_together(h: Tensor) -> Tensor:
        whole = torch.zeros(ROWS, 3)
        whole[:, :2] = torch.tanh(h[:, :2])
        whole[:, 2] = h[:, 2]
        return whole

    operations = traced(Body(put_together))
    assert one(operations, "tanh").children
    assert chain_holds(operations)
    assert names_of(operations).count("setitem") == 2


def test_transposed_and_cast_tensors_stay_in_the_chain() -> None:
    for between in (
        lambda h: h.T.mT.float(),
        lambda h: h.type(torch.float64).to(torch.float32),
        lambda h: h.real,
        lambda h: h.data.requires_grad_(),
    ):
        assert chain_holds(traced(Body(between)))


def test_a_module_called_twice_is_two_operations_of_one_name() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(self.shared(x)))

    operations = traced(Twice())
    assert [operation.module for operation in operations[:3]] == ["shared", "shared", "last"]
    assert operations[0].children == [operations[1]]


def test_modules_inside_modules_are_named_by_their_path() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2)))
    operations = traced(nn.Sequential(inner, nn.Softplus()))
    assert [operation.module for operation in operations if not operation.within_loss] == ["0.0", "0.1.0", "0.1.1", "1"]


@dataclasses.dataclass(slots=True)
class Slotted:
    raw: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw: (raw, raw.detach()),
        lambda raw: {"raw": [raw]},
        lambda raw: dataclasses.make_dataclass("Result", ["raw"])(raw),
        Slotted,
        lambda raw: torch.distributions.Normal(raw, 1.0),
    ],
    ids=["tuple", "dict", "dataclass", "slots", "distribution"],
)
def test_what_is_returned_is_known_whatever_it_is_wrapped_in(wrap: Any) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.last(x))

    passed = run(Network(), None, features(), None, training=True)
    returned = [operation for operation in passed.operations if operation.returned]
    assert "linear" in {operation.name for one in returned for operation in (one, *one.ancestors())}


def test_recurrent_and_attention_layers_are_one_operation_each() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.lstm(x)
            return self.last(states[:, -1])

    operations = traced(Recurrent(), features(ROWS, 5, 4))
    lstm = one(operations, "lstm")
    assert lstm.label == "layer 'lstm' (LSTM)"
    assert len(lstm.parameters) == 4
    assert lstm.gradient is not None
    assert lstm in set(one(operations, "linear").ancestors())

    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    operations = traced(
        nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 1)), features(ROWS, 5, 8)
    )
    attention = [operation for operation in operations if operation.name == "multi_head_attention_forward"]
    assert len(attention) == 2
    assert all(operation.role == "weight" for operation in attention)
    assert attention[0] in set(attention[1].ancestors())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_parts_stay_in_the_chain(reentrant: bool) -> None:
    inside = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    class Network(Body):
        def __init__(self) -> None:
            super().__init__(lambda h: checkpoint(self.inside, h, use_reentrant=reentrant))
            self.inside = inside

    operations = traced(Network())
    linear = [operation for operation in operations if operation.name == "linear"]
    assert len(linear) == 3
    assert linear[0] in set(linear[1].ancestors())
    assert linear[1] in set(linear[2].ancestors())


class Cube(torch.autograd.Function):
    """A custom function that leaves PyTorch for NumPy."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class Doubled(torch.autograd.Function):
    """One whose result is made by an operation that is seen."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.mul(x, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * gradient


@pytest.mark.parametrize("function", [Cube, Doubled])
def test_custom_functions_are_inferred_and_have_their_gradient(function: Any) -> None:
    operations = traced(Body(function.apply))
    custom = one(operations, function.__name__)
    assert custom.inferred
    assert custom.label == f"{function.__name__} in Body's forward"
    assert custom.gradient is not None
    assert custom.gradient.shape == (ROWS, 3)
    assert chain_holds(operations)


def test_custom_functions_one_after_another_are_both_found() -> None:
    operations = traced(Body(lambda h: Doubled.apply(Cube.apply(h))))
    assert {"Cube", "Doubled"} <= set(names_of(operations))
    assert chain_holds(operations)


def test_scripted_modules_are_inferred() -> None:
    with pytest.warns(DeprecationWarning, match="script"):
        scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    network = nn.Sequential(nn.Linear(4, 3), scripted, nn.Linear(3, 1))
    operations = traced(network)
    assert chain_holds(operations)
    passed = run(network, lambda raw, target: raw.sum(), features(), torch.zeros(ROWS), training=True)
    assert all(parameter.grad is not None for parameter in passed.network.parameters())
    assert sum(operation.inferred for operation in operations) == 1


def test_a_compiled_module_is_seen_as_it_was_written() -> None:
    network = nn.Sequential(
        nn.Linear(4, 3), torch.compile(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), backend="eager"), nn.Linear(3, 1)
    )
    assert names_of(traced(network)) == ["linear", "linear", "relu", "linear"]
    assert names_of(traced(torch.compile(Body(), backend="eager"))) == ["linear", "relu", "linear"]


def test_operations_of_a_transform_do_not_outlive_it() -> None:
    class Members(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda weight: torch.tanh(x @ weight))(self.weight).mean(0)

    operations = traced(Members())
    assert one(operations, "tanh").output is None
    assert one(operations, "mean").parents[0].parameters == ("weight",)


def test_an_inner_derivative_is_not_taken_for_that_of_the_loss() -> None:
    class Force(nn.Module):
        """Minus the derivative of an energy, and the energy's own square beside it."""

        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            energy = self.energy(x)
            (force,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
            return force

    operations = traced(Force())
    # The loss depends on the force, which the last layer's output is not part of: only its weights are.
    last = [operation for operation in operations if operation.module == "energy.2"]
    assert last[0].gradient is None


def test_reading_a_shape_or_a_number_is_no_operation() -> None:
    def read(h: Tensor) -> Tensor:
        assert h.shape[1] == 3
        assert h.dim() == 2
        assert len(h) == ROWS
        assert h.is_floating_point()
        assert not h.is_complex()
        assert isinstance(h.mean().item(), float)
        return h

    operations = traced(Body(read))
    assert names_of(operations) == ["linear", "mean", "linear"]
    assert operations[0].looked_at
    assert one(operations, "mean").looked_at


def test_what_something_still_holds_is_marked() -> None:
    class Keeping(Body):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            self.seen = [torch.sigmoid(hidden)]
            torch.tanh(hidden)
            return self.second(hidden)

    operations = traced(Keeping())
    assert one(operations, "sigmoid").kept
    assert not one(operations, "tanh").kept


def test_what_ran_without_gradient_says_so() -> None:
    def partly(h: Tensor) -> Tensor:
        with torch.no_grad():
            scale = torch.sigmoid(h)
        return h * scale

    operations = traced(Body(partly))
    assert not one(operations, "sigmoid").requires_grad
    assert one(operations, "mul").requires_grad


def test_parametrized_weights_are_part_of_the_chain() -> None:
    parametrizations = torch.nn.utils.parametrizations
    network = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(3, 1))
    )
    operations = traced(network)
    linear = [operation for operation in operations if operation.name == "linear"]
    assert [operation.role for operation in linear] == ["weight", "weight"]
    assert linear[0] in set(linear[1].ancestors())
    used = {name for operation in operations for name in operation.parameters}
    assert used == {name for name, _ in network.named_parameters()}


def test_tied_and_viewed_weights_keep_their_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x) @ self.table.weight.T

    operations = traced(Tied(), torch.arange(ROWS))
    assert one(operations, "embedding").parameters == ("table.weight",)
    assert one(operations, "matmul").parameters == ("table.weight",)
    assert one(operations, "matmul").role == "weight"


def test_the_innermost_refused_call_is_described() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 1))
    passed = run(network, None, features(), None, training=True)
    assert passed.failure is not None
    assert passed.failure.stage == "forward"
    assert passed.failure.module == "2"
    refused = passed.failure.refused
    assert refused is not None
    assert refused.name == "linear"
    assert refused.label == "layer '2' (Linear)"
    assert refused.shapes == ((ROWS, 3), (1, 5), (1,))
    assert refused.parameters == ("2.weight", "2.bias")
    assert refused.parents[0] is not None
    assert refused.parents[0].label == "layer '1' (ReLU)"


def test_a_call_whose_error_was_handled_is_not_blamed_for_another() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.wrong = nn.Linear(4, 3), nn.Linear(9, 1)

        def forward(self, x: Tensor) -> Tensor:
            with contextlib.suppress(RuntimeError):
                self.wrong(self.first(x))
            raise ValueError("another")

    passed = run(Careful(), None, features(), None, training=True)
    assert passed.failure is not None
    assert str(passed.failure.error) == "another"
    assert passed.failure.refused is None


def test_hooks_and_stack_are_gone_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(9, 1))
    trace = Trace(network)
    with pytest.raises(RuntimeError), trace:
        network(features())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    with trace:
        network[0](features())
    assert trace.operations[-1].module == "0"


def test_a_network_as_deep_as_the_interpreter_allows() -> None:
    network: nn.Module = nn.Linear(4, 4)
    for _ in range(250):
        network = nn.Sequential(network)
    assert names_of(traced(network)) == ["linear"]


def test_a_random_activation_leaves_the_random_state_as_it_was() -> None:
    operations = traced(Body(lambda h: F.rrelu(h, training=True)))
    before = torch.get_rng_state()
    assert one(operations, "rrelu").slope is not None
    assert torch.equal(torch.get_rng_state(), before)
