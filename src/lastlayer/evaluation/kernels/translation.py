"""From a formula's PyTorch code to scalar arithmetic: value and gradient of one element, as Python source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from lastlayer.evaluation.formula import Formula

#: What PyTorch calls it → the arithmetic, with the names of its operands filled in. A name with parentheses is a
#: function of ``scalar_math``.
_OPERATIONS: dict[str, str] = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "truediv": "{} / {}",
    "neg": "-{}",
    "abs": "abs({})",
    "square": "{0} * {0}",
    "reciprocal": "ONE / {}",
    "minimum": "minimum({}, {})",
    "maximum": "maximum({}, {})",
    "clamp_min": "maximum({}, {})",
    "clamp_max": "minimum({}, {})",
    "relu": "maximum({}, ZERO)",
    "where": "{1} if {0} else {2}",
    "lerp": "lerp({}, {}, {})",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "sign": "sign({})",
    "copysign": "copysign({}, {})",
    "sqrt": "sqrt({})",
    "exp": "exp({})",
    "expm1": "expm1({})",
    "log": "log({})",
    "log1p": "log1p({})",
    "sigmoid": "sigmoid({})",
    "logsigmoid": "log_sigmoid({})",
    "log_sigmoid": "log_sigmoid({})",
    "softplus": "softplus({})",
    "tanh": "tanh({})",
    "lgamma": "lgamma({})",
    "sinh": "sinh({})",
    "cosh": "cosh({})",
    "zeros_like": "ZERO",
    "ones_like": "ONE",
}
_POWERS: dict[Any, str] = {
    2: "{0} * {0}",
    3: "{0} * {0} * {0}",
    4: "({0} * {0}) * ({0} * {0})",
    0.5: "sqrt({0})",
    1: "{0}",
}


class NotElementwise(Exception):
    """The formula has something in it that is no arithmetic on a single element."""


@dataclass(frozen=True)
class Source:
    """A scalar function ``element(raw, target) -> (value, gradient)`` and the numbers that stand in it."""

    code: str
    constants: tuple[tuple[str, float], ...]


def translate(formula: Formula) -> Source:
    """The formula's ``value_and_gradient`` as a scalar function.

    Raises:
        NotElementwise: naming the operation that has no scalar counterpart.
    """
    try:
        graph = fx.Tracer().trace(_as_function(formula.value_and_gradient))
    except Exception as error:
        # Whatever a formula does that a symbol cannot, from asking for a shape to branching on a value.
        raise NotElementwise(str(error).splitlines()[0]) from error
    return _Writer().write(graph)


def _as_function(value_and_gradient: Callable[..., Any]) -> Callable[..., Any]:
    def element(raw: torch.Tensor, target: torch.Tensor) -> Any:
        return value_and_gradient(raw, target)

    return element


class _Writer:
    """Writes a traced graph line by line."""

    def __init__(self) -> None:
        self.constants: dict[str, float] = {}
        self.lines: list[str] = []

    def write(self, graph: fx.Graph) -> Source:
        for node in graph.nodes:
            if node.op == "output":
                value, gradient = (self._operand(part) for part in node.args[0])
                self.lines.append(f"return {value}, {gradient}")
            elif node.op in ("call_function", "call_method"):
                self.lines.append(f"of_{node.name} = {self._expression(node)}")
            elif node.op != "placeholder":
                raise NotElementwise(f"it reads the tensor {node.target}")
        body = "\n    ".join(self.lines)
        return Source(f"def element(raw, target):\n    {body}\n", tuple(self.constants.items()))

    def _expression(self, node: fx.Node) -> str:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        operands = [self._operand(operand) for operand in node.args]
        if name == "clamp":
            return self._clamp(node)
        if name == "pow" and not node.kwargs and node.args[1] in _POWERS:
            return _POWERS[node.args[1]].format(operands[0])
        if node.kwargs or name not in _OPERATIONS:
            raise NotElementwise(f"the operation {name} has no scalar counterpart here")
        return _OPERATIONS[name].format(*operands)

    def _clamp(self, node: fx.Node) -> str:
        low, high = (node.kwargs.get(name) for name in ("min", "max"))
        if len(node.args) > 1:
            low = node.args[1]
        if len(node.args) > 2:
            high = node.args[2]
        result = self._operand(node.args[0])
        if low is not None:
            result = f"maximum({result}, {self._operand(low)})"
        return result if high is None else f"minimum({result}, {self._operand(high)})"

    def _operand(self, operand: Any) -> str:
        if isinstance(operand, fx.Node):
            # A prefix, lest the result of tanh be called as tanh is.
            return operand.name if operand.op == "placeholder" else f"of_{operand.name}"
        if not isinstance(operand, (int, float)):
            raise NotElementwise(f"{operand!r} is no number")
        name = f"constant_{len(self.constants)}"
        self.constants[name] = float(operand)
        return name
