"""What the tests of the likelihoods with named parameters share: the losses, other options of theirs, raw outputs."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch

from lastlayer import losses
from lastlayer.losses.location_scale import MINIMUM_SCALE
from loss_properties import example, random

VARIANTS = [
    losses.StudentTNLL(degrees_of_freedom=4.0),
    losses.StudentTNLL(degrees_of_freedom=1.0, minimum_scale=0.1),
    losses.StudentTNLL(degrees_of_freedom=1e6),
    losses.LogNormalNLL(minimum_scale=0.1),
    losses.GammaNLL(minimum_scale=0.1),
    losses.BetaNLL(margin=0.1, minimum_scale=0.1),
    losses.NegativeBinomialNLL(minimum_scale=0.1),
    losses.Quantiles(levels=(0.5,)),
    losses.Quantiles(levels=(0.9, 0.95)),
    losses.MixtureNLL(family="student_t", components=3),
    losses.MixtureNLL(family="student_t", degrees_of_freedom=2.5),
    losses.MixtureNLL(family="logistic"),
]
NAMES = (
    "student_t_nll",
    "log_normal_nll",
    "gamma_nll",
    "beta_nll",
    "negative_binomial_nll",
    "cumulative_logit_nll",
    "quantiles",
)
CATALOG = losses.catalog()


def sized_example(loss, n=24):
    """An example of the right size: the facts' own is for the default options."""
    raw, target = example(loss, n)
    size = raw.shape[-1]
    if loss.facts.name == "quantiles":
        size = len(loss.levels)
    elif loss.facts.name == "student_t_nll" and loss.degrees_of_freedom is not None:
        size = 2
    return raw[:, :size].contiguous(), target


def scale_by_numpy(raw):
    """By NumPy: log(1 + e^r) plus the floor."""
    return np.logaddexp(0, raw) + MINIMUM_SCALE


def grid(*ranges, n=400, seed=0):
    """Raw outputs drawn evenly from these ranges."""
    share = torch.rand(n, len(ranges), dtype=torch.float64, generator=random(seed))
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    return low + share * (high - low)


def negative_binomial_by_scipy(raw, y):
    k = scale_by_numpy(raw[:, 1]) ** -2
    return -scipy.stats.nbinom.logpmf(y, k, k / (k + np.exp(raw[:, 0])))
