"""What a loss costs: forward and backward over a copy of the raw output, for every loss of the catalog.

Reading the raw output once and writing its gradient once is a copy; no loss can be cheaper. Beside lastlayer (into a
buffer that is used again, and with a fresh gradient) stand PyTorch's own loss, eager and compiled, and optax under
``jax.jit``, in turn in one process. Where PyTorch has no such loss its place is taken by the readable formula under
autograd, marked *. Losses that PyTorch has are measured a second time, in float32, with its own allocations in huge
pages (``THP_MEM_ALLOC_ENABLE=1``). Each loss has a process of its own.

    python benchmarks/losses.py [--rows 2048] [--classes 32768] [--dtypes float32,bfloat16] [--rounds 5]
                                [--only NAME,NAME] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lastlayer import evaluate_with, explain, losses
from lastlayer.evaluation import release_memory
from lastlayer.losses import Loss

from page import versions
from peers import TORCH, optax_step, torch_criterion
from timing import alternate, ratio

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(loss: Loss, rows: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """About ``rows × classes`` raw outputs and their target, as the loss takes them."""
    generator = torch.Generator().manual_seed(0)
    raw, target = loss.facts.example(2)
    if loss.formula.event_dims and not target.is_floating_point():
        raw = 3 * torch.randn(rows, classes, generator=generator)
        return raw.to(DEVICE, dtype), torch.randint(classes, (rows,), generator=generator).to(DEVICE)
    width = raw.shape[-1] if loss.formula.event_dims else 1
    columns = max(1, classes // width)
    # A few examples again and again: drawing 67 million takes longer than measuring with them.
    raw, target = loss.facts.example(min(rows * columns, 1 << 16), generator=generator)
    times = -(-rows * columns // len(target))
    raw, target = (tensor.repeat(times, *[1] * (tensor.dim() - 1))[: rows * columns] for tensor in (raw, target))
    return raw.unflatten(0, (rows, columns)).to(DEVICE, dtype), target.unflatten(0, (rows, columns)).to(DEVICE, dtype)


def synchronized(run: Callable[[], object]) -> Callable[[], object]:
    if DEVICE == "cpu":
        return run

    def waiting() -> None:
        run()
        torch.cuda.synchronize()

    return waiting


def candidates(loss: Loss, raw: Tensor, target: Tensor, *, quick: bool) -> dict[str, Callable[[], object]]:
    buffer = torch.zeros_like(raw)
    criterion, own = torch_criterion(loss)

    def step(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        def forward_and_backward() -> None:
            run(raw.detach().requires_grad_(), target).backward()

        return forward_and_backward

    def reused(path: str | None) -> Callable[[], object]:
        def forward_and_backward() -> None:
            with evaluate_with(path=path, gradient_buffer=buffer):
                loss(raw.detach().requires_grad_(), target).backward()

        return forward_and_backward

    found: dict[str, Callable[[], object]] = {
        "copy": lambda: buffer.copy_(raw),
        "reused": reused(None),
        "fresh": step(loss),
        "blockwise": reused("blockwise"),
        "torch": step(criterion),
    }
    if not quick:
        if own:
            found["compiled"] = step(torch.compile(criterion, dynamic=False))
        if optax := optax_step(loss.facts.name, raw.cpu(), target.cpu()):
            found["optax"] = optax
    return {name: synchronized(run) for name, run in found.items()}


def peak(run: Callable[[], object], raw: Tensor) -> float:
    """The most memory at once beyond what was there, over the bytes of the raw output."""
    return peak_bytes(run) / (raw.numel() * raw.element_size())


def peak_bytes(run: Callable[[], object]) -> float:
    """The most memory at once beyond what was there before, on the device or of the process."""
    run()
    gc.collect()
    # Memory that is kept for the next gradient would be counted as there before.
    release_memory()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    if not sys.platform.startswith("linux"):
        return float("nan")
    # What the C library keeps for later use is given back, or it would be counted as there before.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1]) * 1024


def measure(name: str, arguments: argparse.Namespace, dtype: torch.dtype) -> dict[str, Any]:
    """Ratios of one loss."""
    loss = losses.by_name(name)
    raw, target = inputs(loss, arguments.rows, arguments.classes, dtype)
    runs = candidates(loss, raw, target, quick=arguments.quick)
    seconds = alternate(runs, arguments.rounds)
    result: dict[str, Any] = {"name": name, "path": explain(loss, raw).path, "own": name in TORCH}
    result |= {other: ratio(seconds, other, "copy")[1] for other in runs if other != "copy"}
    result["copy"] = statistics.median(seconds["copy"])
    for other in ("reused", "fresh", "torch"):
        result[f"memory {other}"] = peak(runs[other], raw)
    return result


def in_a_process(arguments: argparse.Namespace, names: list[str], dtype: str, *, huge: bool) -> list[dict[str, Any]]:
    """The measurements of a setting, one process a loss: allocations of one leave no trace in the next."""
    found = []
    for name in names:
        command = [sys.executable, __file__, "--one", name, "--dtypes", dtype, "--rounds", str(arguments.rounds)]
        command += ["--rows", str(arguments.rows), "--classes", str(arguments.classes)]
        command += ["--quick"] if arguments.quick else []
        environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1" if huge else "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}, {dtype}: {done.stderr[-2000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{dtype}{' huge pages' if huge else ''}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def table(found: list[dict[str, Any]]) -> list[str]:
    columns = {
        "reused": "reused buffer",
        "fresh": "fresh gradient",
        "blockwise": "blockwise, reused",
        "torch": "PyTorch",
        "compiled": "PyTorch compiled",
        "optax": "optax, jit",
        "memory reused": "memory, reused",
        "memory fresh": "memory, fresh",
        "memory torch": "memory, PyTorch",
    }
    lines = [f"| loss | path | {' | '.join(columns.values())} |", f"|---|---|{'---:|' * len(columns)}"]
    for row in found:
        cells = []
        for key in columns:
            mark = "" if row["own"] or key not in ("torch", "compiled", "memory torch") else " *"
            cells.append(f"{row[key]:.2f}{mark}" if key in row else "–")
        lines.append(f"| {row['name']} | {row['path']} | {' | '.join(cells)} |")
    medians = [statistics.median(row[key] for row in found if key in row) for key in ("reused", "fresh", "blockwise")]
    lines += [
        "",
        "Median of the catalog: "
        + ", ".join(
            f"{columns[key]} {value:.2f}" for key, value in zip(("reused", "fresh", "blockwise"), medians, strict=True)
        )
        + ".",
    ]
    slower = [
        f"{row['name']} ({kind})"
        for row in found
        for kind in ("torch", "compiled")
        if kind in row and row[kind] < row["fresh"]
    ]
    lines += ["", "Slower than PyTorch, both with a fresh gradient: " + (", ".join(slower) if slower else "none") + "."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=32768)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="names of losses, with commas between")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="small, one round, without compiled PyTorch and optax")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.classes, arguments.rounds = 64, 256, 1
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments, getattr(torch, arguments.dtypes))))
        return
    names = arguments.only.split(",") if arguments.only else list(losses.catalog())
    size = arguments.rows * arguments.classes * 4 / 2**20
    lines = [
        "# What a loss costs", "",
        f"Forward and backward of {arguments.rows} × {arguments.classes} raw outputs ({size:.0f} MB in float32), in "
        f"copies of the raw output; memory beyond the inputs, in raw outputs. Medians of {arguments.rounds} rounds, "
        f"all in turn.",
        "", f"`python {' '.join(['benchmarks/losses.py', *sys.argv[1:]])}`", "", versions(), "",
        f"\\* PyTorch has no such loss: the readable formula under autograd. Device: {DEVICE}.", "",
    ]  # fmt: skip
    for dtype in arguments.dtypes.split(","):
        for huge in (False, True) if DEVICE == "cpu" and dtype == "float32" and not arguments.quick else (False,):
            # Where the place of PyTorch's loss is taken by our own formula there is nothing to be fair to.
            chosen = [name for name in names if name in TORCH] if huge else names
            if not chosen:
                continue
            found = in_a_process(arguments, chosen, dtype, huge=huge)
            milliseconds = statistics.median(row["copy"] for row in found) * 1e3
            lines += [f"## {dtype}{', huge pages in PyTorch' if huge else ''}", ""]
            lines += [f"A copy takes {milliseconds:.1f} ms.", "", *table(found), ""]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
