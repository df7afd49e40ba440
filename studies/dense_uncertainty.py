"""A last layer for every pixel: denoised images, and beside them a map of how far off each pixel may be.

Fashion-MNIST images get Gaussian noise whose strength rises across the image, in a direction of its own for each, from
0.02 to 0.5 of white. A fully convolutional network sees the noisy image alone and puts out two numbers per pixel, which
the head takes for the mean of the clean pixel and its scale: the aleatoric uncertainty, what the noise has left open.
The loop is PyTorch's own; all that is of this library are the head and what it predicts.

    python studies/dense_uncertainty.py --data FOLDER --out studies/results [--head laplace] [--seed 0] [--quick]
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lastlayer import heads
from lastlayer.distributions import Distribution

from picture import bar, below, framed, gray, heat, tiles, write_png

WEAKEST, STRONGEST = 0.02, 0.5
LEVELS = 4
# A scale below a gray level claims to know more than the picture can say: most pixels are exactly black.
GRAY_LEVEL = 1 / 255
SHARE = 0.9
HEADS = {"gaussian": heads.Gaussian, "laplace": heads.Laplace}


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int = 5000
    held_out: int = 1000
    test: int = 2000
    epochs: int = 5
    channels: int = 24
    batch: int = 25


QUICK = Size(train=400, held_out=100, test=100, epochs=5, channels=12, batch=20)


@dataclass(frozen=True)
class Images:
    """Clean images, noisy ones, and how strong the noise was, each of shape (n, height, width)."""

    clean: Tensor
    noisy: Tensor
    strength: Tensor


def corrupt(clean: Tensor, generator: torch.Generator) -> Images:
    """Noise that rises along a direction drawn for each image."""
    height, width = clean.shape[1:]
    angle = 2 * torch.pi * torch.rand(len(clean), 1, 1, generator=generator)
    down, right = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    # From 0 in one corner to 1 in the one across, whatever the angle.
    along = 0.5 + 0.5 * (angle.cos() * right + angle.sin() * down) / (angle.cos().abs() + angle.sin().abs())
    strength = WEAKEST + (STRONGEST - WEAKEST) * along
    return Images(clean, clean + strength * torch.randn(clean.shape, generator=generator), strength)


def read(data: Path, size: Size, generator: torch.Generator) -> tuple[Tensor, Images, Images]:
    """Clean images to train on, and noisy ones held out and to test on."""
    path = data / "fashion_mnist.npz" if data.is_dir() else data
    if not path.exists():
        raise SystemExit(
            f"dense_uncertainty: there is no {path}. Pass --data with fashion_mnist.npz or the folder that holds it: "
            f"Fashion-MNIST (github.com/zalandoresearch/fashion-mnist) as x_train and x_test, uint8, (n, 28, 28)."
        )
    with np.load(path) as file:
        missing = {"x_train", "x_test"} - set(file.files)
        if missing:
            raise SystemExit(f"dense_uncertainty: {path} has no {', '.join(sorted(missing))}; it has {file.files}.")
        train, test = (torch.from_numpy(file[key]).float() / 255 for key in ("x_train", "x_test"))
    needed = size.train + size.held_out
    if len(train) < needed or len(test) < size.test:
        raise SystemExit(
            f"dense_uncertainty: {path} holds {len(train)} and {len(test)} images; expected {needed} and {size.test}."
        )
    chosen = train[torch.randperm(len(train), generator=generator)[:needed]]
    return (
        chosen[: size.train],
        corrupt(chosen[size.train :], generator),
        corrupt(test[torch.randperm(len(test), generator=generator)[: size.test]], generator),
    )


class Denoiser(nn.Module):
    """(N, 1, H, W) to (N, outputs, H, W), the first of them a share of the noisy pixel and what is added to it.

    Convolutions whose gaps widen and narrow again: each output sees 21 × 21 pixels.
    """

    def __init__(self, outputs: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for gap in (1, 2, 4, 2, 1):
            layers += [nn.Conv2d(inputs, channels, 3, padding=gap, dilation=gap, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            inputs = channels
        self.body = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels, 1 + outputs, 1)

    def forward(self, noisy: Tensor) -> Tensor:
        share, added, *further = self.last(self.body(noisy)).split(1, dim=1)
        return torch.cat([share.sigmoid() * noisy + added, *further], dim=1)


def train(head: heads.Head, clean: Tensor, size: Size, seed: int) -> nn.Module:
    """A network for the head, trained per pixel; noise is drawn anew for every batch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Denoiser(head.raw_size, size.channels)
    with torch.no_grad():
        # Start where half of the noisy pixel is kept, and from the best constants for that.
        images = corrupt(clean[:200], generator)
        bias = head.initial_bias(images.clean - 0.5 * images.noisy, torch.ones_like(images.clean))
        network.last.bias.copy_(torch.cat([torch.zeros(1), bias]))
    batches = size.train // size.batch
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=size.epochs * batches)
    for _ in range(size.epochs):
        for rows in torch.randperm(len(clean), generator=generator)[: batches * size.batch].split(size.batch):
            images = corrupt(clean[rows], generator)
            raw = network(images.noisy.unsqueeze(1))
            # (N, K, H, W) → (N, H, W, K): what belongs to one pixel lies along the last axis. Nothing is copied.
            loss = head.loss(raw.movedim(1, -1), images.clean)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def apply(network: nn.Module, images: Images) -> Tensor:
    """The raw output of every pixel, (n, height, width, head.raw_size)."""
    return torch.cat([network(part.unsqueeze(1)) for part in images.noisy.split(100)]).movedim(1, -1)


