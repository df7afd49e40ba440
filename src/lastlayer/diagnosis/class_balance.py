"""Are some classes far rarer than others, and does the loss take no account of it (SPEC A10, F)?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from scipy.stats import beta
from torch import Tensor

from lastlayer.diagnosis.copies import kept_random_state
from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding, Severity
from lastlayer.diagnosis.subject import Subject, loss_of, own_copy

#: The most frequent class over the rarest. From 1 to 10 on, accuracy says little of the rare class (9 of 10 are right
#: without looking); from 1 to 40 on, a batch of 32 rows has none of it as often as not, and its gradient is lost.
UNEVEN, FAR_APART = 10.0, 40.0
#: The ratio that is certain at 95 % on both sides, so that no small batch raises an alarm by chance.
CERTAIN_UNEVEN, CERTAIN_FAR_APART = 5.0, 15.0
#: Of more classes than this (words, faces) some are always rare, and nobody minds.
MOST_CLASSES = 50
#: A loss whose gradient for the rare class is this many times that for the frequent one takes account of it.
WEIGHTED = 1.5
#: A loss whose gradient at a logit of 2 for the right class is below this share of that at 0 looks past what is easy:
#: binary cross-entropy has 0.24, focal loss with γ = 1 has 0.06.
PASSES_OVER_EASY = 0.15

#: A class that surely has this many times its share of all rows in the batch was drawn more often on purpose.
EVENED = 2.0

UNBALANCED_CLASSES = Fault(
    name="unbalanced_classes",
    title="classes of very different frequency",
    severity="warning",
    why=(
        "The mean loss is the frequent classes' loss: a network that never decides for the rare one is nearly as good, "
        "and batches without it teach nothing of it."
    ),
    fix="Weight the classes by M / m_n, M rows in all and m_n of class n, or judge by the rare class's own figures.",
    reference="SPEC A10, F",
)


@dataclass(frozen=True)
class Counts:
    """How often each class occurs.

    Attributes:
        of: one number per class.
        rows: how many samples there are.
        names: what the classes are called, if they have names.
    """

    of: Tensor
    rows: int
    names: tuple[str, ...] = ()

    @property
    def rarest(self) -> int:
        """The class with the fewest samples."""
        return int(self.of.argmin())

    @property
    def most_frequent(self) -> int:
        """The class with the most."""
        return int(self.of.argmax())

    @property
    def ratio(self) -> float:
        """The most frequent over the rarest; infinite if that never occurs."""
        least = float(self.of.min())
        return float(self.of.max()) / least if least else float("inf")

    @property
    def certain_ratio(self) -> float:
        """What the ratio is at least, if the rows were drawn: from one-sided 95 % bounds of both shares.

        Reference: C. Clopper, E. Pearson, Biometrika 26 (1934).
        """
        few = int(self.of.min())
        upper = float(beta.ppf(0.95, few + 1, self.rows - few)) if few < self.rows else 1.0
        return self.least_share(self.most_frequent) / upper

    def least_share(self, index: int) -> float:
        """What the share of a class is at least, at 95 %, if the rows were drawn."""
        count = int(self.of[index])
        return float(beta.ppf(0.05, count, self.rows - count + 1)) if count else 0.0

    @property
    def severity(self) -> Severity | None:
        """How bad that is; ``None`` if it is not."""
        if self.ratio >= FAR_APART and self.certain_ratio >= CERTAIN_FAR_APART:
            return "warning"
        return "note" if self.ratio >= UNEVEN and self.certain_ratio >= CERTAIN_UNEVEN else None

    def name(self, index: int) -> str:
        """What a class is called."""
        return f"class {self.names[index] if self.names else index}"

    @property
    def evidence(self) -> str:
        """In a sentence."""
        rare, frequent = self.rarest, self.most_frequent
        times = f", 1 to {self.ratio:.0f}" if self.of.min() > 0 else ""
        return (
            f"{self.name(rare)} has {int(self.of[rare])} of {self.rows} samples, {self.name(frequent)} "
            f"{int(self.of[frequent])}{times}."
        )

    @property
    def numbers(self) -> dict[str, float]:
        """The figures in the evidence."""
        few, many = float(self.of.min()), float(self.of.max())
        return {"rarest": few, "most_frequent": many, "samples": float(self.rows)}

    @property
    def weights(self) -> list[float]:
        """``M / m_n`` of every class (SPEC A10), 0 of one that does not occur."""
        return [self.rows / count if count else 0.0 for count in self.of.tolist()]


def unbalanced_classes(subject: Subject) -> Iterator[Finding]:
    """Classes of which one is far rarer, under a loss that counts every sample alike."""
    raw, target = subject.training_pass.raw, subject.target
    if raw is None or target is None or subject.loss is None or target.numel() == 0 or raw.numel() == 0:
        return
    task = _task(raw.detach(), target)
    if task is None or _reconstructs(subject):
        return
    for label, counts in enumerate(_of_all_rows(subject, task)):
        severity = counts.severity
        if severity is None:
            continue
        if _takes_account(subject.loss, task, counts):
            return
        # Letters and words are rare by nature, and in a dense target each sample has many neighbors to go by.
        many = len(task.counts) > 1 or (task.dense and not task.binary)
        yield UNBALANCED_CLASSES.found(
            f"label {label} of the target" if len(task.counts) > 1 else "the target",
            counts.evidence,
            numbers=counts.numbers,
            severity="note" if many else severity,
            fix=fix_for(counts, binary=task.binary),
        )


def _reconstructs(subject: Subject) -> bool:
    """Whether the inputs themselves are the target: black and white images that are to be drawn are no classes."""
    features, target = subject.features, subject.target
    if not isinstance(features, Tensor) or target is None or features.numel() != target.numel():
        return False
    return bool((features.reshape(-1) == target.reshape(-1)).all())


def _of_all_rows(subject: Subject, task: _Task) -> list[Counts]:
    """The classes of all training rows, where they are known and batches are not drawn so as to even them out."""
    if subject.training is None or subject.target is None:
        return task.counts
    target = subject.training[1].detach()
    if target.shape[1:] != subject.target.shape[1:] or target.dtype != subject.target.dtype or len(target) < task.rows:
        return task.counts
    counts = []
    for shown, known in zip(task.counts, task.count(target), strict=True):
        rarest = known.rarest
        evened = shown.least_share(rarest) > EVENED * float(known.of[rarest]) / known.rows
        counts.append(shown if evened else known)
    return counts


def fix_for(counts: Counts, *, binary: bool) -> str:
    """The weights to give, as they are written."""
    if not counts.of.min() > 0:
        return (
            f"{counts.name(counts.rarest)} does not occur among these {counts.rows}: add samples of it, draw batches "
            f"that hold every class (torch.utils.data.WeightedRandomSampler), or leave the class out."
        )
    if binary:
        negative, positive = counts.of.tolist()
        written = f"pos_weight=torch.tensor({negative / positive:.3g})"
        return (
            f"Weight the classes by how rare they are: {written} in BCEWithLogitsLoss, or class_weight='balanced' in "
            f"Classifier; judge by the rare class's own figures, not by accuracy."
        )
    shown = ", ".join(f"{weight:.3g}" for weight in counts.weights[:12]) + (", …" if len(counts.weights) > 12 else "")
    return (
        f"Weight the classes by M / m_n: weight=torch.tensor([{shown}]) in the cross-entropy "
        f"(lastlayer.losses.class_weights), or class_weight='balanced' in Classifier; judge by the rare class's own "
        f"figures, not by accuracy."
    )


@dataclass(frozen=True)
class _Task:
    """Classes as a target holds them, and how to ask the loss about one sample of each.

    Attributes:
        target: of the batch.
        count: the classes of such a target, or of each of its labels.
        binary: whether each is one of two.
        dense: whether a row has many targets (pixels, tokens).
        probe: ``probe(size)`` is raw outputs and targets of one sample of every class, in order, the right one's logit
            that much above the others.
    """

    target: Tensor
    count: Callable[[Tensor], list[Counts]]
    binary: bool
    dense: bool
    probe: Callable[[float], tuple[Tensor, Tensor]]

    @cached_property
    def counts(self) -> list[Counts]:
        """Of the batch."""
        return self.count(self.target)

    @property
    def rows(self) -> int:
        """Of the batch."""
        return len(self.target)


def _task(raw: Tensor, target: Tensor) -> _Task | None:
    """What kind of classes the target holds; ``None`` if it holds none."""
    if not target.is_floating_point() and raw.dim() == target.dim() + 1:
        return _indices(raw, target)
    if raw.numel() != target.numel() or not bool(((target == 0) | (target == 1)).all()):
        return None
    if target.dim() == 2 and target.shape == raw.shape and 1 < target.shape[1] <= MOST_CLASSES:
        return _one_hot(raw, target) if bool((target.sum(1) == 1).all()) else _labels(raw, target, target.shape[1])
    # A mask of one channel is classes; several are a drawing.
    if target.dim() <= 3 or target.shape[1] == 1:
        return _labels(raw, target, 1)
    return None


def _indices(raw: Tensor, target: Tensor) -> _Task | None:
    # PyTorch has classes on axis 1, heads and our losses on the last; for (rows, classes) that is the same.
    axis = next((axis for axis in (1, -1) if _without(raw, axis) == target.shape), None) if raw.dim() > 1 else None
    if axis is None:
        return None
    classes, extra = raw.shape[axis], (1,) * (target.dim() - 1)
    known = target[target >= 0]
    if not 2 <= classes <= MOST_CLASSES or known.numel() == 0 or int(known.max()) >= classes:
        return None

    def count(target: Tensor) -> list[Counts]:
        index = target[(target >= 0) & (target < classes)].cpu()
        return [Counts(torch.bincount(index, minlength=classes), len(index))]

    def probe(size: float) -> tuple[Tensor, Tensor]:
        scores = (size * torch.eye(classes)).reshape(classes, classes, *extra)
        wanted = torch.arange(classes).reshape(classes, *extra)
        return (scores if axis == 1 else scores.movedim(1, -1)).to(raw), wanted.to(target)

    return _Task(target.detach(), count, binary=False, dense=target.dim() > 1, probe=probe)


def _one_hot(raw: Tensor, target: Tensor) -> _Task:
    classes = target.shape[1]
    return _Task(
        target.detach(),
        lambda target: [Counts(target.double().sum(0).cpu(), len(target))],
        binary=False,
        dense=False,
        probe=lambda size: ((size * torch.eye(classes)).to(raw), torch.eye(classes).to(target)),
    )


def _labels(raw: Tensor, target: Tensor, labels: int) -> _Task:
    """One of two classes per number: one target, or one per label."""
    shapes = raw.shape[1:], target.shape[1:]

    def count(target: Tensor) -> list[Counts]:
        values = target.reshape(-1, labels).double().cpu()
        return [Counts(torch.stack([len(values) - ones, ones]), len(values)) for ones in values.sum(0)]

    def probe(size: float) -> tuple[Tensor, Tensor]:
        sign = torch.tensor([-1.0, 1.0])
        scores, wanted = (
            (values.reshape(2, *(1 for _ in shape))).expand(2, *shape).clone()
            for values, shape in zip((size * sign, sign > 0), shapes, strict=True)
        )
        return scores.to(raw), wanted.to(target)

    return _Task(target.detach(), count, binary=True, dense=target.dim() > 2, probe=probe)


def _without(raw: Tensor, axis: int) -> torch.Size:
    shape = list(raw.shape)
    del shape[axis]
    return torch.Size(shape)


def _takes_account(loss: Any, task: _Task, counts: Counts) -> bool:
    """Whether the loss weights the rare class up, or passes over what is easy."""
    undecided, easy = _pulls(loss, task, 0.0), _pulls(loss, task, 2.0)
    if undecided is None:
        return False
    rare, frequent = undecided[counts.rarest], undecided[counts.most_frequent]
    if float(rare) >= WEIGHTED * float(frequent) > 0:
        return True
    return easy is not None and task.binary and float(easy[counts.most_frequent]) < PASSES_OVER_EASY * float(frequent)


def _pulls(loss: Any, task: _Task, size: float) -> Tensor | None:
    """The size of the gradient for one sample of each class; ``None`` if the loss does not say."""
    scores, wanted = task.probe(size)
    with kept_random_state(), torch.inference_mode(False), torch.enable_grad():
        scores = scores.detach().clone().requires_grad_(True)
        try:
            value = loss_of(own_copy(loss))(scores, wanted)
            (gradient,) = torch.autograd.grad(value, scores)
        except Exception:
            return None
    return gradient.double().reshape(len(gradient), -1).norm(dim=1)


FAULTS: tuple[Fault, ...] = (UNBALANCED_CLASSES,)
CHECKS: tuple[Check, ...] = (unbalanced_classes,)
