"""The one family of errors, and the one way to check shapes, dtypes and domains.

Every error says what was given, what was expected, and what to do. Each is also the builtin that a caller expects:
``except ValueError`` catches a wrong shape, ``except TypeError`` a wrong kind of argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class LastLayerError(Exception):
    """Root of every error that lastlayer raises on purpose."""


class InputError(LastLayerError, ValueError):
    """A value, column, file or option cannot be used as it is."""


class ShapeError(InputError):
    """Shapes that do not belong together."""


class DomainError(InputError):
    """A target or raw output outside the domain of its loss or head."""


class ClassIndexError(LastLayerError, IndexError):
    """A class index that names no class."""


class KindError(LastLayerError, TypeError):
    """An argument of the wrong kind: a dtype, a class, a container."""


class DataFileError(InputError):
    """A table that cannot be read or written."""


class ModelFolderError(InputError):
    """A model folder that is missing, damaged, foreign or too new."""


class LastLayerWarning(UserWarning):
    """Something that still works, and that the user should know."""


def shape_text(tensor: Tensor) -> str:
    """A shape as people write it: ``(64, 10)``."""
    return str(tuple(tensor.shape))


def check_same_shape(raw: Tensor, target: Tensor, *, loss: str) -> None:
    """Raw output and target of an elementwise loss have one shape; nothing broadcasts.

    Raises:
        ShapeError: naming both shapes and the fix.
    """
    if raw.shape == target.shape:
        return
    fix = "give both one shape"
    if raw.dim() == target.dim() + 1 and raw.shape[:-1] == target.shape and raw.shape[-1] == 1:
        fix = "drop the last axis of raw: raw.squeeze(-1)"
    elif target.dim() == raw.dim() + 1 and target.shape[:-1] == raw.shape and target.shape[-1] == 1:
        fix = "drop the last axis of target: target.squeeze(-1)"
    raise ShapeError(
        f"{loss}: raw has shape {shape_text(raw)}, target {shape_text(target)}; "
        f"this loss compares element by element and never broadcasts. Fix: {fix}."
    )


def check_floating(tensor: Tensor, *, what: str) -> None:
    """The tensor holds real floating-point numbers.

    Raises:
        KindError: naming the dtype found.
    """
    if not tensor.is_floating_point():
        raise KindError(f"{what} must be floating point, and is {tensor.dtype}. Fix: pass {what}.float().")


def check_index(index: Tensor, classes: int) -> None:
    """Every class index names a class. Reads the indices: for where a wrong one would read foreign memory.

    Raises:
        ClassIndexError: naming the first that does not. It is an IndexError, as PyTorch raises.
    """
    if not index.numel() or (int(index.min()) >= 0 and int(index.max()) < classes):
        return
    outside = (index < 0) | (index >= classes)
    raise ClassIndexError(
        f"class index {int(index[outside][0])} among targets of {classes} classes; expected 0 to {classes - 1}."
    )


def check_choice(value: object, choices: tuple[str, ...], *, what: str) -> None:
    """The option is one of its spellings.

    Raises:
        InputError: naming the value and the choices.
    """
    if value not in choices:
        raise InputError(f"{what} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def check_device(device: str) -> None:
    """PyTorch has the device.

    Raises:
        InputError: naming the device and the one that is always there.
    """
    import torch

    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError(f"the device is {device!r}; expected 'cpu' or 'cuda'.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is 'cuda', and PyTorch finds none here. Use 'cpu'.")


def check_seed(seed: int) -> None:
    """NumPy takes the seed, and so does PyTorch.

    Raises:
        InputError: naming the seed and its range.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}; expected a whole number from 0 to {2**32 - 1}.")
