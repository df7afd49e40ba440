"""The command ``lastlayer``. It reads options, calls ``commands``, prints; PyTorch is loaded when a command needs it.

Exit codes: 0 done, 1 our fault, 2 the input is wrong or the disk refuses, 3 the doctor found an error, 130 interrupted
before there was a result.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from lastlayer.checks import LastLayerError, LastLayerWarning

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

screen = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE|IMAGES",
        help="A table: CSV (also .gz), TSV, Parquet or .npz. Images: .npz, or a folder of PNG and JPEG files in one "
        "folder for each class.",
        show_default=False,
    ),
]
ImageSize = Annotated[
    str | None, typer.Option("--image-size", metavar="HxW", help="Resize image files, such as 32 or 32x48.")
]
ModelPath = Annotated[
    Path, typer.Argument(metavar="DIR", help="A model folder that fit has written.", show_default=False)
]
Weight = Annotated[str | None, typer.Option(metavar="NAME", help="Column of row weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
CatalogName = Annotated[str | None, typer.Argument(metavar="NAME", help="One of them; all without.")]
Thousands = Annotated[bool, typer.Option("--thousands", help='Read "1,234" as a number; otherwise it is text.')]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lastlayer {version('lastlayer')}")
        raise typer.Exit


@app.callback()
def options(
    print_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Say what your target is; get the last layer, the loss and honest predictions."""


@app.command()
def fit(
    data: DataPath,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="NAME",
            help="Column to predict; several 0/1 labels with commas between. Images in folders have their class.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write the model to.")] = Path(
        "model"
    ),
    head: Annotated[
        str | None,
        typer.Option(
            metavar="HEAD",
            help="Last layer and loss by name, such as mixture:5, instead of going by the target; "
            "auto tries all that fit a quantity.",
        ),
    ] = None,
    weight: Weight = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Column to leave out. May be repeated.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column to use although it looks unusable. May be repeated."),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Decide as if every class were as common. Probabilities stay true.")
    ] = False,
    members: Annotated[
        int, typer.Option(metavar="N", help="Networks trained side by side, predicted as their mixture.", min=1)
    ] = 1,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of images: convolutional, lenet or lenet:average.")
    ] = None,
    shifts: Annotated[
        int, typer.Option(metavar="N", help="Of images: move them by up to N pixels while training.", min=0)
    ] = 0,
    image_size: ImageSize = None,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="scale or pit (quantities), temperature or isotonic (classes)."),
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the data at most.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Rows per step.", min=1)] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same machine: the same model.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu or cuda.")] = "cpu",
    thousands: Thousands = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Look at the target, choose last layer and loss, train, and write a model folder."""
    with guarded() as say:
        from lastlayer.commands.fit import fit as run

        result = run(
            data,
            target,
            out=out,
            head=head,
            weight=weight,
            drop=drop or (),
            keep=keep or (),
            balanced=balanced,
            thousands=thousands,
            image_size=image_size,
            force=force,
            dry_run=dry_run,
            members=members,
            network=network,
            shifts=shifts,
            calibration=calibration,
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
            screen.print(text.plan_text(result))
            screen.print("\nNothing was trained or written: this was a dry run.")
            return
        screen.print(text.model_text(result))
        # Not wrapped, so that it can be copied.
        like = "IMAGES" if result["record"]["choice"]["kind"] == "images" else "TABLE"
        next_step = f"\nThe model is in {out}. Next: lastlayer predict {shlex.quote(str(out))} {like}"
        screen.print(escape(next_step), soft_wrap=True)


@app.command()
def predict(
    model: ModelPath,
    data: DataPath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="CSV or Parquet file; the screen otherwise.")
    ] = None,
    identifier: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="Column to carry over, such as an identifier.")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(metavar="P", help="Add the central interval that holds a quantity so often.")
    ] = None,
    quantiles: Annotated[
        str | None, typer.Option(metavar="Q,Q", help="Add these quantiles of a quantity, such as 0.1,0.5,0.9.")
    ] = None,
    statistic: Annotated[
        str | None, typer.Option(metavar="NAME", help="mean, median or mode; by default what the loss is least at.")
    ] = None,
    image_size: ImageSize = None,
    thousands: Thousands = False,
    as_json: Json = False,
) -> None:
    """Predict every row or image, in its order: classes with probabilities, or quantities with their spread."""
    with guarded() as say:
        from lastlayer.commands.predict import predict as run
        from lastlayer.preprocessing import write_table

        predictions = run(
            model,
            data,
            identifier=identifier,
            interval=interval,
            quantiles=quantiles,
            statistic=statistic,
            thousands=thousands,
            image_size=image_size,
        )
        if out is not None:
            write_table(predictions, out)
            written = {"rows": predictions.height, "columns": predictions.columns, "file": str(out)}
            if as_json:
                say(written)
            else:
                count = "1 prediction is" if predictions.height == 1 else f"{predictions.height} predictions are"
                errors.print(f"{count} in {escape(str(out))}.")
        elif as_json:
            say(predictions.to_dicts())
        else:
            sys.stdout.write(predictions.write_csv())


@app.command()
def evaluate(
    model: ModelPath,
    data: DataPath,
    weight: Weight = None,
    image_size: ImageSize = None,
    thousands: Thousands = False,
    as_json: Json = False,
) -> None:
    """Judge a model on data that have the target, beside the constant and the linear model."""
    with guarded() as say:
        from lastlayer.commands.predict import evaluate as run

        result = run(model, data, weight=weight, image_size=image_size, thousands=thousands)
        if as_json:
            say(result)
            return
        from lastlayer.report import text

        rows, without, noun = result["rows"], result["rows_without_target"], result["noun"]
        passed_over = f"; {without} without a target passed over" if without else ""
        part = f", its {result['part']} part" if result["part"] else ""
        title = f"on {rows} {noun if rows == 1 else f'{noun}s'} of {escape(data.name)}{part}{passed_over}"
        screen.print(text.figures_text(result["figures"], title=title))
        screen.print(text.verdict(result["figures"]))


@app.command()
def show(model: ModelPath, as_json: Json = False) -> None:
    """Show a model folder: data, head and why, network, curves, and figures beside simpler models."""
    with guarded() as say:
        from lastlayer.model_folder import read_description

        description = read_description(model)
        if as_json:
            say(description)
            return
        from lastlayer.report import text

        screen.print(text.model_text(description))


@app.command()
def doctor(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME|DIR",
            help="A network in a Python file of yours (the file is run), or a model folder.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="TABLE|IMAGES", help="Examine on these data; otherwise on made-up numbers.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="NAME", help="Of a file: the column to predict.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a file: the loss, such as cross_entropy, MSELoss, focal or gaussian."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show every layer's outputs and gradients: how large, how spread.")
    ] = False,
    thousands: Thousands = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a network, its loss and its data, how it shows, and what to do.

    NAME is a class of networks that is made without arguments, a network, or
    a function. A function returns a network, (network, loss), or
    (network, loss, (features, target)); or a dictionary of network, loss,
    batch, optimizer, validation and training. NAME may be left out where the
    file has one network. FILE.py is run, as import runs it.

    Exit code 3 if there is a finding of severity error, 0 otherwise.
    """
    errors_found = 0
    with guarded() as say:
        from lastlayer.commands.doctor import doctor as run

        result = run(what, data=data, target=target, loss=loss, thousands=thousands, layers=layers)
        errors_found = result["errors"]
        if as_json:
            say(result)
        else:
            from lastlayer.report.findings_text import findings_text

            screen.print(findings_text(result))
            if layers:
                from lastlayer.report.layers_text import layers_text

                screen.print()
                screen.print(layers_text(result["layers"], ascii_only=screen.options.ascii_only))
    if errors_found:
        raise typer.Exit(3)


