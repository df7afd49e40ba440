"""One input, several right answers: the inverse of a sinusoid, where squared error fails and a mixture does not.

``x = t + 0.3 sin(2πt) + noise`` with t even in [0, 1], and t is asked for given x: in the middle three values of t lead
to the same x. The truth is known: ``p(t | x) ∝ p(x | t)``, so its maxima are the roots of the curve, and what no model
can go below is its conditional entropy, by quadrature. C. M. Bishop, Mixture density networks (1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor, nn

from lastlayer import heads
from lastlayer.distributions import Distribution, Mixture, highest_density
from lastlayer.training import Rows, step

NOISE = 0.03
ROWS, BATCH, STEPS, FRESH_ROWS = 4000, 256, 1500, 20_000
# Where the curve turns, it has no slope: branches lie beyond, between and before these.
FOLDS = (0.3390, 0.6610)
# Within this of a maximum of the truth is "found": the least standard deviation of a branch, 0.03/1.47.
FOUND = 0.02

GRID = np.linspace(0.0, 1.0, 20_001)


def curve(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return t + 0.3 * np.sin(2 * np.pi * t)


def truth(x: float) -> NDArray[np.float64]:
    """The density of t given x, on the grid."""
    density = norm.pdf(x, curve(GRID), NOISE)
    return density / density.mean()


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """x of shape (n, 1), and the t that led to it."""
    generator = np.random.default_rng(seed)
    t = generator.random(n)
    x = curve(t) + NOISE * generator.standard_normal(n)
    return torch.tensor(x, dtype=torch.float32).unsqueeze(-1), torch.tensor(t, dtype=torch.float32)


def draw_given(x: float, n: int, seed: int) -> Tensor:
    """Draws of t given x, by the inverse of the true distribution function."""
    cumulative = truth(x).cumsum()
    share = np.random.default_rng(seed).random(n)
    return torch.tensor(np.interp(share, cumulative / cumulative[-1], GRID), dtype=torch.float32)


def roots(x: float) -> list[float]:
    """Every t with ``curve(t) = x``: one at most before, between and beyond the folds."""
    found = []
    for low, high in zip((0.0, *FOLDS), (*FOLDS, 1.0), strict=True):
        if (curve(np.float64(low)) - x) * (curve(np.float64(high)) - x) < 0:
            found.append(brentq(lambda t: curve(t) - x, low, high))
    return found


def maxima(x: float) -> NDArray[np.float64]:
    """Where the true density has its maxima; just outside the folds that is a fold, which the noise has reached."""
    density = truth(x)
    inner = density[1:-1]
    tops = (inner > density[:-2]) & (inner >= density[2:]) & (inner > 1e-6 * density.max())
    return GRID[1:-1][tops]


def least_nll() -> float:
    """``h(t | x) = h(x | t) + h(t) − h(x)`` with h(t) = 0, in nats."""
    x = np.linspace(-0.5, 1.5, 2001)
    density = norm.pdf(x[:, None], curve(GRID[::20]), NOISE).mean(1)
    entropy = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), x)
    return float(norm(scale=NOISE).entropy() - entropy)


@dataclass(frozen=True)
class Trained:
    head: heads.Head
    network: nn.Module

    @torch.no_grad()
    def nll(self, x: Tensor, t: Tensor) -> float:
        return float(self.head.negative_log_likelihood(self.network(x), t).mean())

    @torch.no_grad()
    def at(self, x: float) -> Distribution:
        """The distribution predicted at one x, of shape ()."""
        return self.head.distribution(self.network(torch.tensor([[x]])))[0]


def train(head: heads.Head) -> Trained:
    """Adam with a rate that falls to 0; one constant scale, where the head has one, is fitted at the end."""
    torch.manual_seed(0)
    x, t = draw(ROWS, seed=1)
    network = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, head.raw_size))
    weight = torch.ones(ROWS)
    with torch.no_grad():
        network[-1].bias.copy_(head.initial_bias(t, weight))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        batch = torch.randint(ROWS, (BATCH,))
        step(network, head, optimizer, Rows(x[batch], t[batch]))
        schedule.step()
    with torch.no_grad():
        return Trained(head.refit(network(x), t, weight), network)


@pytest.fixture(scope="module")
def mixture() -> Trained:
    return train(heads.Mixture(components=5))


@pytest.fixture(scope="module")
def squared_error() -> Trained:
    return train(heads.Gaussian())


def test_the_truth_is_what_this_file_says_of_it() -> None:
    assert roots(0.5) == pytest.approx([0.2096, 0.5, 0.7904], abs=1e-4)
    assert maxima(0.5) == pytest.approx(roots(0.5), abs=1e-4)
    assert len(roots(0.1)) == len(roots(0.9)) == 1
    slope = np.diff(curve(GRID)) > 0
    assert GRID[1:-1][slope[1:] != slope[:-1]] == pytest.approx(FOLDS, abs=1e-4)


def test_the_mixture_is_nats_ahead_and_near_the_best_there_is(mixture: Trained, squared_error: Trained) -> None:
    """The least is −1.66; five seeds were 1.3 to 1.5 ahead of squared error, and 0.05 to 0.15 above the least."""
    fresh = draw(FRESH_ROWS, seed=2)
    reached = mixture.nll(*fresh)
    assert reached < squared_error.nll(*fresh) - 1.0
    # 0.02 for what the mean over fresh rows may be off by chance.
    assert least_nll() - 0.02 < reached < least_nll() + 0.25


def test_one_gaussian_cannot_do_better_by_predicting_its_scale(mixture: Trained) -> None:
    fresh = draw(FRESH_ROWS, seed=2)
    assert mixture.nll(*fresh) < train(heads.Gaussian(scale="predicted")).nll(*fresh) - 0.5


def test_the_mixture_finds_every_branch(mixture: Trained) -> None:
    predicted = mixture.at(0.5)
    assert isinstance(predicted, Mixture)
    modes = predicted.modes[~predicted.modes.isnan()]
    for root in roots(0.5):
        assert float((modes - root).abs().min()) < FOUND


def test_the_mixture_weighs_the_branches_as_the_truth_does(mixture: Trained) -> None:
    """The middle branch, which is less steep, is the likeliest: 0.46, and 0.27 for each of the others."""
    density, predicted = truth(0.5), mixture.at(0.5)
    for low, high in zip((0.0, *FOLDS), (*FOLDS, 1.0), strict=True):
        share = density[(low <= GRID) & (high > GRID)].sum() / density.sum()
        assert float(predicted.cdf(high) - predicted.cdf(low)) == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize("x", [0.38, 0.4, 0.6, 0.62])
def test_squared_error_answers_where_nothing_is(squared_error: Trained, mixture: Trained, x: float) -> None:
    """The mean of several right answers is a wrong one; the mode of the mixture is a right one.

    Not at x = 0.5, where the curve is symmetric and the mean of the three branches is by chance the middle one.
    """
    assert len(maxima(x)) > 1
    answer, mode = float(squared_error.at(x).mean), float(mixture.at(x).mode)
    assert np.abs(maxima(x) - answer).min() > 0.1
    near = np.abs(GRID - answer) < 0.03
    assert truth(x)[near].sum() / truth(x).sum() < 0.02
    assert np.abs(maxima(x) - mode).min() < FOUND


def test_the_highest_density_set_is_three_short_intervals_that_cover_their_share(
    mixture: Trained, squared_error: Trained
) -> None:
    fresh = draw_given(0.5, FRESH_ROWS, seed=3)
    intervals = highest_density(mixture.at(0.5), 0.9)
    low, high = intervals[~intervals.isnan().any(-1)].unbind(-1)
    inside = (fresh.unsqueeze(-1) >= low) & (fresh.unsqueeze(-1) <= high)
    assert len(low) == 3
    assert all(any(a < root < b for a, b in zip(low, high, strict=True)) for root in roots(0.5))
    assert float(inside.any(-1).float().mean()) == pytest.approx(0.9, abs=0.03)
    # One Gaussian has to span all branches to cover as much.
    left, right = squared_error.at(0.5).interval(0.9)
    assert float((high - low).sum()) < 0.5 * float(right - left)
