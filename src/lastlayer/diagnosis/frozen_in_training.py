"""Is there a parameter that the optimizer has, that gets gradients, and that never moves?"""

from __future__ import annotations

from collections.abc import Iterator

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.parameters import FROZEN_PARAMETER
from lastlayer.diagnosis.run_record import ParameterLooks, RunRecord

#: Sampled steps with a gradient and without any movement; the first ones of a warm-up from 0 do not move either.
FEWEST_LOOKS = 4


def judge_frozen(record: RunRecord) -> Iterator[Finding]:
    """Parameters with gradients in many looks that moved in none."""
    frozen = [each for each in record.parameters if each.looks >= FEWEST_LOOKS and each.moved == 0]
    if not frozen:
        return
    first = frozen[0]
    others = f" and {len(frozen) - 1} others" if len(frozen) > 1 else ""
    yield FROZEN_PARAMETER.found(
        f"parameter '{first.name}'",
        f"Parameter '{first.name}' ({first.dtype}){others} had a gradient in {first.looks} steps that were "
        f"looked at and moved in none; {_reason(first)}.",
        numbers={"looks": first.looks, "rate": first.rate, "parameters": len(frozen)},
        fix="Give its group a learning rate; keep weights in float32, and use autocast for the arithmetic.",
    )


def _reason(parameter: ParameterLooks) -> str:
    if parameter.rate == 0:
        return "the learning rate of its group is 0"
    if parameter.dtype in ("bfloat16", "float16"):
        return f"steps with rate {parameter.rate:g} are rounded away in {parameter.dtype}"
    return f"the learning rate of its group is {parameter.rate:g}"


FAULTS: tuple[Fault, ...] = ()
CHECKS: tuple[Check, ...] = ()
