"""One column of ones and zeros for each category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Vocabulary:
    """The categories of one column, with the number of training rows that had each.

    ``rare`` counts the rows of all categories beyond the limit, which share one column, and ``missing`` those without
    a category; a count of 0 means there is no such column. A category that training did not have goes where the rare
    ones go, and is all zeros where there are none. This is scikit-learn's
    ``OneHotEncoder(max_categories=..., handle_unknown="infrequent_if_exist")``, except that missing is never "rare".
    """

    categories: dict[str, int]
    rare: int = 0
    missing: int = 0

    @classmethod
    def learn(cls, cells: Sequence[str | None], limit: int) -> Vocabulary:
        """Keep at most ``limit`` columns, the one of the rare categories among them; ties go by the alphabet."""
        counts = Counter(cell for cell in cells if cell is not None)
        ranked = sorted(counts, key=lambda category: (-counts[category], category))
        kept = ranked if len(ranked) <= limit else ranked[: limit - 1]
        categories = {category: counts[category] for category in sorted(kept)}
        filled = counts.total()
        return cls(categories, rare=filled - sum(categories.values()), missing=len(cells) - filled)

    def feature_names(self, name: str) -> list[str]:
        names = [f"{name}={category}" for category in self.categories]
        names += [f"{name} is rare"] if self.rare else []
        return names + ([f"{name} is missing"] if self.missing else [])

    def apply(self, cells: Sequence[str | None]) -> NDArray[np.float32]:
        """Cells ``(n,)`` as float32 ``(n, number of feature names)``."""
        width = len(self.categories) + bool(self.rare) + bool(self.missing)
        column: dict[str | None, int] = {category: index for index, category in enumerate(self.categories)}
        # Truth values are spelled "true" and "false" by the time they are cells, whatever the training table wrote.
        for category in self.categories:
            if category.lower() in ("true", "false"):
                column.setdefault(category.lower(), column[category])
        elsewhere = len(self.categories) if self.rare else -1
        if self.missing:
            column[None] = width - 1
        codes = np.fromiter((column.get(cell, elsewhere) for cell in cells), dtype=np.intp, count=len(cells))
        known = np.flatnonzero(codes >= 0)
        indicator = np.zeros((len(cells), width), dtype=np.float32)
        indicator[known, codes[known]] = 1.0
        return indicator
