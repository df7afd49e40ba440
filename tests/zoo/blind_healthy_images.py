"""Healthy set-ups on colored images: classes, masks, places, codes; written without a look at how the doctor judges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo import blind_data as made
from zoo.blind_networks import Painter, adam, color_conv
from zoo.setup import Case, healthy_blind


def _classes(network: nn.Module, *, rate: float = 3e-3, epochs: int = 6, loss: nn.Module | None = None) -> Case:
    return Case(network, loss or nn.CrossEntropyLoss(), *made.pictures(), optimizer=adam(network, rate), epochs=epochs)


@healthy_blind
def colored_stripes() -> Case:
    return _classes(color_conv())


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int, *, groups: int | None) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) if groups else nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(inner)))


def _residual(groups: int | None = None) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
    blocks = [Block(16, groups=groups) for _ in range(2)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


@healthy_blind
def residual_convolutions() -> Case:
    return _classes(_residual(), epochs=5)


@healthy_blind
def residual_convolutions_with_group_norm() -> Case:
    return _classes(_residual(groups=4), rate=5e-3, epochs=8)


@healthy_blind
def squeezed_and_excited() -> Case:
    class Squeeze(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(width, width // 4), nn.Linear(width // 4, width)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3))))))
            return x * gate[:, :, None, None]

    layers = list(color_conv())
    return _classes(nn.Sequential(*layers[:6], Squeeze(32), *layers[6:]))


@healthy_blind
def mobile_blocks() -> Case:
    class Mobile(nn.Module):
        def __init__(self, width: int, activation: nn.Module) -> None:
            super().__init__()
            inner = 3 * width
            self.body = nn.Sequential(
                *(nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), activation),
                *(nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner), activation),
                *(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)),
            )

        def forward(self, x: Tensor) -> Tensor:
            return x + self.body(x)

    stem = [nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.Hardswish()]
    network = nn.Sequential(
        *stem,
        Mobile(12, nn.ReLU6()),
        Mobile(12, nn.Hardswish()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    return _classes(network, rate=5e-3, epochs=5)


@healthy_blind
def whole_channels_dropped() -> Case:
    layers = list(color_conv())
    return _classes(nn.Sequential(*layers[:3], nn.Dropout2d(0.2), *layers[3:]), epochs=8)


@healthy_blind
def spectrally_normalized() -> Case:
    network = nn.Sequential(
        *(spectral_norm(nn.Conv2d(3, 16, 3, stride=2, padding=1)), nn.LeakyReLU(0.2)),
        *(spectral_norm(nn.Conv2d(16, 32, 3, stride=2, padding=1)), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(512, 4)),
    )
    return _classes(network)


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@healthy_blind
def depthwise_with_scaled_branches() -> Case:
    class Next(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *(nn.Conv2d(width, width, 5, padding=2, groups=width), ChannelNorm(width)),
                *(nn.Conv2d(width, 3 * width, 1), nn.GELU(), nn.Conv2d(3 * width, width, 1)),
            )
            self.scale = nn.Parameter(torch.full((width, 1, 1), 0.1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale * self.body(x)

    stem = [nn.Conv2d(3, 16, 2, stride=2), ChannelNorm(16)]
    network = nn.Sequential(*stem, Next(16), Next(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    return _classes(network, rate=5e-3, epochs=8)


@healthy_blind
def patches_with_a_class_token() -> Case:
    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 24, 4, stride=4)
            self.start = nn.Parameter(torch.zeros(1, 1, 24))
            self.places = nn.Parameter(0.02 * torch.randn(1, 17, 24))
            self.block = nn.TransformerEncoderLayer(24, 4, 48, 0.0, "gelu", batch_first=True, norm_first=True)
            self.last = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).mT
            x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.places
            return self.last(self.block(x)[:, 0])

    return _classes(Vision(), epochs=8)


@healthy_blind
def two_answers_to_a_picture() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = color_conv()[:-1]
            self.direction, self.tint = nn.Linear(32, 1), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.body(x)
            return self.direction(x).squeeze(1), self.tint(x)

    def loss(raw: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        direction, tint = raw
        upright = F.binary_cross_entropy_with_logits(direction, (target % 2).float())
        return upright + 0.5 * F.cross_entropy(tint, target // 2)

    network = Net()
    return Case(network, loss, *made.pictures(), optimizer=adam(network), epochs=6)


@healthy_blind
def masks_by_a_small_u() -> Case:
    network = Painter()
    return Case(network, nn.BCEWithLogitsLoss(), *made.discs(), optimizer=adam(network, 1e-2), batch_size=32)


def overlap(raw: Tensor, target: Tensor) -> Tensor:
    """Cross entropy and one less Dice's overlap, both of the two scores of each pixel."""
    disc = torch.softmax(raw, dim=1)[:, 1]
    mask = target[:, 0]
    dice = (2 * (disc * mask).sum((1, 2)) + 1) / (disc.sum((1, 2)) + mask.sum((1, 2)) + 1)
    return F.cross_entropy(raw, mask.long()) + (1 - dice).mean()


