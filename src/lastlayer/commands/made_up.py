"""Inputs and targets made up for a network whose data nobody has given: of a shape that it takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.copies import copy_of, copy_of_inputs, kept_random_state
from lastlayer.heads import Head
from lastlayer.losses import Loss

ROWS = 64
# Height and width of images, and lengths of sequences, from those of textbooks to what deep networks need.
_SIZES = (28, 32, 64, 224)
_LENGTHS = (16, 64, 256)
_SEED = 0


@dataclass(frozen=True)
class MadeUp:
    """Inputs that were made up.

    Attributes:
        features: for the network.
        words: what they are, for people.
        fits: whether the network takes them.
    """

    features: Tensor
    words: str
    fits: bool


def make_up_inputs(network: nn.Module) -> MadeUp | None:
    """Standard normal inputs, or random indices, of the first shape that the network takes.

    Shapes are guessed from its layers in the order in which they were made. If it takes none, the likeliest are
    returned, so that the reason can be found out; ``None`` if no layer says anything.
    """
    first: MadeUp | None = None
    with kept_random_state():
        for shape, indices in _candidates(network):
            features = _drawn(shape, indices)
            of = f"indices below {indices}" if indices else "standard normal numbers"
            made = MadeUp(features, f"{of} of shape {shape}", fits=output_of(network, features) is not None)
            if made.fits:
                return made
            first = first or made
    return first


def _drawn(shape: tuple[int, ...], indices: int | None) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    if indices:
        return torch.randint(indices, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def _candidates(network: nn.Module) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Shapes, the likeliest first, with the number of indices where it takes those."""
    seen: set[tuple[tuple[int, ...], int | None]] = set()
    for candidate in _all_candidates(network):
        if candidate not in seen:
            seen.add(candidate)
            yield candidate


def _all_candidates(network: nn.Module) -> Iterator[tuple[tuple[int, ...], int | None]]:
    for module in network.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield (ROWS, _LENGTHS[0]), module.num_embeddings
            yield (ROWS,), module.num_embeddings
        elif isinstance(module, nn.Linear | nn.Bilinear):
            width = module.in_features if isinstance(module, nn.Linear) else module.in1_features
            yield (ROWS, width), None
            yield from _images_of(width)
            yield (ROWS, _LENGTHS[0], width), None
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            axes = len(module.kernel_size)
            for size in _LENGTHS if axes == 1 else _SIZES[:3] if axes == 2 else (16,):
                yield (ROWS, module.in_channels, *(size for _ in range(axes))), None
            if axes == 2:
                # Large images of few rows, for what pools often.
                yield (8, module.in_channels, _SIZES[3], _SIZES[3]), None
        elif isinstance(module, nn.RNNBase):
            yield (ROWS, _LENGTHS[0], module.input_size), None
            yield (ROWS, module.input_size), None
        elif isinstance(module, nn.MultiheadAttention):
            yield (ROWS, _LENGTHS[0], module.embed_dim), None
        elif isinstance(module, nn.BatchNorm1d):
            yield (ROWS, module.num_features), None
        elif isinstance(module, nn.LayerNorm):
            yield (ROWS, *module.normalized_shape), None
    # Layers of the user's own: a matrix has as many rows, or columns, as it takes inputs.
    for parameter in network.parameters():
        if parameter.dim() == 2:
            yield (ROWS, parameter.shape[0]), None
            yield (ROWS, parameter.shape[1]), None


