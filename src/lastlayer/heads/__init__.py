"""Heads: a task as a likelihood, from raw output to named parameters, loss, gradient and predicted distribution.

``head`` says what a head is, and each has a file; ``choosing`` looks at a target and picks one.
"""

from typing import Any

from lastlayer.checks import InputError
from lastlayer.heads.admissible import admissible_heads
from lastlayer.heads.bernoulli import Bernoulli
from lastlayer.heads.categorical import Categorical
from lastlayer.heads.choosing import PROBLEM_TYPES, Choice, ProblemType, choose_head
from lastlayer.heads.counts import NegativeBinomial, Poisson
from lastlayer.heads.gaussian import Gaussian
from lastlayer.heads.head import Head
from lastlayer.heads.laplace import Laplace
from lastlayer.heads.mixture import Mixture
from lastlayer.heads.multi_label import MultiLabel
from lastlayer.heads.ordinal import Ordinal
from lastlayer.heads.positive import Gamma, LogNormal
from lastlayer.heads.quantiles import Quantiles
from lastlayer.heads.scale import LocationScaleHead
from lastlayer.heads.student_t import StudentT
from lastlayer.heads.unit import Beta, UnitInterval

_HEADS: tuple[type[Head], ...] = (
    Bernoulli,
    Categorical,
    Ordinal,
    MultiLabel,
    Gaussian,
    Laplace,
    StudentT,
    Mixture,
    Quantiles,
    LogNormal,
    Gamma,
    UnitInterval,
    Beta,
    Poisson,
    NegativeBinomial,
)


def catalog() -> dict[str, type[Head]]:
    """Every head's class by name; ``.facts`` says what it is for."""
    return {head.facts.name: head for head in _HEADS}


def from_text(text: str) -> Head:
    """A head from its name and, behind colons, its options: ``"laplace"``, ``"gaussian:predicted"``, ``"mixture:5"``.

    Raises:
        InputError: for a name that no head has, options that it does not take, or a head over classes, which has to be
            told how many there are.

    Example:
        >>> from_text("mixture:3:laplace").raw_size
        9
    """
    name, *options = text.split(":")
    head = named(name)
    if head.over_classes and head is not Bernoulli:
        raise InputError(f"head {name!r} has to know its classes or labels; make it as heads.{head.__name__}(…).")
    return head.from_options(*options)


def named(name: object) -> type[Head]:
    """The head's class by its name.

    Raises:
        InputError: for a name that no head has.
    """
    known = catalog()
    if not isinstance(name, str) or name not in known:
        raise InputError(f"there is no head named {name!r}; expected one of {', '.join(map(repr, known))}.")
    return known[name]


def from_dict(saved: dict[str, Any]) -> Head:
    """The head that ``head.to_dict()`` wrote.

    Raises:
        InputError: for a name or an option that no head has.
    """
    options = dict(saved)
    name = options.pop("name", None)
    head = named(name)
    try:
        return head(**options)
    except TypeError as error:
        raise InputError(f"head {name!r} does not take these options: {error}.") from error


__all__ = [
    "PROBLEM_TYPES",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Choice",
    "Gamma",
    "Gaussian",
    "Head",
    "Laplace",
    "LocationScaleHead",
    "LogNormal",
    "Mixture",
    "MultiLabel",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "ProblemType",
    "Quantiles",
    "StudentT",
    "UnitInterval",
    "admissible_heads",
    "catalog",
    "choose_head",
    "from_dict",
    "from_text",
    "named",
]
