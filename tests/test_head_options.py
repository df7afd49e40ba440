"""Options of heads: as text, as JSON, as arguments; and the examples that go with the defaults."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch.testing import assert_close

from lastlayer import heads
from lastlayer.checks import InputError
from loss_properties import random

every_head = pytest.mark.parametrize("head", heads.catalog().values(), ids=heads.catalog())

SPELLED = {
    "bernoulli": heads.Bernoulli(),
    "gaussian": heads.Gaussian(),
    "gaussian:constant": heads.Gaussian(scale="constant"),
    "gaussian:predicted": heads.Gaussian(scale="predicted"),
    "gaussian:0.25": heads.Gaussian(scale=0.25),
    "gaussian:1e-3": heads.Gaussian(scale=0.001),
    "laplace": heads.Laplace(),
    "laplace:constant": heads.Laplace(scale="constant"),
    "laplace:predicted": heads.Laplace(scale="predicted"),
    "laplace:3": heads.Laplace(scale=3.0),
    "student_t": heads.StudentT(),
    "student_t:4": heads.StudentT(degrees_of_freedom=4.0),
    "student_t:2.5": heads.StudentT(degrees_of_freedom=2.5),
    "mixture": heads.Mixture(),
    "mixture:2": heads.Mixture(components=2),
    "mixture:2:gaussian": heads.Mixture(components=2),
    "mixture:1:laplace": heads.Mixture(components=1, family="laplace"),
    "mixture:3:logistic": heads.Mixture(components=3, family="logistic"),
    "mixture:3:student_t": heads.Mixture(components=3, family="student_t"),
    "quantiles": heads.Quantiles(),
    "quantiles:0.1,0.5,0.9": heads.Quantiles(levels=(0.1, 0.5, 0.9)),
    "quantiles:0.25,0.75": heads.Quantiles(levels=(0.25, 0.75)),
    "log_normal": heads.LogNormal(),
    "gamma": heads.Gamma(),
    "unit_interval": heads.UnitInterval(),
    "unit_interval:binary_cross_entropy": heads.UnitInterval(criterion="binary_cross_entropy"),
    "unit_interval:squared_error": heads.UnitInterval(criterion="squared_error"),
    "beta": heads.Beta(),
    "poisson": heads.Poisson(),
    "negative_binomial": heads.NegativeBinomial(),
}

MISSPELLED = {
    "": "there is no head named ''; expected one of 'bernoulli'",
    "gausian": "there is no head named 'gausian'; expected one of 'bernoulli'",
    "Gaussian": "there is no head named 'Gaussian'",
    " gaussian": "there is no head named ' gaussian'",
    ":predicted": "there is no head named ''",
    "bernoulli:2": "head 'bernoulli' takes no options, and '2' was given",
    "beta:0.1:0.2": "head 'beta' takes no options, and '0.1:0.2' was given",
    "gamma:1": "head 'gamma' takes no options",
    "log_normal:1": "head 'log_normal' takes no options",
    "poisson:": "head 'poisson' takes no options",
    "negative_binomial:1": "head 'negative_binomial' takes no options",
    "categorical": r"head 'categorical' has to know its classes or labels; make it as heads\.Categorical\(…\)",
    "categorical:3": "head 'categorical' has to know its classes",
    "ordinal": r"make it as heads\.Ordinal\(…\)",
    "ordinal:3": r"make it as heads\.Ordinal\(…\)",
    "multilabel": r"make it as heads\.MultiLabel\(…\)",
    "gaussian:": "head 'gaussian': '' is neither 'constant' nor 'predicted' nor a number",
    "gaussian:wide": "head 'gaussian': 'wide' is neither 'constant' nor 'predicted' nor a number",
    "gaussian:Predicted": "'Predicted' is neither 'constant' nor 'predicted' nor a number",
    "gaussian:0": "Gaussian: scale is 0.0; expected a positive",
    "gaussian:-2": "Gaussian: scale is -2.0; expected a positive",
    "gaussian:nan": "Gaussian: scale is nan",
    "gaussian:1e999": "Gaussian: scale is inf",
    "gaussian:predicted:0.5": r"head 'gaussian' was given 'predicted:0.5'; expected gaussian:constant \| predicted",
    "laplace:1:2": "head 'laplace' was given '1:2'; expected laplace:constant",
    "laplace:wide": "head 'laplace': 'wide' is neither",
    "student_t:many": "head 'student_t': 'many' is not a number",
    "student_t:0": "degrees_of_freedom is 0.0; expected a number in",
    "student_t:inf": "degrees_of_freedom is inf",
    "student_t:4:5": "expected student_t:DEGREES_OF_FREEDOM",
    "mixture:0": "Mixture: components is 0; expected a whole number, 1 or more",
    "mixture:-1": "head 'mixture': '-1' is not a whole number",
    "mixture:2.5": "head 'mixture': '2.5' is not a whole number",
    "mixture:²": "head 'mixture': '²' is not a whole number",
    "mixture:": "head 'mixture': '' is not a whole number",
    "mixture:laplace": "head 'mixture': 'laplace' is not a whole number",
    "mixture:2:cauchy": "family is 'cauchy'",
    "mixture:2:": "family is ''",
    "mixture:2:laplace:1": "expected mixture:COMPONENTS:FAMILY",
    "quantiles:": "head 'quantiles': '' is not a number",
    "quantiles:0.1,,0.9": "head 'quantiles': '' is not a number",
    "quantiles:0.1;0.9": "head 'quantiles': '0.1;0.9' is not a number",
    "quantiles:0.5": "expected at least two",
    "quantiles:0.9,0.1": "expected rising numbers",
    "quantiles:0.1,0.1": "expected rising numbers",
    "quantiles:0,0.5": r"a level is 0.0; expected a number in \(0, 1\)",
    "quantiles:0.5,1.5": r"a level is 1.5; expected a number in \(0, 1\)",
    "quantiles:nan,0.5": "a level is nan",
    "quantiles:0.1:0.9": "quantiles.*0.1:0.9",
    "unit_interval:mse": "criterion is 'mse'",
    "unit_interval:": "criterion is ''",
    "unit_interval:squared_error:1": "expected unit_interval:binary_cross_entropy",
}


@pytest.mark.parametrize(("text", "head"), SPELLED.items(), ids=SPELLED)
def test_spelled(text, head):
    found = heads.from_text(text)
    assert found == head
    assert type(found) is type(head)
    assert heads.from_dict(json.loads(json.dumps(found.to_dict()))) == head


@pytest.mark.parametrize(("text", "message"), MISSPELLED.items(), ids=MISSPELLED)
def test_misspelled(text, message):
    with pytest.raises(InputError, match=message):
        heads.from_text(text)


@every_head
def test_what_the_facts_say_of_options_is_so(head):
    """Every alternative that is spelled in lower case is taken; a head without options takes none."""
    name, options = head.facts.name, head.facts.spelling
    if head.over_classes:
        assert options is None
        return
    if options is None:
        with pytest.raises(InputError, match="takes no options"):
            heads.from_text(f"{name}:1")
        return
    words = re.findall(r"\b[a-z_]{4,}\b", options)
    for word in words:
        assert heads.from_text(f"{name}:{word}").facts.name == name
    # And somebody has tried each of them above.
    assert all(f"{name}:{word}" in SPELLED for word in words)
    assert sum(text.startswith(f"{name}:") for text in SPELLED) > len(words) - 1
    assert any(text.startswith(f"{name}:") for text in SPELLED)
    assert any(text.startswith(f"{name}:") for text in MISSPELLED)
    with pytest.raises(InputError, match=re.escape(options) if name != "quantiles" else "quantiles"):
        heads.from_text(f"{name}:1:2:3")


@every_head
def test_named(head):
    assert heads.named(head.facts.name) is head
    for wrong in (None, 3, head, head.__name__):
        with pytest.raises(InputError, match="there is no head named"):
            heads.named(wrong)


DICTS = [
    ({}, "there is no head named None"),
    ({"name": "gausian"}, "there is no head named 'gausian'; expected one of 'bernoulli', 'categorical'"),
    ({"name": "categorical"}, "'categorical' does not take these options"),
    ({"name": "categorical", "labels": 3}, "'categorical' does not take these options"),
    ({"name": "categorical", "classes": 1}, "classes is 1; expected a whole number, 2 or more"),
    ({"name": "categorical", "classes": 3.0}, "classes is 3.0"),
    ({"name": "ordinal", "classes": "3"}, "classes is '3'"),
    ({"name": "multilabel", "labels": None}, "labels is None"),
    ({"name": "gaussian", "sigma": 1.0}, "'gaussian' does not take these options"),
    ({"name": "gaussian", "scale": None}, "scale is None"),
    ({"name": "gaussian", "scale": "wide"}, "scale is 'wide'; expected 'constant', 'predicted' or a positive"),
    ({"name": "gaussian", "scale": True}, "scale is True"),
    ({"name": "gaussian", "scale": [1.0]}, "scale is"),
    ({"name": "gaussian", "fitted_scale": 0.0}, "fitted_scale is 0.0"),
    ({"name": "gaussian", "fitted_scale": "1"}, "fitted_scale is '1'"),
    ({"name": "gaussian", "beta": 1.5}, "beta is 1.5"),
    ({"name": "gaussian", "beta": "0.5"}, "'gaussian' does not take these options"),
    ({"name": "laplace", "minimum_scale": 0.0}, "minimum_scale is 0.0"),
    ({"name": "laplace", "minimum_scale": None}, "'laplace' does not take these options"),
    ({"name": "student_t", "degrees_of_freedom": -1.0}, "degrees_of_freedom is -1.0"),
    ({"name": "mixture", "components": 2.0}, "components is 2.0"),
    ({"name": "mixture", "family": "cauchy"}, "family is 'cauchy'"),
    ({"name": "quantiles", "levels": None}, "levels are None; expected numbers"),
    ({"name": "quantiles", "levels": 0.5}, "levels are 0.5; expected numbers"),
    ({"name": "quantiles", "levels": []}, "levels are"),
    ({"name": "quantiles", "levels": [0.5]}, "expected at least two"),
    ({"name": "quantiles", "levels": ["low", "high"]}, "levels are"),
    ({"name": "unit_interval", "scale": "predicted"}, r"one per sample take Beta\(\)"),
    ({"name": "unit_interval", "scale": "wide"}, "UnitInterval: scale is 'wide'; expected 'constant' or a positive"),
    ({"name": "unit_interval", "fitted_scale": -1}, "UnitInterval: fitted_scale is -1"),
    ({"name": "beta", "margin": 0.5}, "margin is 0.5"),
    ({"name": "beta", "margin": 0.0}, "margin is 0.0"),
    ({"name": "gamma", "minimum_scale": -1.0}, "minimum_scale is -1.0"),
]


@pytest.mark.parametrize(("saved", "message"), DICTS, ids=str)
def test_a_saved_head_that_cannot_be(saved, message):
    before = dict(saved)
    with pytest.raises(InputError, match=message):
        heads.from_dict(saved)
    assert saved == before


def test_levels_from_json_are_a_list():
    head = heads.from_dict({"name": "quantiles", "levels": [0.1, 0.5, 0.9]})
    assert head == heads.Quantiles(levels=(0.1, 0.5, 0.9)) == heads.Quantiles(levels=[0.1, 0.5, 0.9])
    assert head.levels == (0.1, 0.5, 0.9)
    assert hash(head) == hash(heads.Quantiles(levels=(0.1, 0.5, 0.9)))
    assert head.to_dict() == {"name": "quantiles", "levels": [0.1, 0.5, 0.9]}
    assert_close(
        head.loss(torch.zeros(2, 3), torch.ones(2)),
        heads.Quantiles((0.1, 0.5, 0.9)).loss(torch.zeros(2, 3), torch.ones(2)),
    )


@pytest.mark.parametrize("head", [heads.Gaussian, heads.Laplace])
@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan, math.inf])
def test_beta_lies_between_the_likelihood_and_the_squared_error(head, beta):
    for scale in ("predicted", "constant", 1.0):
        with pytest.raises(InputError, match=rf"{head.__name__}: beta is .*expected a number in \[0, 1\]"):
            head(scale=scale, beta=beta)


def test_beta_may_be_either_end():
    raw, target = torch.randn(5, 2, generator=random()), torch.zeros(5)
    for head in (heads.Gaussian, heads.Laplace):
        losses = [head(scale="predicted", beta=beta).loss(raw, target) for beta in (0, 0.0, 1, 1.0)]
        assert losses[0] == losses[1]
        assert losses[2] == losses[3]
        assert losses[0] != losses[2]
        # Without a predicted scale there is nothing that it could weigh.
        assert head(beta=0.0).loss(raw[:, :1], target) == head(beta=1.0).loss(raw[:, :1], target)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, None, True, [1.0], torch.tensor(1.0)], ids=str)
@pytest.mark.parametrize("head", [heads.Gaussian, heads.Laplace, heads.UnitInterval])
def test_scale_must_be_positive(head, scale):
    with pytest.raises(InputError, match=f"{head.__name__}: scale is .*expected a positive"):
        head(scale=scale)
    with pytest.raises(InputError, match=f"{head.__name__}: fitted_scale is .*expected a positive"):
        head(fitted_scale=scale)


def test_a_whole_number_is_a_scale():
    raw, target = torch.randn(5, 1, generator=random()), torch.zeros(5)
    for head in (heads.Gaussian, heads.Laplace):
        assert head(scale=2) == head(scale=2.0)
        assert head(scale=2).loss(raw, target) == head(scale=2.0).loss(raw, target)
        assert_close(head(scale=2).parameters(raw)["scale"], torch.full((5,), 2.0))


def test_counts_must_be_whole_and_enough():
    for head in (heads.Categorical, heads.Ordinal):
        for wrong in (1, 0, -3, 2.0, True, "3", None):
            with pytest.raises(InputError, match=rf"{head.__name__}: classes is .*whole number, 2 or more"):
                head(classes=wrong)
    for wrong in (0, 1.0, True):
        with pytest.raises(InputError, match=r"labels is .*whole number, 1 or more"):
            heads.MultiLabel(labels=wrong)
        with pytest.raises(InputError, match=r"components is .*whole number, 1 or more"):
            heads.Mixture(components=wrong)
    with pytest.raises(InputError, match="criterion is 'mse'"):
        heads.UnitInterval(criterion="mse")


@every_head
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_example_fits_the_default(head, dtype):
    made = head.default()
    raw, target = head.facts.example(50, dtype=dtype, generator=random(4))
    assert raw.shape == (50, made.raw_size)
    assert raw.dtype == dtype
    assert len(target) == 50
    assert target.dtype in (dtype, torch.int64)
    made.check_target(target)
    assert made.negative_log_likelihood(raw, target).shape == (50,)
    assert made.loss(raw, target).isfinite()
    assert made.initial_bias(target, torch.ones(50, dtype=dtype)).isfinite().all()
    assert len(target.unique()) > 1
    assert (raw.std(0) > 0).all()


@every_head
def test_the_example_is_repeatable_and_takes_any_number(head):
    again = [head.facts.example(7, dtype=torch.float64, generator=random(4)) for _ in range(2)]
    assert_close(again[0], again[1], rtol=0, atol=0)
    other = head.facts.example(7, dtype=torch.float64, generator=random(5))
    assert not torch.equal(again[0][0], other[0])
    # Drawn from the generator alone, whatever PyTorch's own stands at.
    torch.manual_seed(1)
    assert_close(head.facts.example(7, dtype=torch.float64, generator=random(4)), again[0], rtol=0, atol=0)
    for n in (0, 1):
        raw, target = head.facts.example(n)
        assert raw.shape == (n, head.default().raw_size)
        assert raw.dtype == torch.float32
        assert len(target) == n


@every_head
def test_the_default_has_every_option_at_its_default(head):
    made = head.default()
    assert isinstance(made, head)
    assert made == head.default()
    if head not in (heads.Categorical, heads.Ordinal, heads.MultiLabel, heads.Mixture):
        assert made == head()
