"""What each ingredient of the default recipe is worth: the same tables with one thing changed at a time.

Prints the test negative log-likelihood (see ``tables.py``) of the defaults and the difference that each change makes,
with the standard error of the difference over the seeds, split by split. Above 0 the default is better.

    python benchmarks/recipe.py --data FOLDER [--seeds 3] [--only NAME,NAME] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch

from datasets import DATASETS, Dataset
from page import versions
from tables import judge

CHANGES: dict[str, dict[str, Any]] = {
    "no piecewise-linear codes": {"bins": 0},
    "8 bins": {"bins": 8},
    "no second fit on all rows": {"refit": False},
    "no average of weights": {"average": 0.0},
    "no dropout": {"dropout": 0.0},
    "dropout 0.1": {"dropout": 0.1},
    "dropout 0.3": {"dropout": 0.3},
    "weight decay 0.01": {"weight_decay": 0.01},
    "learning rate 0.001": {"learning_rate": 1e-3},
    "cosine schedule": {"schedule": "cosine"},
    "one hidden layer": {"hidden": (256,)},
    "SiLU": {"activation": "silu"},
}
# The two largest tables take as long as all others together.
LARGE = ("adult", "r_diamonds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of tables, with commas between; all but the two largest otherwise")
    parser.add_argument("--out", type=Path, help="write the page here as well, after every table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = options.only.split(",") if options.only else [d.name for d in DATASETS if d.name not in LARGE]
    columns: dict[str, dict[str, str]] = {}
    for dataset in DATASETS:
        if dataset.name in wanted:
            columns[dataset.name] = column(dataset, *dataset.read(options.data), seeds=options.seeds)
            print(dataset.name, columns[dataset.name], flush=True)
            if options.out:
                options.out.write_text(page(columns, options.seeds, options.only), encoding="utf-8")
    print("\n" + page(columns, options.seeds, options.only))


def column(dataset: Dataset, inputs: polars.DataFrame, targets: polars.DataFrame, *, seeds: int) -> dict[str, str]:
    """What each change does on one table."""

    def nll(change: dict[str, Any]) -> np.ndarray:
        return np.array([judge(dataset, "lastlayer", inputs, targets, seed, **change).nll for seed in range(seeds)])

    default = nll({})
    cells = {"the defaults": f"{default.mean():.4f}"}
    for name, change in CHANGES.items():
        difference = nll(change) - default
        error = difference.std(ddof=1) / math.sqrt(seeds) if seeds > 1 else math.nan
        cells[name] = f"{difference.mean():+.4f} ± {error:.4f}"
    return cells


def page(columns: dict[str, dict[str, str]], seeds: int, only: str | None) -> str:
    """The measured table as a page."""
    lines = [
        "# What each ingredient is worth",
        "",
        f"`python benchmarks/recipe.py --data FOLDER --seeds {seeds}{f' --only {only}' if only else ''}`",
        "",
        versions(),
        "",
        "Test negative log-likelihood of the defaults, and by how much each change alone raises it, ± the standard",
        "error of that difference over the seeds. Above 0 the default is better on that table.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    lines += [
        f"| {row} | {' | '.join(cells[row] for cells in columns.values())} |" for row in ("the defaults", *CHANGES)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
