"""``lastlayer doctor``: what is wrong with a network in a user's file, or with a model folder, and what to do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lastlayer import diagnosis, heads
from lastlayer.checks import InputError
from lastlayer.commands.loss_names import loss_by_name
from lastlayer.commands.made_up import make_up_inputs, make_up_target
from lastlayer.commands.source import Source, read_source, say
from lastlayer.commands.task import TakenApart, take_apart
from lastlayer.commands.user_data import features_for, target_for
from lastlayer.commands.user_file import Setup, setup_from, split_reference, user_module
from lastlayer.diagnosis import Findings
from lastlayer.diagnosis.examination import CHECK_FAILED, read_batch
from lastlayer.diagnosis.model_record import judge_model_record
from lastlayer.diagnosis.run_questions import FAULTS as RUN_FAULTS
from lastlayer.diagnosis.subject import run
from lastlayer.diagnosis.table_questions import ask_about_table
from lastlayer.heads import Head
from lastlayer.heads.targets import present_values
from lastlayer.model import Model
from lastlayer.model_folder import load_model
from lastlayer.preprocessing import TableEncoder

#: Rows of a table that the network is examined on.
SHOWN = 512
_SEED = 0


@dataclass
class Examined:
    """What was looked at, for the record.

    Attributes:
        network: what it is and where it was found.
        parameters: how many numbers it learns.
        loss: what it is trained by; ``None`` if nothing is known.
        batch: what it was examined on.
        data: the table or images, if any were given.
        questions: what was looked for.
        notes: what was assumed, in sentences.
    """

    network: str
    parameters: int
    loss: str | None = None
    batch: str | None = None
    data: str | None = None
    questions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: The network, its loss and its batch, for the record of its layers.
    seen: tuple[nn.Module, Any, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {name: value for name, value in vars(self).items() if name != "seen"}


def doctor(
    what: str,
    *,
    data: Path | None = None,
    target: str | None = None,
    loss: str | None = None,
    thousands: bool = False,
    layers: bool = False,
) -> dict[str, Any]:
    """The findings, with what was examined.

    Args:
        what: ``FILE.py:NAME``, ``FILE.py``, or a model folder.
        data: a table or images to examine on.
        target: the column of it to predict; a model knows its own.
        loss: by name; the file's own otherwise.
        thousands: see :func:`lastlayer.preprocessing.read_table`.
        layers: add the record of every layer, under ``"layers"``.

    Raises:
        InputError: for what is neither, and for whatever the user's file raises.
    """
    path, name = split_reference(what)
    with _user_mode():
        if path.suffix == ".py":
            examined, findings = _examine_file(path, name, data, target, loss, thousands)
        elif path.is_dir():
            for option, value in (("--target", target), ("--loss", loss)):
                if value is not None:
                    raise InputError(f"{option} is for a file; the model in {path} knows its own. Leave it out.")
            examined, findings = _examine_folder(path, data, thousands)
        else:
            there = "is neither" if path.exists() else "is not there; expected"
            raise InputError(f"{what} {there} a Python file, such as net.py:Net, or a model folder.")
        records = _layers(examined) if layers else {}
    return {"examined": examined.to_dict(), **findings.to_dict(), **records}


def _layers(examined: Examined) -> dict[str, Any]:
    """The signal of every layer on the batch that was examined."""
    if examined.seen is None:
        raise InputError("--layers looks at the network on a batch, and there is none. Give --data.")
    network, loss, batch = examined.seen
    features, target = read_batch(batch)
    records = diagnosis.record_layers(network, features, None if target is None else loss, target)
    return {"layers": [record.to_dict() for record in records]}


# --- a file -----------------------------------------------------------------------------------------------------------


def _examine_file(
    path: Path, name: str | None, data: Path | None, target: str | None, loss: str | None, thousands: bool
) -> tuple[Examined, Findings]:
    if target is not None and data is None:
        raise InputError("--target names a column, and no --data was given. Give the table too.")
    with user_module(path) as module:
        setup = setup_from(module, path, name)
        examined = Examined(f"{setup.name} of {path}", _count(setup.network), questions=_questions())
        questions = Findings()
        if data is not None:
            source = read_source(data, part="train", thousands=thousands)
            say(*source.notes)
            task = take_apart(source, target)
            inputs, words = features_for(setup.network, source, task.present_inputs, path)
            chosen = _chosen_loss(setup, loss, inputs, task, examined)
            coded = target_for(setup.network, chosen, inputs, task)
            examined.data, questions = source.in_words, _ask_about(source, task, classes=coded.classes)
            order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(_SEED))[:SHOWN]
            wanted = coded.target
            batch: Any = (inputs[order], None if wanted is None else wanted[order])
            training = setup.training or (None if wanted is None else (inputs, wanted))
            examined.batch = f"{len(order)} {source.noun}s: {words}{coded.words}"
        else:
            chosen, batch = _without_data(setup, loss, path, examined)
            training = setup.training
        examined.loss, examined.seen = _name_of(chosen), (setup.network, chosen, batch)
        findings = diagnosis.diagnose(
            setup.network,
            chosen,
            batch,
            optimizer=setup.optimizer,
            validation=setup.validation,
            training=training,
        )
    return examined, questions + [finding for finding in findings if finding.name not in questions.names]


def _without_data(setup: Setup, loss: str | None, path: Path, examined: Examined) -> tuple[Any, Any]:
    """The loss and the batch of the file, or made up where it has none."""
    features: Any
    if setup.batch is not None:
        features, target = read_batch(setup.batch)
        examined.batch = f"the batch that {setup.name} gives"
    else:
        made, target = make_up_inputs(setup.network), None
        if made is None:
            raise InputError(
                f"{path}: what {setup.name} takes cannot be guessed from its layers. Give a table with --data, or "
                f"write a function that returns (network, loss, (features, target)), and name that."
            )
        features, examined.batch = made.features, made.words + ", made up"
        if not made.fits:
            examined.notes.append("It takes none of the shapes that its layers suggest; the likeliest was tried.")
    width = _width(setup.network, features)
    chosen = setup.loss if loss is None else loss_by_name(loss, width=width)
    if chosen is None:
        examined.notes.append("No loss is known: name one with --loss, such as --loss cross_entropy.")
        return None, (features, target)
    if target is None:
        target, words = make_up_target(setup.network, chosen, features)
        if target is None:
            examined.notes.append("No target could be made up that the loss takes, so it was left out.")
        else:
            examined.batch += f"; target {words}"
    return chosen, (features, target)


def _chosen_loss(setup: Setup, loss: str | None, inputs: Tensor, task: TakenApart, examined: Examined) -> Any:
    width = _width(setup.network, inputs)
    if loss is not None:
        return loss_by_name(loss, width=width)
    if setup.loss is not None:
        return setup.loss
    guessed = _certain_loss(setup.network, inputs, task, width)
    if guessed is None:
        examined.notes.append("No loss is known: name one with --loss, such as --loss cross_entropy.")
    else:
        examined.notes.append(
            f"The network ends without an activation and has {width} output{'s' if width != 1 else ''}, so the loss is "
            f"taken to be {_name_of(guessed)}; --loss says otherwise."
        )
    return guessed


def _certain_loss(network: nn.Module, inputs: Tensor, task: TakenApart, width: int | None) -> Any:
    """The loss that can only be meant: of raw scores, one per class; ``None`` where it is not that plain."""
    made = run(network, None, inputs[:SHOWN], None, training=False)
    last = [operation for operation in made.of_network if operation.returned]
    if made.raw is None or len(last) != 1 or last[0].role != "weight":
        return None
    head = heads.choose_head(task.target, name=task.name).head
    if isinstance(head, heads.Bernoulli) and width == 1:
        return nn.BCEWithLogitsLoss()
    if isinstance(head, heads.Bernoulli | heads.Categorical) and width == (getattr(head, "classes", 2)):
        return nn.CrossEntropyLoss()
    if isinstance(head, heads.MultiLabel) and width == head.labels:
        return nn.BCEWithLogitsLoss()
    return nn.MSELoss() if isinstance(head, heads.Gaussian) and width == 1 else None


# --- a model folder ---------------------------------------------------------------------------------------------------


def _examine_folder(folder: Path, data: Path | None, thousands: bool) -> tuple[Examined, Findings]:
    model = load_model(folder)
    examined = Examined(f"the model in {folder}", _count(model.network), loss=f"head {model.head.facts.name}")
    findings = judge_model_record(model.record)
    if data is None:
        examined.questions = ["worse_than_constant", "worse_than_linear", "overfitting", "not_a_number"]
        examined.notes.append("Its record was read. With --data TABLE its network and the table are examined too.")
        return examined, findings
    source = read_source(data, part="train", model=model, thousands=thousands)
    say(*source.notes)
    task = take_apart(source, model.target_names)
    if not task.present.any():
        raise InputError(f"no {source.noun} has a value of {task.name!r}; there is nothing to examine the network on.")
    coded = torch.from_numpy(np.asarray(model.coding.encode(_present_target(task))))
    features = model.features(task.present_inputs).cpu()
    examined.questions = _questions()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(_SEED))[:SHOWN]
    network, loss = _network_and_loss(model, examined)
    examined.data, examined.batch = source.in_words, f"{len(order)} {source.noun}s of it, coded as the model does"
    findings += _ask_about(source, task, classes=model.head.over_classes, model=model)
    told = findings.names
    examined.seen = (network, loss, (features[order], coded[order]))
    found = diagnosis.diagnose(*examined.seen, training=(features, coded))
    return examined, findings + [finding for finding in found if finding.name not in told]


def _network_and_loss(model: Model, examined: Examined) -> tuple[nn.Module, Any]:
    """A single network on the CPU, and its loss with the weights of classes that it was trained by."""
    network, head = model.network.cpu(), model.head
    if network.members is not None:
        alone = _first_member(model)
        if alone is None:
            members = network.members
            examined.notes.append(f"Its {members} members share weights, and were examined together.")
            return network, lambda raw, target: head.loss(raw, target.expand(len(raw), *target.shape))
        examined.notes.append(f"The first of its {network.members} members was examined.")
        network = alone
    if model.class_weight is None:
        return network, head
    weight = torch.tensor(model.class_weight)
    return network, lambda raw, target: head.loss(raw, target, sample_weight=weight[target.long()])


def _first_member(model: Model) -> Any:
    """The first of networks side by side as a network of its own; ``None`` if they share weights."""
    network = model.network
    try:
        alone = type(network).from_spec({**network.spec, "members": None, "shared": False})
        own = alone.state_dict()
        state = {
            name: value if value.shape == own[name].shape else value[0] for name, value in network.state_dict().items()
        }
        alone.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError, IndexError):
        return None
    return alone.eval() if not network.spec.get("shared") else None


# --- both -------------------------------------------------------------------------------------------------------------


def _ask_about(source: Source, task: TakenApart, *, classes: bool, model: Model | None = None) -> Findings:
    """The questions about a table itself."""
    if source.kind != "table" or not task.inputs.columns:
        return Findings()
    encoder = None if model is None else model.encoder
    return ask_about_table(
        task.present_inputs,
        _present_target(task),
        name=task.name,
        classes=classes,
        weighted=model is not None and model.class_weight is not None,
        columns=encoder.columns_ if isinstance(encoder, TableEncoder) else None,
    )


def _questions() -> list[str]:
    """What is looked for before training."""
    during = {fault.name for fault in (*RUN_FAULTS, CHECK_FAILED)}
    return [name for name in diagnosis.catalog() if name not in during]


def _present_target(task: TakenApart) -> Any:
    if task.targets.width == 1:
        return present_values(task.target)[0]
    return task.targets.filter(task.present).to_numpy()


def _width(network: nn.Module, features: Any) -> int | None:
    """How many numbers per row the network puts out; ``None`` if it does not run."""
    raw = run(network, None, features, None, training=False).raw
    return None if raw is None or raw.dim() == 0 else raw.shape[1] if raw.dim() > 1 else 1


def _count(network: nn.Module) -> int:
    lazy = nn.parameter.UninitializedParameter
    return sum(0 if isinstance(each, lazy) else each.numel() for each in network.parameters())


def _name_of(loss: Any) -> str | None:
    if loss is None:
        return None
    if isinstance(loss, Head):
        return f"head {loss.facts.name}"
    return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", type(loss).__name__)


@contextlib.contextmanager
def _user_mode() -> Iterator[None]:
    """What the user's code prints goes to standard error, and the random state is the same in every run."""
    with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield
