"""What a loss that nothing is known of takes, told from the numbers that it gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.diagnosis.copies import kept_random_state
from lastlayer.diagnosis.loss_traits import (
    ABSOLUTE_ERROR,
    BCE,
    BCE_WITH_LOGITS,
    CROSS_ENTROPY,
    NLL,
    POISSON,
    POISSON_OF_RATES,
    SQUARED_ERROR,
    LossTraits,
)
from lastlayer.diagnosis.subject import Subject, loss_of, own_copy

# Predictions that a loss is asked for: two say how it is scaled and shifted, the others whether it is the one.
_PROBES = 6
# What is left of a loss's differences between predictions when a multiple of the right one has been taken away: the
# rounding of float32, a thousand times over. Of a wrong one a tenth is left and more.
_REST = 1e-3

_Reference = tuple[LossTraits, Callable[[Tensor, Tensor], Tensor]]


def traits_by_behavior(subject: Subject) -> LossTraits | None:
    """Those of the well-known loss that this one is a multiple of, constants aside; ``None`` if it is none of them.

    The loss is computed of a few random predictions of the network's shape between 0 and 1, where every loss has a
    value, against the target as it is.
    """
    raw, target = subject.training_pass.raw, subject.target
    if raw is None or target is None or not raw.is_floating_point() or raw.numel() == 0:
        return None
    probes = list(_predictions(raw))
    given = _values(subject, probes, target)
    if given is None:
        return None
    for traits, function in _references(raw, target):
        try:
            expected = torch.stack([function(probe.double(), target).double() for probe in probes]).cpu()
        except Exception:  # The target is none of this loss's.
            continue
        if _is_multiple(given, expected):
            return traits
    return None


def _predictions(raw: Tensor) -> Iterator[Tensor]:
    """Around different middles and of different spreads, so that their losses differ by much."""
    generator = torch.Generator().manual_seed(0)
    for number in range(_PROBES):
        low, high = ((0.05, 0.95), (0.05, 0.4), (0.6, 0.95), (0.3, 0.7), (0.02, 0.6), (0.4, 0.98))[number]
        drawn = low + (high - low) * torch.rand(raw.shape, generator=generator, dtype=torch.float64)
        yield drawn.to(device=raw.device, dtype=raw.dtype)


@torch.no_grad()
def _values(subject: Subject, probes: list[Tensor], target: Tensor) -> Tensor | None:
    compute = loss_of(own_copy(subject.loss))
    try:
        with warnings.catch_warnings(), kept_random_state():
            warnings.simplefilter("ignore")
            values = torch.stack([compute(probe, target.detach().clone()).detach().double().cpu() for probe in probes])
    except Exception:
        return None
    return values if values.shape == (len(probes),) and bool(values.isfinite().all()) else None


def _is_multiple(given: Tensor, expected: Tensor) -> bool:
    """Whether ``given = a + b · expected`` with a positive b."""
    if not bool(expected.isfinite().all()):
        return False
    centered, other = given - given.mean(), expected - expected.mean()
    spread = float(other.square().sum())
    if spread <= 1e-12 * max(1.0, float(expected.square().sum())):
        return False
    slope = float((centered * other).sum()) / spread
    rest = (centered - slope * other).abs().max()
    return slope > 0 and float(rest) < _REST * float(centered.abs().max())


def _references(raw: Tensor, target: Tensor) -> Iterator[_Reference]:
    """Well-known losses of predictions and targets of these shapes."""
    if not target.is_floating_point() and target.dim() == raw.dim() - 1:
        for axis in {1, raw.dim() - 1} if raw.dim() > 1 else set():
            yield from _of_classes(axis)
    if target.shape == raw.shape and target.is_floating_point():
        for axis in {1, raw.dim() - 1} if raw.dim() > 1 else set():
            yield from _of_shares(axis)
    if target.numel() == raw.numel():
        yield from _of_numbers()


def _of_classes(axis: int) -> Iterator[_Reference]:
    def first(raw: Tensor) -> Tensor:
        return raw.movedim(axis, 1)

    yield replace(CROSS_ENTROPY, class_axis=axis), lambda raw, y: F.cross_entropy(first(raw), y.long())
    yield replace(NLL, class_axis=axis), lambda raw, y: F.nll_loss(first(raw), y.long())
    # What is given are probabilities, and the logarithm is the loss's own.
    of_probabilities = replace(NLL, class_axis=axis, given="probabilities")
    yield of_probabilities, lambda raw, y: F.nll_loss(first(raw).log(), y.long())


def _of_shares(axis: int) -> Iterator[_Reference]:
    traits = replace(CROSS_ENTROPY, class_axis=axis)
    yield traits, lambda raw, y: -(y * torch.log_softmax(raw, axis)).sum()
    squared = replace(SQUARED_ERROR, name="the squared error of a softmax", links=("softmax",), class_axis=axis)
    yield squared, lambda raw, y: F.mse_loss(raw.softmax(axis), y.double())


def _of_numbers() -> Iterator[_Reference]:
    def alike(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda raw, y: function(raw, y.reshape(raw.shape).double())

    yield SQUARED_ERROR, alike(F.mse_loss)
    behind_sigmoid = replace(SQUARED_ERROR, name="the squared error of a sigmoid", links=("sigmoid",))
    yield behind_sigmoid, alike(lambda raw, y: F.mse_loss(raw.sigmoid(), y))
    yield ABSOLUTE_ERROR, alike(F.l1_loss)
    yield BCE_WITH_LOGITS, alike(F.binary_cross_entropy_with_logits)
    yield BCE, alike(lambda raw, y: -(y * raw.log() + (1 - y) * (1 - raw).log()).mean())
    yield POISSON, alike(lambda raw, y: (raw.exp() - y * raw).mean())
    yield POISSON_OF_RATES, alike(lambda raw, y: (raw - y * raw.log()).mean())
