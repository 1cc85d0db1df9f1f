"""Stored rows against recorded steps: storage faults are named, sound storage is not accused."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import NOT_DRAWN, UNRESET
from gradlab.probe.budget import UNSEEN, Budget
from gradlab.probe.parts import recorder
from gradlab.probe.parts.implied import Implied
from gradlab.probe.parts.parts import Parts
from gradlab.probe.parts.recorder import EndsReset, Episodes, Ring
from gradlab.probe.parts.rows import UNENDED, Drawn, StoredCopies, questions
from gradlab.reporting import probe_page
from gradlab.runs.probe.results import load
from tests.probe import small_loops
from tests.probe.actor_critics import Critic, answers

LIMIT = 8
LATE = ("time limits are no terminations", "episodes end with their last observation")
KIND = "stored rows differ"


class Walk(gymnasium.Env[Any, Any]):
    """A random walk that pays 1 + its first coordinate, ends beyond 2, and is cut after 8 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.standard_normal(2).astype(np.float32), 0
        return self.state.copy(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.state = (self.state + self.np_random.standard_normal(2) * 0.5).astype(np.float32)
        ended = bool(abs(self.state[1]) > 2)
        reward = 1.0 + float(self.state[0])
        return self.state.copy(), reward, ended, self.steps >= LIMIT and not ended, {}


class Crash(Walk):
    """Beside its end all rewards are small."""

    def step(self, action: Any) -> Any:
        after, reward, ended, *rest = super().step(action)
        return after, reward - 1e6 * ended, ended, *rest


Row = dict[str, Any]


def collected(env: Any, steps: int = 600, scale: int = 1) -> tuple[list[Row], list[Row]]:
    """Rows as a sound loop stores them, and the one after each (the next episode's at its end).

    Args:
        scale: of the actions that are sent; more than 1: a loop that scales them twice.
    """
    rng, rows = np.random.default_rng(0), []
    before, _ = env.reset(seed=0)
    for _ in range(steps):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(scale * action)
        rows.append({
            "observation": before, "action": action, "reward": reward,
            "next_observation": after, "terminated": terminated, "truncated": truncated,
        })  # fmt: skip
        before = after
        if terminated or truncated:
            before, _ = env.reset()
    return rows, [*rows[1:], rows[-1]]


def probed() -> tuple[gradlab.Probe, list[Row], Callable[[], None]]:
    policy, rows = nn.Linear(2, 1), []
    optimizer = torch.optim.Adam(policy.parameters())
    probe = small_loops.probed(policy, optimizer, rows)

    def update() -> None:
        optimizer.zero_grad()
        with probe(0):
            policy(torch.randn(4, 2)).sum().backward()
        optimizer.step()

    return probe, rows, update


def told(
    rows: list[Row], probe: gradlab.Probe, update: Callable[[], None],
    drawn: Callable[[Any, Any], Any] = lambda reward, rng: reward,
) -> list[str]:  # fmt: skip
    """Alarms after batches of these rows; `drawn`: what a loop makes of a batch's rewards."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        batch = [rows[k] for k in rng.integers(0, len(rows), 64)]
        names = [name for name in batch[0] if name != "truncated"]
        columns = {name: np.array([row[name] for row in batch]) for name in names}
        columns["reward"] = drawn(columns["reward"], rng)
        probe.batch(**{name: torch.as_tensor(each) for name, each in columns.items()})
        update()
    return [alarm.message for alarm in probe.alarms if alarm.kind == KIND]


def over(row: Row) -> bool:
    return row["terminated"] or row["truncated"]


# What is stored instead of a row and the one after it, and how that is told.
FAULTS: dict[str, Callable[[Row, Row], Row]] = {
    "the stored rewards have the opposite sign": lambda row, _: {"reward": -row["reward"]},
    "the stored rewards are whole numbers": lambda row, _: {"reward": float(int(row["reward"]))},
    "the stored rewards are nearly 0": lambda row, _: {"reward": 0.0},
    "the stored next observation is the observation itself": lambda row, _: {
        "next_observation": row["observation"]
    },
    "the stored next observation is that of one step later": lambda row, after: {
        "next_observation": after["next_observation"]
    },
    "next episode's first observation": lambda row, after: {
        "next_observation": after["observation"] if over(row) else row["next_observation"]
    },
    "are not stored as terminated": lambda row, _: {"terminated": False},
    "a time limit cut are stored as terminated": lambda row, _: {"terminated": over(row)},
    "the stored actions are not those": lambda row, _: {"action": row["action"] + np.float32(0.1)},
}
SOUND: dict[str, Callable[[Row], Row]] = {
    "as paid": lambda row: {},
    "scaled": lambda row: {"reward": 0.1 * row["reward"] - 3},
    "signs": lambda row: {"reward": float(np.sign(row["reward"]))},
    "as Stable-Baselines3 stores actions": lambda row: {"action": row["action"] / 2},
}


def test_a_second_environment_is_refused_and_the_first_ones_checks_stay():
    probe, _, _ = probed()
    probe.record(Walk())
    checks, ring = [*probe._parts.checks], probe._parts._ring
    with pytest.raises(InputError, match="Leave one of evaluations unrecorded") as refused:
        probe.record(gymnasium.wrappers.TimeLimit(Walk(), 1))
    assert "\n" not in str(refused.value)
    assert probe._parts.checks == checks and probe._parts._ring is ring


@pytest.mark.parametrize(
    "recorded, rollouts, said",
    [
        (False, False, "the environment is not recorded: env = probe.record(env)"),
        (True, False, "no rows are handed over: probe.batch(observation=…"),
        (False, True, "hand over the rollout's minibatches, too: env = probe.record(env), then"),
        (True, True, "hand over the rollout's minibatches, too: env = probe.record(env), then"),
    ],
)
def test_what_rows_lack_is_said_of_the_loop_as_it_is(recorded, rollouts, said):
    probe, written, update = probed()
    if recorded:
        probe.record(Walk())
    if rollouts:
        one = torch.ones(8)
        probe.rollout(
            reward=one, value=one, ended=0 * one, last_value=torch.ones(()), advantage=one,
            discount=0.9, trace=0.9,
        )  # fmt: skip
    update()
    probe.close()
    found = answers(written)
    of = [each.name for each in (*questions(None, None), Drawn, StoredCopies)]
    assert all(found[name]["proof"].startswith(said) for name in of), found
    said = "a loop that hands over rollouts has no targets of one step" if rollouts else said
    assert found[Implied.name]["proof"].startswith(said)


@pytest.mark.parametrize("mode", [None, AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_ring_keeps_the_observations_on_both_sides_of_a_reset(mode):
    probe, _, _ = probed()
    if mode is None:
        rows, after = collected(probe.record(Walk()), steps=100)
        ends = [(a["next_observation"], b["observation"])
                for a, b in zip(rows, after, strict=True) if over(a)]  # fmt: skip
    else:
        env = probe.record(SyncVectorEnv([Walk], autoreset_mode=mode))
        (state, _), ends, last = env.reset(seed=0), [], None
        for _ in range(100):
            state, _, ended, cut, infos = env.step(np.zeros((1, 1), np.float32))
            if last is not None:
                ends.append((last, state[0]))
            last = state[0] if ended[0] or cut[0] else None
            if last is not None and mode is AutoresetMode.SAME_STEP:
                ends.append((infos["final_obs"][0], last))
                last = None
    ring = probe._parts._ring
    kept = ring.count and list(ring.resets)
    assert len(kept) > 5
    for (_, *mine), its in zip(kept[::-1], ends[::-1], strict=False):
        np.testing.assert_array_equal(mine, its)
    (newest,) = ring.latest.values()
    for number, states in ring.acted:
        assert ring.places(states).tolist() == [number]
    assert newest.shape == (1, 2)


class InPlace(Walk):
    """Gives one and the same array at every step, in the whole run or in an episode."""

    def __init__(self, whole: bool) -> None:
        self.whole, self.given = whole, np.zeros(2, np.float32)

    def reset(self, **given: Any) -> Any:
        observation, info = super().reset(**given)
        self.given = self.given if self.whole else np.zeros(2, np.float32)
        self.given[:] = observation
        return self.given, info

    def step(self, action: Any) -> Any:
        self.given[:], *rest = super().step(action)
        return self.given, *rest


@pytest.mark.parametrize("whole", [True, False])
def test_rows_that_share_the_array_that_the_environment_changes_are_told(whole):
    probe, written, update = probed()
    rows, _ = collected(probe.record(InPlace(whole)))
    found = told(rows, probe, update)
    assert found and all("the same row again and again" in each for each in found)
    probe.close()
    for each in questions(None, None):
        assert answers(written)[each.name]["proof"].startswith("the stored observations are the")


def test_rows_that_are_their_own_next_observations_are_told_where_no_step_begins_at_them():
    """A window of several steps that holds the array itself; every episode is of one step."""
    probe, written, update = probed()
    rows, _ = collected(probe.record(gymnasium.wrappers.TimeLimit(Walk(), 1)), 400)
    stored = [row | {"observation": row["next_observation"]} for row in rows]
    found = told(stored, probe, update)
    probe.close()
    assert found and any("are their own next ones" in each for each in found)
    assert answers(written)[StoredCopies.name]["state"] == "fault"


@pytest.mark.parametrize("seen", [
    lambda state: np.zeros(2, np.float32),  # constant
    lambda state: np.eye(2, dtype=np.float32)[int(state[0] > 0)],  # one of two
    lambda state: np.round(state) + 0.0,
    lambda state: state,
])  # fmt: skip
@pytest.mark.parametrize("rows_seen", [2, 40, 600])
def test_observations_that_come_again_are_not_said_to_share_an_array(seen, rows_seen):
    """Also of a young replay, which is drawn with replacement."""
    probe, written, update = probed()
    env = gymnasium.wrappers.TransformObservation(Walk(), seen, None)
    rows, _ = collected(probe.record(env), rows_seen)
    told(rows, probe, update)
    probe.close()
    assert answers(written)[StoredCopies.name]["state"] == "sound"
    assert not any("again and again" in alarm.message for alarm in probe.alarms)


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_of_storage_is_told_by_its_name(words):
    probe, _, update = probed()
    rows, after = collected(probe.record(Walk()))
    stored = [a | FAULTS[words](a, b) for a, b in zip(rows, after, strict=True)]
    found = told(stored, probe, update)
    assert found and all(words in each and each.endswith("?") for each in found)


class Steered(Walk):
    """Actions of two numbers move it; rewards are numbers of their own."""

    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)

    def step(self, action: Any) -> Any:
        self.state = (self.state + 0.1 * np.asarray(action)).astype(np.float32)
        return super().step(action)


class Wheel(Walk):
    action_space = gymnasium.spaces.Discrete(3)


COLUMNS = ("observation", "action", "reward", "next_observation", "terminated")
OLD, OTHER = "the stored observations are not those at which the step began but ", "of other steps"
EARLIER = "the stored terminations are those of the step before"
# Columns that are stored of another row: how many steps on, of which environment, from which on
# (0: of this many steps the first); and how that is told.
DISPLACED: dict[str, tuple[tuple[str, ...], Callable[[int], int], int, str]] = {
    "one step old": (("observation",), lambda t: t - 1, 0, OLD + "one step older"),
    "refreshed every 4th": (("observation",), lambda t: t - t % 4, 0, OLD + "up to 3 steps older"),
    "refreshed every 2nd": (("observation",), lambda t: t - t % 2, 0, OLD + "one step older"),
    "after": (("observation",), lambda t: t + 1, 0, "set before the row is stored"),
    "observations": (("observation",), lambda t: t, 1, f"stored observations are those {OTHER}"),
    "actions": (("action",), lambda t: t, 1, f"the stored actions are those {OTHER} than"),
    "actions before": (("action",), lambda t: t - 1, 0, "the stored actions are those of the step"),
    "actions after": (("action",), lambda t: t + 1, 0, "actions are sent one step later"),
    "rewards": (("reward",), lambda t: t, 1, "paid for other steps"),
    "next": (("next_observation",), lambda t: t, 1, "next observation is that of another step"),
    "ends": (("terminated",), lambda t: t, 1, "ended an episode are not stored as terminated"),
    "ends before": (("terminated",), lambda t: t - 1, 0, EARLIER),
}  # fmt: skip


def vectorised(env: Any, steps: int, seed: int) -> list[list[Row]]:
    """Rows of all environments, as a sound loop stores them, by step."""
    rng, rows = np.random.default_rng(seed), []
    before, _ = env.reset(seed=seed)
    for _ in range(steps):
        actions = rng.uniform(-2, 2, (env.num_envs, 2)).astype(np.float32)
        if isinstance(env.single_action_space, gymnasium.spaces.Discrete):
            actions = rng.integers(0, 3, env.num_envs)
        after, reward, terminated, _, infos = env.step(actions)
        last = after.copy()
        for n, final in enumerate(infos.get("final_obs", [])):
            last[n] = after[n] if final is None else final
        columns = (before.copy(), actions.reshape(len(after), -1), reward, last, terminated)
        rows.append([dict(zip(COLUMNS, each, strict=True)) for each in zip(*columns, strict=True)])
        before = after.copy()
    return rows


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("world, rollout", [(Steered, False), (Steered, True), (Wheel, False)])
@pytest.mark.parametrize("name", [None, *DISPLACED])
@pytest.mark.sampled(20)
def test_the_column_that_is_of_another_row_is_told_and_no_other(name, world, rollout, seed):
    probe, _, update = probed()
    env = SyncVectorEnv([world] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    rows, stored = vectorised(probe.record(env), 250, seed), []
    columns, at, other, words = DISPLACED.get(name, ((), int, 0, ""))
    handed = [each for each in COLUMNS if not (rollout and each == "next_observation")]
    for t, step in enumerate(rows[4:-1], 4):
        for n, row in enumerate(step):
            wrong = rows[at(t)][(n + other) % 3]
            stored.append({each: (wrong if each in columns else row)[each] for each in handed})
    found = told(stored, probe, update)
    if name is None or (rollout and name == "next"):
        assert not found
    elif world is Wheel and columns == ("action",):  # of three actions all are sent again and again
        assert found and all("the stored actions are not those" in each for each in found)
    else:
        assert found and all(words in each for each in found)


def test_ends_are_not_judged_by_rows_of_two_steps():
    """Whose halves are of different steps: which of both is the row's is not known."""
    probe, log, update = probed()
    env = SyncVectorEnv([Steered] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    rows = vectorised(probe.record(env), 250, 0)
    halves = {name: [row for step in rows[1:] for row in step] for name in COLUMNS}
    halves |= {name: [row for step in rows for row in step] for name in COLUMNS[::3]}
    stored = [
        {name: halves[name][k][name] for name in COLUMNS} for k in range(len(halves["action"]))
    ]
    found = told(stored, probe, update)
    probe.close()
    assert found and not any("terminated" in each for each in found)
    assert answers(log)["terminations are stored"]["state"] == "waiting"


def test_two_faults_of_storage_are_both_told_and_shown(tmp_path):
    policy, first, second = nn.Linear(2, 1), "opposite sign", "stored actions are not those"
    optimizer = torch.optim.Adam(policy.parameters())
    given = {"overhead_budget": 1.0, "clock": lambda: 0.0}
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5", **given)
    rows, _ = collected(probe.record(Walk()))
    both = {
        "action": lambda row: row["action"] + np.float32(0.1),
        "reward": lambda row: -row["reward"],
    }
    stored = [row | {name: change(row) for name, change in both.items()} for row in rows]
    found = told(stored, probe, partial(small_loops.looped, policy, optimizer, probe, 1))
    probe.close()
    beginnings = [[words in each for each in found[:2]] for words in (first, second)]
    assert sorted(beginnings) == [[False, True], [True, False]]
    # Each is reported again after twice as many updates.
    assert max(Counter(found).values()) < 9
    page = probe_page.page(load(tmp_path / "run.h5"))
    assert all(words in str(page.advice) for words in (first, second))
    alarms = [each.text for each in page.findings if each.title == KIND]
    assert all(any(words in each for each in alarms) for words in (first, second))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("handed", [True, False])
@pytest.mark.parametrize("sound, held", [(True, True), (True, False), (False, False)])
def test_a_page_says_whether_time_limits_of_gae_were_looked_at(
    recorded, handed, sound, held, tmp_path
):
    """Of a loop that treats time limits as ends, and one that adds the last observation's value."""
    policy = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(policy.parameters())
    given = {"overhead_budget": 1.0, "clock": lambda: 0.0}
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5", **given)
    rows, _ = collected(probe.record(Walk()) if recorded else Walk(), steps=64)
    s, after = (torch.as_tensor(np.array([row[name] for row in rows])).sum(1)
                for name in ("observation", "next_observation"))  # fmt: skip
    reward, terminated, truncated = (
        torch.tensor([float(row[name]) for row in rows])
        for name in ("reward", "terminated", "truncated")
    )
    ended = terminated + truncated
    following = (1 - (terminated if sound else ended)) * after
    advantage, carried = torch.zeros(64), torch.zeros(())
    for t in reversed(range(64)):
        carried = reward[t] + 0.9 * following[t] - s[t] + 0.9 * 0.8 * (1 - ended[t]) * carried
        advantage[t] = carried
    # A sound loop may hand over rewards that hold the value, as Stable-Baselines3 makes them.
    paid = reward if handed or not held else reward + 0.9 * truncated * after
    more = {"truncated": truncated > 0, "final_value": truncated * after} if handed else {}
    for _ in range(8):
        probe.rollout(
            reward=paid, value=s, ended=ended, last_value=after[-1], advantage=advantage,
            discount=0.9, trace=0.8, **more,
        )  # fmt: skip
        small_loops.looped(policy, optimizer, probe, 1)
    probe.close()
    assert truncated.any()
    told = ["treat time limits as ends" in alarm.message for alarm in probe.alarms]
    assert told == [True] * len(told) and bool(told) == (handed and not sound)
    page = probe_page.page(load(tmp_path / "run.h5"))
    (line,) = (each for each in page.findings if each.code.startswith("time limits are boot"))
    missing = "hand over truncated= and final_value= to probe.rollout"
    why = f"episodes were cut by time limits: {missing}" if recorded else missing
    assert (line.decision == "skipped" and why in line.text) == (not handed)
    hint = "ootstrapped at time limits: hand over truncated= and final_value=, too."
    assert (hint in page.advice.field("look at")) == (sound and not held and not handed)


class AtTheGoal(Walk):
    """What a time limit cuts has terminated in the same step."""

    def step(self, action):
        after, reward, terminated, truncated, info = super().step(action)
        return after, reward, terminated or truncated, truncated, info


@pytest.mark.parametrize("sound", [True, False])
def test_a_terminal_state_at_the_time_limit_has_no_value(sound):
    policy = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(policy.parameters())
    probe = gradlab.Probe(policy, optimizer, log=[].append, overhead_budget=1.0, clock=lambda: 0.0)
    rows, _ = collected(probe.record(AtTheGoal() if sound else Walk()), steps=64)
    s, after = (torch.as_tensor(np.array([row[name] for row in rows])).sum(1)
                for name in ("observation", "next_observation"))  # fmt: skip
    reward, cut, ended = (
        torch.tensor([float(each) for each in column])
        for column in zip(
            *[(x["reward"], x["truncated"], x["terminated"] or x["truncated"]) for x in rows],
            strict=True,
        )
    )
    advantage, carried = torch.zeros(64), torch.zeros(())
    for t in reversed(range(64)):
        carried = reward[t] + (1 - ended[t]) * (0.9 * after[t] + 0.72 * carried) - s[t]
        advantage[t] = carried
    for _ in range(8):
        probe.rollout(
            reward=reward, value=s, ended=ended, last_value=after[-1], advantage=advantage,
            discount=0.9, trace=0.8, truncated=cut, final_value=cut * after,
        )  # fmt: skip
        small_loops.looped(policy, optimizer, probe, 1)
    probe.close()
    assert bool(cut.any())
    told = ["treat time limits as ends" in alarm.message for alarm in probe.alarms]
    assert told == [True] * len(told) and bool(told) != sound


def pendulum(scaled: bool) -> gymnasium.Env[Any, Any]:
    env = gymnasium.make("Pendulum-v1")
    return gymnasium.wrappers.TransformReward(env, lambda r: 0.1 * float(r)) if scaled else env


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_rewards_of_another_unit_than_the_probes_own_are_doubted(scaled, several, recwarn):
    """Wrappers may be within each of several environments side by side."""
    policy = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(policy.parameters())
    probe = gradlab.Probe(policy, optimizer, env=lambda: pendulum(True), log=[].append)
    make = [lambda: pendulum(scaled)] * 2
    probe.record(gymnasium.vector.SyncVectorEnv(make) if several else make[0]())
    probe.close()
    doubts = [each for each in recwarn if "rewards are changed by nothing" in str(each.message)]
    assert bool(doubts) != scaled


@pytest.mark.parametrize("own", [True, False])
def test_ends_of_one_step_later_are_told_from_dones_of_observations_by_recorded_steps(own):
    policy = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(policy.parameters())
    probe = gradlab.Probe(policy, optimizer, log=[].append, overhead_budget=1.0, clock=lambda: 0.0)
    rows, _ = collected(probe.record(Walk()), steps=64)
    reward, ended = (
        torch.tensor([float(each) for each in column])
        for column in zip(
            *[(x["reward"], x["terminated"] or x["truncated"]) for x in rows], strict=True
        )
    )
    value = torch.as_tensor(np.array([x["observation"] for x in rows])).sum(1)
    after = torch.cat([value[1:], value[:1]])
    used = torch.cat([ended[1:], torch.zeros(1)]) if own else ended
    advantage, carried = torch.zeros(64), torch.zeros(())
    for t in reversed(range(64)):
        carried = reward[t] + (1 - used[t]) * (0.9 * after[t] + 0.72 * carried) - value[t]
        advantage[t] = carried
    dones = torch.cat([torch.zeros(1), ended[:-1]])
    for _ in range(8):
        probe.rollout(
            reward=reward, value=value, ended=ended if own else dones, last_value=after[-1],
            advantage=advantage, discount=0.9, trace=0.8,
        )  # fmt: skip
        small_loops.looped(policy, optimizer, probe, 1)
    probe.close()
    told = ["the ends of one step later" in alarm.message for alarm in probe.alarms]
    assert told == [True] * len(told) and bool(told) == own


@pytest.mark.parametrize("rollout", [False, True])
def test_minibatches_of_a_rollout_are_not_said_to_be_drawn_anew(rollout):
    """They come back to its rows in every epoch."""
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    if rollout:
        ones = torch.ones(64)
        probe.rollout(
            reward=ones, value=ones, ended=0 * ones, last_value=ones[0], advantage=ones,
            discount=0.9, trace=0.8,
        )  # fmt: skip
    told(rows, probe, update)
    probe.close()
    assert answers(log)["batches are drawn anew"]["state"] == ("off" if rollout else "sound")


def test_actions_that_are_scaled_twice_are_told():
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()), scale=2)
    found = told(rows, probe, update)
    assert found and all("the stored actions are not those" in each for each in found)


