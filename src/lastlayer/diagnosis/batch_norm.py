"""Normalization over a batch that is too small to have a mean and a variance."""

from __future__ import annotations

from collections.abc import Iterator

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.subject import Subject

BATCH_NORM_OF_ONE = Fault(
    name="batch_norm_of_one",
    title="batch normalization of too few values",
    severity="error",
    why="In training, every channel is scaled by the mean and the variance of its values in the batch. Of one value "
    "the variance is 0 and every output is the same; of two to four, both are mostly noise.",
    fix="Train on larger batches (drop_last=True drops a last one of a single row), or normalize each sample by "
    "itself: nn.LayerNorm, nn.GroupNorm.",
    reference="S. Ioffe, C. Szegedy, Batch normalization (ICML 2015); Y. Wu, K. He, Group normalization (ECCV 2018)",
)

# The mean of so many values is off by half of their standard deviation, and their variance by more than half of itself.
_FEW = 4


def batch_norm_of_one(subject: Subject) -> Iterator[Finding]:
    """Where PyTorch refuses to normalize one value; and, as a note, where there are a few."""
    ran = subject.training_pass
    failure = ran.failure
    if failure is not None and "Expected more than 1 " in str(failure.error):
        modules = dict(ran.network.named_modules())
        kind = type(modules[failure.module]).__name__ if failure.module in modules else ""
        where = f"layer '{failure.module}' ({kind})" if failure.module else "the network's forward"
        shape = failure.refused.shapes[0] if failure.refused is not None and failure.refused.shapes else None
        arrives = f"{shape} arrives: one value per channel. " if shape is not None else ""
        said = str(failure.error).partition("\n")[0]
        numbers = {"values": 1.0}
        yield BATCH_NORM_OF_ONE.found(where, f"{arrives}PyTorch refuses: {said}.", numbers=numbers)
        return
    told: set[str] = set()
    for operation in ran.of_network:
        x = operation.input
        if operation.name != "batch_norm" or x is None or x.dim() < 2 or not operation.keywords.get("training"):
            continue
        values = x.numel() // max(1, x.shape[1])
        if values <= _FEW and operation.label not in told:
            told.add(operation.label)
            evidence = f"On this batch, {tuple(x.shape)}, it takes mean and variance of {values} values per channel."
            severity: Severity = "note" if values > 1 else "error"
            yield BATCH_NORM_OF_ONE.found(operation.label, evidence, numbers={"values": values}, severity=severity)


FAULTS: tuple[Fault, ...] = (BATCH_NORM_OF_ONE,)
CHECKS: tuple[Check, ...] = (batch_norm_of_one,)
