"""The data are not what a network can learn well from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import data
from zoo.networks import conv, mlp
from zoo.setup import Case, broken


def _raw(name: str) -> data.Split:
    return data.split(*data._loaded(name))


@broken("unscaled_inputs")
def raw_columns_of_tumors() -> Case:
    parts = data.as_column(data.with_target(_raw("breast_cancer"), lambda y: y.float()))
    return Case(mlp([30, 32, 1]), nn.BCEWithLogitsLoss(), *parts)


@broken("unscaled_inputs")
def raw_columns_of_wines() -> Case:
    return Case(mlp([13, 32, 3], nn.Tanh), nn.CrossEntropyLoss(), *_raw("wine"))


@broken("unscaled_inputs")
def one_column_in_other_units() -> Case:
    def in_grams(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1] * 1000 + 70_000, x[:, 1:]], dim=1)

    parts = data.with_features(data.friedman(), in_grams)
    return Case(mlp([10, 32, 1]), nn.MSELoss(), *data.as_column(parts))


@broken("unscaled_inputs")
def images_of_255() -> Case:
    parts = data.with_features(data.digit_images(), lambda x: (x - x.min()) / (x.max() - x.min()) * 255)
    return Case(conv(), nn.CrossEntropyLoss(), *parts)


@broken("unscaled_target")
def prices_in_cents() -> Case:
    parts = data.with_target(data.friedman(), lambda y: 2e7 + 8e6 * y)
    return Case(mlp([10, 32, 1]), nn.MSELoss(), *data.as_column(parts))


@broken("unscaled_target")
def years_as_they_are() -> Case:
    parts = data.with_target(data.diabetes(), lambda y: 1980 + 15 * y)
    return Case(mlp([10, 32, 1], nn.ELU, last=[nn.Flatten(0)]), nn.L1Loss(), *parts)


@broken("same_sign_inputs")
def temperatures_in_kelvin() -> Case:
    parts = data.with_features(data.friedman(), lambda x: 30 + x)
    return Case(mlp([10, 32, 1], nn.Tanh), nn.MSELoss(), *data.as_column(parts))


@broken("same_sign_inputs")
def columns_far_from_zero() -> Case:
    parts = data.with_features(data.wines(), lambda x: 20 + x)
    return Case(mlp([13, 32, 3]), nn.CrossEntropyLoss(), *parts)


@broken("unbalanced_classes")
def one_of_a_hundred() -> Case:
    torch.manual_seed(0)
    x = torch.randn(3000, 8)
    y = (x[:, 0] + x[:, 1] + torch.randn(3000) > 4.1).float()
    return Case(
        mlp([8, 32, 1], last=[nn.Flatten(0)]), nn.BCEWithLogitsLoss(), (x[:2250], y[:2250]), (x[2250:], y[2250:])
    )


@broken("unbalanced_classes")
def a_rare_digit() -> Case:
    (x, y), validation = data.digits()
    kept = (y != 3) | (torch.arange(len(y)) % 60 == 0)
    return Case(mlp([64, 32, 10]), nn.CrossEntropyLoss(), (x[kept], y[kept]), validation)


@broken("constant_column")
def columns_that_never_change() -> Case:
    parts = data.with_features(data.friedman(), lambda x: torch.cat([x, torch.full((len(x), 2), 7.0)], dim=1))
    return Case(mlp([12, 32, 1]), nn.MSELoss(), *data.as_column(parts))


@broken("constant_column")
def a_constant_among_tumors() -> Case:
    parts = data.with_features(data.tumors(), lambda x: torch.cat([x[:, :5] * 0 + 1.5, x[:, 5:]], dim=1))
    return Case(mlp([30, 16, 1]), nn.BCEWithLogitsLoss(), *data.as_column(parts))


def _leaked(parts: data.Split, leak: object) -> data.Split:
    (x, y), (x_validation, y_validation) = parts
    add = lambda x, y: torch.cat([x, leak(y).float().reshape(-1, 1)], dim=1)  # type: ignore[operator]  # noqa: E731
    return (add(x, y), y), (add(x_validation, y_validation), y_validation)


@broken("leaking_column")
def target_among_the_inputs() -> Case:
    parts = _leaked(data.diabetes(), lambda y: 3 * y + 1)
    return Case(mlp([11, 32, 1]), nn.MSELoss(), *data.as_column(parts))


@broken("leaking_column")
def the_class_as_a_column() -> Case:
    parts = _leaked(data.digits(), lambda y: (y - 4.5) / 3)
    return Case(mlp([65, 32, 10]), nn.CrossEntropyLoss(), *parts)


@broken("leaking_column")
def a_column_known_only_afterwards() -> Case:
    parts = _leaked(data.moons(), lambda y: 2 * y + 0.01 * torch.randn(len(y)))
    return Case(mlp([3, 16, 1], nn.Tanh, last=[nn.Flatten(0)]), nn.BCEWithLogitsLoss(), *parts)


@broken("duplicated_rows")
def rows_drawn_with_replacement_before_the_split() -> Case:
    (x, y), _ = data.friedman()
    drawn = torch.randint(len(y), (1200,))
    x, y = x[drawn], y[drawn].unsqueeze(1)
    return Case(mlp([10, 32, 1]), nn.MSELoss(), (x[:900], y[:900]), (x[900:], y[900:]))


@broken("duplicated_rows")
def validation_rows_among_the_training_rows() -> Case:
    (x, y), (x_validation, y_validation) = data.digit_images()
    training = (torch.cat([x, x_validation[:200]]), torch.cat([y, y_validation[:200]]))
    return Case(conv(), nn.CrossEntropyLoss(), training, (x_validation, y_validation))
