"""Networks for images: their layout, any activation, any size, and images moved while training."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.checks import InputError, ShapeError
from lastlayer.initialization import initialize
from lastlayer.networks import (
    ACTIVATIONS,
    ConvolutionalNetwork,
    ImageNetwork,
    LeNet,
    RandomShift,
    network_from_dict,
    network_to_dict,
)
from lastlayer.networks.image_layers import MaxoutConvolution, OverChannels

KINDS: tuple[type[ImageNetwork], ...] = (LeNet, ConvolutionalNetwork)
MNIST = {"height": 28, "width": 28, "channels": 1, "outputs": 10}


def images(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


# --- layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pooling", "pool"), [("max", F.max_pool2d), ("average", F.avg_pool2d)])
def test_lenet_is_what_is_written_of_it(pooling: str, pool: object) -> None:
    network = LeNet(pooling=pooling, activation="tanh", **MNIST).eval()
    # 1998: C1 156, C5 48 120 and F6 10 164 parameters; C3 reads all maps here: 6·16·25 + 16; 850 of the last layer.
    leaves = [layer for layer in network.modules() if not list(layer.children())]
    sizes = [sum(own.numel() for own in layer.parameters()) for layer in leaves]
    assert [size for size in sizes if size] == [156, 2416, 48120, 10164, 850]
    layers = [layer for layer in network.body if list(layer.parameters())]
    x = images(5, 1, 28, 28)
    padded = F.pad(x, (2, 2, 2, 2))
    c1 = F.conv2d(padded, layers[0].weight, layers[0].bias)
    s2 = torch.tanh(pool(c1, 2))  # type: ignore[operator]
    s4 = torch.tanh(pool(F.conv2d(s2, layers[1].weight, layers[1].bias), 2))  # type: ignore[operator]
    c5 = torch.tanh(s4.flatten(1) @ layers[2].weight.T + layers[2].bias)
    f6 = torch.tanh(c5 @ layers[3].weight.T + layers[3].bias)
    torch.testing.assert_close(network(x), f6 @ network.last.weight.T + network.last.bias)


def test_the_default_has_no_more_weights_than_lenet() -> None:
    default, lenet = (sum(own.numel() for own in kind(**MNIST).parameters()) for kind in (ConvolutionalNetwork, LeNet))
    assert 50_000 < default < lenet


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(12, 12, 1), (13, 40, 3), (28, 28, 1), (32, 32, 3), (71, 64, 5)]
)
def test_any_size_and_number_of_channels(kind: type[ImageNetwork], height: int, width: int, channels: int) -> None:
    network = kind(height=height, width=width, channels=channels, outputs=3, dropout=0.3)
    raw = network(images(4, channels, height, width))
    assert raw.shape == (4, 3)
    raw.square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0 or "bias" in name, name


def test_large_images_do_not_make_large_layers() -> None:
    for kind, most in ((LeNet, 1.0), (ConvolutionalNetwork, 6.0)):
        small, large = (
            sum(own.numel() for own in kind(height=side, width=side, channels=3, outputs=10).parameters())
            for side in (32, 224)
        )
        assert large <= most * small


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_activation_of_the_catalog(kind: type[ImageNetwork], activation: str) -> None:
    network = kind(height=16, width=14, channels=2, outputs=3, activation=activation).eval()
    x = images(6, 2, 16, 14)
    assert network(x).isfinite().all()
    # Every image on its own: neither softmax nor anything else looks across images.
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initialize(network)
    assert network(x).isfinite().all()


def test_maxout_takes_the_larger_of_two_convolutions() -> None:
    layer = MaxoutConvolution(2, 3, 5, padding=1)
    x = images(4, 2, 9, 9)
    first, second = layer.convolution.weight.split(3)
    first_bias, second_bias = layer.convolution.bias.split(3)
    expected = torch.maximum(F.conv2d(x, first, first_bias, padding=1), F.conv2d(x, second, second_bias, padding=1))
    torch.testing.assert_close(layer(x), expected)


def test_softmax_is_taken_over_channels_and_not_along_rows() -> None:
    x = images(2, 4, 3, 3)
    torch.testing.assert_close(OverChannels(ACTIVATIONS["softmax"]())(x), torch.softmax(x, dim=1))
    assert not torch.allclose(torch.softmax(x, dim=-1), torch.softmax(x, dim=1))


# --- written down and made again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_made_from_its_description_is_the_same(kind: type[ImageNetwork]) -> None:
    network = kind(height=20, width=17, channels=3, outputs=2, activation="elu", dropout=0.25, shifts=2).eval()
    network(images(3, 3, 20, 17))
    again = network_from_dict(json.loads(json.dumps(network_to_dict(network))))
    again.load_state_dict(network.state_dict())
    x = images(5, 3, 20, 17, seed=1)
    assert torch.equal(again.eval()(x), network(x))
    assert type(again) is kind
    assert again.spec == network.spec


@pytest.mark.parametrize("wrong", [{"kind": "vgg"}, {"kind": None}])
def test_a_kind_that_does_not_exist(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="the kind of network"):
        network_from_dict(wrong)


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "least"), [(LeNet, 12), (ConvolutionalNetwork, 8)])
def test_images_that_are_too_small(kind: type[ImageNetwork], least: int) -> None:
    kind(height=least, width=least, channels=1, outputs=2)(torch.zeros(2, 1, least, least))
    with pytest.raises(InputError, match=f"{least} × {least} at least"):
        kind(height=least - 1, width=50, channels=1, outputs=2)


def test_a_batch_of_other_images_and_wrong_options() -> None:
    network = LeNet(**MNIST)
    for shape in ((4, 1, 28, 27), (4, 3, 28, 28), (4, 28, 28, 1), (28, 28)):
        with pytest.raises(ShapeError, match=r"expected \(n, 1, 28, 28\)"):
            network(torch.zeros(shape))
    with pytest.raises(InputError, match="pooling is 'mean'"):
        LeNet(pooling="mean", **MNIST)
    with pytest.raises(InputError, match="activation is 'swish'"):
        ConvolutionalNetwork(activation="swish", **MNIST)


# --- shifts -----------------------------------------------------------------------------------------------------------


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """An image moved by so many pixels, 0 where nothing came in: written with slices, not with indices."""
    height, width = image.shape[-2:]
    result = np.zeros_like(image)
    source = image[..., max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    result[..., max(down, 0) : height - max(-down, 0), max(right, 0) : width - max(-right, 0)] = source
    return result


def shifts_found(before: Tensor, after: Tensor, most: int) -> list[tuple[int, int]]:
    """By how much each image was moved; fails for one that is no moved image."""
    found = []
    for old, new in zip(before.numpy(), after.numpy(), strict=True):
        places = [
            (down, right)
            for down in range(-most, most + 1)
            for right in range(-most, most + 1)
            if np.array_equal(moved(old, down, right), new)
        ]
        assert len(places) == 1, "an image was changed otherwise than by moving it"
        found += places
    return found


def test_every_image_is_moved_on_its_own_and_all_moves_are_as_likely() -> None:
    torch.manual_seed(0)
    before = images(900, 2, 7, 6)
    after = RandomShift(1).train()(before)
    counts = np.unique(shifts_found(before, after, 1), axis=0, return_counts=True)
    assert len(counts[0]) == 9
    # 100 each expected; the standard deviation of a count is 9.4.
    assert (np.abs(counts[1] - 100) < 4 * 9.4).all()


def test_channels_move_together_and_twins_that_do_otherwise_are_caught() -> None:
    torch.manual_seed(0)
    before = images(20, 3, 8, 8)
    after = RandomShift(2)(before)
    shifts_found(before, after, 2)
    wrapped = torch.roll(before, (1, 1), dims=(2, 3))
    apart = after.clone()
    apart[:, 1] = before[:, 1]
    for wrong in (wrapped, apart):
        with pytest.raises(AssertionError, match="otherwise than by moving"):
            shifts_found(before, wrong, 2)


def test_nothing_moves_in_evaluation_or_without_shifts() -> None:
    x = images(3, 1, 5, 5)
    assert RandomShift(2).eval()(x) is x
    assert RandomShift(0)(x) is x
    for wrong in (-1, 1.5, True):
        with pytest.raises(InputError, match="pixels is"):
            RandomShift(wrong)  # type: ignore[arg-type]


def test_a_network_shifts_while_training_alone() -> None:
    network = ConvolutionalNetwork(height=10, width=10, channels=1, outputs=2, shifts=2)
    seen: list[Tensor] = []
    first = next(layer for layer in network.body if isinstance(layer, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = images(8, 1, 10, 10)
    network(x)
    network.eval()(x)
    assert any(shift != (0, 0) for shift in shifts_found(x, seen[0], 2))
    assert torch.equal(seen[1], x)