def test_rows_that_differ_lately_are_told_among_many_that_were_right():
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    assert not told(rows, probe, update) and not told(rows, probe, update)
    found = told([row | {"action": row["action"] + np.float32(0.1)} for row in rows], probe, update)
    assert found and all("the stored actions are not those" in each for each in found)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_rows_of_which_some_differ_are_neither_stored_as_sent_nor_a_fault(share, tmp_path):
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    wrong = [
        row | {"action": row["action"] + np.float32(0.1) * (k < share * len(rows))}
        for k, row in enumerate(rows)
    ]
    assert not told(wrong, probe, update)
    probe.close()
    found = answers(log)["actions are stored as sent"]
    assert found["state"] == "open" and not found["proof"].startswith("0 of")
    assert re.search(r"of [\d,]+ rows differ, \d+ of the newest", found["proof"])


def test_actions_of_two_scales_in_one_replay_are_told():
    """The first rows as they were sent, all others divided by their limit."""
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    mixed = [row | {"action": row["action"] / (1 + (k >= 100))} for k, row in enumerate(rows)]
    found = told(mixed, probe, update)
    assert found and all("as sent in some rows, divided by 2 in others" in each for each in found)


@pytest.mark.parametrize("stored, given, fitted, fault", [
    (2.0, 2.0, 1.0, True), (2.0, 1.0, 1.0, False), (1.0, 2.0, 1.0, False), (2.0, 2.0, 2.0, False),
])  # fmt: skip
def test_a_critic_that_has_actions_of_two_scales_is_told(stored, given, fitted, fault):
    """What stored actions are divided by, and what the actor's and the stored ones are multiplied
    by before the critic has them."""
    torch.manual_seed(0)
    policy, critic, log = nn.Sequential(nn.Linear(2, 1), nn.Tanh()), Critic(), []
    nn.init.constant_(policy[0].weight, 2.0)
    optimizers = [torch.optim.Adam(each.parameters(), 1e-4) for each in (policy, critic)]
    probe = small_loops.probed(policy, optimizers[0], log, critic_optimizer=optimizers[1])
    probe.networks(critic=critic, target=copy.deepcopy(critic))
    rows, _ = collected(probe.record(Walk()))
    for step in range(100):
        batch = [rows[k] for k in np.random.default_rng(step).integers(0, len(rows), 64)]
        state, action = (
            torch.as_tensor(np.array([row[name] for row in batch]))
            for name in ("observation", "action")
        )
        action = action / stored
        probe.batch(observation=state, action=action)
        optimizers[1].zero_grad()
        (critic(state, fitted * action) ** 2).mean().backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        with probe(step):
            critic(state, given * policy(state)).mean().backward()
        optimizers[0].step()
    probe.close()
    found = [alarm.message for alarm in probe.alarms if alarm.kind == KIND]
    assert bool(found) == fault
    assert all("divided by 2, those of the policy in the actor's loss are not" in x for x in found)
    answer = answers(log)["actions are stored as sent"]
    assert answer["state"] == ("fault" if fault else "sound")
    assert (f"stored divided by {stored:.3g}" in answer["proof"]) == fault
    assert fault or ("differ, divided by 2 (" in answer["proof"]) == (stored == 2)


