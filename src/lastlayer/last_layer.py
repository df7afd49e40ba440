"""The last linear layer together with its loss, and which evaluation runs: for any loss or head, by object or name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lastlayer import evaluation, losses
from lastlayer.checks import InputError, KindError
from lastlayer.evaluation import Choice, Formula, choose_path
from lastlayer.heads import Head
from lastlayer.losses import Loss


def fused_linear(
    loss: Loss | Head | str,
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: str | None = None,
    normalizer: Tensor | float | None = None,
    byte_budget: int | None = None,
    **options: Any,
) -> Tensor:
    """The loss of ``linear(features, weight, bias)``, whose result is never whole in memory.

    With many outputs (a vocabulary, a catalog of labels) the raw output is larger than everything else in a training
    step. Here it exists some rows at a time, in a buffer of ``byte_budget``, and is overwritten there by its gradient,
    from which the gradients of features, weight and bias follow. All three are exact, and written while the loss is
    computed.

    Domain, link, formula: those of the loss.

    Shapes: features ``(..., D)``, weight ``(K, D)`` as in ``nn.Linear(D, K)``, bias ``(K,)``; target as the loss or
    head takes it for raw output ``(..., K)``.

    Args:
        loss: a loss (its own reduction holds), a head, or the name of a loss, which then takes its ``options`` here.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; ``"none"`` has the raw output whole in memory after all.
        byte_budget: bytes of raw output at a time; 32 MB unless told.

    Numerics: half precision multiplies in half precision with float32 sums, as ``nn.Linear`` does, and computes the
    loss in float32. Over more than four chunks the gradient of a half-precision weight is added up in float32, which
    takes twice its memory. In float16 a mean over many rows has gradients so small that some vanish before a loss
    scale reaches them; bfloat16 has no such end.

    Special cases: class weights go with the loss, ``losses.CrossEntropy(weight)``: here ``weight`` is the layer's.
    Under ``torch.func``, ``torch.compile`` and ``create_graph`` the plain layer and loss take over.

    Raises:
        ShapeError: if features, weight, bias and target do not belong together.
        InputError: for a name that is no loss, an option it does not have, or a budget below one row.

    Example:
        >>> import torch
        >>> features, weight = torch.ones(2, 3), torch.zeros(4, 3, requires_grad=True)
        >>> loss = fused_linear("cross_entropy", features, weight, torch.tensor([0, 1]), label_smoothing=0.1)
        >>> loss.backward()
        >>> round(loss.item(), 4), tuple(weight.grad.shape)
        (1.3863, (4, 3))
    """
    formula, own = _formula_of(loss, options)
    if isinstance(loss, Head):
        if weight.dim() == 2 and weight.shape[0] != loss.raw_size:
            raise InputError(
                f"fused_linear: weight has {weight.shape[0]} rows; {type(loss).__name__} takes {loss.raw_size}."
            )
        if formula.event_dims == 0:
            # The head's axis of one raw output is the layer's; an elementwise loss wants it on the target too.
            target = target.unsqueeze(-1)
    return evaluation.fused_linear(
        formula,
        features,
        weight,
        target,
        bias=bias,
        sample_weight=sample_weight,
        reduction=reduction or own,
        normalizer=normalizer,
        byte_budget=byte_budget,
    )


def explain(loss: Loss | Head | str, raw: Tensor, **options: Any) -> Choice:
    """Which evaluation runs for this loss on this raw output, and why.

    Returns:
        A choice with ``.path`` (``"plain"``, ``"blockwise"``, ``"kernel"`` or ``"compiled"``) and ``.reason``.
        ``lastlayer.evaluate_with(path=...)`` forces another.

    Example:
        >>> import torch
        >>> print(explain("cross_entropy", torch.zeros(64, 10)))
        blockwise: value and closed-form gradient in one sweep
    """
    formula, reduction = _formula_of(loss, options)
    return choose_path(formula, raw, reduction=reduction)


def _formula_of(loss: Loss | Head | str, options: dict[str, Any]) -> tuple[Formula, str]:
    """The mathematics and the reduction that goes with it."""
    if isinstance(loss, str):
        loss = losses.by_name(loss, **options)
    elif options:
        raise InputError(
            f"options {', '.join(map(repr, options))} go with the name of a loss; {type(loss).__name__} has its own. "
            f"Fix: give them to {type(loss).__name__}(...)."
        )
    if isinstance(loss, Loss):
        return loss.formula, loss.reduction
    if isinstance(loss, Head):
        return loss.formula, "mean"
    raise KindError(f"loss is {type(loss).__name__}; expected a lastlayer loss, a head, or the name of a loss.")
