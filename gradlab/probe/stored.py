"""What a loop stores against what its environment gave.

    storage = Storage(steps=n, discount=gamma)      env = storage.record(env)
    storage.look(batch)                             storage.findings()

Rows are found by the bytes of their float32 observation; one that came twice names no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gradlab.findings import Finding


class Relation(NamedTuple):
    """How stored rows stand to recorded ones.

    Attributes:
        word: same, zero, unclipped, scaled, negated, few, shifted, clipped, rising, other row,
            related, unrelated.
        number: the scale, the lag, the correlation, or the share of rows that differ.
        share: of rows that are equal.
    """

    word: str
    number: float
    share: float


def relation(
    stored: NDArray[Any],
    recorded: NDArray[Any],
    near: Mapping[int, NDArray[Any]] | None = None,
    pool: NDArray[Any] | None = None,
) -> Relation:
    """How stored rows, [N, k], stand to the recorded ones of the same steps, [N, k].

    Args:
        near: by lag the recorded rows so many steps later, NaN where there are none.
        pool: all that was recorded, [M, k].
    """
    raise NotImplementedError


@final
class Storage:
    """A log of an environment's steps, and rows of batches beside them.

    Args:
        steps: that a stored row is of (n-step returns); discount: of the rewards within it.
        value_discount: γ (γⁿ) of values, for their bound max|r| / (1 − γ); None: not looked at.
        soft: values hold an entropy bonus, so that rewards alone do not bound them.
    """

    def __init__(
        self, steps: int = 1, discount: float = 1.0, value_discount: float | None = None,
        soft: bool = False, size: int = 100_000,
    ) -> None:  # fmt: skip
        raise NotImplementedError

    def record(self, env: Any) -> Any:
        """The environment, to be used in its place; its steps go to the log.

        Takes gymnasium's environments and vectors, and batched ones whose `step(action)` gives
        (observations, rewards, dones, infos) or (…, terminated, truncated, infos) as tensors.

        Raises:
            InputError: something else, or a second environment.
        """
        raise NotImplementedError

    def look(self, batch: Mapping[str, Any]) -> None:
        """Compare a batch of the loop: observation, and what it has of action, reward, terminated,
        truncated, next_observation, advantage, value, next_value, target; [B, …] each."""
        raise NotImplementedError

    def findings(self) -> tuple[Finding, ...]:
        """The answers of `CHECKS`."""
        raise NotImplementedError
