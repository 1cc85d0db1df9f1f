"""Whether the starts of a run are its task's own, or their law was trimmed (`tasks.trimmed`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REMEDY = 0.01  # the share that is proposed where starts have tails


def trimmed_share(config: Mapping[str, Any]) -> float:
    """The share of the starts that is left out; 0 for the task's own law."""
    parameters = config.get("task_parameters")
    return float(parameters.get("trim_starts", 0)) if isinstance(parameters, Mapping) else 0.0


def central(share: float) -> str:
    """What is left, as "central 99%"."""
    return f"central {100 * (1 - share):.4g}%"


def trimming(config: Mapping[str, Any]) -> str:
    """A sentence that the starts are not the task's own; "" where they are."""
    share = trimmed_share(config)
    if not share:
        return ""
    return (
        f"Starts trimmed to the {central(share)} of their law: another question than the task's "
        f"own starts."
    )