@healthy_blind
def masks_by_overlap() -> Case:
    network = Painter(2)
    return Case(network, overlap, *made.discs(), optimizer=adam(network, 1e-2), batch_size=32)


def _middles(parts: made.Split) -> made.Split:
    """The middle of the disc in (-1, 1) instead of its mask."""
    place = torch.linspace(-1, 1, 16)

    def middle(mask: Tensor) -> Tensor:
        share = (mask / mask.sum((2, 3), keepdim=True))[:, 0]
        return torch.stack([(share.sum(2) * place).sum(1), (share.sum(1) * place).sum(1)], 1)

    return tuple((x, middle(mask)) for x, mask in parts)  # type: ignore[return-value]


@healthy_blind
def place_by_a_soft_maximum() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 1, 5, padding=2))

        def forward(self, x: Tensor) -> Tensor:
            heat = torch.softmax(self.body(x).flatten(1), dim=1).view(-1, 16, 16)
            place = torch.linspace(-1, 1, 16)
            return torch.stack([(heat.sum(2) * place).sum(1), (heat.sum(1) * place).sum(1)], 1)

    network = Net()
    return Case(network, nn.MSELoss(), *_middles(made.discs(600)), optimizer=adam(network, 1e-2), batch_size=32)


@healthy_blind
def place_by_a_linear_layer() -> Case:
    network = nn.Sequential(*color_conv(norm=True)[:6], nn.Flatten(), nn.Linear(512, 2))
    return Case(network, nn.SmoothL1Loss(), *_middles(made.discs(2000)), optimizer=adam(network, 2e-3), epochs=5)


@healthy_blind
def cleaned_of_noise() -> Case:
    tint = torch.tensor([1.0, 0.6, -0.6])[:, None, None]
    (x, mask), (x_validation, mask_validation) = made.discs()
    network = nn.Sequential(
        *(nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 12, 5, padding=2), nn.ReLU()),
        nn.Conv2d(12, 3, 3, padding=1),
    )
    training, validation = (x, tint * mask), (x_validation, tint * mask_validation)
    return Case(network, nn.MSELoss(), training, validation, optimizer=adam(network, 5e-3), batch_size=32)


@healthy_blind
def shuffled_up_to_twice_the_size() -> Case:
    (_, mask), (_, mask_validation) = made.discs()
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.PReLU(), nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2), nn.Tanh())
    )
    # Small pictures in (-1, 1), as image generators have them.
    training, validation = ((F.avg_pool2d(2 * m - 1, 2), 1.8 * m - 0.9) for m in (mask, mask_validation))
    return Case(network, nn.MSELoss(), training, validation, optimizer=adam(network, 5e-3), batch_size=32)


@healthy_blind
def mask_reconstructed_from_a_code() -> Case:
    (_, mask), (_, mask_validation) = made.discs(800)
    network = nn.Sequential(
        *(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 8), nn.Linear(8, 64), nn.ReLU()),
        *(nn.Linear(64, 256), nn.Sigmoid(), nn.Unflatten(1, (1, 16, 16))),
    )
    return Case(
        network, nn.BCELoss(), (mask, mask), (mask_validation, mask_validation), optimizer=adam(network), epochs=15
    )
