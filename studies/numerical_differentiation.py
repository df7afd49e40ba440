"""How large a step differences should take: the derivative of the sigmoid in float32, its error against the step.

Below the best step rounding wins, which grows as ε/h; above it what a difference leaves out, which grows as h for
forward differences and as h² for symmetric ones. They meet near ε^(1/2) and ε^(1/3).

    python studies/numerical_differentiation.py --out studies/results [--quick]

Reference: SPEC D8, G8.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from lastlayer.gradient_check import numerical_gradient

from plots import COLORS, STROKES, panels, save

SCHEMES = ("symmetric", "forward")
#: The largest relative error of rounding in float32, as the lecture has it.
PRECISION = 6e-8
RULES = {"symmetric": PRECISION ** (1 / 3), "forward": PRECISION ** (1 / 2)}


def steps(*, quick: bool) -> list[float]:
    """From 1e-6, which still moves every point, to 1, evenly on a logarithmic scale."""
    return np.logspace(-6, 0, 19 if quick else 121).tolist()


def points(*, quick: bool) -> torch.Tensor:
    """Where the derivative is taken: between −5 and 5, at numbers that are no round ones."""
    return torch.linspace(-5.0, 5.0, 101 if quick else 1001) + 0.0123


def error(scheme: str, step: float, x: torch.Tensor) -> float:
    """Root mean square over the points, against the derivative σ(1 − σ) in float64."""
    exact = torch.sigmoid(x.double()) * torch.sigmoid(-x.double())
    found = numerical_gradient(torch.sigmoid, x, scheme=scheme, step=step)
    return float((found.double() - exact).square().mean().sqrt())


def draw(found: dict[str, list[float]], sizes: list[float], path: Path) -> None:
    """Both errors over the step, and where the rules put it."""
    figure, ((axes,),) = panels(1, 1, width=7.5, height=4.8)
    for number, scheme in enumerate(SCHEMES):
        axes.loglog(
            sizes, found[scheme], color=COLORS[number], linestyle=STROKES[number], label=f"{scheme} differences"
        )
        power = "1/3" if scheme == "symmetric" else "1/2"
        axes.axvline(
            RULES[scheme],
            color=COLORS[number],
            linestyle=STROKES[number],
            linewidth=0.9,
            label=f"$\\varepsilon^{{{power}}}$ = {RULES[scheme]:.1e}",
        )
    axes.set(xlabel="step h", ylabel="error of the derivative (root mean square)", title="Sigmoid, float32")
    axes.legend()
    save(figure, path)


def page(found: dict[str, list[float]], sizes: list[float], command: str) -> str:
    """Where each error is least, and what it is at the rule's step."""
    lines = [
        "# The step of a difference",
        "",
        f"`{command}`",
        "",
        "Derivative of the sigmoid in float32 by `lastlayer.gradient_check.numerical_gradient`, over points between −5 "
        "and 5, against σ(1 − σ) in float64; root mean square. The lecture (SPEC G8): by symmetric differences the "
        "error is least near (6e-8)^(1/3) ≈ 4e-3. The rules leave out the ratio of the function to its third (forward: "
        "second) derivative, which is large for the sigmoid: its best steps lie a little above.",
        "",
        "| differences | rule | its step | error there | best step | least error |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for scheme in SCHEMES:
        errors = found[scheme]
        least = int(np.argmin(errors))
        at_rule = errors[int(np.argmin(np.abs(np.log(sizes) - np.log(RULES[scheme]))))]
        power = "1/3" if scheme == "symmetric" else "1/2"
        lines.append(
            f"| {scheme} | ε^({power}) | {RULES[scheme]:.1e} | {at_rule:.1e} | {sizes[least]:.1e} | "
            f"{errors[least]:.1e} |"
        )
    lines += ["", "![error over the step](numerical_differentiation.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the page and the picture")
    parser.add_argument("--quick", action="store_true", help="19 steps, 101 points: does it run at all?")
    options = parser.parse_args()
    sizes, x = steps(quick=options.quick), points(quick=options.quick)
    found = {scheme: [error(scheme, step, x) for step in sizes] for scheme in SCHEMES}
    draw(found, sizes, options.out / "numerical_differentiation.png")
    text = page(found, sizes, "python studies/numerical_differentiation.py" + (" --quick" if options.quick else ""))
    (options.out / "numerical_differentiation.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