def test_terminations_that_were_given_but_never_came_are_waited_for():
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    told([row for row in rows if not row["terminated"]], probe, update)
    probe.close()
    found = answers(log)["terminations are stored"]
    assert (found["state"], found["proof"]) == ("waiting", NOT_DRAWN)


@pytest.mark.parametrize("fault", ["a time limit cut", "next episode's first", "none"])
def test_ends_that_come_late_are_looked_for_between_windows(fault, monkeypatch):
    """Where looks of windows have become dear, before a time limit has cut an episode."""
    monkeypatch.setattr(Parts, "_affordable", lambda parts: parts._looks < 6)
    probe, log, update = probed()
    rows, after = collected(probe.record(Walk()))
    change = next((each for name, each in FAULTS.items() if fault in name), lambda row, _: {})
    stored = [row | change(row, later) for row, later in zip(rows, after, strict=True)]
    early = [row for row, kept in zip(stored, rows, strict=True) if not kept["truncated"]]
    assert not [each for each in told(early, probe, update) if "time limit" in each]
    probe._parts.file()
    assert answers(log)["time limits are no terminations"]["proof"] == NOT_DRAWN
    found = told(stored, probe, update)
    probe.close()
    assert bool(found) == (fault != "none") and all(fault in each for each in found)
    state = "sound" if fault == "none" else "fault"
    assert state in {row["state"] for name, row in answers(log).items() if name in LATE}
    assert probe._parts._looks == 6


