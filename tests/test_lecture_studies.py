"""The lecture's figures, as the studies measure them, beside formulas that know nothing of this library."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import integrate, special, stats

STUDIES = Path(__file__).parent.parent / "studies"


def module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def initialization() -> ModuleType:
    return module("initialization")


@pytest.fixture(scope="module")
def slowdown() -> ModuleType:
    return module("slowdown")


@pytest.fixture(scope="module")
def differentiation() -> ModuleType:
    return module("numerical_differentiation")


def run(study: ModuleType, folder: Path) -> str:
    """The command, quickly; its page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["study", "--quick", "--out", str(folder)])
        study.main()
    (page,) = folder.glob("*.md")
    return page.read_text(encoding="utf-8")


def pictures_of(page: str, folder: Path) -> list[Path]:
    """Those that the page shows; each is there, a PNG, and of some size."""
    shown = [folder / name for name in re.findall(r"\]\((.+?\.png)\)", page)]
    assert {path.name for path in shown} == {path.name for path in folder.glob("*.png")}
    for path in shown:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 10_000
    return shown


# --- E4: the distribution of activations and gradients ---------------------------------------------------------------


def normal_mean(f: object, variance: float) -> float:
    """The mean of f over normal numbers of this variance, by adaptive quadrature."""
    scale = np.sqrt(variance)
    value, _ = integrate.quad(lambda z: f(scale * z) * stats.norm.pdf(z), -12, 12, points=[0.0], limit=200)  # type: ignore[operator]
    return float(value)


def mean_field(activation: str, variance: float, units: int) -> tuple[list[float], list[float], list[float]]:
    """Root mean square of activations and of gradients, and the flat share, layer by layer, of infinitely many units.

    A layer's input is normal with variance σ²D times the mean square of the activations before it; a gradient grows by
    σ²D times the mean square of the slope (Poole et al. 2016; Schoenholz et al. 2017).
    """
    value, slope = {
        "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        "ReLU": (lambda x: max(x, 0.0), lambda x: float(x > 0)),
        "PReLU": (lambda x: x if x > 0 else 0.25 * x, lambda x: 1.0 if x > 0 else 0.25),
    }[activation]
    square, outputs, slopes, flat = 1.0, [], [], []
    for _ in range(10):
        size = variance * units * square
        square = normal_mean(lambda x: value(x) ** 2, size)
        outputs.append(np.sqrt(square))
        slopes.append(normal_mean(lambda x: slope(x) ** 2, size))
        # The slope of a tanh is below a hundredth beyond artanh(√0.99).
        end = np.arctanh(np.sqrt(0.99)) / np.sqrt(size)
        flat.append({"tanh": 2 * stats.norm.sf(end), "ReLU": 0.5, "PReLU": np.nan}[activation])
    gradients = [1.0]
    for each in reversed(slopes[1:]):
        gradients.insert(0, gradients[0] * np.sqrt(variance * units * each))
    return outputs, gradients, flat


@pytest.mark.parametrize(
    ("activation", "rule"),
    [
        *[("tanh", rule) for rule in ("normal, σ = 0.01", "normal, σ = 0.2", "Xavier", "He")],
        *[("ReLU", rule) for rule in ("normal, σ = 0.2", "Xavier", "He")],
        ("PReLU", "He"),
    ],
)
def test_what_arrives_is_what_mean_field_theory_says(initialization: ModuleType, activation: str, rule: str) -> None:
    """Within a quarter at layer 10: weights are drawn once, and a ReLU's layers carry on what the ones before did."""
    size = initialization.Size(units=200, rows=300)
    he = 2 / (1 + 0.25**2) if activation == "PReLU" else 2.0
    variance = {
        "normal, σ = 0.01": 0.01**2,
        "normal, σ = 0.2": 0.2**2,
        "Xavier": 1 / size.units,
        "He": he / size.units,
    }
    layers = initialization.measure(activation, initialization.RULES[rule][0], size)
    outputs, gradients, flat = mean_field(activation, variance[rule], size.units)
    assert len(layers) == 10
    for place in (0, 4, 9):
        assert layers[place].output.rms == pytest.approx(outputs[place], rel=0.25)
        assert layers[place].gradient.rms == pytest.approx(gradients[place], rel=0.25)
        if activation != "PReLU":
            assert layers[place].saturated == pytest.approx(flat[place], abs=0.1)


