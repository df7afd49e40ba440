"""Every activation of the catalog against every property, drawn from its facts: a new one is tested by being there."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import activation_properties as properties
from activation_properties import DTYPES, EVERY_PROPERTY, away_from_kinks, example, finite_at_extremes, random
from lastlayer import activations
from lastlayer.activations import Activation, Maxout, PReLU, RReLU
from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.facts import Interval
from lastlayer.training import Recipe

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

NAMES = list(activations.catalog())
every_activation = pytest.mark.parametrize("name", NAMES)
ELEMENTWISE = [name for name, activation in activations.catalog().items() if activation.facts.elementwise]


def catalogued(name: str) -> Activation:
    return activations.catalog()[name].double()


# --- every activation -------------------------------------------------------------------------------------------------


def test_the_catalog_holds_what_the_lectures_list():
    assert set(NAMES) >= {
        "identity", "binary_step", "sigmoid", "softmax", "log_softmax", "tanh", "arctan", "relu", "leaky_relu", "rrelu",
        "prelu", "elu", "softplus", "maxout",
    }  # fmt: skip
    assert list(activations.modules()) == NAMES


@every_activation
@pytest.mark.parametrize("holds", EVERY_PROPERTY, ids=lambda check: check.__name__)
def test_property(name, holds):
    holds(catalogued(name))


@every_activation
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finite_at_extremes(name, dtype):
    finite_at_extremes(catalogued(name), dtype)


@every_activation
def test_facts_are_filled_in_and_the_example_is_varied(name):
    facts = activations.catalog()[name].facts
    assert facts.name == name
    for field, value in vars(facts).items():
        if field in ("parameters", "profile", "saturates_below", "saturates_above") or isinstance(value, bool):
            continue
        assert value, field
    assert (facts.profile is None) == facts.elementwise
    x = facts.example(200, generator=random())
    assert x.dtype == torch.float32
    assert len(x.unique()) > 100
    assert (x > 0).any()
    assert (x < 0).any()
    assert torch.equal(facts.example(200, generator=random()), x)
    assert facts.example(0).shape[0] == 0


@every_activation
def test_module_is_the_function_of_the_same_name(name):
    activation, function = catalogued(name), getattr(activations, name)
    x = example(activation)
    assert_close(function(x, *activation.parameters()), activation(x), rtol=0, atol=0)
    assert_close(activation.value(x), activation(x), rtol=0, atol=0)
    assert getattr(activations, type(activation).__name__) is type(activation)
    assert bool(list(activation.parameters())) == (activation.facts.parameters is not None)


@every_activation
def test_a_module_is_copied_and_saved(name):
    activation = catalogued(name)
    again = copy.deepcopy(activation)
    again.load_state_dict(activation.state_dict())
    x = example(activation)
    assert_close(again(x), activation(x), rtol=0, atol=0)


@every_activation
def test_torch_func_agrees_with_the_closed_form(name):
    activation = catalogued(name)
    x = away_from_kinks(activation, 6)
    value, derivative = activation.value(x), activation.derivative(x)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=random(4))
    assert_close(torch.func.vmap(activation.value)(x), value)
    assert_close(torch.func.vmap(activation.derivative)(x), derivative)
    assert_close(torch.func.vmap(torch.func.jacrev(activation.value))(x), derivative)
    along, slope = torch.func.jvp(activation.value, (x,), (direction,))
    assert_close(along, value)
    if activation.facts.elementwise:
        assert_close(slope, derivative * direction)
    else:
        assert_close(slope, (derivative @ direction.unsqueeze(-1)).squeeze(-1))


@every_activation
def test_the_derivative_may_be_differentiated_again(name):
    activation = catalogued(name)
    x = away_from_kinks(activation, 4)
    twice = torch.func.jacrev(torch.func.jacrev(lambda row: activation.value(row).sum()))
    once = torch.func.jacrev(
        lambda row: activation.derivative(row) if activation.facts.elementwise else activation.derivative(row).sum(-2)
    )
    for row in x.unsqueeze(-1) if activation.facts.elementwise else x:
        assert_close(once(row), twice(row), rtol=1e-9, atol=1e-12)


@every_activation
def test_reads_no_value_on_the_host(name):
    """On the meta device there is no value to read: whatever synchronizes with the device fails."""
    activation = catalogued(name)
    x = example(activation).to("meta")
    activation = activation.to("meta").train()
    assert activation(x).device.type == "meta"
    assert activation.derivative(x).device.type == "meta"


@every_activation
def test_any_batch_shape(name):
    activation = catalogued(name)
    x = example(activation)
    batched = x.reshape(4, 3, 2, *x.shape[1:])
    assert_close(activation.value(batched).flatten(0, 2), activation.value(x))
    assert_close(activation.derivative(batched).flatten(0, 2), activation.derivative(x))
    empty = activation.value(x[:0])
    assert empty.shape == (0, *activation.value(x).shape[1:])


@every_activation
def test_integers_are_a_kind_error(name):
    activation = activations.catalog()[name]
    x = example(activation).long()
    for ask in (activation, activation.value, activation.derivative):
        with pytest.raises(KindError, match=r"x must be floating point, and is torch\.int64.*x\.float\(\)"):
            ask(x)


@every_activation
def test_runs_behind_a_linear_layer_under_autocast(name):
    activation = activations.catalog()[name].train()
    linear = nn.Linear(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = activation(linear(torch.randn(5, 4, generator=random())))
    result.float().sum().backward()
    assert result.isfinite().all()
    assert linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rounding_is_that_of_the_dtype(name, dtype):
    """A few units in the last place from the float64 derivative of the same number."""
    activation = catalogued(name)
    x = torch.cat([example(activation, 2000, dtype=dtype), 30 * example(activation, 2000, dtype=dtype)])
    exact = activation.derivative(x.double())
    # A number that is 0 in the formula's own scale, such as σ(x)(1 + xσ(−x)) at its root, is a difference of ones.
    allowed = 8 * torch.finfo(dtype).eps * exact.abs() + 8 * torch.finfo(torch.float32).eps
    if dtype == torch.float16:
        allowed = allowed + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert ((activation.derivative(x).double() - exact).abs() <= allowed).all()


# --- golden values ----------------------------------------------------------------------------------------------------

POINTS = torch.tensor([-30.0, -9.0, -2.5, -1.0, -0.1, 0.1, 1.0, 2.5, 9.0, 30.0], dtype=torch.float64)
SCORES = torch.tensor([[3.2, -5.7, 0.6], [1000.0, 0.0, -1000.0]], dtype=torch.float64)
GOLDEN = {
    "identity": (POINTS, lambda x: x),
    "binary_step": (POINTS, lambda x: np.heaviside(x, 1.0)),
    "sigmoid": (POINTS, scipy.special.expit),
    "softmax": (SCORES, lambda x: scipy.special.softmax(x, axis=-1)),
    "log_softmax": (SCORES, lambda x: scipy.special.log_softmax(x, axis=-1)),
    "tanh": (POINTS, np.tanh),
    "arctan": (POINTS, np.arctan),
    "relu": (POINTS, lambda x: np.maximum(x, 0.0)),
    "leaky_relu": (POINTS, lambda x: np.maximum(x, 0.01 * x)),
    "rrelu": (POINTS, lambda x: np.maximum(x, (1 / 8 + 1 / 3) / 2 * x)),
    "prelu": (POINTS, lambda x: np.maximum(x, 0.25 * x)),
    "elu": (POINTS, lambda x: np.where(x > 0, x, np.expm1(x))),
    "softplus": (POINTS, lambda x: np.logaddexp(0.0, x)),
    "silu": (POINTS, lambda x: x * scipy.special.expit(x)),
    # PyTorch, too, takes the sum of 1 and an erf near −1: digits of the tail are lost, of 1 none.
    "gelu": (POINTS, lambda x: 0.5 * x * (1.0 + scipy.special.erf(x / math.sqrt(2.0)))),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_of_scipy_and_numpy(name):
    points, oracle = GOLDEN[name]
    assert_close(catalogued(name)(points), torch.from_numpy(oracle(points.numpy())), rtol=1e-14, atol=1e-15)


def test_every_activation_has_a_golden_row():
    # Maxout has learned pieces; its rows are below.
    assert {*GOLDEN, "maxout"} == set(NAMES)


def test_the_figures_of_the_lectures():
    raw = torch.tensor([3.2, -5.7, 0.6])
    assert_close(activations.sigmoid(raw), torch.tensor([0.96, 0.0033, 0.65]), rtol=0.02, atol=0)
    assert_close(activations.sigmoid(raw).sum(), torch.tensor(1.61), rtol=0, atol=0.005)
    assert_close(activations.softmax(raw), torch.tensor([0.93, 0.00013, 0.069]), rtol=0.05, atol=0)
    # Log-sum-exp 4.06 with scores 1 and 4 among them; the third makes up the rest.
    rest = math.log(math.exp(4.06) - math.exp(1.0) - math.exp(4.0))
    scores = activations.log_softmax(torch.tensor([1.0, 4.0, rest]))
    assert_close(scores[:2], torch.tensor([-3.06, -0.06]))


def test_two_softmax_scores_are_a_sigmoid():
    x = properties.grid(50.0, 101)
    two = torch.stack([x, torch.zeros_like(x)], dim=-1)
    assert_close(activations.softmax(two)[:, 0], activations.sigmoid(x))
    assert_close(activations.softmax(two.T, dim=0)[0], activations.sigmoid(x))
    assert_close(activations.log_softmax(two.T, dim=0)[0], -activations.softplus(-x))


def test_the_lambert_function_gives_the_least_value_of_silu():
    assert activations.SiLU.facts.range.low == pytest.approx(-scipy.special.lambertw(1 / math.e).real, rel=1e-14)


def test_softplus_is_exact_in_float64_beyond_the_threshold_of_pytorch():
    x = torch.linspace(15.0, 60.0, 46, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activations.softplus(x).sum(), x)
    assert_close(activations.softplus(x).detach().numpy(), np.logaddexp(0.0, x.detach().numpy()), rtol=1e-15, atol=0)
    assert_close(slope.numpy(), scipy.special.expit(x.detach().numpy()), rtol=1e-15, atol=0)


def test_gelu_by_tanh_is_that_of_pytorch_and_finite_far_out():
    module = activations.GELU(approximate="tanh")
    x = properties.grid(8.0, 401)
    assert_close(module(x), F.gelu(x, approximate="tanh"))
    assert_close(module(x), activations.gelu(x), rtol=0, atol=5e-4)
    assert not torch.equal(module(x), activations.gelu(x))
    properties.derivative_is_that_of_value(module)
    properties.derivative_is_symmetric_difference(module)
    properties.second_order_is_right(module)
    for dtype in DTYPES:
        finite_at_extremes(module, dtype)
    with pytest.raises(InputError, match=r"approximate is 'erf'; expected one of 'none', 'tanh'"):
        activations.gelu(x, approximate="erf")
    with pytest.raises(ValueError, match="'erf'"):
        activations.GELU(approximate="erf")


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_elu_of_another_alpha(alpha):
    module = activations.ELU(alpha)
    x = POINTS.clone()
    x[0] = 0.0
    expected = np.where(x.numpy() > 0, x.numpy(), alpha * np.expm1(x.numpy()))
    assert_close(module(x).numpy(), expected, rtol=1e-14, atol=0)
    assert_close(module.derivative(x), properties.jacobian(module, x))
    assert f"alpha={alpha}" in repr(module)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="expected a positive number"):
            activations.elu(x, wrong)
        with pytest.raises(InputError, match="expected a positive number"):
            activations.ELU(wrong)


def test_leaky_relu_of_another_slope():
    module = activations.LeakyReLU(0.1)
    assert_close(module(POINTS).numpy(), np.maximum(POINTS.numpy(), 0.1 * POINTS.numpy()), rtol=1e-15, atol=0)
    assert_close(module.derivative(POINTS), torch.where(POINTS > 0, 1.0, 0.1).double())
    with pytest.raises(InputError, match="slope is nan; expected a finite number"):
        activations.LeakyReLU(math.nan)


# --- the randomized leaky ReLU ----------------------------------------------------------------------------------------


def test_rrelu_draws_a_slope_per_unit_while_training():
    x = torch.full((100_000,), -1.0)
    slopes = -RReLU()(x)
    assert slopes.min() >= 1 / 8
    assert slopes.max() <= 1 / 3
    # Four standard errors of a mean of uniform numbers, and of their variance.
    width = 1 / 3 - 1 / 8
    assert slopes.mean() == pytest.approx((1 / 8 + 1 / 3) / 2, abs=4 * width / math.sqrt(12 * 1e5))
    assert slopes.var() == pytest.approx(width**2 / 12, rel=0.02)
    assert len(slopes.unique()) > 90_000
    assert torch.equal(RReLU()(-x), -x)


def test_rrelu_takes_the_mean_slope_in_evaluation():
    x = torch.tensor([-24.0, 0.0, 5.0])
    assert_close(RReLU().eval()(x), torch.tensor([-5.5, 0.0, 5.0]))
    assert_close(RReLU(0.1, 0.1).train()(x), torch.tensor([-2.4, 0.0, 5.0]))
    assert_close(RReLU().train().value(x), torch.tensor([-5.5, 0.0, 5.0]))


def test_rrelu_honors_the_generator():
    x = torch.randn(50, generator=random())
    first = activations.rrelu(x, training=True, generator=random(3))
    state = torch.get_rng_state()
    assert torch.equal(activations.rrelu(x, training=True, generator=random(3)), first)
    assert torch.equal(RReLU().train()(x, generator=random(3)), first)
    assert not torch.equal(activations.rrelu(x, training=True, generator=random(4)), first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    drawn = RReLU().train()(x)
    torch.manual_seed(7)
    assert torch.equal(RReLU().train()(x), drawn)


def test_rrelu_passes_the_gradient_by_the_slope_it_drew():
    x = torch.randn(50, dtype=torch.float64, generator=random()).requires_grad_()
    result = activations.rrelu(x, training=True, generator=random(1))
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert_close(gradient, (result / x).detach())
    assert torch.autograd.gradcheck(lambda units: activations.rrelu(units, training=True, generator=random(1)), x)


def test_rrelu_refuses_slopes_in_the_wrong_order():
    with pytest.raises(InputError, match=r"lower is 0\.5, upper 0\.1; expected lower ≤ upper. Fix: swap them"):
        RReLU(0.5, 0.1)
    with pytest.raises(InputError, match="upper is inf"):
        activations.rrelu(torch.zeros(1), 0.1, math.inf)


# --- the parametric ReLU ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_the_gradient_of_the_slope_is_summed_over_its_channel_or_over_all(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=random())
    upstream = torch.randn(shape, dtype=torch.float64, generator=random(1))
    negative = upstream * x.clamp(max=0.0)
    for channels, expected in ((3, negative.transpose(0, 1).reshape(3, -1).sum(1)), (1, negative.sum().reshape(1))):
        module = PReLU(channels, dtype=torch.float64)
        module(x).backward(upstream)
        assert_close(module.slope.grad, expected)


def test_prelu_has_a_slope_per_channel():
    module = PReLU(3, dtype=torch.float64)
    assert module.slope.tolist() == [0.25] * 3
    with torch.no_grad():
        module.slope.copy_(torch.tensor([0.1, 0.2, -0.5]))
    x = torch.randn(6, 3, 4, dtype=torch.float64, generator=random())
    expected = torch.where(x > 0, x, x * torch.tensor([0.1, 0.2, -0.5], dtype=torch.float64).reshape(3, 1))
    assert_close(module(x), expected)
    assert_close(module.derivative(x), properties.jacobian(module, x))
    assert torch.autograd.gradcheck(activations.prelu, (x.requires_grad_(), module.slope))
    assert torch.autograd.gradgradcheck(activations.prelu, (x, module.slope))
    module.reset_parameters()
    assert module.slope.tolist() == [0.25] * 3


@pytest.mark.parametrize("shape", [(3, 3), (6, 3, 2)])
def test_prelu_has_the_right_jacobian_under_vmap(shape):
    """Where PyTorch's own kernel has a wrong one, with no word of it."""
    module = PReLU(dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, generator=random())
    each = torch.func.vmap(torch.func.jacrev(module.value))(x).reshape(len(x), x[0].numel(), -1)
    assert_close(each, torch.diag_embed(module.derivative(x).flatten(1)))


