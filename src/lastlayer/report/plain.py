"""A record as JSON can hold it."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """Dictionaries with text keys and lists, in which a number that is not defined is null: JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
