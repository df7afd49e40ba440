"""Heads: a task as a likelihood, from raw output to named parameters, loss and gradient.

``classes`` and ``quantities`` hold the heads; ``choosing`` looks at a target and picks one.
"""

from typing import Any

from lastlayer.checks import InputError
from lastlayer.heads.choosing import PROBLEM_TYPES, Choice, ProblemType, choose_head
from lastlayer.heads.classes import Bernoulli, Categorical, MultiLabel
from lastlayer.heads.head import Head
from lastlayer.heads.quantities import ConstantScaleHead, Gaussian, Laplace, UnitInterval

_HEADS: tuple[type[Head], ...] = (Bernoulli, Categorical, MultiLabel, Gaussian, Laplace, UnitInterval)


def catalog() -> dict[str, type[Head]]:
    """Every head's class by name; ``.facts`` says what it is for."""
    return {head.facts.name: head for head in _HEADS}


def from_dict(saved: dict[str, Any]) -> Head:
    """The head that ``head.to_dict()`` wrote.

    Raises:
        InputError: for a name or an option that no head has.
    """
    options = dict(saved)
    name = options.pop("name", None)
    known = catalog()
    if name not in known:
        raise InputError(f"there is no head named {name!r}; expected one of {', '.join(map(repr, known))}.")
    try:
        return known[name](**options)
    except TypeError as error:
        raise InputError(f"head {name!r} does not take these options: {error}.") from error


__all__ = [
    "PROBLEM_TYPES",
    "Bernoulli",
    "Categorical",
    "Choice",
    "ConstantScaleHead",
    "Gaussian",
    "Head",
    "Laplace",
    "MultiLabel",
    "ProblemType",
    "UnitInterval",
    "catalog",
    "choose_head",
    "from_dict",
]
