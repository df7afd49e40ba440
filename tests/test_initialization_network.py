"""A whole network in one call: what is drawn, what starts at a constant, what is an error."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import lastlayer
from lastlayer import activations, heads, initialize
from lastlayer.checks import DomainError, InputError, KindError, ShapeError
from lastlayer.heads import Head
from lastlayer.initialization import He, Normal, start_as_constant
from lastlayer.networks import Linear, PiecewiseLinear, TabularNetwork


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), *(between or (nn.ReLU(),)), nn.Linear(16, 2))


class ScaleNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / x.norm(dim=-1, keepdim=True) + self.bias


# --- what is drawn ----------------------------------------------------------------------------------------------------


def everything() -> nn.Sequential:
    return nn.Sequential(
        nn.Embedding(7, 6, padding_idx=2),
        nn.Flatten(),
        nn.Linear(18, 12, bias=False),
        nn.LayerNorm(12),
        activations.PReLU(),
        Linear(12, 8, members=3),
        nn.BatchNorm1d(3),
        nn.Unflatten(1, (1, 3)),
        nn.Conv2d(1, 4, 3),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 2, 2),
    )


@pytest.mark.parametrize("rule", ["auto", "normal", "xavier", "glorot", "he", "orthogonal"])
def test_a_generator_repeats_every_number_and_leaves_the_random_state_alone(rule: str) -> None:
    one, other = everything(), everything()
    state = torch.get_rng_state()
    first = initialize(one, rule=rule, generator=generator(3))
    second = initialize(other, rule=rule, generator=generator(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    initialize(other, rule=rule, generator=generator(4))
    assert not torch.equal(one[2].weight, other[2].weight)
    torch.manual_seed(5)
    initialize(one, rule=rule)
    torch.manual_seed(5)
    initialize(other, rule=rule)
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_the_numbers_are_those_of_float32_in_half_precision() -> None:
    one, other = mlp(), mlp().bfloat16()
    initialize(one, generator=generator())
    initialize(other, generator=generator())
    assert torch.equal(one[0].weight.bfloat16(), other[0].weight)


def test_an_embedding_is_standard_normal_but_for_its_padding() -> None:
    for rule in ("auto", "he", "xavier", "glorot", "orthogonal"):
        embedding = nn.Embedding(400, 50, padding_idx=3)
        initialize(nn.Sequential(embedding, nn.Linear(50, 2)), "identity", rule=rule, generator=generator())
        assert float(embedding.weight.detach().std()) == pytest.approx(1.0, abs=0.03)
        assert not embedding.weight[3].any()
    initialize(embedding, rule=Normal(0.02))
    assert float(embedding.weight.detach().std()) == pytest.approx(0.02, abs=0.001)


class Language(nn.Module):
    """An embedding whose rows are also the last layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 64)
        self.middle, self.activation = nn.Linear(64, 64), nn.ReLU()
        self.scores = nn.Linear(64, 300, bias=False)
        self.scores.weight = self.embedding.weight

    def forward(self, index: Tensor) -> Tensor:
        return self.scores(self.activation(self.middle(self.embedding(index))))


def test_a_tied_weight_is_drawn_once_for_the_layer_that_multiplies() -> None:
    network = Language()
    rows = {row.name: row for row in initialize(network, generator=generator()).layers}
    assert network.scores.weight is network.embedding.weight
    assert float(network.scores.weight.detach().std()) == pytest.approx(math.sqrt(2 / 64), rel=0.03)
    assert rows["embedding"].rule == "tied to 'scores'"
    assert rows["embedding"].std == rows["scores"].std
    # Once: with two draws the second layer's numbers would come from further on in the generator.
    expected = generator()
    drawn = [torch.randn(64, 64, generator=expected), torch.randn(300, 64, generator=expected)]
    torch.testing.assert_close(network.middle.weight.detach(), drawn[0] / 8)
    torch.testing.assert_close(network.scores.weight.detach(), drawn[1] * math.sqrt(2 / 64))


def test_biases_are_a_number_but_for_the_last_layers() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Conv1d(1, 2, 1), nn.ReLU(), nn.Linear(5, 3))
    record = initialize(network, bias=0.1)
    assert [row.bias for row in record.layers] == [0.1, 0.1, 0.0]
    for place, expected in ((0, 0.1), (2, 0.1), (4, 0.0)):
        assert (network[place].bias == expected).all()
    layer = nn.Linear(4, 5)
    initialize(layer, "relu", bias=0.1)
    assert (layer.bias == 0.1).all()


