"""Class weights undone: logits trained with weighted classes, as they would be for the classes as they occur."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.checks import DomainError, ShapeError, check_floating, shape_text


def correct_class_logits(raw: Tensor, weight: Tensor) -> Tensor:
    """Softmax logits of a model trained with class weights, for the classes as they occur.

    With weights w the loss is least where ``softmax(s)_k ∝ w_k P(k | x)``, for each x: what a model can learn is
    shifted by ``log w``, and the shift is undone.

    Formula: ``s − log w``. Weights that are class shares of training over class shares of use correct for another
    prior likewise (oversampled or thinned-out classes).

    Shapes: raw ``(..., classes)``, weight ``(classes,)``; the factor that all weights share does not matter.

    Special cases: exact for the best model; what regularization or too small a network left between model and optimum
    is not undone, so that calibration may still help.

    Raises:
        KindError: if raw is not floating point.
        ShapeError: if there is not one weight for each class.
        DomainError: if a weight is not a positive number.

    Example:
        >>> correct_class_logits(torch.zeros(1, 2), torch.tensor([1.0, 3.0])).softmax(-1)
        tensor([[0.7500, 0.2500]])

    Reference: C. Elkan, The foundations of cost-sensitive learning, IJCAI (2001); M. Saerens, P. Latinne,
    C. Decaestecker, Neural Computation 14 (2002).
    """
    check_floating(raw, what="raw")
    if weight.dim() != 1 or raw.dim() == 0 or raw.shape[-1] != len(weight):
        raise ShapeError(
            f"raw has shape {shape_text(raw)}, weights {shape_text(weight)}; expected (..., classes) and (classes,)."
        )
    return raw - _log(weight).to(raw.device, raw.dtype)


def correct_label_logits(raw: Tensor, positive_weight: Tensor | float, negative_weight: Tensor | float = 1.0) -> Tensor:
    """Sigmoid logits of a model trained with weighted positives, for the labels as they occur.

    Formula: ``s − log(w₁/w₀)``; with PyTorch's ``pos_weight`` w₁ is that, and w₀ is 1.

    Shapes: raw of any shape; each weight a number, or one for each element of raw's last axis (labels).

    Special cases: those of :func:`correct_class_logits`.

    Raises:
        KindError: if raw is not floating point.
        ShapeError: if there is not one weight for each label.
        DomainError: if a weight is not a positive number.

    Example:
        >>> correct_label_logits(torch.tensor([0.0]), 3.0).sigmoid()
        tensor([0.2500])

    Reference: C. Elkan, The foundations of cost-sensitive learning, IJCAI (2001).
    """
    check_floating(raw, what="raw")
    shift = torch.zeros((), dtype=torch.float64, device=raw.device)
    for weight, sign in ((positive_weight, 1.0), (negative_weight, -1.0)):
        tensor = torch.as_tensor(weight, dtype=torch.float64, device=raw.device)
        if tensor.dim() and (tensor.dim() > 1 or raw.dim() == 0 or len(tensor) != raw.shape[-1]):
            raise ShapeError(
                f"raw has shape {shape_text(raw)}, a weight {shape_text(tensor)}; expected a number, or one weight for "
                f"each element of raw's last axis."
            )
        shift = shift + sign * _log(tensor)
    return raw - shift.to(raw.dtype)


def _log(weight: Tensor) -> Tensor:
    if not bool(((weight > 0) & weight.isfinite()).all()):
        raise DomainError(f"the weights are {weight.tolist()!r}; expected positive numbers.")
    return weight.double().log()
