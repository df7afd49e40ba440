"""Do the inputs have a scale and a place from which a first layer learns (SPEC E1, E2, F)?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.arrivals import Arrival, arrivals, most_of, shown
from lastlayer.diagnosis.copies import copy_of
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.subject import Subject
from lastlayer.diagnosis.target_scale import with_standardized_target
from lastlayer.diagnosis.trial import compare
from lastlayer.diagnosis.without_operation import with_few_rows

# How the thresholds were chosen: networks of two hidden layers (ReLU and tanh) learned a regression and three classes
# from eight standard normal columns, once as they are and once rescaled or shifted, with Adam (1e-3, 1e-2) and with
# momentum (1e-1 … 1e-5), 12 epochs of 1000 rows.

#: Root mean square of a column. One column at 30 took momentum at its usual rate of 0.01 to the constant predictor in
#: regression with ReLU, one at 100 nearly everywhere; at 10 little was lost. All columns at 30 nearly doubled the error
#: of a regression by Adam.
LARGE = 30.0
#: The same, of the largest column. At 0.1 learning was slower; at 0.03 momentum at its usual rate learned next to
#: nothing of the classes and kept seven times the error of the regression.
SMALL = 0.05
#: Standard deviation of a column over that of the median one. At 1/100 the column was not learned from in those epochs.
INVISIBLE = 0.01
#: Size over that of the median column, where a normalization behind the layer takes a common scale out again: at 30
#: momentum suffers, at 100 it fails.
DOMINANT = 100.0
#: The first weights then turn away from a sensible start in a single step: every loss is far above the constant's.
ABSURD = 1e6
#: Mean over standard deviation of most columns. At 10 momentum fell back to the constant predictor in regression and
#: Adam kept nearly twice the error everywhere; at 3, where columns scaled to [0, 1] lie, both learned.
FAR = 10.0
#: In fewer samples a spread is small by chance.
_FEW_ROWS = 20
# A note on the sign needs this share of the numbers on one side of 0.
_NEARLY_ALL = 0.99

UNSCALED_INPUTS = Fault(
    name="unscaled_inputs",
    title="inputs of very different or extreme scale",
    severity="warning",
    why=(
        "Weights start at a size that suits inputs of mean 0 and standard deviation 1, and one learning rate serves "
        "all of them. A column a hundred times as large decides everything, or makes every rate too large; one a "
        "hundred times as small is not seen."
    ),
    fix="Standardize each column: subtract the mean of the training rows and divide by their standard deviation.",
    reference="SPEC E1, F; Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, Efficient BackProp, section 4.3 (1998)",
)

SAME_SIGN_INPUTS = Fault(
    name="same_sign_inputs",
    title="inputs all of one sign",
    severity="warning",
    why=(
        "The gradients of a unit's weights are its error times the inputs. If these all have one sign, so do the "
        "gradients, and weights that should part can only zigzag; means far from 0 also stretch the loss one way."
    ),
    fix="Subtract each column's mean over the training rows.",
    reference="SPEC E1, F; Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, Efficient BackProp, section 4.3 (1998)",
)

CONSTANT_COLUMN = Fault(
    name="constant_column",
    title="a column that never changes",
    severity="note",
    why="It says nothing of any row. Often it was filled with a default on the way, and should have said something.",
    fix="Look at how it is made; if it is meant to be constant, leave it out.",
    reference="SPEC E1",
)


def unscaled_inputs(subject: Subject) -> Iterator[Finding]:
    """Columns too large, too small, or too unlike the others for one learning rate and one initialization."""
    for arrival in arrivals(subject):
        evidence = _extreme(arrival)
        if evidence is None:
            continue
        text, numbers = evidence
        yield UNSCALED_INPUTS.found(
            arrival.where,
            text,
            numbers=numbers,
            severity="error" if numbers["largest"] >= ABSURD and not arrival.loses_scale else None,
            fix=_fix(arrival),
            tried=_standardized(subject, arrival),
        )


def same_sign_inputs(subject: Subject) -> Iterator[Finding]:
    """Columns that lie far from 0 on one side, measured in their own spread."""
    for arrival in arrivals(subject):
        counted = arrival.std > 0 if arrival.image else arrival.dense
        if arrival.loses_offset or len(arrival.columns) < _FEW_ROWS or not bool(counted.any()):
            continue
        offset = (arrival.mean / arrival.std)[counted]
        far = offset.abs() >= FAR
        numbers = {"median_offset": float(offset.abs().median()), "columns_far": float(far.sum())}
        if most_of(far):
            yield SAME_SIGN_INPUTS.found(
                arrival.where,
                f"{_count(int(far.sum()), arrival.noun)} of {len(arrival.mean)} have a mean at least {FAR:g} standard "
                f"deviations from 0 (the median {arrival.noun} {numbers['median_offset']:.3g}, {_samples(arrival)}).",
                numbers=numbers,
                tried=_standardized(subject, arrival),
            )
        elif _one_sided(arrival) and _extreme(arrival) is None:
            yield SAME_SIGN_INPUTS.found(
                arrival.where,
                f"nearly all numbers that are not 0 have one sign, and the median {arrival.noun} has its mean "
                f"{numbers['median_offset']:.2g} standard deviations from 0 ({_samples(arrival)}): all gradients of a "
                f"unit's weights have one sign too.",
                numbers=numbers,
                severity="note",
            )


def constant_column(subject: Subject) -> Iterator[Finding]:
    """Columns that are the same on all rows, but for zeros that a sparse or one-hot column may well have."""
    for arrival in arrivals(subject):
        if arrival.image or not arrival.untouched or len(arrival.columns) < _FEW_ROWS:
            continue
        still, value = arrival.constant, arrival.low
        # Zeros are a category that did not come up, or the border of an image; and a category of share p that was
        # standardized is −√p where it does not hold, as on all of n rows it may by chance, up to p = 3/n.
        chance = value.square() * arrival.rows <= 3
        counted = still if most_of(still) else still & ~chance
        if not bool(counted.any()):
            continue
        places, values = counted.nonzero(), value[counted]
        same = f" {values[0]:.4g}" if bool((values == values[0]).all()) else " one and the same number each"
        yield CONSTANT_COLUMN.found(
            arrival.where,
            f"{shown(places, 'column')} of {len(still)} {'is' if len(places) == 1 else 'are'}{same} on all of the "
            f"{_samples(arrival)}.",
            numbers={"columns": float(len(places)), "of": float(len(still))},
            severity="warning" if bool(still.all()) or most_of(still & ~chance) else None,
        )


def _extreme(arrival: Arrival) -> tuple[str, dict[str, float]] | None:
    """What is extreme about the columns' scale, in a sentence, with its figures; ``None`` if nothing is."""
    size, std, dense = arrival.size, arrival.std, arrival.dense
    filled = size > 0
    if not bool(filled.any()):
        return None
    middle = size[filled].median()
    largest = float(size.max())
    numbers = {"largest": largest, "median_size": float(middle), "smallest": float(size[filled].min())}
    large = size >= (DOMINANT * middle if arrival.loses_scale else LARGE)
    if bool(large.any()):
        worst, has = int(size.argmax()), "has" if int(large.sum()) == 1 else "have"
        others = f"; the median {arrival.noun} {middle:.3g}" if len(size) > 1 else ""
        return (
            f"{shown(large.nonzero(), arrival.noun)} of {len(size)} {has} a root mean square of up to {largest:.3g} "
            f"({arrival.noun} {worst}: {_middle_and_spread(arrival, worst)}{others}; {_samples(arrival)}), where "
            f"weights expect about 1."
        ), numbers
    if arrival.embedded:
        return None  # Small numbers among them can be those of embeddings, which grow as they are learned.
    if largest <= SMALL and not arrival.loses_offset:
        return (
            f"no {arrival.noun} has a root mean square above {largest:.3g} ({_samples(arrival)}), where weights expect "
            f"about 1."
        ), numbers
    # Of a few samples, and of columns that are mostly one value, a spread says little.
    if len(arrival.columns) < _FEW_ROWS or not bool(dense.any()):
        return None
    usual = std[dense].median()
    invisible = dense & (std <= INVISIBLE * usual)
    if not bool(invisible.any()):
        return None
    least = int(std.where(dense, torch.inf).argmin())
    return (
        f"{shown(invisible.nonzero(), arrival.noun)} of {len(size)} "
        f"{'varies' if int(invisible.sum()) == 1 else 'vary'} less than a hundredth as much as the median one "
        f"({arrival.noun} {least}: {_middle_and_spread(arrival, least)}; median standard deviation {usual:.3g}, "
        f"{_samples(arrival)}), and will hardly be learned from."
    ), numbers


