"""Images minus a mean, divided by a deviation: NumPy in float64 as the oracle, real digits, a wrong twin."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from lastlayer.checks import InputError, KindError, LastLayerError, LastLayerWarning, ModelFolderError, ShapeError
from lastlayer.preprocessing import ImageScaler
from lastlayer.preprocessing.modules import ElementwiseScaling

KINDS = ("channel", "channel_mean", "mean_image", "none")

#: 1797 gray images, 8 × 8, of 0 to 16.
DIGITS = load_digits().images

every_kind = pytest.mark.parametrize("kind", KINDS)


def images_of(n: int = 20, height: int = 4, width: int = 5, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Images whose channels differ in mean and deviation."""
    random = np.random.default_rng(seed)
    return (random.integers(0, 100, (n, height, width, channels)) + 40 * np.arange(channels)).astype(np.uint8)


def oracle(kind: str, images: NDArray[Any]) -> NDArray[np.float64]:
    """The lecture's three practices in float64, and none."""
    exact = images.astype(np.float64)
    every_pixel = (0, 1, 2)
    if kind == "mean_image":
        return exact - exact.mean(axis=0)
    if kind == "channel_mean":
        return exact - exact.mean(axis=every_pixel)
    if kind == "channel":
        return (exact - exact.mean(axis=every_pixel)) / exact.std(axis=every_pixel)
    return exact


# --- right, however the images come -----------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_numpy_agrees(kind: str, dtype: type) -> None:
    images = images_of().astype(dtype)
    scaled = ImageScaler(kind).fit_transform(images)
    assert scaled.dtype == np.float32
    assert scaled.flags.c_contiguous
    # Half a unit in the last place of float32: rounded once, at the end.
    np.testing.assert_allclose(scaled, oracle(kind, images), rtol=2.0**-24, atol=1e-10)


@every_kind
def test_real_digits_of_one_channel(kind: str) -> None:
    scaler = ImageScaler(kind).fit(DIGITS)
    scaled = scaler.transform(DIGITS)
    assert scaled.shape == (1797, 8, 8, 1)
    np.testing.assert_allclose(scaled, oracle(kind, DIGITS[..., None]), rtol=1e-7, atol=1e-9)
    assert np.array_equal(scaler.transform(DIGITS[..., None]), scaled)
    np.testing.assert_allclose(scaler.inverse_transform(scaled)[..., 0], DIGITS, atol=4e-6)


def test_a_channel_is_a_column_of_pixels_to_scikit_learn() -> None:
    images = images_of()
    scaler, columns = ImageScaler("channel").fit(images), StandardScaler().fit(images.reshape(-1, 3))
    np.testing.assert_allclose(scaler.mean_, columns.mean_, rtol=1e-13)
    np.testing.assert_allclose(scaler.scale_, columns.scale_, rtol=1e-13)


def mean_of_batches(kind: str, batches: list[NDArray[Any]]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Wrong: the mean of the batches' means and deviations, which counts a small batch as much as a large one."""
    parts = [ImageScaler(kind).fit(batch) for batch in batches if len(batch)]
    mean, scale = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("mean_", "scale_"))
    return lambda images: (images - mean) / scale


@given(cuts=st.lists(st.integers(0, 20), max_size=6).map(sorted), kind=st.sampled_from(KINDS), merged=st.booleans())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_any_partition_gives_what_all_images_give(cuts: list[int], kind: str, merged: bool) -> None:
    images = images_of()
    batches = [batch for batch in np.split(images, cuts) if len(batch) or not merged]
    if merged:
        streamed, *others = [ImageScaler(kind).fit(batch) for batch in batches]
        for other in others:
            assert streamed.merge(other) is streamed
    else:
        streamed = ImageScaler(kind)
        for batch in batches:
            assert streamed.partial_fit(batch) is streamed
    np.testing.assert_allclose(streamed.transform(images), oracle(kind, images), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["channel", "channel_mean", "mean_image"])
def test_the_wrong_way_to_stream_is_caught(kind: str) -> None:
    images = images_of()
    wrong = mean_of_batches(kind, [images[:1], images[1:]])(images)
    assert np.abs(wrong - oracle(kind, images)).max() > 1e-2