@app.command()
def losses(name: CatalogName = None, as_json: Json = False) -> None:
    """List the losses, or show one: formula, gradient, domain, when to use it, and its curves."""
    _catalog("losses", name, as_json)


@app.command()
def activations(name: CatalogName = None, as_json: Json = False) -> None:
    """List the activations, or show one: formula, derivative, range, when to use it, and its curves."""
    _catalog("activations", name, as_json)


@app.command()
def heads(name: CatalogName = None, as_json: Json = False) -> None:
    """List the heads, what a target is taken for, or show one: last layer, loss, likelihood."""
    _catalog("heads", name, as_json)


def _catalog(kind: str, name: str | None, as_json: bool) -> None:
    with guarded() as say:
        from lastlayer.commands.catalog import details, listing

        result = listing(kind) if name is None else details(kind, name)
        if as_json:
            say(result)
            return
        from lastlayer.report.catalog import catalog_text, details_text

        ascii_only = screen.options.ascii_only
        if isinstance(result, list):
            screen.print(catalog_text(kind, result, ascii_only=ascii_only))
        else:
            screen.print(details_text(result, width=screen.width, ascii_only=ascii_only))


@contextmanager
def guarded() -> Iterator[Callable[[Any], None]]:
    """Runs a command: our warnings become notes, our errors one message and exit code 2, anything else exit code 1.

    Yields the function that prints a result as JSON.
    """
    code = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", LastLayerWarning)
        try:
            yield _say
            # Here and not at exit, so that a full disk is noticed.
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader, such as head, has what it wanted.
            _discard_output()
        except LastLayerError as error:
            code = _explain("error", str(error), 2)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            code = _explain("error", f"the system refuses: {where}{error.strerror or error}.", 2)
            _discard_output()
        except KeyboardInterrupt:
            errors.print("interrupted; nothing was written.")
            code = 130
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("LASTLAYER_DEBUG"):
                raise
            code = _explain(
                "internal error",
                f"{type(error).__name__}: {error}\n"
                f"This is a fault of lastlayer. Run again with LASTLAYER_DEBUG=1 and report what it prints.",
                1,
            )
    for warning in caught:
        errors.print(f"[yellow]note:[/] {escape(str(warning.message))}")
    if code:
        raise typer.Exit(code)


def _say(result: Any) -> None:
    from lastlayer.model_folder import plain

    typer.echo(json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False, default=str))


def _explain(kind: str, message: str, code: int) -> int:
    errors.print(f"[red]{kind}:[/] {escape(message)}")
    return code


def _discard_output() -> None:
    """What Python still holds for standard output goes nowhere, instead of failing again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its code instead of a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
