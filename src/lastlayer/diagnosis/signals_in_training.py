"""What develops in the layers while they learn: units that die or saturate, gradients that vanish or explode."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.layers import LayerRecord
from lastlayer.diagnosis.learning_rate import course_of
from lastlayer.diagnosis.run_record import LayerLook, RunRecord
from lastlayer.diagnosis.signals import judge_layers

#: What can come about by training. Weights that start alike, and what else is wrong from the start, are asked about
#: before it.
DEVELOPS = frozenset(
    [
        "collapsing_activations",
        "exploding_activations",
        "vanishing_gradients",
        "exploding_gradients",
        "saturated_units",
        "dead_units",
    ]
)
#: A network has learned if it gained half of what a linear predictor gains over the constant, or, where none is known,
#: a tenth of the constant's loss, or a third of the first loss.
OF_LINEAR, OF_CONSTANT, OF_FIRST = 0.5, 0.1, 1 / 3


def judge_signals(record: RunRecord) -> Iterator[Finding]:
    """The layers as the last look found them, and since when they were so."""
    if not record.layers:
        return
    last = record.layers[-1]
    earlier = [(look.step, {(each.name, each.where) for each in _findings(look)}) for look in record.layers[:-1]]
    for finding in _findings(last):
        since = last.step
        for step, found in reversed(earlier):
            if (finding.name, finding.where) not in found:
                break
            since = step
        seen = f" It was so from step {since} on." if since < last.step else ""
        yield replace(
            finding,
            severity=_severity(finding, learned=has_learned(record)),
            evidence=f"After {last.step} steps: {finding.evidence}{seen}",
        )


def has_learned(record: RunRecord) -> bool:
    """Whether the network does much better than one constant, on training rows if known, or than at first."""
    found = record.comparison
    if found is None or not math.isfinite(found.constant):
        course = course_of(record)
        return course is not None and course.learned > OF_FIRST * abs(course.start)
    network, constant, linear = found.training_network, found.training_constant, found.training_linear
    if not math.isfinite(constant):
        network, constant, linear = found.network, found.constant, found.linear
    if math.isfinite(linear) and linear < constant:
        return constant - network > OF_LINEAR * (constant - linear)
    return constant - network > OF_CONSTANT * abs(constant)


def _severity(finding: Finding, *, learned: bool) -> Severity:
    """What did not keep the network from learning is no error, and large or flat outputs are how it is sure."""
    if not learned:
        return finding.severity
    if finding.name in ("saturated_units", "exploding_activations"):
        return "note"
    return "warning" if finding.severity == "error" else finding.severity


def _findings(look: LayerLook) -> list[Finding]:
    layers = [LayerRecord.from_dict(layer) for layer in look.layers]
    return [finding for finding in judge_layers(layers, rows=look.rows) if finding.name in DEVELOPS]
