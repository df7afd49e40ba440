"""How good the default estimators are on real tables, beside the constant, a linear model and scikit-learn's network.

Every model sees the same four fifths of the rows and is judged on the rest, over several seeds. The peers get the
library's own encoding of the columns. NLL is the mean negative log-likelihood in nats: the log-loss for classes, the
sum over a row's labels for labels, that of a Gaussian in the target's units for quantities. Models that predict a
point get a Gaussian with the RMSE of a part (15 %) that they have not seen, and are then fitted again to all rows.

    python benchmarks/tables.py --data FOLDER [--seeds 3] [--only NAME,NAME] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor

from lastlayer import Classifier, Regressor
from lastlayer.preprocessing import TableEncoder

from datasets import DATASETS, Dataset, split
from page import versions

PEERS = ("constant", "linear", "scikit-learn MLP", "lastlayer")


@dataclass(frozen=True)
class Score:
    """One model on one split."""

    nll: float
    figure: float
    seconds: float


def judge(
    dataset: Dataset, name: str, inputs: polars.DataFrame, targets: polars.DataFrame, seed: int, **options: Any
) -> Score:
    """One model fitted on one split's training rows and judged on its test rows.

    Args:
        options: of the library's own estimator.
    """
    train, test = split(targets, dataset.kind, seed)
    columns = targets.to_numpy()
    target = columns if dataset.kind == "labels" else columns[:, 0]
    if name == "lastlayer":
        estimator: Any = (Regressor if dataset.kind == "quantity" else Classifier)(random_state=seed, **options)
        started = time.perf_counter()
        estimator.fit(inputs[train], target[train])
        seconds = time.perf_counter() - started
        features: Any = inputs[test]
        scale = estimator.scale_ if dataset.kind == "quantity" else math.nan
    else:
        encoder = TableEncoder().fit(inputs[train])
        learned, features = encoder.transform(inputs[train]), encoder.transform(inputs[test])
        make = peer(dataset.kind, name, seed)
        scale = held_out_error(make(), learned, target[train], seed) if dataset.kind == "quantity" else math.nan
        started = time.perf_counter()
        estimator = make().fit(learned, target[train])
        seconds = time.perf_counter() - started
    if dataset.kind == "quantity":
        error = root_mean_squared_error(target[test], estimator.predict(features))
        nll = 0.5 * (error / scale) ** 2 + math.log(scale) + 0.5 * math.log(2 * math.pi)
        return Score(nll, error, seconds)
    if dataset.kind == "labels":
        probability = label_probability(estimator, features)
        nll = sum(log_loss(target[test][:, k], probability[:, k], labels=[0, 1]) for k in range(target.shape[1]))
        return Score(nll, float(((probability > 0.5) == target[test]).mean()), seconds)
    probability = estimator.predict_proba(features)
    predicted = estimator.classes_[probability.argmax(1)]
    nll = log_loss(target[test], probability, labels=estimator.classes_)
    return Score(nll, accuracy_score(target[test], predicted), seconds)


def peer(kind: str, name: str, seed: int) -> Callable[[], Any]:
    """A fresh peer with its library's defaults."""
    if kind == "quantity":
        return {
            "constant": lambda: DummyRegressor(),
            "linear": lambda: Ridge(),
            "scikit-learn MLP": lambda: StandardizedTarget(MLPRegressor(early_stopping=True, random_state=seed)),
        }[name]
    single = {
        "constant": lambda: DummyClassifier(strategy="prior"),
        "linear": lambda: LogisticRegression(max_iter=2000),
        "scikit-learn MLP": lambda: MLPClassifier(early_stopping=True, random_state=seed),
    }[name]
    # scikit-learn's network takes several labels itself; the others take one at a time.
    return single if kind == "classes" or "MLP" in name else lambda: MultiOutputClassifier(single())


