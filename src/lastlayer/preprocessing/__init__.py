"""Tables and images into numbers: read files, see what they hold, encode it as the array that a network reads.

In the order of the flow: ``reading`` (a file to a table and back), ``frames`` (any table to plain arrays),
``columns`` (what each column is), ``dates``, ``scaling`` and ``categories`` (one kind of column each),
``tables`` (all of it together). Of images: ``image_reading`` and ``image_files``, ``image_scaling``,
``image_encoding``. ``inputs`` chooses between the two.

Of numbers that are a matrix already: ``moments`` (mean and covariance of what does not fit into memory), ``whitening``
(uncorrelated columns of variance 1) over ``affine``. ``modules`` are the fitted scalings as modules of tensors, for
inside a network; it alone loads PyTorch, so import it by name.
"""

from lastlayer.preprocessing.columns import Column, describe_columns
from lastlayer.preprocessing.image_encoding import ImageEncoder, as_images, image_size_text, is_images
from lastlayer.preprocessing.image_reading import ImageSet, holds_images, read_images, without_part
from lastlayer.preprocessing.image_scaling import ImageScaler
from lastlayer.preprocessing.inputs import (
    Encoder,
    Inputs,
    encoder_from_dict,
    encoder_to_dict,
    kind_of,
    kind_of_encoder,
    new_encoder,
)
from lastlayer.preprocessing.moments import Moments
from lastlayer.preprocessing.reading import column_group, read_table, write_table
from lastlayer.preprocessing.tables import TableEncoder
from lastlayer.preprocessing.whitening import Decorrelator, Whitener

__all__ = [
    "Column",
    "Decorrelator",
    "Encoder",
    "ImageEncoder",
    "ImageScaler",
    "ImageSet",
    "Inputs",
    "Moments",
    "TableEncoder",
    "Whitener",
    "as_images",
    "column_group",
    "describe_columns",
    "encoder_from_dict",
    "encoder_to_dict",
    "holds_images",
    "image_size_text",
    "is_images",
    "kind_of",
    "kind_of_encoder",
    "new_encoder",
    "read_images",
    "read_table",
    "without_part",
    "write_table",
]