@pytest.mark.parametrize("breaks", ["_ends_due", "_look_up"])
def test_a_search_of_batches_that_fails_says_so_and_the_loop_goes_on(breaks, monkeypatch):
    monkeypatch.setattr(Parts, "_affordable", lambda parts: parts._looks < 6)
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    monkeypatch.delattr(Parts, breaks)
    with pytest.warns(RuntimeWarning, match=f"the loop's parts no more.*{breaks}"):
        told(rows, probe, update)


class Drifting(Walk):
    """Pays what changes little from step to step."""

    def step(self, action: Any) -> Any:
        self.paid = getattr(self, "paid", 0.0) + 0.02 * self.np_random.standard_normal() + 0.01
        after, _, *rest = super().step(action)
        return after, self.paid, *rest


@pytest.mark.parametrize("scale", [None, 1.0, 2.0])
def test_rewards_of_the_step_after_are_told_where_they_rise_with_the_paid_ones(scale):
    probe, _, update = probed()
    rows, after = collected(probe.record(Drifting()))
    stored = [
        row | {"reward": later["reward"] if scale is None else scale * row["reward"] - 1}
        for row, later in zip(rows, after, strict=True)
    ]
    found = told(stored, probe, update)
    assert bool(found) == (scale is None) and all("paid for other steps" in each for each in found)


