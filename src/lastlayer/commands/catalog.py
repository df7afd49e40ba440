"""``lastlayer losses``, ``activations`` and ``heads``: what there is, from its facts."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lastlayer import activations, heads, losses
from lastlayer.checks import InputError
from lastlayer.facts import Interval
from lastlayer.losses import Loss

# Raw outputs and inputs that a plot shows, and at how many points.
_LOSS_REACH, _ACTIVATION_REACH, _POINTS = 4.0, 6.0, 161


def listing(kind: str) -> list[dict[str, Any]]:
    """The facts of every loss, activation or head, in the catalog's order.

    Args:
        kind: ``"losses"``, ``"activations"`` or ``"heads"``.
    """
    return [_facts(entry) for entry in _CATALOGS[kind]().values()]


def details(kind: str, name: str) -> dict[str, Any]:
    """The facts of one, its options, and, of a loss or an activation, its curves.

    Raises:
        InputError: for a name that the catalog does not have, with the names that look like it.
    """
    catalog = _CATALOGS[kind]()
    entry = catalog[_found(name, catalog, kind)]
    record = _facts(entry) | {"options": _options(entry)}
    if kind == "losses":
        record["curves"] = _loss_curves(entry)
    elif kind == "activations":
        record["curves"] = _activation_curves(entry)
    return record


_CATALOGS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "losses": losses.catalog,
    "activations": activations.catalog,
    "heads": heads.catalog,
}
SINGULAR = {"losses": "loss", "activations": "activation", "heads": "head"}


def _found(name: str, names: Iterable[str], kind: str) -> str:
    """The catalog's spelling; capitals and hyphens do not matter."""
    spelled = name.lower().replace("-", "_")
    if spelled in names:
        return spelled
    similar = difflib.get_close_matches(spelled, list(names), n=3)
    hint = f" Did you mean {' or '.join(map(repr, similar))}?" if similar else ""
    raise InputError(f"there is no {SINGULAR[kind]} named {name!r}.{hint} lastlayer {kind} lists them all.")


def _facts(entry: Any) -> dict[str, Any]:
    """The facts as plain data: intervals as text, without the function that draws examples."""
    facts = {field.name: getattr(entry.facts, field.name) for field in dataclasses.fields(entry.facts)}
    return {
        name: str(value) if isinstance(value, Interval) else value
        for name, value in facts.items()
        if not callable(value)
    }


def _options(entry: Any) -> dict[str, Any]:
    """What may be said beside the data, with its default; ``"required"`` where there is none.

    Those of a loss are its function's, of which the module takes a part.
    """
    maker = entry if isinstance(entry, type) else type(entry)
    if isinstance(entry, Loss):
        maker = getattr(losses, entry.facts.name, maker)
    return {
        option.name: "required" if option.default is option.empty else option.default
        for option in inspect.signature(maker).parameters.values()
        if option.name not in ("raw", "target", "device", "dtype")
        and option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
    }


# --- curves -----------------------------------------------------------------------------------------------------------


def _activation_curves(activation: activations.Activation) -> dict[str, Any]:
    x = torch.linspace(-_ACTIVATION_REACH, _ACTIVATION_REACH, _POINTS, dtype=torch.float64)
    with torch.no_grad():
        value, derivative = activation.double().profile(x)
    return {
        "over": "x",
        "shows": activation.facts.profile,
        "x": x.tolist(),
        "lines": [{"label": None, "value": value.tolist(), "derivative": derivative.tolist()}],
    }


def _loss_curves(loss: Loss) -> dict[str, Any]:
    """Value and derivative over one raw output, for one or two targets."""
    raw, target = loss.facts.example(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets, labels = _targets(loss, target)
    low, high = max(loss.facts.raw.low, -_LOSS_REACH), min(loss.facts.raw.high, _LOSS_REACH)
    x = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    if loss.formula.event_dims == 0:
        shows, lines = None, [_line(loss, x, one.expand(x.shape)) for one in targets]
    else:
        width = raw.shape[-1]
        for index in range(width):
            # The first raw output that the loss depends on while the others are 0; of equal components no weight does.
            scores = torch.zeros(_POINTS, width, dtype=torch.float64)
            scores[:, index] = x
            lines = [_line(loss, scores, one.expand(_POINTS, *one.shape), index) for one in targets]
            if any(max(line["value"]) - min(line["value"]) > 1e-6 for line in lines):
                break
        shows = f"raw output {index} of 0 to {width - 1}, the others at 0"
    for line, label in zip(lines, labels, strict=True):
        line["label"] = label
    return {"over": "s", "shows": shows, "x": x.tolist(), "lines": lines}


def _line(loss: Loss, raw: Tensor, target: Tensor, index: int | None = None) -> dict[str, Any]:
    with torch.no_grad():
        value, gradient = loss.value(raw, target), loss.gradient(raw, target)
    return {"value": value.tolist(), "gradient": (gradient if index is None else gradient[:, index]).tolist()}


def _targets(loss: Loss, target: Tensor) -> tuple[list[Tensor], list[str]]:
    """One or two targets that show the loss, and what to call them."""
    if target.dim() > 1:
        # Rows of the example: one that has its largest entry first, and one that has not.
        first = target.argmax(-1) == 0
        rows = [target[where][0] for where in (first, ~first) if bool(where.any())]
        return rows, [f"y = ({', '.join(f'{entry:.2g}' for entry in row.tolist())})" for row in rows]
    if not target.is_floating_point():
        return [torch.tensor(index) for index in (0, 1)], ["y = class 0", "y = class 1"]
    values = _numbers(loss.facts.target or Interval())
    return [torch.tensor(value, dtype=target.dtype) for value in values], [f"y = {value:g}" for value in values]


def _numbers(interval: Interval) -> tuple[float, ...]:
    """One or two numbers inside that are told apart."""
    low, high = interval.low, interval.high
    if math.isinf(low) and math.isinf(high):
        return (0.0,)
    if math.isinf(high):
        return (low if interval.low_closed else low + 1.0), low + 3.0
    if math.isinf(low):
        return high - 3.0, (high if interval.high_closed else high - 1.0)
    quarter = (high - low) / 4
    return (low if interval.low_closed else low + quarter), (high if interval.high_closed else high - quarter)
