"""How good the default networks for images are on MNIST and Fashion-MNIST, without distortions, and how long they take.

Every fit is the estimator's default, on all training images; only the seed differs, and the network where it is named.
The recipe was chosen on parts of the training images; the test images are judged once, at the end.

    python benchmarks/images.py --data FOLDER [--seeds 3] [--only mnist] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from lastlayer import Classifier

from page import versions

NETWORKS = ("convolutional", "lenet")
FILES = {"mnist": "mnist.npz", "fashion_mnist": "fashion_mnist.npz"}
#: Test error in percent, as reported in secondary sources; on MNIST alone.
PUBLISHED = {"LeNet-5 (LeCun et al. 1998)": 0.95, "LeNet-1 (the same)": 1.7, "linear (the same)": 12.0}

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Result:
    """One fit, judged on the test images.

    Attributes:
        error: share of the test images that are classified wrongly, in percent.
        nll: mean negative log-likelihood, nats.
        calibration: expected calibration error, 15 bins.
        linear_error: of the linear model that stands beside the network, in percent.
        seconds: of the fit, by the clock.
        processor_seconds: of the fit, over all threads.
    """

    error: float
    nll: float
    calibration: float
    linear_error: float
    seconds: float
    processor_seconds: float
    parameters: int
    epochs: int


def read(name: str, folder: Path | None) -> Arrays:
    """Training images and classes, test images and classes."""
    if name == "digits":
        digits = load_digits()
        return digits.images[:1200], digits.target[:1200], digits.images[1200:], digits.target[1200:]
    path = None if folder is None else folder / FILES[name]
    if path is None or not path.exists():
        raise SystemExit(f"{name}: there is no {path or FILES[name]}. Pass the folder of the data files with --data.")
    with np.load(path) as archive:
        return tuple(archive[key] for key in ("x_train", "y_train", "x_test", "y_test"))


def judge(arrays: Arrays, network: str, seed: int, max_epochs: int | None) -> Result:
    """One fit with one seed."""
    x, y, x_test, y_test = arrays
    started, worked = time.perf_counter(), time.process_time()
    model = Classifier(network=network, random_state=seed, max_epochs=max_epochs).fit(x, y)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - worked
    figures = model.model_.evaluate(x_test, y_test)
    probability = model.predict_proba(x_test)
    return Result(
        error=100 * float((model.predict(x_test) != y_test).mean()),
        nll=log_loss(y_test, probability, labels=model.classes_),
        calibration=figures["network"]["ece"],
        linear_error=100 * (1 - figures["linear"]["accuracy"]),
        seconds=seconds,
        processor_seconds=processor_seconds,
        parameters=model.model_.record["parameters"],
        epochs=model.n_iter_,
    )


def cell(values: list[float], digits: int) -> str:
    """Mean and standard deviation over the seeds."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def report(results: dict[tuple[str, str], list[Result]], command: str) -> str:
    """The measured table as a page."""
    lines = [
        "# Images",
        "",
        f"`{command}`",
        "",
        versions(),
        "",
        "Every fit is `Classifier(random_state=seed).fit(images, classes)` on all training images, in one call and",
        "without distortions; the network is named in the second column. Mean ± standard deviation over the seeds, on",
        "the test images, which no choice was made on. Seconds are those of the fit with everything in it: scaling,",
        "training, calibration scores, the linear model. The clock runs on for whatever else the machine does at the",
        "same time; processor seconds add up the threads.",
        "",
        "| images | network | weights | epochs | test error, % | NLL, nats | calibration error | seconds "
        "| processor seconds | each seed's error |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for (name, network), each in results.items():
        lines.append(
            f"| {name} | {network} | {each[0].parameters} | {each[0].epochs} "
            f"| {cell([one.error for one in each], 2)} | {cell([one.nll for one in each], 4)} "
            f"| {cell([one.calibration for one in each], 4)} | {cell([one.seconds for one in each], 0)} "
            f"| {cell([one.processor_seconds for one in each], 0)} "
            f"| {', '.join(f'{one.error:.2f}' for one in each)} |"
        )
    for name in dict.fromkeys(name for name, _ in results):
        linear = [one.linear_error for (own, _), each in results.items() if own == name for one in each]
        lines.append(f"| {name} | linear, on 10 000 images | | | {np.mean(linear):.2f} | | | | | |")
    if any(name == "mnist" for name, _ in results):
        lines += [f"| mnist | {name} | | | {error:g} | | | | | |" for name, error in PUBLISHED.items()]
        lines += [
            "",
            "The figures of 1998 are those of Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning",
            "applied to document recognition*, without distortions, as reported in secondary sources.",
        ]
        own = [one.error for one in results.get(("mnist", "convolutional"), [])]
        if own:
            reached = "reached" if np.mean(own) <= 0.95 else "missed"
            lines += ["", f"The 0.95 % of LeNet-5 is {reached} by the default: {cell(own, 2)} %."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="mnist or fashion_mnist; both otherwise")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names with commas between")
    parser.add_argument("--out", type=Path, help="write the page here as well, after every network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits, one seed, three epochs; no files")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.only.split(",") if options.only else list(FILES)
    networks, seeds, max_epochs = options.networks.split(","), options.seeds, None
    if options.quick:
        names, networks, seeds, max_epochs = ["digits"], ["convolutional"], 1, 3
    unknown = set(names) - {*FILES, "digits"} | set(networks) - set(NETWORKS)
    if unknown:
        parser.error(f"no such images or network: {', '.join(sorted(unknown))}")
    command = "python benchmarks/images.py " + ("--quick" if options.quick else f"--data FOLDER --seeds {seeds}")
    command += f" --threads {options.threads}" if options.threads != 2 else ""
    command += f" --only {options.only}" if options.only and not options.quick else ""
    results: dict[tuple[str, str], list[Result]] = {}
    for name in names:
        arrays = read(name, options.data)
        # LeNet's layout is of interest where its own figures are.
        for network in networks if name == "mnist" else networks[:1]:
            each = results[name, network] = []
            for seed in range(seeds):
                each.append(judge(arrays, network, seed, max_epochs))
                last = each[-1]
                print(
                    f"{name:16}{network:16}seed {seed}  error {last.error:5.2f} %  NLL {last.nll:.4f}  "
                    f"{last.seconds:6.1f} s, {last.processor_seconds:6.1f} of processors",
                    flush=True,
                )
                if options.out:
                    options.out.write_text(report(results, command), encoding="utf-8")
    print("\n" + report(results, command))


if __name__ == "__main__":
    main()
