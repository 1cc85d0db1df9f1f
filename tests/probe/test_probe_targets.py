"""Targets and advantages of the loop's own tensors against their identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.probe.actor_critics import GAMMA, Loop, answers, watched

N = 64
TARGETS, ADVANTAGES = "targets are r + γ (1 − d) v", "advantages are those of GAE"


def rows(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    ended = (torch.rand(N, 1) < 0.1).float()
    return {"reward": torch.randn(N, 1), "terminated": ended, "next_value": torch.randn(N, 1)}


def told(given: dict[str, Any], method: str = "batch") -> tuple[dict[str, Any], list[str]]:
    """The check's answer and the alarms, by kind and message."""
    loop, found = Loop(), []
    probe = watched(loop, log=found.append)
    getattr(probe, method)(**given)
    loop.run(probe, 12)
    probe.close()
    name = TARGETS if method == "batch" else ADVANTAGES
    alarms = [a.message for a in probe.alarms if a.kind in ("wrong targets", "wrong advantages")]
    return answers(found)[name], alarms


def target(r: dict[str, Tensor], gamma: float, mask: Tensor | None = None) -> Tensor:
    mask = 1 - r["terminated"] if mask is None else mask
    return r["reward"] + gamma * mask * r["next_value"]


@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_the_discount_is_read_off_one_batch(gamma):
    r = rows()
    found, alarms = told(r | {"target": target(r, gamma), "discount": gamma})
    assert found["state"] == "sound" and found["value"] == pytest.approx(gamma, abs=1e-6)
    assert not alarms


@pytest.mark.parametrize(
    "used, declared, words",
    [
        (1.0, 0.99, "use γ = 1.0000, not 0.99"),
        (0.99**2, 0.99, "use γ = 0.9801, not 0.99"),
        (1.0, None, "use γ = 1: is the discount left out?"),
    ],
)
def test_another_discount_is_told_at_the_first_batch(used, declared, words):
    r = rows()
    found, alarms = told(r | {"target": target(r, used), "discount": declared})
    assert found["state"] == "fault" and words in alarms[0]


def test_masks_that_are_left_out_or_inverted_are_told():
    r = rows()
    kept = target(r, 0.99, torch.ones(N, 1))
    assert "go on beyond terminal states" in told(r | {"target": kept, "discount": 0.99})[1][0]
    swapped = target(r, 0.99, r["terminated"])
    assert "mask of terminations inverted" in told(r | {"target": swapped, "discount": 0.99})[1][0]


def test_shapes_that_broadcast_are_told():
    r = rows()
    square = r["reward"][:, 0] + 0.99 * (1 - r["terminated"]) * r["next_value"]
    assert square.shape == (N, N)
    assert "[B, B]" in told(r | {"target": square, "discount": 0.99})[1][0]


def test_other_numbers_than_the_loop_s_accuse_nobody():
    r = rows()
    other = target(r, 0.99) - 0.1 * torch.randn(N, 1)
    found, alarms = told(r | {"target": other, "discount": 0.99})
    assert found["state"] == "off" and "the entropy in next_value" in found["proof"] and not alarms


def test_a_sound_loop_that_hands_over_its_batches_is_sound():
    loop, found = Loop(), []
    probe = watched(loop, log=found.append)

    def hand_over(r: dict[str, Tensor], goal: Tensor, value: Tensor) -> None:
        probe.batch(
            reward=r["reward"], terminated=r["ended"], next_value=value, target=goal,
            discount=GAMMA,
        )  # fmt: skip

    loop.run(probe, 60, hand_over)
    probe.close()
    assert answers(found)[TARGETS]["state"] == "sound" and answers(found)[TARGETS]["looks"] > 5


def rollout(truncated: bool = False) -> dict[str, Any]:
    """T = 40 steps of 3 environments; the reference below is the definition, a double sum."""
    torch.manual_seed(1)
    ended = torch.rand(40, 3) < 0.1
    found = {
        "reward": torch.randn(40, 3), "value": torch.randn(40, 3), "ended": ended.float(),
        "last_value": torch.randn(3), "discount": 0.95, "trace": 0.8,
    }  # fmt: skip
    if truncated:
        limit = ended & (torch.rand(40, 3) < 0.5)
        found |= {"truncated": limit, "final_value": limit * torch.randn(40, 3)}
    return found


def summed(
    r: dict[str, Any], gamma: float = 0.95, trace: float = 0.8, ended: Tensor | None = None,
    final: bool = True, last: bool = True,
) -> Tensor:  # fmt: skip
    """A_t = Σ_k (γλ)^k δ_{t+k}, up to the end of the episode."""
    e = r["ended"] if ended is None else ended
    after = torch.cat([r["value"][1:], r["last_value"][None] * last])
    delta = r["reward"] + gamma * (1 - e) * after - r["value"]
    if final and "final_value" in r:
        delta = delta + gamma * r["final_value"]
    out = torch.zeros(40, 3)
    for n in range(3):
        for t in range(40):
            for k in range(t, 40):
                out[t, n] += (gamma * trace) ** (k - t) * delta[k, n]
                if e[k, n]:
                    break
    return out


MISTAKES: dict[str, dict[str, Any]] = {
    "": {},
    "are dones used": {"ended": torch.zeros(40, 3)},
    "γ and λ exchanged": {"gamma": 0.8, "trace": 0.95},
    "value after its last step": {"last": False},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_advantages_are_recomputed(words):
    r = rollout()
    found, alarms = told(r | {"advantage": summed(r, **MISTAKES[words])}, "rollout")
    assert found["state"] == ("fault" if words else "sound")
    assert bool(alarms) == bool(words) and all(words in each for each in alarms)


def test_ends_of_one_step_earlier_are_told():
    r = rollout()
    shifted = torch.cat([torch.zeros(1, 3), r["ended"][:-1]])
    assert "one step earlier" in told(r | {"advantage": summed(r, ended=shifted)}, "rollout")[1][0]


@pytest.mark.parametrize("handed", [True, False])
def test_time_limits_that_are_ends_are_told(handed):
    r = rollout(truncated=True)
    cut = summed(r, final=False)
    given = r if handed else {k: v for k, v in r.items() if k != "final_value"}
    found, alarms = told(given | {"advantage": cut}, "rollout")
    assert found["state"] == "fault" and "treat time limits as ends" in alarms[0]
    assert told(r | {"advantage": summed(r)}, "rollout")[0]["state"] == "sound"
