"""``lastlayer doctor`` and what a newcomer gets wrong: one message, the user's own line in it, and nothing else."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from command_line import COMMAND, PENGUINS, done, environment, refused, table
from doctor_files import NETS, examined, flat, names, written


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    return written(tmp_path, NETS, "nets.py")


def test_names_that_are_not_there(nets: Path, tmp_path: Path) -> None:
    assert "Did you mean 'Small'" in refused("doctor", f"{nets}:Smal")
    assert "Small, Wide" in refused("doctor", f"{nets}:Nothing")
    assert f"{nets}:Wide" in refused("doctor", nets)
    assert "nets.py" in refused("doctor", tmp_path / "net.py:Small")
    assert "no class of networks" in refused("doctor", written(tmp_path, "x = 1\n", "none.py"))
    assert "is not there" in refused("doctor", tmp_path / "nothing")
    assert "is neither" in refused("doctor", table(tmp_path / "t.csv"))


def test_classes_that_need_arguments_and_things_that_are_no_network(nets: Path) -> None:
    message = refused("doctor", f"{nets}:Wide")
    assert "Wide needs width" in message
    assert "return Wide(width=…)" in message
    assert "depth" not in message
    assert "is an int, and no network" in refused("doctor", f"{nets}:number")
    assert "keys 'los'" in refused("doctor", f"{nets}:misspelled")


def test_files_that_raise_are_told_with_the_users_line(nets: Path, tmp_path: Path) -> None:
    message = refused("doctor", f"{nets}:raises")
    assert "RuntimeError: no data in [folder]" in message
    assert 'raise RuntimeError("no data in [folder]")' in message
    assert "(line 2)" in refused("doctor", written(tmp_path, "import torch\ndef f(:\n    pass\n", "syntax.py"))
    message = refused("doctor", written(tmp_path, "import torch\n\nimport not_there_at_all\n", "missing.py"))
    assert "line 3" in message
    assert "not_there_at_all" in message
    assert "__main__" in refused("doctor", written(tmp_path, "import sys\nsys.exit('bye')\n", "program.py"))
    broken = "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        undefined\n"
    assert "cannot make Net()" in refused("doctor", written(tmp_path, broken, "broken.py"))


def test_tables_and_options_that_do_not_fit(nets: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    assert "Did you mean 'y'" in refused("doctor", f"{nets}:Small", "--data", path, "-t", "yy")
    assert "--target" in refused("doctor", f"{nets}:Small", "--data", path)
    assert "no --data" in refused("doctor", f"{nets}:Small", "--target", "y")
    assert "no such file" in refused("doctor", f"{nets}:Small", "--data", tmp_path / "u.csv", "-t", "y")
    message = refused("doctor", f"{nets}:Small", "--data", PENGUINS, "-t", "species")
    assert "(2,)" in message
    assert "(15,)" in message
    assert "cross_entropy" in refused("doctor", f"{nets}:Small", "--loss", "cross_entropi")
    nothing = written(tmp_path, "from torch import nn\nnet = nn.Sequential(nn.ReLU())\n", "nothing.py")
    assert "cannot be guessed" in refused("doctor", f"{nothing}:net")


def test_a_network_that_cannot_run_is_examined_all_the_same(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "from torch import nn\nnet = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(9, 1))\n",
    )
    result = examined(f"{path}:net", "--loss", "mse")
    assert "layer_shape_mismatch" in names(result)
    assert any("none of the shapes" in note for note in result["examined"]["notes"])


def test_markup_in_a_users_words_is_no_markup(tmp_path: Path) -> None:
    path = written(tmp_path, "from torch import nn\nnet = nn.Linear(4, 1)\n", "[red]net.py")
    outcome = done("doctor", f"{path}:net")
    assert "[red]net.py" in flat(outcome.out).replace(" ", "")


def test_control_c_from_outside(tmp_path: Path) -> None:
    path = written(tmp_path, "import sys, time\nprint('here', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        [*COMMAND, "doctor", f"{path}:net"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "here\n"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=100)
    assert running.returncode == 130
    assert "Traceback" not in err
