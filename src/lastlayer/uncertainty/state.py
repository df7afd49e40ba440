"""What is learned on held-out rows, as an immutable object whose state is plain JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from lastlayer.checks import InputError


class State:
    """A frozen dataclass that can be written as JSON and read back, number by number the same.

    Fields are numbers, strings, booleans, ``None`` or nested tuples of them.

    Raises:
        InputError: from ``from_dict``, if the state is another object's, or lacks or has a field too many.
    """

    #: What tells the state of one class from another's.
    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The state: the class's name and every field, in numbers, strings, lists and dictionaries."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {"name": self.name} | {field.name: _plain(getattr(self, field.name)) for field in fields}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The object whose ``to_dict`` gave this."""
        options = dict(state)
        name = options.pop("name", None)
        if name != cls.name:
            raise InputError(f"{cls.__name__}: the state is of {name!r}; expected {cls.name!r}.")
        expected = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if set(options) != expected:
            raise InputError(
                f"{cls.__name__}: the state has the fields {sorted(options)}; expected {sorted(expected)}."
            )
        return cls(**{label: _frozen(value) for label, value in options.items()})


def nested(tensor: Tensor) -> Any:
    """A tensor's numbers as nested tuples, a number where it has no axis."""
    return _frozen(tensor.detach().double().cpu().tolist())


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, (list, tuple)) else value
