"""A loss by its name, as ``--loss`` takes it: PyTorch's, one of ours, or a head's."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from lastlayer import heads, losses
from lastlayer.checks import InputError

#: PyTorch's losses by the names that people have for them. Cross-entropy is PyTorch's too, with classes on axis 1.
PYTORCH: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "ce": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce": nn.BCELoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
    "mse": nn.MSELoss,
    "mae": nn.L1Loss,
    "kl_div": nn.KLDivLoss,
}


def loss_by_name(text: str, *, width: int | None = None) -> Any:
    """The loss or head of that name; capitals and hyphens do not matter.

    Args:
        text: such as ``"cross_entropy"``, ``"MSELoss"``, ``"focal"``, ``"gaussian:predicted"``.
        width: how many numbers the network puts out, for a head that has to know its classes.

    Raises:
        InputError: for a name that nothing has, with the nearest ones.
    """
    spelled = text.strip().replace("-", "_")
    if isinstance(getattr(nn, spelled, None), type) and spelled.endswith("Loss"):
        try:
            return getattr(nn, spelled)()
        except TypeError as error:
            raise InputError(f"--loss {text}: it has to be made with options ({error}). Make it in the file.") from None
    name, *options = spelled.lower().split(":")
    if name in PYTORCH and not options:
        return PYTORCH[name]()
    if name in losses.catalog() and not options:
        return losses.by_name(name)
    if name in heads.catalog():
        head = heads.named(name)
        if head.over_classes and head is not heads.Bernoulli:
            if not width or width < 2:
                raise InputError(f"--loss {text}: it has to know its classes. Make the head in the file.")
            return head(width + 1 if head is heads.Ordinal else width)  # type: ignore[call-arg]
        return heads.from_text(":".join([name, *options]))
    known = {*PYTORCH, *losses.catalog(), *heads.catalog()}
    near = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise InputError(
        f"there is no loss named {text!r}.{hint} Known are PyTorch's, such as cross_entropy, bce_with_logits or "
        f"MSELoss, and what lastlayer losses and lastlayer heads list."
    )
