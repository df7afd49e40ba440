"""Why a function of PyTorch refuses what it is given: what it takes, what arrives, and what to put in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.diagnosis.changed_calls import Change, every, first, option, resized, widened, with_option
from lastlayer.diagnosis.operation import Refused

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Repair:
    """A change that may make a call work.

    Attributes:
        sentence: what to do.
        change: the call's arguments after it; ``None`` if that cannot be tried.
    """

    sentence: str
    change: Change | None = None


@dataclass(frozen=True)
class Misfit:
    """Why a call does not work.

    Attributes:
        evidence: what it takes and what arrives, in a sentence.
        repairs: what may mend it, what is most likely meant first.
    """

    evidence: str
    repairs: tuple[Repair, ...]


def misfit_of(refused: Refused) -> Misfit | None:
    """What is known of a refused call; ``None`` for a function, or a reason, that is not known."""
    if not refused.shapes:
        return None
    explain = _EXPLAIN.get(refused.name, lambda refused: None)
    return _of_dtypes(refused) or _of_devices(refused) or explain(refused)


def misfit_of_shape(takes: str, shape: Shape, source: str, repairs: Sequence[Repair]) -> Misfit:
    """A shape that arrives in place of another."""
    return Misfit(f"It takes {takes}, and {shape} arrives from {source}.", tuple(repairs))


def source_of(refused: Refused, place: int = 0) -> str:
    """Where one of the tensors came from."""
    parent = refused.parents[place]
    return "the inputs" if parent is None else parent.label


def fit_last_axis(shape: Shape, width: int, layer: str, weight: tuple[int, int] | None = None) -> list[Repair]:
    """What makes the last axis as wide as a layer takes it.

    Args:
        shape: what arrives.
        width: how wide the layer takes it.
        layer: how a layer of another width is written, with ``{}`` for it.
        weight: the place of its weight among the arguments, and which axis of that is the input's.
    """
    rest = math.prod(shape[1:])
    if len(shape) > 2 and rest == width:
        return [Repair("Insert nn.Flatten() before it.", first(lambda x: x.flatten(1)))]
    flat = None if weight is None else widened(*weight, flat=True)
    repairs = []
    if len(shape) == 4 and shape[1] == width:
        repairs.append(
            Repair(
                f"Average each of the {width} channels over its pixels before it, x.mean((2, 3)); or insert "
                f"nn.Flatten() and make it {layer.format(rest)}.",
                first(lambda x: x.mean((2, 3))),
            )
        )
    elif width in shape[1:-1]:
        place = shape.index(width, 1)
        move = "transpose(1, 2)" if len(shape) == 3 else f"movedim({place}, -1)"
        sentence = f"Axis {place} has the {width}: move it to the end, x.{move}."
        repairs.append(Repair(sentence, first(lambda x: x.movedim(place, -1))))
    if width == 1 and shape:
        sentence = "Give each number an axis of its own: x.unsqueeze(-1)."
        repairs.append(Repair(sentence, first(lambda x: x.unsqueeze(-1))))
    if len(shape) == 4:
        sentence = f"Insert nn.Flatten() before it, which gives {rest} features, and make it {layer.format(rest)}."
        repairs.append(Repair(sentence, flat))
    if shape:
        repairs.append(Repair(f"Make it {layer.format(shape[-1])}.", None if weight is None else widened(*weight)))
    return repairs


def _of_dtypes(refused: Refused) -> Misfit | None:
    floating = [dtype for dtype in refused.dtypes if dtype.is_floating_point]
    if not floating or refused.name in ("embedding", "one_hot") or "type" not in str(refused.error):
        return None
    # The weights' kind is kept; they are what no operation made, behind the input.
    others = zip(refused.dtypes[1:], refused.parents[1:], strict=True)
    kept = next((dtype for dtype, parent in others if parent is None and dtype.is_floating_point), floating[-1])
    odd = next((place for place, dtype in enumerate(refused.dtypes) if dtype != kept), None)
    if odd is None:
        return None
    short, comes = (str(dtype).removeprefix("torch.") for dtype in (kept, refused.dtypes[odd]))
    cast = {torch.float32: "x.float()", torch.float64: "x.double()"}.get(kept, f"x.to(torch.{short})")
    where = "once, where the data are read" if refused.parents[odd] is None else "before it"
    because = "; NumPy's numbers are float64 unless told" if comes == "float64" else ""
    return Misfit(
        f"Its weights are {short}, and {comes} arrives from {source_of(refused, odd)}.",
        (Repair(f"Convert what arrives, {where}: {cast}{because}.", every(lambda tensor: tensor.to(kept))),),
    )


def _of_devices(refused: Refused) -> Misfit | None:
    devices = list(dict.fromkeys(map(str, refused.devices)))
    if len(devices) < 2 or "device" not in str(refused.error):
        return None
    return Misfit(
        f"What it takes must be on one device, and is on {' and '.join(devices)}; {devices[0]} arrives from "
        f"{source_of(refused)}.",
        (
            Repair(
                "Move the network once, before the optimizer is made, network.to(device), and every batch, "
                "features.to(device)."
            ),
        ),
    )


def _of_linear(refused: Refused) -> Misfit:
    outputs, width = refused.shapes[1][0], refused.shapes[1][-1]
    own = refused.kind in ("Linear", "NonDynamicallyQuantizableLinear")
    layer = f"nn.Linear({{}}, {outputs})" if own else f"one with a weight of shape ({outputs}, {{}})"
    repairs = fit_last_axis(refused.shapes[0], width, layer, (1, -1))
    return misfit_of_shape(f"(..., {width})", refused.shapes[0], source_of(refused), repairs)


def _of_product(refused: Refused) -> Misfit | None:
    left, right = refused.shapes[0], refused.shapes[-1]
    if len(right) != 2:
        return None
    takes = f"(n, {right[0]})" if refused.name == "mm" else f"(..., {right[0]})"
    layer = f"one with a weight of shape ({{}}, {right[1]})"
    return misfit_of_shape(takes, left, source_of(refused), fit_last_axis(left, right[0], layer, (1, 0)))


def _of_layer_norm(refused: Refused) -> Misfit | None:
    wanted = option(refused.arguments, refused.keywords, "normalized_shape", 1, ())
    if len(wanted) != 1:
        return None
    repairs = fit_last_axis(refused.shapes[0], wanted[0], "nn.LayerNorm({})")
    return misfit_of_shape(f"(..., {wanted[0]})", refused.shapes[0], source_of(refused), repairs)


def _of_attention(refused: Refused) -> Misfit | None:
    width = option(refused.arguments, refused.keywords, "embed_dim_to_check", 3, None)
    if width is None or refused.shapes[0][-1] == width:
        return None
    repairs = [Repair(f"Bring what arrives to that width with nn.Linear({refused.shapes[0][-1]}, {width}) before it.")]
    return misfit_of_shape(f"(..., {width})", refused.shapes[0], source_of(refused), repairs)


def _of_convolution(refused: Refused) -> Misfit:
    axes, transposed = int(refused.name[-2]), "transpose" in refused.name
    shape, weight = refused.shapes[0], refused.shapes[1]
    groups = option(refused.arguments, refused.keywords, "groups", 6, 1)
    channels = weight[0] if transposed else weight[1] * groups
    space = {1: "length", 2: "height, width", 3: "depth, height, width"}[axes]
    takes = f"(n, {channels}, {space})"
    repairs = []
    if len(shape) == axes + 2 and shape[-1] == channels != shape[1]:
        order = (0, axes + 1, *range(1, axes + 1))
        moved = "transpose(1, 2)" if axes == 1 else f"permute{order}"
        sentence = f"The channels come last, and it takes them second: x.{moved} before it."
        repairs.append(Repair(sentence, first(lambda x: x.permute(order))))
    if len(shape) == axes + 1 and channels == 1:
        sentence = "The axis of channels is missing: x.unsqueeze(1) before it."
        repairs.append(Repair(sentence, first(lambda x: x.unsqueeze(1))))
    if len(shape) == 2:
        side = round((shape[1] / channels) ** (1 / axes))
        size = (channels, *[side] * axes)
        if math.prod(size) == shape[1]:
            sentence = f"The images come flat: nn.Unflatten(1, {size}) before it."
            repairs.append(Repair(sentence, first(lambda x: x.unflatten(1, size))))
    if len(shape) == axes + 2 and shape[1] == channels:
        kernel = weight[2:]
        takes = f"maps of at least {kernel} behind its padding"
        padding = tuple(wide // 2 for wide in kernel)
        sentence = "Pool or stride less before it, pad it (padding='same'), or give the network larger images."
        repairs.append(Repair(sentence, with_option("padding", 4, padding)))
    elif len(shape) == axes + 2:
        outputs = weight[1] * groups if transposed else weight[0]
        layer = f"nn.Conv{'Transpose' if transposed else ''}{axes}d({shape[1]}, {outputs}, ...)"
        repairs.append(Repair(f"Make it {layer}.", widened(1, 0 if transposed else 1, 1) if groups == 1 else None))
    return misfit_of_shape(takes, shape, source_of(refused), repairs)


def _of_batch_norm(refused: Refused) -> Misfit | None:
    shape = refused.shapes[0]
    if len(refused.shapes) < 2 or len(shape) < 2 or refused.shapes[1][0] == shape[1]:
        return None
    channels = refused.shapes[1][0]
    repairs = []
    if shape[-1] == channels:
        sentence = "The channels come last, and it takes them second: x.movedim(-1, 1) before it, or nn.LayerNorm."
        repairs.append(Repair(sentence, first(lambda x: x.movedim(-1, 1))))
    repairs.append(Repair(f"Make it nn.{refused.kind}({shape[1]}).", resized(shape[1])))
    return misfit_of_shape(f"(n, {channels}, ...)", shape, source_of(refused), repairs)


def _of_embedding(refused: Refused) -> Misfit | None:
    rows, width = refused.shapes[1]
    given = option(refused.arguments, refused.keywords, "input", 0, None)
    inside = first(lambda x: x.long().clamp(0, rows - 1))
    if refused.dtypes[0].is_floating_point:
        comes = str(refused.dtypes[0]).removeprefix("torch.")
        return Misfit(
            f"It takes whole numbers, which name rows of its table, and {comes} arrives from {source_of(refused)}.",
            (Repair("Pass indices, x.long(); for numbers that are quantities take nn.Linear.", inside),),
        )
    if not isinstance(given, Tensor) or not given.numel():
        return None
    least, most = int(given.min()), int(given.max())
    fix = f"Make it nn.Embedding({most + 1}, {width})."
    if least < 0:
        fix = "Count from 0: a number below 0 names no row."
    elif most == rows and least > 0:
        fix = f"Count from 0, x - 1, or make it nn.Embedding({most + 1}, {width})."
    evidence = (
        f"Its table has rows 0 to {rows - 1}, and numbers from {least} to {most} arrive from {source_of(refused)}."
    )
    return Misfit(evidence, (Repair(fix, inside),))


def _of_view(refused: Refused) -> Misfit | None:
    shape = refused.shapes[0]
    if "compatible" in str(refused.error):
        repair = Repair("Use x.reshape(...) in its place, which copies where it must.", first(lambda x: x.contiguous()))
        return Misfit(f"The numbers of {shape} from {source_of(refused)} do not lie in one piece.", (repair,))
    flat = (shape[0] if shape else 1, math.prod(shape[1:]))
    sentence = f"Keep the axis of the samples and let the rest follow: x.flatten(1), which gives {flat}."
    repair = Repair(sentence, lambda args, keywords: ((args[0], flat), {}))
    return Misfit(f"{shape} from {source_of(refused)} does not have the numbers that the new shape needs.", (repair,))


def _of_broadcast(refused: Refused) -> Misfit | None:
    if len(refused.shapes) < 2:
        return None
    left, right = refused.shapes[:2]
    fix = "Bring both to one shape."
    if len(left) == len(right) >= 2 and left[0] == right[0] and left[1] != right[1] and left[2:] == right[2:]:
        sizes = f"({left[1]}, {right[1]}{', 1' if len(left) > 2 else ''})"
        layer = "nn.Linear" if len(left) == 2 else f"nn.Conv{len(left) - 2}d"
        fix = f"Bring the first to the width of the second, as residual networks do, with {layer}{sizes}."
    elif len(left) == len(right) > 2 and left[:2] == right[:2]:
        fix = "Keep the size of the maps, padding='same' in the convolutions between, or pool the other as well."
    came = f"{left} arrives from {source_of(refused)} and {right} from {source_of(refused, 1)}"
    return Misfit(f"{came}, and they do not fit together.", (Repair(fix),))


def _of_joining(refused: Refused) -> Misfit:
    came = [f"{shape} from {source_of(refused, place)}" for place, shape in enumerate(refused.shapes)]
    arrives = " and ".join(came[:4])
    return Misfit(
        f"It joins what differs in one axis alone, and is given {arrives}.",
        (Repair("Bring the other axes to one size: pad, crop or interpolate them, or flatten all."),),
    )


_EXPLAIN: dict[str, Callable[[Refused], Misfit | None]] = {
    "linear": _of_linear,
    **dict.fromkeys(("mm", "matmul"), _of_product),
    "layer_norm": _of_layer_norm,
    "multi_head_attention_forward": _of_attention,
    **{f"conv{kind}{axes}d": _of_convolution for kind in ("", "_transpose") for axes in (1, 2, 3)},
    "batch_norm": _of_batch_norm,
    "embedding": _of_embedding,
    **dict.fromkeys(("view", "reshape"), _of_view),
    **dict.fromkeys(("add", "sub", "mul", "div", "truediv"), _of_broadcast),
    **dict.fromkeys(("cat", "concat", "stack"), _of_joining),
}
