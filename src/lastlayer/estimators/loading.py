"""A fitted estimator from a model folder."""

from __future__ import annotations

import math
import os

import numpy as np

from lastlayer import heads
from lastlayer.estimators.classifier import Classifier
from lastlayer.estimators.regressor import Regressor
from lastlayer.model_folder import load_model
from lastlayer.preprocessing import TableEncoder
from lastlayer.preprocessing.target_coding import ClassCoding, QuantityCoding
from lastlayer.training import History


def load(folder: str | os.PathLike[str]) -> Classifier | Regressor:
    """The fitted estimator that :meth:`Estimator.save`, or the command, wrote to a folder, with its options.

    Nothing in the folder is run: it holds numbers and text.

    Raises:
        ModelFolderError: if the folder is missing, foreign, damaged or from a later version.
    """
    model = load_model(folder)
    options = dict(model.record["options"])
    options["hidden"], options["keep"] = tuple(options["hidden"]), tuple(options["keep"])
    if isinstance(options.get("class_weight"), list):
        options["class_weight"] = dict(options["class_weight"])
    head = model.record["head"]
    head = heads.from_dict(head) if isinstance(head, dict) else head
    estimator: Classifier | Regressor
    if isinstance(model.coding, QuantityCoding):
        estimator = Regressor(head=head, **options)
        if "tried" in model.record:
            estimator.tried_ = {name: math.nan if nll is None else nll for name, nll in model.record["tried"].items()}
    else:
        estimator = Classifier(head=head, **options)
        estimator.classes_ = model.coding.classes if isinstance(model.coding, ClassCoding) else np.array([0, 1])
    estimator.model_ = model
    estimator.n_features_in_ = model.encoder.n_features_in_
    if model.record["named_columns"] and isinstance(model.encoder, TableEncoder):
        estimator.feature_names_in_ = model.encoder.feature_names_in_
    history = model.record.get("training", History().to_dict())
    estimator.loss_curve_ = history["training_loss"]
    estimator.validation_curve_ = [loss for loss in history["validation_loss"] if loss is not None]
    estimator.best_epoch_ = history["best_epoch"]
    estimator.n_iter_ = len(estimator.loss_curve_)
    return estimator