@pytest.mark.parametrize("kind", ["channel", "channel_mean", "none"])
def test_batches_of_other_sizes_count_pixel_by_pixel(kind: str) -> None:
    wide, high = images_of(3, 4, 9), images_of(5, 7, 2, seed=1)
    scaler = ImageScaler(kind).partial_fit(wide).partial_fit(high)
    strip = np.concatenate([wide.reshape(1, 1, -1, 3), high.reshape(1, 1, -1, 3)], axis=2)
    np.testing.assert_allclose(scaler.transform(strip), oracle(kind, strip), rtol=1e-6, atol=1e-9)


def test_a_first_batch_without_images_leaves_all_open() -> None:
    scaler = ImageScaler().partial_fit(images_of()[:0])
    with pytest.raises(NotFittedError):
        scaler.transform(images_of())
    scaler.partial_fit(images_of())
    assert scaler.transform(images_of()[:0]).shape == (0, 4, 5, 3)


def test_a_constant_channel_has_scale_1_and_digits_beside_a_large_mean_are_kept() -> None:
    images = np.random.default_rng(0).normal(size=(50, 4, 5, 2)) + 1e6
    images[..., 1] = 0.1
    scaler = ImageScaler("channel")
    for image in images:
        scaler.partial_fit(image[None])
    assert scaler.mean_[1] == 0.1
    assert scaler.scale_[1] == 1.0
    assert not scaler.transform(images)[..., 1].any()
    np.testing.assert_allclose(scaler.transform(images)[..., 0], oracle("channel", images[..., :1])[..., 0], rtol=1e-6)


@every_kind
def test_the_inverse_gives_the_images(kind: str) -> None:
    scaler = ImageScaler(kind).fit(images_of())
    other = images_of(7, seed=1)
    back = scaler.inverse_transform(scaler.transform(other))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, other, atol=3e-5)
    assert np.array_equal(np.rint(back).astype(np.uint8), other)


@every_kind
def test_tensors_and_views_count_as_the_arrays_they_are(kind: str) -> None:
    images = images_of()
    expected = ImageScaler(kind).fit_transform(images)
    first = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    for given_images in (torch.tensor(images), first.permute(0, 2, 3, 1), images[::-1][::-1], images.tolist()):
        assert np.array_equal(ImageScaler(kind).fit_transform(given_images), expected)
    half = torch.tensor(images, dtype=torch.bfloat16, requires_grad=True)  # exact up to 256
    assert np.array_equal(ImageScaler(kind).fit_transform(half), expected)


def test_images_are_never_all_in_float64() -> None:
    images = np.zeros((4000, 32, 32, 3), dtype=np.uint8)
    scaler = ImageScaler("channel").fit(images[:1])
    for use, results in ((scaler.partial_fit, 0), (scaler.transform, 4), (scaler.inverse_transform, 4)):
        tracemalloc.start()
        use(images)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The results and blocks of 24 MiB in all; in float64 the images alone would be 94.
        assert peak < results * images.size + 24 * 2**20


# --- kept -------------------------------------------------------------------------------------------------------------


@every_kind
def test_a_description_scales_bit_for_bit_alike(kind: str) -> None:
    images = images_of()
    scaler = ImageScaler(kind).fit(images / 7)
    description = json.loads(json.dumps(scaler.to_dict(), allow_nan=False))
    again = ImageScaler.from_dict(description)
    assert again.to_dict() == description
    for method in ("transform", "inverse_transform"):
        assert np.array_equal(getattr(again, method)(images), getattr(scaler, method)(images))
    with pytest.raises(InputError, match=r"no counts to go on from. Fix: call fit"):
        again.partial_fit(images)
    with pytest.raises(InputError, match="no counts"):
        scaler.merge(again)
    assert np.array_equal(again.fit(images).transform(images), ImageScaler(kind).fit_transform(images))


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "zoom"},
        {"mean": [[1.0]]},
        {"mean": ["dark", "bright", "gray"]},
        {"mean": [1.0, 2.0, float("nan")]},
        {"scale": [1.0, 2.0]},
        {"scale": [1.0, 2.0, 0.0]},
        {"scale": None},
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(damage: dict[str, Any]) -> None:
    description = ImageScaler().fit(images_of()).to_dict()
    with pytest.raises(ModelFolderError, match="damaged"):
        ImageScaler.from_dict(description | damage)
    for name in description:
        with pytest.raises(ModelFolderError, match="damaged"):
            ImageScaler.from_dict({key: value for key, value in description.items() if key != name})


