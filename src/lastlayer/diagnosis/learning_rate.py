"""Is the learning rate too high, so that steps overshoot, or too low, so that they lead nowhere?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.rerun import Rerun, Weights
from lastlayer.diagnosis.run_record import LossBlock, RateTrial, RunRecord

LEARNING_RATE_TOO_HIGH = Fault(
    name="learning_rate_too_high",
    title="steps that overshoot",
    severity="error",
    why="A step longer than twice the inverse of the loss's curvature leads uphill. The loss jumps about, grows "
    "without end, or settles at that of one constant prediction, its units thrown out of their range for good.",
    fix="Lower the learning rate, by a factor of ten to begin with; a warm-up helps where the first steps overshoot.",
    reference="SPEC D2, D3; Y. LeCun et al., Efficient BackProp (1998)",
)
LEARNING_RATE_TOO_LOW = Fault(
    name="learning_rate_too_low",
    title="steps that lead nowhere",
    severity="warning",
    why="Every step goes downhill and is so short that all of them together change next to nothing.",
    fix="Raise the learning rate, by a factor of ten to begin with.",
    reference="SPEC D2, D3; Y. LeCun et al., Efficient BackProp (1998)",
)

#: Fewest steps that say anything of a rate.
FEWEST_STEPS = 8
#: Steps of a trial, at most: with a fitting rate enough to learn most of what is easy.
TRIAL_STEPS = 100
#: Of a short run they are fewer, so that all trials together, some five, take about as long as it did.
TRIALS, FEWEST_IN_A_TRIAL = 5, 25
#: A run has been held back if other rates get in a trial where it never got: it kept less of what they gained.
#: Of healthy runs none keeps less than nine tenths, as it took many times as many steps.
HELD_BACK = 0.8
#: Less than this, of that or of what a linear predictor gains, and nothing worth speaking of was learned.
NOTHING_LEARNED = 0.3
#: A run is slow if a higher rate gains four times as much in no more steps.
SLOW = 0.25
#: Gains below this share of the first loss, or of a constant's loss from row to row, are not worth speaking of.
NOTEWORTHY = 0.03

#: Rates that are tried, over the run's own, until one does worse than the one before.
LOWER = (1e-1, 1e-2, 1e-3, 1e-4)
HIGHER = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6)

#: A loss that stays at twice its first value for so many steps has been thrown there, even if it comes back.
THROWN = 2.0
IN_A_ROW = 8
#: The first value is that of one batch, and by this many times the noise of batches it is never off.
TIMES_NOISE = 4.0

#: When trials are made at all. Weights that are moved by a tenth of their size in a middling step are other weights
#: after some ten steps; healthy runs lie near a hundredth.
LARGE_UPDATE = 0.1
#: Below this a weight takes 3000 steps to become another.
SMALL_UPDATE = 3e-4
#: The first steps of a healthy run lie within their noise of the first loss, or below.
SPIKE = 2.0
#: Late noise from step to step over all that was learned.
UNREST = 0.25
#: Schedules that are meant come to a hundredth of the rate towards the end, not in the first half.
DECAYED = 0.01
#: Less than this share of the first loss learned in all of the run.
LITTLE = 0.1
#: Forward passes in a step beyond which the network is called for several purposes.
SEVERAL_CALLS = 1.5
#: Epochs of a curve alone: a straight fall by so little in all.
LITTLE_IN_ALL = 0.05
STRAIGHT = 0.35


@dataclass(frozen=True)
class Course:
    """How the training loss went.

    Attributes:
        first: the mean over the first few steps.
        start: the very first value.
        last: the mean over the last tenth.
        middle: the mean over the steps around the middle.
        peak: the highest value.
        height: the highest mean of several values in a row.
        floor: the lowest value in the last tenth.
        noise: the middle standard deviation from step to step, within blocks of the last half.
        count: steps.
    """

    first: float
    start: float
    last: float
    middle: float
    peak: float
    height: float
    floor: float
    noise: float
    count: int

    @property
    def learned(self) -> float:
        """By how much the loss fell."""
        return self.start - self.last


def course_of(record: RunRecord) -> Course | None:
    """The course of the training loss, of steps or else of epochs; ``None`` if there are too few."""
    blocks: Sequence[LossBlock] = record.losses
    if not blocks:
        epochs = [epoch for epoch in record.epochs if math.isfinite(epoch.training_loss)]
        if len(epochs) < FEWEST_STEPS:
            return None
        blocks = [
            LossBlock(place, 1, epoch.training_loss, 0.0, epoch.training_loss, epoch.training_loss)
            for place, epoch in enumerate(epochs)
        ]
    finite = [block for block in blocks if math.isfinite(block.mean)]
    count = sum(block.count for block in finite)
    if count < FEWEST_STEPS:
        return None
    opening = [value for value in record.first_losses[:4] if math.isfinite(value)]
    late = [block.deviation for block in finite[len(finite) // 2 :] if block.count > 1]
    steps = [block.mean for block in finite]
    return Course(
        first=statistics.fmean(opening) if opening else steps[0],
        start=opening[0] if opening else steps[0],
        last=_mean(_between(finite, 0.9, 1.0)),
        middle=_mean(_between(finite, 0.45, 0.55)),
        peak=max(block.highest for block in finite),
        height=_height(record, finite),
        floor=min(block.lowest for block in _between(finite, 0.9, 1.0)),
        noise=statistics.median(late) if late else _roughness(steps[len(steps) // 2 :]),
        count=count,
    )


def _between(blocks: Sequence[LossBlock], start: float, end: float) -> Sequence[LossBlock]:
    """The blocks between two shares of the run; at least one."""
    total = sum(block.count for block in blocks)
    chosen, done = [], 0
    for block in blocks:
        if done + block.count > start * total and done < end * total:
            chosen.append(block)
        done += block.count
    return chosen or blocks[-1:]


def _mean(blocks: Sequence[LossBlock]) -> float:
    return sum(block.mean * block.count for block in blocks) / sum(block.count for block in blocks)


def _height(record: RunRecord, blocks: Sequence[LossBlock]) -> float:
    """The highest mean of ``IN_A_ROW`` values or more."""
    first = [value for value in record.first_losses if math.isfinite(value)]
    early = [statistics.fmean(first[place : place + IN_A_ROW]) for place in range(len(first) - IN_A_ROW + 1)]
    return max([*early, *(block.mean for block in blocks if block.count >= IN_A_ROW)], default=-math.inf)


def _roughness(values: Sequence[float]) -> float:
    """The noise of neighboring values, whatever their trend."""
    steps = [abs(after - before) for before, after in itertools.pairwise(values)]
    return statistics.median(steps) / math.sqrt(2) if steps else 0.0


def looks_too_high(record: RunRecord) -> bool:
    """Whether there is reason to try lower rates."""
    course = course_of(record)
    if record.not_finite is not None:
        return True
    if course is None:
        return False
    scale = max(abs(course.start), course.noise)
    updates = [look.update for look in record.looks[len(record.looks) // 2 :] if math.isfinite(look.update)]
    return (
        course.learned < LITTLE * scale
        or course.peak - course.start > (SPIKE - 1) * scale + TIMES_NOISE * course.noise
        or course.noise > UNREST * max(course.learned, 0.0)
        or bool(updates and statistics.median(updates) > LARGE_UPDATE)
    )


def looks_too_low(record: RunRecord) -> bool:
    """Whether there is reason to try higher rates."""
    course = course_of(record)
    if course is None or record.not_finite is not None:
        return False
    if course.height - course.start > (SPIKE - 1) * max(abs(course.start), course.noise):
        return False
    updates = [look.update for look in record.looks if math.isfinite(look.update)]
    return (
        course.learned < LITTLE * max(abs(course.start), course.noise)
        or bool(updates and statistics.median(updates) < SMALL_UPDATE)
        or decayed_at(record) is not None
    )


def decayed_at(record: RunRecord) -> tuple[int, float] | None:
    """The first look, within the first half, at a rate that a schedule had all but ended; ``None`` if there is none."""
    least = DECAYED * largest_rate(record)
    for look in record.looks:
        if 2 * look.step < record.steps and look.rate < least and look.step > _step_of_largest(record):
            return look.step, look.rate
    return None


def _step_of_largest(record: RunRecord) -> int:
    return max(record.looks, key=lambda look: look.rate).step


def largest_rate(record: RunRecord) -> float:
    """The highest learning rate that the run had in any look; 0 if unknown."""
    return max((look.rate for look in record.looks if math.isfinite(look.rate)), default=0.0)


def try_rates(record: RunRecord, rerun: Rerun, initial: Weights) -> tuple[RateTrial, ...]:
    """Other learning rates from the first weights, where the record gives reason to; and the run's own, to compare."""
    rate = largest_rate(record)
    high, low = looks_too_high(record), looks_too_low(record)
    if not rate or not (high or low):
        return ()
    steps = min(TRIAL_STEPS, max(FEWEST_IN_A_TRIAL, record.steps // TRIALS), record.steps)
    start = rerun.try_rate("initial", initial, 0.0, 0)
    trials = [start, rerun.try_rate("final", None, 0.0, 0), rerun.try_rate("initial", initial, rate, steps)]
    for factors in (LOWER if high else ()), (HIGHER if low else ()):
        best = math.inf
        for factor in factors:
            trials.append(rerun.try_rate("initial", initial, factor * rate, steps))
            loss = trials[-1].loss
            # Beyond the best of them it only gets worse.
            if best < start.loss - NOTEWORTHY * abs(start.loss) and not loss < best:
                break
            best = min(best, loss) if math.isfinite(loss) else best
    return tuple(trials)


def judge_learning_rate(record: RunRecord) -> Iterator[Finding]:
    """From the trials if there were any, else from the curve alone."""
    course, rate = course_of(record), largest_rate(record)
    found = list(_from_trials(record, rate)) if record.trials else []
    if course is not None and record.not_finite is None and not found:
        found = list(_from_curve(record, course, rate))
    yield from found


def _from_trials(record: RunRecord, rate: float) -> Iterator[Finding]:
    by_rate = {trial.rate: trial for trial in record.trials if trial.start == "initial"}
    start = by_rate[0.0].loss
    end = next(trial.loss for trial in record.trials if trial.start == "final")
    own = by_rate[rate]
    del by_rate[0.0]
    spread = record.comparison.spread if record.comparison is not None else 0.0
    noise = NOTEWORTHY * max(abs(start), spread if math.isfinite(spread) else 0.0)
    finite = [trial for trial in by_rate.values() if math.isfinite(trial.loss) and start - trial.loss > noise]
    if not math.isfinite(start) or not finite:
        return
    best = min(finite, key=lambda trial: trial.loss)
    gain = start - best.loss
    kept = (start - end) / gain if math.isfinite(end) else -math.inf
    again = (start - own.loss) / gain if math.isfinite(own.loss) else -math.inf
    tried = (
        f"on a copy, {best.steps} steps from the first weights took the loss from {start:.4g} to {best.loss:.4g} with "
        f"rate {best.rate:g}, and to {own.loss:.4g} with rate {rate:g}."
    )
    ended = f"{end:.4g}" if math.isfinite(end) else "no finite number"
    numbers = {"rate": rate, "start": start, "end": end, "best_rate": best.rate, "best_loss": best.loss}
    evidence = f"In {record.steps} steps with rate {rate:g} the loss on training rows went from {start:.4g} to {ended}"
    if best.rate < rate and kept < HELD_BACK and again < HELD_BACK:
        linear = record.comparison.training_linear if record.comparison is not None else math.nan
        possible = max(gain, start - linear) if math.isfinite(linear) else gain
        severity: Severity = "error" if kept * gain < NOTHING_LEARNED * possible else "warning"
        yield LEARNING_RATE_TOO_HIGH.found(
            "the optimizer",
            f"{evidence}, more than {best.steps} steps with rate {best.rate:g} lead to{_of_updates(record)}.",
            numbers=numbers,
            fix=f"Lower the learning rate from {rate:g} to about {best.rate:g}.",
            severity=severity,
            tried=tried,
        )
    decayed = decayed_at(record)
    if decayed is not None and kept < SLOW:
        step, low = decayed
        yield LEARNING_RATE_TOO_LOW.found(
            "the schedule",
            f"{evidence}; by step {step} the rate had fallen to {low:.2g}.",
            numbers={**numbers, "step": step},
            fix="Let the rate fall more slowly: call the schedule's step() once in an epoch, not in every step, or "
            "tell it how many steps there are.",
            tried=tried,
        )
    elif best.rate > rate and kept < SLOW and again < SLOW:
        yield LEARNING_RATE_TOO_LOW.found(
            "the optimizer",
            f"{evidence}, {100 * max(kept, 0.0):.2g} % of what {best.steps} steps with rate {best.rate:g} "
            f"gain{_of_updates(record)}.",
            numbers=numbers,
            fix=f"Raise the learning rate from {rate:g} to about {best.rate:g}.",
            tried=tried,
        )


def _of_updates(record: RunRecord) -> str:
    updates = [look.update for look in record.looks if math.isfinite(look.update)]
    if not updates:
        return ""
    return f"; a middling step moved the weights by {statistics.median(updates):.2g} of their size"


def _from_curve(record: RunRecord, course: Course, rate: float) -> Iterator[Finding]:
    """Only what no healthy run shows."""
    where = "the optimizer" if rate else "the training loss"
    of_rate = f" with rate {rate:g}" if rate else ""
    numbers = {"first": course.start, "last": course.last, "peak": course.peak, "rate": rate}
    scale = max(abs(course.start), course.noise)
    margin = max(NOTEWORTHY * abs(course.start), 3 * course.noise / math.sqrt(course.count))
    # Of two networks that play against each other, one loss rises.
    several = record.calls_per_step > SEVERAL_CALLS
    steps = f"{course.count} {'steps' if record.losses else 'epochs'}{of_rate}"
    # The first few values may have been thrown up already; then all of the last ones have to lie above the very first.
    above = course.last > course.first + margin or course.floor > course.start + margin
    if course.last > course.start + margin and above and not record.trials:
        yield LEARNING_RATE_TOO_HIGH.found(
            where,
            f"Over {steps} the training loss rose from {course.start:.4g} to {course.last:.4g}, with a peak of "
            f"{course.peak:.4g}{_of_updates(record)}.",
            numbers=numbers,
            severity="note" if several else "error",
        )
    elif course.height > course.start + (THROWN - 1) * scale + TIMES_NOISE * course.noise:
        yield LEARNING_RATE_TOO_HIGH.found(
            where,
            f"Within {steps} the training loss rose from {course.start:.4g} to {course.height:.4g}, as a mean of "
            f"{IN_A_ROW} steps or more, before it fell to {course.last:.4g}{_of_updates(record)}.",
            numbers=numbers,
            severity="note" if several else "warning",
        )
    if record.trials:
        return
    fall = course.first - course.last
    straight = course.middle - course.last > STRAIGHT * fall
    updates = [look.update for look in record.looks if math.isfinite(look.update)]
    short = not updates or statistics.median(updates) < SMALL_UPDATE
    noise = 3 * course.noise / math.sqrt(max(course.count / 10, 1))
    if short and straight and noise < fall < LITTLE_IN_ALL * scale:
        yield LEARNING_RATE_TOO_LOW.found(
            where,
            f"Over {steps} the training loss fell from {course.first:.4g} to {course.last:.4g}, in a nearly straight "
            f"line{_of_updates(record)}.",
            numbers=numbers,
            severity=None if record.losses else "note",
        )


FAULTS: tuple[Fault, ...] = (LEARNING_RATE_TOO_HIGH, LEARNING_RATE_TOO_LOW)
CHECKS: tuple[Check, ...] = ()
