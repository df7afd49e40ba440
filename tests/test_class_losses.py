"""The lecture's losses of class scores (SPEC B5, B7–B12) against their literal definitions and printed figures."""

from __future__ import annotations

import itertools

import mpmath
import pytest
import torch
import torch.nn.functional as F
from mpmath import mp, mpf
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.checks import DomainError, KindError, ShapeError
from lastlayer.evaluation import mean_and_gradient
from loss_properties import DTYPES, random

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def _softmax(s):
    exponential = [mpmath.exp(x) for x in s]
    return [x / mpmath.fsum(exponential) for x in exponential]


def _dot(a, b):
    return mpmath.fsum(x * y for x, y in zip(a, b, strict=True))


def _two_sided(s, y):
    # 0 · log 0 does not occur: with mp's precision no probability here rounds to 0 or 1.
    terms = zip(y, _softmax(s), strict=True)
    return -mpmath.fsum(y_k * mpmath.log(a) + (1 - y_k) * mpmath.log(1 - a) for y_k, a in terms)


def _distances(s, y):
    return [abs(p - y_j) for p, y_j in zip(_softmax(s), y, strict=True)]


def _hinge(power, margin=0.5):
    def definition(s, y):
        terms = zip(s, y, strict=True)
        return mpmath.fsum(max(mpf(0), mpf(margin) - (2 * y_j - 1) * s_j) ** power for s_j, y_j in terms)

    return definition


def _tanimoto(s, y):
    p = _softmax(s)
    return -_dot(p, y) / (_dot(p, p) + _dot(y, y) - _dot(p, y))


def _cauchy_schwarz(s, y):
    p = _softmax(s)
    return -mpmath.log(_dot(p, y) / mpmath.sqrt(_dot(p, p) * _dot(y, y)))


#: As the documents print them, SPEC H's corrections aside, in as many digits as mpmath is asked for.
DEFINITIONS = {
    "two_sided_cross_entropy": _two_sided,
    "l1": lambda s, y: mpmath.fsum(abs(y_j - s_j) for s_j, y_j in zip(s, y, strict=True)),
    "l2": lambda s, y: mpmath.fsum((y_j - s_j) ** 2 for s_j, y_j in zip(s, y, strict=True)),
    "expectation": lambda s, y: mpmath.fsum(_distances(s, y)),
    "regularized_expectation": lambda s, y: mpmath.fsum(d**2 for d in _distances(s, y)),
    "chebyshev": lambda s, y: max(_distances(s, y)),
    "hinge": _hinge(1),
    "squared_hinge": _hinge(2),
    "cubed_hinge": _hinge(3),
    "squared_log": lambda s, y: mpmath.fsum((y_j * mpmath.log(p)) ** 2 for p, y_j in zip(_softmax(s), y, strict=True)),
    "tanimoto": _tanimoto,
    "cauchy_schwarz": _cauchy_schwarz,
}
LOSSES = {name: losses.catalog()[name] for name in DEFINITIONS}
every_loss = pytest.mark.parametrize("name", LOSSES)


def _exactly(name, raw, target):
    """Value and gradient by definition, in sixty digits, the gradient by symmetric differences."""
    definition, step = DEFINITIONS[name], mpf(10) ** -20
    values, gradients = [], []
    with mp.workdps(60):
        for s, y in zip(raw.tolist(), target.tolist(), strict=True):
            s, y = [mpf(x) for x in s], [mpf(x) for x in y]
            values.append(float(definition(s, y)))
            gradients.append([])
            for k, s_k in enumerate(s):
                ahead, behind = (definition([*s[:k], s_k + side, *s[k + 1 :]], y) for side in (step, -step))
                gradients[-1].append(float((ahead - behind) / (2 * step)))
    return torch.tensor(values, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)


def _scores(*shape, dtype=torch.float64):
    return 3 * torch.randn(*shape, dtype=dtype, generator=random(1))


def _classes(*shape, classes):
    return torch.randint(classes, shape, generator=random(2))


