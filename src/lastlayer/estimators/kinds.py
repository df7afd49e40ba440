"""Which options and which models go with which kind of input, and the words for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lastlayer.checks import InputError

# Options that say something of one kind of input alone, the words for the kinds, and what they look like.
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "table": ("hidden", "bins", "members", "share_weights", "keep", "max_categories"),
    "images": ("network", "shifts", "image_scaling"),
}
_NOUN = {"table": "a table", "images": "images"}
_SHAPE = {
    "table": "a frame, or an array of shape (n, columns)",
    "images": "an array of shape (n, height, width) or (n, height, width, channels); one image alone is image[None]",
}


def check_options_of_kind(options: Mapping[str, Any], usual: Mapping[str, Any], kind: str) -> None:
    """Options of another kind of input are at their defaults: none is passed over in silence.

    Raises:
        InputError: naming the option.
    """
    for other, names in _ONLY_FOR.items():
        for name in names if other != kind else ():
            if plain_option(options[name]) != plain_option(usual[name]):
                raise InputError(
                    f"{name} is {options[name]!r}, which is for {_NOUN[other]}, and X holds {_NOUN[kind]}. Leave it "
                    f"out."
                )


def check_same_kind(kind: str, learned: str) -> None:
    """Inputs are of the kind that the model learned from.

    Raises:
        InputError: naming both.
    """
    if kind != learned:
        raise InputError(
            f"X holds {_NOUN[kind]}, and the model learned from {_NOUN[learned]}. Give it {_NOUN[learned]}: "
            f"{_SHAPE[learned]}."
        )


def plain_option(value: Any) -> Any:
    """An option with lists for every collection and Python's numbers for NumPy's."""
    if isinstance(value, dict):
        return [[plain_option(key), plain_option(item)] for key, item in value.items()]
    if isinstance(value, Collection) and not isinstance(value, str):
        return [plain_option(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
