"""Which operation made which columns of the network's output: of a head with several parameters, each has its own."""

from __future__ import annotations

from torch import Tensor

from lastlayer.diagnosis.loss_calls import ends_of, returned_end
from lastlayer.diagnosis.output_end import UNKNOWN, End
from lastlayer.diagnosis.subject import Subject


def end_of_columns(subject: Subject, start: int, stop: int) -> End:
    """What is known of these columns of the output's last axis.

    What was put together from parts, by ``cat``, ``stack`` or writing into a slice, is told apart by its numbers: the
    columns belong to the operation that gave exactly these.
    """
    whole, raw = returned_end(subject), subject.training_pass.raw
    if whole.limited or raw is None or raw.dim() == 0:
        return whole
    columns = raw.movedim(-1, 0)[start:stop].flatten(1)
    if columns.numel() == 0 or bool((columns == columns[:, :1]).all()):
        return UNKNOWN
    ends = ends_of(subject)
    for operation in reversed(subject.training_pass.of_network):
        end = ends.of(operation)
        if end.limited and end.link is operation and _gave(operation.output, columns):
            return end
    return whole


def _gave(output: Tensor | None, columns: Tensor) -> bool:
    """Whether every one of the columns is one of the output's."""
    rows = columns.shape[1]
    if output is None or not output.is_floating_point() or output.numel() == 0 or output.numel() % rows:
        return False
    given = output.reshape(rows, -1)
    return all(bool((given == column.unsqueeze(1)).all(dim=0).any()) for column in columns.to(given.dtype))
