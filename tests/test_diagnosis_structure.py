"""The doctor's questions about structure: the lecture's model in one call, and silence where nothing is wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer import heads, losses
from lastlayer.diagnosis.examination import examine
from structure_cases import CHECKS, MODULES, classes, found, mlp, normal
from structure_healthy import HEALTHY


class LinearLayer(nn.Module):
    """The custom layer of the lecture (SPEC D9, S3)."""

    def __init__(self, in_sz: int, out_sz: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(in_sz, out_sz))
        self.b = nn.Parameter(torch.randn(out_sz))

    def forward(self, activations: Tensor) -> Tensor:
        t = torch.mm(activations, self.w)
        return t + self.b


class FullBasicModel(nn.Module):
    """The model of the lecture, mistakes and all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 128, 3)
        self.fc = LinearLayer(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        t1 = self.conv(x)
        t2 = nn.functional.relu(t1)  # noqa: F841
        t3 = self.fc(t1)
        return nn.functional.softmax(t3)


class Mended(FullBasicModel):
    """The same without them."""

    def forward(self, x: Tensor) -> Tensor:
        t1 = self.conv(x)
        t2 = nn.functional.relu(t1)
        return self.fc(t2.mean((2, 3)))


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        lambda raw, target: F.cross_entropy(raw, target),
        losses.cross_entropy,
        heads.Categorical(10),
    ],
    ids=["module", "function", "ours", "head"],
)
def test_every_mistake_of_the_lectures_model_in_one_call(loss: object) -> None:
    x, y = normal(8, 1, 28, 28), classes(8, 10)
    findings = found(FullBasicModel(), loss, x, y)
    assert set(findings.names) == {
        "value_never_used",
        "layer_shape_mismatch",
        "softmax_without_dimension",
        "softmax_before_cross_entropy",
    }
    by_name = {finding.name: finding for finding in findings}
    unused, shape = by_name["value_never_used"], by_name["layer_shape_mismatch"]
    assert unused.where == "relu in FullBasicModel's forward"
    assert "t2" in unused.evidence
    assert "self.fc(t1)" in unused.fix
    assert shape.where == "layer 'fc' (LinearLayer)"
    assert "(8, 128, 26, 26) arrives from layer 'conv' (Conv2d)" in shape.evidence
    assert "takes (n, 128)" in shape.evidence
    assert "x.mean((2, 3))" in shape.fix
    assert "86528" in shape.fix
    assert shape.tried is not None
    assert "(8, 10)" in shape.tried
    assert not found(Mended(), loss, x, y)


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_where_nothing_is_wrong(name: str) -> None:
    torch.manual_seed(0)
    network, loss, (x, y), optimizer = HEALTHY[name]()
    findings = examine(CHECKS, network, loss, (x, y), optimizer=optimizer)
    assert [finding for finding in findings if finding.severity != "note" or finding.name == "check_failed"] == []
    notes = {"transfer_learning_with_a_frozen_body", "generator_before_a_frozen_discriminator"}
    notes |= {"adapters_between_frozen_layers", "mixture_of_experts_some_of_which_are_not_asked"}
    notes |= {"layers_left_out_by_chance", "students_beside_a_teacher"}
    assert bool(findings) == (name in notes), str(findings)


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_any_number_of_rows_is_fine(rows: int) -> None:
    assert not found(mlp(4, 8, 1), F.mse_loss, normal(rows, 4), normal(rows, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_fine(dtype: torch.dtype) -> None:
    network = mlp(4, 8, 1).to(dtype)
    assert not found(network, F.mse_loss, normal(16, 4).to(dtype), normal(16, 1).to(dtype))


def test_without_target_or_loss_there_are_fewer_questions_and_no_error() -> None:
    network, x = mlp(4, 8, 1), normal(16, 4)
    for loss, target in ((F.mse_loss, None), (None, normal(16, 1)), (None, None)):
        assert not found(network, loss, x, target)


def test_the_network_is_as_it_was() -> None:
    for name in HEALTHY:
        torch.manual_seed(0)
        network, loss, batch, optimizer = HEALTHY[name]()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        state = torch.get_rng_state()
        examine(CHECKS, network, loss, batch, optimizer=optimizer)
        assert torch.equal(torch.get_rng_state(), state), name
        assert all(parameter.grad is None for parameter in network.parameters()), name
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), name
        assert all(module.training for module in network.modules()), name


def test_every_fault_is_described() -> None:
    faults = [fault for module in MODULES for fault in module.FAULTS]
    assert len({fault.name for fault in faults}) == len(faults)
    for fault in faults:
        assert fault.title
        assert fault.why.endswith(".")
        assert fault.fix.endswith(".")
        assert fault.reference
