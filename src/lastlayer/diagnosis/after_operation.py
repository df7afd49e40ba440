"""What an operation leaves of what is known: a link, a clamp, a function of one element, arithmetic with a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from lastlayer.diagnosis.operation import DROPOUT, Operation, names
from lastlayer.diagnosis.output_end import LOGARITHMS, End, Normalized
from lastlayer.diagnosis.spans import REAL, UNIT, Span

_SUMS = names("sum nansum cumsum")
SUMS_OF_TWO = names("add sub subtract rsub")
DIVISIONS = names("div truediv true_divide divide")
#: Functions of one element, beside the activations.
ELEMENTWISE = names(
    """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square abs sigmoid log_sigmoid tanh sinh cosh logit erf erfc atan
    arctan sin cos softplus relu leaky_relu elu selu celu gelu silu mish hardtanh relu6 hardswish hardsigmoid softsign
    tanhshrink softshrink hardshrink threshold pow reciprocal sinc asinh arcsinh"""
)

# A number added to keep a logarithm finite, not to change anything.
_GUARD = 1e-3


def after_arithmetic(operation: Operation, before: End, number: Any = None) -> End:
    """Of arithmetic with a number, which stands second unless the operator is a reversed one."""
    name, function, span = operation.name, str(getattr(operation.function, "__name__", "")), before.span
    if span is None:
        return End(None, source=operation)
    if name in DROPOUT or name in _SUMS:
        # Multiples of what it was, and sums of them: the signs are known.
        return _changed(before, Span(-math.inf if span.low < 0 else 0.0, math.inf if span.high > 0 else 0.0))
    if name in ("neg", "negative"):
        return _changed(before, span.times(-1.0))
    if number is None:
        number = operation.arguments[1] if len(operation.arguments) > 1 else operation.keywords.get("other")
    if not isinstance(number, int | float) or isinstance(number, bool):
        return End(None, source=operation)
    if name in SUMS_OF_TWO and abs(number) <= _GUARD and "rsub" not in function:
        return replace(before, parts=(), span=span.plus(Span(min(0.0, number), max(0.0, number))))
    if name in SUMS_OF_TWO:
        if "rsub" in function:
            return _changed(before, span.times(-1.0).plus(Span(number, number)))
        offset = number if name == "add" else -number
        return _changed(before, span.plus(Span(offset, offset)))
    if name in ("mul", "multiply"):
        return _changed(before, span.times(float(number)))
    if name in DIVISIONS:
        if "rdiv" in function or "rtruediv" in function:
            return _changed(before, span.under(float(number)))
        return _changed(before, span.times(1.0 / number) if number else None)
    return End(None, source=operation)


def _changed(before: End, span: Span | None) -> End:
    """The numbers are others now, and add up to something else; the operation that limits them is the same."""
    if span is None or not span.limited:
        return End(span, source=before.source)
    return replace(before, parts=(), span=span, normalized=None, altered=True)


def after_softmax(operation: Operation, before: End) -> End:
    """Probabilities, or their logarithms."""
    logarithm = operation.name == "log_softmax"
    span = Span(high=0.0) if logarithm else UNIT
    normalized: Normalized = "logarithms" if logarithm else "probabilities"
    return End(span, normalized, link=operation, before=before, source=before.source)


def after_clamp(operation: Operation, before: End) -> End:
    """What is cut; a guard against 0 limits nothing anew."""
    position = {"clamp_max": ("max",), "clamp_min": ("min",)}.get(operation.name, ("min", "max"))
    limits: dict[str, Any] = dict(zip(position, operation.arguments[1:], strict=False)) | operation.keywords
    low, high = limits.get("min"), limits.get("max")
    if before.span is None or any(isinstance(limit, Tensor) for limit in (low, high)):
        return End(None, source=before.source)
    span = before.span.cut(low, high)
    if before.normalized == "probabilities" and span.low <= _GUARD and span.high >= 1 - _GUARD:
        return replace(before, parts=(), span=span)
    if before.link is not None and before.span.within(Span(span.low - _GUARD, span.high + _GUARD)):
        return replace(before, parts=(), span=span)
    return End(span, link=operation if span.limited else None, before=before, source=before.source)


def after_function(operation: Operation, before: End) -> End:
    """What a function of one element makes of the span, as the function itself shows."""
    name = operation.name
    if before.normalized == "logarithms" and name == "exp":
        return replace(before, parts=(), span=UNIT, normalized="probabilities")
    if before.normalized == "probabilities" and name in LOGARITHMS:
        return replace(before, parts=(), span=Span(high=0.0), normalized="logarithms")
    given = REAL if before.span is None else before.span
    span = given.through(_of_one_element(operation))
    if span is None:
        return End(None, source=before.source)
    if before.span is None and not span.limited:
        return End(None, source=before.source)
    # A logarithm can be any number, and what it was taken of matters all the same.
    link = operation if span.limited or name in LOGARITHMS else None
    return End(span, link=link, before=before, source=before.source)


def _of_one_element(operation: Operation) -> Callable[[Tensor], Tensor]:
    keywords = {name: value for name, value in operation.keywords.items() if name not in ("input", "inplace", "out")}

    def function(points: Tensor) -> Tensor:
        values: Tensor = operation.function(points, *operation.arguments[1:], **keywords)
        return values

    return function