@pytest.mark.parametrize(("slopes", "shape"), [((3,), (4, 2)), ((3,), (3,)), ((1, 1), (4, 3)), ((), (4, 3))])
def test_prelu_refuses_slopes_that_do_not_fit(slopes, shape):
    with pytest.raises(ShapeError, match="one slope, \\(1,\\), or one per channel") as caught:
        activations.prelu(torch.zeros(shape), torch.zeros(slopes))
    assert str(slopes) in str(caught.value)
    assert str(shape) in str(caught.value)


def test_prelu_refuses_no_channel():
    with pytest.raises(InputError, match="channels is 0"):
        PReLU(0)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "momentum"])
def test_slopes_and_biases_never_decay(optimizer):
    """Only the matrices change under a gradient of zero; a slope of PReLU stays at 0.25."""
    network = nn.Sequential(Maxout(4, 5, pieces=3), nn.Linear(5, 3), PReLU(3), nn.Linear(3, 2), PReLU())
    with torch.no_grad():
        network[0].bias.fill_(0.5)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    built = Recipe(optimizer=optimizer, weight_decay=0.1).plan(100, classes=True).build_optimizer(network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "1.weight", "3.weight"}
    decayed = [parameter for group in built.param_groups if group["weight_decay"] for parameter in group["params"]]
    assert {parameter.dim() for parameter in decayed} == {2}


