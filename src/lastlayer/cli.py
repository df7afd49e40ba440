"""The command ``lastlayer``. It reads options, calls ``commands``, prints; PyTorch is loaded when a command needs it.

Exit codes: 0 done, 1 our fault, 2 the input is wrong.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from lastlayer.checks import LastLayerError, LastLayerWarning

app = typer.Typer(
    help="Say what your target is; get the last layer, the loss and honest predictions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

screen = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

TablePath = Annotated[Path, typer.Argument(help="CSV (also .gz), TSV, Parquet or .npz.", show_default=False)]
ModelPath = Annotated[Path, typer.Argument(help="A model folder that fit has written.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Thousands = Annotated[bool, typer.Option("--thousands", help='Read "1,234" as a number; otherwise it is text.')]


@app.command()
def fit(
    table: TablePath,
    target: Annotated[
        str, typer.Option("--target", "-t", help="Column to predict; several 0/1 labels with commas between.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the model to.")] = Path("model"),
    head: Annotated[
        str | None, typer.Option(help="Last layer and loss by name, instead of going by the target.")
    ] = None,
    weight: Annotated[str | None, typer.Option(help="Column of row weights.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out. May be repeated.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Column to use although it looks unusable.")] = None,
    balanced: Annotated[bool, typer.Option(help="Let every class count the same. Shifts probabilities.")] = False,
    max_epochs: Annotated[int | None, typer.Option(help="Passes over the data at most.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: the same model.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    thousands: Thousands = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Look at the target, choose last layer and loss, train, and write a model folder."""
    with guarded(as_json) as say:
        from lastlayer.commands.fit import fit as run

        result = run(
            table,
            target,
            out=out,
            head=head,
            weight=weight,
            drop=drop or (),
            keep=keep or (),
            balanced=balanced,
            thousands=thousands,
            force=force,
            dry_run=dry_run,
            max_epochs=max_epochs,
            batch_size=batch_size,
            random_state=seed,
            device=device,
            verbose=not as_json,
        )
        if as_json:
            say(result)
            return
        from lastlayer.report import text

        if dry_run:
            screen.print(text.choice_text(result), text.columns_text(result["columns"], result["notes"]), sep="\n")
            screen.print("\nNothing was trained or written: this was a dry run.")
            return
        screen.print(text.model_text(result))
        screen.print(f"\nThe model is in {escape(str(out))}. Next: lastlayer predict {escape(str(out))} TABLE")


@app.command()
def predict(
    model: ModelPath,
    table: TablePath,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV or Parquet file; the screen otherwise.")] = None,
    identifier: Annotated[str | None, typer.Option("--id", help="Column to carry over.")] = None,
    thousands: Thousands = False,
    as_json: Json = False,
) -> None:
    """Predict every row of a table, in its order: classes with probabilities, or quantities with their scale."""
    with guarded(as_json) as say:
        from lastlayer.commands.predict import predict as run
        from lastlayer.preprocessing import write_table

        predictions = run(model, table, identifier=identifier, thousands=thousands)
        if out is not None:
            write_table(predictions, out)
            written = {"rows": predictions.height, "columns": predictions.columns, "file": str(out)}
            if as_json:
                say(written)
            else:
                errors.print(f"{predictions.height} predictions are in {escape(str(out))}.")
        elif as_json:
            say(predictions.to_dicts())
        else:
            sys.stdout.write(predictions.write_csv())


@app.command()
def evaluate(
    model: ModelPath,
    table: TablePath,
    weight: Annotated[str | None, typer.Option(help="Column of row weights.")] = None,
    thousands: Thousands = False,
    as_json: Json = False,
) -> None:
    """Judge a model on a table that has the target, beside the constant and the linear model."""
    with guarded(as_json) as say:
        from lastlayer.commands.predict import evaluate as run

        result = run(model, table, weight=weight, thousands=thousands)
        if as_json:
            say(result)
            return
        from lastlayer.report import text

        screen.print(text.figures_text(result["figures"], title=f"on {result['rows']} rows of {table.name}"))
        screen.print(text.verdict(result["figures"]))
        if result["rows_without_target"]:
            screen.print(f"{result['rows_without_target']} rows have no target and were passed over.")


@app.command()
def show(model: ModelPath, as_json: Json = False) -> None:
    """Show a model folder: data, head and why, network, curves, and figures beside simpler models."""
    with guarded(as_json) as say:
        from lastlayer.model_folder import read_description

        description = read_description(model)
        if as_json:
            say(description)
            return
        from lastlayer.report import text

        screen.print(text.model_text(description))


@contextmanager
def guarded(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """Runs a command: our warnings become notes, our errors one message and exit code 2, anything else exit code 1.

    Yields the function that prints a result as JSON.
    """

    def say(result: Any) -> None:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False, default=str))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", LastLayerWarning)
        try:
            yield say
            code = 0
        except LastLayerError as error:
            errors.print(f"[red]error:[/] {escape(str(error))}")
            code = 2
        except KeyboardInterrupt:
            errors.print("interrupted; nothing was written.")
            code = 130
        except (typer.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("LASTLAYER_DEBUG"):
                raise
            errors.print(
                f"[red]internal error:[/] {escape(type(error).__name__)}: {escape(str(error))}\n"
                f"This is a fault of lastlayer. Run again with LASTLAYER_DEBUG=1 and report what it prints."
            )
            code = 1
    for warning in caught:
        errors.print(f"[yellow]note:[/] {escape(str(warning.message))}")
    if code:
        raise typer.Exit(code)


def main() -> None:
    """The entry point."""
    app()
