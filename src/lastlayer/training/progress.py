"""A progress bar with losses, best epoch and time left; silent where no terminal watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from lastlayer.training.loop import History


class Watch(Protocol):
    """What is called after every epoch."""

    def __call__(self, history: History) -> None: ...


@contextmanager
def progress_bar(headline: str, *, shown: bool) -> Iterator[Watch]:
    """A bar on standard error that follows the history it is given.

    Args:
        headline: the name of the figure beside the loss.
        shown: ``False`` for silence even on a terminal.
    """
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda history: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("epoch 0", total=None, losses="")

        def watch(history: History) -> None:
            last = history.epochs[-1]
            losses = f"loss {last.training_loss:.4g}"
            if last.validation_loss is not None:
                losses += f", validation {last.validation_loss:.4g}, {headline} {last.headline:.4g}"
            progress.update(
                task,
                total=history.most_epochs,
                completed=last.number,
                description=f"epoch {last.number}, best {history.best_epoch}",
                losses=losses,
            )

        yield watch
