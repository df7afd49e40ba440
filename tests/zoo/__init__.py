"""Training set-ups, broken and healthy: what the doctor's error rates are counted on.

``BROKEN`` and ``HEALTHY`` hold them by name. Each is made afresh, with a seed of its own, by ``setup.make()``.
"""

from zoo import (  # noqa: F401 (each fills the registry)
    blind_broken,
    blind_broken_runs,
    blind_broken_signals,
    blind_broken_structure,
    blind_healthy,
    blind_healthy_images,
    blind_healthy_losses,
    blind_healthy_tasks,
    broken_data,
    broken_outputs,
    broken_runs,
    broken_signals,
    broken_structure,
    broken_targets,
    healthy_heads,
    healthy_networks,
    healthy_recipes,
)
from zoo.setup import BROKEN, HEALTHY, Case, Setup, examine

__all__ = ["BROKEN", "HEALTHY", "Case", "Setup", "examine"]
