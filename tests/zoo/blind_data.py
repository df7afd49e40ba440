"""Made data of other domains for the blind set-ups: series, tokens, colored images, masks, pairs, wide tables."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data import Split, standardized


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parted(x: Tensor, y: Tensor, share: float = 0.75) -> Split:
    """The first rows to train on, the rest to validate on: made rows are in random order, windows in that of time."""
    first = int(share * len(y))
    return (x[:first], y[:first]), (x[first:], y[first:])


@cache
def _series(steps: int) -> Tensor:
    """A noisy map of Hénon's kind on a season of twelve steps, standardized."""
    random = _random(11)
    noise = 0.03 * torch.randn(steps, generator=random)
    values = [0.1, 0.2]
    for step in range(2, steps):
        # Bounded, so that noise cannot throw the map out of its basin.
        values.append(max(-1.5, min(1.5, 1 - 1.2 * values[-1] ** 2 + 0.3 * values[-2] + float(noise[step]))))
    series = torch.tensor(values) + 0.5 * torch.sin(2 * math.pi * torch.arange(steps) / 12)
    return (series - series.mean()) / series.std()


def windows(rows: int = 1200, *, length: int = 16, ahead: int = 1) -> Split:
    """Windows (n, 1, length) of a series and the next values (n, ahead)."""
    cut = _series(rows + length + ahead).unfold(0, length + ahead, 1)[:rows]
    return parted(cut[:, None, :length].contiguous(), cut[:, length:].contiguous())


def sensors(rows: int = 1000, *, length: int = 20) -> Split:
    """Three channels (n, 3, length) with a bump in one of them; which one, as class."""
    random = _random(12)
    x = 0.5 * torch.randn(rows, 3, length, generator=random)
    y = torch.randint(3, (rows,), generator=random)
    start = torch.randint(length - 6, (rows,), generator=random)
    time = torch.arange(length)
    bump = ((time >= start[:, None]) & (time < start[:, None] + 6)).float() * torch.sin(time - start[:, None])
    x[torch.arange(rows), y] += 2 * bump
    return parted(x / x.std(), y)


def documents(rows: int = 1200, *, words: int = 60, length: int = 12, classes: int = 4) -> Split:
    """Token numbers (n, length), 0 for padding; the class whose words occur most."""
    random = _random(13)
    x = torch.randint(1, words, (rows, length), generator=random)
    y = torch.randint(classes, (rows,), generator=random)
    own = 1 + y[:, None] * 8 + torch.randint(8, (rows, length), generator=random)
    x = torch.where(torch.rand(rows, length, generator=random) < 0.4, own, x)
    lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=random)
    return parted(x.masked_fill(torch.arange(length) >= lengths, 0), y)


def sentences(rows: int = 600, *, words: int = 20, length: int = 12) -> Split:
    """Chains of tokens (n, length), each likely to be followed by one of two; the same a step later as target."""
    random = _random(14)
    following = torch.randint(words, (words, 2), generator=random)
    chain = [torch.randint(words, (rows,), generator=random)]
    for _ in range(length):
        likely = following[chain[-1], torch.randint(2, (rows,), generator=random)]
        other = torch.randint(words, (rows,), generator=random)
        chain.append(torch.where(torch.rand(rows, generator=random) < 0.85, likely, other))
    tokens = torch.stack(chain, 1)
    return parted(tokens[:, :-1], tokens[:, 1:].contiguous())


def pictures(rows: int = 600, *, size: int = 16) -> Split:
    """Colored stripes (n, 3, size, size), standardized; upright or level, reddish or bluish: four classes."""
    random = _random(15)
    y = torch.randint(4, (rows,), generator=random)
    phase = 6.3 * torch.rand(rows, 1, 1, generator=random)
    wave = torch.sin(1.3 * torch.arange(size).float() + phase)
    stripes = torch.where((y % 2 == 0)[:, None, None], wave.expand(rows, size, size), wave.mT.expand(rows, size, size))
    tint = torch.where((y < 2)[:, None], torch.tensor([1.0, 0.5, 0.2]), torch.tensor([0.2, 0.5, 1.0]))
    x = tint[:, :, None, None] * stripes[:, None] + 0.7 * torch.randn(rows, 3, size, size, generator=random)
    return parted((x - x.mean()) / x.std(), y)