def test_what_the_lecture_shows(initialization: ModuleType) -> None:
    """SPEC E4, in words of numbers."""
    size = initialization.Size(units=300, rows=100)

    def stds(activation: str, rule: str) -> list[float]:
        return [layer.output.std for layer in initialization.measure(activation, initialization.RULES[rule][0], size)]

    small, xavier = stds("tanh", "normal, σ = 0.01"), stds("tanh", "Xavier")
    assert small[-1] < 1e-6 < 0.1 < small[0]
    assert 0.2 < xavier[-1] < xavier[0] < 0.7
    assert stds("tanh", "constant 0") == [0.0] * 10
    collapsing, he = stds("ReLU", "Xavier"), stds("ReLU", "He")
    assert collapsing[-1] < 0.06 * collapsing[0]
    assert 0.6 < he[-1] / he[0] < 1.6
    large = initialization.measure("tanh", initialization.RULES["normal, σ = 0.2"][0], size)
    # Piled up at both ends: more than half of the numbers lie in the outermost two of forty bins.
    assert all(layer.output.counts[0] + layer.output.counts[-1] > 0.5 * sum(layer.output.counts) for layer in large)


def test_initialization_writes_its_page(initialization: ModuleType, tmp_path: Path) -> None:
    page = run(initialization, tmp_path)
    assert len(pictures_of(page, tmp_path)) == 4
    for rule in initialization.RULES:
        assert page.count(f"| {rule} |") >= 2


# --- G7: learning slowdown -------------------------------------------------------------------------------------------


def by_hand(weight: float, bias: float, steps: int, *, quadratic: bool) -> list[float]:
    """The outputs by the lecture's own formulas: ∂C/∂w = (a − y) σ'(z) x, and (σ(z) − y) x."""
    outputs = []
    for _ in range(steps + 1):
        a = special.expit(weight * 1.0 + bias)
        outputs.append(float(a))
        slope = a * (a * (1 - a) if quadratic else 1.0)
        weight, bias = weight - 0.15 * slope, bias - 0.15 * slope
    return outputs


@pytest.mark.parametrize(("name", "quadratic"), [("quadratic cost", True), ("cross-entropy", False)])
@pytest.mark.parametrize("start", [(0.6, 0.9), (2.0, 2.0)])
def test_courses_are_those_of_the_formulas(
    slowdown: ModuleType, name: str, quadratic: bool, start: tuple[float, float]
) -> None:
    course = slowdown.learn(*start, slowdown.COSTS[name], 300)
    assert course.outputs == pytest.approx(by_hand(*start, 300, quadratic=quadratic), rel=1e-9)
    assert course.outputs != pytest.approx(by_hand(*start, 300, quadratic=not quadratic), rel=1e-2)
    a = course.outputs[0]
    assert course.costs[0] == pytest.approx(a**2 / 2 if quadratic else -np.log1p(-a), rel=1e-12)


def test_learning_slows_down_by_the_quadratic_cost_alone(slowdown: ModuleType) -> None:
    """SPEC G7."""
    assert slowdown.STARTS == ((0.6, 0.9), (2.0, 2.0))
    quadratic, entropy = (
        [slowdown.learn(*start, cost, 300) for start in slowdown.STARTS] for cost in slowdown.COSTS.values()
    )
    assert [round(course.outputs[0], 2) for course in quadratic] == [0.82, 0.98]
    # The worse start: a seventh of the slope and a fiftieth of the progress by the one, more of both by the other.
    assert quadratic[1].gradient < 0.15 * quadratic[0].gradient
    assert entropy[1].gradient > 1.15 * entropy[0].gradient
    progress = [[course.costs[0] - course.costs[10] for course in courses] for courses in (quadratic, entropy)]
    assert progress[0][1] < 0.02 * progress[0][0]
    assert progress[1][1] > 2 * progress[1][0]
    assert quadratic[1].steps_to(0.5) > 6 * quadratic[0].steps_to(0.5)
    assert entropy[1].steps_to(0.5) < quadratic[0].steps_to(0.5)
    assert quadratic[1].steps_to(0.2) is None


