"""Every way of evaluating a loss against the readable formula in float64, what it allocates, and which one is chosen.

The losses come from the catalog: a new one is tested by being there.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import lastlayer
from evaluation_cases import (
    CATALOG,
    KERNELS,
    Allocations,
    Case,
    by_path,
    check_error,
    check_path,
    class_cases,
    every_kernel,
    every_loss,
    every_softmax_kernel,
    example,
    extreme_cases,
    index_cases,
    masked,
    needs_compiler,
    needs_numba,
    positive_weight,
    ragged_cases,
    strided_cases,
    wide_example,
)
from lastlayer import losses
from lastlayer.checks import InputError
from lastlayer.evaluation import (
    PATHS,
    Scaled,
    Summed,
    blockwise,
    choose_path,
    evaluate,
    evaluate_with,
    mean_and_gradient,
)
from lastlayer.evaluation.kernels import running
from lastlayer.losses.binary_cross_entropy import BinaryCrossEntropyFormula
from lastlayer.losses.cross_entropy import CrossEntropyFormula
from lastlayer.losses.squared_error import SquaredErrorFormula
from loss_properties import DTYPES, both_ways, random
from test_wrong_twins import Twin

# PyTorch's own compiler still uses what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OF_CLASSES = [name for name, loss in CATALOG.items() if loss.facts.target is None]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
REDUCTIONS = ({}, {"normalizer": 7.0}, {"reduction": "sum"})


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 numbers: many of them on little data."""
    monkeypatch.setattr(blockwise, "BLOCK", 64)


# The bound, way by way.


@every_loss
@every_dtype
def test_a_small_batch_keeps_the_bound_without_being_asked(name, dtype):
    loss = CATALOG[name]
    for case in (Case("", *example(loss, 20, dtype=dtype)), masked(loss, dtype)):
        for options in (*REDUCTIONS, {"reduction": "none"}):
            check_path(None, loss, case, **options)


@every_loss
@every_dtype
@pytest.mark.parametrize("cases", [ragged_cases, strided_cases, extreme_cases], ids=lambda cases: cases.__name__)
@pytest.mark.usefixtures("small_blocks")
def test_blockwise_keeps_the_bound(name, dtype, cases):
    for case in cases(CATALOG[name], dtype):
        for options in (*REDUCTIONS, {"reduction": "none"}):
            check_path("blockwise", CATALOG[name], case, **options)


@pytest.mark.parametrize("name", OF_CLASSES)
@every_dtype
@pytest.mark.usefixtures("small_blocks")
def test_blockwise_keeps_the_bound_on_class_scores(name, dtype):
    for case in class_cases(CATALOG[name], dtype):
        for options in (*REDUCTIONS, {"reduction": "none"}):
            check_path("blockwise", CATALOG[name], case, **options)


@pytest.mark.parametrize(
    "loss",
    [
        losses.BinaryCrossEntropy(weight=positive_weight(37).float()),
        losses.BinaryCrossEntropy(pos_weight=positive_weight(37).float()),
        losses.BinaryCrossEntropy(pos_weight=positive_weight(9, 37).float()),
        losses.CrossEntropy(positive_weight(37).float(), label_smoothing=0.1, ignore_index=2, z_loss=0.01),
        losses.CrossEntropy(positive_weight(37).float(), ignore_index=2),
        losses.CrossEntropy(soft_cap=5.0),
        losses.Focal(gamma=3.0, alpha=0.25),
        losses.Huber(delta=0.3),
        losses.Quantile(level=0.9),
    ],
    ids=str,
)
@pytest.mark.usefixtures("small_blocks")
def test_blockwise_keeps_the_bound_with_options(loss):
    raw, target = wide_example(37, 9) if loss.facts.target is None else example(loss, 4, 9, 37)
    case = Case(repr(loss), raw, target, positive_weight(len(raw)))
    for options in ({"normalizer": 7.0}, {"reduction": "sum"}, {"reduction": "none"}):
        check_path("blockwise", loss, case, **options)
    # The mean divides by the class weights too, which the bound does not know.
    plain, *closed = both_ways(loss, raw.double(), target, **case.options)
    for found in closed:
        assert_close(found, plain, rtol=1e-12, atol=1e-15)


