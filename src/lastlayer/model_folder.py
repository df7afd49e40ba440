"""A model as a folder: ``model.safetensors`` for the weights, ``model.json`` for everything else.

Loading reads numbers and text and runs nothing from the file. Writing is all or nothing. Both files carry a checksum,
so that a changed one is noticed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from lastlayer import heads, uncertainty
from lastlayer.baselines import Baseline
from lastlayer.checks import LastLayerError, ModelFolderError
from lastlayer.files import write_folder_whole
from lastlayer.model import Model
from lastlayer.networks import network_from_dict, network_to_dict
from lastlayer.preprocessing import encoder_from_dict, encoder_to_dict
from lastlayer.preprocessing.target_coding import coding_from_dict

FORMAT = "lastlayer model"
SCHEMA = 3
_DESCRIPTION, _WEIGHTS = "model.json", "model.safetensors"
_LIBRARIES = ("lastlayer", "torch", "numpy", "scikit-learn", "polars", "safetensors")


def check_place(folder: str | os.PathLike[str], *, force: bool) -> Path:
    """Where a model may be written; called before training, so that a full afternoon is not lost at its end.

    Returns:
        The place as an absolute path.

    Raises:
        ModelFolderError: if something is there that must stay, or nothing can be written there.
    """
    place = Path(os.path.abspath(folder))
    if Path.cwd().is_relative_to(place):
        raise ModelFolderError(f"{folder} is the folder you are in, or above it. Name a new folder, such as model.")
    if not os.path.lexists(place):
        _check_can_be_made(folder, place)
        return place
    if place.is_symlink() or not place.is_dir():
        raise ModelFolderError(f"{folder} is there and is no folder. Name another folder.")
    entries = sorted(entry.name for entry in place.iterdir())
    if not entries:
        return place
    if not _is_model(place):
        raise ModelFolderError(f"{folder} holds something else than a model, and is left alone. Name another folder.")
    if not force:
        raise ModelFolderError(
            f"{folder} already holds a model. Add --force (force=True) to replace it, or name another folder."
        )
    others = [name for name in entries if name not in (_DESCRIPTION, _WEIGHTS)]
    if others:
        raise ModelFolderError(
            f"{folder} holds more than a model: {', '.join(others[:5])}. Replacing the model would lose that, so it is "
            f"left alone. Move those files, or name another folder."
        )
    return place


def save_model(model: Model, folder: str | os.PathLike[str], *, force: bool = False) -> None:
    """Writes the folder, complete or not at all.

    Raises:
        ModelFolderError: if something is there that must stay, or the disk refuses; what was there stays as it was.
    """
    place = check_place(folder, force=force)
    weights = safetensors.torch.save(_tensors(model))
    description = describe_model(model) | {"weights": {"file": _WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest()}}
    description["sha256"] = _checksum(description)
    text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        write_folder_whole(place, {_WEIGHTS: weights, _DESCRIPTION: text.encode()})
    except OSError as error:
        raise ModelFolderError(
            f"{folder} cannot be written: {error.strerror or error}. Nothing was changed."
        ) from error


def load_model(folder: str | os.PathLike[str]) -> Model:
    """Reads a folder that :func:`save_model` wrote.

    Raises:
        ModelFolderError: if it is missing, foreign, from a later version, truncated or edited.
    """
    description, weights = _read(folder)
    try:
        return _rebuild(description, safetensors.torch.load(weights))
    except (
        AttributeError,
        AssertionError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        RuntimeError,
        LastLayerError,
        safetensors.SafetensorError,
    ) as error:
        raise ModelFolderError(
            f"{Path(folder) / _DESCRIPTION} is damaged: {type(error).__name__}: {error}. Fit again, or restore the "
            f"folder."
        ) from error


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``model.json`` says, once both files are known to be those that :func:`save_model` wrote.

    Raises:
        ModelFolderError: as :func:`load_model`.
    """
    description, _ = _read(folder)
    return description


def describe_model(model: Model) -> dict[str, Any]:
    """Everything but the weights, as plain JSON."""
    description = {
        "format": FORMAT,
        "schema": SCHEMA,
        "versions": {library: version(library) for library in _LIBRARIES},
        "target": {"names": list(model.target_names), **model.coding.to_dict()},
        "head": model.head.to_dict(),
        "network": network_to_dict(model.network),
        "class_weight": model.class_weight,
        "dropout_members": model.dropout_members,
        "calibration": None if model.calibration is None else model.calibration.to_dict(),
        "conformal_scores": model.conformal_scores,
        "baselines": {name: baseline.head.to_dict() for name, baseline in model.baselines.items()},
        "record": model.record,
        "preprocessing": encoder_to_dict(model.encoder),
    }
    result: dict[str, Any] = plain(description)
    return result


