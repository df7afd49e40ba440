"""A user's own Python file: imported under its own name, and a network, a loss and a batch taken from it.

The file is run, as ``python FILE.py`` would, but for what it guards with ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.modules.loss import _Loss

from lastlayer.checks import InputError
from lastlayer.heads import Head
from lastlayer.losses import Loss

_KEYS = ("network", "loss", "batch", "optimizer", "validation", "training")


@dataclass(frozen=True)
class Setup:
    """What a user's file says is to be trained.

    Attributes:
        network: the network.
        name: what it is called: a class, a function or a variable of the file.
        loss: a head, a loss module or a function; ``None`` if the file says nothing.
        batch: features and target, or features; ``None`` if the file says nothing.
        optimizer, validation, training: as :func:`lastlayer.diagnose` takes them.
    """

    network: nn.Module
    name: str
    loss: Any = None
    batch: Any = None
    optimizer: Any = None
    validation: Any = None
    training: Any = None


def split_reference(text: str) -> tuple[Path, str | None]:
    """``FILE.py:NAME`` as path and name; the name may be left out, and a path may have colons of its own.

    Example:
        >>> split_reference("net.py:Net")[1]
        'Net'
    """
    path, colon, name = text.rpartition(":")
    if colon and path.endswith(".py"):
        return Path(path), name or None
    return Path(text), None


@contextmanager
def user_module(path: Path) -> Iterator[ModuleType]:
    """The file as a module under its own name, its folder first among those that are imported from, while inside.

    What it prints goes to standard error, so that the result stays alone on standard output.

    Raises:
        InputError: if there is no such file, or for whatever it raises, with the line of the user's that raised.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}.{_similar_files(path)}")
    path = path.resolve()
    name = path.stem
    before = sys.modules.get(name)
    folder, writes = str(path.parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True  # Nothing is left in the user's folder.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            # Where another module has the name, such as one that PyTorch has imported, that one stays.
            if before is None:
                sys.modules[name] = module
            with as_the_users(path, "cannot be imported"):
                spec.loader.exec_module(module)
            yield module
    finally:
        sys.dont_write_bytecode = writes
        if before is None:
            sys.modules.pop(name, None)
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


@contextmanager
def as_the_users(path: Path, what: str) -> Iterator[None]:
    """Whatever is raised inside is told as the user's own error, with the line of the file that it came from.

    Args:
        what: what did not work, as the sentence goes on after the file's name.
    """
    try:
        yield
    except SyntaxError as error:
        place = f"line {error.lineno}" if error.lineno else "somewhere"
        shown = f"\n    {error.text.strip()}" if error.text else ""
        file = path if error.filename in (None, str(path.resolve())) else error.filename
        raise InputError(f"{file} {what}: {error.msg} ({place}).{shown}") from None
    except SystemExit as error:
        raise InputError(
            f"{path} {what}: it ends the program ({_quoted(error.code)}). Put what is meant for a program alone "
            f'under if __name__ == "__main__".'
        ) from None
    except InputError:
        raise
    except Exception as error:
        where = _own_lines(error, path)
        raise InputError(f"{path} {what}: {type(error).__name__}: {error}{where}") from error


def setup_from(module: ModuleType, path: Path, name: str | None) -> Setup:
    """What the file's name stands for.

    A class of networks (made without arguments), a network, a function that returns one, ``(network, loss)``,
    ``(network, loss, batch)``, or a dictionary with the keys ``network``, ``loss``, ``batch``, ``optimizer``,
    ``validation``, ``training``. Without a name the file has to have one class of networks of its own.

    Raises:
        InputError: for a name that is not there, or stands for something else.
    """
    name = _only_network(module, path) if name is None else name
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise InputError(f"{path} has no {name!r}.{_names_there(module, name)}")
        value = getattr(value, part)
    if isinstance(value, type) and issubclass(value, nn.Module):
        _check_needs_nothing(value, name, path)
        with as_the_users(path, f"cannot make {name}()"):
            value = value()
    elif callable(value) and not isinstance(value, nn.Module | Head):
        _check_needs_nothing(value, name, path)
        with as_the_users(path, f"raised in {name}()"):
            value = value()
    return _read(value, name, path, _loss_of(module))


def _read(value: Any, name: str, path: Path, loss: Any) -> Setup:
    if isinstance(value, nn.Module):
        return Setup(value, name, loss=loss)
    if isinstance(value, Mapping) and isinstance(value.get("network"), nn.Module):
        unknown = [key for key in value if key not in _KEYS]
        if unknown:
            raise InputError(
                f"{path}: {name} has the keys {', '.join(map(repr, unknown))}; known are {', '.join(_KEYS)}."
            )
        return Setup(name=name, **value)
    if isinstance(value, tuple) and 1 <= len(value) <= 3 and isinstance(value[0], nn.Module):
        return Setup(value[0], name, *value[1:])
    raise InputError(
        f"{path}: {name} is {_article(value)}, and no network. Name a class of networks, a network, or a function that "
        f"returns a network, (network, loss), or (network, loss, (features, target))."
    )


def _only_network(module: ModuleType, path: Path) -> str:
    own = _own_networks(module)
    if len(own) == 1:
        return own[0]
    if not own:
        raise InputError(
            f"{path} has no class of networks of its own. Write a function in it that returns the network, and name "
            f"it: {path}:FUNCTION."
        )
    raise InputError(f"{path} has several networks: {', '.join(own)}. Name one of them, such as {path}:{own[-1]}.")


def _own_networks(module: ModuleType) -> list[str]:
    """The classes of networks that the file defines, but for those that others of them are built from."""
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
    parts = {part for kind in own.values() for part in _names_in(kind)}
    return [name for name in own if name not in parts] or list(own)


def _names_in(kind: type) -> set[str]:
    """The names that a class's own methods speak of."""
    codes = [getattr(method, "__code__", None) for method in vars(kind).values()]
    return {name for code in codes if code is not None for name in code.co_names}


def _loss_of(module: ModuleType) -> Any:
    """The one loss that the file makes, if there is one: a head or a loss module among its variables."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Head | Loss | _Loss)}
    return next(iter(found.values())) if len(found) == 1 else None


def _check_needs_nothing(maker: Callable[..., Any], name: str, path: Path) -> None:
    """It can be called without arguments.

    Raises:
        InputError: naming those that it needs, and what to write instead.
    """
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        arguments = ", ".join(f"{each}=…" for each in needed)
        raise InputError(
            f"{path}: {name} needs {', '.join(needed)}. Write a function that makes it, and name that instead:\n"
            f"    def make():\n        return {name}({arguments})\n"
            f"    lastlayer doctor {path}:make"
        )


def _names_there(module: ModuleType, name: str) -> str:
    own = [each for each in vars(module) if not each.startswith("_")]
    near = difflib.get_close_matches(name, own, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    networks = _own_networks(module)
    return f" Its networks are {', '.join(networks)}." if networks else " It has no class of networks of its own."


def _similar_files(path: Path) -> str:
    try:
        files = [entry.name for entry in path.absolute().parent.iterdir() if entry.suffix == ".py"]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, files, n=1)
    return f" Did you mean {os.path.join(path.parent, near[0])}?" if near else ""


def _own_lines(error: BaseException, path: Path) -> str:
    """The line of the user's file that the error came from, as a traceback shows it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())]
    return "".join(f"\n    line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-2:])


def _quoted(code: Any) -> str:
    return "SystemExit" if code is None else f"SystemExit: {code}"


def _article(value: Any) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