def _one_hot(index, classes, dtype=torch.float64):
    return F.one_hot(index, classes).to(dtype)


def _probabilities(*shape):
    return torch.softmax(2 * torch.randn(*shape, dtype=torch.float64, generator=random(3)), -1)


@pytest.mark.parametrize(
    ("output", "two_sided"),
    [
        ((0.55, 0.02, 0.01, 0.03, 0.01, 0.05, 0.17, 0.01, 0.06, 0.09), 1.0725),
        ((0.55, 0.002, 0.001, 0.003, 0.001, 0.04, 0.37, 0.001, 0.012, 0.02), 1.1410),
    ],
)
def test_g4_two_sided_and_log_likelihood_cost(output, two_sided):
    """SPEC G4, source S1 "Log-likelihood": only the two-sided cost sees what the wrong classes get."""
    output = torch.tensor([output], dtype=torch.float64)
    assert output.sum().item() == pytest.approx(1.0, abs=1e-12)
    # Probabilities that sum to 1 are the softmax of their logarithms.
    for target in (torch.tensor([0]), _one_hot(torch.tensor([0]), 10)):
        assert losses.two_sided_cross_entropy(output.log(), target).item() == pytest.approx(two_sided, abs=0.5001e-4)
        assert losses.cross_entropy(output.log(), target).item() == pytest.approx(0.5978, abs=0.5001e-4)


@every_loss
@pytest.mark.parametrize("kind", ["one-hot", "soft", "rows that do not sum to 1"])
def test_literal_definition(name, kind):
    raw, target = _scores(12, 5), _one_hot(_classes(12, classes=5), 5)
    if kind != "one-hot":
        target = _probabilities(12, 5)
    if kind == "rows that do not sum to 1":
        target = 0.1 + 0.8 * torch.rand(12, 5, dtype=torch.float64, generator=random(4))
    value, gradient = _exactly(name, raw, target)
    assert_close(LOSSES[name].value(raw, target), value, rtol=1e-12, atol=1e-13)
    assert_close(LOSSES[name].gradient(raw, target), gradient, rtol=1e-11, atol=1e-13)


@every_loss
@pytest.mark.parametrize("classes", [2, 5, 40])
def test_an_index_is_its_one_hot_row(name, classes):
    loss = LOSSES[name]
    raw, index = _scores(30, classes), _classes(30, classes=classes)
    hot = _one_hot(index, classes)
    for kind in (torch.int64, torch.int32, torch.uint8):
        assert_close(loss.value(raw, index.to(kind)), loss.value(raw, hot), rtol=1e-12, atol=1e-13)
        assert_close(loss.gradient(raw, index.to(kind)), loss.gradient(raw, hot), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy"])
@pytest.mark.parametrize("classes", [5, 40])
@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
@pytest.mark.parametrize("in_place", [False, True], ids=["", "in place"])
def test_written_into_a_place(name, classes, soft, in_place):
    formula = losses.catalog()[name].formula
    raw = _scores(30, classes)
    target = _probabilities(30, classes) if soft else _classes(30, classes=classes)
    value, gradient = formula.value(raw, target), formula.gradient(raw, target)
    place = raw if in_place else torch.full_like(raw, torch.nan)
    assert_close(formula.value_into(raw, target, place), value, rtol=1e-12, atol=1e-13)
    assert_close(place, gradient, rtol=1e-11, atol=1e-13)


@every_loss
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["index", "one-hot", "soft", "zeros"])
@pytest.mark.parametrize("classes", [5, 40])
def test_finite_at_extremes_for_every_kind_of_target(name, dtype, kind, classes):
    size = torch.tensor([0.0, 1e-4, 1.0, 10.0, 100.0, 1000.0, 1e4]).repeat_interleave(20)
    raw = (size.unsqueeze(-1) * torch.randint(-1, 2, (140, classes), generator=random(5))).to(dtype)
    # Ties, too.
    raw[::20] = size[::20].unsqueeze(-1).to(dtype)
    index = _classes(140, classes=classes)
    target = {
        "index": index,
        "one-hot": _one_hot(index, classes, dtype),
        "soft": _probabilities(140, classes).to(dtype),
        # A masked row becomes one.
        "zeros": torch.zeros(140, classes, dtype=dtype),
    }[kind]
    loss = LOSSES[name]
    assert loss.value(raw, target).isfinite().all()
    assert loss.gradient(raw, target).isfinite().all()
    raw = raw.to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    (through_value,) = torch.autograd.grad(loss.formula.value(raw, loss.formula.conform(raw, target)).sum(), raw)
    assert through_value.isfinite().all()