def _images_of(width: int) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Images with so many numbers, for a network that flattens them itself."""
    for channels in (1, 3):
        side = math.isqrt(width // channels)
        if side > 2 and channels * side * side == width:
            yield (ROWS, channels, side, side), None


def make_up_target(network: nn.Module, loss: Any, features: Any) -> tuple[Tensor | None, str]:
    """A target of the kind that a loss takes, and what it is; ``None`` if no kind is taken.

    Classes come up equally often, quantities are standard normal.
    """
    raw = output_of(network, features)
    rows = len(features) if isinstance(features, Tensor) else ROWS
    if raw is None:
        # What the network would put out, had it run: as wide as its last parameter.
        parameters = list(network.parameters())
        raw = torch.zeros(rows, parameters[-1].shape[0] if parameters and parameters[-1].dim() else 1)
    for make in _targets_for(loss):
        target, words = make(raw)
        if takes(loss, raw, target) and not (make in (_classes, _classes_last) and takes(loss, raw, target.float())):
            return target, words
    return None, ""


_Maker = Callable[[Tensor], tuple[Tensor, str]]


def _targets_for(loss: Any) -> list[_Maker]:
    """Kinds of target, the likeliest first; which one is right, the loss itself says."""
    if isinstance(loss, Head | Loss):
        return [_example_of(loss), _classes_last, _quantities, _labels]
    if isinstance(loss, nn.BCELoss | nn.BCEWithLogitsLoss | nn.MultiLabelSoftMarginLoss | nn.SoftMarginLoss):
        return [_labels]
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss | nn.MultiMarginLoss):
        return [_classes, _classes_last]
    if isinstance(loss, nn.MSELoss | nn.L1Loss | nn.SmoothL1Loss | nn.HuberLoss):
        return [_quantities]
    if isinstance(loss, nn.KLDivLoss):
        return [_shares]
    if isinstance(loss, nn.PoissonNLLLoss):
        return [_counts]
    # Classes first: one that takes an index for a number as well is a loss of quantities.
    return [_classes, _classes_last, _quantities, _quantity, _labels, _shares]


def _classes(raw: Tensor) -> tuple[Tensor, str]:
    return _indices(raw, axis=1 if raw.dim() > 2 else -1)


def _classes_last(raw: Tensor) -> tuple[Tensor, str]:
    return _indices(raw, axis=-1)


def _indices(raw: Tensor, axis: int) -> tuple[Tensor, str]:
    if raw.dim() < 2:
        return torch.zeros(len(raw) if raw.dim() else 1, dtype=torch.long), "class 0"
    shape = list(raw.shape)
    classes = shape.pop(axis)
    return torch.arange(math.prod(shape)).remainder(classes).reshape(shape), f"{classes} classes in turn"


def _quantities(raw: Tensor) -> tuple[Tensor, str]:
    return _normal(raw.shape), "standard normal numbers"


def _quantity(raw: Tensor) -> tuple[Tensor, str]:
    return _normal(raw.shape[:-1]), "standard normal numbers"


def _labels(raw: Tensor) -> tuple[Tensor, str]:
    return (_normal(raw.shape) > 0).to(raw.dtype), "0 and 1 by chance"


def _shares(raw: Tensor) -> tuple[Tensor, str]:
    return torch.softmax(_normal(raw.shape), dim=-1), "shares that sum to 1"


def _counts(raw: Tensor) -> tuple[Tensor, str]:
    return torch.poisson(torch.ones(raw.shape), generator=torch.Generator().manual_seed(_SEED)), "counts of mean 1"


def _example_of(loss: Head | Loss) -> _Maker:
    """Targets such as the loss's own example has, put into the shape of these outputs."""

    def make(raw: Tensor) -> tuple[Tensor, str]:
        generator = torch.Generator().manual_seed(_SEED)
        example_raw, example = loss.facts.example(max(1, raw.numel()), generator=generator)
        if not example.is_floating_point():
            return _classes_last(raw)
        per_output = example.dim() == example_raw.dim() == 1 and not isinstance(loss, Head)
        shape = raw.shape if per_output else raw.shape[:-1]
        if example.dim() > 1:
            return example[: len(raw)].reshape(len(raw), *example.shape[1:]), "as in the loss's example"
        return example[: math.prod(shape)].reshape(shape), "as in the loss's example"

    return make


def _normal(shape: Any) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(_SEED + 1))


def takes(loss: Any, raw: Tensor, target: Tensor) -> bool:
    """Whether the loss can be computed, if need be of outputs between 0 and 1: that they are not may be the mistake."""
    compute = loss.loss if isinstance(loss, Head) else loss
    for given in (raw, torch.sigmoid(raw)):
        try:
            with warnings.catch_warnings(), torch.no_grad(), kept_random_state():
                warnings.simplefilter("ignore")
                compute(given.clone(), target.clone())
        except Exception:
            continue
        return True
    return False


def output_of(network: nn.Module, features: Any) -> Tensor | None:
    """What the network puts out in evaluation mode; ``None`` if it raises, or puts out no tensor."""
    try:
        with warnings.catch_warnings(), torch.no_grad(), kept_random_state():
            warnings.simplefilter("ignore")
            raw = copy_of(network).eval()(copy_of_inputs(features))
    except Exception:
        return None
    return raw if isinstance(raw, Tensor) and raw.dim() > 0 else None
