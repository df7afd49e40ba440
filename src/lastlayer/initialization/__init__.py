"""Initialization: where the weights of a network start, and why there."""

from lastlayer.initialization.best_constant import start_as_constant
from lastlayer.initialization.data_dependent import LSUV
from lastlayer.initialization.gains import gain
from lastlayer.initialization.network import initialize
from lastlayer.initialization.record import Initialization, LayerStart
from lastlayer.initialization.rules import RULES, Constant, Glorot, He, Normal, Orthogonal, Rule, Xavier

__all__ = [
    "LSUV",
    "RULES",
    "Constant",
    "Glorot",
    "He",
    "Initialization",
    "LayerStart",
    "Normal",
    "Orthogonal",
    "Rule",
    "Xavier",
    "gain",
    "initialize",
    "start_as_constant",
]
