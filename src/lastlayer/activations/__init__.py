"""Activations: each a function and a module of the same name, with its derivative and its facts."""

import torch

from lastlayer.activations.activation import Activation
from lastlayer.activations.arctan import Arctan, arctan
from lastlayer.activations.binary_step import BinaryStep, binary_step
from lastlayer.activations.elu import ELU, elu
from lastlayer.activations.gated import GELU, SiLU, gelu, silu
from lastlayer.activations.identity import Identity, identity
from lastlayer.activations.maxout import Maxout, maxout
from lastlayer.activations.prelu import PReLU, prelu
from lastlayer.activations.relu import LeakyReLU, ReLU, leaky_relu, relu
from lastlayer.activations.rrelu import RReLU, rrelu
from lastlayer.activations.sigmoid import Sigmoid, sigmoid
from lastlayer.activations.softmax import LogSoftmax, Softmax, log_softmax, softmax
from lastlayer.activations.softplus import Softplus, softplus
from lastlayer.activations.tanh import Tanh, tanh

_MODULES: tuple[type[Activation], ...] = (
    Identity,
    BinaryStep,
    Sigmoid,
    Softmax,
    LogSoftmax,
    Tanh,
    Arctan,
    ReLU,
    LeakyReLU,
    RReLU,
    PReLU,
    ELU,
    Softplus,
    SiLU,
    GELU,
    Maxout,
)


def modules() -> dict[str, type[Activation]]:
    """Every activation's module by name. All are made without arguments, but for maxout, which has a width."""
    return {module.facts.name: module for module in _MODULES}


def catalog() -> dict[str, Activation]:
    """Every activation by name, with its default options, in evaluation mode.

    Each has ``.facts``, ``.value``, ``.derivative``, ``.profile``, and is callable. Maxout is one of 3 inputs and 4
    units, as its facts' example has them, with weights that are always the same.
    """
    wide = Maxout(3, 4, generator=torch.Generator().manual_seed(0))
    return {name: (wide if module is Maxout else module()).eval() for name, module in modules().items()}


__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "Arctan",
    "BinaryStep",
    "Identity",
    "LeakyReLU",
    "LogSoftmax",
    "Maxout",
    "PReLU",
    "RReLU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "arctan",
    "binary_step",
    "catalog",
    "elu",
    "gelu",
    "identity",
    "leaky_relu",
    "log_softmax",
    "maxout",
    "modules",
    "prelu",
    "relu",
    "rrelu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
