"""Does the network go on learning its training rows by heart while it gets worse on others?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.run_record import EpochFigures, RunRecord

OVERFITTING = Fault(
    name="overfitting",
    title="learned by heart",
    severity="warning",
    why="The training loss goes on falling while that of rows held out has turned and risen: what is learned now is "
    "true of the training rows alone.",
    fix="Keep the weights of the epoch with the least validation loss (early stopping); more rows, dropout or weight "
    "decay move that point.",
    reference="SPEC D4; L. Prechelt, Early stopping, but when? (1998)",
)

#: Looks at the validation rows that a judgment takes: two before the turn, and three after it.
FEWEST = 5
#: Of what had been gained by the best epoch, over the constant if that is known, this share is lost again. Healthy runs
#: that go on for a while after their best epoch lose a few percent.
LOST = 0.15
#: And the loss is higher by this share of itself, so that a loss near 0 may double.
HIGHER = 0.1
#: And by this many times the noise from epoch to epoch.
TIMES_NOISE = 4.0
#: The training loss falls on by this share of itself in the same epochs, or the rise is no overfitting.
FALLS_ON = 0.02


def judge_overfitting(record: RunRecord) -> Iterator[Finding]:
    """The curves of both losses, as of a recorder or of a saved model."""
    epochs = [epoch for epoch in record.epochs if math.isfinite(epoch.validation_loss)]
    if len(epochs) < FEWEST:
        return
    losses = [epoch.validation_loss for epoch in epochs]
    smooth = _smoothed(losses)
    best = min(range(len(smooth)), key=smooth.__getitem__)
    last = statistics.median(losses[-max(3, len(losses) // 10) :])
    least, rise = smooth[best], last - smooth[best]
    gained = max([*smooth[: best + 1], *_of_constant(record)]) - least
    risen = rise > max(LOST * gained, HIGHER * abs(least), TIMES_NOISE * _noise(losses))
    if best > len(epochs) - 3 or not risen or not _falls_on(epochs, best):
        return
    kept = record.best_epoch is not None and record.best_epoch < epochs[-1].number
    numbers = {"least": least, "last": last, "epoch": epochs[best].number, "epochs": epochs[-1].number}
    evidence = (
        f"The validation loss was least around epoch {epochs[best].number}, {least:.4g}, and has risen to {last:.4g} "
        f"by epoch {epochs[-1].number}, while the training loss went from {epochs[best].training_loss:.4g} to "
        f"{epochs[-1].training_loss:.4g}."
    )
    if kept:
        yield OVERFITTING.found(
            "after the best epoch",
            f"{evidence} The weights of epoch {record.best_epoch} were kept.",
            numbers=numbers,
            severity="note",
            fix="Nothing has to be changed; more rows, dropout or weight decay move the best epoch further.",
        )
    else:
        yield OVERFITTING.found("the last epochs", evidence, numbers=numbers)


def _of_constant(record: RunRecord) -> list[float]:
    """The loss of the best constant: a run that learns fast has left it far behind by its first epoch's end."""
    found = record.comparison
    return [found.constant] if found is not None and math.isfinite(found.constant) else []


def _smoothed(values: Sequence[float]) -> list[float]:
    """Each value as the middle one of itself and its neighbors."""
    return [statistics.median(values[max(0, place - 1) : place + 2]) for place in range(len(values))]


def _noise(values: Sequence[float]) -> float:
    """The standard deviation from epoch to epoch, from second differences, which no steady rise or fall adds to."""
    bends = [
        abs(before - 2 * here + after) for before, here, after in zip(values, values[1:], values[2:], strict=False)
    ]
    # The middle of |N(0, 6σ²)| is 0.6745·√6·σ.
    return statistics.median(bends) / (0.6745 * math.sqrt(6)) if bends else 0.0


def _falls_on(epochs: Sequence[EpochFigures], best: int) -> bool:
    """Whether the training loss fell from the best epoch to the last ones; unknown counts as yes."""
    after = [epoch.training_loss for epoch in epochs[-3:] if math.isfinite(epoch.training_loss)]
    before = epochs[best].training_loss
    if not after or not math.isfinite(before):
        return True
    return statistics.median(after) < before - FALLS_ON * abs(before)


FAULTS: tuple[Fault, ...] = (OVERFITTING,)
CHECKS: tuple[Check, ...] = ()
