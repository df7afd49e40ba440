"""The gradient check lets pass what is right: losses, activations, networks, difficult functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_cases import every_dtype, normal, random
from lastlayer import activations, losses
from lastlayer.checks import InputError
from lastlayer.gradient_check import check_gradient


@every_dtype
@pytest.mark.parametrize("name", losses.catalog())
def test_every_loss_passes(name, dtype):
    result = check_gradient(losses.catalog()[name], dtype=dtype)
    assert result, str(result)
    assert [row.how for row in result.tensors] == ["the closed form", "backward"]
    assert all(row.name == "raw" and row.checked >= 20 * max(1, row.unsettled) for row in result.tensors)
    assert dtype == torch.float32 or not any(row.unsettled for row in result.tensors)


@every_dtype
@pytest.mark.parametrize("name", activations.catalog())
def test_every_activation_passes(name, dtype):
    result = check_gradient(activations.catalog()[name].to(dtype), dtype=dtype)
    assert result, str(result)
    assert [row.how for row in result.tensors][:2] == ["the derivative", "backward"]
    assert result.tensors[0].checked == 100
    assert 2 * result.tensors[0].unsettled < 100


def test_inputs_of_a_loss_can_be_given():
    raw, target = normal(6, 5), torch.arange(6) % 5
    loss = losses.CrossEntropy(torch.rand(5, dtype=torch.float64, generator=random()), label_smoothing=0.1)
    for result in (check_gradient(loss, raw, target), check_gradient(loss, raw, target=target)):
        assert result, str(result)
        assert result.tensors[0].checked == 30
    with pytest.raises(InputError, match="raw and target, and 1 inputs"):
        check_gradient(loss, raw)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.cell(features)[0][:, -1])


NETWORKS = {
    "relu": (lambda: nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)), (8,)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)
        ),
        (2, 6, 6),
    ),
    "recurrent": (Recurrent, (5, 3)),
    "attention": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.Flatten(), nn.Linear(24, 2)
        ),
        (3, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_right_networks_pass(name, training):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = build().double().train(training)
    result = check_gradient(
        network, normal(6, *shape), loss=losses.cross_entropy, target=torch.arange(6) % 2, samples=30
    )
    assert result, str(result)
    assert [row.name for row in result.tensors] == [name for name, _ in network.named_parameters()]
    assert not any(row.kinks or row.unsettled or row.unused for row in result.tensors)


def test_right_networks_pass_in_float32_and_the_result_advises_float64():
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    result = check_gradient(
        network, normal(16, 4).float(), loss=F.mse_loss, target=normal(16, 1, seed=1).float(), samples=40
    )
    assert result, str(result)
    assert "Checked in float32, whose rounding hides" in str(result)
    assert "float64 shows more" in str(result)
    assert result.tensors[0].tolerance == pytest.approx(4e-4, rel=0.1)


def test_a_network_without_a_loss_and_its_input():
    network = nn.Sequential(nn.Linear(3, 2), nn.Softmax(-1)).double()
    features = normal(4, 3)
    assert [row.name for row in check_gradient(network, features).tensors] == ["0.weight", "0.bias"]
    with_input = check_gradient(network, features.requires_grad_())
    assert with_input, str(with_input)
    assert [row.name for row in with_input.tensors] == ["0.weight", "0.bias", "input"]
    assert "The function gives 8 numbers" in str(with_input)
    without_parameters = check_gradient(nn.Softmax(-1), features.detach())
    assert [row.name for row in without_parameters.tensors] == ["input"]


def test_a_method_of_a_module_has_the_modules_parameters():
    class Model(nn.Linear):
        def objective(self, features: Tensor, target: Tensor) -> Tensor:
            return F.mse_loss(self(features), target)

    model = Model(3, 1).double()
    result = check_gradient(model.objective, normal(5, 3), normal(5, 1))
    assert result, str(result)
    assert [row.name for row in result.tensors] == ["weight", "bias"]


def test_a_network_that_differentiates_in_its_forward_passes():
    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, place: Tensor) -> Tensor:
            place = place.requires_grad_()
            return torch.autograd.grad(self.energy(place).sum(), place, create_graph=True)[0]

    with torch.no_grad():
        result = check_gradient(Force().double(), normal(4, 2))
    assert [row.name for row in result.tensors if row.unused] == ["energy.2.bias"]
    assert result, str(result)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: x.exp(), normal(50) * 8),
        (lambda x: x**3, torch.zeros(())),
        (lambda x: (x - 1e6) ** 2, normal(5)),
        (lambda x: 1e6 + x.sin().sum(), normal(5)),
        (lambda x: 1e-30 * x.sin().sum(), normal(5)),
        (lambda x: x.log(), torch.tensor([1e-5, 1e-3, 1.0])),
        (lambda x: x.sqrt(), torch.tensor([1e-5, 1.0])),
        (lambda x: torch.xlogy(x, x).sum() + x.square().sum(), torch.tensor([1e-5, 0.5])),
        (lambda x: (100 * x).sin(), normal(20)),
        (lambda x: torch.sigmoid(x), torch.tensor([-800.0, -40.0, 40.0, 800.0])),
        (lambda x: x * 0, normal(5)),
    ],
)
def test_difficult_right_functions_pass(f, x):
    result = check_gradient(f, x.double())
    assert result, str(result)
    assert not result.tensors[0].unsettled
