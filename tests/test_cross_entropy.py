"""Agreement with ``torch.nn.functional`` wherever an option has its name, and scikit-learn's class weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.checks import DomainError, KindError, ShapeError
from lastlayer.evaluation import mean_and_gradient
from lastlayer.losses.cross_entropy import CrossEntropyFormula
from loss_properties import random

# PyTorch's own forward mode compiles its decompositions with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

REDUCTIONS = ("mean", "sum", "none")
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
CLASS_WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0], dtype=torch.float64)


def _scores(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=random(1))


def _agree(ours, theirs, raw):
    """Both losses in value and, under uneven upstream gradients, in gradient."""
    raw = raw.detach().requires_grad_()
    results = [loss(raw) for loss in (ours, theirs)]
    assert_close(results[0], results[1])
    upstream = torch.rand(results[0].shape, dtype=raw.dtype, generator=random(9))
    gradients = [torch.autograd.grad(result, raw, upstream)[0] for result in results]
    assert_close(gradients[0], gradients[1])


@reductions
@pytest.mark.parametrize("weight", [None, CLASS_WEIGHT], ids=["", "weight"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ignore_index", [-100, 2, 99])
def test_class_indices(reduction, weight, label_smoothing, ignore_index):
    raw, target = _scores(40, 5), torch.randint(5, (40,), generator=random(2))
    if ignore_index not in range(5):
        target[::7] = ignore_index
    options = {
        "weight": weight,
        "label_smoothing": label_smoothing,
        "ignore_index": ignore_index,
        "reduction": reduction,
    }
    _agree(
        lambda scores: losses.cross_entropy(scores, target, **options),
        lambda scores: F.cross_entropy(scores, target, **options),
        raw,
    )


@reductions
@pytest.mark.parametrize("weight", [None, CLASS_WEIGHT], ids=["", "weight"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_class_probabilities(reduction, weight, label_smoothing):
    raw, target = _scores(20, 5), torch.softmax(_scores(20, 5).flip(0), -1)
    options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": reduction}
    _agree(
        lambda scores: losses.cross_entropy(scores, target, **options),
        lambda scores: F.cross_entropy(scores, target, **options),
        raw,
    )


@reductions
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 5, 7), (8, 5)])
def test_classes_on_axis_one(reduction, shape):
    raw = _scores(*shape)
    index = torch.randint(5, (shape[0], *shape[2:]), generator=random(2))
    index[0] = -100
    probability = torch.softmax(_scores(*shape), 1)
    for target in (index, probability):
        _agree(
            lambda scores, y=target: losses.cross_entropy(scores, y, dim=1, weight=CLASS_WEIGHT, reduction=reduction),
            lambda scores, y=target: F.cross_entropy(scores, y, weight=CLASS_WEIGHT, reduction=reduction),
            raw,
        )


def test_one_sample_without_a_batch():
    _agree(
        lambda scores: losses.cross_entropy(scores, torch.tensor(3)),
        lambda scores: F.cross_entropy(scores, torch.tensor(3)),
        _scores(5),
    )


@pytest.mark.parametrize(
    ("weight", "label_smoothing", "ignore_index"),
    [*itertools.product([None, CLASS_WEIGHT], [0.0, 0.3], [None, -100, 2])],
)
@pytest.mark.parametrize("soft", [False, True])
def test_closed_form_gradient_under_every_option(weight, label_smoothing, ignore_index, soft):
    formula = CrossEntropyFormula(weight, label_smoothing, ignore_index)
    raw, target = _scores(30, 5).requires_grad_(), torch.randint(5, (30,), generator=random(2))
    if soft:
        target = torch.softmax(_scores(30, 5).flip(0), -1)
    sample_weight = torch.rand(30, dtype=torch.float64, generator=random(3))
    module = losses.CrossEntropy(weight, label_smoothing=label_smoothing, ignore_index=ignore_index)
    loss = module(raw, target, sample_weight=sample_weight)
    (expected,) = torch.autograd.grad(loss, raw)
    value, gradient = mean_and_gradient(formula, raw, target, sample_weight=sample_weight)
    assert_close(value, loss.detach())
    assert_close(gradient, expected)
    assert_close(module.gradient(raw, target), torch.autograd.grad(module.value(raw, target).sum(), raw)[0])


def _literal_with_penalty(scores, target, weight, label_smoothing, ignore_index, z_loss, soft_cap):
    """PyTorch's cross-entropy of capped logits plus the squared log-sum-exp of what is not ignored, per sample."""
    logits = scores if soft_cap is None else soft_cap * torch.tanh(scores / soft_cap)
    options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": "none"}
    if target.is_floating_point():
        return F.cross_entropy(logits, target, **options) + z_loss * torch.logsumexp(logits, -1) ** 2
    value = F.cross_entropy(logits, target, ignore_index=-1 if ignore_index is None else ignore_index, **options)
    return value + z_loss * torch.logsumexp(logits, -1) ** 2 * (target != ignore_index)