# --- maxout -----------------------------------------------------------------------------------------------------------


def test_maxout_makes_relu_and_the_absolute_value():
    x = torch.linspace(-3.0, 3.0, 13, dtype=torch.float64).unsqueeze(-1)
    one, nothing = torch.ones(1, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    assert_close(activations.maxout(x, torch.cat([one, 0 * one]), nothing), activations.relu(x))
    assert_close(activations.maxout(x, torch.cat([one, -one]), nothing), x.abs())


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_maxout_is_the_largest_of_its_affine_pieces(pieces):
    module = Maxout(4, 6, pieces, generator=random(), dtype=torch.float64)
    with torch.no_grad():
        module.bias.normal_(generator=random(1))
    x = torch.randn(10, 4, dtype=torch.float64, generator=random(2))
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    each = [x.numpy() @ weight[6 * k : 6 * k + 6].T + bias[6 * k : 6 * k + 6] for k in range(pieces)]
    assert_close(module(x).detach().numpy(), np.maximum.reduce(each))
    assert_close(module.derivative(x), properties.jacobian(module, x))
    inputs = (x, module.weight, module.bias)
    assert torch.autograd.gradcheck(lambda *given: activations.maxout(*given, pieces=pieces), inputs)
    assert f"inputs=4, units=6, pieces={pieces}" in repr(module)


def test_maxout_shares_the_gradient_of_a_tie():
    weight = torch.tensor([[1.0], [-1.0], [0.0]], dtype=torch.float64)
    module = Maxout(1, 1, 3, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(weight)
    x = torch.zeros(1, 1, dtype=torch.float64)
    assert_close(module.derivative(x), torch.zeros(1, 1, 1, dtype=torch.float64))
    module(x).sum().backward()
    assert_close(module.bias.grad, torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("pieces", [2, 3, 4, 7])
def test_maxout_starts_so_that_the_signal_keeps_its_size(pieces):
    signal = torch.randn(200, 300, generator=random(1))
    start = signal.square().mean()
    with torch.no_grad():
        for depth in range(20):
            layer = Maxout(300, 300, pieces, generator=random(depth))
            assert (layer.bias == 0).all()
            signal = layer(signal)
    assert 0.3 < signal.square().mean() / start < 3.0


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [(2, 1.0), (3, 1 + math.sqrt(3) / (2 * math.pi)), (4, 1 + math.sqrt(3) / math.pi)],
)
def test_maxout_starts_with_the_variance_of_the_order_statistic(pieces, expected):
    """The second moments of the largest of normal numbers, as H. L. Jones gives them (1948)."""
    layer = Maxout(400, 400, pieces, generator=random())
    assert float(layer.weight.detach().var() * 400) == pytest.approx(1 / expected, rel=0.02)


def test_maxout_draws_by_its_generator_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    one, other = (Maxout(3, 4, generator=random(5)) for _ in range(2))
    activations.catalog()
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_maxout_refuses_what_does_not_fit():
    layer = Maxout(3, 2)
    with pytest.raises(ShapeError, match=r"x has shape \(5, 4\); expected \(\.\.\., 3\)"):
        layer(torch.zeros(5, 4))
    with pytest.raises(ShapeError, match=r"weight has shape \(3, 2\), bias \(3,\); expected \(2 · units, inputs\)"):
        activations.maxout(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ShapeError, match=r"bias \(1,\)"):
        activations.maxout(torch.zeros(1, 2), torch.zeros(4, 2), torch.zeros(1))
    with pytest.raises(InputError, match="pieces is 1; expected 2 or more"):
        Maxout(3, 2, pieces=1)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_number_has_no_scores(name):
    with pytest.raises(ShapeError, match=r"x has shape \(\); expected \(\.\.\., K\)"):
        getattr(activations, name)(torch.tensor(1.0))
    with pytest.raises(ShapeError, match=rf"{name}: x has shape \(\)"):
        catalogued(name).derivative(torch.tensor(1.0))


# --- activations that are wrong on purpose ----------------------------------------------------------------------------


class WrongDerivative(activations.Sigmoid):
    """``σ(x)`` for the derivative of ``σ(x)``."""

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class WrongJacobian(activations.Softmax):
    """Only the diagonal: as if every probability depended on its own score alone."""

    def _derivative(self, x: Tensor) -> Tensor:
        return torch.diag_embed(super()._derivative(x).diagonal(dim1=-2, dim2=-1))


class OtherSideOfTheKink(activations.ReLU):
    """Right but at 0, where PyTorch's backward takes 0."""

    def _derivative(self, x: Tensor) -> Tensor:
        return (x >= 0).to(x.dtype)


class HalfDetached(activations.SiLU):
    """The gate detached."""

    def value(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x).detach()


class SecondOrderLost(activations.Tanh):
    """The right value and first derivative, and no curvature."""

    def value(self, x: Tensor) -> Tensor:
        fixed = x.detach()
        return torch.tanh(fixed) + (x - fixed) * self._derivative(fixed)


class Overflowing(activations.Softplus):
    """The formula as it is printed."""

    def value(self, x: Tensor) -> Tensor:
        return torch.log(1.0 + torch.exp(x))


class NothingTimesInfinity(activations.ELU):
    """The right value, and a gradient of 0 · ∞ on the side that is not taken."""

    def value(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.exp(x) - 1.0)


class InPlace(activations.ReLU):
    """Spares a tensor, and the caller's numbers."""

    def value(self, x: Tensor) -> Tensor:
        return x.clamp_(min=0.0)


def saying(name: str, **facts: object) -> Activation:
    """An activation with a fact that does not hold."""
    original = activations.modules()[name]
    liar = type("Liar", (original,), {"facts": dataclasses.replace(original.facts, **facts)})
    return (liar(3, 4, generator=random()) if name == "maxout" else liar()).double()


CAUGHT = [
    (WrongDerivative, "derivative_is_that_of_value"),
    (WrongDerivative, "derivative_is_symmetric_difference"),
    (WrongJacobian, "derivative_is_that_of_value"),
    (WrongJacobian, "derivative_is_symmetric_difference"),
    (OtherSideOfTheKink, "derivative_is_that_of_value"),
    (HalfDetached, "first_order_is_right"),
    (SecondOrderLost, "second_order_is_right"),
    (InPlace, "input_is_left_alone"),
    (lambda: saying("silu", monotonic=True), "monotonic_as_said"),
    (lambda: saying("sigmoid", monotonic=False), "monotonic_as_said"),
    (lambda: saying("maxout", monotonic=True), "monotonic_as_said"),
    (lambda: saying("sigmoid", derivative_monotonic=True), "derivative_monotonic_as_said"),
    (lambda: saying("log_softmax", derivative_monotonic=False), "derivative_monotonic_as_said"),
    (lambda: saying("tanh", range=Interval(0.0, 1.0)), "range_as_said"),
    (lambda: saying("tanh", range=Interval(-1.1, 1.0)), "range_as_said"),
    (lambda: saying("arctan", range=Interval()), "range_as_said"),
    (lambda: saying("relu", range=Interval(low=0.0)), "range_as_said"),
    (lambda: saying("gelu", range=Interval(low=-0.17, low_closed=True)), "range_as_said"),
    (lambda: saying("tanh", saturates_above=None), "saturates_as_said"),
    (lambda: saying("tanh", saturates_above=5.2), "saturates_as_said"),
    (lambda: saying("tanh", saturates_below=-5.4), "saturates_as_said"),
    (lambda: saying("relu", saturates_below=-1.0), "saturates_as_said"),
    (lambda: saying("leaky_relu", saturates_below=0.0), "saturates_as_said"),
    (lambda: saying("elu", zero_centered=True), "zero_centered_as_said"),
    (lambda: saying("arctan", zero_centered=False), "zero_centered_as_said"),
    (lambda: saying("leaky_relu", smooth=True), "smooth_as_said"),
    (lambda: saying("binary_step", smooth=True), "smooth_as_said"),
    (lambda: saying("elu", smooth=False), "smooth_as_said"),
    (lambda: saying("softmax", elementwise=True), "elementwise_as_said"),
    (lambda: saying("sigmoid", elementwise=False), "elementwise_as_said"),
]


@pytest.mark.parametrize(("wrong", "check"), CAUGHT)
def test_a_wrong_activation_is_caught(wrong, check):
    with pytest.raises(AssertionError):
        getattr(properties, check)(wrong())


@pytest.mark.parametrize("wrong", [Overflowing, NothingTimesInfinity])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_activation_that_overflows_is_caught(wrong, dtype):
    with pytest.raises(AssertionError):
        finite_at_extremes(wrong(), dtype)


def test_every_property_catches_something():
    # The list of properties and the list of mistakes grow together.
    assert {check.__name__ for check in EVERY_PROPERTY} == {check for _, check in CAUGHT}


def test_options_of_functions_come_after_what_they_act_on():
    for name in NAMES:
        parameters = list(inspect.signature(getattr(activations, name)).parameters.values())
        assert parameters[0].name == "x"
        assert parameters[0].default is inspect.Parameter.empty
