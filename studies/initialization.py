"""How weights start decides what arrives: activations and gradients, layer by layer, under the lecture's five rules.

Ten layers of tanh or ReLU units read standard normal numbers; a gradient of standard normal numbers enters behind the
last of them. Every weight is drawn by one rule: the constant 0, normal numbers of σ = 0.01 or σ = 0.2, Xavier's
(variance 1/D_in) or He's (2/D_in; of a PReLU, whose slope a is 0.25 at first, 2/((1 + a²) D_in)). Biases are 0.

    python studies/initialization.py --out studies/results [--quick]

Reference: SPEC E3, E4.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lastlayer.diagnosis.layers import LayerRecord, Signal, record_layers
from lastlayer.initialization import Constant, He, Normal, Rule, Xavier

from plots import COLORS, panels, save

DEPTH = 10


@dataclass(frozen=True)
class Size:
    """How much of everything: units a layer, and rows of inputs."""

    units: int = 500
    rows: int = 1000


QUICK = Size(units=100, rows=200)

#: By name: the rule, what the lecture says of it for tanh, and for ReLU.
RULES: dict[str, tuple[Rule, str, str]] = {
    "constant 0": (Constant(0.0), "all units of a layer learn the same", "the same"),
    "normal, σ = 0.01": (
        Normal(0.01),
        "activations in deeper layers tend towards 0, gradients too: no learning",
        "not shown",
    ),
    "normal, σ = 0.2": (Normal(0.2), "all units saturate, local gradients become 0: no learning", "not shown"),
    "Xavier": (Xavier(), "well scaled across all layers", "activations start collapsing to 0 again"),
    "He": (He(), "not shown", "well scaled across all layers"),
}
#: By name, the rules that are shown.
ACTIVATIONS = {"tanh": tuple(RULES), "ReLU": tuple(RULES), "PReLU": ("He",)}
_MODULES: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "ReLU": nn.ReLU, "PReLU": nn.PReLU}
#: The PReLU is a row of the picture of ReLUs.
PICTURES = ("tanh", "ReLU")


def build(activation: type[nn.Module], rule: Rule, size: Size) -> nn.Sequential:
    """Ten layers, their weights by the rule."""
    layers: list[nn.Module] = []
    # As the lecture has it, He's rule doubles the variance whatever the units are; of a PReLU its slope counts.
    read = activation() if activation is nn.PReLU else "relu"
    for _ in range(DEPTH):
        linear = nn.Linear(size.units, size.units)
        rule.fill(linear.weight, activation=read)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers)


def measure(activation: str, rule: Rule, size: Size) -> list[LayerRecord]:
    """The units of every layer: what they gave, and the gradient that came back to them."""
    torch.manual_seed(0)
    network = build(_MODULES[activation], rule, size)
    features, gradient = torch.randn(2, size.rows, size.units)

    def loss(output: Tensor, gradient: Tensor) -> Tensor:
        return (output * gradient).sum()

    layers = record_layers(network, features, loss, gradient)
    return [layer for layer in layers if layer.role == "activation"]


def draw(found: dict[str, list[LayerRecord]], title: str, part: str, path: Path) -> None:
    """One row a rule, one column a layer: the distribution of activations, or of gradients, as histograms.

    A row shares its range: that of the first layer for activations, of the last for gradients, where they enter.
    """
    height = 1.0 + 1.4 * len(found)
    figure, axes = panels(len(found), DEPTH, width=13.5, height=height, layout=None)
    figure.subplots_adjust(left=0.105, right=0.99, top=1 - 0.85 / height, bottom=0.3 / height, wspace=0.12, hspace=0.45)
    for row, (rule, layers) in enumerate(found.items()):
        signals = [layer.output if part == "activations" else layer.gradient for layer in layers]
        entering = signals[0] if part == "activations" else signals[-1]
        # All that a tanh can give; else three times the usual size.
        reach = 1.05 if part == "activations" and layers[0].name == "tanh" else 3 * entering.rms or 1.0
        for column, (signal, panel) in enumerate(zip(signals, axes[row], strict=True)):
            _draw_one(panel, signal, reach)
            if row == 0:
                panel.set_title(f"layer {column + 1}", pad=18)
        axes[row][0].set_ylabel(rule, rotation=0, ha="right", va="center")
    figure.suptitle(f"{title}: {part} (height: share of the fullest bin; std: standard deviation)", fontsize=12)
    save(figure, path)


def _draw_one(panel: Axes, signal: Signal, reach: float) -> None:
    """A histogram, and its standard deviation in words."""
    if signal.maximum > signal.minimum:
        heights = [count / max(signal.counts) for count in signal.counts]
        panel.stairs(heights, signal.edges, fill=True, color=COLORS[2])
        panel.stairs(heights, signal.edges, color=COLORS[0], linewidth=0.9)
    else:
        panel.axvline(signal.minimum, color=COLORS[0], linewidth=1.5)
    tick = 1.0 if reach == 1.05 else float(f"{0.6 * reach:.1g}")
    panel.set(xlim=(-reach, reach), ylim=(0, 1.05), yticks=[], xticks=[-tick, 0, tick])
    panel.set_xticklabels([f"−{tick:g}", "0", f"{tick:g}"])
    panel.tick_params(labelsize=7, length=2)
    panel.grid(visible=False)
    panel.text(0.5, 1.03, f"std {signal.std:.2g}", transform=panel.transAxes, ha="center", fontsize=8)


def page(found: dict[str, dict[str, list[LayerRecord]]], size: Size, command: str) -> str:
    """The figures beside what the lecture says."""
    lines = [
        "# How weights start",
        "",
        f"`{command}`",
        "",
        f"{DEPTH} layers of {size.units} units, {size.rows} rows of standard normal inputs, biases 0; a standard "
        "normal gradient enters behind the last layer. Read off `lastlayer.diagnosis.record_layers`, one call a "
        "network. Flat: a slope below a hundredth of the steepest. The lecture (SPEC E3, E4) shows tanh under the "
        "first four rules, ReLU under the last two.",
    ]
    for activation, of_rules in found.items():
        lines += [
            "",
            f"## {activation}",
            "",
            "| rule | std of activations, layers 1, 2, 5, 10 | std of gradients, layers 10, 9, 5, 1 | flat in layer 10 "
            "| the lecture says |",
            "|---|---|---|---:|---|",
        ]
        for rule, layers in of_rules.items():
            outputs = [f"{layers[place].output.std:.2g}" for place in (0, 1, 4, 9)]
            gradients = [layers[place].gradient for place in (9, 8, 4, 0)]
            said = RULES[rule][1 if activation == "tanh" else 2]
            said = "the variance of PReLU's own rule" if activation == "PReLU" else said
            flat = layers[-1].saturated
            lines.append(
                f"| {rule} | {', '.join(outputs)} | {', '.join(f'{each.std:.2g}' for each in gradients)} | "
                f"{'–' if flat is None else f'{flat:.0%}'} | {said} |"
            )
    lines += [
        "",
        "Of a ReLU the flat half is where its inputs are negative: half of them is right. With every weight 0 a tanh's "
        "units give 0 and are as steep as they can be, but nothing comes back through weights of 0; any other constant "
        "makes all units of a layer give the same, and get the same gradient. With σ = 0.2 about half of the tanh "
        "units are flat on a row, not all, and what passes through the others grows on its way back, where the lecture "
        "has it become 0: large weights make up for small slopes. It is still no way to start, as the doctor's "
        "`saturated_units` says.",
    ]
    for name in PICTURES:
        lines += ["", f"![{name}: activations](initialization_{name.lower()}_activations.png)"]
        lines += ["", f"![{name}: gradients](initialization_{name.lower()}_gradients.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the page and the pictures")
    parser.add_argument("--quick", action="store_true", help="100 units, 200 rows: does it run at all?")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    found = {
        activation: {rule: measure(activation, RULES[rule][0], size) for rule in shown}
        for activation, shown in ACTIVATIONS.items()
    }
    for title in PICTURES:
        rows = dict(found[title])
        if title == "ReLU":
            rows |= {f"PReLU, {rule}": layers for rule, layers in found["PReLU"].items()}
        for part in ("activations", "gradients"):
            draw(rows, f"{title} units", part, options.out / f"initialization_{title.lower()}_{part}.png")
    text = page(found, size, "python studies/initialization.py" + (" --quick" if options.quick else ""))
    (options.out / "initialization.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
