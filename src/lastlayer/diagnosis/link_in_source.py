"""A link before a loss that has its own, read from the source where the forward pass breaks off before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.examination import Check
from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding
from lastlayer.diagnosis.forward_source import forward_source
from lastlayer.diagnosis.loss_traits import FUNCTIONS, own_traits
from lastlayer.diagnosis.output_and_loss import SIGMOID_BEFORE_LOGIT_LOSS, SOFTMAX_BEFORE_CROSS_ENTROPY
from lastlayer.diagnosis.subject import Subject, run

_FAULTS = {"softmax": SOFTMAX_BEFORE_CROSS_ENTROPY, "sigmoid": SIGMOID_BEFORE_LOGIT_LOSS}


def link_before_the_loss(subject: Subject) -> Iterator[Finding]:
    """Whether what the network returns is written as a softmax or a sigmoid that the loss applies itself."""
    failure = subject.training_pass.failure
    if failure is None or failure.stage != "forward":
        return
    for link, written in _last_links(subject.network):
        if link in _FAULTS and link in _links_of(subject):
            evidence = f"The network returns {written}, and the loss applies a {link} itself."
            yield _FAULTS[link].found("the network's output", evidence)


def _last_links(network: nn.Module) -> Iterator[tuple[str, str]]:
    """The link that the network's result comes from, by name, and how it is written."""
    if isinstance(network, nn.Sequential):
        yield from _of_module(network, "")
    source = forward_source(network)
    if source is None or len(source.returned_calls) != len(source.returned):
        return
    ends: dict[str, str] = {}
    for call in source.returned_calls:
        own = [call.name] if call.module is None else [link for link, _ in _of_module(call.module, "")]
        ends.update({link: f"{call.written} in {source.place(call.line)}" for link in own or [""]})
    if len(ends) == 1:  # Else it is a softmax for predictions alone.
        yield from ends.items()


def _of_module(module: nn.Module, path: str) -> Iterator[tuple[str, str]]:
    """The link that a layer is, or ends with."""
    if isinstance(module, nn.Sequential) and len(module):
        yield from _of_module(module[-1], f"{path}.{len(module) - 1}".removeprefix("."))
    elif isinstance(module, nn.Softmax | nn.Softmax2d | nn.Sigmoid):
        link = "sigmoid" if isinstance(module, nn.Sigmoid) else "softmax"
        yield link, f"the output of layer '{path}' ({type(module).__name__})"


def _links_of(subject: Subject) -> tuple[str, ...]:
    """What the loss applies to raw outputs: known of ours, seen of others on made-up scores."""
    own = own_traits(subject.loss)
    if own is not None:
        return own.links
    raw = _made_up(subject.target)
    if raw is None or subject.loss is None:
        return ()
    seen = run(nn.Identity(), subject.loss, raw, subject.target, training=True)
    return tuple(
        link for operation in seen.of_loss if operation.name in FUNCTIONS for link in FUNCTIONS[operation.name].links
    )


def _made_up(target: Any) -> Tensor | None:
    """Scores that a loss may take with this target."""
    if not isinstance(target, Tensor) or not target.numel():
        return None
    if target.is_floating_point():
        return torch.zeros_like(target)
    return torch.zeros(len(target), max(2, int(target.max()) + 1), *target.shape[1:]) if target.dim() else None


FAULTS: tuple[Fault, ...] = ()
CHECKS: tuple[Check, ...] = (link_before_the_loss,)
