"""The parts of the network for tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import SplineTransformer

from lastlayer import activations
from lastlayer.checks import InputError
from lastlayer.networks import ACTIVATIONS, Dropout, PiecewiseLinear, TabularNetwork


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    result = Dropout(p)(torch.ones(1_000_001))
    kept = 1 - min(round(256 * p), 255) / 256
    assert abs(kept - (1 - p)) <= 1 / 256
    # Four standard errors of a share of a million.
    assert float((result > 0).double().mean()) == pytest.approx(kept, abs=4 * (kept * (1 - kept) / 1e6) ** 0.5)
    assert result.max() == pytest.approx(1 / kept)


def test_dropout_draws_every_byte_evenly_and_on_its_own() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000, 8)) > 0).double()
    share = kept.mean(dim=0)
    assert (share - 0.5).abs().max() < 4 * 0.5 / 100_000**0.5
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 4 / 100_000**0.5


def test_dropout_lets_the_gradient_through_where_it_keeps() -> None:
    units = torch.randn(64, 32, dtype=torch.float64, requires_grad=True)
    result = Dropout(0.25)(units)
    result.sum().backward()
    torch.testing.assert_close(units.grad, (result != 0).double() / 0.75)


def test_dropout_does_nothing_in_evaluation_and_repeats_with_the_seed() -> None:
    dropout, units = Dropout(0.5), torch.randn(10, 3)
    assert dropout.eval()(units) is units
    dropout.train()
    torch.manual_seed(5)
    first = dropout(units)
    torch.manual_seed(5)
    assert torch.equal(first, dropout(units))
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="expected a share"):
            Dropout(wrong)


def test_piecewise_linear_codes_say_how_much_of_every_bin_lies_below() -> None:
    column = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]], dtype=np.float32)
    codes = PiecewiseLinear.learn(column, bins=4)
    given = torch.tensor([[-5.0], [0.5], [3.0], [11.0], [99.0]])
    expected = torch.tensor([[0, 0, 0, 0], [0.5, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0.5], [1, 1, 1, 1.0]])
    torch.testing.assert_close(codes(given), expected)


def test_piecewise_linear_codes_span_the_linear_splines_of_scikit_learn() -> None:
    """Any function that bends at the same quantiles is a linear map of the codes."""
    column = np.random.RandomState(0).normal(size=(500, 1)).astype(np.float32)
    codes = PiecewiseLinear.learn(column, bins=6)(torch.tensor(column)).numpy()
    splines = SplineTransformer(n_knots=7, degree=1, knots="quantile").fit_transform(column)
    basis = np.column_stack([np.ones(500), codes])
    residual = splines - basis @ np.linalg.lstsq(basis, splines, rcond=None)[0]
    assert np.abs(residual).max() < 1e-4


def test_a_column_of_few_values_gets_no_codes() -> None:
    table = np.array([[0, 1, 5.0], [1, 1, 6.0], [0, 1, 7.0], [1, 1, 8.0]], dtype=np.float32)
    codes = PiecewiseLinear.learn(table, bins=3)
    assert set(codes.columns.tolist()) == {2}
    assert PiecewiseLinear.learn(table, bins=0)(torch.tensor(table)).shape == (4, 0)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_a_network_is_rebuilt_from_its_shape_and_weights(activation: str, hidden: tuple[int, ...]) -> None:
    table = np.random.RandomState(0).normal(size=(50, 3)).astype(np.float32)
    codes = PiecewiseLinear.learn(table[:, :2], bins=4)
    network = TabularNetwork(
        inputs=3, numeric=2, outputs=5, hidden=hidden, activation=activation, dropout=0.2, codes=codes
    ).eval()
    again = TabularNetwork.from_spec(network.spec).eval()
    again.load_state_dict(network.state_dict())
    features = torch.tensor(table)
    assert torch.equal(network(features), again(features))
    assert network(features).shape == (50, 5)
    with pytest.raises(InputError, match="activation is 'swoosh'; expected one of"):
        TabularNetwork(inputs=3, numeric=2, outputs=1, hidden=(4,), activation="swoosh", dropout=0.0, codes=codes)


def _network(activation: str, **options: object) -> TabularNetwork:
    codes = PiecewiseLinear.learn(np.zeros((1, 0), dtype=np.float32), bins=0)
    shape = {"inputs": 3, "numeric": 0, "outputs": 2, "hidden": (8, 4), "dropout": 0.0} | options
    return TabularNetwork(activation=activation, codes=codes, **shape)


def test_a_network_takes_every_activation_of_the_catalog_by_name() -> None:
    assert list(ACTIVATIONS) == list(activations.catalog())
    assert {"relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "sigmoid"} <= set(ACTIVATIONS)
    for name, module in ACTIVATIONS.items():
        assert sum(type(layer) is module for layer in _network(name).body) == 2


def test_maxout_takes_the_place_of_a_linear_layer_and_its_activation() -> None:
    body = _network("maxout").body
    assert [type(layer) for layer in body] == [activations.Maxout] * 2
    assert [layer.weight.shape for layer in body] == [(16, 3), (8, 8)]


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "binary_step"])
def test_the_gradient_reaches_the_first_layer_through_every_activation(activation: str) -> None:
    torch.manual_seed(0)
    network = _network(activation)
    network(torch.randn(64, 3)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any(), name


def test_no_gradient_passes_a_binary_step() -> None:
    torch.manual_seed(0)
    network = _network("binary_step")
    network(torch.randn(64, 3)).square().sum().backward()
    assert (network.body[0].weight.grad == 0).all()
    assert (network.last.weight.grad != 0).any()