def test_scikit_learn_clones_and_pickles_it() -> None:
    scaler = ImageScaler("mean_image").fit(images_of())
    assert clone(scaler).get_params() == {"kind": "mean_image"}
    copy = pickle.loads(pickle.dumps(scaler)).partial_fit(images_of(seed=1))
    both = ImageScaler("mean_image").fit(np.concatenate([images_of(), images_of(seed=1)]))
    np.testing.assert_allclose(copy.mean_, both.mean_, rtol=1e-13)


# --- tensors ----------------------------------------------------------------------------------------------------------


@every_kind
def test_the_module_gives_the_numbers_of_the_scaler_channels_first(kind: str) -> None:
    images = images_of()
    scaler = ImageScaler(kind).fit(images)
    module = scaler.to_module()
    x = torch.tensor(images).permute(0, 3, 1, 2)
    expected = scaler.transform(images).transpose(0, 3, 1, 2)
    scaled = module(x)
    assert scaled.dtype == torch.float32
    np.testing.assert_allclose(scaled, expected, rtol=3e-7, atol=2e-5 if kind != "channel" else 3e-7)
    np.testing.assert_allclose(module.inverse(scaled), x, atol=3e-5)
    np.testing.assert_allclose(module(x[0]), expected[0], rtol=3e-7, atol=2e-5)
    exact = scaler.to_module(dtype=torch.float64)
    np.testing.assert_allclose(exact(x).permute(0, 2, 3, 1), oracle(kind, images), rtol=1e-12, atol=1e-12)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.testing.assert_close(exported.module()(x[:3]), scaled[:3])
    other = ImageScaler(kind).fit(images_of(seed=1)).to_module()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), scaled)


def test_gradients_pass_the_module() -> None:
    scaler = ImageScaler("channel").fit(images_of())
    exact = scaler.to_module(dtype=torch.float64)
    x = torch.tensor(images_of(2), dtype=torch.float64).permute(0, 3, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(exact, x)
    (gradient,) = torch.autograd.grad(exact(x).sum(), x)
    np.testing.assert_allclose(gradient[0, :, 0, 0], 1 / scaler.scale_)
    assert not list(exact.parameters())


def test_a_module_refuses_what_is_not_channels_first() -> None:
    images = images_of()
    x = torch.tensor(images).permute(0, 3, 1, 2)
    module = ImageScaler("channel").fit(images).to_module()
    with pytest.raises(ShapeError, match=r"has shape \(20, 4, 5, 3\); expected \(..., 3, any, any\)"):
        module(torch.tensor(images))
    assert module(x[:, :, :2]).shape == (20, 3, 2, 5)
    module = ImageScaler("mean_image").fit(images).to_module()
    for wrong in (x[:, :, :2], x[:, :1], x[0, 0], torch.tensor(images)):
        with pytest.raises(ShapeError, match=r"expected \(..., 3, 4, 5\)"):
            module(wrong)
    gray = ImageScaler("mean_image").fit(images[:, :1, :1, :1]).to_module()
    with pytest.raises(ShapeError, match=r"expected \(..., 1, 1, 1\)"):
        gray(x)


@pytest.mark.parametrize("options", [{}, {"with_mean": False}, {"with_std": False}], ids=str)
def test_the_standard_scaler_as_a_module(options: dict[str, bool]) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3)) * [1.0, 2.0, 0.0] + 1e4
    scaler = StandardScaler(**options).fit(rows)
    module = ElementwiseScaling.of(scaler)
    x = torch.tensor(rows, dtype=torch.float32)
    margin = 1e-6 if options.get("with_mean", True) else 2e-3
    np.testing.assert_allclose(module(x), scaler.transform(x.double().numpy()), atol=margin)
    np.testing.assert_allclose(module.inverse(module(x)), x, rtol=2e-7)
    exact = ElementwiseScaling.of(scaler, dtype=torch.float64)
    np.testing.assert_allclose(exact(torch.tensor(rows)), scaler.transform(rows), rtol=1e-12, atol=1e-12)
    # Back in float64, the second part of the mean restores it.
    np.testing.assert_allclose(module.double().mean + module.mean_rounding, exact.mean, rtol=1e-14)
    with pytest.raises(KindError, match="expected a fitted StandardScaler, and got ImageScaler"):
        ElementwiseScaling.of(ImageScaler())
    with pytest.raises(NotFittedError):
        ElementwiseScaling.of(StandardScaler())