@every_loss
@every_dtype
@pytest.mark.usefixtures("small_blocks")
def test_over_the_raw_output_the_bound_is_kept_too(name, dtype):
    loss = CATALOG[name]
    cases = [*ragged_cases(loss, dtype), *extreme_cases(loss, dtype)]
    if name in OF_CLASSES:
        cases += class_cases(loss, dtype)
    for case in cases:
        plain = by_path("plain", loss, case)
        place = case.raw.clone()
        with evaluate_with(path="blockwise", gradient_buffer=place):
            value, gradient = mean_and_gradient(loss.formula, place, case.target, **case.options)
        assert gradient.data_ptr() == place.data_ptr()
        check_error(loss, case, (value, gradient), plain)


@every_kernel
@needs_numba
def test_kernel_keeps_the_bound(name):
    loss = CATALOG[name]
    for case in (*ragged_cases(loss, torch.float32), *extreme_cases(loss, torch.float32)):
        for options in REDUCTIONS:
            check_path("kernel", loss, case, **options)


@every_kernel
@needs_numba
def test_kernel_keeps_the_bound_in_bfloat16(name):
    # Every variant is compiled anew: here the one without weights.
    loss = CATALOG[name]
    for case in (Case("one axis", *example(loss, 333, dtype=torch.bfloat16)), *extreme_cases(loss, torch.bfloat16)):
        for options in REDUCTIONS:
            check_path("kernel", loss, case, **options)


@every_softmax_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@needs_numba
def test_softmax_kernel_keeps_the_bound(name, dtype):
    loss = CATALOG[name]
    for case in index_cases(loss, dtype, 101):
        for options in REDUCTIONS:
            check_path("kernel", loss, case, **options)
        if case.weight is None:
            place = case.raw.clone()
            with evaluate_with(path="kernel", gradient_buffer=place):
                over_it = mean_and_gradient(loss.formula, place, case.target)
            assert_close(over_it, by_path("kernel", loss, case), rtol=0, atol=0)


@needs_numba
@pytest.mark.parametrize("name", KERNELS[:1])
def test_kernel_with_weights_in_bfloat16(name):
    for case in ragged_cases(CATALOG[name], torch.bfloat16):
        check_path("kernel", CATALOG[name], case)


@needs_numba
@pytest.mark.parametrize(
    ("of_target", "of_weight"),
    [
        (torch.float64, torch.float64),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.bool, torch.bool),
        (torch.int64, torch.int32),
        (torch.uint8, torch.uint8),
    ],
)
def test_kernel_reads_targets_and_weights_of_every_dtype(of_target, of_weight):
    raw, target = example(CATALOG["squared_error"], 5, 90)
    target = target.round().clamp(0, 1).to(of_target)
    for shape in ((5,), (5, 90)):
        weight = torch.randint(3, shape, generator=random()).to(of_weight)
        for path in ("kernel", "blockwise"):
            check_path(path, CATALOG["squared_error"], Case(str(of_target), raw, target, weight))


@needs_numba
@pytest.mark.parametrize(
    "formula",
    [
        Summed(SquaredErrorFormula()),
        Scaled(SquaredErrorFormula(), slope=0.5, offset=2.0),
        Summed(Scaled(SquaredErrorFormula(), slope=3.0)),
    ],
    ids=["summed", "scaled", "both"],
)
def test_kernel_of_a_formula_around_another(formula):
    raw, target = example(CATALOG["squared_error"], 7, 90)
    for weight in (None, positive_weight(7)):
        for path in ("kernel", "blockwise"):
            check_path(path, Twin(formula), Case("", raw, target, weight))


@needs_numba
def test_kernel_on_several_threads_is_the_one_on_a_single_thread(monkeypatch):
    bce, softmax = CATALOG["binary_cross_entropy"], CATALOG["cross_entropy"]
    cases = [(bce, case) for case in ragged_cases(bce, torch.float32)]
    cases += [(softmax, case) for case in index_cases(softmax, torch.float32, 101)]
    for loss, case in cases:
        alone = by_path("kernel", loss, case)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda: 2)
            patch.setattr(running, "_PART", 16)
            together = by_path("kernel", loss, case)
        assert_close(together[1], alone[1], rtol=0, atol=0)
        assert_close(together[0], alone[0], rtol=1e-6, atol=0)


