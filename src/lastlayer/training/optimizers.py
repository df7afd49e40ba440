"""PyTorch's optimizers, and their update without what surrounds it."""

from __future__ import annotations

from torch.optim import Adam, Optimizer
from torch.optim.adam import adam


def update(optimizer: Optimizer) -> None:
    """One update of the parameters from their gradients: ``optimizer.step()``.

    For fused Adam and AdamW it is PyTorch's function of that name, called as their ``step`` calls it but without the
    profiler's record and the compiler's guard, which cost as much as a forward pass of a small network.
    """
    if not _is_plain_adam(optimizer):
        optimizer.step()
        return
    for group in optimizer.param_groups:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [optimizer.state[parameter] for parameter in parameters]
        if not parameters:
            continue
        beta1, beta2 = group["betas"]
        adam(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            decoupled_weight_decay=group["decoupled_weight_decay"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )


def _is_plain_adam(optimizer: Optimizer) -> bool:
    """Whether ``step`` would do nothing else: fused, begun, and without hooks or a gradient scaler."""
    return (
        isinstance(optimizer, Adam)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and not hasattr(optimizer, "grad_scale")
        and all(
            group["fused"]
            and not group["amsgrad"]
            and all(own in optimizer.state for own in group["params"] if own.grad is not None)
            for group in optimizer.param_groups
        )
    )