def test_a_module_refuses_a_scale_that_its_dtype_takes_for_0() -> None:
    scaler = ImageScaler("channel").fit(images_of() * 1e-60)
    with pytest.raises(InputError, match=r"scale does not fit into torch.float32. Fix: dtype=torch.float64"):
        scaler.to_module()
    assert scaler.to_module(dtype=torch.float64).scale.all()


# --- what cannot be scaled --------------------------------------------------------------------------------------------


def spoiled(value: float) -> NDArray[np.float64]:
    images = images_of().astype(np.float64)
    images[7, 1, 2, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (spoiled(np.nan), InputError, "image 7 .* NaN or infinite"),
        (spoiled(-np.inf), InputError, "image 7 .* NaN or infinite"),
        (np.zeros((4, 5)), ShapeError, r"expected \(n, height, width\) or \(n, height, width, channels\)"),
        (np.zeros((1, 2, 3, 4, 5)), ShapeError, "a single image as"),
        (np.zeros((2, 0, 5, 3)), ShapeError, "expected"),
        (np.array([[["a"]]]), KindError, "arrays of real numbers"),
        (np.zeros((2, 4, 5, 3), dtype=complex), KindError, "arrays of real numbers"),
        ([np.zeros((4, 5)), np.zeros((5, 4))], ShapeError, "different shapes"),
        (None, KindError, "arrays of real numbers"),
        (np.zeros((2, 4, 5, 1)), ShapeError, "1 channels; ImageScaler learned from 3"),
        (images_of()[0], ShapeError, r"a single image is images\[None\]"),
    ],
)
@pytest.mark.parametrize("method", ["partial_fit", "transform", "inverse_transform"])
def test_bad_images_are_refused_and_nothing_is_lost(method: str, images: Any, error: type, message: str) -> None:
    scaler = ImageScaler("channel").fit(images_of())
    before = scaler.to_dict()
    with pytest.raises(error, match=message) as raised:
        getattr(scaler, method)(images)
    assert isinstance(raised.value, LastLayerError)
    assert scaler.to_dict() == before


def test_a_fit_that_fails_leaves_what_was_learned() -> None:
    scaler = ImageScaler("channel").fit(images_of())
    before = scaler.to_dict()
    for bad in (spoiled(np.nan), spoiled(1e300), images_of()[:0]):
        with pytest.raises(InputError):
            scaler.fit(bad)
    assert scaler.to_dict() == before


def test_the_mean_image_has_one_size() -> None:
    scaler = ImageScaler("mean_image").fit(images_of())
    for method in (scaler.transform, scaler.partial_fit, scaler.inverse_transform):
        with pytest.raises(ShapeError, match=r"the mean image has \(4, 5, 3\). Fix: resize"):
            method(images_of(height=5))
    with pytest.raises(ShapeError, match=r"the other's mean has shape \(5, 5, 3\)"):
        scaler.merge(ImageScaler("mean_image").fit(images_of(height=5)))


def test_other_things_that_cannot_be() -> None:
    with pytest.raises(InputError, match="kind is 'zoom'; expected one of 'channel', 'channel_mean', 'mean_image'"):
        ImageScaler("zoom").fit(images_of())
    with pytest.raises(InputError, match="no image to learn from"):
        ImageScaler().fit(images_of()[:0])
    for ask in ("transform", "inverse_transform", "merge"):
        with pytest.raises(NotFittedError):
            getattr(ImageScaler(), ask)(images_of())
    for ask in ("to_dict", "to_module"):
        with pytest.raises(NotFittedError):
            getattr(ImageScaler(), ask)()
    with pytest.raises(InputError, match="cannot take in"):
        ImageScaler("channel").fit(images_of()).merge(ImageScaler("none").fit(images_of()))
    with pytest.raises(InputError, match="too large for float32"):
        ImageScaler("none").fit_transform(spoiled(1e300))
    with pytest.warns(LastLayerWarning, match="look as if the channels came first"):
        ImageScaler().fit(images_of().transpose(0, 3, 1, 2))