def _one_sided(arrival: Arrival) -> bool:
    """Whether nearly all numbers but 0 have one sign, in images or where columns are mostly dense."""
    if not (arrival.image or most_of(arrival.dense)):
        return False
    columns = arrival.columns
    present = columns[columns != 0]
    positive = float((present > 0).double().mean()) if present.numel() else 0.5
    return max(positive, 1 - positive) >= _NEARLY_ALL


def _middle_and_spread(arrival: Arrival, column: int) -> str:
    return f"mean {arrival.mean[column]:.3g}, standard deviation {arrival.std[column]:.3g}"


def _samples(arrival: Arrival) -> str:
    return _count(arrival.rows, "row")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _fix(arrival: Arrival) -> str | None:
    """What to do about images, and where 255 is why."""
    low, high = float(arrival.low.min()), float(arrival.high.max())
    scaled = "Divide them by 255 first. " if low >= 0 and 128 <= high <= 255 else ""
    if not arrival.image:
        return scaled + UNSCALED_INPUTS.fix if scaled else None
    return (
        f"{scaled}Standardize each channel: subtract its mean over the training images and divide by its standard "
        f"deviation."
    )


class _Standardized(nn.Module):
    """Columns to mean 0 and standard deviation 1, in front of a layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, arrival: Arrival, layer: nn.Module, axis: int) -> None:
        super().__init__()
        self.layer, self.axis = layer, axis
        self.register_buffer("mean", arrival.mean.float())
        self.register_buffer("std", arrival.std.where(arrival.std > 0, 1.0).float())

    def forward(self, x: Tensor) -> Tensor:
        standardized = (x.movedim(self.axis, -1).float() - self.mean) / self.std
        result: Tensor = self.layer(standardized.movedim(-1, self.axis).to(x.dtype))
        return result


def _standardized(subject: Subject, arrival: Arrival) -> str | None:
    """What it does to standardize in front of this layer."""
    operation = arrival.operation
    key = f"standardized before {operation.index}"
    if key in subject.shared:
        said: str | None = subject.shared[key]
        return said
    if subject.target is None or subject.loss is None or not operation.module or subject.training_pass.failure:
        return None

    def mended() -> tuple[nn.Module, object]:
        network = copy_of(subject.network)
        parent, _, name = operation.module.rpartition(".")
        layer = network.get_submodule(operation.module)
        axis = -1 - int(operation.name[-2]) if arrival.image else -1
        setattr(network.get_submodule(parent), name, _Standardized(arrival, layer, axis))
        return network, subject.loss

    apart = with_standardized_target(subject)
    few, rows = with_few_rows(apart or subject)
    fix = f"with standardized {arrival.noun}s" + ("" if apart is None else " (the target standardized in both)") + rows
    subject.shared[key] = said = compare(few, mended, fix=fix)
    return said


FAULTS: tuple[Fault, ...] = (UNSCALED_INPUTS, SAME_SIGN_INPUTS, CONSTANT_COLUMN)
CHECKS: tuple[Check, ...] = (unscaled_inputs, same_sign_inputs, constant_column)
