"""Healthy set-ups of pairs, codes, teachers and own loops; written without a look at how the doctor judges."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import blind_data as made
from zoo.blind_networks import Forecaster, Reader, Recurrent, adam, color_conv
from zoo.data import digits
from zoo.networks import mlp
from zoo.setup import Case, healthy_blind, validation_loss


class Compared(nn.Module):
    """Both rows of a pair through one encoder."""

    def __init__(self, inputs: int = 8, outputs: int = 8) -> None:
        super().__init__()
        self.encoder = mlp([inputs, 48, outputs])

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def contrastive(raw: Tensor, target: Tensor) -> Tensor:
    """Draws equal pairs together, pushes others apart up to a distance of 1."""
    distance = torch.sqrt(((raw[:, 0] - raw[:, 1]) ** 2).sum(1) + 1e-6)
    return (target * distance**2 + (1 - target) * F.relu(1 - distance) ** 2).mean()


@healthy_blind
def pairs_drawn_together_and_apart() -> Case:
    network = Compared()
    return Case(network, contrastive, *made.pairs(), optimizer=adam(network), epochs=10)


@healthy_blind
def pairs_as_a_logit_of_similarity() -> Case:
    class Similar(Compared):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.offset = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(0.0))

        def forward(self, x: Tensor) -> Tensor:
            first, second = F.normalize(self.encoder(x), dim=-1).unbind(1)
            return self.scale * (first * second).sum(1) + self.offset

    network = Similar()
    return Case(network, nn.BCEWithLogitsLoss(), *made.pairs(), optimizer=adam(network), epochs=10)


@healthy_blind
def the_better_offer() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(raw[:, 0, 0], raw[:, 1, 0], target, margin=1.0)

    network = Compared(6, 1)
    return Case(network, loss, *made.duels(3000), optimizer=adam(network, 5e-3), epochs=7)


@healthy_blind
def the_better_offer_as_a_probability() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        return F.softplus(-target * (raw[:, 0, 0] - raw[:, 1, 0])).mean()

    network = Compared(6, 1)
    return Case(network, loss, *made.duels(3000), optimizer=adam(network, 5e-3), epochs=7)


@healthy_blind
def the_other_half_among_the_batch() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        first, second = F.normalize(raw, dim=-1).unbind(1)
        scores = first @ second.T / 0.2
        own = torch.arange(len(scores))
        return 0.5 * (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))

    (x, y), (x_validation, y_validation) = made.table(1600)
    views = [torch.stack([part, part + 0.3 * torch.randn_like(part)], 1) for part in (x, x_validation)]
    network = Compared(8, 12)
    return Case(network, loss, (views[0], y), (views[1], y_validation), optimizer=adam(network), epochs=8)


@healthy_blind
def softened_answers_of_a_teacher() -> Case:
    (x, y), (x_validation, y_validation) = digits()
    teacher = mlp([64, 64, 10])
    optimizer = adam(teacher)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(teacher(x), y).backward()
        optimizer.step()

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        soft, hard = target[:, :10], target[:, 10].long()
        kept = F.kl_div(F.log_softmax(raw / 3, dim=1), F.softmax(soft / 3, dim=1), reduction="batchmean")
        return 0.7 * 9 * kept + 0.3 * F.cross_entropy(raw, hard)

    with torch.no_grad():
        taught, judged = (
            torch.cat([teacher(a), b[:, None].float()], 1) for a, b in ((x, y), (x_validation, y_validation))
        )
    student = mlp([64, 24, 10])
    return Case(student, loss, (x, taught), (x_validation, judged), optimizer=adam(student), epochs=20)


@healthy_blind
def a_temperature_found_afterwards() -> Case:
    class Tempered(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body.requires_grad_(False)
            self.log_temperature = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) / self.log_temperature.exp()

    (x, y), (x_validation, y_validation) = digits()
    body = mlp([64, 64, 10])
    optimizer = adam(body, 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(3 * body(x[:1000]), y[:1000]).backward()
        optimizer.step()
    for parameter in body[-1].parameters():
        parameter.data.mul_(8)
    network = Tempered(body)
    optimizer = torch.optim.Adam([network.log_temperature], lr=5e-2)
    return Case(
        network,
        nn.CrossEntropyLoss(),
        (x[1000:], y[1000:]),
        (x_validation, y_validation),
        optimizer=optimizer,
        epochs=10,
    )


class Variational(nn.Module):
    """A code drawn by the reparametrization, and what is made of it."""

    def __init__(self, inputs: int, codes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp([inputs, 48, 2 * codes]), mlp([codes, 48, inputs])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x.flatten(1)).chunk(2, dim=1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()


@healthy_blind
def variational_digits() -> Case:
    def loss(raw: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
        made_of, mean, log_variance = raw
        return 0.5 * ((made_of - target) ** 2).sum(1).mean() + 0.3 * divergence(mean, log_variance)

    (x, _), (x_validation, _) = digits()
    # The pixels at the edge are nearly always empty.
    x, x_validation = (part.clamp(-3, 3)[:, x.std(0) > 0.5] for part in (x, x_validation))
    network = Variational(x.shape[1], 8)
    return Case(network, loss, (x, x), (x_validation, x_validation), optimizer=adam(network), epochs=12)


@healthy_blind
def variational_masks() -> Case:
    def loss(raw: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
        pixels = F.binary_cross_entropy_with_logits(raw[0], target.flatten(1), reduction="none").sum(1).mean()
        return pixels + divergence(raw[1], raw[2])

    (_, mask), (_, mask_validation) = made.discs(800)
    network = Variational(256, 4)
    return Case(network, loss, (mask, mask), (mask_validation, mask_validation), optimizer=adam(network), epochs=15)


@healthy_blind
def sparse_codes() -> Case:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.outside = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            code = F.softplus(self.inside(x.flatten(1)))
            return self.outside(code), code

    def loss(raw: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return F.mse_loss(raw[0], target.flatten(1)) + 1e-3 * raw[1].abs().mean()

    (x, _), (x_validation, _) = made.windows()
    network = Sparse()
    return Case(network, loss, (x, x), (x_validation, x_validation), optimizer=adam(network, 1e-2), epochs=10)


@healthy_blind
def rings_among_clouds() -> Case:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.all = mlp([2, 32, 24]), mlp([24, 24, 1])

        def forward(self, x: Tensor) -> Tensor:
            return self.all(self.each(x).mean(dim=1)).squeeze(1)

    network = Points()
    return Case(network, nn.BCEWithLogitsLoss(), *made.clouds(), optimizer=adam(network, 1e-2), epochs=14)


@healthy_blind
def neighbors_on_a_graph() -> Case:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            ring = torch.eye(16) + torch.eye(16).roll(1, 0) + torch.eye(16).roll(-1, 0)
            self.register_buffer("near", ring / 3)
            self.first, self.second, self.last = nn.Linear(1, 16), nn.Linear(16, 16), nn.Linear(256, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(self.near @ x.mT) + self.first(x.mT))
            x = F.relu(self.second(self.near @ x))
            return self.last(x.flatten(1))

    network = Graph()
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=adam(network, 5e-3), epochs=12)


def _loop(
    *,
    clip: float | None = None,
    schedule: Callable[[int, int], float] | None = None,
    gathered: int = 1,
    average: float | None = None,
) -> Callable[[Case, Any], None]:
    """A loop with a limit to gradients, a rate by step and steps in all, gathered batches, an averaged copy."""

    def run(case: Case, recorder: Any) -> None:
        assert case.optimizer is not None
        steps = case.epochs * -(-len(case.training[1]) // case.batch_size)
        scheduler = torch.optim.lr_scheduler.LambdaLR(case.optimizer, lambda s: schedule(s, steps) if schedule else 1.0)
        averaged = copy.deepcopy(case.network)
        number = 0
        for _ in range(case.epochs):
            case.network.train()
            for features, target in case.batches():
                number += 1
                value = case.compute(case.network(features), target)
                (value / gathered).backward()
                recorder.log(value)
                if number % gathered:
                    continue
                if clip is not None:
                    nn.utils.clip_grad_norm_(case.network.parameters(), clip)
                case.optimizer.step()
                scheduler.step()
                case.optimizer.zero_grad()
                if average is not None:
                    with torch.no_grad():
                        for slow, fast in zip(averaged.parameters(), case.network.parameters(), strict=True):
                            slow.lerp_(fast, 1 - average)
            recorder.end_epoch(validation_loss=validation_loss(case))

    return run


def _warm(step: int, steps: int) -> float:
    """Up over a tenth of the steps, then down by a cosine."""
    early = max(1, steps // 10)
    return (step + 1) / early if step < early else 0.5 * (1 + math.cos(math.pi * (step - early) / (steps - early)))


@healthy_blind
def a_slow_copy_beside() -> Case:
    network = mlp([8, 48, 1], nn.GELU)
    loop = _loop(average=0.95)
    return Case(network, nn.MSELoss(), *made.table(), optimizer=adam(network, 3e-3), epochs=12, loop=loop)


@healthy_blind
def warmed_up_and_clipped() -> Case:
    network = Recurrent(layers=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
    loop = _loop(clip=1.0, schedule=_warm)
    return Case(network, nn.MSELoss(), *made.windows(900), optimizer=optimizer, epochs=10, loop=loop)


@healthy_blind
def colored_batches_gathered() -> Case:
    network = color_conv()
    loop = _loop(gathered=2)
    return Case(
        network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=adam(network, 5e-3), batch_size=16, loop=loop
    )


@healthy_blind
def momentum_of_nesterov_in_steps() -> Case:
    network = Forecaster()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loop = _loop(schedule=lambda step, steps: 0.3 ** (3 * step // steps))
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=optimizer, epochs=8, loop=loop)


def _mixes(case: Case, recorder: Any) -> None:
    """Mixes each row with another, and their targets alike."""
    assert case.optimizer is not None
    for _ in range(case.epochs):
        case.network.train()
        for features, target in case.batches():
            share = float(torch.distributions.Beta(0.3, 0.3).sample())
            other = torch.randperm(len(target))
            raw = case.network(share * features + (1 - share) * features[other])
            value = share * case.compute(raw, target) + (1 - share) * case.compute(raw, target[other])
            case.optimizer.zero_grad()
            value.backward()
            case.optimizer.step()
            recorder.log(value)
        recorder.end_epoch(validation_loss=validation_loss(case))


@healthy_blind
def rows_mixed_with_others() -> Case:
    network = color_conv(activation=nn.SiLU)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=adam(network, 5e-3), loop=_mixes)


@healthy_blind
def rates_by_group() -> Case:
    network = Reader()
    groups = [{"params": network.embedding.parameters(), "lr": 2e-2}, {"params": network.body.parameters()}]
    optimizer = torch.optim.Adam(groups, lr=3e-3)
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=optimizer)
