"""The reward that a critic has learnt: a flipped or lost one is told, a scaled one is sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.probe.actor_critics import GAMMA, ROWS, Loop, answers, watched
from tests.probe.test_probe_recorder import Walk, collected

CHECK = "the critic's implied reward is the paid one"


class Stored(Loop):
    """The loop on rows of an environment, its rewards times a factor in the targets.

    Args:
        factor: by which the targets have them; the replay has them as paid.
    """

    def __init__(self, factor: float, env: Any) -> None:
        super().__init__(rate=3e-3)
        self.factor = factor
        rows, _ = collected(env)
        self.columns = {
            name: torch.as_tensor(np.array([row[name] for row in rows])).float()
            for name in ("observation", "action", "reward", "next_observation", "terminated")
        }

    def batch(self) -> dict[str, Tensor]:
        at = torch.randint(len(self.columns["reward"]), (ROWS,))
        o, a, r, n, d = (each[at] for each in self.columns.values())
        return {"state": o, "action": a, "paid": r[:, None], "reward": self.factor * r[:, None],
                "next": n, "ended": d[:, None]}  # fmt: skip


def run(factor: float, **left_out: Any) -> tuple[dict[str, Any], list[str]]:
    """The check's newest row, and what its alarms say."""
    loop, written = Loop(), []
    loop.critic_optimizer = torch.optim.Adam(loop.critics.parameters(), 4e-3)
    probe = watched(loop, log=written.append)
    stored = Stored(factor, probe.record(Walk()))
    loop.batch = stored.batch  # type: ignore[method-assign]

    def hand_over(rows: dict[str, Tensor], goal: Tensor, value: Tensor) -> None:
        given = {
            "observation": rows["state"], "action": rows["action"], "reward": rows["paid"],
            "next_observation": rows["next"], "terminated": rows["ended"], "next_value": value,
            "discount": GAMMA,
        }  # fmt: skip
        given |= {"target": goal} if factor > 0 else {}
        probe.batch(**{k: v for k, v in given.items() if k not in left_out})

    loop.run(probe, 420, hand_over)
    probe.close()
    kind = "critic learns another reward"
    return answers(written)[CHECK], [a.message for a in probe.alarms if a.kind == kind]


@pytest.mark.slow
@pytest.mark.parametrize("factor, words", [(1, ""), (0.1, ""), (-1, "opposite"), (0, "nothing")])
def test_a_critic_that_learns_another_reward_is_told(factor, words):
    found, told = run(factor)
    assert found["state"] == ("fault" if words else "sound")
    assert bool(told) == bool(words) and all(words in each for each in told)
    assert (found["value"] > 0.3) if not words else (found["value"] < 0.2)


@pytest.mark.parametrize("fault", [False, True])
def test_rows_that_a_critic_is_fitted_on_are_found_without_batch(fault):
    """Observations and actions are seen in its input; what is not says so."""
    loop, written = Loop(), []
    probe = watched(loop, log=written.append)
    stored = Stored(1, probe.record(Walk()))
    if fault:
        stored.columns["action"] = stored.columns["action"] * 0.7
    loop.batch = stored.batch  # type: ignore[method-assign]
    loop.run(probe, 150)
    probe.close()
    found = answers(written)
    assert found["actions are stored as sent"]["state"] == ("fault" if fault else "sound")
    assert found["batches are drawn anew"]["state"] == "sound"
    rewards = found["rewards are stored as paid"]
    assert rewards["state"] == "off" and "reward not handed over" in rewards["proof"]
