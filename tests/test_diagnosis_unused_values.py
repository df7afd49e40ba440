"""Values that nothing uses: where they are lost, and where they only look as if they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer.diagnosis.forward_source import forward_source
from structure_cases import Forward, classes, found, mlp, normal, only


class Lost(nn.Module):
    """A perceptron one of whose calls has no effect."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.act, self.norm, self.drop = nn.Tanh(), nn.LayerNorm(8), nn.Dropout()


class LostModule(Lost):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        self.act(hidden)
        return self.last(hidden)


class LostFunction(Lost):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        active = F.gelu(hidden)  # noqa: F841
        return self.last(hidden)


class LostMethod(Lost):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden.relu()
        return self.last(hidden)


class LostNorm(Lost):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        normed = self.norm(hidden)  # noqa: F841
        return self.last(hidden)


class LostDropout(Lost):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        F.dropout(hidden, 0.5, self.training)
        return self.last(hidden)


class LostInAHelper(Lost):
    def body(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        torch.sigmoid(hidden)
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))


@pytest.mark.parametrize(
    ("kind", "where", "words"),
    [
        (LostModule, "layer 'act' (Tanh)", "self.act(hidden) is assigned to nothing"),
        (LostFunction, "gelu in LostFunction's forward", "F.gelu(hidden) is assigned to active"),
        (LostMethod, "relu in LostMethod's forward", "hidden.relu() is assigned to nothing"),
        (LostNorm, "layer 'norm' (LayerNorm)", "self.norm(hidden) is assigned to normed"),
        (LostDropout, "dropout in LostDropout's forward", "is assigned to nothing"),
        (LostInAHelper, "sigmoid in LostInAHelper's forward", "torch.sigmoid(hidden) is assigned to nothing"),
    ],
)
def test_a_call_without_effect_is_found_with_its_line(kind: type[Lost], where: str, words: str) -> None:
    network = kind()
    findings = found(network, F.mse_loss, normal(16, 4), normal(16, 1))
    (finding,) = [one for one in findings if one.name != "unused_parameter"]
    assert (finding.name, finding.severity, finding.where) == ("value_never_used", "error", where)
    assert words in finding.evidence
    assert "test_diagnosis_unused_values.py" in finding.evidence
    # The line named is the line of the call.
    number = int(finding.evidence.split("line ")[1].split(" ")[0])
    with open(__file__, encoding="utf-8") as file:
        line = file.read().splitlines()[number - 1]
    assert words.split(" is assigned")[0].replace("...", "") in line or "F.dropout" in line


class Nested(nn.Module):
    """A block whose activation is lost, inside of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(8, 8), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x)
        lost = self.act(out)  # noqa: F841
        return out


def test_in_nested_modules() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Sequential(Nested()), nn.Linear(8, 1))
    finding = only(found(network, F.mse_loss, normal(16, 4), normal(16, 1)), "value_never_used", "error")
    assert finding.where == "layer '2.0.act' (ReLU)"
    assert "assigned to lost" in finding.evidence


def test_a_lost_layer_with_weights_is_a_warning_and_its_parameters_are_not_told_again() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        hidden = torch.relu(net.first(x))
        net.beside(torch.tanh(net.before(hidden)))
        return net.last(hidden)

    parts = {"first": nn.Linear(4, 8), "before": nn.Linear(8, 8), "beside": nn.Linear(8, 8), "last": nn.Linear(8, 1)}
    finding = only(found(Forward(forward, **parts), F.mse_loss, normal(16, 4), normal(16, 1)), "value_never_used")
    assert (finding.severity, finding.where) == ("warning", "layer 'beside' (Linear)")


def sound(function: Any) -> Forward:
    parts = {"first": nn.Linear(4, 8), "last": nn.Linear(8, 1), "norm": nn.LayerNorm(8)}
    return Forward(function, **parts, act=nn.ReLU(inplace=True))


def works_in_place(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    net.act(hidden)
    F.elu_(hidden)
    hidden.sigmoid_()
    F.leaky_relu(hidden, 0.1, inplace=True)
    hidden.view(-1).tanh_()
    return net.last(hidden)


def is_kept(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    net.seen = torch.relu(hidden)
    net.more = {"norm": [net.norm(hidden)]}
    return net.last(hidden)


def is_looked_at(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    rows = torch.relu(hidden).shape[0]
    assert not torch.isnan(torch.tanh(hidden)).any()
    message = f"{torch.sigmoid(hidden)}"
    number = F.softmax(hidden, dim=1)[0, 0].item()
    net.looks = (rows, message, number)
    return net.last(hidden)


def is_logged(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    net.log = torch.relu(hidden).mean().item()
    net.dead = (torch.relu(hidden) == 0).float().mean()
    return net.last(hidden)


def is_returned_beside(net: Any, x: Tensor) -> Any:
    hidden = net.first(x)
    return {"raw": net.last(hidden), "active": torch.relu(hidden)}


def goes_to_numpy(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    scale = float(torch.relu(hidden).detach().numpy().max())
    return net.last(hidden * scale)


def is_written_into_a_buffer(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    whole = torch.zeros(len(x), 8)
    whole[:, :4] = torch.relu(hidden)[:, :4]
    whole[:, 4:] = torch.tanh(hidden)[:, 4:]
    return net.last(whole)


def is_taken_by_an_inner_function(net: Any, x: Tensor) -> Tensor:
    hidden = torch.relu(net.first(x))

    def rest() -> Tensor:
        return net.last(hidden)

    return rest()


@pytest.mark.parametrize(
    "forward",
    [
        works_in_place, is_kept, is_looked_at, is_logged, is_returned_beside, goes_to_numpy, is_written_into_a_buffer,
        is_taken_by_an_inner_function,
    ],
)  # fmt: skip
def test_what_is_used_in_other_ways_is_not_told(forward: Any) -> None:
    def loss(raw: Any, target: Tensor) -> Tensor:
        return F.mse_loss(raw["raw"] if isinstance(raw, dict) else raw, target)

    network = sound(forward)
    if forward is not is_kept:
        network.norm = nn.Identity()
    findings = found(network, loss, normal(16, 4), normal(16, 1))
    assert "value_never_used" not in findings.names, str(findings)


def test_what_a_hook_may_be_waiting_for_is_not_told() -> None:
    network = LostModule()
    network.act.register_forward_hook(lambda module, args, result: None)
    assert "value_never_used" not in found(network, F.mse_loss, normal(16, 4), normal(16, 1)).names


def test_a_shared_layer_that_is_used_elsewhere_is_a_note() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        hidden = net.first(x)
        for _ in range(2):
            active = net.act(hidden)
            hidden = net.middle(active)
        net.act(hidden)
        return net.last(active)

    network = Forward(forward, first=nn.Linear(4, 8), middle=nn.Linear(8, 8), last=nn.Linear(8, 1), act=nn.Tanh())
    assert {one.severity for one in found(network, F.mse_loss, normal(16, 4), normal(16, 1))} == {"note"}


def test_without_the_source_the_evidence_does_without_it() -> None:
    lines = [
        "class Typed(Lost):",
        " def forward(self, x):",
        "  h = self.first(x)",
        "  self.act(h)",
        "  return self.last(h)",
    ]
    scope: dict[str, Any] = {"Lost": Lost}
    exec("\n".join(lines), scope)
    network = scope["Typed"]()
    assert forward_source(network) is None
    (finding,) = found(network, F.mse_loss, normal(16, 4), normal(16, 1)).errors
    assert finding.where == "layer 'act' (Tanh)"
    assert "as if there were no tanh" in finding.evidence


class Unsound(Lost):
    """It does not run; its mistakes are read from the source."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        active = torch.relu(hidden)  # noqa: F841
        kept = torch.tanh(hidden)
        _ignored = F.silu(hidden)
        F.relu(hidden, inplace=True)
        hidden.sigmoid_()
        states, _last = torch.relu(hidden), kept
        self.drop(hidden)
        self.register(hidden)
        return self.last(kept[:, :3] + states[:, :3])

    def register(self, hidden: Tensor) -> None:
        self.seen = hidden


