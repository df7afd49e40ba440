"""Monte Carlo dropout: what is drawn, what is left alone, and the predictive of Gal and Ghahramani by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, ShapeError
from lastlayer.heads import Categorical, Gaussian
from lastlayer.networks import Dropout, Linear, PiecewiseLinear, TabularNetwork, seeded_dropout
from lastlayer.uncertainty import decompose
from lastlayer.uncertainty.monte_carlo_dropout import dropout_members

CODES = PiecewiseLinear.learn(np.zeros((1, 0), dtype=np.float32), 0)


def table_network(
    hidden: tuple[int, ...] = (16, 8), dropout: float = 0.3, *, activation: str = "relu", members: int | None = None
) -> TabularNetwork:
    torch.manual_seed(0)
    return TabularNetwork(
        inputs=5, numeric=0, outputs=2, hidden=hidden, activation=activation, dropout=dropout, codes=CODES,
        members=members,
    )  # fmt: skip


def rows(n: int, width: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


class Functional(nn.Module):
    """A user's own: dropout as a function of the module's flag."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


class MyDropout(Functional):
    p = 0.5


class OverSequence(nn.Module):
    """Reads every row as a sequence, and gives the last step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer(x)
        return (result[0] if isinstance(result, tuple) else result)[:, -1]


def attending() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.4, batch_first=True)
    return OverSequence(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "table": lambda: (table_network(), rows(7)),
    "table of maxout": lambda: (table_network(activation="maxout"), rows(7)),
    "ensemble of tables": lambda: (table_network(members=3), rows(7)),
    "dropout": lambda: (nn.Sequential(nn.Linear(5, 9), nn.Dropout(0.5), nn.Linear(9, 2)), rows(7)),
    "own dropout": lambda: (nn.Sequential(nn.Linear(5, 9), Dropout(0.5), nn.Linear(9, 2)), rows(7)),
    "batch normalization": lambda: (
        nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 2)),
        rows(7),
    ),
    "alpha": lambda: (nn.Sequential(nn.Linear(5, 9), nn.SELU(), nn.AlphaDropout(0.5), nn.Linear(9, 2)), rows(7)),
    "feature alpha": lambda: (nn.Sequential(nn.Conv1d(1, 4, 2), nn.FeatureAlphaDropout(0.5)), rows(7).unsqueeze(1)),
    "channels": lambda: (
        nn.Sequential(nn.Conv2d(1, 4, 2), nn.Dropout2d(0.5), nn.Flatten()),
        rows(7, 9).view(7, 1, 3, 3),
    ),
    "attention": lambda: (attending(), rows(7, 12).view(7, 3, 4)),
    "recurrent": lambda: (OverSequence(nn.LSTM(4, 6, 2, dropout=0.5, batch_first=True)), rows(7, 12).view(7, 3, 4)),
    "a user's": lambda: (nn.Sequential(nn.Linear(5, 9), MyDropout(), nn.Linear(9, 2)), rows(7)),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def flags(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


@EVERY
def test_members_differ_and_all_else_is_as_before(name: str) -> None:
    network, features = NETWORKS[name]()
    for number, module in enumerate(network.modules()):
        module.training = number % 2 == 0
    before, state = flags(network), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    given = features.clone()
    raw = dropout_members(network, features, 6, seed=3)
    assert flags(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    # Batch normalization has counted nothing, and nothing was written over.
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert torch.equal(features, given)
    assert not raw.requires_grad
    per_draw = raw.view(6, -1, *raw.shape[1:])
    assert (per_draw[0] != per_draw[1]).any()
    torch.testing.assert_close(dropout_members(network, features, 6, seed=3), raw, rtol=0, atol=0)
    assert not torch.equal(dropout_members(network, features, 6, seed=4), raw)


@EVERY
@pytest.mark.parametrize("batch_size", [None, 3, 1])
def test_shape_is_that_of_a_call_for_every_member(name: str, batch_size: int | None) -> None:
    network, features = NETWORKS[name]()
    network.eval()
    shape = network(features).shape
    leading = (4 * shape[0],) if getattr(network, "members", None) else (4, shape[0])
    assert dropout_members(network, features, 4, batch_size=batch_size).shape == (*leading, *shape[1:])


def test_an_error_leaves_flags_and_random_state_as_they_were() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            raise RuntimeError("on purpose")

    network = nn.Sequential(nn.Linear(5, 4), nn.Dropout(), Fails())
    network[0].eval()
    before, state = flags(network), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="on purpose"):
        dropout_members(network, rows(3), 2)
    assert flags(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    own = table_network()
    own.body[0].eval()
    before = flags(own)
    with pytest.raises(InputError):
        dropout_members(own, rows(3, 4), 2)
    assert flags(own) == before


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.0)),
        nn.Sequential(nn.Linear(5, 2), Dropout(0.001)),
        table_network(dropout=0.0),
        nn.LSTM(5, 2, 1),
    ],
    ids=["none", "share of 0", "share that rounds to 0", "table", "recurrent"],
)
def test_without_dropout_it_is_said(network: nn.Module) -> None:
    with pytest.raises(InputError, match="no dropout that drops anything"):
        dropout_members(network, rows(3), 2)


@pytest.mark.parametrize(
    "wrong", [{"members": 0}, {"members": 2.0}, {"members": True}, {"members": 2, "seed": -1},
              {"members": 2, "batch_size": 0}],
)  # fmt: skip
def test_numbers_that_are_none(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected a whole number"):
        dropout_members(table_network(), rows(3), **wrong)


def test_raw_output_without_the_rows_is_an_error() -> None:
    class Pools(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0)

    with pytest.raises(ShapeError, match=r"for 3 rows; expected \(n, \.\.\.\)"):
        dropout_members(nn.Sequential(nn.Dropout(), Pools()), rows(3), 2)
    with pytest.raises(ShapeError, match="one row for each"):
        dropout_members(nn.Sequential(nn.Dropout()), torch.tensor(1.0), 2)


def test_no_rows() -> None:
    assert dropout_members(table_network(), rows(0), 3).shape == (3, 0, 2)
    assert dropout_members(table_network(members=2), rows(0), 3).shape == (6, 0, 2)
    assert dropout_members(nn.Sequential(nn.Linear(5, 2), nn.Dropout()), rows(0), 3).shape == (3, 0, 2)


def masks(network: TabularNetwork, members: int, n: int) -> Tensor:
    """Which hidden units were kept, (members, n, units), read off a network whose raw output is its hidden units."""
    with torch.no_grad():
        network.body[0].weight.zero_()
        network.body[0].bias.fill_(1.0)
        network.last.weight.copy_(torch.eye(network.last.units))
        network.last.bias.zero_()
    return dropout_members(network, rows(n), members)


def one_layer(units: int, dropout: float, members: int | None = None) -> TabularNetwork:
    return TabularNetwork(
        inputs=5, numeric=0, outputs=units, hidden=(units,), activation="relu", dropout=dropout, codes=CODES,
        members=members,
    )  # fmt: skip


@pytest.fixture(params=["numpy", "numba"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to draw."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(seeded_dropout, "_REPAYS_COMPILING", -1 if request.param == "numba" else 1 << 62)
    return str(request.param)


@pytest.mark.parametrize("dropout", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_share_scale_and_independence(way: str, dropout: float) -> None:
    members, n, units = 60, 150, 24
    raw = masks(one_layer(units, dropout), members, n)
    share = round(256 * dropout) / 256
    assert raw.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
    kept = (raw > 0).double()
    deviation = math.sqrt(share * (1 - share))
    assert float(kept.mean()) == pytest.approx(1 - share, abs=4.5 * deviation / math.sqrt(kept.numel()))
    standard = (kept - (1 - share)) / deviation
    # Along no axis do neighbors, or elements a few apart, know of each other: sums of products of a known deviation.
    for axis in range(3):
        for distance in (1, 2, 4, 8):
            length = standard.shape[axis] - distance
            product = standard.narrow(axis, 0, length) * standard.narrow(axis, distance, length)
            assert abs(float(product.sum())) < 4.5 * math.sqrt(product.numel()), (axis, distance)
    # Nor is any slice more or less dropped than another: a chi-squared of as many degrees.
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        chi = (standard.sum(others) / math.sqrt(kept.numel() / kept.shape[axis])).square().sum()
        degrees = kept.shape[axis]
        assert abs(float(chi) - degrees) < 5 * math.sqrt(2 * degrees)


def test_both_ways_to_draw_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    for hidden, activation, members in (((37, 11, 300), "relu", None), ((16, 24), "silu", None), ((9, 5), "relu", 2)):
        for dtype in (torch.float32, torch.float64):
            network = table_network(hidden, activation=activation, members=members).to(dtype)
            found = []
            for limit in (-1, 1 << 62):
                monkeypatch.setattr(seeded_dropout, "_REPAYS_COMPILING", limit)
                found.append(dropout_members(network, rows(131, dtype=dtype), 23))
            assert torch.equal(*found)


def test_random_words_are_splitmix64() -> None:
    # The first outputs of the reference implementation for state 1234567, as Rosetta Code and others print them.
    source = seeded_dropout.SeededDropout(0)
    step = 0x9E3779B97F4A7C15
    words = source._random((1234567 + step) % 2**64, 3)
    assert [int(word) for word in words] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_blocks_are_the_layers_one_after_another(
    way: str, activation: str, members: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With masks that drop nothing the network's own forward must come out, at its scale."""
    network = table_network((16, 8), 0.5, activation=activation, members=members).double()
    features = rows(301, dtype=torch.float64)
    for layer in network.body:
        if isinstance(layer, Dropout):
            # Half is dropped in name alone: no byte is below 0, and the scale of the kept is that of dropping nothing.
            monkeypatch.setattr(type(layer), "scale", 1.0)
    real = seeded_dropout.SeededDropout.into
    monkeypatch.setattr(
        seeded_dropout.SeededDropout, "into", lambda self, out, dropped, bias=None: real(self, out, 0, bias)
    )
    raw = dropout_members(network, features, 5, batch_size=200)
    expected = network.eval()(features).detach()
    expected = expected.expand(5, *expected.shape)
    torch.testing.assert_close(raw, expected.flatten(0, 1) if members else expected)


