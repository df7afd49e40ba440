"""Figures that the lectures print (SPEC section G), and the identities they state. Each cites its source."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lastlayer import heads, losses


def _rows(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _near(found: torch.Tensor, printed: object, places: int) -> None:
    """Equal to the printed figures to half a unit of their last place."""
    assert_close(found, torch.as_tensor(printed, dtype=found.dtype), rtol=0, atol=0.5001 * 10**-places)


def test_g1_four_samples_softmax_and_cross_entropy():
    """SPEC G1, source S4 "Cross Entropy Loss with Softmax Example"."""
    scores = _rows((3, 1, -1, -1), (3, 3, 1, 0), (1, 1, 1, 1), (3, 2, 3, -1))
    label = torch.tensor([0, 1, 2, 3])
    softmax = heads.Categorical(classes=4).parameters(scores)["probability"]
    _near(softmax[:3], [[0.85, 0.12, 0.02, 0.02], [0.46, 0.46, 0.06, 0.02], [0.25] * 4], 2)
    # The slide's last row, .42 .16 .42 .01, sums to 1.01: its .16 is .154.
    _near(softmax[3], [0.42, 0.15, 0.42, 0.01], 2)
    # The slide cuts 1.386 to 1.38.
    _near(losses.cross_entropy(scores, label, reduction="none"), [0.16, 0.78, 1.39, 4.87], 2)


def test_g2_log_softmax_with_log_sum_exp_of_4_06():
    """SPEC G2, source S4 "Log Softmax Example": 1 − 4.06 = −3.06 and 4 − 4.06 = −0.06."""
    # The slide keeps two scores and the log-sum-exp; the two scores that are lost share what remains of e^4.06.
    lost = math.log((math.exp(4.06) - math.exp(1) - math.exp(4)) / 2)
    scores = _rows((lost, 1.0, 4.0, lost)).expand(2, 4)
    assert_close(torch.logsumexp(scores, -1), torch.full((2,), 4.06, dtype=torch.float64))
    _near(losses.cross_entropy(scores, torch.tensor([1, 2]), reduction="none"), [3.06, 0.06], 2)


def test_g3_sigmoids_do_not_sum_to_one_and_a_softmax_does():
    """SPEC G3, source S1 "Last Layer Activation Function"."""
    scores = _rows((3.2, -5.7, 0.6))
    sigmoids = heads.MultiLabel(labels=3).parameters(scores)["probability"][0]
    softmax = heads.Categorical(classes=3).parameters(scores)["probability"][0]
    for found, printed, places in zip(sigmoids, (0.96, 0.0033, 0.65), (2, 4, 2), strict=True):
        _near(found, printed, places)
    _near(sigmoids.sum(), 1.61, 2)
    for found, printed, places in zip(softmax, (0.93, 0.00013, 0.069), (2, 5, 3), strict=True):
        _near(found, printed, places)
    assert_close(softmax.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize(
    "output",
    [
        (0.55, 0.02, 0.01, 0.03, 0.01, 0.05, 0.17, 0.01, 0.06, 0.09),
        (0.55, 0.002, 0.001, 0.003, 0.001, 0.04, 0.37, 0.001, 0.012, 0.02),
    ],
)
def test_g4_log_likelihood_cost(output):
    """SPEC G4, source S1 "Log-likelihood": 0.5978 for both, whatever the wrong classes get."""
    # Probabilities that sum to 1 are the softmax of their logarithms.
    scores = _rows(output).log()
    _near(losses.cross_entropy(scores, torch.tensor([0])), 0.5978, 4)
    _near(losses.cross_entropy(scores, torch.nn.functional.one_hot(torch.tensor([0]), 10).double()), 0.5978, 4)


def test_g5_same_accuracy_two_cross_entropies():
    """SPEC G5, source S0: accuracy 2/3 with summed cross-entropy 4.14, and with 1.92."""
    output = _rows((0.1, 0.2, 0.7), (0.3, 0.4, 0.3), (0.3, 0.3, 0.4))
    label = torch.tensor([0, 1, 2])
    assert (output.argmax(-1) == label).double().mean() == pytest.approx(2 / 3)
    _near(losses.cross_entropy(output.log(), label, reduction="sum"), 4.14, 2)
    # The second table is lost from the slide; true-class probabilities .3, .7, .7 give its figure.
    output = _rows((0.3, 0.4, 0.3), (0.2, 0.7, 0.1), (0.1, 0.2, 0.7))
    assert (output.argmax(-1) == label).double().mean() == pytest.approx(2 / 3)
    _near(losses.cross_entropy(output.log(), label, reduction="sum"), 1.92, 2)


_MOUSE = (0.1, 0.4, 0.7, 0.6, 0.3, 0.7, 0.8, 0.9, 0.5, 0.3)
_CAT = (0.5, 0.9, 0.4, 0.8, 0.3, 0.7, 0.2, 0.6, 0.1, 0.5)
_DOG = (0.3, 0.5, 0.2, 0.5, 0.6, 0.8, 0.4, 0.9, 0.2, 0.9)
_ANIMAL = (2, 2, 2, 1, 1, 1, 0, 0, 0, 2)
_PRINTED_LOSS = (0.52, 0.30, 0.70, 0.09, 0.52, 0.15, 0.09, 0.05, 0.30, 0.05)


def test_g6_ten_images_in_log_base_ten():
    """SPEC G6, S2 "Cross-Entropy Example": log base 10 of the true class, on outputs that do not sum to 1."""
    output = torch.tensor([_MOUSE, _CAT, _DOG], dtype=torch.float64).T
    assert ((output.sum(-1) - 1).abs() > 0.05).all()
    # Cross-entropy normalizes what it is given; taking that back leaves the logarithm of the output itself.
    nats = losses.cross_entropy(output.log(), torch.tensor(_ANIMAL), reduction="none") - output.sum(-1).log()
    base_ten = nats / math.log(10)
    # The slide cuts some figures (.0969 to .09) and rounds others (.0458 to .05): all are within a hundredth.
    cut, rounded = (base_ten * 100).floor() / 100, (base_ten * 100).round() / 100
    printed = torch.tensor(_PRINTED_LOSS, dtype=torch.float64)
    assert (((cut - printed).abs() < 1e-9) | ((rounded - printed).abs() < 1e-9)).all()
    # In nats, as the formula beside the table has it, the first would be 1.20.
    assert nats[0] == pytest.approx(-math.log(0.3))


def _learn(loss, weight: float, bias: float, epochs: int) -> list[float]:
    """Outputs of one sigmoid neuron with input 1 and target 0, by gradient descent with rate 0.15."""
    parameters = torch.tensor([weight, bias], dtype=torch.float64, requires_grad=True)
    outputs = []
    for _ in range(epochs + 1):
        raw = parameters.sum().reshape(1)
        outputs.append(torch.sigmoid(raw).item())
        (gradient,) = torch.autograd.grad(loss(raw, torch.zeros(1, dtype=torch.float64)), parameters)
        with torch.no_grad():
            parameters -= 0.15 * gradient
    return outputs


def _quadratic_cost(raw, target):
    """``(y − a)² / 2``."""
    return losses.sigmoid_squared_error(raw, target) / 2


@pytest.mark.parametrize(("weight", "bias", "start"), [(0.6, 0.9, 0.82), (2.0, 2.0, 0.98)])
def test_g7_where_the_neuron_starts(weight, bias, start):
    """SPEC G7, source S1 "Learning"."""
    for loss in (_quadratic_cost, losses.binary_cross_entropy):
        assert _learn(loss, weight, bias, 0)[0] == pytest.approx(start, abs=0.005)


def test_g7_the_quadratic_cost_learns_slowly_from_the_worse_start():
    """SPEC G7, source S1: the more wrong the neuron is, the slower the quadratic cost moves it at first."""
    good, bad = (_learn(_quadratic_cost, *start, 300) for start in ((0.6, 0.9), (2.0, 2.0)))
    # First step: ∂C/∂w = ∂C/∂b = a σ'(z), so the output falls by about 2 · 0.15 · a · σ'(z)².
    assert good[0] - good[1] == pytest.approx(2 * 0.15 * good[0] * (good[0] * (1 - good[0])) ** 2, rel=0.02)
    assert bad[0] - bad[1] == pytest.approx(2 * 0.15 * bad[0] * (bad[0] * (1 - bad[0])) ** 2, rel=0.02)
    # Fifty epochs take the good start half of the way; the bad one has hardly moved in as many.
    assert good[0] - good[50] > 0.3
    assert bad[0] - bad[50] < 0.03
    assert good[300] < 0.12
    assert bad[300] > good[300] + 0.05


def test_g7_cross_entropy_learns_faster_from_the_worse_start():
    """SPEC G7, source S1: ∂C/∂z = a − y, so the more wrong, the larger the step."""
    good, bad = (_learn(losses.binary_cross_entropy, *start, 300) for start in ((0.6, 0.9), (2.0, 2.0)))
    quadratic = _learn(_quadratic_cost, 2.0, 2.0, 300)
    score = [[math.log(output / (1 - output)) for output in curve] for curve in (good, bad, quadratic)]
    # The raw output falls by 2 · 0.15 · a at first: fastest where the neuron is most wrong.
    first = [curve[0] - curve[1] for curve in score]
    assert first[0] == pytest.approx(2 * 0.15 * good[0])
    assert first[1] == pytest.approx(2 * 0.15 * bad[0])
    assert first[1] > first[0] > first[2]
    assert first[1] > 50 * first[2]
    # The output itself: what takes cross-entropy twenty epochs takes the quadratic cost more than 150.
    assert bad[20] < 0.5
    assert quadratic[150] > 0.9
    assert bad[300] < 0.03


def test_a1_two_softmax_scores_are_one_sigmoid():
    """SPEC A1, source S4 "Softmax": softmax(x, 0) = (σ(x), 1 − σ(x)), in value, loss and gradient."""
    score = torch.linspace(-30, 30, 61, dtype=torch.float64).unsqueeze(-1)
    pair = torch.cat([score, torch.zeros_like(score)], -1)
    one, two = heads.Bernoulli(), heads.Categorical(classes=2)
    probability = one.parameters(score)["probability"]
    assert_close(two.parameters(pair)["probability"], torch.stack([probability, torch.sigmoid(-score.squeeze(-1))], -1))
    label = (torch.arange(61) % 2).double()
    # The first of the two scores is the one that is kept: class 0 of the pair is class 1 of the sigmoid.
    index = (1 - label).long()
    assert_close(two.loss(pair, index), one.loss(score, label))
    assert_close(two.loss_and_gradient(pair, index)[1][:, :1], one.loss_and_gradient(score, label)[1])


def test_softmax_responds_to_differences_only():
    """Source S4 "Softmax": softmax(x) = softmax(x + c); the loss and its gradient with it."""
    scores, label = _rows((3, 1, -1, -1), (3, 3, 1, 0)), torch.tensor([0, 1])
    for shift in (-1e6, 1e6):
        assert_close(losses.cross_entropy(scores + shift, label), losses.cross_entropy(scores, label))
    assert_close(
        losses.CrossEntropy().gradient(scores, label).sum(-1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-15
    )


def test_a10_faces_and_backgrounds():
    """SPEC A10, source S2 "Special Cases: WCE": 100K faces and 900K backgrounds, C_n = M / m_n."""
    target = torch.cat([torch.zeros(100_000, dtype=torch.long), torch.ones(900_000, dtype=torch.long)])
    assert_close(losses.class_weights(target, 2), torch.tensor([10.0, 1000 / 900]))


def test_h_the_signs_that_the_documents_lose():
    """SPEC H: cross-entropy has a minus sign, and −log a belongs to y = 1."""
    score = torch.tensor([math.log(4.0)], dtype=torch.float64)  # a = 0.8
    assert losses.binary_cross_entropy(score, torch.ones(1)) == pytest.approx(-math.log(0.8))
    assert losses.binary_cross_entropy(score, torch.zeros(1)) == pytest.approx(-math.log(0.2))
    # Source S1: "y = 1, but a = 0.8" is a small cost, "y = 1, but a = 0.3" a significant one.
    worse = torch.logit(torch.tensor([0.3], dtype=torch.float64))
    assert losses.binary_cross_entropy(worse, torch.ones(1)) > 5 * losses.binary_cross_entropy(score, torch.ones(1))
