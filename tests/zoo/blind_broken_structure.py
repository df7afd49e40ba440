"""Broken set-ups, structure: what is lost, unused, frozen or misshapen; written without a look at the doctor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import blind_data as made
from zoo.blind_networks import Attentive, Forecaster, Painter, Reader, adam, color_conv
from zoo.data import digits, with_features, with_target
from zoo.networks import mlp
from zoo.setup import Case, broken_blind


@broken_blind("value_never_used")
def a_branch_that_is_not_added() -> Case:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(16, 16, 3, padding=1)
            self.second = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            inner = self.second(F.relu(self.first(x)))  # noqa: F841
            return F.relu(x)

    stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
    network = nn.Sequential(stem, Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), epochs=3)


@broken_blind("value_never_used")
def normalized_to_no_effect() -> Case:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = mlp([8, 48, 8])

        def forward(self, x: Tensor) -> Tensor:
            x = self.encoder(x)
            F.normalize(x, dim=-1)
            return 3 * (x[:, 0] * x[:, 1]).sum(1)

    return Case(Siamese(), nn.BCEWithLogitsLoss(), *made.pairs())


@broken_blind("value_never_used")
def places_not_added() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.places = nn.Embedding(60, 16), nn.Embedding(12, 16)
            self.block, self.last = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            x + self.places(torch.arange(tokens.shape[1]))
            return self.last(self.block(x).mean(dim=1))

    return Case(Net(), nn.CrossEntropyLoss(), *made.documents(600), epochs=3)


@broken_blind("softmax_without_dimension")
def weights_of_attention_without_their_axis() -> Case:
    return Case(Attentive(dim=None), nn.CrossEntropyLoss(), *made.documents(), epochs=0)


@broken_blind("softmax_without_dimension")
def softened_student_without_an_axis() -> Case:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        taught = F.softmax(3 * F.one_hot(target, 10).float(), dim=1)
        return F.kl_div(F.log_softmax(raw / 3), taught, reduction="batchmean")

    return Case(mlp([64, 32, 10], nn.SiLU), loss, *digits(), epochs=0)


@broken_blind("layer_shape_mismatch")
def time_last_where_channels_belong() -> Case:
    parts = with_features(made.sensors(), lambda x: x.mT)
    return Case(Forecaster(3, channels=3, length=20), nn.CrossEntropyLoss(), *parts, epochs=0)


@broken_blind("layer_shape_mismatch")
def both_directions_into_a_layer_for_one() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(1, 32, batch_first=True, bidirectional=True)
            self.last = nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.lstm(x.mT)
            return self.last(states[:, -1])

    return Case(Net(), nn.MSELoss(), *made.windows(), epochs=0)


@broken_blind("layer_shape_mismatch")
def made_for_pictures_of_another_size() -> Case:
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 8 * 8, 64), nn.ReLU(), nn.Linear(64, 4)),
    )
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), epochs=0)


@broken_blind("unused_parameter")
def the_first_norm_twice() -> Case:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.wide = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

        def forward(self, x: Tensor) -> Tensor:
            normed = self.norm1(x)
            x = x + self.attention(normed, normed, normed, need_weights=False)[0]
            return x + self.wide(self.norm1(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.block, self.last = nn.Embedding(60, 16), Block(), nn.Linear(16, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.last(self.block(self.embedding(tokens)).mean(dim=1))

    return Case(Net(), nn.CrossEntropyLoss(), *made.documents(600), epochs=3)


@broken_blind("unused_parameter")
def code_taken_out_of_the_graph() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp([16, 24, 4]), mlp([4, 24, 16])

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                code = self.encoder(x.flatten(1))
            return self.decoder(code).unsqueeze(1)

    (x, _), (x_validation, _) = made.windows()
    return Case(Net(), nn.MSELoss(), (x, x), (x_validation, x_validation), epochs=4)


@broken_blind("frozen_parameter")
def embedding_from_random_vectors() -> Case:
    class Net(Reader):
        def __init__(self) -> None:
            super().__init__()
            # ``freeze=True`` is the default.
            self.embedding = nn.Embedding.from_pretrained(0.1 * torch.randn(60, 24), padding_idx=0)

    return Case(Net(), nn.CrossEntropyLoss(), *made.documents(), epochs=5)


@broken_blind("frozen_parameter")
def frozen_as_in_the_transfer_example_but_never_trained() -> Case:
    network = color_conv()
    for module in network[:-1]:
        for parameter in module.parameters():
            parameter.requires_grad = False
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=optimizer, epochs=4)


@broken_blind("parameter_not_optimized")
def last_layer_replaced_after_the_optimizer_was_made() -> Case:
    network = color_conv(outputs=10)
    optimizer = adam(network)
    network[-1] = nn.Linear(32, 4)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=optimizer, epochs=4)


@broken_blind("parameter_not_optimized")
def only_one_of_two_parts_is_given() -> Case:
    network = Reader()
    optimizer = torch.optim.AdamW(network.body.parameters(), lr=3e-3)
    return Case(network, nn.CrossEntropyLoss(), *made.documents(), optimizer=optimizer)


@broken_blind("parameter_not_optimized")
def layers_in_a_plain_list() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # No ``ModuleList``: ``parameters()`` does not know them.
            self.hidden = [nn.Linear(8, 48), nn.Linear(48, 48)]
            self.last = nn.Linear(48, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.hidden:
                x = F.relu(layer(x))
            return self.last(x)

    return Case(Net(), nn.MSELoss(), *made.robots())


@broken_blind("decay_on_slopes")
def decayed_slopes_of_a_forecast() -> Case:
    network = Forecaster(activation=nn.PReLU)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    return Case(network, nn.MSELoss(), *made.windows(), optimizer=optimizer)


@broken_blind("decay_on_slopes")
def decayed_slopes_of_each_channel() -> Case:
    stem = [nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16)]
    network = nn.Sequential(
        *stem, nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), optimizer=optimizer, epochs=4)


@broken_blind("batch_norm_of_one")
def one_window_at_a_time() -> Case:
    network = nn.Sequential(nn.Flatten(), *mlp([16, 24, 1], nn.SiLU, normalization=nn.BatchNorm1d))
    return Case(network, nn.MSELoss(), *made.windows(), shown=1, batch_size=1, epochs=0)


@broken_blind("batch_norm_of_one")
def one_picture_at_a_time_through_a_pooled_gate() -> Case:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(
                *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 32, 1)),
                nn.Sigmoid(),
            )

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gate(x)

    layers = list(color_conv(norm=False))
    network = nn.Sequential(*layers[:4], Gate(), *layers[4:])
    return Case(network, nn.CrossEntropyLoss(), *made.pictures(), shown=1, batch_size=1, epochs=0)


@broken_blind("wrong_gradient")
def sine_whose_slope_forgets_the_rate() -> Case:
    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(x)
            return torch.sin(6 * x)

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return gradient * torch.cos(6 * x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(Sine.apply(self.second(Sine.apply(self.first(x))) / 6))

    network = Net()
    return Case(network, nn.MSELoss(), *made.wave(), optimizer=adam(network))


@broken_blind("wrong_gradient")
def quantile_loss_with_its_sides_exchanged() -> Case:
    class Pinball(torch.autograd.Function):
        @staticmethod
        def forward(ctx, raw: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
            error = target - raw
            ctx.save_for_backward(error)
            return torch.maximum(0.9 * error, -0.1 * error).mean()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
            (error,) = ctx.saved_tensors
            slope = torch.where(error > 0, -0.1, 0.9)
            return gradient * slope / error.numel(), None

    return Case(mlp([8, 32, 1]), Pinball.apply, *made.table())


@broken_blind("not_a_number")
def distance_of_equal_rows() -> Case:
    (x, y), validation = made.pairs()
    x, y = x.clone(), y.clone()
    # A row beside itself, as a list of all pairs has it.
    x[::50, 1], y[::50] = x[::50, 0], 1.0

    def loss(raw: Tensor, target: Tensor) -> Tensor:
        distance = torch.sqrt(((raw[:, 0] - raw[:, 1]) ** 2).sum(1))
        return (target * distance**2 + (1 - target) * F.relu(1 - distance) ** 2).mean()

    return Case(mlp([8, 32, 8], nn.Tanh), loss, (x, y), validation, epochs=2)


@broken_blind("not_a_number")
def documents_that_are_all_padding() -> Case:
    class Net(Attentive):
        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            score = self.score(x).squeeze(-1).masked_fill(tokens == 0, float("-inf"))
            return self.last((score.softmax(dim=1).unsqueeze(-1) * x).sum(1))

    (x, y), validation = made.documents()
    x = x.clone()
    x[7::40] = 0
    return Case(Net(), nn.CrossEntropyLoss(), (x, y), validation, epochs=2)


@broken_blind("not_a_number")
def logarithm_of_counts_with_zeros() -> Case:
    parts = with_target(made.events(), torch.log)
    return Case(mlp([5, 32, 1]), nn.MSELoss(), *parts, epochs=2)


@broken_blind("not_a_number")
def divided_by_a_deviation_of_zero() -> Case:
    def beside_a_constant(x: Tensor) -> Tensor:
        x = torch.cat([x, torch.full((len(x), 1), 37.0)], dim=1)
        return (x - x.mean(0)) / x.std(0)

    parts = with_features(made.robots(), beside_a_constant)
    return Case(mlp([9, 32, 3]), nn.MSELoss(), *parts, epochs=2)


@broken_blind("value_never_used")
def mask_smoothed_and_thrown_away() -> Case:
    class Net(Painter):
        def forward(self, x: Tensor) -> Tensor:
            mask = super().forward(x)
            F.avg_pool2d(mask, 3, stride=1, padding=1)
            return mask

    return Case(Net(), nn.BCEWithLogitsLoss(), *made.discs(), batch_size=32, epochs=3)
