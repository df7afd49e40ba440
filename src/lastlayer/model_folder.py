"""A model as a folder: ``model.safetensors`` for the weights, ``model.json`` for everything else.

Loading reads numbers and text and runs nothing from the file. Writing is all or nothing: the folder is made complete
beside its place and then renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from lastlayer import heads
from lastlayer.baselines import Baseline
from lastlayer.checks import LastLayerError, ModelFolderError
from lastlayer.model import Model
from lastlayer.networks import TabularNetwork
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.target_coding import coding_from_dict

FORMAT = "lastlayer model"
SCHEMA = 1
_DESCRIPTION, _WEIGHTS = "model.json", "model.safetensors"
_LIBRARIES = ("lastlayer", "torch", "numpy", "scikit-learn", "polars", "safetensors")


def check_place(folder: str | os.PathLike[str], *, force: bool) -> Path:
    """Where a model may be written; called before training, so that a full afternoon is not lost at its end.

    Raises:
        ModelFolderError: if something is there that must stay.
    """
    place = Path(folder)
    if not place.exists() and not place.is_symlink():
        if not _nearest_folder(place).is_dir():
            raise ModelFolderError(f"{place} cannot be made: {_nearest_folder(place)} is not a folder.")
        return place
    if place.is_symlink() or not place.is_dir():
        raise ModelFolderError(f"{place} is there and is no folder. Name another folder.")
    if any(place.iterdir()) and not (place / _DESCRIPTION).is_file():
        raise ModelFolderError(f"{place} holds something else than a model, and is left alone. Name another folder.")
    if any(place.iterdir()) and not force:
        raise ModelFolderError(
            f"{place} already holds a model. Add --force (force=True) to replace it, or name another."
        )
    return place


def save_model(model: Model, folder: str | os.PathLike[str], *, force: bool = False) -> None:
    """Writes the folder, complete or not at all.

    Raises:
        ModelFolderError: if something is there that must stay, or the disk refuses; what was there stays as it was.
    """
    place = check_place(folder, force=force)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # In the same parent, so that the last step is a rename within one file system.
        new = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise ModelFolderError(f"{place} cannot be written: {error.strerror or error}.") from error
    try:
        weights = safetensors.torch.save(_tensors(model))
        _write(new / _WEIGHTS, weights)
        description = describe_model(model) | {
            "weights": {"file": _WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest()}
        }
        text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
        _write(new / _DESCRIPTION, text.encode())
        new.chmod(0o755)
        _move_into_place(new, place)
    except OSError as error:
        raise ModelFolderError(f"{place} cannot be written: {error.strerror or error}. Nothing was changed.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def load_model(folder: str | os.PathLike[str]) -> Model:
    """Reads a folder that :func:`save_model` wrote.

    Raises:
        ModelFolderError: if it is missing, foreign, from a later version, truncated or edited.
    """
    place = Path(folder)
    description = read_description(place)
    try:
        weights = (place / _WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelFolderError(f"{place} has no readable {_WEIGHTS}: {error.strerror or error}.") from error
    try:
        if hashlib.sha256(weights).hexdigest() != description["weights"]["sha256"]:
            raise ModelFolderError(
                f"{place / _WEIGHTS} is not the file that {_DESCRIPTION} was written with: it is truncated, edited or "
                f"from another model. Fit again, or restore the folder."
            )
        return _rebuild(description, safetensors.torch.load(weights))
    except ModelFolderError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        RuntimeError,
        LastLayerError,
        safetensors.SafetensorError,
    ) as error:
        raise ModelFolderError(f"{place / _DESCRIPTION} is damaged: {type(error).__name__}: {error}.") from error


def read_description(place: Path) -> dict[str, Any]:
    if not place.is_dir():
        raise ModelFolderError(f"there is no model folder {place}." if not place.exists() else f"{place} is no folder.")
    try:
        description = json.loads((place / _DESCRIPTION).read_bytes())
    except OSError as error:
        raise ModelFolderError(
            f"{place} is no model folder: it has no readable {_DESCRIPTION} ({error.strerror or error})."
        ) from error
    except ValueError as error:
        raise ModelFolderError(
            f"{place / _DESCRIPTION} is truncated or edited: it is no valid JSON ({error})."
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFolderError(f"{place} is no model folder: {_DESCRIPTION} does not say it is a {FORMAT}.")
    if description.get("schema") != SCHEMA:
        raise ModelFolderError(
            f"{place} has schema {description.get('schema')!r}, and this lastlayer reads {SCHEMA}. Install the version "
            f"that wrote it: {description.get('versions', {})}."
        )
    return description


def describe_model(model: Model) -> dict[str, Any]:
    description = {
        "format": FORMAT,
        "schema": SCHEMA,
        "versions": {library: version(library) for library in _LIBRARIES},
        "target": {"names": list(model.target_names), **model.coding.to_dict()},
        "head": model.head.to_dict(),
        "network": model.network.spec,
        "baselines": {name: baseline.head.to_dict() for name, baseline in model.baselines.items()},
        "record": model.record,
        "preprocessing": model.encoder.to_dict(),
    }
    plain: dict[str, Any] = _plain(description)
    return plain


def _tensors(model: Model) -> dict[str, Tensor]:
    tensors = {f"network.{name}": value.cpu().contiguous() for name, value in model.network.state_dict().items()}
    for name, baseline in model.baselines.items():
        tensors[f"baselines.{name}.bias"] = baseline.bias.contiguous()
        if baseline.weight is not None:
            tensors[f"baselines.{name}.weight"] = baseline.weight.contiguous()
    return tensors


def _rebuild(description: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    network = TabularNetwork.from_spec(description["network"])
    prefix = "network."
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    )
    network.eval()
    baselines = {
        name: Baseline(
            heads.from_dict(head), tensors.get(f"baselines.{name}.weight"), tensors[f"baselines.{name}.bias"]
        )
        for name, head in description["baselines"].items()
    }
    return Model(
        encoder=TableEncoder.from_dict(description["preprocessing"]),
        network=network,
        head=heads.from_dict(description["head"]),
        coding=coding_from_dict(description["target"]),
        target_names=tuple(description["target"]["names"]),
        baselines=baselines,
        record=description["record"],
    )


def _plain(value: Any) -> Any:
    """JSON has no NaN: a figure that is not defined is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(new: Path, place: Path) -> None:
    """Renames the finished folder to its name; a model that was there is put aside first, and back if that fails."""
    if not place.exists():
        new.rename(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    place.rename(aside / "old")
    try:
        new.rename(place)
    except OSError:
        (aside / "old").rename(place)
        raise
    finally:
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _nearest_folder(place: Path) -> Path:
    parent = place.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    return parent