@every_loss
def test_masked_class_probabilities_count_nothing(name):
    loss, raw, target = LOSSES[name], _scores(10, 5), _probabilities(10, 5)
    weight = (torch.arange(10) % 3 != 0).double()
    target[::3] = torch.nan
    kept = weight > 0
    value, gradient = mean_and_gradient(loss.formula, raw, target, sample_weight=weight)
    assert_close(value, loss(raw[kept], target[kept]))
    assert (gradient[~kept] == 0).all()


def _confident(classes):
    """Scores of which one stands out by 0 to 80, each against that class and against another one."""
    raw = torch.randn(21, classes, generator=random(7))
    top = torch.arange(21) % classes
    raw[torch.arange(21), top] = 2.0 + 4.0 * torch.arange(21)
    return raw.repeat(2, 1), torch.cat([top, (top + 1) % classes])


@pytest.mark.parametrize(
    "name", ["two_sided_cross_entropy", "expectation", "regularized_expectation", "chebyshev", "squared_log"]
)
@pytest.mark.parametrize("classes", [4, 20])
@pytest.mark.parametrize("kind", ["index", "one-hot"])
def test_confident_scores_lose_no_accuracy(name, classes, kind):
    """Where p_y rounds to 1 in float32 the value is still right to a few units in its own last place."""
    loss = LOSSES[name]
    raw, index = _confident(classes)
    hot = _one_hot(index, classes)
    value, gradient = _exactly(name, raw.double(), hot)
    assert value.min() < 1e-30
    target = index if kind == "index" else hot.float()
    # exp(−80) itself is known to 80 units in its last place.
    close = {"rtol": 2e-5, "atol": 1e-38}
    assert_close(loss.value(raw, target).double(), value, **close)
    right = torch.arange(42) < 21
    for found in (loss.gradient(raw, target), mean_and_gradient(loss.formula, raw, target, normalizer=1.0)[1]):
        assert_close(found[right].double(), gradient[right], **close)
        # A wrong class far ahead: a difference of numbers up to the size of the gradient remains.
        assert_close(found[~right].double(), gradient[~right], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["tanimoto", "cauchy_schwarz"])
@pytest.mark.parametrize("kind", ["index", "one-hot"])
def test_confident_scores_of_the_overlap(name, kind):
    """Both to the last places of 1; the Tanimoto gradient to its own."""
    raw, index = _confident(20)
    hot = _one_hot(index, 20)
    value, gradient = _exactly(name, raw.double(), hot)
    target = index if kind == "index" else hot.float()
    assert_close(LOSSES[name].value(raw, target).double(), value, rtol=1e-6, atol=3e-7)
    found = LOSSES[name].gradient(raw, target).double()
    assert_close(found, gradient, rtol=1e-5, atol=3e-7)
    if name == "tanimoto":
        assert_close(found[:21], gradient[:21], rtol=2e-5, atol=1e-38)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_classes_on_axis_one(name, reduction):
    function = getattr(losses, name)
    raw = _scores(2, 5, 3, 4).requires_grad_()
    for target in (_classes(2, 3, 4, classes=5), _probabilities(2, 3, 4, 5).movedim(-1, 1)):
        last = target.movedim(1, -1) if target.is_floating_point() else target
        found = function(raw, target, dim=1, reduction=reduction)
        expected = function(raw.movedim(1, -1), last, reduction=reduction)
        assert_close(found, expected)
        assert found.shape == ((2, 3, 4) if reduction == "none" else ())
        upstream = torch.rand(found.shape, dtype=raw.dtype, generator=random(9))
        assert_close(
            torch.autograd.grad(found, raw, upstream), torch.autograd.grad(expected, raw, upstream), rtol=1e-10, atol=0
        )


