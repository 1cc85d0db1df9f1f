"""Unusual policies, optimisers and arguments: supported, or refused in words."""

from __future__ import annotations

import copy
import errno
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe import updates
from gradlab.storage import journal
from gradlab.storage.journal import Journal
from tests.probe.actor_critics import GAMMA, ROWS, Loop, answers, watched
from tests.probe.small_loops import looped, net, probed, vitals
from tests.probe.test_probe_recorder import Walk, collected


class Mixed(nn.Module):
    """Of two precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 3, dtype=torch.bfloat16)
        self.b = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> Any:
        return self.b(self.a(x).double())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16, None])
def test_other_precisions_are_read_and_may_be_mixed(kind):
    policy, rows = Mixed() if kind is None else net().to(kind), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    looped(policy, optimizer, probe)
    assert vitals(rows)[0]["vitals/looked"] == 100 and not probe.off
    assert 0 < vitals(rows)[0]["vitals/update_ratio"] < 1


def test_parameters_that_join_the_optimiser_later_are_followed():
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy[2].parameters(), 1e-2)
    policy[0].requires_grad_(False)
    probe = probed(policy, optimizer, rows)
    looped(policy, optimizer, probe)
    policy[0].requires_grad_(True)
    optimizer.add_param_group({"params": policy[0].parameters(), "lr": 1e-3})
    looped(policy, optimizer, probe, 200)
    ratio = [row["vitals/layer_ratio/0.weight"] for row in vitals(rows)]
    assert np.isnan(ratio[0]) and ratio[2] > 0 and not probe.off


def test_an_optimiser_that_was_replaced_is_told(monkeypatch):
    policy, rows = net(), []
    probe = probed(policy, torch.optim.SGD(policy.parameters(), 1e-2), rows)
    with pytest.warns(RuntimeWarning, match="no update end: give it the optimiser") as caught:
        looped(policy, torch.optim.SGD(policy.parameters(), 1e-2), probe, 2 * updates.PATIENCE)
    assert sum("no update end" in str(each.message) for each in caught) == 1


def test_a_probe_is_closed_as_often_as_one_likes(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5")
    looped(policy, optimizer, probe)
    probe.close()
    written = (tmp_path / "run.h5").read_bytes()
    probe.close()
    looped(policy, optimizer, probe, 3)
    assert (tmp_path / "run.h5").read_bytes() == written


def test_copies_of_a_probe_do_nothing():
    policy = net()
    probe = gradlab.Probe(policy)
    for found in (copy.deepcopy(probe), pickle.loads(pickle.dumps(probe))):
        with found(0):
            policy(torch.zeros(1, 2)).sum().backward()
        found.close(), found.resume()
        assert found.off and found.spent == 0 and not found.alarms
    assert not probe.off


def test_a_full_disk_costs_the_log_only(monkeypatch, tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(
        policy, optimizer, log=tmp_path / "run.h5", overhead_budget=1.0, clock=lambda: 0.0
    )
    looped(policy, optimizer, probe)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as caught:
        looped(policy, optimizer, probe, 300)
    assert len(caught) == 1 and probe.off
    assert journal.read(tmp_path / "run.h5").groups["vitals"]["update"].values.tolist() == [100]


# The reward that a critic has learnt: a flipped or lost one is told, a scaled one is sound.


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