@pytest.mark.parametrize(("z_loss", "soft_cap"), [(0.0, None), (0.3, None), (0.0, 2.5), (0.3, 2.5)])
@pytest.mark.parametrize(
    ("weighted", "label_smoothing", "ignore_index"), [*itertools.product([False, True], [0.0, 0.3], [None, -100, 2])]
)
@pytest.mark.parametrize("classes", [5, 20])
@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
def test_z_loss_and_soft_cap(z_loss, soft_cap, weighted, label_smoothing, ignore_index, classes, soft):
    raw = _scores(30, classes)
    target = torch.randint(classes, (30,), generator=random(2))
    if soft:
        target = torch.softmax(raw.flip(0), -1)
    elif ignore_index is not None:
        target[::4] = ignore_index
    weight = torch.rand(classes, dtype=torch.float64, generator=random(3)) if weighted else None
    options = {"weight": weight, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
    options |= {"z_loss": z_loss, "soft_cap": soft_cap}
    _agree(
        lambda scores: losses.cross_entropy(scores, target, reduction="none", **options),
        lambda scores: _literal_with_penalty(scores, target, **options),
        raw,
    )
    formula = CrossEntropyFormula(**options)
    scores = raw.clone().requires_grad_()
    expected = _literal_with_penalty(scores, target, **options)
    (gradient,) = torch.autograd.grad(expected.sum(), scores)
    value, closed = formula.value_and_gradient(raw, target)
    assert_close(value, expected.detach())
    for found in (closed, formula.gradient(raw, target), losses.CrossEntropy(**options).gradient(raw, target)):
        assert_close(found, gradient)
    for place in (torch.full_like(raw, torch.nan), raw):
        assert_close(formula.value_into(raw, target, place), expected.detach())
        assert_close(place, gradient)


@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
def test_derivatives_with_z_loss_and_soft_cap(soft):
    formula = CrossEntropyFormula(CLASS_WEIGHT, 0.1, z_loss=0.3, soft_cap=2.5)
    raw, target = _scores(3, 5).requires_grad_(), torch.tensor([1, 4, -100])
    if soft:
        target = torch.softmax(_scores(3, 5).flip(0), -1)
    assert gradcheck(lambda scores: formula.value(scores, target), raw, check_forward_ad=True)
    assert gradgradcheck(lambda scores: formula.value(scores, target), raw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [5, 20])
def test_z_loss_and_soft_cap_at_extremes(dtype, classes):
    size = torch.tensor([0.0, 1e-4, 1.0, 100.0, 1e4]).repeat_interleave(8)
    raw = (size.unsqueeze(-1) * torch.randint(-1, 2, (40, classes), generator=random(5))).to(dtype)
    for target in (torch.randint(classes, (40,), generator=random(2)), torch.softmax(_scores(40, classes), -1)):
        for soft_cap in (None, 1e-3, 30.0, 1e6):
            module = losses.CrossEntropy(z_loss=1e-4, soft_cap=soft_cap)
            for found in (module.value(raw, target), module.gradient(raw, target)):
                assert found.isfinite().all()
            value, gradient = mean_and_gradient(module.formula, raw, target)
            assert value.isfinite()
            assert gradient.isfinite().all()


def test_a_soft_cap_bounds_the_loss():
    raw = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    loss = losses.cross_entropy(raw, torch.tensor([0, 0]), soft_cap=3.0, reduction="none")
    assert_close(loss, torch.tensor([6.0]).sigmoid().log().neg().squeeze() + torch.tensor([0.0, 6.0]))


@pytest.mark.parametrize("z_loss", [0.0, 0.2])
@pytest.mark.parametrize("soft_cap", [None, 1.5, 5.0])
def test_optimal_constant_with_z_loss_and_soft_cap(z_loss, soft_cap):
    formula = CrossEntropyFormula(z_loss=z_loss, soft_cap=soft_cap)
    target = F.one_hot(torch.arange(50) % 7 % 5, 5).double()
    weight = torch.ones(50, dtype=torch.float64)
    constant = formula.optimal_constant(target, weight)
    held = soft_cap != 1.5 or not z_loss
    # The log frequencies lie down to −1.9: a cap of 1.5 holds them around 0, and not at the level of the z-loss.
    assert constant.isfinite().all() == held
    if held:
        gradient = formula.gradient(constant.expand(50, 5), target).sum(0)
        assert_close(gradient, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    # A class that never occurs is as far down as the cap lets it be.
    never = F.one_hot(torch.arange(50) % 4, 5).double()
    constant = formula.optimal_constant(never, weight)
    assert not constant.isnan().any()
    assert constant[4] == -torch.inf


def test_everything_ignored_is_zero():
    raw = _scores(4, 5).requires_grad_()
    target = torch.full((4,), -100)
    for weight in (None, CLASS_WEIGHT):
        loss = losses.cross_entropy(raw, target, weight=weight, label_smoothing=0.1)
        assert loss == 0
        assert (torch.autograd.grad(loss, raw)[0] == 0).all()
        assert (mean_and_gradient(CrossEntropyFormula(weight), raw, target)[1] == 0).all()


def test_sample_weight_multiplies_the_class_weight():
    raw, target = _scores(30, 5), torch.randint(5, (30,), generator=random(2))
    weight = torch.rand(30, dtype=torch.float64, generator=random(3))
    each = F.cross_entropy(raw, target, weight=CLASS_WEIGHT, reduction="none")
    assert_close(
        losses.cross_entropy(raw, target, weight=CLASS_WEIGHT, sample_weight=weight),
        (weight * each).sum() / (weight * CLASS_WEIGHT[target]).sum(),
    )


@pytest.mark.parametrize(
    ("raw", "target", "fix"),
    [
        ((4, 5), torch.zeros(4, 1, dtype=torch.long), r"\(4, 1\).*\(4, 5\).*expected \(4,\)"),
        ((4, 5), torch.zeros(5, dtype=torch.long), r"\(5,\).*\(4, 5\).*expected \(4,\)"),
        ((4, 5), torch.zeros(4, 5, dtype=torch.long), r"\(4, 5\).*Fix: target\.argmax\(-1\)"),
        ((4, 5), torch.zeros(4), r"\(4,\), raw \(4, 5\).*Fix: pass class indices.*target\.long\(\)"),
        ((4, 5), torch.zeros(4, 6), r"probabilities have shape \(4, 6\), raw \(4, 5\)"),
        ((4,), torch.zeros(4, dtype=torch.long), r"\(4,\)"),
        ((2, 5, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long), r"\(2, 3, 3\), raw \(2, 5, 3, 3\).*dim="),
        ((), torch.tensor(0), r"\(\); expected \(\.\.\., classes\)"),
        ((4, 0), torch.zeros(4, dtype=torch.long), r"\(4, 0\); expected \(\.\.\., classes\)"),
    ],
)
def test_wrong_shapes(raw, target, fix):
    with pytest.raises(ShapeError, match=fix):
        losses.cross_entropy(torch.zeros(raw), target)


def test_wrong_options():
    raw, target = torch.zeros(4, 5), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"weight has shape \(4,\); expected one per class, \(5,\)"):
        losses.cross_entropy(raw, target, weight=torch.ones(4))
    with pytest.raises(KindError, match=r"target is bool.*target\.long\(\)"):
        losses.cross_entropy(raw, target.bool())
    for wrong in (-0.1, 1.0, 2.0, float("nan")):
        with pytest.raises(DomainError, match=r"label_smoothing.*\[0, 1\)"):
            losses.cross_entropy(raw, target, label_smoothing=wrong)
        with pytest.raises(DomainError, match="label_smoothing"):
            losses.CrossEntropy(label_smoothing=wrong)
    for option, values in {"z_loss": (-0.1, float("nan"), float("inf")), "soft_cap": (0.0, -1.0, float("nan"))}.items():
        for wrong in values:
            with pytest.raises(DomainError, match=f"cross_entropy: {option} is .*expected a number in"):
                losses.cross_entropy(raw, target, **{option: wrong})
            with pytest.raises(DomainError, match=option):
                losses.CrossEntropy(**{option: wrong})
    with pytest.raises(KindError, match="one-hot"):
        CrossEntropyFormula().optimal_constant(target, torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_indices_of_every_integer_kind(dtype):
    raw, target = _scores(10, 5), torch.randint(5, (10,), generator=random(2))
    assert_close(losses.cross_entropy(raw, target.to(dtype)), F.cross_entropy(raw, target))


def test_options_follow_the_module():
    module = losses.CrossEntropy(CLASS_WEIGHT)
    assert set(module.state_dict()) == {"weight"}
    assert module.float().weight.dtype == torch.float32
    raw, target = _scores(10, 5).float(), torch.randint(5, (10,), generator=random(2))
    assert_close(module(raw, target), F.cross_entropy(raw, target, weight=CLASS_WEIGHT.float()))
    # The dtype of the scores rules, whatever that of the weights.
    assert losses.cross_entropy(raw, target, weight=CLASS_WEIGHT).dtype == torch.float32


@reductions
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_binary_cross_entropy(reduction, weighted, positive):
    raw, target = _scores(20, 3), torch.rand(20, 3, dtype=torch.float64, generator=random(2))
    target[:10] = target[:10].round()
    options = {
        "weight": torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64) if weighted else None,
        "pos_weight": torch.tensor([3.0, 0.2, 1.0], dtype=torch.float64) if positive else None,
    }
    _agree(
        lambda scores: losses.binary_cross_entropy(scores, target, reduction=reduction, **options),
        lambda scores: F.binary_cross_entropy_with_logits(scores, target, reduction=reduction, **options),
        raw,
    )
    module = losses.BinaryCrossEntropy(**options)
    scores = raw.requires_grad_()
    assert_close(module.gradient(scores, target), torch.autograd.grad(module.value(scores, target).sum(), scores)[0])


@pytest.mark.parametrize("option", ["weight", "pos_weight"])
@pytest.mark.parametrize("shape", [(2,), (20,), (3, 3), (20, 1, 3)])
def test_binary_weights_must_fit(option, shape):
    with pytest.raises(
        ShapeError, match=rf"{option} has shape .*raw \(20, 3\); expected one {option} per label"
    ) as caught:
        losses.binary_cross_entropy(torch.zeros(20, 3), torch.zeros(20, 3), **{option: torch.ones(shape)})
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("pos_weight", [None, 0.25, 8.0])
def test_optimal_constant_with_a_positive_weight(pos_weight):
    option = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float64)
    module = losses.BinaryCrossEntropy(pos_weight=option)
    target = (torch.arange(50) % 3 == 0).double()
    constant = module.formula.optimal_constant(target, torch.ones(50, dtype=torch.float64))
    gradient = module.gradient(constant.expand(50), target)
    assert abs(gradient.sum()) < 1e-12


