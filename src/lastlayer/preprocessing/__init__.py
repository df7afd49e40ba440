"""Tables into numbers: read a file, see what each column is, encode it as the matrix that a network reads.

In the order of the flow: ``reading`` (a file to a table and back), ``frames`` (any table to plain arrays),
``columns`` (what each column is), ``dates``, ``scaling`` and ``categories`` (one kind of column each),
``tables`` (all of it together).
"""

from lastlayer.preprocessing.columns import Column, describe_columns
from lastlayer.preprocessing.reading import column_group, read_table, write_table
from lastlayer.preprocessing.tables import TableEncoder

__all__ = ["Column", "TableEncoder", "column_group", "describe_columns", "read_table", "write_table"]
