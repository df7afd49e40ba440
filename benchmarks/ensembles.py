"""What members side by side cost: training 16 networks at once, and predicting with 100 draws of dropout.

Training: 16 inputs, two hidden layers of 64, batches of 128, Adam; a step of 16 members over the eight batched products
that it contains, and over a step of one member, beside PyTorch's own ways. Prediction: two hidden layers of 64 and of
256, the draws of some rows over their own products: the first layer once, the others a hundred times.

    python benchmarks/ensembles.py [--threads 1] [--rounds 21] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from lastlayer.heads import Gaussian
from lastlayer.networks import PiecewiseLinear, TabularNetwork
from lastlayer.training import Recipe, Rows, step
from lastlayer.uncertainty.monte_carlo_dropout import dropout_members

from page import versions
from timing import alternate, ratio

INPUTS, HIDDEN, BATCH, MEMBERS, SHARE = 16, 64, 128, 16, 0.3
# Units in the blocks whose products are the floor of a prediction: in and out of each lie in the second-level cache.
BLOCK = 1 << 17


def network(members: int | None, hidden: int = HIDDEN, dropout: float = 0.0) -> TabularNetwork:
    torch.manual_seed(0)
    return TabularNetwork(
        inputs=INPUTS,
        numeric=0,
        outputs=1,
        hidden=(hidden, hidden),
        activation="relu",
        dropout=dropout,
        codes=PiecewiseLinear.learn(np.zeros((1, 0), dtype=np.float32), 0),
        members=members,
    )


def perceptron(hidden: int = HIDDEN, dropout: float = 0.0) -> nn.Sequential:
    """The same network as PyTorch's own modules."""
    layers: list[nn.Module] = []
    for left, right in itertools.pairwise([INPUTS, hidden, hidden]):
        layers += [nn.Linear(left, right), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(*layers, nn.Linear(hidden, 1))


def batches(steps: int) -> tuple[Tensor, Tensor]:
    features = torch.randn(steps, BATCH, INPUTS, generator=torch.Generator().manual_seed(0))
    return features, features.sum(-1)


def batched_products(steps: int) -> Callable[[], object]:
    """The eight products of a step of all members, each into a buffer that is there."""
    widths = [INPUTS, HIDDEN, HIDDEN, 1]
    inputs = [torch.randn(MEMBERS, BATCH, width) for width in widths]
    weights = [torch.randn(MEMBERS, right, left) for left, right in itertools.pairwise(widths)]
    outputs = [torch.empty(MEMBERS, BATCH, width) for width in widths]
    gradients = [torch.empty_like(weight) for weight in weights]

    def run() -> None:
        for _ in range(steps):
            for layer, weight in enumerate(weights):
                torch.bmm(inputs[layer], weight.transpose(1, 2), out=outputs[layer + 1])
            for layer in reversed(range(len(weights))):
                torch.bmm(inputs[layer + 1].transpose(1, 2), inputs[layer], out=gradients[layer])
                if layer:
                    torch.bmm(inputs[layer + 1], weights[layer], out=outputs[layer])

    return run


def lastlayer(members: int | None, steps: int) -> Callable[[], object]:
    body, head = network(members), Gaussian()
    optimizer = Recipe(optimizer="adam", learning_rate=1e-3).plan(BATCH, classes=False).build_optimizer(body)
    features, target = batches(steps)

    def run() -> None:
        for batch, wanted in zip(features, target, strict=True):
            step(body, head, optimizer, Rows(batch, wanted))

    return run


def one_after_another(steps: int) -> Callable[[], object]:
    """A bare loop over 16 networks, each with an optimizer of its own."""
    bodies = [perceptron() for _ in range(MEMBERS)]
    optimizers = [torch.optim.Adam(body.parameters(), lr=1e-3, fused=True) for body in bodies]
    features, target = batches(steps)

    def run() -> None:
        for batch, wanted in zip(features, target, strict=True):
            for body, optimizer in zip(bodies, optimizers, strict=True):
                loss = 0.5 * F.mse_loss(body(batch).squeeze(-1), wanted)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    return run


def by_vmap(steps: int) -> Callable[[], object]:
    """PyTorch's own way to train an ensemble at once: vmap over the stacked parameters."""
    bodies = [perceptron() for _ in range(MEMBERS)]
    parameters, buffers = stack_module_state(bodies)
    body = copy.deepcopy(bodies[0]).to("meta")
    stacked = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    optimizer = torch.optim.Adam(stacked.values(), lr=1e-3, fused=True)
    features, target = batches(steps)

    def loss(own: dict[str, Tensor], batch: Tensor, wanted: Tensor) -> Tensor:
        return 0.5 * F.mse_loss(functional_call(body, (own, buffers), (batch,)).squeeze(-1), wanted)

    gradients = vmap(grad(loss), in_dims=(0, None, None))

    def run() -> None:
        for batch, wanted in zip(features, target, strict=True):
            plain = {name: value.detach() for name, value in stacked.items()}
            for name, gradient in gradients(plain, batch, wanted).items():
                stacked[name].grad = gradient
            optimizer.step()

    return run


def predictions(hidden: int, rows: int, draws: int) -> dict[str, Callable[[], object]]:
    """The products of a prediction, the library's, and PyTorch's module called in training mode."""
    features = torch.randn(rows, INPUTS)
    first, second, last = torch.randn(INPUTS, hidden), torch.randn(hidden, hidden), torch.randn(hidden, 1)
    at_once = min(BLOCK // hidden, rows * draws)
    shared, block, made, raw = (torch.empty(count, width) for count, width in
                                ((rows, hidden), (at_once, hidden), (at_once, hidden), (at_once, 1)))  # fmt: skip
    block.normal_()

    def products() -> None:
        torch.mm(features, first, out=shared)
        for start in range(0, rows * draws, at_once):
            count = min(at_once, rows * draws - start)
            torch.mm(block[:count], second, out=made[:count])
            torch.mm(made[:count], last, out=raw[:count])

    own, module = network(None, hidden, SHARE), perceptron(hidden, SHARE).train()

    @torch.no_grad()
    def calls() -> Tensor:
        return torch.stack([module(features) for _ in range(draws)])

    return {"products": products, "lastlayer": lambda: dropout_members(own, features, draws), "calls": calls}


def line(seconds: dict[str, list[float]], name: str, floor: str) -> str:
    low, middle, high = ratio(seconds, name, floor)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def training_lines(rounds: int, steps: int) -> list[str]:
    runs = {
        f"lastlayer, {MEMBERS} members together": lastlayer(MEMBERS, steps),
        "PyTorch, vmap over stacked modules, fused Adam": by_vmap(steps),
        f"PyTorch, {MEMBERS} networks one after another, fused Adam": one_after_another(steps),
        "lastlayer, one network": lastlayer(None, steps),
    }
    seconds = alternate({"products": batched_products(steps), **runs}, rounds)
    lines = ["| a step | ÷ products of all members | ÷ one network's step | µs |", "|---|---:|---:|---:|"]
    for name in runs:
        microseconds = 1e6 * statistics.median(seconds[name]) / steps
        one = line(seconds, name, "lastlayer, one network")
        lines.append(f"| {name} | {line(seconds, name, 'products')} | {one} | {microseconds:.0f} |")
    return lines


def prediction_lines(rounds: int, sizes: list[tuple[int, int]], draws: int) -> list[str]:
    lines = [
        "| hidden | rows | lastlayer ÷ products | PyTorch, a call per draw ÷ products | ÷ lastlayer | products, ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for hidden, rows in sizes:
        seconds = alternate(predictions(hidden, rows, draws), rounds)
        peer = line(seconds, "calls", "products")
        against = line(seconds, "calls", "lastlayer")
        milliseconds = 1e3 * statistics.median(seconds["products"])
        own = line(seconds, "lastlayer", "products")
        lines.append(f"| {hidden}, {hidden} | {rows} | {own} | {peer} | {against} | {milliseconds:.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, help="write the page here as well")
    parser.add_argument("--quick", action="store_true", help="two rounds of little: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, steps, draws = options.rounds, 50, 100
    sizes = list(itertools.product((64, 256), (128, 1024, 4096)))
    if options.quick:
        rounds, steps, draws, sizes = 2, 3, 10, [(64, 128)]
    else:
        # The library compiles the loop that draws once that pays; here it is to be there from the start.
        warm, features = network(None, HIDDEN, SHARE), torch.randn(4096, INPUTS)
        for _ in range(24):
            dropout_members(warm, features, 100)
    lines = [
        "# Members side by side",
        "",
        f"`python benchmarks/ensembles.py --threads {options.threads} --rounds {rounds}`",
        "",
        versions(),
        "",
        "Median, lower and upper quartile of time over time, round by round, in turn in one process.",
        "",
        f"## Training {MEMBERS} networks",
        "",
        f"{INPUTS} inputs, two hidden layers of {HIDDEN}, batches of {BATCH}, squared error, Adam.",
        "",
        *training_lines(rounds, steps),
        "",
        f"## Predicting with {draws} draws of dropout",
        "",
        f"A share of {SHARE} dropped behind both hidden layers. The aim is 1.5 times the products.",
        "",
        *prediction_lines(rounds, sizes, draws),
    ]
    page = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