def test_a_replay_that_writes_over_next_observations_is_told():
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    stored = [
        row | {"next_observation": other["next_observation"]}
        for row, other in zip(rows, rows[7:] + rows[:7], strict=True)
    ]
    found = told(stored, probe, update)
    assert found and all("that of another step" in each for each in found)


def windows(
    rows: list[Row], count: int = 3, rate: float = 0.9,
    paid: Callable[[Row], float] = lambda row: row["reward"],
) -> list[tuple[Row, list[Row]]]:  # fmt: skip
    """Rows of so many steps, fewer at an episode's end, and those that they are made of."""
    made = []
    for k in range(len(rows) - count):
        end = next((j for j in range(count) if over(rows[k + j])), count - 1)
        of = rows[k : k + end + 1]
        total = sum(rate**j * paid(row) for j, row in enumerate(of))
        ahead = {name: of[-1][name] for name in ("next_observation", "terminated", "truncated")}
        made.append((rows[k] | ahead | {"reward": np.float32(total)}, of))
    return made


@pytest.mark.parametrize("count, rate", [(2, 0.9), (3, 0.99), (5, 1.0)])
@pytest.mark.parametrize(
    "world, paid",
    [
        (Walk, lambda row: row["reward"]),
        (Walk, lambda row: float(row["reward"] > 1)),
        (Walk, lambda row: 0.1 * row["reward"]),
        (Walk, lambda row: float(np.clip(row["reward"], 0.5, 1.5))),
        (Crash, lambda row: row["reward"]),
    ],
)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.sampled(8)
def test_rows_of_several_steps_are_those_of_their_steps(world, paid, count, rate, dropped):
    """At an episode's end fewer steps are stored, or none."""
    probe, log, update = probed()
    rows, _ = collected(probe.record(world()))
    stored = [
        row for row, of in windows(rows, count, rate, paid) if len(of) == count or not dropped
    ]
    assert not told(stored, probe, update)
    probe.close()
    states = {name: row["state"] for name, row in answers(log).items()}
    for name in ("next observations are those after the step", "terminations are stored",
                 "time limits are no terminations", "rewards are stored as paid"):  # fmt: skip
        assert states[name] == "sound", name


def earlier(of: list[Row], rows: list[Row]) -> float:
    """The same sum of rewards that were paid one step before."""
    at = next(k for k, row in enumerate(rows) if row is of[0])
    return sum(0.9**j * rows[max(at + j - 1, 0)]["reward"] for j in range(len(of)))


# What a loop makes of a row of three steps, of these and of all rows, and how that is told.
OF_SEVERAL: dict[str, Callable[[Row, list[Row], list[Row]], Row]] = {
    "steps that ended an episode are not stored": lambda row, of, _: {
        "terminated": of[0]["terminated"]
    },
    "steps that a time limit cut are stored as terminated": lambda row, of, _: {
        "terminated": over(row)
    },
    "the stored rewards have the opposite sign": lambda row, of, _: {"reward": -row["reward"]},
    "the stored rewards are those of the step before": lambda row, of, rows: {
        "reward": earlier(of, rows)
    },
    "the stored rewards are nearly 0": lambda row, of, _: {"reward": 0.0},
    "is that of another number of steps": lambda row, of, _: {
        "next_observation": of[-2:][0]["next_observation"]
    },
}  # fmt: skip


@pytest.mark.parametrize("words", OF_SEVERAL)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.sampled(4)
def test_a_fault_of_rows_of_several_steps_is_told_by_its_name(words, dropped):
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    made = [(row, of) for row, of in windows(rows) if len(of) == 3 or not dropped]
    stored = [row | OF_SEVERAL[words](row, of, rows) for row, of in made]
    found = told(stored, probe, update)
    assert found and all(words in each for each in found)


def test_sums_of_a_reward_that_never_changes_are_those_of_several_steps():
    class Alive(Walk):
        def step(self, action: Any) -> Any:
            after, _, *rest = super().step(action)
            return after, 1.0, *rest

    probe, log, update = probed()
    rows, _ = collected(probe.record(Alive()))
    first = [row | {"terminated": of[0]["terminated"]} for row, of in windows(rows)]
    assert all("not stored as terminated" in each for each in told(first, probe, update))
    probe.close()
    assert answers(log)["next observations are those after the step"]["state"] == "sound"
    assert answers(log)["terminations are stored"]["state"] == "fault"


