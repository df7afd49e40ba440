"""Between a target as the user has it and the numbers that a head takes, there and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lastlayer.checks import DomainError, InputError


@dataclass(frozen=True)
class ClassCoding:
    """Classes as indices 0 … C−1, in sorted order.

    Attributes:
        classes: the distinct values, sorted, in their natural dtype.
    """

    classes: NDArray[Any]
    kind: ClassVar[str] = "classes"

    @classmethod
    def learn(cls, values: NDArray[Any]) -> ClassCoding:
        """The coding of the classes that occur."""
        return cls(np.unique(values))

    def encode(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Values to indices.

        Raises:
            DomainError: naming the classes that were never seen in training.
        """
        values = self._comparable(np.asarray(values))
        index = np.searchsorted(self.classes, values).clip(max=len(self.classes) - 1)
        unseen = self.classes[index] != values
        if unseen.any():
            raise DomainError(
                f"the target holds {', '.join(map(str, np.unique(values[unseen])[:5]))}, which training never saw; "
                f"its classes are {', '.join(map(str, self.classes[:20]))}."
            )
        return index.astype(np.int64)

    def decode(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Indices back to classes."""
        return self.classes[index]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "classes": self.classes.tolist()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> ClassCoding:
        classes = saved["classes"]
        return cls(np.array(classes, dtype=object if isinstance(classes[0], str) else None))

    def _comparable(self, values: NDArray[Any]) -> NDArray[Any]:
        """Text classes meet text, numeric ones numbers: a column may come back from a file with another dtype."""
        if self.classes.dtype.kind in "OU":
            return np.array([str(value) for value in values], dtype=object)
        if values.dtype.kind in "OU":
            raise DomainError(
                f"the target holds text such as {values[0]!r}; training saw the numbers "
                f"{', '.join(map(str, self.classes[:20]))}."
            )
        return values


@dataclass(frozen=True)
class LabelCoding:
    """Several columns of 0 and 1.

    Attributes:
        names: what the labels are called, in the order of the columns.
    """

    names: tuple[str, ...]
    kind: ClassVar[str] = "labels"

    def encode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """A table of 0 and 1, booleans included, as floats.

        Raises:
            DomainError: naming a value that is neither.
        """
        table = np.asarray(values)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise InputError(f"the target has shape {table.shape}; expected (rows, {len(self.names)}) labels.")
        try:
            numbers = table.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise DomainError(f"the labels hold something that is no number: {error}.") from error
        wrong = numbers[~np.isin(numbers, (0.0, 1.0))]
        if wrong.size:
            raise DomainError(f"the labels hold {wrong[0]}; expected 0 and 1 only, with no cell missing.")
        return numbers

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "names": list(self.names)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> LabelCoding:
        return cls(tuple(saved["names"]))


@dataclass(frozen=True)
class QuantityCoding:
    """A quantity, shifted and scaled for training; every figure goes back to its own units.

    Attributes:
        shift: subtracted first.
        scale: then divided by; a density in coded units is ``log(scale)`` nats larger in the target's own.
    """

    shift: float = 0.0
    scale: float = field(default=1.0)
    kind: ClassVar[str] = "quantity"

    @classmethod
    def learn(cls, values: NDArray[Any], *, standardize: bool, rescale: bool = False) -> QuantityCoding:
        """Mean and standard deviation of the training targets, or nothing where the head needs the values as they are.

        Args:
            standardize: shift by the mean and scale by the standard deviation.
            rescale: scale by the mean alone, which leaves positive values positive.

        Raises:
            InputError: if the spread of the values does not fit into a float.
        """
        if not (standardize or rescale):
            return cls()
        numbers = np.asarray(values, dtype=np.float64)
        shift, scale = float(numbers.mean()), float(numbers.std())
        if rescale:
            shift, scale = 0.0, shift
        if not (np.isfinite(shift) and np.isfinite(scale)):
            raise InputError("the target's values are too large to standardize. Divide them by a constant first.")
        return cls(shift, scale if scale > 0 else 1.0)

    def encode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Own units to coded ones.

        Raises:
            DomainError: if a value is not a finite number.
        """
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DomainError(f"the target holds something that is no number: {error}.") from error
        if not np.isfinite(numbers).all():
            raise DomainError("the target holds a missing or infinite value. Leave those rows out.")
        return ((numbers - self.shift) / self.scale).astype(np.float32)

    def decode(self, coded: NDArray[Any]) -> NDArray[np.float64]:
        """Coded units back to own ones, in float64."""
        return np.asarray(coded, dtype=np.float64) * self.scale + self.shift

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "shift": self.shift, "scale": self.scale}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> QuantityCoding:
        return cls(float(saved["shift"]), float(saved["scale"]))


TargetCoding = ClassCoding | LabelCoding | QuantityCoding


def coding_from_dict(saved: dict[str, Any]) -> TargetCoding:
    """The coding that ``to_dict`` wrote.

    Raises:
        InputError: for a kind that does not exist.
    """
    kinds: dict[str, Any] = {coding.kind: coding for coding in (ClassCoding, LabelCoding, QuantityCoding)}
    if saved.get("kind") not in kinds:
        raise InputError(f"there is no target coding {saved.get('kind')!r}; expected one of {', '.join(kinds)}.")
    coding: TargetCoding = kinds[saved["kind"]].from_dict(saved)
    return coding
