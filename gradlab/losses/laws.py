"""Laws by kind of loss, and the two ways to ask them: `look_at` in a loop, `audit` for a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlab.findings import Finding
from gradlab.losses.asking import Declared

KINDS = ("critic", "actor", "policy", "fit", "gae")


def look_at(
    loss: Callable[..., Any], batch: Any, declared: Declared, kind: str = "critic"
) -> tuple[Finding, ...]:
    """Ask a loss every law of its kind; nothing of networks, generators or gradients changes.

    Args:
        loss: loss(batch) → a scalar, or a dict of terms. Of kind "gae" the function gae(reward,
            value, ended, last_value, final_value) → advantages [T, E]; its batch is None.
        batch: a mapping of tensors [B, …], TensorDict or named tuple. House names of columns:
            observation, action, reward, next_observation, terminated, truncated, discount, weight,
            return, value, advantage, old_log_prob, mask; others by `Declared.columns`.
        declared: networks, γ and what else is known (`Declared`).
        kind: "critic", "actor", "policy" (recorded actions weighed by advantages), "fit" (a value
            fitted to given targets), or "gae".

    Returns:
        One finding for each law: code "critic.reward" where it passes, "critic.reward.negated"
        where it fails, `.skipped`, `.meant`, `.error` and further names where it is not judged.
        The order of laws is their weight: the first that fails is the headline. `subject` is the
        term of a dict, or "".

    Raises:
        InputError: a declaration is of the wrong type, or the loss itself fails on the batch.
    """
    raise NotImplementedError
