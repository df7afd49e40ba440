"""The real tables of the benchmarks, from a folder of files; see its README for where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars
from sklearn.model_selection import train_test_split

from lastlayer.preprocessing import column_group, read_table


@dataclass(frozen=True)
class Dataset:
    """One table.

    Attributes:
        name: in the results.
        file: in the data folder.
        target: a column, or the group of label columns.
        kind: ``"classes"``, ``"labels"`` or ``"quantity"``.
        drop: columns that are no inputs.
    """

    name: str
    file: str
    target: str
    kind: str
    drop: tuple[str, ...] = ()

    def read(self, folder: Path) -> tuple[polars.DataFrame, polars.DataFrame]:
        """Inputs and target columns."""
        path = folder / self.file
        if not path.exists():
            raise SystemExit(f"{self.name}: there is no {path}. Pass the folder of the data files with --data.")
        table = read_table(path)
        targets = column_group(table.columns, self.target)
        return table.drop([*targets, *self.drop]), table.select(targets)


DATASETS = (
    Dataset("adult", "adult.csv.gz", "income", "classes", ("split",)),
    Dataset("titanic", "titanic.csv.gz", "Survived", "classes"),
    Dataset("penguins", "penguins.csv.gz", "species", "classes"),
    Dataset("phoneme", "phoneme.csv.gz", "class", "classes"),
    Dataset("mammography", "mammography.csv.gz", "class", "classes"),
    Dataset("ml_emotions", "ml_emotions.npz", "Y", "labels"),
    Dataset("wine_white", "wine_white.csv.gz", "quality", "classes"),
    Dataset("california_housing", "california_housing.csv.gz", "median_house_value", "quantity"),
    Dataset("uci_concrete", "uci_concrete.npz", "y", "quantity"),
    Dataset("uci_energy", "uci_energy.npz", "y", "quantity"),
    Dataset("uci_yacht", "uci_yacht.npz", "y", "quantity"),
    Dataset("r_diamonds", "r_diamonds.csv.gz", "price", "quantity"),
)


def split(targets: polars.DataFrame, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of four fifths to learn from and one fifth to judge by; classes in equal shares."""
    rows = np.arange(targets.height)
    classes = targets.to_series().to_numpy() if kind == "classes" else None
    if classes is not None and np.unique(classes, return_counts=True)[1].min() < 2:
        classes = None
    train, test = train_test_split(rows, test_size=0.2, random_state=seed, stratify=classes)
    return train, test
