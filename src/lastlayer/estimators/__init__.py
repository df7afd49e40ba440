"""scikit-learn estimators over the whole path: table or images in, likelihood out. Thin assembly; no mathematics."""

from lastlayer.estimators.classifier import Classifier
from lastlayer.estimators.loading import load
from lastlayer.estimators.regressor import Regressor

__all__ = ["Classifier", "Regressor", "load"]