@pytest.mark.parametrize("members", [None, 2])
def test_the_moments_are_those_of_the_network_in_training(way: str, members: int | None) -> None:
    """The quick path against the module's own forward with dropout on: same mean and variance of each raw output."""
    network, features = table_network((12, 6), 0.4, members=members), rows(4)
    count = 20_000
    quick = dropout_members(network, features, count).view(count, -1)
    network.train()
    torch.manual_seed(2)
    with torch.no_grad():
        plain = network(features.repeat(count, 1))
    plain = plain.view(-1, count, 4, 2).transpose(0, 1).reshape(count, -1)
    error = ((quick.var(0) + plain.var(0)) / count).sqrt()
    assert ((quick.mean(0) - plain.mean(0)).abs() < 4.5 * error).all()
    torch.testing.assert_close(quick.var(0), plain.var(0), rtol=0.1, atol=0)
    # What one draw does to one output goes with what it does to the other: the covariance within a row.
    assert torch.allclose(torch.cov(quick.T), torch.cov(plain.T), atol=0.1 * float(plain.var(0).max()))


def test_a_hook_or_another_layer_takes_the_plain_way() -> None:
    network, features = table_network(), rows(9)
    called = []
    handle = network.body[0].register_forward_hook(lambda *_: called.append(1))
    dropout_members(network, features, 3)
    assert len(called) == 3
    handle.remove()
    network.body[2] = nn.Dropout(0.5)
    assert len(dropout_members(network, features, 3).unique(dim=0)) == 3
    network.body[2] = nn.Identity()
    network.body[5] = nn.Identity()
    with pytest.raises(InputError, match="no dropout"):
        dropout_members(network, features, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_the_networks(dtype: torch.dtype) -> None:
    raw = dropout_members(table_network().to(dtype), rows(9, dtype=dtype), 4)
    assert raw.dtype == dtype
    assert raw.isfinite().all()


def test_a_layer_whose_dropout_is_off_is_passed_over() -> None:
    network = table_network((8, 8, 8), 0.5)
    for place in (2, 8):
        network.body[place] = Dropout(0.0)
    raw = dropout_members(network, rows(40), 30)
    assert len(raw.unique(dim=0)) == 30
    assert raw.mean(0) == pytest.approx(network.eval()(rows(40)).detach(), abs=0.6)


def test_the_predictive_of_gal_and_ghahramani() -> None:
    """Mean, variance and log-likelihood by their formulas in NumPy, from the members alone."""
    precision, target = 2.5, np.array([0.3, -1.2, 4.0])
    network = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, 1)).double()
    raw = dropout_members(network, rows(3, dtype=torch.float64), 40)
    draws = raw.squeeze(-1).numpy()
    mean = draws.mean(0)
    variance = 1 / precision + (draws**2).mean(0) - mean**2
    log_likelihood = (
        np.log(np.exp(-0.5 * precision * (target - draws) ** 2).sum(0))
        - np.log(40) - 0.5 * np.log(2 * np.pi) + 0.5 * np.log(precision)
    )  # fmt: skip
    head = Gaussian(scale=precision**-0.5)
    mixed = head.distribution(raw).mixed()
    np.testing.assert_allclose(mixed.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(mixed.variance, variance, rtol=1e-10)
    np.testing.assert_allclose(mixed.log_prob(torch.from_numpy(target)), log_likelihood, rtol=1e-10)
    parts = decompose(head.distribution(raw))
    np.testing.assert_allclose(parts.aleatoric, 1 / precision, rtol=1e-12)
    np.testing.assert_allclose(parts.epistemic, draws.var(0), rtol=1e-10)


def test_by_hand() -> None:
    """Two draws, 1 and 3, of precision 4, and a target of 2: both are one away, so the mixture is either's density."""
    mixed = Gaussian(scale=0.5).distribution(torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64)).mixed()
    assert float(mixed.mean) == 2.0
    assert float(mixed.variance) == pytest.approx(0.25 + 1.0)
    assert float(mixed.log_prob(2.0)) == pytest.approx(-2.0 - 0.5 * math.log(2 * math.pi) + math.log(2.0))


def test_an_unsure_network_says_so_where_it_saw_nothing() -> None:
    head = Categorical(classes=2)
    raw = dropout_members(table_network((32, 32), 0.5), torch.cat([rows(50), 10 * rows(50)]), 100)
    epistemic = decompose(head.distribution(raw)).epistemic
    assert epistemic[50:].mean() > 2 * epistemic[:50].mean()


def test_layers_before_the_first_dropout_run_once() -> None:
    network = table_network((8, 8))
    counted = []
    own = network.body[0].forward
    network.body[0].forward = lambda x: counted.append(len(x)) or own(x)
    assert isinstance(network.body[0], Linear)
    dropout_members(network, rows(50), 20)
    assert counted == [50]
