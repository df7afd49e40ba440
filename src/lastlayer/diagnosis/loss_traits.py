"""What a loss takes: which links it applies itself, and what its target looks like, as data."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lastlayer import losses
from lastlayer.evaluation import Formula
from lastlayer.facts import REAL, UNIT, Interval
from lastlayer.heads import Head
from lastlayer.losses import Loss

#: What a loss of raw outputs applies to them itself.
Link = Literal["softmax", "sigmoid", "exp", "softplus", "identity"]
#: What it takes that is no raw output.
Given = Literal["raw", "probabilities", "log probabilities", "rates"]

_NOT_NEGATIVE = Interval(0.0, math.inf, low_closed=True)
_SIGN = Interval(-1.0, 1.0, low_closed=True, high_closed=True)


@dataclass(frozen=True)
class LossTraits:
    """What has to be known of a loss to tell whether a network's output and a target go with it.

    Attributes:
        name: as a sentence names it.
        given: what it takes for its prediction.
        links: what it applies to raw outputs: one link for all of them, or one for each of as many equal parts of the
            last axis. Empty where that is not known, or where it takes no raw outputs.
        target: ``"classes"`` (indices, or probabilities of raw's shape), ``"signs"`` (1 and −1) or ``"numbers"``.
        domain: where the numbers lie.
        elementwise: whether prediction and target have one shape, and every element is compared with its own.
        squared: whether it is the squared distance of a prediction and its target.
        class_axis: where the classes are, of what has two axes or more.
        target_place: of the target among its arguments.
        ignore_index: the class index that says to pass a sample over, unless an option says another.
        classes_beyond_outputs: how many classes more there are than outputs: one, where the outputs are thresholds.
    """

    name: str
    given: Given = "raw"
    links: tuple[Link, ...] = ()
    target: Literal["classes", "signs", "numbers"] = "numbers"
    domain: Interval | None = None
    elementwise: bool = False
    squared: bool = False
    class_axis: int = 1
    target_place: int = 1
    ignore_index: int | None = None
    classes_beyond_outputs: int = 0

    @property
    def of_classes(self) -> bool:
        """Whether its target says which of several classes it is."""
        return self.target == "classes"


def _number(name: str, domain: Interval | None = REAL, link: Link | None = "identity", **more: Any) -> LossTraits:
    return LossTraits(name, links=(link,) if link else (), domain=domain, elementwise=True, **more)


CROSS_ENTROPY = LossTraits("cross-entropy", links=("softmax",), target="classes", ignore_index=-100)
BCE_WITH_LOGITS = _number("binary cross-entropy with logits", UNIT, "sigmoid")
BCE = _number("binary cross-entropy", UNIT, None, given="probabilities")
NLL = LossTraits(
    "the negative log-likelihood of classes", given="log probabilities", target="classes", ignore_index=-100
)
SQUARED_ERROR = _number("the squared error", squared=True)
ABSOLUTE_ERROR = _number("the absolute error")
DIFFERENCE = _number("a difference of prediction and target")
POISSON = _number("the Poisson loss of a log-rate", _NOT_NEGATIVE, "exp")
POISSON_OF_RATES = _number("the Poisson loss of a rate", _NOT_NEGATIVE, None, given="rates")

#: The losses of ``torch.nn.functional``, which the modules of ``torch.nn`` call, by name.
FUNCTIONS: Mapping[str, LossTraits] = {
    "cross_entropy": CROSS_ENTROPY,
    "nll_loss": NLL,
    "nll_loss_nd": NLL,
    "multi_margin_loss": LossTraits("the multi-class margin", target="classes"),
    "binary_cross_entropy_with_logits": BCE_WITH_LOGITS,
    "multilabel_soft_margin_loss": replace(BCE_WITH_LOGITS, name="the soft margin of labels"),
    "binary_cross_entropy": BCE,
    "mse_loss": SQUARED_ERROR,
    "l1_loss": ABSOLUTE_ERROR,
    "smooth_l1_loss": _number("the smooth absolute error"),
    "huber_loss": _number("Huber's loss"),
    "poisson_nll_loss": POISSON,
    "gaussian_nll_loss": _number("the Gaussian likelihood"),
    "kl_div": LossTraits(
        "the Kullback–Leibler divergence", given="log probabilities", domain=UNIT, elementwise=True, class_axis=-1
    ),
    "soft_margin_loss": LossTraits("the soft margin", links=("sigmoid",), target="signs", elementwise=True),
    "hinge_embedding_loss": LossTraits("the hinge of a distance", target="signs"),
    "margin_ranking_loss": LossTraits("the margin of a ranking", target="signs", target_place=2),
    "cosine_embedding_loss": LossTraits("the cosine of embeddings", target="signs", target_place=2),
}


def own_traits(loss: Any) -> LossTraits | None:
    """Of a head or a loss of this library, whatever it is wrapped in; ``None`` of anything else.

    Example:
        >>> own_traits(losses.cross_entropy).links
        ('softmax',)
    """
    if isinstance(loss, functools.partial):
        traits = own_traits(loss.func)
        given = {"dim": "class_axis", "ignore_index": "ignore_index"}
        changed = {given[name]: value for name, value in loss.keywords.items() if name in given}
        return replace(traits, **changed) if traits else None
    head = loss if isinstance(loss, Head) else getattr(loss, "__self__", None)
    if isinstance(head, Head):
        # A head's prediction has an axis of its own, and the head says itself what does not fit.
        return replace(_of_formula(head.formula), name=f"heads.{type(head).__name__}", elementwise=False)
    if isinstance(loss, Loss):
        return replace(_of_formula(loss.formula), name=f"losses.{type(loss).__name__}")
    name = getattr(loss, "__name__", "")
    if getattr(losses, name or "_", None) is loss and name in losses.catalog():
        return replace(_of_formula(losses.by_name(name).formula), name=f"losses.{name}")
    return None


def head_of(loss: Any) -> Head | None:
    """The head that a loss is, or is a method of."""
    head = loss.func if isinstance(loss, functools.partial) else loss
    head = head if isinstance(head, Head) else getattr(head, "__self__", None)
    return head if isinstance(head, Head) else None


def _of_formula(formula: Formula) -> LossTraits:
    """From the facts, which say the links in words: ``"identity, softplus; of log y"``."""
    facts = formula.facts
    classes = facts.target is None or facts.name == "cumulative_logit_nll"
    parts = facts.link.partition(";")[0].split(", ")
    links = tuple(link for part in parts if (link := _link(part)) is not None)
    return LossTraits(
        facts.name,
        links=links if len(links) == len(parts) else (),
        target="classes" if classes else "numbers",
        domain=None if classes else facts.target,
        elementwise=formula.event_dims == 0,
        squared=facts.name in ("squared_error", "sigmoid_squared_error", "regularized_expectation"),
        class_axis=-1,
        ignore_index=getattr(formula, "ignore_index", None),
        classes_beyond_outputs=int(facts.name == "cumulative_logit_nll"),
    )


def _link(words: str) -> Link | None:
    if words in ("softmax", "sigmoid", "exp", "identity"):
        return words  # type: ignore[return-value]
    # "2.01 + softplus" and "(softplus)⁻²" pass through one too; "distances by softplus" says something else.
    return "softplus" if words.endswith(("softplus", "(softplus)⁻²")) and "by" not in words else None