@pytest.mark.parametrize(("weight", "label_smoothing"), [*itertools.product([None, CLASS_WEIGHT], [0.0, 0.2])])
def test_optimal_constant_with_class_weights_and_smoothing(weight, label_smoothing):
    # The one weight of 0 in CLASS_WEIGHT has its logit at minus infinity; here every class counts.
    weight = None if weight is None else weight + 0.1
    formula = CrossEntropyFormula(weight, label_smoothing)
    target = F.one_hot(torch.arange(50) % 7 % 5, 5).double()
    constant = formula.optimal_constant(target, torch.ones(50, dtype=torch.float64))
    assert_close(formula.gradient(constant.expand(50, 5), target).sum(0), torch.zeros(5, dtype=torch.float64))


@reductions
def test_squared_and_absolute_error(reduction):
    raw, target = _scores(20, 3), _scores(20, 3).flip(0)
    _agree(
        lambda scores: losses.squared_error(scores, target, reduction=reduction),
        lambda scores: F.mse_loss(scores, target, reduction=reduction),
        raw,
    )
    _agree(
        lambda scores: losses.squared_error(scores, target, halved=True, reduction=reduction),
        lambda scores: 0.5 * F.mse_loss(scores, target, reduction=reduction),
        raw,
    )
    _agree(
        lambda scores: losses.absolute_error(scores, target, reduction=reduction),
        lambda scores: F.l1_loss(scores, target, reduction=reduction),
        raw,
    )
    _agree(
        lambda scores: losses.sigmoid_squared_error(scores, target.sigmoid(), reduction=reduction),
        lambda scores: F.mse_loss(scores.sigmoid(), target.sigmoid(), reduction=reduction),
        raw,
    )