@pytest.mark.parametrize(("members", "shared"), [(None, False), (3, False), (3, True)])
def test_behind_a_sigmoid_the_bias_takes_the_center_away(members: int | None, shared: bool) -> None:
    codes = PiecewiseLinear.learn(np.zeros((1, 0), dtype=np.float32), bins=0)
    network = TabularNetwork(
        inputs=3, numeric=0, outputs=2, hidden=(8, 8), activation="sigmoid", dropout=0.0, codes=codes, members=members,
        shared=shared,
    )  # fmt: skip
    initialize(network, bias=0.25)
    half = torch.full((1, 8), 0.5)
    torch.testing.assert_close(network.body[2](half).detach(), torch.full_like(network.body[2](half), 0.25))
    torch.testing.assert_close(network.last(half).detach(), torch.zeros_like(network.last(half)), rtol=0, atol=1e-6)
    convolution = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 6, 3, groups=2))
    initialize(convolution)
    centered = convolution[2](torch.full((1, 4, 5, 5), 0.5)).detach()
    torch.testing.assert_close(centered, torch.zeros_like(centered), rtol=0, atol=1e-5)
    transposed = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Sigmoid(), nn.ConvTranspose2d(4, 6, 4, stride=2, groups=2))
    initialize(transposed)
    # On average over the positions of the kernel, away from the edge.
    centered = transposed[2](torch.full((1, 4, 9, 9), 0.5)).detach()[..., 4:-4, 4:-4].mean((0, 2, 3))
    torch.testing.assert_close(centered, torch.zeros(6), rtol=0, atol=1e-5)


