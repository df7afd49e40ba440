"""Writing all or nothing: a file or a folder is made complete beside its place, and then takes it in one step.

Whatever goes wrong on the way, the disk filling up or the process being killed, what was there before is still there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file by ``write``, and puts it in the place of whatever file was there.

    Raises:
        OSError: if the disk or the system refuses; then nothing has changed.
    """
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder_whole(place: Path, files: dict[str, bytes]) -> None:
    """Writes a folder of files, and puts it in the place of whatever folder was there.

    Raises:
        OSError: if the disk or the system refuses; then nothing has changed.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".lastlayer-", dir=place.parent))
    try:
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        new.chmod(0o755)
        _move_into_place(new, place)
    finally:
        # By now it is gone, unfinished, or the folder that was there before.
        shutil.rmtree(new, ignore_errors=True)


def _move_into_place(new: Path, place: Path) -> None:
    """Gives the finished folder its name; a folder that was there ends up where the new one was made.

    On Linux the two change places in one step. Elsewhere the old one is put aside first, and back if that fails.
    """
    if not place.exists() or not any(place.iterdir()):
        # POSIX renames over an empty folder; Windows does not.
        if os.name == "nt" and place.exists():
            place.rmdir()
        new.rename(place)
        return
    if _exchange(new, place):
        return
    aside = Path(tempfile.mkdtemp(prefix=".lastlayer-", dir=place.parent))
    try:
        place.rename(aside / "old")
        try:
            new.rename(place)
        except BaseException:
            (aside / "old").rename(place)
            raise
    finally:
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Two paths change places, both or neither; false where the system has no such call."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    current_folder, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    done: int = renameat2(current_folder, os.fsencode(one), current_folder, os.fsencode(other), exchange)
    return done == 0
