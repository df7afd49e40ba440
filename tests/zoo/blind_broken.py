"""Broken set-ups, output, target and loss; written without a look at how the doctor judges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import blind_data as made
from zoo.blind_healthy import of_each_token
from zoo.blind_healthy_images import overlap
from zoo.blind_networks import Attentive, Forecaster, Language, Painter, Reader, Recurrent, adam, color_conv
from zoo.data import digits, with_target
from zoo.networks import mlp
from zoo.setup import Case, broken_blind


@broken_blind("softmax_before_cross_entropy")
def attention_that_returns_probabilities() -> Case:
    class Net(Attentive):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens).softmax(dim=-1)

    network = Net()
    return Case(network, nn.CrossEntropyLoss(label_smoothing=0.05), *made.documents(), optimizer=adam(network))


@broken_blind("softmax_before_cross_entropy")
def student_made_soft_before_the_hard_term() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        soft = F.softmax(raw / 2, dim=1)
        taught = F.softmax(5 * F.one_hot(target, 10).float() / 2, dim=1)
        return 0.1 * F.kl_div(soft.log(), taught, reduction="batchmean") + F.cross_entropy(soft, target)

    network = mlp([64, 32, 10])
    return Case(network, loss, *digits(), optimizer=adam(network))


@broken_blind("sigmoid_before_logit_loss")
def mask_between_zero_and_one_as_logit() -> Case:
    class Net(Painter):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(x))

    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))
    return Case(Net(), loss, *made.discs(), batch_size=32, epochs=4)


@broken_blind("sigmoid_before_logit_loss")
def similarity_between_zero_and_one_as_logit() -> Case:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.last = mlp([8, 48, 16]), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.encoder(x).unbind(1)
            return F.sigmoid(self.last((first - second).abs())).flatten()

    return Case(Siamese(), F.binary_cross_entropy_with_logits, *made.pairs())


@broken_blind("log_of_no_probability")
def focal_loss_of_scores() -> Case:
    def focal(raw: Tensor, target: Tensor) -> Tensor:
        p = raw.clamp(1e-6, 1 - 1e-6)
        hit = torch.where(target > 0, p, 1 - p)
        return (-((1 - hit) ** 2) * hit.log()).mean()

    network = Painter()
    return Case(network, focal, *made.discs(), batch_size=32, epochs=3)


@broken_blind("log_of_no_probability")
def grades_by_cuts_in_disorder() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.cuts = mlp([8, 32, 1]), nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            below = torch.sigmoid(self.cuts - self.body(x))
            edge = torch.zeros(len(x), 1)
            return torch.cat([below, edge + 1], dim=1) - torch.cat([edge, below], dim=1)

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return -torch.log(raw.gather(1, target[:, None]).squeeze(1)).mean()

    return Case(Net(), loss, *made.grades(), epochs=2)


@broken_blind("log_of_no_probability")
def clouds_into_plain_cross_entropy() -> Case:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.all = mlp([2, 32, 24]), nn.Linear(24, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.all(self.each(x).amax(dim=1)).squeeze(1)

    return Case(Points(), F.binary_cross_entropy, *made.clouds(), epochs=2)


@broken_blind("log_softmax_missing")
def scores_of_the_next_token_into_nll() -> Case:
    return Case(Language(), lambda raw, y: F.nll_loss(raw.mT, y), *made.sentences(), epochs=3)


@broken_blind("log_softmax_missing")
def student_without_the_logarithm() -> Case:
    # The teacher is softened, the student forgotten.
    parts = with_target(digits(), lambda y: F.softmax(4 * F.one_hot(y, 10).float(), dim=1))
    loss = nn.KLDivLoss(reduction="batchmean")
    return Case(mlp([64, 32, 10], nn.GELU), loss, *parts, epochs=4)


@broken_blind("log_softmax_missing")
def probabilities_of_documents_into_nll() -> Case:
    network = nn.Sequential(Reader(), nn.Softmax(dim=-1))
    return Case(network, nn.NLLLoss(), *made.documents(), optimizer=adam(network))


@broken_blind("link_applied_twice")
def sigmoid_in_the_forward_and_in_the_loss() -> Case:
    class Net(Painter):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sigmoid()

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        mask = torch.sigmoid(raw)
        both = (mask * target).sum((1, 2, 3))
        dice = (2 * both + 1) / (mask.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy(mask, target) + 1 - dice.mean()

    return Case(Net(), loss, *made.discs(), batch_size=32, epochs=4)


@broken_blind("link_applied_twice")
def exponential_of_an_exponential_rate() -> Case:
    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([5, 32, 1], nn.Tanh)

        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(self.body(x))

    return Case(Rate(), nn.PoissonNLLLoss(), *made.events(), epochs=8)


@broken_blind("relu_before_signed_target")
def forecast_cut_off_at_zero() -> Case:
    class Net(Forecaster):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            x = self.second(x).relu()
            return self.last(x.flatten(1)).relu()

    return Case(Net(), nn.HuberLoss(), *made.windows(), epochs=8)


@broken_blind("relu_before_signed_target")
def one_block_too_many_with_its_activation() -> Case:
    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())

    network = nn.Sequential(block(8, 48), block(48, 48), block(48, 3))
    return Case(network, nn.MSELoss(), *made.robots(), optimizer=adam(network), epochs=8)


@broken_blind("relu_before_signed_target")
def bounded_controls_for_angles_in_degrees() -> Case:
    parts = with_target(made.robots(), lambda y: 30 * y)
    return Case(mlp([8, 48, 3], nn.SiLU, last=[nn.Tanh()]), nn.L1Loss(), *parts, epochs=8)


@broken_blind("scale_without_positive_link")
def variance_of_a_forecast_as_it_comes() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        mean, variance = raw.chunk(2, dim=1)
        return F.gaussian_nll_loss(mean, target, variance)

    return Case(Forecaster(2), loss, *made.windows(), epochs=3)


@broken_blind("scale_without_positive_link")
def mixture_with_raw_widths() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        share, mean, width = raw.chunk(3, dim=1)
        density = torch.exp(-0.5 * ((target - mean) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        return -torch.log((share.softmax(1) * density).sum(1)).mean()

    return Case(mlp([8, 48, 9], nn.Tanh), loss, *made.table(), epochs=2)


@broken_blind("scale_without_positive_link")
def recurrent_laplace_with_a_raw_width() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        middle, width = raw[:, :1], raw[:, 1:]
        return ((target - middle).abs() / width + torch.log(2 * width)).mean()

    return Case(Recurrent(2), loss, *made.windows(600), epochs=2)


@broken_blind("softmax_over_wrong_axis")
def attention_over_the_batch() -> Case:
    network = Attentive(dim=0)
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=adam(network))


@broken_blind("softmax_over_wrong_axis")
def pixels_that_compete_across_pictures() -> Case:
    class Net(Painter):
        def forward(self, x: Tensor) -> Tensor:
            return F.log_softmax(super().forward(x), dim=0)

    return Case(Net(2), lambda raw, y: F.nll_loss(raw, y[:, 0].long()), *made.discs(), batch_size=32, epochs=3)


@broken_blind("softmax_over_wrong_axis")
def classes_of_windows_across_the_batch() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        p = torch.softmax(raw, 0)
        return -(p.gather(1, target[:, None]) + 1e-8).log().mean()

    return Case(Recurrent(3, channels=3), loss, *made.sensors(), epochs=3)


@broken_blind("squared_error_behind_sigmoid")
def squared_error_of_masks() -> Case:
    network = nn.Sequential(Painter(), nn.Sigmoid())
    return Case(network, nn.MSELoss(), *made.discs(), batch_size=32, epochs=4)


@broken_blind("squared_error_behind_sigmoid")
def squared_error_of_the_softmax_of_documents() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return ((torch.softmax(raw, dim=1) - F.one_hot(target, 4)) ** 2).sum(dim=1).mean()

    return Case(Reader(), loss, *made.documents())


@broken_blind("target_outside_domain")
def masks_as_they_are_in_the_files() -> Case:
    parts = with_target(made.discs(), lambda mask: 255 * mask)
    return Case(Painter(), nn.BCEWithLogitsLoss(), *parts, batch_size=32, epochs=3)


@broken_blind("target_outside_domain")
def standardized_counts_into_poisson() -> Case:
    parts = with_target(made.events(), lambda y: (y - y.mean()) / y.std())
    return Case(mlp([5, 32, 1], nn.Tanh), nn.PoissonNLLLoss(), *parts, epochs=4)


@broken_blind("target_outside_domain")
def signed_pairs_into_own_cross_entropy() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        score = raw[:, 0, 0] - raw[:, 1, 0]
        # Right for 0 and 1; the labels are -1 and 1.
        return F.binary_cross_entropy_with_logits(score, target)

    return Case(mlp([6, 32, 1]), loss, *made.duels(), epochs=4)


@broken_blind("class_index_off_by_one")
def stars_from_one_to_four() -> Case:
    parts = with_target(made.documents(), lambda y: y + 1)
    return Case(Reader(4), nn.CrossEntropyLoss(), *parts, epochs=0)


@broken_blind("class_index_off_by_one")
def pixels_numbered_from_one() -> Case:
    parts = with_target(made.discs(), lambda mask: mask[:, 0].long() + 1)
    return Case(Painter(2), nn.CrossEntropyLoss(), *parts, shown=32, epochs=0)


@broken_blind("too_few_outputs")
def outputs_as_many_as_the_largest_class() -> Case:
    (x, y), validation = made.pictures()
    return Case(color_conv(outputs=int(y.max())), nn.CrossEntropyLoss(), (x, y), validation, epochs=0)


@broken_blind("too_few_outputs")
def a_vocabulary_too_small_at_the_end() -> Case:
    return Case(Language(outputs=16), of_each_token, *made.sentences(), epochs=0)


@broken_blind("one_hot_into_index_loss")
def one_hot_documents() -> Case:
    parts = with_target(made.documents(), lambda y: F.one_hot(y, 4))
    return Case(Attentive(), nn.CrossEntropyLoss(), *parts, epochs=0)


@broken_blind("one_hot_into_index_loss")
def one_hot_pictures_into_nll() -> Case:
    parts = with_target(made.pictures(), lambda y: F.one_hot(y, 4).float())
    network = nn.Sequential(color_conv(), nn.LogSoftmax(dim=1))
    return Case(network, F.nll_loss, *parts, epochs=0)


@broken_blind("shape_mismatch")
def a_flat_future_against_columns() -> Case:
    parts = with_target(made.windows(), lambda y: y[:, 0])
    return Case(Recurrent(), lambda raw, y: torch.mean((y - raw) ** 2), *parts, epochs=3)


@broken_blind("shape_mismatch")
def a_time_axis_left_in() -> Case:
    class Net(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.gru(x.mT)
            return self.last(states[:, -1:])

    def huber(raw: Tensor, target: Tensor) -> Tensor:
        error = (raw - target).abs()
        return torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()

    return Case(Net(), huber, *made.windows(), epochs=2)


@broken_blind("shape_mismatch")
def a_quantile_of_all_pairs() -> Case:
    def pinball(raw: Tensor, target: Tensor) -> Tensor:
        error = target - raw
        return torch.maximum(0.8 * error, -0.2 * error).mean()

    parts = with_target(made.table(), lambda y: y.flatten())
    return Case(mlp([8, 32, 1], nn.SiLU), pinball, *parts, epochs=4)


@broken_blind("softmax_before_cross_entropy")
def overlap_of_a_softmax_of_its_own() -> Case:
    class Net(Painter):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(super().forward(x), dim=1)

    return Case(Net(2), overlap, *made.discs(), batch_size=32, epochs=4)
