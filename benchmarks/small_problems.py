"""What a loss costs where only fixed costs count: forward and backward of 64 × 10 raw outputs, in microseconds.

Every loss of the catalog and PyTorch's own, in turn, a hundred at a time, on one thread. Where PyTorch has no such loss
its place is taken by the readable formula under autograd, marked *.

    python benchmarks/small_problems.py [--rows 64] [--classes 10] [--rounds 15] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lastlayer import losses

from losses import inputs
from page import versions
from peers import torch_criterion


def measure(name: str, rows: int, classes: int, *, rounds: int) -> tuple[float, float, bool]:
    """Microseconds of ours and of PyTorch's, and whether PyTorch has the loss itself."""
    loss = losses.by_name(name)
    raw, target = inputs(loss, rows, classes, torch.float32)
    criterion, own = torch_criterion(loss)

    def times(run: Callable[[Tensor, Tensor], Tensor]) -> float:
        started = time.perf_counter()
        for _ in range(100):
            run(raw.detach().requires_grad_(), target).backward()
        return (time.perf_counter() - started) * 1e4

    found = [(times(loss), times(criterion)) for _ in range(rounds + 1)][1:]
    ours, theirs = (statistics.median(column) for column in zip(*found, strict=True))
    return ours, theirs, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="one round: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if options.quick else options.rounds
    lines = [
        "# What a small problem costs",
        "",
        f"`python benchmarks/small_problems.py --rounds {rounds}`",
        "",
        versions(),
        "",
        f"Forward and backward of {options.rows} × {options.classes} in float32, one thread; medians of {rounds}.",
        "\\* PyTorch has no such loss: the readable formula under autograd.",
        "",
        "| loss | lastlayer, µs | PyTorch, µs | difference, µs |",
        "|---|---:|---:|---:|",
    ]
    for name in losses.catalog():
        ours, theirs, own = measure(name, options.rows, options.classes, rounds=rounds)
        lines.append(f"| {name} | {ours:.1f} | {theirs:.1f}{'' if own else ' *'} | {ours - theirs:+.1f} |")
    page = "\n".join(lines) + "\n"
    print(page)
    if options.out:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
