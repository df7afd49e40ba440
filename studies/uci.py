"""The UCI regression protocol: 20 fixed splits, original units, mean and standard error, beside published figures.

Every configuration is the library's estimator with one head, its defaults otherwise; nothing is chosen by set. The best
single configuration is chosen by the likelihood of rows held out inside ``fit``, never by the test rows.

    python studies/uci.py --data DIR [--out DIR] [--sets yacht,energy] [--jobs 2] [--quick]

``DIR`` holds ``uci_NAME.npz`` with ``X``, ``y`` and ``test_index`` of shape (splits, test rows), padded with -1 or not;
the complement is trained on. Finished fits are kept in ``DIR/uci_runs.jsonl`` of ``--out``: a run that was interrupted
goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lastlayer import Regressor

HIDDEN = (128, 128)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "Gaussian, one scale": {"head": "gaussian"},
    "Gaussian, predicted scale": {"head": "gaussian:predicted"},
    "Laplace, predicted scale": {"head": "laplace:predicted"},
    "Student's t": {"head": "student_t"},
    "mixture of 5 Gaussians": {"head": "mixture:5"},
    "Monte Carlo dropout, 100 draws": {"head": "gaussian", "dropout": 0.05, "dropout_members": 100},
    "ensemble of 5, Gaussian": {"head": "gaussian:predicted", "members": 5},
    "ensemble of 5, Student's t": {"head": "student_t", "members": 5},
    "ensemble of 5, Student's t, recalibrated": {"head": "student_t", "members": 5, "calibration": "scale"},
}

# Test log-likelihood (higher is better) and RMSE, as the project's table of published figures has them.
PUBLISHED: dict[str, dict[str, tuple[str, str]]] = {
    "MC dropout, corrected logs (yaringal/DropoutUncertaintyExps)": {
        "concrete": ("4.826", "-2.937"),
        "energy": ("0.539", "-1.212"),
        "kin8nm": ("0.0789", "1.136"),
        "wine_red": ("0.622", "-0.928"),
        "yacht": ("0.666", "-1.250"),
    },
    "Deep Ensembles (NeurIPS 2017, Table 1)": {
        "concrete": ("6.03", "-3.06"),
        "energy": ("2.09", "-1.38"),
        "kin8nm": ("0.09", "1.20"),
        "wine_red": ("0.64", "-0.94"),
        "yacht": ("1.58", "-1.18"),
    },
}


def load(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.int64]]]:
    """Inputs, target and the test rows of every split."""
    with np.load(path) as archive:
        index = np.asarray(archive["test_index"])
        return archive["X"], archive["y"].ravel().astype(float), [np.unique(row[row >= 0]) for row in index]


def fit_one(path: Path, name: str, split: int, *, quick: bool) -> dict[str, Any]:
    """One configuration on one split: what is printed of it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    features, target, splits = load(path)
    test = splits[split]
    train = np.setdiff1d(np.arange(len(target)), test)
    started = time.perf_counter()
    options = CONFIGURATIONS[name] | ({"max_epochs": 15} if quick else {})
    model = Regressor(hidden=HIDDEN, random_state=split, **options).fit(features[train], target[train])
    seconds = time.perf_counter() - started
    predicted, actual = model.predict_distribution(features[test]), torch.from_numpy(target[test])
    low, high = predicted.interval(0.9)
    return {
        "set": path.stem.removeprefix("uci_"),
        "configuration": name,
        "split": split,
        "quick": quick,
        "log_likelihood": float(predicted.log_prob(actual).mean()),
        "rmse": float((predicted.mean - actual).square().mean().sqrt()),
        "crps": float(predicted.crps(actual).mean()),
        "coverage_90": float(((actual >= low) & (actual <= high)).double().mean()),
        "validation_nll": model.model_.record["figures"]["network"]["nll"],
        "seconds": seconds,
    }


def with_error(values: list[float]) -> str:
    """Mean and standard error, with three digits that count, however small the numbers are (naval's are)."""
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    decimals = max(2, 2 - math.floor(math.log10(abs(mean)))) if mean else 2
    return f"{mean:.{decimals}f} ± {error:.{decimals}f}"


