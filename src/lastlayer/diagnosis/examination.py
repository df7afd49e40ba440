"""The doctor's examination before training: one pass on a copy, then every question in turn."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lastlayer.checks import InputError, KindError
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Findings
from lastlayer.diagnosis.subject import Features, Subject

#: One question: what of this kind is wrong with the subject.
Check = Callable[[Subject], Iterable[Finding]]

CHECK_FAILED = Fault(
    name="check_failed",
    title="a question that could not be answered",
    severity="note",
    why="One of the doctor's own questions raised an error on this network; the others were answered.",
    fix="Report it, with the network; nothing has to be changed.",
    reference="lastlayer",
)


def ask(checks: Sequence[Check], subject: Subject) -> Findings:
    """The findings of these checks; one that raises becomes a note, so that the others are heard.

    Special cases: an error that several raise, as where a network cannot be copied, is told once.
    """
    findings: list[Finding] = []
    told: set[str] = set()
    for check in checks:
        try:
            findings += check(subject)
        except Exception as error:
            if os.environ.get("LASTLAYER_DEBUG"):
                raise
            said = textwrap.shorten(str(error), 300, placeholder=" …")
            name, evidence = getattr(check, "__name__", str(check)), f"It raised {type(error).__name__}: {said}"
            if evidence not in told:
                told.add(evidence)
                findings.append(CHECK_FAILED.found(f"the question {name!r}", evidence))
    return Findings(findings)


def read_batch(batch: Any) -> tuple[Features, Tensor | None]:
    """Features and target of a batch as data loaders give it.

    Raises:
        InputError: for something that is no pair of features and target.
    """
    if isinstance(batch, Tensor):
        return batch, None
    if hasattr(batch, "features") and hasattr(batch, "target"):
        return batch.features, batch.target
    if isinstance(batch, tuple | list) and len(batch) >= 2 and isinstance(batch[1], Tensor | type(None)):
        return (tuple(batch[0]) if isinstance(batch[0], list) else batch[0]), batch[1]
    raise InputError(
        f"batch is {type(batch).__name__}; expected (features, target) as a data loader gives it, or features alone."
    )


def examine(
    checks: Sequence[Check],
    network: nn.Module,
    loss: Any,
    batch: Any,
    *,
    optimizer: Optimizer | None = None,
    validation: Any = None,
    training: Any = None,
) -> Findings:
    """Asks these checks about a network, its loss and a batch.

    Raises:
        KindError: for a network that is no module.
        InputError: for a batch that is no pair of features and target.
    """
    if not isinstance(network, nn.Module):
        raise KindError(f"network is {type(network).__name__}; expected a torch.nn.Module.")
    features, target = read_batch(batch)
    subject = Subject(
        network,
        loss,
        features,
        target,
        optimizer=optimizer,
        validation=_rows(validation),
        training=_rows(training),
    )
    return ask(checks, subject)


def _rows(batch: Any) -> tuple[Features, Tensor] | None:
    """Features and target, where both are given."""
    if batch is None:
        return None
    features, target = read_batch(batch)
    return None if target is None else (features, target)