def discs(rows: int = 400, *, size: int = 16, radius: tuple[float, float] = (3.0, 5.0)) -> Split:
    """Pictures (n, 3, size, size) with one bright disc; its mask (n, 1, size, size) of 0.0 and 1.0."""
    random = _random(16)
    center = 4 + (size - 9) * torch.rand(rows, 2, 1, 1, generator=random)
    reach = radius[0] + (radius[1] - radius[0]) * torch.rand(rows, 1, 1, generator=random)
    place = torch.arange(size).float()
    mask = (((place[:, None] - center[:, 0]) ** 2 + (place - center[:, 1]) ** 2) < reach**2).float()[:, None]
    tint = torch.tensor([1.0, 0.6, -0.6])[:, None, None]
    x = 1.2 * tint * mask + 0.8 * torch.randn(rows, 3, size, size, generator=random)
    return parted((x - x.mean()) / x.std(), mask)


def _nonlinear(x: Tensor) -> Tensor:
    return torch.sin(1.5 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * x[:, 3].abs() - 0.4


def table(rows: int = 1200, *, columns: int = 8, noise: float = 0.2) -> Split:
    """Standard normal columns and a curved function of four of them (n, 1), about standardized."""
    random = _random(17)
    x = torch.randn(rows, columns, generator=random)
    y = (_nonlinear(x) + noise * torch.randn(rows, generator=random)) / 1.25
    return parted(x, y[:, None])


def robots(rows: int = 1200) -> Split:
    """Eight columns and three targets (n, 3) about standardized."""
    random = _random(18)
    x = torch.randn(rows, 8, generator=random)
    y = torch.stack([_nonlinear(x), torch.cos(x[:, 4]) * 2 - 1.2, x[:, 5] * torch.tanh(x[:, 6])], 1)
    return parted(x, y + 0.1 * torch.randn(y.shape, generator=random))


def lifetimes(rows: int = 1200) -> Split:
    """Six columns; times to an event in days, positive, and 1.0 where the event was seen, as (n, 2)."""
    random = _random(19)
    x = torch.randn(rows, 6, generator=random)
    scale = torch.exp(0.8 * x[:, 0] - 0.6 * x[:, 1].abs() + 0.5 * x[:, 2] * x[:, 3])
    time = scale * (-torch.log(torch.rand(rows, generator=random).clamp(min=1e-4))) ** (1 / 1.5) + 1e-3
    end = 4 * torch.rand(rows, generator=random) + 0.5
    return parted(x, torch.stack([torch.minimum(time, end), (time <= end).float()], 1))


def pairs(rows: int = 1200) -> Split:
    """Two rows of eight columns each (n, 2, 8) around five places; 1.0 where both belong to the same."""
    random = _random(20)
    places = 1.2 * torch.randn(5, 8, generator=random)
    first, other = (torch.randint(5, (rows,), generator=random) for _ in range(2))
    second = torch.where(torch.rand(rows, generator=random) < 0.4, first, other)
    x = torch.stack([places[first], places[second]], 1) + 0.7 * torch.randn(rows, 2, 8, generator=random)
    return parted(x / x.std(), (first == second).float())


def duels(rows: int = 1200) -> Split:
    """Two offers (n, 2, 6); 1.0 where the first is preferred, -1.0 where the second is."""
    random = _random(21)
    x = torch.randn(rows, 2, 6, generator=random)
    worth = _nonlinear(x.reshape(-1, 6)).reshape(rows, 2) + 0.2 * torch.randn(rows, 2, generator=random)
    return parted(x, torch.sign(worth[:, 0] - worth[:, 1]))


def genes(rows: int = 80, columns: int = 240) -> Split:
    """Few rows, many columns driven by three factors; 0.0 and 1.0 by the sign of one."""
    random = _random(22)
    factors = torch.randn(rows, 3, generator=random)
    x = factors @ torch.randn(3, columns, generator=random) + 1.5 * torch.randn(rows, columns, generator=random)
    return standardized(parted(x, (factors[:, 0] + 0.3 * torch.randn(rows, generator=random) > 0).float()))


def shops(rows: int = 1500) -> Split:
    """Four categories of ten levels as 40 columns of 0 and 1, all levels in use; a target (n, 1) with interactions."""
    random = _random(23)
    level = torch.randint(10, (rows, 4), generator=random)
    effect = torch.randn(4, 10, generator=random)
    parts = torch.stack([effect[place, level[:, place]] for place in range(4)], 1)
    y = parts[:, 0] + parts[:, 1] * parts[:, 2] + 0.5 * parts[:, 3] + 0.2 * torch.randn(rows, generator=random)
    return parted(F.one_hot(level, 10).float().flatten(1), ((y - y.mean()) / y.std())[:, None])


def bags(rows: int = 900, words: int = 100) -> Split:
    """Counts of words, most of them 0; three topics."""
    random = _random(24)
    y = torch.randint(3, (rows,), generator=random)
    rate = 0.15 + 0.5 * (torch.rand(3, words, generator=random) > 0.8)
    return parted(torch.poisson(rate[y], generator=random), y)


def prices(rows: int = 1200) -> Split:
    """Seven columns; prices around 200 000 (n, 1), log-normal."""
    random = _random(25)
    x = torch.randn(rows, 7, generator=random)
    return parted(x, torch.exp(12.2 + 0.4 * _nonlinear(x) + 0.1 * torch.randn(rows, generator=random))[:, None])


def grades(rows: int = 1200, *, levels: int = 5) -> Split:
    """Eight columns; an ordered class from 0."""
    (x, y), (x_validation, y_validation) = table(rows)
    cuts = torch.linspace(-0.9, 0.9, levels - 1)
    return (x, torch.bucketize(y[:, 0], cuts)), (x_validation, torch.bucketize(y_validation[:, 0], cuts))


def events(rows: int = 1200) -> Split:
    """Five columns; counts (n, 1) with more zeros than Poisson's."""
    random = _random(26)
    x = torch.randn(rows, 5, generator=random)
    y = torch.poisson(torch.exp(0.7 + 0.5 * torch.sin(2 * x[:, 0]) + 0.4 * x[:, 1]), generator=random)
    none = torch.rand(rows, generator=random) < torch.sigmoid(1.5 * x[:, 2] - 1)
    return parted(x, y.masked_fill(none, 0)[:, None])


def wave(rows: int = 1200) -> Split:
    """Places in a square (n, 2) and the height there (n, 1)."""
    random = _random(27)
    x = 2 * torch.rand(rows, 2, generator=random) - 1
    return parted(x, (torch.sin(5 * x[:, :1]) * torch.cos(4 * x[:, 1:])) / 0.5)


def clouds(rows: int = 900, points: int = 16) -> Split:
    """Points on a noisy ring or in a disc (n, points, 2); which one."""
    random = _random(28)
    y = (torch.rand(rows, generator=random) < 0.5).float()
    angle = 2 * math.pi * torch.rand(rows, points, generator=random)
    inside = 1.4 * torch.rand(rows, points, generator=random).sqrt()
    reach = torch.where(y[:, None] > 0, 1 + 0.1 * torch.randn(rows, points, generator=random), inside)
    return parted(torch.stack([reach * angle.cos(), reach * angle.sin()], 2) * 1.4, y)