def page(runs: list[dict[str, Any]], sets: list[str], command: str) -> str:
    """Measured beside published, and which single configuration the held-out rows chose."""
    lines = ["# UCI regression", "", f"`{command}`", ""]
    lines += [
        f"Splits as given, {HIDDEN} hidden units, library defaults; mean ± standard error over the splits, original "
        "units. A predicted scale is at least a thousandth of the target's spread and, where the target comes in steps "
        "(wine), 0.29 of the step: what rounding leaves. A density cannot spike on single grades then.",
        "",
    ]
    chosen = best_configuration(runs, sets)
    if chosen is not None:
        lines += [f"Chosen by the likelihood of held-out rows, one for all sets (mean rank): **{chosen}**.", ""]
    for name in sets:
        lines += [
            f"## {name}",
            "",
            "| | test log-likelihood | RMSE | CRPS | held by 90 % | validation NLL | seconds a fit |",
        ]
        lines += ["|---|---:|---:|---:|---:|---:|---:|"]
        for configuration in CONFIGURATIONS:
            own = [run for run in runs if run["set"] == name and run["configuration"] == configuration]
            if not own:
                continue
            cells = [with_error([run[key] for run in own]) for key in ("log_likelihood", "rmse", "crps")]
            cells += [
                f"{np.mean([run['coverage_90'] for run in own]):.3f}",
                with_error([run["validation_nll"] for run in own]),
                f"{np.mean([run['seconds'] for run in own]):.1f}",
            ]
            label = f"**{configuration}**" if configuration == chosen else configuration
            lines.append(f"| {label} ({len(own)} splits) | {' | '.join(cells)} |")
        for source, figures in PUBLISHED.items():
            if name in figures:
                rmse, likelihood = figures[name]
                lines.append(f"| *published:* {source} | {likelihood} | {rmse} | | | | |")
        lines.append("")
    return "\n".join(lines)


def best_configuration(runs: list[dict[str, Any]], sets: list[str]) -> str | None:
    """The configuration of the best mean rank by validation NLL over the sets that all of them ran on."""
    names = list(CONFIGURATIONS)
    ranks: dict[str, list[int]] = {name: [] for name in names}
    for one in sets:
        means = {}
        for name in names:
            own = [run["validation_nll"] for run in runs if run["set"] == one and run["configuration"] == name]
            if own:
                means[name] = float(np.mean(own))
        for rank, name in enumerate(sorted(means, key=lambda each: means[each])):
            ranks[name].append(rank)
    complete = {name: np.mean(own) for name, own in ranks.items() if len(own) == len(sets) > 0}
    return min(complete, key=lambda name: complete[name]) if complete else None


def kept(path: Path, *, quick: bool) -> list[dict[str, Any]]:
    """The fits that an earlier run has finished."""
    if not path.exists():
        return []
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [run for run in runs if run["quick"] == quick]


def todo(
    paths: dict[str, Path], done: list[dict[str, Any]], wanted: int, configurations: list[str]
) -> Iterator[tuple[Path, str, int]]:
    """Every fit that is still to be made, split by split, so that an interrupted run has whole rows of the table."""
    finished = {(run["set"], run["configuration"], run["split"]) for run in done}
    for split in range(wanted):
        for name, path in paths.items():
            for configuration in configurations:
                if (name, configuration, split) not in finished:
                    yield path, configuration, split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("."), help="folder with uci_NAME.npz")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for uci.md and uci_runs.jsonl")
    parser.add_argument("--sets", help="names with commas between; all in --data unless given")
    parser.add_argument("--configurations", help="numbers with commas between, from 1; all unless given")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--quick", action="store_true", help="2 splits, 15 epochs: does it run at all?")
    options = parser.parse_args()
    there = {path.stem.removeprefix("uci_"): path for path in sorted(options.data.glob("uci_*.npz"))}
    sets = options.sets.split(",") if options.sets else list(there)
    missing = [name for name in sets if name not in there]
    if missing or not sets:
        sys.exit(
            f"{options.data} has no {', '.join(f'uci_{name}.npz' for name in missing) or 'uci_*.npz'}; say --data."
        )
    names = list(CONFIGURATIONS)
    if options.configurations:
        names = [names[int(number) - 1] for number in options.configurations.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "uci_runs.jsonl"
    runs = kept(log, quick=options.quick)
    wanted = 2 if options.quick else options.splits
    fits = list(todo({name: there[name] for name in sets}, runs, wanted, names))
    with ProcessPoolExecutor(options.jobs) as pool, log.open("a", encoding="utf-8") as file:
        waiting = [pool.submit(fit_one, *fit, quick=options.quick) for fit in fits]
        for number, future in enumerate(as_completed(waiting), 1):
            run = future.result()
            runs.append(run)
            file.write(json.dumps(run) + "\n")
            file.flush()
            print(
                f"{number}/{len(fits)}  {run['set']} split {run['split']}  {run['configuration']}: "
                f"LL {run['log_likelihood']:.3f}, RMSE {run['rmse']:.4g}, {run['seconds']:.1f} s",
                flush=True,
            )
    command = f"python studies/uci.py --splits {wanted}" + (" --quick" if options.quick else "")
    text = page(runs, sets, command)
    (options.out / "uci.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
