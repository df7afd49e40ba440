"""The target does not fit the loss, or its shape that of the output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lastlayer import heads, losses
from zoo import data
from zoo.networks import conv, mlp
from zoo.setup import Case, broken


@broken("target_outside_domain")
def signed_labels_into_bce_with_logits() -> Case:
    parts = data.as_column(data.with_target(data.tumors(), lambda y: 2 * y - 1))
    return Case(mlp([30, 16, 1]), nn.BCEWithLogitsLoss(), *parts)


@broken("target_outside_domain")
def negative_counts() -> Case:
    parts = data.with_target(data.counts(), lambda y: y - 2)
    network = mlp([6, 16, 1], nn.Tanh, last=[nn.Flatten(0)])
    return Case(network, nn.PoissonNLLLoss(), *parts)


@broken("target_outside_domain")
def percentages_as_shares() -> Case:
    parts = data.with_target(data.shares(), lambda y: 100 * y)
    return Case(mlp([4, 16, 1]), heads.UnitInterval(), *parts, epochs=0)


@broken("target_outside_domain")
def pixels_of_255_into_bce() -> Case:
    images = torch.rand(256, 1, 8, 8)
    target = (255 * images).round()
    network = nn.Sequential(nn.Flatten(), *mlp([64, 16, 64], last=[nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))]))
    return Case(network, lambda raw, y: F.binary_cross_entropy_with_logits(raw, y), (images, target))


@broken("target_outside_domain")
def rows_of_probabilities_that_do_not_add_up() -> Case:
    parts = data.with_target(data.wines(), lambda y: 3.0 * F.one_hot(y, 3).float())
    return Case(mlp([13, 16, 3]), nn.CrossEntropyLoss(), *parts)


@broken("class_index_off_by_one")
def classes_counted_from_one() -> Case:
    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(), *data.with_target(data.digits(), lambda y: y + 1), epochs=0)


@broken("class_index_off_by_one")
def classes_of_images_counted_from_one() -> Case:
    parts = data.with_target(data.digit_images(), lambda y: y + 1)
    return Case(conv(), losses.CrossEntropy(), *parts, epochs=0)


@broken("too_few_outputs")
def nine_outputs_for_ten_digits() -> Case:
    return Case(mlp([64, 32, 9]), nn.CrossEntropyLoss(), *data.digits(), epochs=0)


@broken("too_few_outputs")
def one_output_for_three_classes() -> Case:
    return Case(mlp([4, 16, 1]), F.cross_entropy, *data.irises(), epochs=0)


@broken("one_hot_into_index_loss")
def whole_one_hot_into_cross_entropy() -> Case:
    parts = data.with_target(data.digits(), lambda y: F.one_hot(y, 10))
    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(), *parts, epochs=0)


@broken("one_hot_into_index_loss")
def one_hot_into_nll() -> Case:
    parts = data.with_target(data.wines(), lambda y: F.one_hot(y, 3).float())
    return Case(mlp([13, 16, 3], last=[nn.LogSoftmax(-1)]), nn.NLLLoss(), *parts, epochs=0)


@broken("shape_mismatch")
def flat_target_against_a_column() -> Case:
    return Case(mlp([10, 16, 1]), nn.MSELoss(), *data.diabetes(), epochs=2)


@broken("shape_mismatch")
def column_target_against_flat_output() -> Case:
    return Case(mlp([10, 16, 1], nn.Tanh, last=[nn.Flatten(0)]), F.l1_loss, *data.as_column(data.friedman()), epochs=2)


@broken("shape_mismatch")
def flat_labels_against_a_column_of_logits() -> Case:
    return Case(mlp([30, 16, 1], nn.ELU), nn.BCEWithLogitsLoss(), *data.tumors(), epochs=0)


@broken("shape_mismatch")
def own_squared_error_that_broadcasts() -> Case:
    return Case(mlp([10, 16, 1]), lambda raw, target: ((raw - target) ** 2).mean(), *data.friedman(), epochs=2)