def test_slowdown_writes_its_page(slowdown: ModuleType, tmp_path: Path) -> None:
    page = run(slowdown, tmp_path)
    assert "| quadratic cost | 2, 2 | 0.98 | 0.0173 |" in page
    pictures_of(page, tmp_path)


# --- G8: the step of a difference ------------------------------------------------------------------------------------


def in_float32(step: float, *, symmetric: bool) -> float:
    """The error by NumPy's float32, of the formulas as they stand; nothing is corrected for rounding of the step."""
    x = np.linspace(-5, 5, 1001, dtype=np.float32) + np.float32(0.0123)
    h = np.float32(step)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.float32(1) / (np.float32(1) + np.exp(-x))

    found = (sigmoid(x + h) - sigmoid(x - h)) / (2 * h) if symmetric else (sigmoid(x + h) - sigmoid(x)) / h
    exact = special.expit(x.astype(np.float64)) * special.expit(-x.astype(np.float64))
    return float(np.sqrt(np.mean((found - exact) ** 2)))


def test_the_best_step_is_near_the_cube_root(differentiation: ModuleType) -> None:
    """SPEC G8: (6e-8)^(1/3) ≈ 4e-3 within a factor of 3, where the error is ten times that of neighbors far off."""
    x, sizes = differentiation.points(quick=False), differentiation.steps(quick=False)
    errors = {scheme: [differentiation.error(scheme, step, x) for step in sizes] for scheme in differentiation.SCHEMES}
    rule = differentiation.RULES["symmetric"]
    assert rule == pytest.approx(4e-3, rel=0.03)
    best = sizes[int(np.argmin(errors["symmetric"]))]
    assert rule / 3 < best < 3 * rule
    best_by_numpy = sizes[int(np.argmin([in_float32(step, symmetric=True) for step in sizes]))]
    # There the exponential is rounded as well, and h is not what x really moves by.
    assert rule / 4 < best_by_numpy < 4 * rule
    at = {step: differentiation.error("symmetric", step, x) for step in (rule, rule / 100, 100 * rule)}
    assert 10 * at[rule] < at[rule / 100]
    assert 10 * at[rule] < at[100 * rule]
    # Forward differences do worse at their best than symmetric ones at theirs, and at a smaller step.
    assert min(errors["forward"]) > 10 * min(errors["symmetric"])
    assert sizes[int(np.argmin(errors["forward"]))] < best


@pytest.mark.parametrize("scheme", ["symmetric", "forward"])
def test_large_steps_err_by_what_the_series_leaves_out(differentiation: ModuleType, scheme: str) -> None:
    """h²/6 times the third derivative, or h/2 times the second; and what NumPy finds is the same."""
    step = 0.05
    x = np.linspace(-5, 5, 1001) + 0.0123
    s = special.expit(x)
    second = s * (1 - s) * (1 - 2 * s)
    third = s * (1 - s) * (1 - 6 * s + 6 * s**2)
    left_out = step**2 / 6 * third if scheme == "symmetric" else step / 2 * second
    error = differentiation.error(scheme, step, differentiation.points(quick=False))
    assert error == pytest.approx(np.sqrt(np.mean(left_out**2)), rel=0.02)
    assert error == pytest.approx(in_float32(step, symmetric=scheme == "symmetric"), rel=0.02)


def test_differentiation_writes_its_page(differentiation: ModuleType, tmp_path: Path) -> None:
    page = run(differentiation, tmp_path)
    assert "| symmetric | ε^(1/3) | 3.9e-03 |" in page
    pictures_of(page, tmp_path)