def test_absolute_error_has_a_zero_subgradient_at_its_kink():
    raw = torch.tensor([1.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.absolute_error(raw, torch.tensor([1.0, 2.0])), raw)
    assert (gradient == 0).all()
    assert (losses.AbsoluteError().gradient(raw, torch.tensor([1.0, 2.0])) == 0).all()


def test_class_weights_are_those_of_scikit_learn_times_the_classes():
    target = np.repeat([0, 1, 2, 3], [90, 7, 1, 2])
    balanced = compute_class_weight("balanced", classes=np.arange(4), y=target)
    assert_close(losses.class_weights(torch.tensor(target), 4).double(), torch.tensor(balanced * 4), rtol=1e-6, atol=0)


def test_class_weights_balance_the_classes():
    """A class counts the same in the weighted mean however many samples it has (SPEC A10)."""
    target = torch.tensor([0] * 90 + [1] * 10)
    raw = torch.tensor([[1.0, 0.0]]).expand(100, 2)
    weighted = losses.cross_entropy(raw, target, weight=losses.class_weights(target, 2))
    assert_close(weighted, losses.cross_entropy(raw[:2], torch.tensor([0, 1])))


def test_class_weights_of_an_absent_class():
    with pytest.raises(DomainError, match="no sample of class 1, 3 among 2"):
        losses.class_weights(torch.tensor([0, 2]), 4)
