"""The network for tables: numeric columns also as piecewise-linear codes, then a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lastlayer.activations import Activation, Maxout, modules
from lastlayer.checks import InputError, check_choice
from lastlayer.networks.chain import Tape, backpropagate, can_be_written_out, is_watched, record
from lastlayer.networks.dropout import Dropout
from lastlayer.networks.linear import Linear
from lastlayer.networks.network import Network
from lastlayer.networks.shared_linear import SharedLinear

#: Every activation of the catalog, by the name that networks take.
ACTIVATIONS: dict[str, type[Activation]] = modules()


def hidden_layer(linear: Callable[[int, int], nn.Module], inputs: int, units: int, activation: str) -> list[nn.Module]:
    """A linear layer and its activation, or one maxout layer, which is both."""
    module = ACTIVATIONS[activation]
    return [Maxout(inputs, units)] if module is Maxout else [linear(inputs, units), module()]


class PiecewiseLinear(nn.Module):
    """Numeric columns as the share of every bin that lies below the value.

    A column with edges e₀ < … < e_B becomes B numbers ``clip((x − e_b) / (e_{b+1} − e_b), 0, 1)``: a linear layer
    behind it is then a piecewise-linear function of the column, bent at the quantiles, where the data are.

    Shapes: ``(n, width)`` to ``(n, codes)``, with as many codes as there are bins in all columns together.

    Args:
        columns: which input column each code reads, shape (codes,).
        left: the left edge of each code's bin, shape (codes,).
        width: the width of each code's bin, positive, shape (codes,).

    Reference: Y. Gorishniy, I. Rubachev, A. Babenko, On embeddings for numerical features in tabular deep learning
    (NeurIPS 2022).
    """

    columns: Tensor
    left: Tensor
    width: Tensor

    def __init__(self, columns: Tensor, left: Tensor, width: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)
        self.register_buffer("left", left)
        self.register_buffer("width", width)

    @classmethod
    def learn(cls, numeric: NDArray[np.float32], bins: int) -> PiecewiseLinear:
        """Bins between the quantiles of every column; a column of fewer than three distinct edges gets none."""
        columns, left, width = [], [], []
        for column in range(numeric.shape[1]):
            edges = np.unique(np.quantile(numeric[:, column], np.linspace(0.0, 1.0, bins + 1)).astype(np.float32))
            if len(edges) < 3:
                continue
            columns += [column] * (len(edges) - 1)
            left += edges[:-1].tolist()
            width += np.diff(edges).tolist()
        return cls(
            torch.tensor(columns, dtype=torch.long),
            torch.tensor(left, dtype=torch.float32),
            torch.tensor(width, dtype=torch.float32),
        )

    def forward(self, numeric: Tensor) -> Tensor:
        return ((numeric.index_select(1, self.columns) - self.left) / self.width).clamp(0.0, 1.0)


class TabularNetwork(Network):
    """A multilayer perceptron over encoded columns, with piecewise-linear codes of the numeric ones beside them.

    Shapes: features ``(n, inputs)``, of which the first ``numeric`` are numeric columns; raw output ``(n, outputs)``,
    or ``(members, n, outputs)`` from several networks side by side.

    Args:
        inputs: width of the encoded table.
        numeric: how many of its first columns are numeric.
        outputs: the head's ``raw_size``.
        hidden: widths of the hidden layers.
        activation: a key of ``ACTIVATIONS``.
        dropout: share of hidden units dropped while training.
        codes: the piecewise-linear codes.
        members: how many networks of this shape side by side; ``None`` for a single one.
        shared: whether they share their weight matrices, but for the last; see :class:`SharedLinear`.

    Raises:
        InputError: for an activation that is not known, or cannot be had by several members.
    """

    kind: ClassVar[str] = "tabular"

    def __init__(
        self,
        *,
        inputs: int,
        numeric: int,
        outputs: int,
        hidden: Sequence[int],
        activation: str,
        dropout: float,
        codes: PiecewiseLinear,
        members: int | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        check_choice(activation, tuple(ACTIVATIONS), what="activation")
        if members is not None and ACTIVATIONS[activation].facts.parameters is not None:
            # Its parameters have no axis for members.
            raise InputError(
                f"activation {activation!r} has parameters of its own, and an ensemble needs one that has none, such "
                f"as 'relu', 'silu' or 'tanh'."
            )
        self.spec = {
            "inputs": inputs,
            "numeric": numeric,
            "outputs": outputs,
            "hidden": list(hidden),
            "activation": activation,
            "dropout": dropout,
            "codes": len(codes.columns),
            "members": members,
            "shared": shared,
        }
        self.members = members
        #: Whether what one member learns moves no other's weights.
        self.members_are_independent = not shared
        self.numeric = numeric
        self.codes = codes
        layers: list[nn.Module] = []
        width = inputs + len(codes.columns)
        for place, units in enumerate(hidden):
            if shared and members is not None:
                linear: Callable[..., nn.Module] = partial(SharedLinear, members=members, diverse=place == 0)
            else:
                linear = partial(Linear, members=members)
            layers += hidden_layer(linear, width, units, activation)
            if dropout > 0:
                layers.append(Dropout(dropout))
            width = units
        self.body = nn.Sequential(*layers)
        self.last = Linear(width, outputs, members=members)

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> TabularNetwork:
        shape = dict(spec)
        codes = shape.pop("codes")
        empty = PiecewiseLinear(torch.zeros(codes, dtype=torch.long), torch.zeros(codes), torch.ones(codes))
        return cls(**shape, codes=empty)

    def forward(self, features: Tensor) -> Tensor:
        raw: Tensor = self.last(self.body(self._inputs(features)))
        return raw

    @property
    def writes_backward(self) -> bool:
        """Whether :meth:`record` and :meth:`backpropagate` do what autograd would at this moment."""
        return not is_watched(self) and all(map(can_be_written_out, self._layers))

    def record(self, features: Tensor) -> tuple[Tensor, Tape]:
        """Raw output, and the tape that :meth:`backpropagate` reads; no autograd."""
        return record(self._layers, self._inputs(features))

    def backpropagate(self, tape: Tape, gradient: Tensor) -> None:
        """Sets the ``grad`` of every parameter, given the gradient of the raw output."""
        backpropagate(self._layers, tape, gradient)

    def before_dropout(self, features: Tensor) -> tuple[Tensor, tuple[nn.Module, ...]]:
        """What the layers before the first dropout make of the features, and the layers from that dropout on.

        The first is the same for every draw of the dropout. Without dropout no layer is left.
        """
        x, layers = self._inputs(features), self._layers
        for place, layer in enumerate(layers):
            if isinstance(layer, Dropout) and layer.dropped:
                return x, layers[place:]
            x = layer(x)
        return x, ()

    @property
    def _layers(self) -> tuple[nn.Module, ...]:
        return (*self.body, self.last)

    def _inputs(self, features: Tensor) -> Tensor:
        if self.codes.columns.numel() == 0:
            return features
        return torch.cat([features, self.codes(features[:, : self.numeric])], dim=1)
