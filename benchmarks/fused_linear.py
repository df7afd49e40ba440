"""The last linear layer and its loss in one, over the three matrix products alone.

2048 × 1024 features into 32 768 outputs: forward and backward of ``fused_linear``, for cross-entropy and for multilabel
binary cross-entropy, beside the plain layer and loss, PyTorch's own chunked ``F.linear_cross_entropy``, and on a GPU
liger-kernel, cut-cross-entropy and quack-kernels where installed. In turn in one process; memory is what was allocated
beyond features, weight, their gradients and the target.

    python benchmarks/fused_linear.py [--dtypes float32,bfloat16] [--rounds 5] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer import fused_linear

from losses import DEVICE, peak_bytes, synchronized
from page import versions
from peers import fused_linear_peers
from timing import alternate, ratio


def problem(rows: int, width: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, class indices, and a hundred labels of all per row."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, width, generator=generator)
    weight = torch.randn(outputs, width, generator=generator) * width**-0.5
    labels = torch.rand(rows, outputs, generator=generator) < 100 / outputs
    classes = torch.randint(outputs, (rows,), generator=generator)
    return (
        features.to(DEVICE, dtype).requires_grad_(),
        weight.to(DEVICE, dtype).requires_grad_(),
        classes.to(DEVICE),
        labels.to(DEVICE),
    )


def candidates(features: Tensor, weight: Tensor, classes: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    x, w = features.detach(), weight.detach()
    raw, of_features, of_weight = x @ w.t(), torch.empty_like(x), torch.empty_like(w)

    def products() -> None:
        """Forward and both backward products, into buffers that are there."""
        torch.mm(x, w.t(), out=raw)
        torch.mm(raw, w, out=of_features)
        torch.mm(raw.t(), x, out=of_weight)

    def step(loss: Callable[[], Tensor]) -> Callable[[], object]:
        def forward_and_backward() -> None:
            features.grad = weight.grad = None
            loss().backward()

        return forward_and_backward

    found = {
        "the three products": products,
        "fused_linear, cross_entropy": step(lambda: fused_linear("cross_entropy", features, weight, classes)),
        "fused_linear, binary_cross_entropy": step(
            lambda: fused_linear("binary_cross_entropy", features, weight, labels)
        ),
        "plain, cross_entropy": step(lambda: F.cross_entropy(F.linear(features, weight), classes)),
        "plain, binary_cross_entropy": step(
            lambda: F.binary_cross_entropy_with_logits(F.linear(features, weight), labels.to(features.dtype))
        ),
        **fused_linear_peers(features, weight, classes),
    }
    return {name: synchronized(run) for name, run in found.items()}


def measure(arguments: argparse.Namespace, dtype: torch.dtype) -> dict[str, Any]:
    features, weight, classes, labels = problem(arguments.rows, arguments.width, arguments.outputs, dtype)
    runs = candidates(features, weight, classes, labels)
    seconds = alternate(runs, arguments.rounds)
    floor = "the three products"
    memory = {}
    for name, run in runs.items():
        if name != floor:
            # Its own gradients of the run before are there when the count begins, and go when it starts.
            memory[name] = peak_bytes(run) / 2**20
    return {
        "floor": sorted(seconds[floor])[len(seconds[floor]) // 2],
        "ratio": {name: ratio(seconds, name, floor) for name in runs if name != floor},
        "memory": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--outputs", type=int, default=32768)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="small and one round")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.width, arguments.outputs, arguments.rounds = 64, 32, 512, 1
    if arguments.one:
        print(json.dumps(measure(arguments, getattr(torch, arguments.dtypes))))
        return
    lines = [
        "# The last layer and its loss in one", "",
        f"{arguments.rows} × {arguments.width} features into {arguments.outputs} outputs, forward and backward, over "
        f"the three matrix products alone: lower quartile, median, upper quartile of {arguments.rounds} rounds, in "
        f"turn.",
        "", f"`python {' '.join(['benchmarks/fused_linear.py', *sys.argv[1:]])}`", "", versions(), "",
        f"Device: {DEVICE}.", "",
    ]  # fmt: skip
    for dtype in arguments.dtypes.split(","):
        # A process each: what one setting has allocated is not there to be used again by the next.
        sizes = [f"--{name}={getattr(arguments, name)}" for name in ("rows", "width", "outputs", "rounds")]
        done = subprocess.run(
            [sys.executable, __file__, "--one", "--dtypes", dtype, *sizes], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found = json.loads(done.stdout.splitlines()[-1])
        lines += [f"## {dtype}", "", f"The products take {found['floor'] * 1e3:.0f} ms.", ""]
        lines += ["| | time ÷ products | memory, MB |", "|---|---:|---:|"]
        for name, (low, median, high) in found["ratio"].items():
            lines.append(f"| {name} | {median:.2f} ({low:.2f}–{high:.2f}) | {found['memory'][name]:.0f} |")
        lines.append("")
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
