"""What is wrong with options, shapes and targets of the likelihoods is said."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lastlayer import losses
from lastlayer.checks import ClassIndexError, DomainError, InputError, KindError, ShapeError
from lastlayer.evaluation import evaluate_with
from lastlayer.losses.absolute_error import AbsoluteErrorFormula
from lastlayer.losses.beta_nll import MARGIN
from lastlayer.losses.beta_weighted import BetaWeighted
from lastlayer.losses.gaussian_nll import GaussianNLLFormula
from likelihood_cases import CATALOG, NAMES
from loss_properties import example


@pytest.mark.parametrize("index", [-1, 5, 100])
def test_an_index_without_a_class_is_an_error(index):
    raw, target = example(CATALOG["cumulative_logit_nll"])
    target[3] = index
    scores = raw.clone().requires_grad_()
    for call in (
        lambda: losses.cumulative_logit_nll(raw, target),
        lambda: losses.cumulative_logit_nll(scores, target),
        lambda: CATALOG["cumulative_logit_nll"].gradient(raw, target),
    ):
        with pytest.raises(ClassIndexError, match=f"class index {index} among targets of 5 classes"):
            call()
    with evaluate_with(path="plain"), pytest.raises(IndexError):
        losses.cumulative_logit_nll(raw, target)
    # Where the host may not look, it is at least no perfect prediction.
    each = torch.func.vmap(losses.cumulative_logit_nll)(raw, target)
    assert each[3].isnan()
    assert each.isnan().sum() == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.StudentTNLL(degrees_of_freedom=0.0),
            DomainError,
            r"degrees_of_freedom is 0\.0; expected .*\(0",
        ),
        (lambda: losses.StudentTNLL(minimum_scale=0.0), DomainError, r"student_t_nll: minimum_scale is 0\.0"),
        (lambda: losses.LogNormalNLL(minimum_scale=-1.0), DomainError, r"log_normal_nll: minimum_scale is -1\.0"),
        (lambda: losses.GammaNLL(minimum_scale=math.inf), DomainError, "gamma_nll: minimum_scale is inf"),
        (
            lambda: losses.BetaNLL(margin=0.5),
            DomainError,
            r"beta_nll: margin is 0\.5; expected a number in \(0, 0\.5\)",
        ),
        (lambda: losses.BetaNLL(minimum_scale=0.0), DomainError, "beta_nll: minimum_scale"),
        (lambda: losses.NegativeBinomialNLL(minimum_scale=0.0), DomainError, "negative_binomial_nll: minimum_scale"),
        (lambda: losses.CumulativeLogitNLL(classes=1), InputError, "classes is 1; expected a whole number from 2 on"),
        (lambda: losses.Quantiles(levels=()), InputError, r"levels are \(\); expected rising numbers"),
        (lambda: losses.Quantiles(levels=(0.5, 0.1)), InputError, "expected rising numbers"),
        (lambda: losses.Quantiles(levels=(0.5, 1.0)), DomainError, r"a level is 1\.0; expected a number in \(0, 1\)"),
        (
            lambda: losses.MixtureNLL(degrees_of_freedom=3.0),
            InputError,
            r"degrees_of_freedom is 3\.0 and family 'gaussian'; expected them with 'student_t' alone",
        ),
        (
            lambda: losses.MixtureNLL(family="student_t", degrees_of_freedom=-1.0),
            DomainError,
            "degrees_of_freedom is -1",
        ),
        (lambda: BetaWeighted(GaussianNLLFormula(), 1.5), DomainError, r"beta is 1\.5; expected a number in \[0, 1\]"),
        (lambda: BetaWeighted(AbsoluteErrorFormula()), InputError, "the loss inside is AbsoluteErrorFormula"),
    ],
)
def test_options_outside_their_domain_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", NAMES)
def test_likelihood_shapes_name_the_fix(name):
    function, (raw, target) = getattr(losses, name), example(CATALOG[name], 4)
    with pytest.raises(ShapeError, match=r"Fix: drop the last axis of target: target\.squeeze\(-1\)"):
        function(raw, target.unsqueeze(-1))
    with pytest.raises(ShapeError, match=r"raw has shape \(\), target \(\)"):
        function(torch.zeros(()), target[0])
    if name != "cumulative_logit_nll":
        with pytest.raises(ShapeError, match=rf"expected raw of shape \(\.\.\., {raw.shape[-1]}\), "):
            function(torch.zeros(4, 7), target)
    else:
        with pytest.raises(ShapeError, match=r"expected raw of shape \(\.\.\., 2\)"):
            function(raw, target, classes=3)
        for wrong in (target.double(), target > 1):
            with pytest.raises(KindError, match=r"expected class indices. Fix: target\.long\(\)"):
                function(raw, wrong)


def test_a_share_at_an_end_is_moved_inside():
    raw = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    found = losses.beta_nll(raw, torch.tensor([0.0, 1.0]), reduction="none")
    assert_close(found, losses.beta_nll(raw, torch.tensor([MARGIN, 1.0 - MARGIN]), reduction="none"))
