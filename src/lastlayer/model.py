"""A fitted model: encoder, network, head and target coding together, as predictions are made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.baselines import Baseline
from lastlayer.heads import Bernoulli, ConstantScaleHead, Head
from lastlayer.metrics import score
from lastlayer.networks import TabularNetwork
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.target_coding import QuantityCoding, TargetCoding
from lastlayer.training import Rows, forward


@dataclass
class Model:
    """Everything that predictions need, and a record of how it came about.

    Attributes:
        encoder: table to features.
        network: features to raw output.
        head: raw output to likelihood, in coded units.
        coding: target to coded units and back.
        target_names: the target's column, or the labels' columns.
        baselines: ``"constant"`` and ``"linear"``, empty before they are fitted.
        record: data, choice, training and validation figures, as plain JSON.
    """

    encoder: TableEncoder
    network: TabularNetwork
    head: Head
    coding: TargetCoding
    target_names: tuple[str, ...]
    baselines: dict[str, Baseline] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def features(self, table: Any) -> Tensor:
        """The encoded table, on the network's device."""
        return torch.from_numpy(self.encoder.transform(table)).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def raw(self, table: Any) -> Tensor:
        """Raw output of every row, float64 on the CPU, shape (n, head.raw_size)."""
        return forward(self.network, self.features(table)).double().cpu()

    def probability(self, table: Any) -> NDArray[np.float64]:
        """Of every class, shape (n, classes), or of every label, shape (n, labels)."""
        raw = self.raw(table)
        if isinstance(self.head, Bernoulli):
            # Both from the logit, so that neither is 1 minus a rounded other.
            raw = torch.cat([-raw, raw], dim=1)
            return torch.sigmoid(raw).numpy()
        return self.head.parameters(raw)["probability"].numpy()

    def centre(self, table: Any) -> NDArray[np.float64]:
        """The mean (or, for a Laplace, the median) of a quantity, in the target's units, shape (n,)."""
        assert isinstance(self.coding, QuantityCoding)
        assert isinstance(self.head, ConstantScaleHead)
        return self.coding.decode(self.head.location(self.raw(table)).numpy())

    def scale(self) -> float:
        """The constant scale of a quantity's distribution, in the target's units."""
        assert isinstance(self.coding, QuantityCoding)
        assert isinstance(self.head, ConstantScaleHead)
        return self.head.scale * self.coding.scale

    def evaluate(self, table: Any, target: NDArray[Any], weight: NDArray[np.float64] | None = None) -> dict[str, Any]:
        """Every figure for the network, the constant and the linear model, on rows that have a target."""
        coded = torch.from_numpy(np.asarray(self.coding.encode(target)))
        rows = Rows(self.features(table).cpu(), coded, None if weight is None else torch.from_numpy(weight))
        return self.score_rows(rows)

    def score_rows(self, rows: Rows) -> dict[str, dict[str, float]]:
        """The same for rows already encoded, on the CPU."""
        weight = rows.ones_or_weight().double().numpy()
        raw = forward(self.network, rows.features.to(self.device)).cpu()
        figures = {"network": score(self.head, self.coding, raw, rows.target, weight)}
        for name, baseline in self.baselines.items():
            figures[name] = score(baseline.head, self.coding, baseline.raw(rows.features), rows.target, weight)
        return figures
