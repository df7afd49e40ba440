"""What the recorder costs: the same training with and without it, in turn.

Both run in one process and take turns after every few steps, so that whatever else the machine does falls on both
alike; the processor's time is taken, which other processes have no part in. Both start from the same weights and see
the same batches; the recorder has training and validation rows, samples as it does by default, and is told of every
epoch.

    python benchmarks/recorder.py [--threads 1] [--rounds 5] [--out FILE.md] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lastlayer.diagnosis.recorder import Recorder

from page import versions

#: Steps after which the two change places.
TURN = 16


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        name: as the page has it.
        network: makes it.
        loss: makes its loss.
        inputs: shape of a row.
        classes: 0 for a real target.
        batch: rows of a step.
        steps: of one training.
    """

    name: str
    network: Callable[[], nn.Module]
    loss: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    classes: int
    batch: int
    steps: int


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def perceptron(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for left, right in itertools.pairwise(widths):
        layers += [nn.Linear(left, right), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def wide() -> nn.Module:
    return perceptron(256, 2048, 2048, 10)


CASES = (
    Case("MLP 64-256-256-1, batch 256", lambda: perceptron(64, 256, 256, 1), nn.MSELoss, (64,), 0, 256, 2000),
    Case("LeNet-5, 28 x 28, batch 128", lenet, nn.CrossEntropyLoss, (1, 28, 28), 10, 128, 1000),
    Case("MLP 256-2048-2048-10, batch 256", wide, nn.CrossEntropyLoss, (256,), 10, 256, 500),
)
#: Batches of an epoch; a fifth as many rows are held out.
EPOCH = 20


def data(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = EPOCH * case.batch
    features = torch.randn(rows, *case.inputs, generator=generator)
    teacher = torch.randn(features[0].numel(), max(case.classes, 1), generator=generator)
    target = features.flatten(1) @ teacher / teacher.shape[0] ** 0.5
    return features, target.argmax(1) if case.classes else target


def training(case: Case, *, recorded: bool) -> Iterator[Recorder | None]:
    """A whole training, one step at a time."""
    torch.manual_seed(0)
    network, criterion = case.network(), case.loss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    features, target = data(case)
    held_out = EPOCH * case.batch // 5
    parts = (features, target), (features[:held_out], target[:held_out])
    recorder = Recorder(network, criterion, optimizer, training=parts[0], validation=parts[1]) if recorded else None
    if recorder is not None:
        recorder.__enter__()
    for step in range(case.steps):
        rows = slice(step % EPOCH * case.batch, (step % EPOCH + 1) * case.batch)
        optimizer.zero_grad()
        loss = criterion(network(features[rows]), target[rows])
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.log(loss)
            if step % EPOCH == EPOCH - 1:
                recorder.end_epoch()
        yield recorder
    if recorder is not None:
        recorder.__exit__()


@dataclass(frozen=True)
class Timing:
    """One training beside the other.

    Attributes:
        whole: time with the recorder over time without, of all steps.
        between: the middle one of such ratios over turns: what steps cost that are not looked at.
        step: milliseconds of a step without.
        after: seconds that ``findings()`` took.
    """

    whole: float
    between: float
    step: float
    after: float


def side_by_side(case: Case) -> Timing:
    for recorded in (False, True):
        # What is done once in a process: imports, buffers, the first call of everything.
        list(training(dataclasses.replace(case, steps=2), recorded=recorded))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    runs = {recorded: training(case, recorded=recorded) for recorded in seconds}
    recorder: Recorder | None = None
    for turn in range(case.steps // TURN):
        for recorded in (False, True) if turn % 2 else (True, False):
            started = time.process_time()
            for _ in range(TURN):
                recorder = next(runs[recorded]) or recorder
            seconds[recorded].append(time.process_time() - started)
    for run in runs.values():
        list(run)
    assert recorder is not None
    started = time.perf_counter()
    recorder.findings()
    after = time.perf_counter() - started
    ratios = [own / other for own, other in zip(seconds[True], seconds[False], strict=True)]
    step = 1000 * sum(seconds[False]) / (TURN * len(seconds[False]))
    return Timing(sum(seconds[True]) / sum(seconds[False]), statistics.median(ratios), step, after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the page here as well")
    parser.add_argument("--quick", action="store_true", help="one round of few steps: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 1 if options.quick else options.rounds
    lines = [
        "# The recorder",
        "",
        f"`python benchmarks/recorder.py --threads {options.threads} --rounds {rounds}`",
        "",
        versions(),
        "",
        "Processor time of a training with the recorder over that of the same training without it, the two taking",
        f"turns every {TURN} steps in one process; the middle, the least and the largest of the rounds. *All steps* is",
        "the whole training, with the looks at the layers and at the validation rows; *between looks* is the middle",
        "turn, which has none. The aim is 1.05 at the most.",
        "",
        "| network | steps | all steps | least – largest | between looks | step, ms | findings(), s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for case in CASES:
        if options.quick:
            case = dataclasses.replace(case, steps=2 * TURN)
        timings = [side_by_side(case) for _ in range(rounds)]
        whole = sorted(timing.whole for timing in timings)
        middle = {
            name: statistics.median(getattr(timing, name) for timing in timings)
            for name in ("between", "step", "after")
        }
        lines.append(
            f"| {case.name} | {case.steps} | {statistics.median(whole):.3f} | {whole[0]:.3f} – {whole[-1]:.3f} | "
            f"{middle['between']:.3f} | {middle['step']:.2f} | {middle['after']:.2f} |"
        )
    page = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
