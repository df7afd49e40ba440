"""Dropout that goes on dropping in evaluation mode, because its call does not say that it is not training."""

from __future__ import annotations

from collections.abc import Iterator

from lastlayer.diagnosis.evaluation_mode import DROPOUT_IN_EVALUATION
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.subject import Subject


def dropout_that_is_always_on(subject: Subject) -> Iterator[Finding]:
    """Calls of dropout in the evaluation pass that drop all the same, in a module that is in evaluation mode."""
    modules = dict(subject.network.named_modules())
    for operation in subject.evaluation_pass.with_role("dropout"):
        options = operation.options
        share = options.get("p", options.get("1", 0.5))
        training = options.get("training", options.get("2", True))
        if not training or not isinstance(share, float | int) or share <= 0:
            continue
        # A module of PyTorch's own says whether it trains; one of the user's that always drops may mean to.
        kind = type(modules.get(operation.module, subject.network)).__module__
        if kind.startswith(("torch.", "lastlayer.")):
            continue
        yield DROPOUT_IN_EVALUATION.found(
            operation.label,
            f"In evaluation mode too it drops {share:.0%} of what it takes: it is called without training=, which is "
            f"True unless told.",
            numbers={"share": float(share)},
            fix=f"Give it training=self.training, or make it a layer, nn.Dropout({share:g}).",
        )


FAULTS: tuple[Fault, ...] = ()
CHECKS: tuple[Check, ...] = (dropout_that_is_always_on,)
