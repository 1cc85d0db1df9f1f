"""Policy gradients measured on recorded trajectories with a learned model, without a simulator.

measure_logs(data, policy, model, critic, discount=0.99) → LogsRun
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.logs.measure import measure_logs
    from gradlab.runs.logs import LogsRun, load

__all__ = ["LogsRun", "load", "measure_logs"]

_HOMES = {
    "measure_logs": "gradlab.logs.measure",
    "LogsRun": "gradlab.runs.logs",
    "load": "gradlab.runs.logs",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gradlab.logs' has no attribute {name!r}")
