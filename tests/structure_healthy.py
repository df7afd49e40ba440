"""Networks, losses and optimizers with nothing wrong with their structure, whatever they look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from lastlayer import activations, heads, losses
from structure_cases import Forward, classes, mlp, normal, trained

#: A network, its loss, a batch and its optimizer.
Set = tuple[nn.Module, Any, tuple[Any, Tensor], torch.optim.Optimizer | None]
HEALTHY: dict[str, Callable[[], Set]] = {}


def healthy(make: Callable[[], Set]) -> Callable[[], Set]:
    HEALTHY[make.__name__] = make
    return make


@healthy
def perceptron() -> Set:
    network = mlp(4, 16, 16, 3)
    return network, nn.CrossEntropyLoss(), (normal(32, 4), classes(32, 3)), torch.optim.AdamW(network.parameters())


@healthy
def one_linear_layer() -> Set:
    network = nn.Linear(4, 1)
    return network, F.mse_loss, (normal(32, 4), normal(32, 1)), torch.optim.SGD(network.parameters(), weight_decay=0.1)


@healthy
def residual_network() -> Set:
    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

        def forward(self, x: Tensor) -> Tensor:
            out = self.relu(self.norms[0](self.first(x)))
            out = self.norms[1](self.second(out))
            out += self.shortcut(x)
            return self.relu(out)

    network = nn.Sequential(
        Block(1, 4, 1), Block(4, 8, 2), Block(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    return network, F.cross_entropy, (normal(8, 1, 8, 8), classes(8, 3)), torch.optim.SGD(network.parameters())


@healthy
def recurrent_network_whose_states_are_dropped() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        states, (_hidden, _cell) = net.lstm(x)
        more, _ = net.gru(states)
        return net.last(more[:, -1])

    network = Forward(
        forward, lstm=nn.LSTM(4, 5, 2, batch_first=True), gru=nn.GRU(5, 5, batch_first=True), last=nn.Linear(5, 1)
    )
    return network, nn.MSELoss(), (normal(8, 6, 4), normal(8, 1)), torch.optim.Adam(network.parameters())


@healthy
def packed_sequences() -> Set:
    def forward(net: Any, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = net.lstm(packed)
        return net.last(hidden[-1])

    network = Forward(forward, lstm=nn.LSTM(4, 5, batch_first=True), last=nn.Linear(5, 1))
    return network, nn.MSELoss(), ((normal(4, 6, 4), torch.tensor([3, 6, 1, 2])), normal(4, 1)), None


@healthy
def own_cell_in_a_loop() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 5)
        outputs = []
        for step in range(x.shape[1]):
            state = torch.tanh(net.into(x[:, step]) + net.on(state))
            outputs.append(state)
        return net.last(outputs[-1])

    network = Forward(forward, into=nn.Linear(4, 5), on=nn.Linear(5, 5), last=nn.Linear(5, 1))
    return network, nn.MSELoss(), (normal(8, 6, 4), normal(8, 1)), None


@healthy
def transformer_with_a_causal_mask_and_tied_weights() -> Set:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(11, 8)
            self.place = nn.Parameter(torch.randn(6, 8) * 0.02)
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.body, self.norm = nn.TransformerEncoder(layer, 2), nn.LayerNorm(8)
            self.last = nn.Linear(8, 11, bias=False)
            self.last.weight = self.table.weight

        def forward(self, words: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
            hidden = self.body(self.table(words) + self.place, mask=mask, is_causal=True)
            return self.last(self.norm(hidden)).transpose(1, 2)

    network = Language()
    return (
        network,
        nn.CrossEntropyLoss(),
        (classes(4, 11, 6), classes(4, 11, 6)),
        torch.optim.AdamW(network.parameters()),
    )


@healthy
def attention_whose_weights_are_kept_for_a_look() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        scores = net.query(x) @ net.key(x).transpose(1, 2) / 2
        scores = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf)
        net.weights = torch.softmax(scores, dim=-1)
        mixed, _ = net.attention(x, x, x)
        return net.last((net.weights @ net.value(x) + mixed).mean(1))

    network = Forward(
        forward,
        query=nn.Linear(4, 4), key=nn.Linear(4, 4, bias=False), value=nn.Linear(4, 4), last=nn.Linear(4, 1),
        attention=nn.MultiheadAttention(4, 2, batch_first=True),
    )  # fmt: skip
    return network, nn.MSELoss(), (normal(8, 6, 4), normal(8, 1)), None


@healthy
def u_net() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        skips = []
        for down in net.downs:
            x = F.elu(down(x))
            skips.append(x)
            x = F.max_pool2d(x, 2)
        for up in net.ups:
            x = F.interpolate(x, scale_factor=2)
            x = F.elu(up(torch.cat([x, skips.pop()], 1)))
        return net.last(x)

    network = Forward(
        forward,
        downs=nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]),
        ups=nn.ModuleList([nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)]),
        last=nn.Conv2d(4, 2, 1),
    )
    return network, nn.CrossEntropyLoss(), (normal(2, 1, 8, 8), classes(2, 2, 8, 8)), None


@healthy
def checkpointed_blocks() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(checkpoint(net.block, net.first(x), use_reentrant=False))

    network = Forward(forward, first=nn.Linear(4, 8), block=mlp(8, 8, 8), last=nn.Linear(8, 1))
    return network, nn.MSELoss(), (normal(8, 4), normal(8, 1)), torch.optim.Adam(network.parameters())


@healthy
def variational_autoencoder() -> Set:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, torch.distributions.Distribution]:
        mean, log_scale = net.encoder(x).chunk(2, dim=-1)
        posterior = torch.distributions.Normal(mean, log_scale.exp())
        return net.decoder(posterior.rsample()), posterior

    def loss(output: Any, target: Tensor) -> Tensor:
        raw, posterior = output
        prior = torch.distributions.Normal(0.0, 1.0)
        return F.mse_loss(raw, target) + torch.distributions.kl_divergence(posterior, prior).mean()

    network = Forward(forward, encoder=mlp(4, 8, 4), decoder=mlp(2, 8, 4))
    x = normal(16, 4)
    return network, loss, (x, x), torch.optim.Adam(network.parameters())


@healthy
def generator_before_a_frozen_discriminator() -> Set:
    generator, discriminator = mlp(2, 8, 4, activation=nn.LeakyReLU), mlp(4, 8, 1).requires_grad_(False)
    network = nn.Sequential(generator, discriminator)
    optimizer = torch.optim.Adam(generator.parameters())
    return network, nn.BCEWithLogitsLoss(), (normal(16, 2), torch.ones(16, 1)), optimizer


@healthy
def transfer_learning_with_a_frozen_body() -> Set:
    body = trained(mlp(4, 16, 16)).requires_grad_(False)
    network = nn.Sequential(body, nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(network[2].parameters())
    return network, nn.CrossEntropyLoss(), (normal(32, 4), classes(32, 3)), optimizer


@healthy
def adapters_between_frozen_layers() -> Set:
    class Adapted(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer = layer.requires_grad_(False)
            self.down, self.up = (
                nn.Linear(layer.in_features, 1, bias=False),
                nn.Linear(1, layer.out_features, bias=False),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.up(self.down(x))

    first, second = Adapted(trained(nn.Linear(64, 64))), Adapted(trained(nn.Linear(64, 64)))
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(64, 1))
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return network, nn.MSELoss(), (normal(16, 64), normal(16, 1)), torch.optim.AdamW(learning)


@healthy
def mixture_of_experts_some_of_which_are_not_asked() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        share = net.gate(x).softmax(-1)
        expert = int(share.mean(0).argmax())
        return net.experts[expert](x) * share[:, [expert]]

    network = Forward(forward, gate=nn.Linear(4, 3), experts=nn.ModuleList([mlp(4, 8, 1) for _ in range(3)]))
    return network, nn.MSELoss(), (normal(16, 4), normal(16, 1)), torch.optim.Adam(network.parameters())


@healthy
def slopes_that_do_not_decay() -> Set:
    network = nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 8), activations.PReLU(), nn.Linear(8, 1))
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() < 2]
    groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return network, nn.MSELoss(), (normal(16, 4), normal(16, 1)), torch.optim.AdamW(groups, weight_decay=0.1)


@healthy
def gaps_that_the_network_fills() -> Set:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.body(torch.cat([torch.nan_to_num(x), x.isnan().float()], 1))

    x = normal(16, 4).masked_fill(normal(16, 4, seed=3) > 1, torch.nan)
    return Forward(forward, body=mlp(8, 8, 1)), nn.MSELoss(), (x, normal(16, 1)), None


@healthy
def targets_that_the_loss_passes_over() -> Set:
    def loss(raw: Tensor, target: Tensor) -> Tensor:
        known = target.isfinite()
        return F.mse_loss(raw[known], target[known])

    target = normal(16, 1).masked_fill(normal(16, 1, seed=3) > 1, torch.nan)
    return mlp(4, 8, 1), loss, (normal(16, 4), target), None


@healthy
def own_function_with_the_right_gradient() -> Set:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            share = torch.sigmoid(x)
            return gradient * share * (1 + x * (1 - share))

    network = Forward(lambda net, x: net.last(Swish.apply(net.first(x))), first=nn.Linear(4, 8), last=nn.Linear(8, 1))
    return network, nn.MSELoss(), (normal(16, 4), normal(16, 1)), torch.optim.Adam(network.parameters())


@healthy
def own_function_that_keeps_an_activation_for_backward() -> Set:
    class Softplus(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(torch.sigmoid(x))
            return torch.from_numpy(np.log1p(np.exp(x.detach().numpy())))

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * ctx.saved_tensors[0]

    parts = {"first": nn.Linear(4, 8), "last": nn.Linear(8, 1)}
    network = Forward(lambda net, x: net.last(Softplus.apply(net.first(x))), **parts)
    return network, nn.MSELoss(), (normal(16, 4), normal(16, 1)), torch.optim.Adam(network.parameters())


@healthy
def loss_of_ours_in_its_own_node() -> Set:
    network = mlp(4, 8, 3, activation=activations.SiLU)
    return network, losses.Focal(), (normal(16, 4), classes(16, 2, 3).float()), torch.optim.Adam(network.parameters())


@healthy
def head_of_ours() -> Set:
    head = heads.StudentT()
    network = mlp(4, 8, head.raw_size, activation=activations.ELU)
    return network, head, (normal(16, 4), normal(16)), torch.optim.Adam(network.parameters())


@healthy
def members_side_by_side() -> Set:
    class Members(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Parameter(torch.randn(3, 4, 8) / 2), nn.Parameter(torch.randn(3, 8, 1) / 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ self.first) @ self.last

    network = Members()
    loss = lambda raw, target: ((raw - target) ** 2).mean()  # noqa: E731
    return network, loss, (normal(16, 4), normal(16, 1)), torch.optim.Adam(network.parameters())


@healthy
def graph_with_a_sparse_neighborhood() -> Set:
    neighbors = (normal(30, 30).abs() < 0.3).float().to_sparse()
    network = Forward(
        lambda net, x: net.last(torch.relu(torch.sparse.mm(neighbors, net.first(x)))),
        first=nn.Linear(4, 8), last=nn.Linear(8, 1),
    )  # fmt: skip
    return network, nn.MSELoss(), (normal(30, 4), normal(30, 1)), torch.optim.Adam(network.parameters())


@healthy
def embedding_with_sparse_gradients() -> Set:
    network = nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(12, 1))
    return network, nn.MSELoss(), (classes(8, 20, 3), normal(8, 1)), torch.optim.SGD(network.parameters())


@healthy
def complex_numbers() -> Set:
    network = nn.Linear(4, 2, dtype=torch.complex64)
    loss = lambda raw, target: (raw.abs() - target).square().mean()  # noqa: E731
    return network, loss, (torch.complex(normal(8, 4), normal(8, 4, seed=2)), normal(8, 2)), None


@healthy
def wrapped_for_several_devices() -> Set:
    network = nn.DataParallel(mlp(4, 8, 1))
    return network, nn.MSELoss(), (normal(8, 4), normal(8, 1)), torch.optim.Adam(network.parameters())


@healthy
def weights_divided_by_their_norms() -> Set:
    network = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(8, 1))
    )
    return network, nn.MSELoss(), (normal(8, 4), normal(8, 1)), torch.optim.Adam(network.parameters())


@healthy
def pruned_weights() -> Set:
    network = mlp(4, 8, 1)
    prune.l1_unstructured(network[0], "weight", 0.5)
    return network, nn.MSELoss(), (normal(8, 4), normal(8, 1)), torch.optim.Adam(network.parameters())


@healthy
def students_beside_a_teacher() -> Set:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            taught = net.teacher(x)
        return net.student(x), taught

    def loss(raw: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return F.cross_entropy(raw[0], target) + F.kl_div(
            raw[0].log_softmax(1), raw[1].log_softmax(1), log_target=True, reduction="batchmean"
        )

    network = Forward(forward, student=mlp(4, 8, 3), teacher=trained(mlp(4, 16, 3)).requires_grad_(False))
    return network, loss, (normal(8, 4), classes(8, 3)), torch.optim.Adam(network.student.parameters())


@healthy
def embeddings_by_a_triplet() -> Set:
    network = Forward(lambda net, x: tuple(map(net.body, x.unbind(1))), body=mlp(4, 8, 3))
    loss = lambda raw, target: F.triplet_margin_loss(*raw)  # noqa: E731
    return network, loss, (normal(8, 3, 4), torch.zeros(8)), torch.optim.Adam(network.parameters())


@healthy
def probabilities_for_evaluation_alone() -> Set:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(4, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.body(x)
            probabilities = F.softmax(scores, dim=1)
            return scores if self.training else probabilities

    network = Classifier()
    optimizer = torch.optim.Adam(network.parameters())
    return network, nn.CrossEntropyLoss(), (normal(16, 4), classes(16, 3)), optimizer


@healthy
def layers_left_out_by_chance() -> Set:
    class Stochastic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            if not self.training or torch.rand(()) < -1:
                x = x + torch.relu(self.middle(x))
            return self.last(x)

    network = Stochastic()
    return network, nn.MSELoss(), (normal(16, 4), normal(16, 1)), torch.optim.Adam(network.parameters())


@healthy
def a_look_at_the_shapes_while_building() -> Set:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
            self.last = nn.Linear(4 * 36, 3)

        def forward(self, x: Tensor) -> Tensor:
            size = self.body(torch.zeros(1, 1, 8, 8)).shape[-1]
            norm = torch.relu(x).abs().max()
            assert torch.isfinite(norm), "too large"
            return self.last(self.body(x).reshape(len(x), 4 * size * size))

    network = Sized()
    return network, nn.CrossEntropyLoss(), (normal(8, 1, 8, 8), classes(8, 3)), torch.optim.Adam(network.parameters())
