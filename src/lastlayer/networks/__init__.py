"""Networks: the bodies that turn features into raw output."""

from lastlayer.networks.dropout import Dropout
from lastlayer.networks.linear import Linear
from lastlayer.networks.shared_linear import SharedLinear
from lastlayer.networks.tabular import ACTIVATIONS, PiecewiseLinear, TabularNetwork

__all__ = ["ACTIVATIONS", "Dropout", "Linear", "PiecewiseLinear", "SharedLinear", "TabularNetwork"]
