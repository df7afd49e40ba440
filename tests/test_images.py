"""The estimators on images: what they learn, from whatever the images come in, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import lastlayer
from image_cases import digits, moved_digits
from lastlayer import Classifier, LastLayerWarning, Regressor
from lastlayer.checks import InputError, KindError, ShapeError
from lastlayer.training import Recipe, forward
from lastlayer.training.split import usual_fraction

QUICK: dict[str, Any] = {"max_epochs": 12, "refit": False}
# Nothing is asked of how good these are.
BRIEF: dict[str, Any] = {"max_epochs": 2, "refit": False}


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    images, target = moved_digits()
    return Classifier(**QUICK).fit(images[:500], target[:500])


@pytest.fixture(scope="module")
def brief() -> Classifier:
    images, target = digits()
    return Classifier(dropout_members=4, calibration="temperature", **BRIEF).fit(images[:300], target[:300])


# --- it learns --------------------------------------------------------------------------------------------------------


def test_moved_digits_are_learned_far_better_than_by_a_linear_model(fitted: Classifier) -> None:
    images, target = moved_digits()
    flat = images.reshape(len(images), -1) / 240
    linear = LogisticRegression(max_iter=300).fit(flat[:500], target[:500]).score(flat[500:], target[500:])
    assert linear < 0.75
    assert fitted.score(images[500:], target[500:]) > linear + 0.2
    figures = fitted.model_.evaluate(images[500:], target[500:])
    assert figures["network"]["nll"] < 0.5 * figures["linear"]["nll"]
    # The linear model beside the network is one of the same pixels.
    assert figures["linear"]["accuracy"] == pytest.approx(linear, abs=0.1)


@pytest.mark.parametrize("network", ["lenet", "lenet:average"])
def test_lenet_learns_them_too(network: str) -> None:
    images, target = moved_digits(classes=3)
    model = Classifier(network=network, activation="tanh", **QUICK).fit(images[:400], target[:400])
    assert model.score(images[400:], target[400:]) > 0.75
    assert model.model_.network.kind == "lenet"


def test_a_quantity_of_each_image_is_learned() -> None:
    # Where the bright spot is, which is what one pixel or its mean cannot say.
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (300, 10, 10), dtype=np.uint8)
    rows, columns = random.integers(0, 10, (2, 300))
    images[np.arange(300), rows, columns] = 255
    distance = np.hypot(rows - 4.5, columns - 4.5) * 100
    model = Regressor(max_epochs=25, refit=False).fit(images[:220], distance[:220])
    assert model.score(images[220:], distance[220:]) > 0.5
    assert model.predict_interval(images[220:], 0.9).shape == (80, 2)
    assert 0 < model.scale_ < 200


def test_several_labels_of_each_image_are_learned() -> None:
    images, target = digits()
    labels = np.stack([target % 2, target > 4], axis=1).astype(int)
    model = Classifier(max_epochs=8, refit=False).fit(images[:600], labels[:600])
    assert model.predict_proba(images[600:]).shape == (len(images) - 600, 2)
    assert (model.predict(images[600:]) == labels[600:]).mean() > 0.8


# --- whatever the images come in --------------------------------------------------------------------------------------


def test_arrays_tensors_types_and_axes_give_the_same_model() -> None:
    images, target = digits()
    images, target = images[:120], target[:120]
    expected = Classifier(**BRIEF).fit(images, target).predict_proba(images)
    for same in (
        images[..., None], torch.from_numpy(images), images.astype(np.int64), images.astype(np.float64),
        images[::-1][::-1], np.asfortranarray(images), list(images), [torch.from_numpy(image) for image in images],
    ):  # fmt: skip
        np.testing.assert_array_equal(Classifier(**BRIEF).fit(same, target).predict_proba(same), expected)
    model = Classifier(**BRIEF).fit(images, polars.Series("digit", target))
    np.testing.assert_array_equal(model.predict_proba(torch.from_numpy(images)), expected)
    assert model.model_.target_names == ("digit",)


def test_colors_are_told_apart() -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 3, 200)
    images = random.integers(0, 100, (200, 8, 8, 3), dtype=np.uint8)
    images[np.arange(200), ..., target] += 100
    model = Classifier(max_epochs=8, refit=False).fit(images[:150], target[:150])
    assert model.score(images[150:], target[150:]) > 0.95
    # A twin with its channels in another order must be told from it.
    assert model.score(images[150:][..., ::-1], target[150:]) < 0.7


@pytest.mark.parametrize("kind", ["channel", "channel_mean", "mean_image", "none"])
def test_every_scaling_gives_a_network_numbers_of_order_one(kind: str) -> None:
    images, target = digits()
    model = Classifier(image_scaling=kind, **BRIEF).fit(images[:100], target[:100])
    features = model.model_.features(images[:100])
    assert features.dtype == torch.float32
    assert features.shape == (100, 1, 8, 8)
    assert 0.05 < float(features.std()) < 1.5
    if kind != "none":
        assert abs(float(features.mean())) < 1e-5


def test_the_random_state_stays_and_the_seed_decides() -> None:
    images, target = digits()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, two, other = (
        Classifier(random_state=seed, shifts=1, **BRIEF).fit(images[:100], target[:100]).predict_proba(images[:20])
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


def test_inputs_are_left_as_they_were() -> None:
    images, target = digits()
    images = images[:60].astype(np.float32)
    before = images.copy()
    model = Classifier(**BRIEF).fit(images, target[:60])
    model.predict_proba(images)
    np.testing.assert_array_equal(images, before)
    assert not model.model_.network.training


# --- everything that tables have --------------------------------------------------------------------------------------


def test_a_saved_model_predicts_bit_for_bit_alike(brief: Classifier, tmp_path: Path) -> None:
    images, _ = digits()
    brief.save(tmp_path / "model")
    again = lastlayer.load(tmp_path / "model")
    assert isinstance(again, Classifier)
    np.testing.assert_array_equal(again.predict_proba(images), brief.predict_proba(images))
    np.testing.assert_array_equal(again.predict_set(images, 0.8), brief.predict_set(images, 0.8))
    assert again.get_params() == brief.get_params()
    assert again.n_features_in_ == brief.n_features_in_ == 64
    assert not hasattr(again, "feature_names_in_")
    assert sorted(entry.name for entry in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_dropout_members_calibration_and_sets_go_through(brief: Classifier) -> None:
    images, _ = digits()
    assert brief.model_.calibration is not None
    np.testing.assert_allclose(brief.predict_proba(images[:30]).sum(1), 1, atol=1e-9)
    parts = brief.decompose(images[:30])
    assert (parts.epistemic > 0).all()
    assert brief.predict_set(images[300:400], 0.9).shape == (100, 10)


def test_weights_of_rows_and_of_classes_count() -> None:
    images, target = digits()
    images, target = images[:200], (target[:200] < 2).astype(int)
    weight = np.where(target == 1, 1.0, 0.0)
    weight[:20] = 1.0
    one = Classifier(**BRIEF).fit(images, target, sample_weight=weight)
    two = Classifier(**BRIEF).fit(images[weight > 0], target[weight > 0])
    np.testing.assert_allclose(one.predict_proba(images), two.predict_proba(images), rtol=1e-4, atol=1e-6)
    balanced = Classifier(class_weight="balanced", **BRIEF).fit(images, target)
    assert balanced.model_.class_weight is not None


def test_images_come_in_parts() -> None:
    images, target = digits()
    model = Classifier()
    losses = []
    for _ in range(12):
        model.partial_fit(images[:128], target[:128], classes=np.arange(10))
        losses.append(model.loss_curve_[-1])
    assert losses[-1] < 0.6 * losses[0]
    assert model.predict(images[:5]).shape == (5,)


def test_parameters_are_those_of_scikit_learn() -> None:
    options = {"network": "lenet", "shifts": 2, "image_scaling": "mean_image"}
    assert {name: clone(Classifier(**options)).get_params()[name] for name in options} == options
    assert {name: Regressor(**options).get_params()[name] for name in options} == options


def test_large_images_are_judged_a_few_at_a_time() -> None:
    seen: list[int] = []

    def network(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part.flatten(1)[:, :2]

    module = torch.nn.Module()
    module.forward = network  # type: ignore[method-assign]
    large = torch.arange(60.0).view(60, 1, 1, 1).expand(60, 3, 512, 512)
    assert torch.equal(forward(module, large)[:, 0], torch.arange(60.0))
    # 60 at once would be 180 MB, and their first maps several times as much.
    assert max(seen) * large[0].numel() <= 2**22
    seen.clear()
    assert len(forward(module, torch.zeros(5000, 4))) == 5000
    assert seen == [4096, 904]


# --- the recipe -------------------------------------------------------------------------------------------------------


def test_rows_held_out_are_capped_beyond_what_tables_of_the_benchmarks_have() -> None:
    assert usual_fraction(50_000) == 0.15
    assert usual_fraction(43_152) == 0.15
    assert round(60_000 * usual_fraction(60_000)) == 7500
    assert usual_fraction(0) == 0.15


def test_the_recipe_of_tables_is_as_it_was_and_images_have_their_own() -> None:
    table = Recipe().plan(20_000, classes=True)
    assert (table.schedule, table.learning_rate, table.max_epochs, table.patience) == ("constant", 2e-3, 60, 16)
    images = Recipe().plan(52_500, classes=True, images=True)
    assert (images.schedule, images.batch_size, images.max_epochs) == ("cosine", 256, 15)
    assert images.patience >= images.max_epochs
    assert Recipe().plan(100, classes=True, images=True).max_epochs * 4 >= 2000
    own = Recipe(schedule="step", learning_rate=1e-3, max_epochs=3, patience=2).plan(100, classes=True, images=True)
    assert (own.schedule, own.learning_rate, own.max_epochs, own.patience) == ("step", 1e-3, 3, 2)


def test_a_share_that_is_named_is_held_out_whatever_there_is() -> None:
    images, target = digits()
    model = Classifier(validation_fraction=0.4, **BRIEF).fit(images[:100], target[:100] % 2)
    assert model.model_.record["rows"]["held_out"] == pytest.approx(40, abs=1)


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bins": 4}, "bins is 4, which is for a table"),
        ({"members": 3}, "members is 3, which is for a table"),
        ({"hidden": (64,)}, "hidden is"),
        ({"share_weights": True}, "share_weights"),
        ({"keep": ["x"]}, "keep is"),
        ({"max_categories": 5}, "max_categories"),
        ({"network": "vgg"}, "network is 'vgg'"),
        ({"network": "lenet"}, "12 × 12 at least"),
        ({"shifts": -1}, "shifts is -1"),
        ({"image_scaling": "zca"}, "zca"),
        ({"dropout": 0.0, "dropout_members": 3}, "no dropout to draw from"),
    ],
)
def test_options_that_do_not_go_with_images(options: dict[str, Any], said: str) -> None:
    images, target = digits()
    with pytest.raises(InputError, match=said):
        Classifier(**options, **BRIEF).fit(images[:50], target[:50])


@pytest.mark.parametrize("options", [{"network": "lenet"}, {"shifts": 1}, {"image_scaling": "none"}])
def test_options_that_do_not_go_with_tables(options: dict[str, Any]) -> None:
    images, target = digits()
    with pytest.raises(InputError, match=r"which is for images, and X holds a table"):
        Classifier(**options, **BRIEF).fit(images[:50].reshape(50, -1), target[:50])


def test_options_at_their_defaults_are_no_fault_however_they_are_spelled() -> None:
    images, target = digits()
    Classifier(hidden=[256, 256], keep=[], network=None, **BRIEF).fit(images[:40], target[:40])


def test_images_that_are_none() -> None:
    images, target = digits()
    images, target = images[:50], target[:50]
    model = Classifier(**BRIEF)
    broken = images.astype(float)
    broken[7, 3, 3] = np.nan
    for wrong, said in (
        (broken, "finite"),
        (images[:, None, :, :].repeat(3, 1).repeat(4, 2).repeat(4, 3), "came first"),
        (images[:, :, :0], "no pixel"),
        (images[:0], "at least one image"),
    ):
        with pytest.raises(InputError, match=said):
            model.fit(wrong, target[: len(wrong)])
    with pytest.raises(KindError, match="expected whole numbers"):
        model.fit(images.astype(complex), target)
    with pytest.raises(InputError, match="50 rows and y 49"):
        model.fit(images, target[:49])
    with pytest.raises(ShapeError, match=r"number 49 .* \(4, 8\)"):
        model.fit([*images[:49], images[49][:4]], target)
    with pytest.raises(InputError, match="one class only"):
        model.fit(images, np.zeros(50))


def test_images_of_another_kind_than_those_learned_from(brief: Classifier) -> None:
    images, target = digits()
    with pytest.raises(ShapeError, match=r"8 × 9 pixels, 1 channel, and the model learned from 8 × 8"):
        brief.predict(np.zeros((2, 8, 9), np.uint8))
    with pytest.raises(ShapeError, match="3 channels"):
        brief.predict(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="X holds a table, and the model learned from images"):
        brief.predict(images[:5].reshape(5, -1))
    table = Classifier(max_epochs=1, refit=False).fit(images[:60].reshape(60, -1), target[:60])
    with pytest.raises(InputError, match="X holds images, and the model learned from a table"):
        table.predict(images[:5])


def test_pixels_on_another_scale_are_noticed(brief: Classifier) -> None:
    images, _ = digits()
    with pytest.warns(LastLayerWarning, match="on another scale"):
        brief.predict(images[:20] / 255)
    # Dark ones, and those of few gray levels, are no other scale.
    brief.predict(images[:20] // 100)
    brief.predict(np.zeros((2, 8, 8), np.uint8))


def test_three_images_and_one_of_a_class() -> None:
    images, _ = digits()
    model = Classifier(**BRIEF).fit(images[:3], ["a", "b", "c"])
    assert model.predict_proba(images[:3]).shape == (3, 3)
    assert model.model_.record["judged_on"].startswith("training rows")
    with pytest.raises(InputError, match="no scores of held-out rows"):
        model.predict_set(images[:3])


def test_what_was_learned_stays_when_a_later_fit_fails(brief: Classifier) -> None:
    images, target = digits()
    expected = brief.predict_proba(images[:10])
    with pytest.raises(InputError):
        brief.fit(images[:50], target[:49])
    np.testing.assert_array_equal(brief.predict_proba(images[:10]), expected)
