"""What members side by side cost: training 16 networks at once, and predicting with 100 draws of dropout.

Two hidden layers of 64, batches of 128: a step of 16 members over the batched products that it contains and over a
step of one member; a prediction with 100 dropout members over its own products.

    python benchmarks/ensembles.py [--threads 1] [--rounds 21] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lastlayer.heads import Gaussian
from lastlayer.networks import PiecewiseLinear, TabularNetwork
from lastlayer.training import Recipe, Rows, step

from page import versions
from timing import alternate, ratio

INPUTS, HIDDEN, BATCH, MEMBERS, STEPS = 16, 64, 128, 16, 50


def network(members: int | None, dropout: float = 0.0) -> TabularNetwork:
    torch.manual_seed(0)
    return TabularNetwork(
        inputs=INPUTS,
        numeric=0,
        outputs=1,
        hidden=(HIDDEN, HIDDEN),
        activation="relu",
        dropout=dropout,
        codes=PiecewiseLinear.learn(np.zeros((1, 0), dtype=np.float32), 0),
        members=members,
    )


def batched_products(members: int) -> Callable[[], object]:
    """The eight products of a step of all members, each into a buffer that is there."""
    widths = [INPUTS, HIDDEN, HIDDEN, 1]
    inputs = [torch.randn(members, BATCH, width) for width in widths]
    weights = [torch.randn(members, right, left) for left, right in itertools.pairwise(widths)]
    outputs = [torch.empty(members, BATCH, width) for width in widths]
    gradients = [torch.empty_like(weight) for weight in weights]

    def run() -> None:
        for _ in range(STEPS):
            for layer, weight in enumerate(weights):
                torch.bmm(inputs[layer], weight.transpose(1, 2), out=outputs[layer + 1])
            for layer in reversed(range(len(weights))):
                torch.bmm(inputs[layer + 1].transpose(1, 2), inputs[layer], out=gradients[layer])
                if layer:
                    torch.bmm(inputs[layer + 1], weights[layer], out=outputs[layer])

    return run


def training(members: int | None) -> Callable[[], object]:
    body, head = network(members), Gaussian()
    optimizer = Recipe(optimizer="adam", learning_rate=1e-3).plan(BATCH, classes=False).build_optimizer(body)
    features = torch.randn(STEPS, BATCH, INPUTS)
    target = features.sum(-1)

    def run() -> None:
        for batch, wanted in zip(features, target, strict=True):
            step(body, head, optimizer, Rows(batch, wanted))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, help="write the page here as well")
    parser.add_argument("--quick", action="store_true", help="two rounds: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 2 if options.quick else options.rounds
    seconds = alternate(
        {
            "products": batched_products(MEMBERS),
            "together": training(MEMBERS),
            "one": training(None),
        },
        rounds,
    )
    for name, floor in (("together", "products"), ("together", "one")):
        print(name, floor, ratio(seconds, name, floor), 1e6*statistics.median(seconds[name])/STEPS)


if __name__ == "__main__":
    main()