@pytest.mark.parametrize("way", SOUND)
def test_sound_storage_is_not_accused(way):
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    assert not told([row | SOUND[way](row) for row in rows], probe, update)
    probe.close()
    states = {name: row["state"] for name, row in answers(log).items()}
    assert states["terminations are stored"] == states["actions are stored as sent"] == "sound"
    assert states["episodes end with their last observation"] == "sound"


class Shaped(Walk):
    """Pays 1 at its end alone."""

    def step(self, action: Any) -> Any:
        after, _, ended, *rest = super().step(action)
        return after, float(ended), ended, *rest


def shaped(row: Row) -> Row:
    """r + γ Φ(s′) − Φ(s), Φ = 5 s₁: much more than what is paid."""
    ahead = 0.0 if over(row) else float(row["next_observation"][0])
    return {"reward": row["reward"] + 5 * (0.9 * ahead - float(row["observation"][0]))}


def running(rows: list[Row]) -> list[Row]:
    """Divided by the deviation so far, as they are stored."""
    paid = np.array([row["reward"] for row in rows])
    return [r | {"reward": r["reward"] / (paid[: k + 2].std() + 0.1)} for k, r in enumerate(rows)]


def several(rows: list[Row]) -> list[Row]:
    """Sums of three rewards, without the observations that follow."""
    paid = np.array([row["reward"] for row in rows] + [0.0, 0.0])
    summed = [r | {"reward": paid[k : k + 3].sum()} for k, r in enumerate(rows)]
    return [{n: x for n, x in r.items() if n != "next_observation"} for r in summed]


class Slow(Walk):
    """Rewards of a walk that hardly moves within a step."""

    def step(self, action: Any) -> Any:
        after, _, *rest = super().step(action)
        self.paid = getattr(self, "paid", 0.0) + 0.01 * float(self.np_random.standard_normal())
        return after, self.paid, *rest


@pytest.mark.parametrize("count, rate", [(2, 0.9), (3, 1.0), (5, 0.99)])
@pytest.mark.parametrize("env", [Walk, Slow])
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.sampled(4)
def test_sums_of_rewards_beside_the_next_observation_of_one_step_are_told(env, count, rate, on):
    probe, _, update = probed()
    rows, _ = collected(probe.record(env()))
    stored = [row if on else of[0] | {"reward": row["reward"]}
              for row, of in windows(rows, count, rate)]  # fmt: skip
    found = told(stored, probe, update)
    assert on != any("are sums over several steps" in each for each in found)
    assert all("are sums over several steps" in each for each in found)


# What a sound loop makes of the rewards that were paid, whether that is as paid, and a word of it.
REWARDS: dict[str, tuple[Callable[[list[Row]], list[Row]], str, str]] = {
    "as paid": (lambda rows: rows, "sound", "0 of"),
    "scaled": (lambda rows: [r | {"reward": 0.1 * r["reward"]} for r in rows], "sound", "scaled"),
    "clipped": (
        lambda rows: [r | {"reward": np.clip(r["reward"], 0.5, 1.0)} for r in rows], "sound",
        "clipped",
    ),
    "signs": (lambda rows: [r | {"reward": np.sign(r["reward"])} for r in rows], "sound", "rising"),
    "normalised": (running, "sound", "normalised"),
    "several": (several, "open", "by none of the known ways"),
    "shaped": (lambda rows: [r | shaped(r) for r in rows], "open", "by none of the known ways"),
}  # fmt: skip


@pytest.mark.parametrize("env", [Walk, Shaped])
@pytest.mark.parametrize("form", REWARDS)
@pytest.mark.sampled(5)
def test_rewards_that_a_loop_transforms_are_no_alarm(form, env):
    probe, log, update = probed()
    rows, _ = collected(probe.record(env()))
    stored, state, word = REWARDS[form]
    assert not told(stored(rows), probe, update)
    probe.close()
    found = answers(log)["rewards are stored as paid"]
    if env is Walk:
        assert found["state"] == state and word in found["proof"]
    assert found["state"] != "fault"


@pytest.mark.parametrize("env", [Walk, Shaped])
@pytest.mark.parametrize(
    "drawn, words",
    [
        (lambda reward, rng: rng.standard_normal(len(reward)), "nothing in common"),
        (lambda reward, rng: rng.permutation(reward), "for other steps"),
        (lambda reward, rng: reward * 0.1 + 0.5 * rng.permutation(reward), "as paid"),
    ],
)
def test_rewards_of_other_rows_and_of_none_are_never_as_paid(drawn, words, env):
    probe, log, update = probed()
    rows, _ = collected(probe.record(env()))
    found = told(rows, probe, update, drawn)
    probe.close()
    answer = answers(log)["rewards are stored as paid"]
    assert answer["state"] in ("fault", "open") and " 0 of" not in answer["proof"]
    if env is Walk and words != "as paid":
        assert answer["state"] == "fault" and all(words in each for each in found) and found


def test_slow_rewards_of_the_step_before_are_not_taken_for_scaled_ones():
    probe, _, update = probed()
    rows, _ = collected(probe.record(Slow()))
    before = [rows[0], *rows[:-1]]
    stored = [row | {"reward": one["reward"]} for row, one in zip(rows, before, strict=True)]
    found = told(stored, probe, update)
    assert any("those of the step before" in each for each in found)


class Clipped(gymnasium.ActionWrapper):
    def action(self, action):
        return np.clip(np.float32(1.3) * action, -2, 2)


@pytest.mark.parametrize("replay", [False, True])
def test_actions_from_before_the_clip_are_amber_in_a_replay_and_as_sent_in_a_rollout(replay):
    probe, log, update = probed()
    rows, _ = collected(Clipped(probe.record(Walk())))
    more = {"next_value": 0.0} if replay else {}
    assert not told(
        [r | {"action": np.float32(1.3) * r["action"]} | more for r in rows], probe, update
    )
    probe.close()
    found = answers(log)["actions are stored as sent"]
    assert found["state"] == ("open" if replay else "sound")
    assert (" 0 of " in f" {found['proof']}") != replay


@pytest.mark.parametrize("wrong", [0.0, 0.9, 0.81])
def test_targets_of_several_steps_have_a_discount_each(wrong):
    probe, log, update = probed()
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 64, generator=generator)
    rates = 0.9 ** torch.randint(1, 4, (64,), generator=generator)
    target = reward + (wrong or rates) * value
    done = torch.zeros(64)
    for _ in range(40):
        probe.batch(
            reward=reward, terminated=done, next_value=value[:, None], target=target, discount=rates
        )
        update()
    probe.close()
    found = answers(log)["targets are r + γ (1 − d) v"]
    assert found["state"] == ("fault" if wrong else "sound")
    assert {alarm.message.split(",")[0] for alarm in probe.alarms} == (
        {f"the critic's targets use γ = {wrong:.4f} in every row"} if wrong else set()
    )


