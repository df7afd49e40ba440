"""Does the trained network beat the best constant, and the best linear predictor?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.learning_rate import course_of
from lastlayer.diagnosis.run_record import Comparison, RunRecord

WORSE_THAN_CONSTANT = Fault(
    name="worse_than_constant",
    title="worse than one and the same prediction for all",
    severity="error",
    why="On rows held out the network loses to the best constant: what it says of a row is worse than saying nothing. "
    "The rows differ from those it learned from, or it learned noise by heart, or training failed.",
    fix="Check that the validation rows are coded and scaled as the training rows are; then see the other findings.",
    reference="SPEC D4",
)
WORSE_THAN_LINEAR = Fault(
    name="worse_than_linear",
    title="worse than a linear model",
    severity="warning",
    why="A linear predictor, fitted to the same rows under the same loss, does better on rows held out: what the "
    "network has in addition does not help it. It is held back (a bottleneck, dropout, weight decay, a learning rate), "
    "was not trained long enough, or learned noise.",
    fix="Train longer, look for what holds the network back, or use the linear model.",
    reference="SPEC D4",
)

#: Standard errors that a difference must exceed: of healthy runs on the border one in 3000 exceeds 3.5 by chance.
STANDARD_ERRORS = 3.5
#: Fewer validation rows say nothing for certain.
FEWEST_ROWS = 20
#: Worse by less than this share of the constant's own loss, or of its spread over rows, is as good as equal.
NOTEWORTHY = 0.02
#: Of what the linear predictor gains over the constant, a healthy network that was stopped early has at least this.
LEAST_SHARE = 0.75
#: A run whose loss fell, over its second half, by this share of what the linear predictor is ahead, has only not come
#: far enough yet. One that is held back has flattened: a few percent.
ON_ITS_WAY = 0.25
FEWEST_EPOCHS = 4
#: A loss with rare huge values has no useful standard error; worse on nearly all blocks of rows is worse all the same.
NEARLY_ALL = 0.9


def judge_simple_predictors(record: RunRecord) -> Iterator[Finding]:
    """The comparison that was made after training."""
    found = record.comparison
    if found is None or found.rows < FEWEST_ROWS or not math.isfinite(found.constant):
        return
    if not math.isfinite(found.network):
        # Which not_a_number tells of.
        return
    yield from _beside_the_constant(found)
    yield from _beside_the_linear(found, record)


def _beside_the_constant(found: Comparison) -> Iterator[Finding]:
    excess = found.network - found.constant
    scale = max(abs(found.constant), found.spread if math.isfinite(found.spread) else 0.0)
    certain = excess > STANDARD_ERRORS * found.constant_margin or found.constant_wins > NEARLY_ALL
    if not (certain and excess > NOTEWORTHY * scale):
        return
    trained, fix = "", None
    if math.isfinite(found.training_constant):
        trained = (
            f"; on training rows it has {found.training_network:.4g} and the constant {found.training_constant:.4g}"
        )
        if not found.training_network < found.training_constant:
            fix = "Nothing was learned: look at the learning rate and at the other findings."
    yield WORSE_THAN_CONSTANT.found(
        "the trained network",
        f"On {found.rows} validation rows its loss is {found.network:.4g}, that of the best constant "
        f"{found.constant:.4g} (standard error of the difference {found.constant_margin:.2g}){trained}.",
        numbers={"network": found.network, "constant": found.constant, "margin": found.constant_margin},
        fix=fix,
    )


def _beside_the_linear(found: Comparison, record: RunRecord) -> Iterator[Finding]:
    excess = found.network - found.linear
    gained, possible = found.constant - found.network, found.constant - found.linear
    if not (excess > STANDARD_ERRORS * found.linear_margin and gained < LEAST_SHARE * possible):
        return
    fell = _fall_of_second_half(record)
    on_its_way = fell > ON_ITS_WAY * excess
    yield WORSE_THAN_LINEAR.found(
        "the trained network",
        f"On {found.rows} validation rows its loss is {found.network:.4g}, that of a linear predictor of the "
        f"{found.features} features {found.linear:.4g} (standard error of the difference {found.linear_margin:.2g}), "
        f"that of the best constant {found.constant:.4g}."
        + (f" Over the second half of the run the loss was still falling, by {fell:.2g}." if on_its_way else ""),
        numbers={
            "network": found.network,
            "linear": found.linear,
            "constant": found.constant,
            "margin": found.linear_margin,
        },
        severity="note" if on_its_way else None,
        fix="Train longer." if on_its_way else None,
    )


def _fall_of_second_half(record: RunRecord) -> float:
    """By how much the validation loss fell, or the training loss if that is all there is."""
    losses = [epoch.validation_loss for epoch in record.epochs if math.isfinite(epoch.validation_loss)]
    if len(losses) >= FEWEST_EPOCHS:
        return losses[len(losses) // 2] - losses[-1]
    course = course_of(record)
    return 0.0 if course is None else course.middle - course.last


FAULTS: tuple[Fault, ...] = (WORSE_THAN_CONSTANT, WORSE_THAN_LINEAR)
CHECKS: tuple[Check, ...] = ()
