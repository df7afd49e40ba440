"""Do predicted intervals hold what they promise? Coverage and width on fresh rows, before and after calibration.

Each table is split 80/20, fitted by the estimator, and central intervals of 50, 80, 90 and 95 % are counted on the rows
left out: as the head predicts them, after PIT recalibration, and as conformal intervals. All that is fitted for the
latter two comes from the rows that ``fit`` holds out of the training part.

    python studies/coverage.py --data DIR [--out DIR] [--seeds 3] [--only NAME,NAME] [--quick]
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch

from lastlayer import Regressor
from lastlayer.uncertainty import randomized_pit

LEVELS = (0.5, 0.8, 0.9, 0.95)
# Target and head: prices have heavy tails, visits to a doctor are counts.
TABLES = {
    "california_housing": ("median_house_value", "student_t"),
    "r_diamonds": ("price", "student_t"),
    "r_doctor_visits": ("visits", "negative_binomial"),
}
WAYS = ("as predicted", "PIT recalibrated", "conformal")
# Of counts also without the choice that whole numbers force: a number on the edge is inside with the right chance.
RANDOMIZED = ("as predicted, randomized", "PIT recalibrated, randomized")


def one_split(path: Path, target: str, head: str, seed: int, *, quick: bool) -> dict[str, list[tuple[float, float]]]:
    """For every way, coverage and mean width at every level."""
    table = polars.read_csv(path, infer_schema_length=None).sample(fraction=1.0, shuffle=True, seed=seed)
    if quick:
        table = table.head(1500)
    rows = table.height // 5
    test, train = table.head(rows), table.tail(table.height - rows)
    options: dict[str, Any] = {"max_epochs": 5} if quick else {}
    model = Regressor(head=head, hidden=(128, 128), calibration="pit", random_state=seed, **options)
    model.fit(train.drop(target), train[target])
    inputs, actual = test.drop(target), test[target].to_numpy()
    fitted = model.model_
    predicted = fitted.distribution_of(fitted.raw_of(fitted.features(inputs)), calibrate=False)
    result: dict[str, list[tuple[float, float]]] = {
        way: [] for way in (*WAYS, *(RANDOMIZED if predicted.discrete else ()))
    }
    if predicted.discrete:
        generator, value = torch.Generator().manual_seed(seed), torch.from_numpy(actual).double()
        for way, distribution in zip(RANDOMIZED, (predicted, model.predict_distribution(inputs)), strict=True):
            share = randomized_pit(distribution, value, generator=generator)
            result[way] = [(float(((share - 0.5).abs() <= level / 2).double().mean()), math.nan) for level in LEVELS]
    for level in LEVELS:
        ends = {
            "as predicted": np.stack([end.numpy() for end in predicted.interval(level)], axis=1),
            "PIT recalibrated": model.predict_interval(inputs, level),
            "conformal": model.predict_interval(inputs, level, conformal=True),
        }
        for way, interval in ends.items():
            held = (actual >= interval[:, 0]) & (actual <= interval[:, 1])
            result[way].append((float(held.mean()), float((interval[:, 1] - interval[:, 0]).mean())))
    return result


def page(measured: dict[str, list[dict[str, list[tuple[float, float]]]]], command: str) -> str:
    """One table of coverage and one of widths for every table of data."""
    lines = [
        "# Coverage of predicted intervals",
        "",
        f"`{command}`",
        "",
        "Share of fresh rows inside the central interval, mean over the splits ± standard error over them, in percent;",
        "in brackets the mean width in the target's units. A count's interval holds whole numbers only, and one at",
        "least: where four rows in five are 0, every interval of 50 % holds four rows in five. The randomized rows",
        "count a number on the edge as inside with the chance that makes a true distribution hold what it promises.",
        "",
    ]
    for name, splits in measured.items():
        target, head = TABLES[name]
        lines += [
            f"## {name}",
            "",
            f"`{target}` by head `{head}`, {len(splits)} splits.",
            "",
            f"| | {' | '.join(f'{100 * level:g} %' for level in LEVELS)} |",
            f"|---|{'---:|' * len(LEVELS)}",
        ]
        for way in splits[0]:
            cells = []
            for number in range(len(LEVELS)):
                held = [100 * split[way][number][0] for split in splits]
                width = float(np.mean([split[way][number][1] for split in splits]))
                error = float(np.std(held, ddof=1) / len(held) ** 0.5) if len(held) > 1 else float("nan")
                cells.append(f"{np.mean(held):.1f} ± {error:.1f}" + ("" if math.isnan(width) else f" ({width:.4g})"))
            lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("."), help="folder with the tables, NAME.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for coverage.md")
    parser.add_argument("--seeds", type=int, default=3, help="splits of each table")
    parser.add_argument("--only", help="names with commas between")
    parser.add_argument("--quick", action="store_true", help="1500 rows, 5 epochs, one split: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = options.only.split(",") if options.only else list(TABLES)
    missing = [name for name in names if name not in TABLES or not (options.data / f"{name}.csv.gz").exists()]
    if missing:
        sys.exit(
            f"{options.data} has no {', '.join(f'{name}.csv.gz' for name in missing)}. Name its folder: --data DIR."
        )
    measured: dict[str, list[dict[str, list[tuple[float, float]]]]] = {}
    seeds = 1 if options.quick else options.seeds
    for name in names:
        target, head = TABLES[name]
        measured[name] = []
        for seed in range(seeds):
            path = options.data / f"{name}.csv.gz"
            measured[name].append(one_split(path, target, head, seed, quick=options.quick))
            print(name, "split", seed, measured[name][-1], flush=True)
    text = page(measured, f"python studies/coverage.py --seeds {seeds}" + (" --quick" if options.quick else ""))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "coverage.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
