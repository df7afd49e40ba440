"""The options of a network, and the one place where one is built: a perceptron for tables, convolutions for images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lastlayer.checks import InputError, check_choice
from lastlayer.networks.convolutional import ConvolutionalNetwork
from lastlayer.networks.lenet import LeNet
from lastlayer.networks.network import Network
from lastlayer.networks.tabular import ACTIVATIONS, PiecewiseLinear, TabularNetwork

#: By what a model folder calls them.
NETWORKS: dict[str, type[Network]] = {kind.kind: kind for kind in (TabularNetwork, LeNet, ConvolutionalNetwork)}
#: What estimators take for images.
FOR_IMAGES: tuple[str, ...] = ("convolutional", "lenet", "lenet:average")


@dataclass(frozen=True)
class NetworkOptions:
    """The shape of the body.

    Attributes:
        network: of images, one of ``FOR_IMAGES``; ``None`` for ``"convolutional"``, and for tables.
        hidden: of tables, widths of the hidden layers.
        activation: between layers.
        dropout: share of hidden units dropped while training; ``None`` for 0.3 for classes (0.5 below 1000 rows) and
            0 for quantities.
        bins: of tables, piecewise-linear bins per numeric column, 0 for none; ``None`` for 16, and for classes below
            1000 rows no more than one for 40 rows.
        members: of tables, networks of this shape, each with weights of its own, trained side by side and predicted as
            their mixture; 1 for a single one.
        share_weights: whether they share their weight matrices; see :class:`lastlayer.networks.SharedLinear`.
        dropout_members: how many draws of dropout a prediction is the mixture of (Monte Carlo dropout); 0 for none.
        shifts: of images, by how many pixels at most a training batch moves them.
    """

    network: str | None = None
    hidden: Sequence[int] = (256, 256)
    activation: str = "relu"
    dropout: float | None = None
    bins: int | None = None
    members: int = 1
    share_weights: bool = False
    dropout_members: int = 0
    shifts: int = 0

    def __post_init__(self) -> None:
        if self.network is not None:
            check_choice(self.network, FOR_IMAGES, what="network")
        check_choice(self.activation, tuple(ACTIVATIONS), what="activation")
        if any(isinstance(units, bool) or int(units) != units or units < 1 for units in self.hidden):
            raise InputError(f"hidden is {self.hidden!r}; expected widths such as (256, 256).")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout!r}; expected a number in [0, 1), or None.")
        if self.bins is not None and (isinstance(self.bins, bool) or int(self.bins) != self.bins or self.bins < 0):
            raise InputError(f"bins is {self.bins!r}; expected a whole number of 0 or more, or None.")
        for name, least in (("members", 1), ("dropout_members", 0), ("shifts", 0)):
            count = getattr(self, name)
            if isinstance(count, bool) or int(count) != count or count < least:
                raise InputError(f"{name} is {count!r}; expected a whole number of {least} or more.")

    def build(
        self, features: NDArray[np.float32], *, outputs: int, numeric: int, classes: bool, few_rows: bool
    ) -> Network:
        """The network for such features, its weights drawn from PyTorch's random state.

        Args:
            features: of all rows; with more axes than two they are images.
            outputs: the head's ``raw_size``.
            numeric: how many of a table's first columns are numeric.
            classes: whether the target is classes or labels, and not a quantity.
            few_rows: whether the network is to be held back harder.

        Raises:
            InputError: if the images are too small, or Monte Carlo dropout has no dropout to draw from.
        """
        dropout = self.dropout
        if dropout is None:
            dropout = (0.5 if few_rows else 0.3) if classes else 0.0
        if self.dropout_members and not dropout:
            raise InputError(
                f"dropout_members is {self.dropout_members}, and the network has no dropout to draw from. Add dropout, "
                f"such as dropout=0.1."
            )
        if features.ndim > 2:
            _, channels, height, width = features.shape
            name, _, pooling = (self.network or FOR_IMAGES[0]).partition(":")
            shape = {"height": height, "width": width, "channels": channels, "outputs": outputs}
            more = {"pooling": pooling} if pooling else {}
            return NETWORKS[name](**shape, activation=self.activation, dropout=dropout, shifts=self.shifts, **more)
        bins = self.bins
        if bins is None:
            bins = min(16, len(features) // 40) if classes and few_rows else 16
        return TabularNetwork(
            inputs=features.shape[1],
            numeric=numeric,
            outputs=outputs,
            hidden=self.hidden,
            activation=self.activation,
            dropout=dropout,
            codes=PiecewiseLinear.learn(features[:, :numeric], bins),
            members=None if self.members == 1 else self.members,
            shared=self.share_weights and self.members > 1,
        )


def network_to_dict(network: Network) -> dict[str, Any]:
    """What :func:`network_from_dict` makes a network of this shape from, as plain JSON."""
    return {"kind": network.kind, **network.spec}


def network_from_dict(description: dict[str, Any]) -> Network:
    """A network of the shape described, its weights still to be loaded.

    Raises:
        InputError: for a kind that does not exist.
    """
    spec = dict(description)
    kind = spec.pop("kind")
    check_choice(kind, tuple(NETWORKS), what="the kind of network")
    return NETWORKS[kind].from_spec(spec)
