"""Softmax and its logarithm: several scores to probabilities that sum to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.activations.activation import Activation
from lastlayer.checks import ShapeError, check_floating
from lastlayer.facts import ActivationFacts, Interval


def softmax(x: Tensor, *, dim: int = -1) -> Tensor:
    """Softmax over one axis.

    Formula: ``p_i = exp(x_i) / Σ_j exp(x_j)``.

    Gradient: ``∂p_i/∂x_j = p_i (δ_ij − p_j)``.

    Shapes: ``(..., K)``, kept; the scores on axis ``dim``.

    Numerics: the largest score is subtracted first, so nothing overflows.

    Raises:
        ShapeError: for a tensor without an axis.

    Example:
        >>> softmax(torch.tensor([3.0, 1.0, -1.0, -1.0]))
        tensor([0.8533, 0.1155, 0.0156, 0.0156])

    Reference: SPEC C, G1.
    """
    _check_scores(x, "softmax")
    return torch.softmax(x, dim)


def log_softmax(x: Tensor, *, dim: int = -1) -> Tensor:
    """The logarithm of softmax over one axis.

    Formula: ``x_i − log Σ_j exp(x_j)``.

    Gradient: ``∂f_i/∂x_j = δ_ij − softmax(x)_j``.

    Shapes: ``(..., K)``, kept; the scores on axis ``dim``.

    Numerics: exact where softmax itself rounds to 0 or 1. It reaches down to the difference of two scores: scores
    farther apart than the dtype's largest number give −∞.

    Raises:
        ShapeError: for a tensor without an axis.

    Example:
        >>> log_softmax(torch.tensor([0.0, 1000.0]))
        tensor([-1000.,     0.])

    Reference: SPEC C, G2.
    """
    _check_scores(x, "log_softmax")
    return torch.log_softmax(x, dim)


def _check_scores(x: Tensor, name: str) -> None:
    check_floating(x, what="x")
    if x.dim() == 0:
        raise ShapeError(f"{name}: x has shape (); expected (..., K), K scores. Fix: x.unsqueeze(0).")


def _example(n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None) -> Tensor:
    return 3 * torch.randn(n, 5, dtype=dtype, generator=generator)


class _OverScores(Activation):
    """An activation over the scores on the last axis; its profile is that of the first of two, the other at 0."""

    def profile(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first of two outputs over the first score, the other at 0."""
        scores = torch.stack([x, torch.zeros_like(x)], dim=-1)
        return self.value(scores)[..., 0], self.derivative(scores)[..., 0, 0]


class Softmax(_OverScores):
    """Module form of :func:`softmax`, the scores on the last axis."""

    facts = ActivationFacts(
        name="softmax",
        title="softmax (multinomial logistic)",
        formula="p_i = exp(x_i) / Σ_j exp(x_j)",
        derivative="∂p_i/∂x_j = p_i (δ_ij − p_j)",
        range=Interval(0.0, 1.0),
        monotonic=True,
        derivative_monotonic=False,
        saturates_below=-9.22,
        saturates_above=9.22,
        zero_centered=False,
        smooth=True,
        elementwise=False,
        parameters=None,
        use_when="the last layer predicts which one of several classes holds",
        avoid_when="several labels can hold at once, or a loss that takes scores follows: cross_entropy has it inside",
        reference="SPEC C, A2; J. S. Bridle, Neurocomputing F68 (1990)",
        example=_example,
        profile="the first of two probabilities over its score, the other score at 0",
    )

    def value(self, x: Tensor) -> Tensor:
        return softmax(x)

    def _derivative(self, x: Tensor) -> Tensor:
        _check_scores(x, "softmax")
        probability = torch.softmax(x, -1)
        return torch.diag_embed(probability) - probability.unsqueeze(-1) * probability.unsqueeze(-2)


class LogSoftmax(_OverScores):
    """Module form of :func:`log_softmax`, the scores on the last axis."""

    facts = ActivationFacts(
        name="log_softmax",
        title="logarithm of softmax",
        formula="x_i − log Σ_j exp(x_j)",
        derivative="∂f_i/∂x_j = δ_ij − softmax(x)_j",
        range=Interval(high=0.0),
        monotonic=True,
        derivative_monotonic=True,
        saturates_below=None,
        saturates_above=9.22,
        zero_centered=False,
        smooth=True,
        elementwise=False,
        parameters=None,
        use_when="log-probabilities of classes are wanted, however small",
        avoid_when="a loss that takes scores follows: cross_entropy has it inside",
        reference="SPEC C, A2",
        example=_example,
        profile="the first of two log-probabilities over its score, the other score at 0",
    )

    def value(self, x: Tensor) -> Tensor:
        return log_softmax(x)

    def _derivative(self, x: Tensor) -> Tensor:
        _check_scores(x, "log_softmax")
        return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) - torch.softmax(x, -1).unsqueeze(-2)
