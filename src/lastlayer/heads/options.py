"""Options of heads: checked, and read from text such as ``"mixture:5:laplace"``."""

from __future__ import annotations

from typing import Any

from lastlayer.checks import InputError


def check_count(count: int, least: int, what: str, head: object) -> None:
    """The count is a whole number, large enough.

    Raises:
        InputError: naming what was given.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise InputError(f"{type(head).__name__}: {what} is {count!r}; expected a whole number, {least} or more.")


def number(text: str, *, head: str) -> float:
    """A number among a head's options.

    Raises:
        InputError: if it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise InputError(f"head {head!r}: {text!r} is not a number.") from None


def whole(text: str, *, head: str) -> int:
    """A whole number among a head's options.

    Raises:
        InputError: if it is none.
    """
    # Not isdigit, which takes exponents for digits.
    if not text.isdecimal():
        raise InputError(f"head {head!r}: {text!r} is not a whole number.")
    return int(text)


def at_most(options: tuple[str, ...], most: int, facts: Any) -> tuple[str, ...]:
    """The options, if there are no more than the head has.

    Raises:
        InputError: saying how they are spelled.
    """
    if len(options) > most:
        raise InputError(
            f"head {facts.name!r} was given {':'.join(options)!r}; expected {facts.name}"
            f"{f':{facts.spelling}' if facts.spelling else ''}."
        )
    return options