class StandardizedTarget:
    """A regressor that learns the standardized target and predicts in its units."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, features: np.ndarray, target: np.ndarray) -> StandardizedTarget:
        self.mean, self.deviation = target.mean(), target.std()
        self.model.fit(features, (target - self.mean) / self.deviation)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(features) * self.deviation + self.mean


def held_out_error(model: Any, features: np.ndarray, target: np.ndarray, seed: int) -> float:
    """RMSE on 15 % of the rows, learned from the others."""
    order = np.random.RandomState(seed).permutation(len(target))
    out, kept = np.split(order, [round(0.15 * len(order))])
    return root_mean_squared_error(target[out], model.fit(features[kept], target[kept]).predict(features[out]))


def label_probability(estimator: Any, features: Any) -> np.ndarray:
    """Probability of every label; a list of tables, one per label, from scikit-learn's one-at-a-time wrapper."""
    probability = estimator.predict_proba(features)
    return np.stack([label[:, 1] for label in probability], axis=1) if isinstance(probability, list) else probability


def report(scores: dict[tuple[str, str], list[Score]], command: str) -> str:
    """The measured table as a page."""
    names = list(dict.fromkeys(name for name, _ in scores))
    lines = [
        "# Real tables",
        "",
        f"`{command}`",
        "",
        versions(),
        "",
        "Mean over the seeds ± its standard error. Less NLL is better; the least is bold.",
        "",
        "## Negative log-likelihood on the test rows, nats",
        "",
        "| table | " + " | ".join(PEERS) + " | lastlayer ahead of every peer |",
        "|---|" + "---:|" * len(PEERS) + "---|",
    ]
    for name in names:
        means = {model: float(np.mean([score.nll for score in scores[name, model]])) for model in PEERS}
        cells = []
        for model in PEERS:
            values = [score.nll for score in scores[name, model]]
            error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            text = f"{means[model]:.4f} ± {error:.4f}"
            cells.append(f"**{text}**" if means[model] == min(means.values()) else text)
        ahead = all(means["lastlayer"] < means[model] for model in PEERS[:-1])
        lines.append(f"| {name} | {' | '.join(cells)} | {'yes' if ahead else 'no'} |")
    lines += [
        "",
        "## Accuracy (classes), accuracy per label (labels), RMSE (quantities); seconds to fit",
        "",
        "| table | " + " | ".join(PEERS) + " | " + " | ".join(f"{model} s" for model in PEERS) + " |",
        "|---|" + "---:|" * (2 * len(PEERS)),
    ]
    for name in names:
        figures = [f"{np.mean([score.figure for score in scores[name, model]]):.4g}" for model in PEERS]
        seconds = [f"{np.mean([score.seconds for score in scores[name, model]]):.2f}" for model in PEERS]
        lines.append(f"| {name} | {' | '.join(figures)} | {' | '.join(seconds)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of tables, with commas between")
    parser.add_argument("--out", type=Path, help="write the page here as well")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one seed, the four smallest tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = options.only.split(",") if options.only else [dataset.name for dataset in DATASETS]
    if options.quick:
        wanted, options.seeds = ["penguins", "titanic", "uci_yacht", "ml_emotions"], 1
    unknown = set(wanted) - {dataset.name for dataset in DATASETS}
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    # Peers that stop before they converge are taken as they are.
    warnings.simplefilter("ignore", ConvergenceWarning)
    scores: dict[tuple[str, str], list[Score]] = {}
    for dataset in DATASETS:
        if dataset.name not in wanted:
            continue
        inputs, targets = dataset.read(options.data)
        for name in PEERS:
            scores[dataset.name, name] = [judge(dataset, name, inputs, targets, seed) for seed in range(options.seeds)]
            latest = scores[dataset.name, name]
            nll, figure, seconds = np.mean([[score.nll, score.figure, score.seconds] for score in latest], axis=0)
            print(f"{dataset.name:20}{name:20}NLL {nll:9.4f}   {figure:10.4g}   {seconds:7.2f} s", flush=True)
    page = report(scores, f"python benchmarks/tables.py --data FOLDER --seeds {options.seeds}")
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    print("\n" + page)


if __name__ == "__main__":
    main()
