"""Training: ``step`` is one step, ``loop`` the epochs around it, ``recipe`` every number in them."""

from lastlayer.training.loop import Epoch, History, forward, one_epoch, rows_at_once, train
from lastlayer.training.optimizers import update
from lastlayer.training.progress import progress_bar
from lastlayer.training.recipe import FEW_ROWS, OPTIMIZERS, Plan, Recipe
from lastlayer.training.rows import Rows
from lastlayer.training.schedules import SCHEDULES
from lastlayer.training.split import hold_out
from lastlayer.training.step import step
from lastlayer.training.threads import one_thread

__all__ = [
    "FEW_ROWS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Epoch",
    "History",
    "Plan",
    "Recipe",
    "Rows",
    "forward",
    "hold_out",
    "one_epoch",
    "one_thread",
    "progress_bar",
    "rows_at_once",
    "step",
    "train",
    "update",
]
