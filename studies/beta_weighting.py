"""What β is worth: predicted scales trained by the likelihood itself, by half of it, and as squared error would.

``heads.Gaussian(scale="predicted", beta=β)`` weights every sample by ``scale^(2β)`` while it trains. With β = 0 rows of
large scale stop teaching the location; with β = 1 the location learns as from squared error. Judged without weights, on
the UCI splits: mean over splits of test log-likelihood, RMSE and CRPS. ½ is the library's default by this table.

    python studies/beta_weighting.py --data DIR [--out DIR] [--splits 3] [--quick]

Reference: M. Seitzer, A. Tavakoli, D. Antic, G. Martius, On the pitfalls of heteroscedastic uncertainty estimation with
probabilistic neural networks, ICLR (2022).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lastlayer import Regressor, heads

from uci import load

BETAS = (0.0, 0.5, 1.0)
FAMILIES = (heads.Gaussian, heads.Laplace)


def measure(path: Path, head: heads.Head, splits: int, options: dict[str, Any]) -> tuple[float, float, float]:
    """Test log-likelihood, RMSE and CRPS, mean over the first splits."""
    features, target, tests = load(path)
    found = []
    for split, test in enumerate(tests[:splits]):
        train = np.setdiff1d(np.arange(len(target)), test)
        model = Regressor(head=head, hidden=(128, 128), random_state=split, **options)
        predicted = model.fit(features[train], target[train]).predict_distribution(features[test])
        actual = torch.from_numpy(target[test])
        found.append(
            (
                float(predicted.log_prob(actual).mean()),
                float((predicted.mean - actual).square().mean().sqrt()),
                float(predicted.crps(actual).mean()),
            )
        )
    likelihood, rmse, crps = np.mean(found, axis=0)
    return float(likelihood), float(rmse), float(crps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("."), help="folder with uci_NAME.npz")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for beta_weighting.md")
    parser.add_argument("--sets", default="concrete,energy,wine_red,yacht", help="names with commas between")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one split, 5 epochs: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = options.sets.split(",")
    missing = [name for name in names if not (options.data / f"uci_{name}.npz").exists()]
    if missing:
        files = ", ".join(f"uci_{name}.npz" for name in missing)
        sys.exit(f"{options.data} has no {files}. Name the folder that has: --data DIR.")
    splits, more = (1, {"max_epochs": 5}) if options.quick else (options.splits, {})
    lines = [
        "# What β is worth",
        "",
        f"`python studies/beta_weighting.py --splits {splits}{' --quick' if options.quick else ''}`",
        "",
        "One network with a predicted scale, mean over the splits, original units: test log-likelihood / RMSE / CRPS.",
        "",
        f"| set | head | {' | '.join(f'β = {beta:g}' for beta in BETAS)} |",
        f"|---|---|{'---:|' * len(BETAS)}",
    ]
    for name in names:
        for family in FAMILIES:
            cells = []
            for beta in BETAS:
                head = family(scale="predicted", beta=beta)
                likelihood, rmse, crps = measure(options.data / f"uci_{name}.npz", head, splits, more)
                cells.append(f"{likelihood:.3f} / {rmse:.3f} / {crps:.3f}")
                print(name, family.__name__, beta, cells[-1], flush=True)
            lines.append(f"| {name} | {family.__name__} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "beta_weighting.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
