"""Penalties on parameters, and the one rule that says which parameters weight decay and penalties cover."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lastlayer.checks import InputError, KindError, check_choice

Include = str | Callable[[str, nn.Parameter], bool]
_INCLUDE = ("weights", "all")
# By name, so that people's own LayerNorm2d is one as well.
_NOT_WEIGHTS = re.compile(r"bias|(^|_)scale$")
_SCALES = re.compile(r"(norm|prelu)(\dd)?$", re.IGNORECASE)


def parameters_to_penalize(network: nn.Module, include: Include = "weights") -> list[nn.Parameter]:
    """The parameters that are drawn toward zero, each once, in the network's order.

    Args:
        network: the module; parameters that do not require grad are left out.
        include: ``"weights"``: matrices and kernels, embeddings among them. That is every parameter of two or more
            axes, except what is called a bias or a scale and what belongs to a normalization or a PReLU, by the name of
            its class: a function is not simpler for having small biases, scales and slopes. ``"all"``: every parameter.
            A function ``(name, parameter) -> bool``: as it says.

    Raises:
        InputError: for another word.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.PReLU(), nn.Linear(4, 1))
        >>> [tuple(parameter.shape) for parameter in parameters_to_penalize(network)]
        [(4, 3), (1, 4)]

    Reference: SPEC B13.
    """
    if callable(include):
        return [parameter for name, parameter in _learning(network) if include(name, parameter)]
    check_choice(include, _INCLUDE, what="include")
    if include == "all":
        return [parameter for _, parameter in _learning(network)]
    scales = {
        id(parameter)
        for module in network.modules()
        if any(_SCALES.search(kind.__name__) for kind in type(module).__mro__)
        for parameter in module.parameters(recurse=False)
    }
    return [
        parameter
        for name, parameter in _learning(network)
        if parameter.dim() > 1 and id(parameter) not in scales and not _NOT_WEIGHTS.search(name.rpartition(".")[2])
    ]


def l1_penalty(
    parameters: nn.Module | Tensor | Iterable[Tensor], strength: float | Tensor, *, include: Include = "weights"
) -> Tensor:
    """The L1 penalty: added to a loss, it makes parameters exactly zero that are worth little.

    Formula: ``λ Σ |w|``.

    Gradient: ``λ sign(w)``, and 0 at w = 0, one of the subgradients there.

    Shapes: a scalar, of the parameters' dtype and device; half precision is computed and returned in float32. Over no
    parameters it is 0.

    Args:
        parameters: a module, of which ``include`` says which parameters; or the parameters themselves.
        strength: λ, 0 or more; as a tensor it is not checked, and gets a gradient if it requires one.
        include: see :func:`parameters_to_penalize`; for a module alone.

    Raises:
        InputError: for a strength that is negative, infinite or NaN.
        KindError: for parameters that are not tensors.

    Example:
        >>> l1_penalty([torch.tensor([3.0, -4.0])], 0.5)
        tensor(3.5000)

    Reference: SPEC B13.
    """
    return _checked_strength(strength) * _total(parameters, include, torch.abs)


def l2_penalty(
    parameters: nn.Module | Tensor | Iterable[Tensor], strength: float | Tensor, *, include: Include = "weights"
) -> Tensor:
    """The L2 penalty, whose gradient is weight decay.

    Formula: ``(λ/2) Σ w²``. The objective of dropout as a Bayesian approximation, ``λ Σ (‖W‖² + ‖b‖²)``, has no half
    and covers biases: ``l2_penalty(network, 2 * strength, include="all")``.

    Gradient: ``λ w``. Plain gradient descent on loss plus penalty is therefore ``torch.optim.SGD`` on the loss with
    ``weight_decay=λ`` for the same parameters. With Adam it is not AdamW, which takes the decay out of the gradient.

    Shapes: a scalar, of the parameters' dtype and device; half precision is computed and returned in float32. Over no
    parameters it is 0.

    Args:
        parameters: a module, of which ``include`` says which parameters; or the parameters themselves.
        strength: λ, 0 or more; as a tensor it is not checked, and gets a gradient if it requires one.
        include: see :func:`parameters_to_penalize`; for a module alone.

    Raises:
        InputError: for a strength that is negative, infinite or NaN.
        KindError: for parameters that are not tensors.

    Example:
        >>> l2_penalty([torch.tensor([3.0, -4.0])], 0.5)
        tensor(6.2500)

    Reference: SPEC B13, B19; Y. Gal, Z. Ghahramani, Dropout as a Bayesian approximation (ICML 2016).
    """
    return 0.5 * _checked_strength(strength) * _total(parameters, include, torch.square)


def _learning(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def _checked_strength(strength: float | Tensor) -> float | Tensor:
    if not isinstance(strength, Tensor) and not 0 <= strength < math.inf:
        raise InputError(f"strength is {strength!r}; expected a number of 0 or more.")
    return strength


def _total(
    parameters: nn.Module | Tensor | Iterable[Tensor], include: Include, size: Callable[[Tensor], Tensor]
) -> Tensor:
    """The sum of ``size`` over all elements, every parameter once."""
    if isinstance(parameters, nn.Module):
        like = next(parameters.parameters(), torch.zeros(()))
        chosen: list[Tensor] = list(parameters_to_penalize(parameters, include))
    else:
        chosen = _distinct([parameters] if isinstance(parameters, Tensor) else parameters)
        like = chosen[0] if chosen else torch.zeros(())
    total = torch.zeros((), dtype=_computed(like), device=like.device)
    for parameter in chosen:
        # Half precision would overflow at a norm of 256.
        total = total + size(parameter.to(_computed(parameter))).sum().to(total.device)
    return total


def _computed(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype


def _distinct(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor once: tied weights are one parameter."""
    distinct: dict[int, Tensor] = {}
    for parameter in parameters:
        if not isinstance(parameter, Tensor):
            raise KindError(
                f"parameters hold {type(parameter).__name__}; expected a module or tensors. "
                f"Fix: pass network.parameters(), not network.named_parameters()."
            )
        distinct[id(parameter)] = parameter
    return list(distinct.values())
