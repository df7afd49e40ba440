"""A fitted model: encoder, network, head and target coding together, as predictions are made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.baselines import Baseline
from lastlayer.calibration import calibrated
from lastlayer.distributions import Bernoulli, Categorical, Distribution
from lastlayer.heads import Head
from lastlayer.metrics import score
from lastlayer.networks import Network
from lastlayer.preprocessing import Encoder
from lastlayer.preprocessing.target_coding import ClassCoding, QuantityCoding, TargetCoding
from lastlayer.training import Rows, forward, rows_at_once
from lastlayer.uncertainty import (
    State,
    class_probabilities,
    correct_class_logits,
    correct_label_logits,
    distance_from_middle,
    dropout_members,
)


@dataclass
class Model:
    """Everything that predictions need, and a record of how it came about.

    Attributes:
        encoder: inputs, a table or images, to features.
        network: features to raw output.
        head: raw output to likelihood, in coded units.
        coding: target to coded units and back.
        target_names: the target's column, or the labels' columns.
        baselines: ``"constant"`` and ``"linear"``, empty before they are fitted.
        class_weight: how much each class counted in training, in the order of the classes; ``None`` for alike. It rules
            which class is decided for, and is undone in probabilities.
        dropout_members: how many draws of dropout a prediction is the mixture of; 0 for a network without chance.
        calibration: what mends the predicted distributions, if anything.
        conformal_scores: of rows held out, how far from the middle of its distribution each target lay; see
            :meth:`conformal_scores_of`.
        record: data, choice, training and validation figures, as plain JSON.
    """

    encoder: Encoder
    network: Network
    head: Head
    coding: TargetCoding
    target_names: tuple[str, ...]
    baselines: dict[str, Baseline] = field(default_factory=dict)
    class_weight: tuple[float, ...] | None = None
    dropout_members: int = 0
    calibration: State | None = None
    conformal_scores: tuple[float, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

    def features(self, inputs: Any) -> Tensor:
        """The encoded inputs, on the network's device."""
        return torch.from_numpy(self.encoder.transform(inputs)).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def raw_of(self, features: Tensor) -> Tensor:
        """Raw output, float64 on the CPU: (n, head.raw_size), or with a first axis of members."""
        features = features.to(self.device)
        if self.dropout_members:
            rows = rows_at_once(features)
            return dropout_members(self.network, features, self.dropout_members, seed=0, batch_size=rows).double().cpu()
        return forward(self.network, features).double().cpu()

    def raw(self, inputs: Any) -> Tensor:
        """Raw output of every row, float64 on the CPU, the mean over members if there are any: (n, head.raw_size)."""
        raw = self.raw_of(self.features(inputs))
        return raw.mean(0) if self.has_members else raw

    @property
    def has_members(self) -> bool:
        """Whether raw output has a first axis of members."""
        return self.network.members is not None or self.dropout_members > 0

    def members(self, inputs: Any) -> Distribution:
        """What each member predicts, in the target's units, members along the first axis; not calibrated.

        A model without members is one of one.
        """
        raw = self.raw_of(self.features(inputs))
        raw = raw if self.has_members else raw.unsqueeze(0)
        return self._in_units(self._unweighted(self.head.distribution(raw)))

    def distribution(self, inputs: Any) -> Distribution:
        """What is predicted for every row, in the target's units: of members the mixture, calibrated."""
        return self.distribution_of(self.raw_of(self.features(inputs)))

    def distribution_of(self, raw: Tensor, *, calibrate: bool = True) -> Distribution:
        """The same from raw output."""
        distribution = self._unweighted(self.head.distribution(raw))
        distribution = self._in_units(distribution.mixed() if self.has_members else distribution)
        return calibrated(self.calibration, distribution) if calibrate else distribution

    def probability(self, inputs: Any) -> NDArray[np.float64]:
        """Of every class, shape (n, classes), or of every label, shape (n, labels)."""
        probability: NDArray[np.float64] = class_probabilities(self.distribution(inputs)).numpy()
        return probability if isinstance(self.coding, ClassCoding) else probability[..., 1]

    def decide(self, inputs: Any) -> NDArray[np.int64]:
        """The class decided for, by its index, shape (n,)."""
        return _best(self.decision_scores(inputs))

    def decision_scores(self, inputs: Any) -> Tensor:
        """What classes are decided by; see :meth:`decision_scores_of`."""
        return self.decision_scores_of(self.distribution(inputs))

    def decision_scores_of(self, distribution: Distribution) -> Tensor:
        """The logits of predicted classes or labels, with classes weighted as in training.

        Of two classes (and of every label) it is the logit of the second, above 0 where that is decided for, shape (n,)
        or (n, labels); of more classes one for each, of which the largest is decided for, shape (n, classes).
        """
        weight = None if self.class_weight is None else torch.tensor(self.class_weight, dtype=torch.float64)
        if isinstance(distribution, Bernoulli):
            logit = distribution.logit
            return logit if weight is None else correct_label_logits(logit, weight[0], weight[1])
        assert isinstance(distribution, Categorical)
        logits = distribution.logits
        if weight is not None:
            logits = correct_class_logits(logits, 1.0 / weight)
        return logits[..., 1] - logits[..., 0] if logits.shape[-1] == 2 else logits

    def conformal_scores_of(self, distribution: Distribution, target: Tensor) -> Tensor:
        """How ill each target fits its distribution: the score that conformal intervals and sets are made by.

        Of a class it is the probability of the others; of a quantity the distance of its share ``F(y)`` from ½.
        """
        if isinstance(self.coding, QuantityCoding):
            return distance_from_middle(distribution, target.double())
        probability = class_probabilities(distribution)
        return 1.0 - probability.gather(-1, target.long().unsqueeze(-1)).squeeze(-1)

    def evaluate(self, inputs: Any, target: NDArray[Any], weight: NDArray[np.float64] | None = None) -> dict[str, Any]:
        """Every figure for the network, the constant and the linear model, on rows that have a target."""
        coded = torch.from_numpy(np.asarray(self.coding.encode(target)))
        rows = Rows(self.features(inputs).cpu(), coded, None if weight is None else torch.from_numpy(weight))
        return self.score_rows(rows)

    def score_rows(self, rows: Rows) -> dict[str, dict[str, float]]:
        """The same for rows already encoded, on the CPU."""
        weight = None if rows.weight is None else rows.weight.double().numpy()
        target = self.own_units(self.head.judged(rows.target))
        predicted = {"network": self.distribution_of(self.raw_of(rows.features))}
        for name, baseline in self.baselines.items():
            # Its classes were weighted as the network's.
            distribution = self._unweighted(baseline.head.distribution(baseline.raw(rows.features).double()))
            predicted[name] = self._in_units(distribution)
        figures = {}
        for name, distribution in predicted.items():
            chosen = None if self.class_weight is None else _best(self.decision_scores_of(distribution))
            figures[name] = score(distribution, self.coding, target, weight, chosen=chosen)
        return figures

    def own_units(self, target: Tensor) -> Tensor:
        """A coded target in the units of the predicted distribution."""
        if isinstance(self.coding, QuantityCoding):
            return target.double() * self.coding.scale + self.coding.shift
        return target

    def _unweighted(self, distribution: Distribution) -> Distribution:
        """What a network trained with class weights predicts, as one trained without would."""
        if self.class_weight is None:
            return distribution
        weight = torch.tensor(self.class_weight, dtype=torch.float64)
        if isinstance(distribution, Bernoulli):
            return Bernoulli(correct_label_logits(distribution.logit, weight[1], weight[0]))
        assert isinstance(distribution, Categorical)
        return Categorical(correct_class_logits(distribution.logits, weight))

    def _in_units(self, distribution: Distribution) -> Distribution:
        if isinstance(self.coding, QuantityCoding) and (self.coding.shift, self.coding.scale) != (0.0, 1.0):
            return distribution.affine(self.coding.shift, self.coding.scale)
        return distribution


def _best(scores: Tensor) -> NDArray[np.int64]:
    """The index of the class decided for, from decision scores."""
    chosen = (scores > 0).long() if scores.dim() == 1 else scores.argmax(-1)
    index: NDArray[np.int64] = chosen.numpy()
    return index
