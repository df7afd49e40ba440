"""Learning slowdown: one sigmoid neuron that should turn a 1 into a 0, by quadratic cost and by cross-entropy.

It starts wrong, at an output of 0.82, or very wrong, at 0.98. The gradient of the quadratic cost has the sigmoid's
slope in it, which is least where the neuron is most wrong; in that of the cross-entropy it cancels.

    python studies/slowdown.py --out studies/results [--quick]

Reference: SPEC G7.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lastlayer import losses

from plots import COLORS, STROKES, panels, save

INPUT, TARGET, RATE = 1.0, 0.0, 0.15
STARTS = ((0.6, 0.9), (2.0, 2.0))
STEPS, STEPS_QUICK = 300, 30
#: Steps that count as "at first".
FIRST = 10

#: By name, of the raw output and the target; half the squared error of its sigmoid is the lecture's quadratic cost.
COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "quadratic cost": lambda raw, target: 0.5 * losses.sigmoid_squared_error(raw, target),
    "cross-entropy": losses.binary_cross_entropy,
}


@dataclass(frozen=True)
class Course:
    """How one neuron learned.

    Attributes:
        outputs, costs: before the first step and after each.
        gradient: of the weight, before the first step.
    """

    outputs: tuple[float, ...]
    costs: tuple[float, ...]
    gradient: float

    def steps_to(self, output: float) -> int | None:
        """After how many steps the output is first that low; ``None`` if it never was."""
        return next((step for step, value in enumerate(self.outputs) if value <= output), None)


def learn(weight: float, bias: float, cost: Callable[[Tensor, Tensor], Tensor], steps: int) -> Course:
    """Gradient descent on weight and bias."""
    parameters = torch.tensor([weight, bias], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([TARGET], dtype=torch.float64)
    outputs, costs, gradients = [], [], []
    for _ in range(steps + 1):
        raw = (parameters[0] * INPUT + parameters[1]).reshape(1)
        value = cost(raw, target)
        (gradient,) = torch.autograd.grad(value, parameters)
        outputs.append(torch.sigmoid(raw).item())
        costs.append(value.item())
        gradients.append(gradient[0].item())
        parameters = (parameters - RATE * gradient).detach().requires_grad_()
    return Course(tuple(outputs), tuple(costs), gradients[0])


def draw(courses: dict[str, list[Course]], path: Path) -> None:
    """Output above cost, one column a cost."""
    figure, axes = panels(2, 2, width=9, height=6, sharex=True)
    for column, (name, of_starts) in enumerate(courses.items()):
        for number, course in enumerate(of_starts):
            style = {
                "color": COLORS[number],
                "linestyle": STROKES[number],
                "label": f"starts at {course.outputs[0]:.2f}",
            }
            axes[0][column].plot(course.outputs, **style)
            axes[1][column].plot(course.costs, **style)
        axes[0][column].set(title=name, ylim=(0, 1))
        axes[0][column].axhline(TARGET, color="#444444", linewidth=0.8)
        axes[1][column].set(xlabel="steps of gradient descent", ylim=(0, 1.05 * max(of_starts[1].costs)))
        axes[0][column].legend()
    axes[0][0].set_ylabel("output (target 0)")
    axes[1][0].set_ylabel("cost")
    save(figure, path)


def page(courses: dict[str, list[Course]], command: str) -> str:
    """The figures beside what the lecture says."""
    steps = len(next(iter(courses.values()))[0].outputs) - 1
    lines = [
        "# Learning slowdown",
        "",
        f"`{command}`",
        "",
        f"One sigmoid neuron, input {INPUT:g}, target {TARGET:g}, rate {RATE:g}, {steps} steps. The lecture (SPEC G7): "
        "starts at 0.82 and 0.98; by the quadratic cost the worse start learns slowly at first, by cross-entropy it "
        "learns faster than the other. The slope ∂C/∂w and the fall of the cost say so. The output itself still leaves "
        "0.98 more slowly than 0.82 at first: it is where the sigmoid is flat, though the weight moves as it should.",
        "",
        f"| cost | w, b | first output | ∂C/∂w | cost falls in {FIRST} steps by | output by | steps to 0.5 | to 0.2 | "
        "last output |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, of_starts in courses.items():
        for (weight, bias), course in zip(STARTS, of_starts, strict=True):
            reached = [str(course.steps_to(level) or "never") for level in (0.5, 0.2)]
            falls = [curve[0] - curve[FIRST] for curve in (course.costs, course.outputs)]
            lines.append(
                f"| {name} | {weight:g}, {bias:g} | {course.outputs[0]:.2f} | {course.gradient:.4f} | {falls[0]:.4f} | "
                f"{falls[1]:.4f} | {' | '.join(reached)} | {course.outputs[-1]:.3f} |"
            )
    lines += ["", "![outputs and costs over the steps](slowdown.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for slowdown.md and slowdown.png")
    parser.add_argument("--quick", action="store_true", help=f"{STEPS_QUICK} steps: does it run at all?")
    options = parser.parse_args()
    steps = STEPS_QUICK if options.quick else STEPS
    courses = {name: [learn(*start, cost, steps) for start in STARTS] for name, cost in COSTS.items()}
    draw(courses, options.out / "slowdown.png")
    text = page(courses, "python studies/slowdown.py" + (" --quick" if options.quick else ""))
    (options.out / "slowdown.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