@every_loss
def test_one_sample_without_a_batch(name):
    loss, raw = LOSSES[name], _scores(5)
    assert_close(loss.value(raw, torch.tensor(3)), loss.value(raw.unsqueeze(0), torch.tensor([3])).squeeze(0))
    assert_close(loss.gradient(raw, torch.tensor(3)), loss.gradient(raw.unsqueeze(0), torch.tensor([3])).squeeze(0))


@every_loss
@pytest.mark.parametrize("classes", [4, 17])
def test_derivatives_for_class_probabilities(name, classes):
    loss = LOSSES[name]
    raw, target = _scores(3, classes).requires_grad_(), _probabilities(3, classes)
    assert gradcheck(lambda scores: loss.value(scores, target), raw, check_forward_ad=True)
    assert gradgradcheck(lambda scores: loss.value(scores, target), raw)
    (through_value,) = torch.autograd.grad(loss.value(raw, target).sum(), raw)
    assert_close(loss.gradient(raw.detach(), target), through_value, rtol=1e-10, atol=1e-12)


@every_loss
@pytest.mark.parametrize(
    ("raw", "target", "says"),
    [
        ((4, 5), torch.zeros(4, 1, dtype=torch.long), r"\(4, 1\).*\(4, 5\).*expected \(4,\)"),
        ((4, 5), torch.zeros(4, 5, dtype=torch.long), r"\(4, 5\).*Fix: target\.argmax\(-1\)"),
        ((4, 5), torch.zeros(4), r"\(4,\), raw \(4, 5\).*Fix: pass class indices.*target\.long\(\)"),
        ((4, 5), torch.zeros(4, 6), r"probabilities have shape \(4, 6\), raw \(4, 5\)"),
        ((2, 5, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long), r"\(2, 3, 3\), raw \(2, 5, 3, 3\).*dim="),
        ((), torch.tensor(0), r"\(\); expected \(\.\.\., classes\)"),
    ],
)
def test_wrong_shapes_name_the_loss_and_the_fix(name, raw, target, says):
    with pytest.raises(ShapeError, match=f"{name}: .*{says}"):
        getattr(losses, name)(torch.zeros(raw), target)


@every_loss
def test_wrong_kinds_of_target(name):
    with pytest.raises(KindError, match=rf"{name}: target is bool.*target\.long\(\)"):
        getattr(losses, name)(torch.zeros(4, 5), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ShapeError, match=rf"{name}: class probabilities have shape \(4,\)"):
        getattr(losses, name)(torch.zeros(4, 5, 2), torch.zeros(4), dim=1)
    with pytest.raises(KindError, match=f"{name}: the optimal constant needs class probabilities.*one-hot"):
        LOSSES[name].formula.optimal_constant(torch.zeros(4, dtype=torch.long), torch.ones(4))