def plain(value: Any) -> Any:
    """A record as JSON can hold it: text keys, lists, Python's numbers, and null for one that is not defined."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    """The description and the weights, each of them as it was written."""
    place = Path(folder)
    if not place.is_dir():
        raise ModelFolderError(
            f"{place} is a file, not a model folder."
            if place.exists()
            else f"there is no model folder {place}.{_similar_models(place)}"
        )
    try:
        description = json.loads((place / _DESCRIPTION).read_bytes())
    except OSError as error:
        raise ModelFolderError(
            f"{place} is no model folder: it has no readable {_DESCRIPTION} ({error.strerror or error}). Name a folder "
            f"that lastlayer fit has written."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(
            f"{place / _DESCRIPTION} is truncated or edited: it is no valid JSON ({error}). Fit again, or restore the "
            f"folder."
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFolderError(
            f"{place} is no model folder: {_DESCRIPTION} does not say it is a {FORMAT}. Name a folder that lastlayer "
            f"fit has written."
        )
    if description.get("schema") != SCHEMA:
        versions = description.get("versions")
        wrote = versions.get("lastlayer") if isinstance(versions, dict) else None
        raise ModelFolderError(
            f"{place} has schema {description.get('schema')!r}, and this lastlayer ({version('lastlayer')}) reads "
            f"{SCHEMA}. Install the version that wrote it{f': lastlayer {wrote}' if wrote else ''}."
        )
    if description.get("sha256") != _checksum(description):
        raise ModelFolderError(
            f"{place / _DESCRIPTION} has been edited since it was written, so its predictions cannot be trusted. Fit "
            f"again, or restore the folder."
        )
    try:
        weights = (place / _WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelFolderError(
            f"{place} has no readable {_WEIGHTS} ({error.strerror or error}). Fit again, or restore the folder."
        ) from error
    expected = description.get("weights")
    if not isinstance(expected, dict) or hashlib.sha256(weights).hexdigest() != expected.get("sha256"):
        raise ModelFolderError(
            f"{place / _WEIGHTS} is not the file that {_DESCRIPTION} was written with: it is truncated, edited or "
            f"from another model. Fit again, or restore the folder."
        )
    return description, weights


def _tensors(model: Model) -> dict[str, Tensor]:
    tensors = {f"network.{name}": value.cpu().contiguous() for name, value in model.network.state_dict().items()}
    for name, baseline in model.baselines.items():
        tensors[f"baselines.{name}.bias"] = baseline.bias.contiguous()
        if baseline.weight is not None:
            tensors[f"baselines.{name}.weight"] = baseline.weight.contiguous()
    return tensors


def _rebuild(description: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    network = network_from_dict(description["network"])
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
        encoder=encoder_from_dict(description["preprocessing"]),
        network=network,
        head=heads.from_dict(description["head"]),
        coding=coding_from_dict(description["target"]),
        target_names=tuple(description["target"]["names"]),
        baselines=baselines,
        class_weight=None if description["class_weight"] is None else tuple(description["class_weight"]),
        dropout_members=int(description["dropout_members"]),
        calibration=None if description["calibration"] is None else uncertainty.from_dict(description["calibration"]),
        conformal_scores=tuple(description["conformal_scores"]),
        record=description["record"],
    )


def _checksum(description: dict[str, Any]) -> str:
    """Of what the description says, not of how the file is laid out."""
    said = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _is_model(place: Path) -> bool:
    """Whether :func:`save_model` wrote the folder; other programs write a ``model.json`` too."""
    try:
        description = json.loads((place / _DESCRIPTION).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(description, dict) and description.get("format") == FORMAT


def _similar_models(place: Path) -> str:
    try:
        models = [entry.name for entry in place.absolute().parent.iterdir() if (entry / _DESCRIPTION).is_file()]
    except OSError:
        return " Name a folder that lastlayer fit has written."
    near = difflib.get_close_matches(place.name, models, n=1) or sorted(models)[:3]
    return f" Models beside it: {', '.join(near)}." if near else " Name a folder that lastlayer fit has written."


def _check_can_be_made(folder: str | os.PathLike[str], place: Path) -> None:
    parent = place.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise ModelFolderError(f"{folder} cannot be made: {parent} is not a folder. Name another folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ModelFolderError(f"{folder} cannot be made: {parent} may not be written to. Name another folder.")