def test_normalizations_start_as_new() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), ScaleNorm(5)
    )
    network(torch.randn(6, 4, 5, 5)[:, :3] * 3 + 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(2, 3)
    frozen = copy.deepcopy(network)
    frozen[1].requires_grad_(False)
    initialize(network)
    for module in network[1:]:
        assert (module.weight == 1).all()
        assert (module.bias == 0).all()
    assert (network[1].running_mean == 0).all()
    assert network[1].num_batches_tracked == 0
    initialize(frozen)
    assert (frozen[1].weight >= 2).all()
    assert frozen[1].num_batches_tracked == 1


def test_frozen_layers_are_left_as_they_are() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    network[0].requires_grad_(False)
    network[2].weight.requires_grad_(False)
    before = copy.deepcopy(network)
    record = initialize(network)
    assert [row.name for row in record.layers] == ["4"]
    assert record.notes == ("Left as it was, frozen: '0', '2'.",)
    for place in (0, 2):
        assert torch.equal(network[place].weight, before[place].weight)
        assert torch.equal(network[place].bias, before[place].bias)
    with pytest.raises(InputError, match=r"3 are frozen.*requires_grad_\(True\)"):
        initialize(network.requires_grad_(False))


def test_a_parametrized_weight_is_written_through() -> None:
    network = mlp()
    parametrizations.weight_norm(network[0])
    rows = initialize(network, generator=generator()).layers
    assert [row.kind for row in rows] == ["Linear", "Linear"]
    expected = torch.randn(16, 8, generator=generator()) / math.sqrt(8)
    torch.testing.assert_close(network[0].weight.detach(), expected)

    class Size(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.abs()

    parametrize.register_parametrization(network[2], "weight", Size())
    before = network[2].weight.detach().clone()
    record = initialize(network)
    assert "no right_inverse: '2'" in record.notes[0]
    assert torch.equal(network[2].weight.detach(), before)


# --- head and target --------------------------------------------------------------------------------------------------

TARGETS: list[tuple[Head, Any]] = [
    (heads.Gaussian(), [1.0, 2.0, 6.0]),
    (heads.Gaussian(scale="predicted"), np.array([1.0, 2.0, 6.0])),
    (heads.Bernoulli(), [0, 1, 1, 1]),
    (heads.Categorical(3), torch.tensor([0, 1, 2, 2])),
    (heads.MultiLabel(2), torch.tensor([[0.0, 1], [1, 1], [0, 1]])),
    (heads.Poisson(), [3, 0, 2]),
]


@pytest.mark.parametrize(("head", "target"), TARGETS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("weighted", [False, True])
def test_with_a_head_the_last_layer_starts_as_the_best_constant(head: Head, target: Any, weighted: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, head.raw_size))
    values = torch.as_tensor(target)
    weight = torch.linspace(1, 2, len(values)) if weighted else None
    record = initialize(network, head=head, target=target, sample_weight=weight)
    assert record.layers[-1].rule == f"best constant of {type(head).__name__}"
    raw = network(torch.randn(5, 4))
    expected = nn.Linear(8, head.raw_size)
    start_as_constant(expected, head, values, torch.ones(len(values)) if weight is None else weight)
    torch.testing.assert_close(raw, expected.bias.expand(5, -1))
    assert network[0].weight.detach().std() > 0.2


def test_a_dense_head_starts_there_too() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    initialize(network, head=heads.Categorical(3), target=torch.tensor([[0, 1], [2, 2]]))
    probability = heads.Categorical(3).distribution(network(torch.randn(1, 1, 2, 2)).movedim(1, -1)).probability
    torch.testing.assert_close(probability.detach(), torch.tensor([0.25, 0.25, 0.5]).expand(1, 2, 2, 3))


# --- errors -----------------------------------------------------------------------------------------------------------

HEAD = heads.Categorical(2)
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"network": 3}, KindError, r"network is int; expected a torch\.nn\.Module"),
    ({"network": nn.ReLU()}, InputError, "ReLU has no weight of two axes that learns"),
    ({"network": nn.LazyLinear(3)}, InputError, "'weight' is lazy.*call the network once"),
    ({"activation": "swish"}, InputError, "'swish'; expected one of"),
    ({"activation": "softmax"}, InputError, "not an elementwise function"),
    ({"rule": "kaiming"}, InputError, "'kaiming'; expected one of 'auto', 'constant'"),
    ({"rule": None}, InputError, "rule is None; expected one of"),
    ({"rule": He}, KindError, r"rule is the class He; .* He\(\)"),
    ({"bias": math.nan}, InputError, "bias is nan; expected a finite number"),
    ({"bias": "0.1"}, InputError, "bias is '0.1'; expected a finite number"),
    ({"generator": 3}, KindError, r"torch\.Generator\(\)\.manual_seed\(3\)"),
    ({"head": HEAD}, InputError, "head and target belong together"),
    ({"target": [0, 1]}, InputError, "head and target belong together"),
    ({"sample_weight": [1, 1]}, InputError, "head and target belong together"),
    ({"head": "categorical", "target": [0]}, KindError, "expected a head such as"),
    ({"head": heads.Categorical(3), "target": [0, 1, 2]}, ShapeError, "Categorical needs a layer with 3 outputs"),
    ({"head": HEAD, "target": [0, 1, 2]}, DomainError, "class indices"),
    ({"head": HEAD, "target": ["a", "b"]}, InputError, "must be numbers"),
    ({"head": HEAD, "target": []}, ShapeError, "at least one row"),
    ({"head": HEAD, "target": [0, 1], "sample_weight": [1, 1, 1]}, ShapeError, "sample_weight"),
    ({"head": HEAD, "target": [0], "network": nn.Linear(3, 2, bias=False)}, InputError, "bias that learns"),
    ({"batch": torch.zeros(3, 8)}, InputError, "rule='lsuv' measures on a batch"),
    ({"rule": "lsuv"}, InputError, "rule='lsuv' measures on a batch"),
]


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_is_an_error_and_changes_nothing(
    wrong: dict[str, Any], kind: type[Exception], message: str
) -> None:
    network = mlp()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(kind, match=message):
        initialize(**{"network": network, "reset_slopes": True} | wrong)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_last_layer_that_is_tied_is_not_set_to_0() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    with pytest.raises(InputError, match="tied to '0'"):
        initialize(network, head=heads.Categorical(3), target=[0, 1, 2])


def test_what_was_done_can_be_read() -> None:
    record = initialize(mlp(nn.BatchNorm1d(16), nn.ReLU()), head=HEAD, target=[0, 1])
    table = str(record).splitlines()
    assert table[0].split() == ["layer", "kind", "reads", "rule", "fan-in", "gain", "std", "bias"]
    assert table[1].split() == ["0", "Linear", "the", "input", "xavier", "8", "1", "0.3536", "0"]
    assert "best constant of Categorical" in table[2]
    assert len({line.index("Linear") for line in table[1:3]}) == 1
    assert lastlayer.initialize is initialize
    assert "(all)" in str(initialize(nn.Linear(2, 2)))