def test_two_sided_needs_two_classes():
    with pytest.raises(ShapeError, match=r"\(4, 1\); expected at least two classes.*binary_cross_entropy"):
        losses.two_sided_cross_entropy(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("name", ["hinge", "squared_hinge", "cubed_hinge"])
def test_margin(name):
    function, module = getattr(losses, name), type(LOSSES[name])
    raw, target = _scores(10, 5), _one_hot(_classes(10, classes=5), 5)
    definition = _hinge({"hinge": 1, "squared_hinge": 2, "cubed_hinge": 3}[name], margin=1.0)
    expected = [float(definition(s, y)) for s, y in zip(raw.tolist(), target.tolist(), strict=True)]
    expected = torch.tensor(expected, dtype=torch.float64)
    assert_close(function(raw, target, margin=1.0, reduction="none"), expected)
    assert_close(module(margin=1.0, reduction="none")(raw, target), expected)
    # No score is asked for more than the margin.
    assert (function(1.0 * (2 * target - 1), target, margin=1.0, reduction="none") == 0).all()
    for wrong in (-0.5, float("nan"), float("inf")):
        for ask in (lambda wrong=wrong: function(raw, target, margin=wrong), lambda wrong=wrong: module(margin=wrong)):
            with pytest.raises(DomainError, match=rf"{name}: margin is .*expected a number in \[0, ∞\)"):
                ask()


def test_how_the_losses_hang_together():
    raw, index = _scores(50, 5), _classes(50, classes=5)
    each = {name: loss.value(raw, index) for name, loss in LOSSES.items()}
    log_loss = F.cross_entropy(raw, index, reduction="none")
    assert_close(each["chebyshev"], 0.5 * each["expectation"])
    assert_close(each["squared_log"], log_loss**2)
    assert_close(each["cauchy_schwarz"], 0.5 * F.cross_entropy(2 * raw, index, reduction="none"))
    squares = (torch.softmax(raw, -1) ** 2).sum(-1)
    assert_close(each["regularized_expectation"], each["expectation"] + squares - 1)
    assert_close(
        losses.two_sided_cross_entropy(raw[:, :2], index % 2, reduction="none"),
        2 * F.cross_entropy(raw[:, :2], index % 2, reduction="none"),
    )
    hot = _one_hot(index, 5)
    assert_close(each["l1"], F.l1_loss(raw, hot, reduction="none").sum(-1))
    assert_close(each["l2"], F.mse_loss(raw, hot, reduction="none").sum(-1))


def test_a_target_without_direction_has_no_divergence():
    raw = _scores(3, 5)
    target = torch.stack([torch.zeros(5, dtype=torch.float64), _probabilities(5), torch.ones(5, dtype=torch.float64)])
    loss = LOSSES["cauchy_schwarz"]
    assert loss.value(raw, target)[0] == 0
    assert (loss.gradient(raw, target)[0] == 0).all()
    # The length of a target does not count.
    assert_close(loss.value(raw, target)[1:], loss.value(raw, 3 * target)[1:])


FREQUENCY = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


def _mean_at(loss, raw):
    """The mean over one-hot targets of these class frequencies."""
    return loss(raw.expand(4, 4), torch.arange(4), sample_weight=FREQUENCY)


@pytest.mark.parametrize("name", ["expectation", "chebyshev"])
def test_no_constant_is_best_where_the_facts_say_so(name):
    """The loss falls towards the share of the other classes as the most frequent one takes all."""
    loss = LOSSES[name]
    towards = [_mean_at(loss, level * torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)) for level in range(1, 30, 2)]
    assert all(later < earlier for earlier, later in itertools.pairwise(towards))
    infimum = 0.5 * (2.0 if name == "expectation" else 1.0)
    assert infimum < towards[-1] < infimum + 1e-10
    start = loss.formula.optimal_constant(torch.eye(4, dtype=torch.float64), FREQUENCY)
    assert_close(start, FREQUENCY.log())
    assert infimum < _mean_at(loss, start) < _mean_at(loss, torch.zeros(4, dtype=torch.float64))


def test_the_best_constant_of_the_squared_log_loss_is_not_its_start():
    loss, raw = LOSSES["squared_log"], torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [raw], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = _mean_at(loss, raw)
        value.backward()
        return value

    optimizer.step(closure)
    p = torch.softmax(raw.detach(), -1)
    ratio = FREQUENCY * p.log() / p
    assert_close(ratio, ratio[:1].expand(4), rtol=1e-5, atol=0)
    start = loss.formula.optimal_constant(torch.eye(4, dtype=torch.float64), FREQUENCY)
    best, at_start, at_zero = (_mean_at(loss, point) for point in (raw.detach(), start, torch.zeros_like(start)))
    assert best < at_start - 1e-3
    assert at_start < at_zero