@every_loss
@needs_compiler
def test_compiled_keeps_the_bound(name):
    check_path("compiled", CATALOG[name], masked(CATALOG[name], torch.float32))


@needs_compiler
def test_compiled_in_half_precision_and_with_single_values():
    loss = CATALOG["squared_error"]
    check_path("compiled", loss, masked(loss, torch.bfloat16))
    check_path("compiled", loss, masked(loss, torch.float32), reduction="none")


@every_loss
@every_dtype
def test_without_a_graph_the_bound_is_kept(name, dtype):
    loss = CATALOG[name]
    for case in (Case("one axis", *example(loss, 20, dtype=dtype)), masked(loss, dtype), *extreme_cases(loss, dtype)):
        plain = by_path("plain", loss, case)
        value, gradient = mean_and_gradient(loss.formula, case.raw, case.target, **case.options)
        assert not value.requires_grad
        assert not gradient.requires_grad
        check_error(loss, case, (value, gradient), plain)
        with torch.no_grad():
            value = loss(case.raw.clone().requires_grad_(), case.target, **case.options)
        assert not value.requires_grad
        check_error(loss, case, (value, gradient), plain)


@every_loss
@pytest.mark.parametrize("path", ["plain", "blockwise", None])
def test_an_empty_batch_is_zero_any_way(name, path):
    raw, target = example(CATALOG[name], 0, 3)
    for weight in (None, torch.ones(0), torch.ones(0, 3)):
        value, gradient = by_path(path, CATALOG[name], Case("empty", raw, target, weight))
        assert value == 0
        assert gradient.shape == raw.shape
    values, _ = by_path(path, CATALOG[name], Case("empty", raw, target), reduction="none")
    assert values.shape == (0, 3)


@needs_numba
def test_the_softmax_kernel_with_options_and_a_class_that_is_none():
    raw, target = wide_example(101, 60)
    weight = positive_weight(101).float()
    for loss in (losses.CrossEntropy(weight, ignore_index=2, z_loss=0.01), losses.CrossEntropy(ignore_index=-100)):
        ignored = target.masked_fill(torch.arange(60) % 4 == 0, loss.ignore_index)
        for sample_weight in (None, torch.arange(60) % 3 != 0, positive_weight(60)):
            options = {} if sample_weight is None else {"sample_weight": sample_weight}
            with evaluate_with(path="kernel"):
                found = mean_and_gradient(loss.formula, raw, ignored, **options)
            expected = mean_and_gradient(loss.formula, raw.double(), ignored, **options)
            assert found[0].dtype == torch.float32
            assert_close(found, tuple(each.float() for each in expected), rtol=1e-5, atol=1e-8)
    for wrong in (-1, 101):
        with evaluate_with(path="kernel"), pytest.raises(IndexError, match=f"class index {wrong}.*expected 0 to 100"):
            losses.cross_entropy(raw, target.index_fill(0, torch.tensor([3]), wrong))


@needs_numba
def test_an_empty_batch_is_zero_by_the_kernel():
    for weight in (None, torch.ones(0), torch.ones(0, 90)):
        value, gradient = by_path(
            "kernel", CATALOG["squared_error"], Case("empty", torch.zeros(0, 90), torch.zeros(0, 90), weight)
        )
        assert value == 0
        assert gradient.shape == (0, 90)


class SlopeOfAnother(SquaredErrorFormula):
    """``value_and_gradient`` is not the value and its gradient: the slope of the halved error."""

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(raw, target), raw - target


class ValueOfAnother(SquaredErrorFormula):
    """A value that is right, and beside the gradient one that is not."""

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(raw, target) + 1e-3, self.gradient(raw, target)


class ScoresOverwrittenTooEarly(CrossEntropyFormula):
    """Forgets in place what class was the true one."""

    def value_into(self, raw: Tensor, target: Tensor, gradient: Tensor) -> Tensor:
        value = self.value(raw, target)
        torch.softmax(raw, dim=-1, out=gradient)
        return value