def test_an_empty_batch_and_one_in_half_precision_end_no_check():
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    columns = {n: torch.as_tensor(np.array([row[n] for row in rows])) for n in COLUMNS}
    for _ in range(12):
        probe.batch(**{name: each[:0] for name, each in columns.items()})
        update()
        probe.batch(**columns | {"reward": columns["reward"].bfloat16()})
        update()
    probe.close()
    assert answers(log)["actions are stored as sent"]["state"] == "sound" and not probe.alarms


def test_noise_in_a_few_rewards_is_amber():
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    rng = np.random.default_rng(3)
    wrong = [r | ({"reward": rng.normal()} if k % 10 == 0 else {}) for k, r in enumerate(rows)]
    assert not told(wrong, probe, update)
    probe.close()
    found = answers(log)["rewards are stored as paid"]
    assert found["state"] == "open" and "by none of the known ways" in found["proof"]


def test_rows_that_end_an_episode_are_counted_where_a_check_leaves_them_out():
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    assert not told(rows, probe, update)
    probe.close()
    found = answers(log)
    compared = {
        name: [int(each.replace(",", "")) for each in re.findall(r"\d[\d,]*", row["proof"])]
        for name, row in found.items()
        if row["state"] == "sound" and "rows differ" in row["proof"]
    }
    differ, looked, _, left = compared["next observations are those after the step"]
    every = compared["actions are stored as sent"]
    assert differ == 0 < left < looked and [0, looked + left] == every[:2]
    assert ", which end an episode" in found["next observations are those after the step"]["proof"]
    assert "left out" not in found["actions are stored as sent"]["proof"]


@pytest.mark.parametrize("begins_where_it_ends", [False, True])
def test_rewards_of_the_step_before_are_told_where_rows_have_a_begin(begins_where_it_ends):
    """obs = next_obs before the row is stored: reward and action are then of the step before."""
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    if begins_where_it_ends:
        stored = [row | {"observation": row["next_observation"]} for row in rows]
    else:
        before = [rows[0], *rows[:-1]]
        stored = [row | {"reward": one["reward"]} for row, one in zip(rows, before, strict=True)]
    found = told(stored, probe, update)
    assert any("those of the step before" in each for each in found) != begins_where_it_ends
    assert any("the observation itself" in each for each in found) >= begins_where_it_ends


def test_a_batch_that_comes_again_and_again_is_told():
    probe, _, update = probed()
    rows, _ = collected(probe.record(Walk()))
    names = [name for name in rows[0] if name != "truncated"]
    batch = {n: torch.as_tensor(np.array([row[n] for row in rows[:64]])) for n in names}
    for _ in range(40):
        probe.batch(**batch)
        update()
    assert any("the same batch" in alarm.message for alarm in probe.alarms)


EMPTY = {"observation": np.zeros(2), "action": np.zeros(1), "reward": 0.0,
         "next_observation": np.zeros(2), "terminated": False, "truncated": False}  # fmt: skip


class Zero(Walk):
    """Begins at zero."""

    def reset(self, **given: Any) -> Any:
        _, info = super().reset(**given)
        self.state = np.zeros(2, np.float32)
        return self.state.copy(), info


@pytest.mark.parametrize("env, stored, scale, state", [
    (Walk, 600, 1.0, "sound"), (Walk, 200, 1.0, "fault"), (Walk, 500, 1.0, "open"),
    (Walk, 0, 1.0, "open"), (Zero, 200, 1.0, "sound"), (Walk, 200, 0.5, "open"),
])  # fmt: skip
def test_rows_of_a_replays_empty_part_are_told(env, stored, scale, state):
    """Of 600 rows so many are stored; `scale`: of observations, which are known of none then."""
    probe, log, update = probed()
    rows, _ = collected(probe.record(env()))
    seen = [row | {"observation": scale * row["observation"]} for row in rows[:stored]]
    found = told(seen + [EMPTY] * (600 - stored), probe, update)
    probe.close()
    answer = answers(log)["batches are drawn anew"]
    assert answer["state"] == state
    assert all("does the replay draw from its empty part" in each for each in found)
    assert bool(found) == (state == "fault")
    assert "own next ones: see there" not in answers(log)[StoredCopies.name]["proof"]
    if state == "fault":
        assert answers(log)["actions are stored as sent"]["proof"].startswith("many drawn rows are")


@pytest.mark.parametrize("kept", [0.4, 1.0])
def test_a_replay_that_gives_none_of_the_newer_rows_is_amber(kept):
    """As one whose index stays among the first hundred."""
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    assert not told(rows[: int(kept * len(rows))], probe, update)
    probe.close()
    answer = answers(log)["batches are drawn anew"]
    assert answer["state"] == ("open" if kept < 1 else "sound")
    assert ("of the newer half of the recorded steps" in answer["proof"]) == (kept < 1)


@pytest.mark.parametrize("by_time", [False, True])
def test_rows_that_fill_up_sequences_are_none_of_an_empty_part(by_time):
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    rng = np.random.default_rng(0)
    for _ in range(60):
        filled = [
            [rows[j + t] if t < length else EMPTY for t in range(24)]
            for j, length in zip(rng.integers(0, 500, 8), rng.integers(4, 20, 8), strict=True)
        ]
        filled = [*zip(*filled, strict=True)] if by_time else filled
        batch = [row for each in filled for row in each]
        columns = {n: np.array([row[n] for row in batch]) for n in EMPTY if n != "truncated"}
        probe.batch(**{name: torch.as_tensor(each) for name, each in columns.items()})
        update()
    probe.close()
    assert answers(log)["batches are drawn anew"]["state"] == "sound"
    assert not probe.alarms


def test_transformed_observations_say_where_to_wrap():
    probe, log, update = probed()
    rows, _ = collected(probe.record(Walk()))
    shifted = [r | {"observation": r["observation"] + 1, "reward": -r["reward"]} for r in rows]
    assert not told(shifted, probe, update)
    probe.close()
    found = answers(log)["rewards are stored as paid"]
    assert found["state"] == "off" and "where they are transformed" in found["proof"]


