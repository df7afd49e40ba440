"""What a training step costs, over the matrix products that it contains.

20 000 × 32 inputs, two hidden layers of 128, 5 classes, batch 256, Adam: one epoch of the library's loop beside the
bare PyTorch loop, the usual loop with a DataLoader, scikit-learn and skorch, and beside the products alone. The loop
written out by hand, without autograd and without an allocation, shows how much of the rest is PyTorch's own overhead.

    python benchmarks/training.py [--threads 1] [--rounds 15] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lastlayer.heads import Categorical
from lastlayer.networks import PiecewiseLinear, TabularNetwork
from lastlayer.training import Recipe, Rows, one_epoch

from page import versions
from timing import alternate, ratio

ROWS, INPUTS, HIDDEN, CLASSES, BATCH = 20_000, 32, 128, 5, 256


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(ROWS, INPUTS, generator=generator)
    teacher = torch.randn(INPUTS, CLASSES, generator=generator)
    return features, (features @ teacher).argmax(1)


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
    )


def own_network() -> TabularNetwork:
    """The same perceptron as the library's own network, which writes its backward out."""
    torch.manual_seed(0)
    return TabularNetwork(
        inputs=INPUTS,
        numeric=0,
        outputs=CLASSES,
        hidden=(HIDDEN, HIDDEN),
        activation="relu",
        dropout=0.0,
        codes=PiecewiseLinear.learn(np.zeros((1, 0), dtype=np.float32), 0),
    )


def products_alone() -> Callable[[], object]:
    """The eight products of a step, each into a buffer that is there: 3 forward, 3 for weights, 2 for inputs."""
    widths = [INPUTS, HIDDEN, HIDDEN, CLASSES]
    inputs = [torch.randn(BATCH, width) for width in widths]
    weights = [torch.randn(right, left) for left, right in itertools.pairwise(widths)]
    outputs = [torch.empty(BATCH, width) for width in widths]
    gradients = [torch.empty_like(weight) for weight in weights]

    def epoch() -> None:
        for _ in range(-(-ROWS // BATCH)):
            for layer, weight in enumerate(weights):
                torch.mm(inputs[layer], weight.t(), out=outputs[layer + 1])
            for layer in reversed(range(len(weights))):
                torch.mm(inputs[layer + 1].t(), inputs[layer], out=gradients[layer])
                if layer:
                    torch.mm(inputs[layer + 1], weights[layer], out=outputs[layer])

    return epoch


def lastlayer(features: Tensor, target: Tensor, network: nn.Module) -> Callable[[], object]:
    head = Categorical(classes=CLASSES)
    recipe = Recipe(optimizer="adam", learning_rate=1e-3, weight_decay=0.0, batch_size=BATCH)
    plan = recipe.plan(ROWS, classes=True)
    optimizer, generator = plan.build_optimizer(network), torch.Generator().manual_seed(0)
    rows = Rows(features, target)
    return lambda: one_epoch(network, None, head, optimizer, rows, plan, 1, generator=generator)


def bare_loop(features: Tensor, target: Tensor) -> Callable[[], object]:
    network = perceptron()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def epoch() -> None:
        order = torch.randperm(ROWS)
        shuffled, labels = features[order], target[order]
        for start in range(0, ROWS, BATCH):
            loss = F.cross_entropy(network(shuffled[start : start + BATCH]), labels[start : start + BATCH])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def by_hand(features: Tensor, target: Tensor, *, optimize: bool) -> Callable[[], object]:
    """Forward and backward written out, without autograd, into buffers that are there: what Python can do at best."""
    network, head = perceptron(), Categorical(classes=CLASSES)
    layers = [module for module in network if isinstance(module, nn.Linear)]
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    outputs = [torch.empty(BATCH, weight.shape[0]) for weight in weights]
    errors = [torch.empty(BATCH, weight.shape[1]) for weight in weights]

    @torch.no_grad()
    def epoch() -> None:
        order = torch.randperm(ROWS)
        shuffled, labels = features.index_select(0, order), target.index_select(0, order)
        for start in range(0, ROWS, BATCH):
            inputs = [shuffled[start : start + BATCH]]
            rows = len(inputs[0])
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                output = torch.addmm(bias, inputs[layer], weight.t(), out=outputs[layer][:rows])
                inputs.append(output.relu_() if layer < len(weights) - 1 else output)
            _, error = head.loss_and_gradient(inputs[-1], labels[start : start + BATCH])
            for layer in reversed(range(len(weights))):
                torch.mm(error.t(), inputs[layer], out=layers[layer].weight.grad)
                torch.sum(error, 0, out=layers[layer].bias.grad)
                if layer:
                    error = torch.mm(error, weights[layer], out=errors[layer][:rows])
                    error = torch.ops.aten.threshold_backward(error, inputs[layer], 0)
            if optimize:
                optimizer.step()

    return epoch


def data_loader_loop(features: Tensor, target: Tensor) -> Callable[[], object]:
    network, criterion = perceptron(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(features, target), batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        for batch, labels in loader:
            optimizer.zero_grad()
            criterion(network(batch), labels).backward()
            optimizer.step()

    return epoch


def scikit_learn(features: Tensor, target: Tensor) -> Callable[[], object]:
    model = MLPClassifier((HIDDEN, HIDDEN), batch_size=BATCH, random_state=0, alpha=0.0)
    inputs, labels = features.numpy(), target.numpy()
    classes = np.arange(CLASSES)
    return lambda: model.partial_fit(inputs, labels, classes=classes)


def skorch(features: Tensor, target: Tensor) -> Callable[[], object] | None:
    try:
        from skorch import NeuralNetClassifier
    except ImportError:
        return None
    net = NeuralNetClassifier(
        perceptron(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=BATCH,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    ).initialize()
    return lambda: net.partial_fit(features, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the page here as well")
    parser.add_argument("--quick", action="store_true", help="two rounds: does it run at all?")
    options = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(options.threads)
    features, target = data()
    candidates: dict[str, Callable[[], object] | None] = {
        "matrix products alone": products_alone(),
        "lastlayer, its own network": lastlayer(features, target, own_network()),
        "lastlayer, any module": lastlayer(features, target, perceptron()),
        "bare PyTorch loop, fused Adam": bare_loop(features, target),
        "written out by hand, fused Adam": by_hand(features, target, optimize=True),
        "written out by hand, no optimizer": by_hand(features, target, optimize=False),
        "PyTorch loop with DataLoader": data_loader_loop(features, target),
        "scikit-learn MLPClassifier": scikit_learn(features, target),
        "skorch": skorch(features, target),
    }
    present = {name: run for name, run in candidates.items() if run is not None}
    rounds = 2 if options.quick else options.rounds
    seconds = alternate(present, rounds)
    lines = [
        "# A training step",
        "",
        f"`python benchmarks/training.py --threads {options.threads} --rounds {rounds}`",
        "",
        versions(),
        "",
        "One epoch over the matrix products alone, round by round, each loop in turn in one process. The aim was 1.5;",
        "the loop written out by hand shows how much of the rest is PyTorch's fixed cost per operation and its "
        "optimizer's.",
        "",
        "| loop | median | quartiles | epoch, ms |",
        "|---|---:|---:|---:|",
    ]
    for name in candidates:
        if name not in present:
            lines.append(f"| {name} | not installed | | |")
            continue
        low, middle, high = ratio(seconds, name, "matrix products alone")
        milliseconds = 1000 * statistics.median(seconds[name])
        lines.append(f"| {name} | {middle:.2f} | {low:.2f} – {high:.2f} | {milliseconds:.0f} |")
    page = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