@pytest.mark.parametrize("path", ["blockwise", "kernel"])
@pytest.mark.parametrize("wrong", [SlopeOfAnother, ValueOfAnother, ScoresOverwrittenTooEarly])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_formula_at_odds_with_itself_is_caught(path, wrong, dtype):
    loss = Twin(wrong())
    case = masked(loss, dtype)
    if path == "kernel" and running.obstacle(loss.formula, case.raw):
        pytest.skip("no kernel")
    with pytest.raises(AssertionError, match="units in the last place"):
        check_path(path, loss, case)


def test_an_error_of_a_few_roundings_is_caught():
    loss = CATALOG["squared_error"]
    case = Case("", *example(loss, 1000))
    value, gradient = plain = by_path("plain", loss, case)
    check_error(loss, case, plain, plain)
    for wrong in ((value * (1 + 1e-5), gradient), (value, gradient * (1 + 1e-5)), (value, gradient + 1e-8)):
        with pytest.raises(AssertionError, match="units in the last place"):
            check_error(loss, case, wrong, plain)


# Any partition of a batch.


@every_loss
@pytest.mark.usefixtures("small_blocks")
def test_micro_batches_add_up_to_the_batch(name):
    _adds_up("blockwise", CATALOG[name])


@every_kernel
@needs_numba
def test_micro_batches_add_up_to_the_batch_by_the_kernel(name):
    _adds_up("kernel", CATALOG[name])


@every_softmax_kernel
@needs_numba
def test_micro_batches_add_up_to_the_batch_by_the_softmax_kernel(name):
    raw, target = wide_example(101, 333)
    _adds_up("kernel", CATALOG[name], Case("", raw, target, positive_weight(333) * (torch.arange(333) % 3 != 0)))


def _adds_up(path: str, loss: losses.Loss, case: Case | None = None) -> None:
    case = case or masked(loss, torch.float32, 333)
    value, gradient = by_path(path, loss, case)
    total = case.weight.sum()
    parts = [
        by_path(path, loss, Case("", case.raw[rows], case.target[rows], case.weight[rows]), normalizer=normalizer)
        for rows, normalizer in zip(
            torch.arange(333).split([1, 130, 0, 64, 37, 101]),
            # The whole batch's weight, in every form that a caller may have it.
            [total, total.float(), total.item(), total, total, total],
            strict=True,
        )
    ]
    assert_close(sum(part[0] for part in parts), value, rtol=1e-5, atol=1e-6)
    assert_close(torch.cat([part[1] for part in parts]), gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("total", [7, 7.0, torch.tensor(7), torch.tensor(7.0), torch.tensor(7, dtype=torch.float64)])
@every_dtype
def test_a_normalizer_of_any_kind_has_the_precision_of_the_loss(total, dtype):
    raw, target = example(CATALOG["squared_error"], 50, dtype=dtype)
    case = Case("", raw, target)
    for path in ("plain", "blockwise"):
        found, expected = (by_path(path, CATALOG["squared_error"], case, normalizer=given) for given in (total, 7.0))
        assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=0)


# What is allocated besides the gradient.


