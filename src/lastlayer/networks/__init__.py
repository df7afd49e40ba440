"""Networks: the bodies that turn features into raw output.

In the order of the flow: ``options`` (which network for which input), ``tabular``, ``lenet`` and ``convolutional``, and
the layers that they are made of.
"""

from lastlayer.networks.convolutional import ConvolutionalNetwork
from lastlayer.networks.dropout import Dropout
from lastlayer.networks.image_network import ImageNetwork
from lastlayer.networks.lenet import LeNet
from lastlayer.networks.linear import Linear
from lastlayer.networks.network import Network
from lastlayer.networks.options import NetworkOptions, network_from_dict, network_to_dict
from lastlayer.networks.shared_linear import SharedLinear
from lastlayer.networks.shift import RandomShift
from lastlayer.networks.tabular import ACTIVATIONS, PiecewiseLinear, TabularNetwork

__all__ = [
    "ACTIVATIONS",
    "ConvolutionalNetwork",
    "Dropout",
    "ImageNetwork",
    "LeNet",
    "Linear",
    "Network",
    "NetworkOptions",
    "PiecewiseLinear",
    "RandomShift",
    "SharedLinear",
    "TabularNetwork",
    "network_from_dict",
    "network_to_dict",
]