def test_where_it_does_not_run_the_source_is_read() -> None:
    findings = found(Unsound(), F.mse_loss, normal(16, 4), normal(16, 1))
    lost = [one for one in findings if one.name == "value_never_used"]
    assert [one.where for one in lost] == ["relu in Unsound's forward", "drop in Unsound's forward"]
    assert "layer_shape_mismatch" in findings.names
    assert "Use active in line" in lost[0].fix


def test_the_source_of_a_forward() -> None:
    source = forward_source(Unsound())
    assert source is not None
    assert source.name == "Unsound"
    assert [(one.call.name, one.variable) for one in source.discarded] == [
        ("relu", "active"), ("relu", None), ("sigmoid_", None), ("drop", None), ("register", None),
    ]  # fmt: skip
    assert [call.name for call in source.returned_calls] == ["last"]
    assert source.calls[0].module is not None
    assert isinstance(source.calls[0].module, nn.Linear)
    assert forward_source(nn.Linear(2, 2)) is None
    network = mlp(4, 1)
    network.forward = lambda x: x  # type: ignore[method-assign]
    assert forward_source(network) is None


@pytest.mark.parametrize(
    ("written", "axis", "severity"),
    [
        (lambda h: F.softmax(h), -1, "warning"),
        (lambda h: F.log_softmax(h).exp(), -1, "warning"),
        (lambda h: F.softmax(h.unflatten(1, (4, 2))).flatten(1), -1, "error"),
        (lambda h: F.softmax(h.reshape(4, 8, 2, 2)).reshape(16, 8), 1, "warning"),
    ],
    ids=["table", "logarithm", "sequence", "images"],
)
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_a_softmax_without_its_axis(written: Any, axis: int, severity: str) -> None:
    network = Forward(lambda net, x: net.last(written(net.first(x))), first=nn.Linear(4, 8), last=nn.Linear(8, 1))
    finding = only(found(network, F.mse_loss, normal(16, 4), normal(16, 1)), "softmax_without_dimension")
    assert finding.severity == severity
    assert f"dim={axis}" in finding.fix
    # The axis that PyTorch takes is the one that the evidence names.
    x = normal(*{"error": (3, 4, 2)}.get(severity, (3, 4)))
    guessed = {"error": 0, "warning": 1}[severity]
    torch.testing.assert_close(F.softmax(x), F.softmax(x, dim=guessed))
    assert f"guesses axis {guessed}" in finding.evidence


@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_softmax_modules_and_softmaxes_in_the_loss() -> None:
    x, y = normal(16, 4), classes(16, 3)
    finding = only(found(mlp(4, 3).append(nn.LogSoftmax()), nn.NLLLoss(), x, y), "softmax_without_dimension")
    assert finding.where == "layer '1' (LogSoftmax)"
    loss = lambda raw, target: F.nll_loss(F.softmax(raw).log(), target)  # noqa: E731
    assert only(found(mlp(4, 3), loss, x, y), "softmax_without_dimension").where == "softmax in the loss"
    assert not found(mlp(4, 3).append(nn.LogSoftmax(dim=1)), nn.NLLLoss(), x, y)
    unsound = nn.Sequential(nn.Linear(9, 3), nn.Softmax())
    assert "softmax_without_dimension" in found(unsound, nn.NLLLoss(), x, y).names