def _spread_out(loss: losses.Loss, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Many blocks of 256 numbers; of classes so many that the samples are few."""
    if loss.facts.target is None:
        return wide_example(40, 100, dtype=dtype)
    return example(loss, 10, 130, dtype=dtype)


def _limit(loss: losses.Loss) -> int:
    """A formula that works in place may take larger blocks, with one array of their size beside them."""
    return 4 * 256 if loss.formula.works_in_place else 256


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_but_the_gradient_is_allocated(name, dtype, reduction, monkeypatch):
    blockwise._keep_freed_memory()
    monkeypatch.setattr(blockwise, "BLOCK", 256)
    loss = CATALOG[name]
    raw, target = _spread_out(loss, dtype)
    raw.requires_grad_()
    given = [(target, None), (target, torch.rand(len(target), generator=random()))]
    if target.is_floating_point():
        given += [(target.half(), torch.ones(target.shape, dtype=torch.bool))]
    if raw.shape == target.shape:
        given += [(target > 0.5, None), ((target > 0.5).long(), torch.ones(target.shape, dtype=torch.float64))]
    for wanted, weight in given:
        options = {"sample_weight": weight, "reduction": reduction}
        with evaluate_with(path="blockwise"), Allocations() as alone:
            evaluate(loss.formula, raw.detach(), wanted, **options)
        assert not alone.larger_than(256), f"for a target of {wanted.dtype}"
        with evaluate_with(path="blockwise"), Allocations() as together:
            torch.autograd.grad(evaluate(loss.formula, raw, wanted, **options), raw)
        assert together.larger_than(_limit(loss)) == [raw.numel()], f"for a target of {wanted.dtype}"


@every_loss
@pytest.mark.parametrize("itself", [False, True], ids=["a buffer", "the raw output"])
def test_into_a_buffer_nothing_is_allocated(name, itself, monkeypatch):
    blockwise._keep_freed_memory()
    monkeypatch.setattr(blockwise, "BLOCK", 256)
    raw, target = _spread_out(CATALOG[name], torch.float32)
    expected = by_path("plain", CATALOG[name], Case("", raw, target))
    buffer = raw if itself else torch.empty_like(raw)
    with evaluate_with(path="blockwise", gradient_buffer=buffer), Allocations() as allocations:
        value, gradient = mean_and_gradient(CATALOG[name].formula, raw, target)
    assert not allocations.larger_than(_limit(CATALOG[name]))
    assert gradient.data_ptr() == buffer.data_ptr()
    assert_close((value, gradient), expected, rtol=1e-4, atol=1e-7)


def test_the_record_of_allocations_sees_them():
    with Allocations() as allocations:
        big = torch.ones(1000)
        big.view(10, 100).mul_(2.0)
        (big + 1.0).sum()
    assert allocations.larger_than(500) == [1000, 1000]


# Which way, and why.


def _reason(name: str, raw: Tensor, *others: Tensor | float | None, **options: str) -> str:
    return str(choose_path(CATALOG[name].formula, raw, *others, **options))


def test_the_choice_and_its_reason():
    small, large = torch.zeros(8, 4), torch.zeros(1024, 1024)
    assert _reason("cross_entropy", small) == "blockwise: value and closed-form gradient in one sweep"
    assert "kernels know float32 and bfloat16, and raw is torch.float64" in _reason("squared_error", large.double())
    assert "raw is not contiguous" in _reason("squared_error", large.t())
    assert "every single one is wanted" in _reason("squared_error", large, reduction="none")
    assert lastlayer.explain("squared_error", small).path == "blockwise"
    assert lastlayer.explain("cross_entropy", small, label_smoothing=0.1).path == "blockwise"
    assert lastlayer.explain(lastlayer.heads.Bernoulli(), small).path == "blockwise"


@needs_numba
def test_a_large_elementwise_loss_takes_the_kernel():
    large = torch.zeros(1024, 1024)
    assert _reason("squared_error", large) == "kernel: value and closed-form gradient in one compiled loop"
    assert lastlayer.explain(losses.SquaredError(reduction="none"), large).path == "blockwise"
    assert "no kernel: hinge takes a whole row at once" in _reason("hinge", large)
    weighted = losses.BinaryCrossEntropy(pos_weight=torch.ones(1024))
    assert "an option is a tensor" in str(lastlayer.explain(weighted, large))
    assert "kernels run on the CPU" in _reason("squared_error", large.to("meta"))
    with evaluate_with(gradient_buffer=torch.empty(1024, 1024).t()):
        assert "gradient_buffer is not contiguous" in _reason("squared_error", large)


@needs_numba
def test_a_large_softmax_loss_takes_the_kernel_where_it_is_quicker():
    large = torch.zeros(1024, 1024, dtype=torch.bfloat16)
    assert _reason("cross_entropy", large) == "kernel: value and closed-form gradient in one compiled loop"
    assert _reason("cross_entropy", large, torch.zeros(1024, dtype=torch.long)).startswith("kernel")
    assert "the target is class probabilities" in _reason("cross_entropy", large, large)
    assert "PyTorch's own softmax is as quick in float32" in _reason("cross_entropy", large.float())
    assert "4 classes are few" in _reason("cross_entropy", large.view(-1, 4))
    smoothed = losses.CrossEntropy(label_smoothing=0.1)
    assert "cross_entropy takes a whole row at once" in str(lastlayer.explain(smoothed, large))


def test_reasons_for_the_plain_path():
    raw, target = torch.zeros(8, 4), torch.zeros(8, 4)
    assert _reason("squared_error", raw, target.clone().requires_grad_()) == (
        "plain: more than the raw output needs a gradient"
    )
    assert _reason("squared_error", raw.clone().requires_grad_(), target).startswith("blockwise")
    assert _reason("squared_error", torch.nn.Parameter(raw), target).startswith("blockwise")

    class Marked(Tensor):
        pass

    assert "Marked is a subclass with rules of its own" in _reason("squared_error", raw.as_subclass(Marked))
    assert "Marked is a subclass" in _reason("squared_error", raw, target.as_subclass(Marked))
    reasons = []
    torch.func.vmap(lambda row: (reasons.append(_reason("squared_error", row)), row)[1])(raw)
    with torch.autograd.forward_ad.dual_level():
        reasons.append(_reason("squared_error", raw))
    with evaluate_with(path="plain"):
        reasons.append(_reason("squared_error", raw))
    assert [reason.split()[1] for reason in reasons] == ["a", "forward-mode", "asked"]
    assert all(reason.startswith("plain: ") for reason in reasons)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_asked_for_runs(path):
    formula, raw = CATALOG["squared_error"].formula, torch.zeros(8)
    if path == "kernel" and running.obstacle(formula, raw):
        pytest.skip("no kernel")
    with evaluate_with(path=path):
        assert str(choose_path(formula, raw)) == f"{path}: asked for"
    assert choose_path(formula, raw).path == "blockwise"


@needs_numba
def test_a_path_that_cannot_serve_is_an_error_that_says_why():
    raw = torch.zeros(8, 4)
    for name, wrong, options, why in [
        ("hinge", raw, {}, "takes a whole row at once"),
        ("cross_entropy", raw, {}, "4 classes are few"),
        ("squared_error", raw.double(), {}, "raw is torch.float64"),
        ("squared_error", raw.t(), {}, "raw is not contiguous"),
        ("squared_error", raw, {"reduction": "none"}, "every single one is wanted"),
    ]:
        target = torch.zeros(8, dtype=torch.long) if name in OF_CLASSES else wrong.clone()
        with (
            evaluate_with(path="kernel"),
            pytest.raises(InputError, match=f"the path 'kernel' was asked for and cannot serve: .*{why}"),
        ):
            getattr(losses, name)(wrong, target, **options)


def test_an_unknown_path_names_the_known_ones():
    message = "path is 'fastest'; expected one of 'plain', 'blockwise', 'kernel', 'compiled'"
    with pytest.raises(InputError, match=message), evaluate_with(path="fastest"):
        pass


@every_kernel
def test_without_numba_the_blocks_serve(name, monkeypatch):
    monkeypatch.setattr(running, "_numba", lambda: False)
    loss = CATALOG[name]
    choice = lastlayer.explain(loss, torch.zeros(1 << 20))
    assert choice.path == "blockwise"
    assert "Numba is not installed (pip install 'lastlayer[kernels]')" in choice.reason
    with evaluate_with(path="kernel"), pytest.raises(InputError, match="Numba is not installed"):
        loss(*example(loss, 5))
    raw, target = (tensor.repeat(1 << 10) for tensor in example(loss, 1 << 10))
    value, gradient = mean_and_gradient(loss.formula, raw, target)
    expected = mean_and_gradient(loss.formula, raw[: 1 << 10], target[: 1 << 10])
    assert_close((value, gradient[: 1 << 10] * 1024), expected, rtol=1e-5, atol=1e-7)


@every_loss
def test_every_elementwise_loss_has_a_kernel(name):
    elementwise = CATALOG[name].formula.event_dims == 0
    assert not elementwise or name in KERNELS


def test_a_formula_without_tensors_says_so():
    assert not CrossEntropyFormula().tensors or CrossEntropyFormula().tensors == (None,)
    weight = torch.ones(3)
    assert any(each is weight for each in BinaryCrossEntropyFormula(pos_weight=weight).tensors)
    assert any(each is weight for each in Summed(BinaryCrossEntropyFormula(weight)).tensors)
