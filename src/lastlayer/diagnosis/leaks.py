"""Which columns alone say what the target is, while the others do not: on arrays, for tensors and tables alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from lastlayer.diagnosis.fault import Fault
from lastlayer.diagnosis.finding import Finding

Floats = NDArray[np.float64]

#: In fewer rows a column can say all by chance.
FEWEST_ROWS = 50
#: Of the errors of the most frequent class, the share that a column alone takes away. The best column of the data sets
#: that scikit-learn ships and of Palmer's penguins has 0.94 (a petal's width, of irises).
SAYS_ALL = 0.99
#: Rank correlation with a quantity.
IN_STEP = 0.999
#: Correlation from which the column is the quantity itself, in other units: what float32 leaves of 1.
THE_SAME = 1 - 1e-10
#: The other columns together leave at least this share of the errors (or of the ranks' variance), and this many times
#: what the column leaves: otherwise the problem is easy, and no column gives it away.
LEFT_BY_OTHERS, TIMES_AS_MUCH = 0.015, 4.0
#: Rows that are looked at; more add nothing to what one column says.
MOST_ROWS = 5000
# Rows that the trees of the other columns learn from.
_ROWS_FOR_OTHERS = 1000
_SEED = 0

LEAKING_COLUMN = Fault(
    name="leaking_column",
    title="a column that gives the target away",
    severity="warning",
    why=(
        "A column made from the target, or known only after it, makes every figure look perfect; where it is not "
        "known, nothing has been learned. A row's number does so too where rows are sorted by class."
    ),
    fix="Leave the column out, unless it is known when a prediction is to be made.",
    reference="S. Kaufman, S. Rosset, C. Perlich, O. Stitelman, Leakage in data mining, ACM TKDD 6 (2012)",
)


@dataclass(frozen=True)
class Values:
    """One column.

    Attributes:
        name: as the user knows it.
        cells: numbers, or the numbers of categories; NaN where missing.
        category: whether the numbers are names of categories, in no order.
    """

    name: str
    cells: Floats
    category: bool = False


@dataclass(frozen=True)
class Leak:
    """A column that gives the target away.

    Attributes:
        place: among the columns.
        column: which.
        left: the share that it leaves open: of the errors, or of the ranks' variance.
        same: whether it is the target itself, in other units or under other names.
        left_by_others: the share that all columns that give nothing away leave open together.
    """

    place: int
    column: Values
    left: float
    same: bool
    left_by_others: float


def find_leaks(
    columns: Sequence[Values], target: Floats, *, classes: bool, others: Callable[[list[int]], Floats]
) -> list[Leak]:
    """The columns that say what the target is where all others together do not.

    Special cases: nothing is said of fewer than ``FEWEST_ROWS`` rows, of a single column, of a target that never
    changes, and where half of the columns say it all: then the problem is easy.

    Args:
        columns: all of them, each (n,).
        target: one number per row: the class's, or the quantity.
        classes: which of the two.
        others: the columns without those at these places, as numbers (n, k), none of them missing.
    """
    kinds = len(np.unique(target))
    if len(target) < FEWEST_ROWS or len(columns) < 2 or kinds < 2 or (classes and kinds > len(target) // 10):
        return []
    rows = _some(len(target), MOST_ROWS)
    y = np.unique(target[rows], return_inverse=True)[1] if classes else target[rows]
    shown = [Values(column.name, column.cells[rows], column.category) for column in columns]
    left = _left_by_each(shown, y, classes)
    suspects = [place for place, share in enumerate(left) if share <= _most_left(classes)]
    if not suspects or 2 * len(suspects) > len(columns):
        return []
    by_others = _left_by_others(others(suspects)[rows], y, classes)
    return [
        Leak(place, columns[place], left[place], _is_the_same(shown[place], y, classes), by_others)
        for place in suspects
        if by_others >= LEFT_BY_OTHERS and by_others >= TIMES_AS_MUCH * left[place]
    ]


def finding_of(leak: Leak, *, target: str, rows: int, classes: bool, fix: str | None = None) -> Finding:
    """What is to be said of a leak."""
    what = "errors of the most frequent class" if classes else "ranks' variance"
    if leak.same:
        says = "is the target, under other names" if classes else "is the target, in other units"
    else:
        says = f"alone says what {target} is: it leaves {_percent(leak.left)} of the {what}"
    return LEAKING_COLUMN.found(
        leak.column.name,
        f"it {says} ({rows} rows); all other columns together leave {_percent(leak.left_by_others)}"
        f"{'' if not leak.same else f' of the {what}'}.",
        numbers={"left": leak.left, "left_by_others": leak.left_by_others, "rows": float(rows)},
        severity="error" if leak.same else None,
        fix=fix,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _most_left(classes: bool) -> float:
    return 1 - SAYS_ALL if classes else 1 - IN_STEP**2


def _left_by_each(columns: Sequence[Values], y: NDArray[Any], classes: bool) -> list[float]:
    if not classes:
        ranks = rankdata(y)
        return [_left_of_quantity(column, y, ranks) for column in columns]
    return [_left_of_classes(column, y) for column in columns]


def _left_of_classes(column: Values, y: NDArray[np.int64]) -> float:
    """The share of errors that the column leaves: of all rows, or of those where it is known, if these are most."""
    known = ~np.isnan(column.cells)
    left = _errors(column, y) / (len(y) - np.bincount(y).max())
    if known.all() or known.mean() < 0.5 or known.sum() < FEWEST_ROWS:
        return float(left)
    some = np.unique(y[known], return_inverse=True)[1]
    wrong = len(some) - np.bincount(some).max()
    if wrong == 0:
        return float(left)
    return float(min(left, _errors(Values(column.name, column.cells[known], column.category), some) / wrong))


def _errors(column: Values, y: NDArray[np.int64]) -> int:
    """How many classes the column misses, by one interval per class, or by the other rows of the same category."""
    kinds = int(y.max()) + 1
    if column.category:
        _, category = np.unique(column.cells, return_inverse=True)
        counts = np.zeros((category.max() + 1, kinds))
        np.add.at(counts, (category, y), 1)
        # A category that no other row has says nothing.
        of_others = counts[category]
        of_others[np.arange(len(y)), y] -= 1
        of_others[of_others.sum(1) == 0] = np.bincount(y, minlength=kinds)
        return int((of_others.argmax(1) != y).sum())
    cells, wrong = _filled(column.cells), int(len(y) - np.bincount(y).max())
    # Along a column that says all, the class changes no more often than there are classes, and twice for each error.
    ordered = y[np.argsort(cells, kind="stable")]
    if (ordered[1:] != ordered[:-1]).sum() > kinds + 1 + 2 * (1 - SAYS_ALL) * wrong:
        return wrong
    tree = DecisionTreeClassifier(max_leaf_nodes=kinds, random_state=_SEED).fit(cells[:, None], y)
    return int((tree.predict(cells[:, None]) != y).sum())


def _left_of_quantity(column: Values, y: Floats, ranks: Floats) -> float:
    """The share of the variance that the column leaves, of ranks where it has an order."""
    if column.category:
        _, category = np.unique(column.cells, return_inverse=True)
        count, total = np.bincount(category)[category], np.bincount(category, weights=y)[category]
        alone = count == 1
        guess = np.where(alone, y.mean(), (total - y) / np.maximum(count - 1, 1))
        return float(np.mean((y - guess) ** 2) / y.var())
    known = ~np.isnan(column.cells)
    if known.mean() < 0.5 or known.sum() < FEWEST_ROWS:
        return 1.0
    cells = column.cells[known]
    return 1.0 - _correlation(rankdata(cells), ranks if known.all() else rankdata(y[known])) ** 2


def _left_by_others(cells: Floats, y: NDArray[Any], classes: bool) -> float:
    """What trees and a linear model leave, on rows that they have not learned from: the least of it."""
    if cells.shape[1] == 0:
        return 1.0
    rows = _some(len(y), _ROWS_FOR_OTHERS)
    cells, y = cells[rows], y[rows]
    trees = (ExtraTreesClassifier if classes else ExtraTreesRegressor)(n_estimators=60, random_state=_SEED)
    linear = make_pipeline(StandardScaler(), RidgeClassifier() if classes else Ridge())
    folds = KFold(3, shuffle=True, random_state=_SEED)
    left = [1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Columns that are sums of others are no matter here.
        # A quantity as it is, where a line may say it all, and by its ranks, where outliers do not rule.
        for goal in [y] if classes else [y, rankdata(y)]:
            for model in (trees, linear):
                guess = cross_val_predict(model, cells, goal, cv=folds)
                missed = (guess != goal).sum() if classes else np.square(guess - goal).sum()
                usual = len(goal) - np.bincount(goal).max() if classes else np.square(goal - goal.mean()).sum()
                left.append(float(missed / usual) if usual > 0 else 1.0)
    return min(left)


def _is_the_same(column: Values, y: NDArray[Any], classes: bool) -> bool:
    if classes:
        # As many values as classes, each for one of them.
        pairs = len(np.unique(np.column_stack([_filled(column.cells), y]), axis=0))
        return pairs == len(np.unique(_filled(column.cells))) == len(np.unique(y))
    return not (column.category or np.isnan(column.cells).any()) and abs(_correlation(column.cells, y)) >= THE_SAME


def _correlation(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


def _filled(cells: Floats) -> Floats:
    """Missing cells as a value of their own, below all others."""
    missing = np.isnan(cells)
    return np.where(missing, np.nanmin(cells) - 1.0 if not missing.all() else 0.0, cells) if missing.any() else cells


def _some(rows: int, most: int) -> NDArray[np.int64]:
    """All rows, or so many of them drawn by chance."""
    return np.arange(rows) if rows <= most else np.random.default_rng(_SEED).choice(rows, most, replace=False)
