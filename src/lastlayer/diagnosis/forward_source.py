"""What the source of a module's own ``forward`` says: read as a syntax tree, also where it does not run."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

# Arithmetic between tensors, by the name of the function that it calls.
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.MatMult: "matmul",
}


@dataclass(frozen=True)
class Call:
    """A call in the source.

    Attributes:
        name: the function or method: ``"relu"`` of ``F.relu(x)`` and of ``x.relu()``.
        owner: what stands before the dot, as written: ``"F"``, ``"self"``; ``""`` if there is none.
        module: the submodule it calls, of ``self.act(x)``; ``None`` if it calls none.
        line: in the file.
        node: of the syntax tree; of ``x + y`` it is that, and the name ``"add"``.
    """

    name: str
    owner: str
    module: nn.Module | None
    line: int
    node: ast.expr

    @property
    def arguments(self) -> list[ast.expr]:
        """What it takes by position."""
        return self.node.args if isinstance(self.node, ast.Call) else []

    @property
    def keywords(self) -> list[ast.keyword]:
        """What it takes by name."""
        return self.node.keywords if isinstance(self.node, ast.Call) else []

    @property
    def written(self) -> str:
        """As it stands in the source."""
        return ast.unparse(self.node)

    @property
    def functional(self) -> bool:
        """Whether it is a function of ``torch.nn.functional``, by what usually stands before the dot."""
        return self.owner in ("F", "functional", "nn.functional", "torch.nn.functional")


@dataclass(frozen=True)
class Discarded:
    """A call whose result nothing reads.

    Attributes:
        call: it.
        variable: what its result is assigned to; ``None`` if to nothing.
        instead: the next call that takes what went into this one, as written, and its line; ``None`` if there is none.
    """

    call: Call
    variable: str | None
    instead: tuple[str, int] | None


@dataclass(frozen=True)
class ForwardSource:
    """The source of one method, most often forward.

    Attributes:
        module: whose it is.
        name: how its class is called.
        file: the name of the file, without folders.
        function: its syntax tree, with the file's line numbers.
    """

    module: nn.Module
    name: str
    file: str
    function: ast.FunctionDef

    def place(self, line: int) -> str:
        """A line as a finding names it."""
        return f"line {line} of {self.file}"

    @cached_property
    def calls(self) -> list[Call]:
        """Every call, in the order of the lines."""
        found = [self._call(node) for node in ast.walk(self.function) if isinstance(node, ast.Call)]
        return sorted(found, key=lambda call: (call.line, call.node.col_offset))

    @cached_property
    def discarded(self) -> list[Discarded]:
        """Calls whose result is assigned to a name that is read nowhere in the function, or to none.

        Special cases: of several results assigned at once the unread ones are meant to be dropped, and so is a name
        that begins with an underscore.
        """
        found = []
        for statement in ast.walk(self.function):
            value, variable = None, None
            if isinstance(statement, ast.Expr):
                value = statement.value
            elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if isinstance(target, ast.Name) and not target.id.startswith("_") and not self._is_read(target.id):
                    value, variable = statement.value, target.id
            if isinstance(value, ast.Call):
                found.append(Discarded(self._call(value), variable, self._instead(value.args, value.lineno)))
            elif isinstance(value, ast.BinOp) and type(value.op) in _OPERATORS:
                call = Call(_OPERATORS[type(value.op)], "", None, value.lineno, value)
                found.append(Discarded(call, variable, self._instead([value.left, value.right], value.lineno)))
        return sorted(found, key=lambda discarded: discarded.call.line)

    @cached_property
    def returned(self) -> list[ast.expr]:
        """What it returns, names followed back to what was assigned to them last before."""
        returns = [node for node in ast.walk(self.function) if isinstance(node, ast.Return) and node.value is not None]
        return [self._followed(node.value, node.lineno) for node in returns if node.value is not None]

    @cached_property
    def returned_calls(self) -> list[Call]:
        """The calls whose result is what it returns."""
        return [self._call(value) for value in self.returned if isinstance(value, ast.Call)]

    def _followed(self, value: ast.expr, before: int) -> ast.expr:
        if not isinstance(value, ast.Name):
            return value
        assigned = [
            statement
            for statement in ast.walk(self.function)
            if isinstance(statement, ast.Assign)
            and statement.lineno < before
            and any(isinstance(target, ast.Name) and target.id == value.id for target in statement.targets)
        ]
        if not assigned:
            return value
        last = max(assigned, key=lambda statement: statement.lineno)
        return self._followed(last.value, last.lineno)

    def _is_read(self, name: str) -> bool:
        return any(
            isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load | ast.Del)
            for node in ast.walk(self.function)
        ) or any(isinstance(node, ast.Nonlocal | ast.Global) and name in node.names for node in ast.walk(self.function))

    def _instead(self, operands: Sequence[ast.expr], line: int) -> tuple[str, int] | None:
        taken = {operand.id for operand in operands if isinstance(operand, ast.Name)}
        later = [
            other
            for other in self.calls
            if other.line > line
            and any(isinstance(argument, ast.Name) and argument.id in taken for argument in other.arguments)
        ]
        return (later[0].written, later[0].line) if later else None

    def _call(self, node: ast.Call) -> Call:
        function = node.func
        if isinstance(function, ast.Attribute):
            owner = ast.unparse(function.value)
            return Call(function.attr, owner, self._submodule(function), node.lineno, node)
        return Call(function.id if isinstance(function, ast.Name) else "", "", None, node.lineno, node)

    def _submodule(self, function: ast.Attribute) -> nn.Module | None:
        """The module behind ``self.body.act``."""
        path: list[str] = []
        here: ast.expr = function
        while isinstance(here, ast.Attribute):
            path.insert(0, here.attr)
            here = here.value
        if not isinstance(here, ast.Name) or not self.function.args.args or here.id != self.function.args.args[0].arg:
            return None
        found: Any = self.module
        for name in path:
            found = getattr(found, name, None)
        return found if isinstance(found, nn.Module) else None


def forward_source(module: nn.Module) -> ForwardSource | None:
    """The source of a module's forward; ``None`` of PyTorch's and of our own, and where there is no source at hand."""
    own = None if "forward" in vars(module) else type(module).forward
    return _parsed(module, own) if own is not None and _is_of_the_user(own) else None


def method_sources(module: nn.Module) -> Iterator[ForwardSource]:
    """The sources of all methods of a module that are the user's own."""
    seen: set[str] = set()
    for kind in type(module).__mro__:
        for name, method in vars(kind).items():
            if inspect.isfunction(method) and name not in seen and _is_of_the_user(method):
                seen.add(name)
                source = _parsed(module, method)
                if source is not None:
                    yield source


def _is_of_the_user(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] not in ("torch", "lastlayer")


def _parsed(module: nn.Module, method: Any) -> ForwardSource | None:
    try:
        lines, first = inspect.getsourcelines(method)
        file = inspect.getsourcefile(method) or ""
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return None
    function = tree.body[0] if tree.body else None
    if not isinstance(function, ast.FunctionDef):
        return None
    ast.increment_lineno(tree, first - 1)
    return ForwardSource(module, type(module).__name__, os.path.basename(file), function)


def forward_sources(network: nn.Module) -> Iterator[tuple[str, ForwardSource]]:
    """The sources of all forwards in a network that are not PyTorch's or ours, each class's once, by module."""
    seen: set[type] = set()
    for name, module in network.named_modules():
        source = None if type(module) in seen else forward_source(module)
        seen.add(type(module))
        if source is not None:
            yield name, source
