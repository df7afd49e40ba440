"""Why an operation made NaN or infinity of finite numbers, and what to write instead."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.diagnosis.operation import Operation
from lastlayer.diagnosis.tensors import tensors_in

_LOGARITHMS = ("log", "log2", "log10", "log1p", "xlogy")
_POWERS = ("exp", "exp2", "expm1", "sinh", "cosh", "pow", "square", "cumprod", "prod")
_ROOTS = ("sqrt", "rsqrt", "pow", "norm", "vector_norm", "linalg_norm", "linalg_vector_norm", "std", "cdist")
_LINKS = ("softmax", "log_softmax", "logsumexp", "softmin", "scaled_dot_product_attention")
_QUOTIENTS = ("div", "truediv", "true_divide", "divide", "reciprocal", "remainder", "fmod")
_BOUNDED = {"acos": 1.0, "arccos": 1.0, "asin": 1.0, "arcsin": 1.0, "atanh": 1.0, "arctanh": 1.0}
_SPREADS = ("std", "var", "std_mean", "var_mean")


def cause_of_output(operation: Operation) -> tuple[str, str]:
    """Evidence and fix for an output that is not finite.

    The evidence continues "it made 3 NaN of 64 numbers: ...".
    """
    name, x = operation.name, operation.input
    inputs = inputs_of(operation)
    if x is None or operation.output is None or not inputs:
        return "what went in was not recorded", "Keep its inputs inside its domain."
    low, high = float(x.min()) if x.numel() else 0.0, float(x.max()) if x.numel() else 0.0
    if not x.numel():
        return "its input has no elements", "Give it at least one: check what was selected, or the batch's size."
    if name in _LOGARITHMS and low <= 0:
        return (
            f"{_count(x <= 0, 'input')} 0 or less, where the logarithm has no value; the smallest is {low:.3g}",
            "Take the logarithm of what is positive by construction: F.log_softmax, F.logsigmoid or F.softplus of raw "
            "scores, or torch.log(x.clamp_min(1e-6)).",
        )
    if name in _QUOTIENTS:
        divisor = inputs[-1] if name != "reciprocal" else x
        zeros = (divisor == 0).sum().item() if len(inputs) > 1 or name == "reciprocal" else 0
        number = operation.options.get("1")
        if zeros or number == 0:
            return (
                f"it divides by 0 ({_count(divisor == 0, 'divisor')} 0)" if zeros else "it divides by 0",
                "Add a small number to the divisor, as normalization layers do: x / (y + 1e-6).",
            )
    if name in ("sqrt", "rsqrt", "pow") and low < 0:
        return (
            f"{_count(x < 0, 'input')} negative, down to {low:.3g}",
            "Take it of what cannot be negative: x.clamp_min(0), or F.softplus of a raw scale.",
        )
    if name in _LINKS and bool(x.isneginf().any()):
        return (
            "a whole row of its input is -infinity: everything in it is masked",
            "Leave at least one entry of every row unmasked, or mask with a large finite number: "
            "torch.finfo(x.dtype).min.",
        )
    if name in ("cross_entropy", "nll_loss") and bool(x.isneginf().any()):
        return (
            "its input is -infinity for the class that is right",
            "Mask no class that occurs as a target, and let no probability be exactly 0 before its logarithm.",
        )
    if name in _BOUNDED and max(-low, high) > _BOUNDED[name]:
        return (
            f"its inputs reach from {low:.3g} to {high:.3g}, and it has values from -1 to 1 alone",
            "Clamp its input: x.clamp(-1 + 1e-6, 1 - 1e-6).",
        )
    if name in _SPREADS and bool(operation.output.isnan().any()):
        return (
            "a spread with correction=1 divides by n - 1, and n is 1",
            "Use larger batches, or correction=0.",
        )
    largest = torch.finfo(operation.output.dtype).max
    if name in _POWERS or max(-low, high) > largest**0.5:
        return (
            f"its inputs reach {max(-low, high, key=abs):.3g}, and {_dtype(operation.output)} ends at {largest:.2g}",
            "Keep its inputs small: scale them, normalize before it, or use the form that subtracts the largest first "
            "(F.softmax, torch.logsumexp).",
        )
    if torch.finfo(operation.output.dtype).max < 1e6:
        return (
            f"its inputs reach {max(-low, high):.3g}, and {_dtype(operation.output)} ends at {largest:.0f}",
            "Compute it in float32 or bfloat16.",
        )
    return f"of inputs from {low:.3g} to {high:.3g}", "Keep its inputs inside its domain, and away from overflow."


def cause_of_gradient(operation: Operation) -> tuple[str, str]:
    """Evidence and fix for a finite gradient that this operation made infinite or NaN."""
    name, x = operation.name, operation.input
    if any(child.name in ("where", "masked_fill") for child in operation.children):
        return (
            "torch.where hides its value and not its gradient, and 0 times an infinite slope is NaN",
            f"Make its input harmless before it, where it is not wanted: {name}(torch.where(mask, x, 1.0)).",
        )
    if operation.inferred:
        return (
            "its backward is written by hand",
            "Mend the backward of this function; lastlayer.check_gradient tests it.",
        )
    if x is None:
        return "what went in was not recorded", "Keep its inputs away from where its slope is infinite."
    if name in _ROOTS:
        return (
            f"the slope of a root is infinite at 0, and {_count(x == 0, 'input')} 0",
            "Add a small number under the root: torch.sqrt(x + 1e-6).",
        )
    if name in _LOGARITHMS or name in _QUOTIENTS:
        nearest = float(x.abs().min()) if x.numel() else 0.0
        return (
            f"its slope is infinite at 0, and its inputs come as near as {nearest:.3g}",
            "Keep its input away from 0: add a small number to it, or clamp it from below.",
        )
    if name in _BOUNDED:
        return "its slope is infinite at -1 and 1", "Clamp its input: x.clamp(-1 + 1e-6, 1 - 1e-6)."
    return (
        f"its inputs reach from {float(x.min()):.3g} to {float(x.max()):.3g}" if x.numel() else "its input is empty",
        "Keep its inputs away from where its slope is infinite.",
    )


def inputs_of(operation: Operation) -> list[Tensor]:
    """The floating-point tensors that went in, weights among them."""
    return [tensor for tensor in tensors_in((operation.arguments, operation.keywords)) if tensor.is_floating_point()]


def _count(which: Tensor, noun: str) -> str:
    number = int(which.sum())
    return f"{number} of its {which.numel()} {noun}s {'is' if number == 1 else 'are'}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
