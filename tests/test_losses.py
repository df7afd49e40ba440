"""Every loss of the catalog against every property, drawn from its facts: a new loss is tested by being there."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.checks import InputError, KindError, LastLayerError, ShapeError
from lastlayer.evaluation import Scaled, Summed, mean_and_gradient
from lastlayer.facts import LossFacts
from loss_properties import (
    DTYPES,
    EVERY_PROPERTY,
    chord_lies_above,
    example,
    finite_at_extremes,
    gradient_never_jumps,
    random,
    targets_of_every_kind,
    weights,
)

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

CATALOG = losses.catalog()
CONVEX = [name for name, loss in CATALOG.items() if loss.facts.convex]
every_loss = pytest.mark.parametrize("name", CATALOG)


@every_loss
@pytest.mark.parametrize("holds", EVERY_PROPERTY, ids=lambda check: check.__name__)
def test_property(name, holds):
    holds(CATALOG[name])


@every_loss
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finite_at_extremes(name, dtype):
    finite_at_extremes(CATALOG[name], dtype)


@st.composite
def two_raws_and_a_target(draw, facts: LossFacts):
    """Raw outputs within ±1000 and a target, both from the domains that the facts declare."""

    def inside(interval):
        low, high = max(interval.low, -1000.0), min(interval.high, 1000.0)
        return st.floats(low, high).filter(lambda x: bool(interval.contains(torch.tensor(x, dtype=torch.float64))))

    _, target = facts.example(1, dtype=torch.float64, generator=random(draw(st.integers(0, 2**20))))
    shape = facts.example(1, dtype=torch.float64, generator=random())[0].shape
    if facts.target is not None:
        target = torch.tensor([draw(inside(facts.target))], dtype=torch.float64)
    one, other = (
        torch.tensor(
            draw(st.lists(inside(facts.raw), min_size=shape.numel(), max_size=shape.numel())), dtype=torch.float64
        ).reshape(shape)
        for _ in range(2)
    )
    if facts.target is None and draw(st.booleans()):
        target = torch.softmax(torch.randn(shape, dtype=torch.float64, generator=random(draw(st.integers(0, 99)))), -1)
    return one, other, target


@pytest.mark.parametrize("name", CONVEX)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data(), share=st.floats(0, 1))
def test_convex_where_the_facts_say_so(name, data, share):
    loss = CATALOG[name]
    one, other, target = data.draw(two_raws_and_a_target(loss.facts))
    chord_lies_above(loss, one, other, target, share)


@every_loss
def test_not_convex_where_the_facts_say_not(name):
    loss = CATALOG[name]
    if not loss.facts.convex:
        raw, target = example(loss, 500)
        one, other = raw[:250], raw[250:]
        kinds = targets_of_every_kind(loss, target[:250], raw.shape[-1])
        with pytest.raises(AssertionError):
            _ = [chord_lies_above(loss, one, other, kind, 0.5) for kind in kinds]


@every_loss
def test_smooth_exactly_where_the_facts_say_so(name):
    loss = CATALOG[name]
    raw, target = example(loss, 500)
    jumps = []
    for kind in targets_of_every_kind(loss, target[:250], raw.shape[-1]):
        try:
            gradient_never_jumps(loss, raw[:250], raw[250:], kind)
        except AssertionError:
            jumps.append(kind)
    assert loss.facts.smooth == (not jumps)


@every_loss
def test_facts_are_filled_in_and_the_example_is_in_its_domain(name):
    loss = CATALOG[name]
    assert loss.facts.name == name
    for field, value in vars(loss.facts).items():
        assert value or isinstance(value, bool) or field in ("target", "likelihood"), field
    raw, target = example(loss, 200)
    assert loss.facts.raw.contains(raw).all()
    if loss.facts.target is not None:
        assert loss.facts.target.contains(target).all()
    assert len(raw.unique()) > 100
    again = example(loss, 200)
    assert_close(again, (raw, target), rtol=0, atol=0)
    assert loss.facts.example(3)[0].dtype == torch.float32
    assert loss.facts.example(0)[0].shape[0] == 0


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_module_is_the_function_of_the_same_name(name, reduction):
    function = getattr(losses, name)
    words = (word.upper() if word == "nll" else word.capitalize() for word in name.split("_"))
    module = getattr(losses, "".join(words))(reduction=reduction)
    raw, target = example(module)
    for options in ({}, {"sample_weight": weights(len(raw))}, {"normalizer": 3.0}):
        assert_close(
            module(raw, target, **options), function(raw, target, reduction=reduction, **options), rtol=0, atol=0
        )
    assert repr(reduction) in repr(module)


@every_loss
def test_options_come_by_name_and_have_the_public_spelling(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    assert list(parameters)[:2] == ["raw", "target"]
    options = list(parameters.values())[2:]
    assert all(option.kind is inspect.Parameter.KEYWORD_ONLY for option in options)
    assert {"sample_weight", "reduction", "normalizer"} <= {option.name for option in options}


@every_loss
def test_reductions_belong_together(name):
    loss, function = CATALOG[name], getattr(losses, name)
    raw, target = example(loss)
    weight = weights(len(raw))
    each = function(raw, target, sample_weight=weight, reduction="none")
    assert_close(each, weight * loss.value(raw, target))
    assert_close(function(raw, target, sample_weight=weight, reduction="sum"), each.sum())
    assert_close(function(raw, target, sample_weight=weight), each.sum() / weight.sum())
    assert_close(function(raw, target, sample_weight=weight, normalizer=5.0), each.sum() / 5)


@every_loss
def test_weights_may_stand_for_the_leading_axes(name):
    function = getattr(losses, name)
    raw, target = example(CATALOG[name])
    raw, target = raw.reshape(4, 6, *raw.shape[1:]), target.reshape(4, 6, *target.shape[1:])
    row = weights(4)
    assert_close(
        function(raw, target, sample_weight=row),
        function(raw, target, sample_weight=row.unsqueeze(-1).expand(4, 6)),
    )


@every_loss
def test_torch_func_agrees_with_the_closed_form(name):
    loss, function = CATALOG[name], getattr(losses, name)
    raw, target = example(loss, 6)
    direction = torch.randn(raw.shape, dtype=raw.dtype, generator=random(4))
    gradient = loss.gradient(raw, target)

    assert_close(torch.func.grad(function)(raw, target), gradient / 6)
    assert_close(torch.func.vmap(function)(raw, target), loss.value(raw, target))
    assert_close(torch.func.vmap(torch.func.grad(function))(raw, target), gradient)
    _, slope = torch.func.jvp(lambda scores: function(scores, target, reduction="sum"), (raw,), (direction,))
    assert_close(slope, (gradient * direction).sum())
    hessian = torch.func.hessian(lambda scores: function(scores, target))(raw)
    assert_close(hessian, torch.autograd.functional.hessian(lambda scores: function(scores, target), raw))


@every_loss
def test_the_gradient_may_be_differentiated_again(name):
    loss = CATALOG[name]
    raw, target = example(loss, 6)
    jacobian = torch.func.jacrev(lambda scores: loss.gradient(scores, target).sum())(raw)
    twice = torch.func.grad(lambda s: torch.func.grad(lambda r: loss.value(r, target).sum())(s).sum())(raw)
    assert_close(jacobian, twice)


@every_loss
def test_reads_no_value_on_the_host(name):
    """On the meta device there is no value to read: whatever synchronizes with the device fails."""
    loss = CATALOG[name]
    raw, target = (tensor.to("meta") for tensor in example(loss))
    weight = torch.ones(len(raw), device="meta")
    assert loss(raw, target, sample_weight=weight).device.type == "meta"
    assert mean_and_gradient(loss.formula, raw, target, sample_weight=weight)[1].shape == raw.shape


@every_loss
def test_export_leaves_the_batch_size_open(name):
    loss, batch = CATALOG[name], torch.export.Dim("batch")
    raw, target = example(loss, 8)
    program = torch.export.export(loss, (raw, target), dynamic_shapes={"raw": {0: batch}, "target": {0: batch}})
    raw, target = example(loss, 11)
    assert_close(program.module()(raw, target), loss(raw, target))


@every_loss
def test_half_precision_is_computed_in_float32(name):
    loss = CATALOG[name]
    raw, target = example(loss, 1000, dtype=torch.float16)
    wide = target.float() if target.is_floating_point() else target
    assert loss(raw, target).dtype == torch.float32
    assert_close(loss(raw, target), loss(raw.float(), wide), rtol=0, atol=0)
    assert_close(loss.gradient(raw, target), loss.gradient(raw.float(), wide).half(), rtol=0, atol=0)


@every_loss
def test_autocast_leaves_the_loss_in_float32(name):
    loss = CATALOG[name]
    raw, target = example(loss, dtype=torch.float32)
    plain = loss(raw, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(loss(raw, target), plain, rtol=0, atol=0)


@every_loss
def test_the_input_is_left_alone(name):
    loss = CATALOG[name]
    raw, target = example(loss)
    before = raw.clone(), target.clone()
    loss(raw, target, sample_weight=torch.zeros(len(raw)))
    mean_and_gradient(loss.formula, raw, target, sample_weight=torch.zeros(len(raw)))
    loss.gradient(raw, target)
    assert_close((raw, target), before, rtol=0, atol=0)


@every_loss
def test_misspelled_reduction_names_the_choices(name):
    raw, target = example(CATALOG[name])
    with pytest.raises(InputError, match=r"reduction is 'average'; expected one of 'mean', 'sum', 'none'"):
        getattr(losses, name)(raw, target, reduction="average")
    with pytest.raises(ValueError, match="'average'"):
        type(CATALOG[name])(reduction="average")


@every_loss
def test_integer_raw_is_a_kind_error(name):
    loss = CATALOG[name]
    raw, target = example(loss)
    for ask in (loss, loss.value, loss.gradient, getattr(losses, name)):
        with pytest.raises(KindError, match=r"int64.*Fix: pass raw\.float\(\)"):
            ask(raw.long(), target)
    with pytest.raises(TypeError):
        loss(raw.long(), target)


@every_loss
@pytest.mark.parametrize("shape", [(24, 1), (23,), (1,), (24, 5, 1)])
def test_weight_of_another_shape_is_an_error(name, shape):
    raw, target = example(CATALOG[name])
    with pytest.raises(ShapeError, match=r"sample_weight has shape .*the per-sample values \(24,\)") as caught:
        getattr(losses, name)(raw, target, sample_weight=torch.ones(shape))
    assert str(shape) in str(caught.value)
    assert isinstance(caught.value, (LastLayerError, ValueError))


@pytest.mark.parametrize("name", [name for name, loss in CATALOG.items() if loss.formula.event_dims == 0])
def test_a_column_against_a_row_names_the_fix(name):
    function = getattr(losses, name)
    with pytest.raises(ShapeError, match=r"raw has shape \(4, 1\), target \(4,\).*raw\.squeeze\(-1\)"):
        function(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ShapeError, match=r"raw has shape \(4,\), target \(4, 1\).*target\.squeeze\(-1\)"):
        function(torch.zeros(4), torch.zeros(4, 1))


@pytest.mark.parametrize("name", [name for name, loss in CATALOG.items() if loss.formula.event_dims == 0])
def test_summed_and_scaled_formulas(name):
    formula = CATALOG[name].formula
    raw, target = (tensor.reshape(8, 3) for tensor in example(CATALOG[name]))
    summed, scaled = Summed(formula), Scaled(formula, slope=0.5, offset=2.0)
    assert_close(summed.value(raw, target), formula.value(raw, target).sum(-1))
    assert_close(summed.gradient(raw, target), formula.gradient(raw, target))
    assert_close(scaled.value(raw, target), 0.5 * formula.value(raw, target) + 2.0)
    assert_close(scaled.gradient(raw, target), 0.5 * formula.gradient(raw, target))
    assert summed.facts is scaled.facts is formula.facts
    for wrapped in (summed, scaled):
        assert_close(
            wrapped.optimal_constant(target, torch.ones(8, dtype=torch.float64)),
            formula.optimal_constant(target, torch.ones(8, dtype=torch.float64)),
        )


@pytest.mark.parametrize("name", ["binary_cross_entropy", "sigmoid_squared_error"])
def test_optimal_constant_of_one_outcome_is_infinite_and_never_nan(name):
    """The weighted mean of ones may be rounded past 1, where no logit is."""
    formula = CATALOG[name].formula
    for n in range(3, 200):
        weight = torch.rand(n, generator=random(n))
        assert formula.optimal_constant(torch.ones(n), weight) == torch.inf
        assert formula.optimal_constant(torch.zeros(n), weight) == -torch.inf


@pytest.mark.parametrize("spread", [1.0, 10.0, 30.0, 100.0])
def test_confident_logits_lose_no_accuracy_binary(spread):
    raw = (spread * torch.randn(5000, generator=random(1))).requires_grad_()
    target = torch.cat([torch.zeros(2000), torch.ones(2000), torch.rand(1000, generator=random(2))])
    scores, wanted = raw.detach().double(), target.double()
    zero = torch.zeros_like(scores)
    exact = wanted * torch.logaddexp(zero, -scores) + (1 - wanted) * torch.logaddexp(zero, scores)
    plain = F.binary_cross_entropy_with_logits(raw, target, reduction="none")
    _judge_accuracy("binary_cross_entropy", raw, target, plain, exact, torch.sigmoid(scores) - wanted)


@pytest.mark.parametrize("spread", [1.0, 10.0, 30.0, 100.0])
def test_confident_logits_lose_no_accuracy_categorical(spread):
    raw = (spread * torch.randn(2000, 7, generator=random(1))).requires_grad_()
    target = torch.randint(7, (2000,), generator=random(2))
    scores = raw.detach().double()
    exact = F.cross_entropy(scores, target, reduction="none")
    plain = F.cross_entropy(raw, target, reduction="none")
    _judge_accuracy("cross_entropy", raw, target, plain, exact, torch.softmax(scores, -1) - F.one_hot(target, 7))


def _judge_accuracy(name, raw, target, plain, exact, exact_gradient):
    """At most twice the float32 error of PyTorch's own loss, and a few units in the last place."""
    loss, ulp = CATALOG[name], torch.finfo(torch.float32).eps
    value = loss.value(raw, target)
    allowed = 2 * (plain.detach().double() - exact).abs() + 4 * ulp * exact.abs() + 1e-44
    assert ((value.detach().double() - exact).abs() <= allowed).all()

    (plain_gradient,) = torch.autograd.grad(plain.sum(), raw)
    plain_error = (plain_gradient.double() - exact_gradient).abs().max()
    for gradient in (
        torch.autograd.grad(value.sum(), raw)[0],
        loss.gradient(raw.detach(), target),
        mean_and_gradient(loss.formula, raw, target, normalizer=1.0)[1],
    ):
        # Every entry is a difference of numbers up to 1, which is what the last place is counted of.
        assert (gradient.double() - exact_gradient).abs().max() <= 2 * plain_error + 2 * ulp
