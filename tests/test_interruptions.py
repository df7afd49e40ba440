"""Killed, interrupted, piped into something that stops reading: nothing half done is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import lastlayer
from command_line import SHORT, contents, done, environment, process

# --- interruptions ----------------------------------------------------------------------------------------------------

# Fits again over the model in argv[1] from the table argv[2], and stops for good at the moment named by argv[3].
DYING = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from lastlayer import files
    from lastlayer.cli import app

    place, table, moment = sys.argv[1:]

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "first fsync":
        os.fsync = die
    elif moment == "second fsync":
        calls = []
        os.fsync = lambda file: die() if calls else calls.append(file)
    else:
        files.shutil.rmtree = die
    app(["fit", table, "-t", "y", "-o", place, "--force", "--seed", "1", "--max-epochs", "1"])
    """
)


@pytest.mark.parametrize("moment", ["first fsync", "second fsync", "after the move"])
def test_a_process_killed_while_it_saves_leaves_a_whole_model(place: Path, moment: str) -> None:
    before = contents(place / "model")
    outcome = process(place / "model", place / "t.csv", moment, program=(sys.executable, "-c", DYING))
    assert outcome.code == -signal.SIGKILL, outcome.err
    after = contents(place / "model")
    assert (after == before) is (moment != "after the move")
    lastlayer.load(place / "model")
    done("predict", place / "model", place / "t.csv")
    done("fit", place / "t.csv", "-t", "y", "-o", place / "model", "--force", *SHORT)


# Sends itself Ctrl-C where argv[1] says, as often as argv[2] says, and goes on as the command with the rest.
INTERRUPTED = textwrap.dedent(
    """
    import os, signal, sys
    import lastlayer.fitting as fitting, lastlayer.training.loop as loop, lastlayer.commands.fit as command
    from lastlayer.cli import main

    moment, times = sys.argv[1], int(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]

    def before(module, name, from_call=1):
        real, calls = getattr(module, name), []

        def interrupted(*arguments, **options):
            calls.append(name)
            if len(calls) == from_call:
                os.kill(os.getpid(), signal.SIGINT)
            return real(*arguments, **options)

        setattr(module, name, interrupted)

    if moment == "reading":
        before(command, "read_source")
    else:
        before(loop, "one_epoch", from_call=3)
    if times == 2:
        before(fitting, "fit_baselines")
    main()
    """
)


def interrupted(moment: str, times: int, *arguments: object) -> Any:
    return process(moment, times, *arguments, program=(sys.executable, "-c", INTERRUPTED))


def test_control_c_in_training_keeps_the_best_so_far(place: Path) -> None:
    arguments = ("fit", place / "t.csv", "-t", "y", "-o", place / "new", "--max-epochs", "500")
    outcome = interrupted("training", 1, *arguments)
    assert outcome.code == 0, outcome.err
    assert "note: training was interrupted after epoch 2" in outcome.message
    assert "is kept" in outcome.message
    assert "it was interrupted" in outcome.out
    assert len(lastlayer.load(place / "new").loss_curve_) == 2
    done("predict", place / "new", place / "t.csv")


@pytest.mark.parametrize(("moment", "times"), [("training", 2), ("reading", 1)])
def test_control_c_before_there_is_a_model_leaves_all_as_it_was(place: Path, moment: str, times: int) -> None:
    before = contents(place)
    outcome = interrupted(moment, times, "fit", place / "t.csv", "-t", "y", "-o", place / "model", "--force")
    assert outcome.code == 130
    assert "interrupted; nothing was written" in outcome.message
    assert "Traceback" not in outcome.err
    assert contents(place) == before


def test_control_c_from_outside(place: Path) -> None:
    arguments = ["fit", place / "t.csv", "-t", "y", "-o", place / "new", "--max-epochs", "1000000"]
    # A program that says when the second epoch begins, and then has no hurry.
    program = textwrap.dedent(
        """
        import sys, time
        import lastlayer.training.loop as loop
        from lastlayer.cli import main

        real, epochs = loop.one_epoch, []

        def slow(*arguments, **options):
            if epochs:
                print("one epoch is done", file=sys.stderr, flush=True)
                time.sleep(300)
            epochs.append(real(*arguments, **options))
            return epochs[-1]

        loop.one_epoch = slow
        main()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "one epoch is done\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "note: training was interrupted" in " ".join(err.split())
    assert "The model is in" in out
    assert "Traceback" not in err
    lastlayer.load(place / "new")