def test_a_replay_that_is_larger_than_the_ring_is_not_called_transformed(monkeypatch):
    probe, log, update = probed()
    monkeypatch.setattr(recorder, "Ring", lambda budget: Ring(budget, 250))
    rows, _ = collected(probe.record(Walk()))
    assert not told(rows, probe, update)
    probe.close()
    assert answers(log)["rewards are stored as paid"]["state"] == "sound"


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("planted", [False, True])
def test_environments_that_reset_by_themselves(mode, planted):
    """Planted: what comes back at the end of an episode is stored as its next observation."""
    probe, _, update = probed()
    env = probe.record(SyncVectorEnv([Walk] * 3, autoreset_mode=mode))
    rng, rows = np.random.default_rng(0), []
    before, _ = env.reset(seed=0)
    over = np.zeros(3, dtype=bool)
    for _ in range(300):
        actions = rng.uniform(-2, 2, (3, 1)).astype(np.float32)
        after, reward, terminated, truncated, infos = env.step(actions)
        for n in range(3):
            last = after[n]
            if not planted and "final_obs" in infos and infos["final_obs"][n] is not None:
                last = infos["final_obs"][n]
            if not over[n]:
                rows.append({
                    "observation": before[n], "action": actions[n], "reward": reward[n],
                    "next_observation": last, "terminated": terminated[n],
                })  # fmt: skip
        over = (terminated | truncated) & (mode == AutoresetMode.NEXT_STEP)
        before = after
    found = told(rows, probe, update)
    fault = planted and mode == AutoresetMode.SAME_STEP
    assert all(alarm.kind == KIND for alarm in probe.alarms)
    assert bool(found) == fault and all("final_obs" in each for each in found)


class Again(gymnasium.Wrapper):
    """Resets by itself in the step that ends an episode, as environments of a batch do."""

    def step(self, action: Any) -> Any:
        after, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            info = info | {"final_obs": after}
            after, _ = self.env.reset()
        return after, reward, terminated, truncated, info


class Bandit(Walk):
    """Every step ends an episode, and the next one begins where it ended."""

    def step(self, action: Any) -> Any:
        return *super().step(action)[:2], False, True, {}


class Pulse(Walk):
    """Its limit is given once."""

    def step(self, action: Any) -> Any:
        after, reward, *_ = super().step(action)
        return after, reward, False, self.steps == LIMIT, {}


def walked(env: Any, reset: Callable[[bool, bool], bool], repeats: int = 1) -> list[Row]:
    """Rows of a loop that resets where `reset` of both flags says so."""
    rng, rows = np.random.default_rng(0), []
    before, _ = env.reset(seed=0)
    for _ in range(600):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        for _ in range(repeats):
            after, reward, terminated, truncated, info = env.step(action)
        rows.append({
            "observation": before, "action": action, "reward": reward,
            "next_observation": info.get("final_obs", after), "terminated": terminated,
        })  # fmt: skip
        before = env.reset()[0] if reset(terminated, truncated) else after
    return rows


@pytest.mark.parametrize("reset", [lambda end, _: False, lambda end, _: end])
def test_a_loop_that_steps_on_after_a_time_limit_is_told_of_it(reset):
    probe, log, update = probed()
    assert not told(walked(probe.record(Walk()), reset), probe, update)
    alarm, *_ = (each for each in probe.alarms if each.kind == UNRESET)
    assert "reset it where `terminated or truncated`" in alarm.message
    probe.close()
    found = answers(log)
    assert found[EndsReset.name]["state"] == "fault"
    assert found["rewards are stored as paid"]["proof"] == UNENDED
    assert not any("is not recorded" in each["proof"] for each in found.values())


SELF_RESET = {
    "same step": Again(Walk()), "next step": gymnasium.wrappers.Autoreset(Walk()),
    "one step": Bandit(), "limit given once": Pulse(),
}  # fmt: skip


@pytest.mark.parametrize("name", SELF_RESET)
def test_an_environment_that_resets_by_itself_is_not_stepped_on(name):
    probe, log, update = probed()
    assert not told(walked(probe.record(SELF_RESET[name]), lambda *_: False), probe, update)
    assert not probe.alarms
    probe.close()
    found = answers(log)
    assert found[EndsReset.name]["state"] == "sound"
    if name != "one step":
        assert probe._parts._ring.count > 500
        assert found["rewards are stored as paid"]["state"] == "sound"


def test_actions_that_are_repeated_beyond_an_end_are_no_missing_reset():
    probe, log, update = probed()
    told(walked(probe.record(Walk()), lambda *flags: any(flags), repeats=5), probe, update)
    probe.close()
    assert answers(log)[EndsReset.name]["state"] == "sound"


def test_what_an_environment_gives_is_not_changed():
    plain, _ = collected(Walk())
    probe, _, _ = probed()
    recorded, _ = collected(probe.record(Walk()))
    for one, other in zip(plain, recorded, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("vector", [False, True])
def test_recording_is_paid_from_the_budget(vector):
    """By a clock that goes on by a second whenever it is read: one second a step and the hooks'."""
    ticks = iter(range(10**9))
    network = nn.Linear(2, 1)
    adam = torch.optim.Adam(network.parameters())
    probe = gradlab.Probe(network, adam, clock=lambda: float(next(ticks)))
    env = probe.record(SyncVectorEnv([Walk, Walk]) if vector else Walk())
    env.reset(seed=0)
    before = probe.budget.own
    for _ in range(5):
        env.step(np.zeros((2, 1), np.float32) if vector else np.zeros(1, np.float32))
    assert probe.budget.own == before + 5 * UNSEEN
    probe.close()


def test_the_ring_forgets_its_oldest_steps():
    ring, episodes = Ring(Budget(0.05, lambda: 0.0), 4), Episodes(1)
    states = np.arange(12, dtype=np.float32).reshape(6, 1, 2)
    ring.keep(episodes, states[0])
    for k in range(5):
        ring.keep(episodes, states[k + 1], [[0.0]], [float(k)], [False], [False])
    assert ring.find(states[:, 0]).reward.tolist() == [1, 2, 3, 4]
    ring.keep(episodes, states[2])
    ring.keep(episodes, states[0], [[0.0]], [9.0], [False], [False])
    assert ring.find(states[2]).rows.tolist() == []  # two steps begin there


class Goal(gymnasium.Env[Any, Any]):
    """Observations of two parts."""

    observation_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Box(-1, 1, (1,))})
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, **given: Any) -> Any:
        return {"a": np.zeros(1)}, {}

    def step(self, action: Any) -> Any:
        return {"a": np.zeros(1)}, 1.0, False, False, {}


@pytest.mark.parametrize("several", [False, True])
def test_what_cannot_be_recorded_does_not_end_the_loop(several):
    probe, _, _ = probed()
    env = gymnasium.vector.SyncVectorEnv([Goal, Goal]) if several else Goal()
    env = probe.record(env)
    with pytest.warns(RuntimeWarning, match="records no more steps"):
        env.reset()
    actions = np.zeros((2, 1) if several else 1)
    assert np.all(env.step(actions)[1] == 1.0)