@dataclass(frozen=True)
class Judged:
    """What one model says of every test pixel, and how good that is, each of shape (n, height, width)."""

    distribution: Distribution
    nll: Tensor
    crps: Tensor
    covered: Tensor
    error: Tensor

    @classmethod
    def of(cls, head: heads.Head, raw: Tensor, clean: Tensor) -> Judged:
        distribution = head.distribution(raw)
        low, high = distribution.interval(SHARE)
        return cls(
            distribution,
            head.negative_log_likelihood(raw, clean),
            distribution.crps(clean),
            ((clean >= low) & (clean <= high)).float(),
            (distribution.mean - clean).abs(),
        )


def root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def compare(models: dict[str, Judged], garment: Tensor) -> list[str]:
    """The models beside each other."""
    lines = [
        "| scale | NLL per pixel | on the garment | on the background | CRPS | RMSE | coverage |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, model in models.items():
        lines.append(
            f"| {name} | {model.nll.mean():.3f} | {model.nll[garment].mean():.3f} | {model.nll[~garment].mean():.3f} "
            f"| {model.crps.mean():.4f} | {root_mean_square(model.error):.4f} | {model.covered.mean():.3f} |"
        )
    return lines


def by_level(predicted: Judged, constant: Judged, images: Images, garment: Tensor) -> list[str]:
    """What the garment's pixels look like where the noise is weak, and where it is strong."""
    lines = [
        "| noise | pixels | RMSE | predicted standard deviation | coverage | coverage, one scale |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    edges = torch.linspace(WEAKEST, STRONGEST, LEVELS + 1).tolist()
    for low, high in pairwise(edges):
        here = garment & (images.strength >= low) & (images.strength <= high)
        lines.append(
            f"| {low:.2f} to {high:.2f} | {int(here.sum())} | {root_mean_square(predicted.error[here]):.4f} "
            f"| {root_mean_square(predicted.distribution.standard_deviation[here]):.4f} "
            f"| {predicted.covered[here].mean():.3f} | {constant.covered[here].mean():.3f} |"
        )
    return lines


def by_place(predicted: Judged, images: Images, garment: Tensor) -> list[str]:
    """Which part of the picture is uncertain, under the weakest quarter of the noise and under the strongest."""
    mask = garment.float().unsqueeze(1)
    near = F.max_pool2d(mask, 7, stride=1, padding=3).squeeze(1) > 0
    grown, shrunk = (F.max_pool2d(sign * mask, 3, stride=1, padding=1).squeeze(1) for sign in (1, -1))
    places = {
        "background, more than 3 pixels from a garment": ~near,
        "outline, the pixels on both sides": (grown > 0) & (shrunk > -1),
        "inside of a garment": shrunk == -1,
    }
    quarter = (STRONGEST - WEAKEST) / 4
    weak, strong = images.strength <= WEAKEST + quarter, images.strength >= STRONGEST - quarter
    lines = [
        "| place | weak noise: RMSE | predicted | strong noise: RMSE | predicted |",
        "|---|---:|---:|---:|---:|",
    ]
    scale = predicted.distribution.standard_deviation
    for name, place in places.items():
        figures = [
            root_mean_square(each[place & noise]) for noise in (weak, strong) for each in (predicted.error, scale)
        ]
        lines.append(f"| {name} | {' | '.join(f'{figure:.4f}' for figure in figures)} |")
    return lines


def correlations(predicted: Judged, images: Images, garment: Tensor) -> list[str]:
    """The predicted scale beside the noise that was there and the error that was made."""
    scale = predicted.distribution.standard_deviation
    lines = ["| correlation of the predicted scale with | all pixels | on the garment |", "|---|---:|---:|"]
    for name, other in (("the true noise", images.strength), ("the absolute error", predicted.error)):
        on_garment = correlation(scale[garment], other[garment])
        lines.append(f"| {name} | {correlation(scale, other):.3f} | {on_garment:.3f} |")
    return lines


def draw(predicted: Judged, images: Images, path: Path, count: int = 8) -> float:
    """Writes the picture and returns the value at which its colors are white."""
    mean, scale = predicted.distribution.mean[:count], predicted.distribution.standard_deviation[:count]
    high = float(torch.quantile(scale.flatten(), 0.995))
    columns = {
        "clean": [gray(image) for image in images.clean[:count].numpy()],
        "noisy": [gray(image) for image in images.noisy[:count].numpy()],
        "denoised": [gray(image) for image in mean.numpy()],
        "scale": [heat(image, high) for image in scale.numpy()],
        "error": [heat(image, high) for image in predicted.error[:count].numpy()],
        "noise": [gray(image, STRONGEST) for image in images.strength[:count].numpy()],
    }
    write_png(path, framed(below([tiles(columns), bar(high, width=200, height=10)], gap=14)))
    return high


def study(options: argparse.Namespace) -> str:
    """The page; the picture is written on the way."""
    size = QUICK if options.quick else Size()
    start = time.perf_counter()
    clean, held_out, test = read(options.data, size, torch.Generator().manual_seed(options.seed))
    kind = HEADS[options.head]
    predicting = kind(scale="predicted", minimum_scale=GRAY_LEVEL)
    alone = kind()
    network, plain = train(predicting, clean, size, options.seed), train(alone, clean, size, options.seed)
    raw, raw_held_out = apply(network, test), apply(network, held_out)
    # One scale for all pixels is fitted where the network was not trained.
    weight = torch.ones_like(held_out.clean)
    same_mean = alone.refit(raw_held_out[..., :1], held_out.clean, weight)
    fitted = alone.refit(apply(plain, held_out), held_out.clean, weight)
    loss = alone.facts.loss.replace("_", " ")
    models = {
        "predicted": Judged.of(predicting, raw, test.clean),
        "one for all, around the same means": Judged.of(same_mean, raw[..., :1], test.clean),
        f"one for all, trained by {loss}": Judged.of(fitted, apply(plain, test), test.clean),
    }
    predicted, constant, trained_alone = models.values()
    garment = test.clean > 0
    options.out.mkdir(parents=True, exist_ok=True)
    high = draw(predicted, test, options.out / "dense_uncertainty.png")
    seconds = time.perf_counter() - start
    command = f"python studies/dense_uncertainty.py --data FOLDER --out DIR --head {options.head} --seed {options.seed}"
    return "\n".join(
        [
            "# Per-pixel uncertainty: denoising Fashion-MNIST",
            "",
            f"`{command}{' --quick' if options.quick else ''}`",
            "",
            f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} thread(s), "
            f"{platform.machine()}; {seconds:.0f} s in all.",
            "",
            f"Noise rises across every image from {WEAKEST} to {STRONGEST} of white. {size.train} images to train on "
            f"({size.epochs} epochs, the noise drawn anew each time), {size.held_out} to fit the one scale on, "
            f"{size.test} test images. NLL in nats and of clean pixels in units of white; no predicted scale is below "
            f"1/255. Coverage is that of the {SHARE:.0%} interval. The garment is where the clean image is not black: "
            f"{garment.float().mean():.0%} of the pixels.",
            "",
            *compare(models, garment),
            "",
            f"What a predicted scale is worth over the better of the two: "
            f"{min(constant.nll.mean(), trained_alone.nll.mean()) - predicted.nll.mean():.3f} nats per pixel.",
            "",
            "## By strength of the noise, on the garment",
            "",
            *by_level(predicted, constant, test, garment),
            "",
            "## By place",
            "",
            *by_place(predicted, test, garment),
            "",
            *correlations(predicted, test, garment),
            "",
            "The predicted scale is not the noise: it is what the noise leaves open, so it follows the place as well. "
            "Compare background under strong noise with a garment under weak noise.",
            "",
            "## Eight test images",
            "",
            "![Clean, noisy, denoised, predicted scale, absolute error, noise](dense_uncertainty.png)",
            "",
            f"Scale (the predicted standard deviation) and error share their colors, black for 0 to white for "
            f"{high:.2f}; the last column is the strength of the noise, which no network was shown.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="fashion_mnist.npz, or the folder that holds it"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the page and the picture")
    parser.add_argument("--head", choices=sorted(HEADS), default="gaussian")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few hundred images: does it run at all?")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    page = study(options)
    (options.out / "dense_uncertainty.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
