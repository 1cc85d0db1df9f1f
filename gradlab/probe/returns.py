"""Returns before and after: whole episodes of the loop's policy, and what the loop notes itself.

    an episode without noise from a fresh reset, at every second look, in an environment of the
    probe's own: windows of 16, against the one before and the first

The loop's random streams are put back, and its policy is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.episodes import Actor, begin, made, play, takes_seed
from gradlab.data.trajectories import child
from gradlab.findings import Finding
from gradlab.probe.checks import fallen
from gradlab.probe.isolation import copied, undisturbed
from gradlab.runs.probe.results import Columns
from gradlab.runs.probe.returns import COLUMNS, TRAINED, WINDOW, Returns
from gradlab.user_code import running

RETURN, LOSS = "episode_return", "critic_loss"
WINDOWS = {"returns": WINDOW, "episodes": TRAINED}
_TRIED = 10  # steps of the first try
MakeEnv = Callable[[], Any]


@final
class Notes:
    """Numbers by name since the last row."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, int, Any]]] = {RETURN: [], LOSS: []}

    def take(self, name: str, value: Any, update: int, step: int) -> None:
        """One more number, or several; a tensor is not waited for until a row is due."""
        held = value.detach() if isinstance(value, Tensor) else np.asarray(value, dtype=float)
        self._kept[name].append((update, step, held))

    def row(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Means of what is finite, of those that were noted, and a row of every episode; begins the
        next row."""
        taken = {
            name: [
                (update, step, float(value))
                for update, step, held in kept
                for value in np.ravel(held.cpu().numpy() if isinstance(held, Tensor) else held)
            ]
            for name, kept in self._kept.items()
            if kept
        }
        for kept in self._kept.values():
            kept.clear()
        means: dict[str, float] = {}
        for name, each in taken.items():
            finite = [value for *_, value in each if np.isfinite(value)]
            means[name] = float(np.mean(finite)) if finite else float("nan")
        episodes = [
            {"update": update, "step": step, "value": value}
            for update, step, value in taken.get(RETURN, ())
        ]
        return means, episodes


def is_finite(value: Any) -> bool:
    """True where an accelerator would have to be waited for."""
    if isinstance(value, Tensor):
        return not value.is_cpu or bool(torch.isfinite(value.detach()).all())
    return bool(np.isfinite(np.asarray(value, dtype=float)).all())


@final
class ReturnWindows:
    """The windows of one table, "returns" or "episodes", as its rows come; they go on in a log that
    is resumed."""

    def __init__(self, name: str, columns: Columns) -> None:
        self.name, self.window = name, WINDOWS[name]
        self.rows = [np.asarray(columns.get(each, ()), dtype=float).tolist() for each in COLUMNS]
        self._before = self.rows[0].count(0)  # rows before the first update, in no window

    @property
    def count(self) -> int:
        """Rows so far."""
        return len(self.rows[0])

    def add(self, row: Mapping[str, Any]) -> Finding | None:
        """One more; what fails, where it fills a window."""
        for held, name in zip(self.rows, COLUMNS, strict=True):
            held.append(row[name])
        self._before += row["update"] == 0
        if not row["update"] or (self.count - self._before) % self.window:
            return None
        columns = dict(zip(COLUMNS, map(np.array, self.rows), strict=True))
        return fallen(Returns.of(columns, self.window), self.name)


@final
class Episodes:
    """Episodes of the policy as it is.

    Args:
        make: makes an environment of the probe's own.
        count: that were played by the log's earlier probes.

    Raises:
        InputError: it cannot be made or stepped, or the policy cannot act in it.
    """

    def __init__(self, make: MakeEnv, policy: nn.Module, seed: int, count: int) -> None:
        self.policy, self.seed, self.count = policy, seed, count
        with undisturbed():
            self.environment = made(make)
            actor = Actor(copied(policy), self.environment)
            self._seeded = takes_seed(self.environment)
            with running("env"):
                actor.check(begin(self.environment, self._seed))
                play(self.environment, actor, self._seed, _TRIED)

    def row(self) -> dict[str, Any]:
        """One episode; of an environment with several places their mean."""
        with undisturbed():
            actor = Actor(copied(self.policy), self.environment)
            played = play(self.environment, actor, self._seed)
        self.count += 1
        return {
            "value": float(np.mean([episode.total for episode in played])),
            "length": float(np.mean([episode.length for episode in played])),
            "episodes": len(played),
        }

    def close(self) -> None:
        with suppress(Exception), undisturbed():
            self.environment.close()

    @property
    def _seed(self) -> int | None:
        return child(self.seed, f"probe episode {self.count}") % 2**31 if self._seeded else None
