"""Stored rows against recorded steps: planted faults are told by their code, sound ones by none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from gradlab.errors import InputError
from gradlab.probe.stored import Storage, relation

LIMIT = 8
Row = dict[str, Any]


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


class Pole(Walk):
    """All rewards are 1."""

    def step(self, action: Any) -> Any:
        after, _, *rest = super().step(action)
        return after, 1.0, *rest


class Drift(Walk):
    """Pays what changes little from step to step."""

    paid = 0.0

    def step(self, action: Any) -> Any:
        after, _, *rest = super().step(action)
        self.paid += 0.02 * self.np_random.standard_normal() + 0.01
        return after, self.paid, *rest


def over(row: Row) -> bool:
    return bool(row["terminated"] or row["truncated"])


def collected(env: Any, steps: int = 600, scale: float = 1.0) -> list[Row]:
    """Rows as a sound loop stores them. scale: of the actions that are sent."""
    rng, rows = np.random.default_rng(0), []
    before, _ = env.reset(seed=0)
    for _ in range(steps):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(np.float32(scale) * action)
        rows.append({
            "observation": before, "action": action, "reward": reward,
            "next_observation": after, "terminated": terminated, "truncated": truncated,
        })  # fmt: skip
        before = after if not (terminated or truncated) else env.reset()[0]
    return rows


def told(
    storage: Storage, rows: list[Row], without: tuple[str, ...] = ("truncated",), looks: int = 12,
    **more: Any,
) -> dict[str, str]:  # fmt: skip
    """Codes and decisions after batches of these rows."""
    rng = np.random.default_rng(1)
    for _ in range(looks):
        batch = [rows[k] for k in rng.integers(0, len(rows), 64)]
        columns = {name: np.array([row[name] for row in batch]) for name in batch[0]}
        storage.look({
            name: torch.as_tensor(each) for name, each in columns.items() if name not in without
        } | more)  # fmt: skip
    for each in storage.findings():
        assert each.sentence
        assert each.decision in ("pass", "undecided") or each.remedy
    return {each.code: each.decision for each in storage.findings()}


def failed(found: dict[str, str]) -> set[str]:
    return {code for code, decision in found.items() if decision == "fail"}


def stored(env: Any, change: Callable[[list[Row], int], Row], **given: Any) -> dict[str, str]:
    """What is told where a row k of all of these is changed."""
    storage = Storage(**given)
    rows = collected(storage.record(env))
    return told(storage, [row | change(rows, k) for k, row in enumerate(rows[:-1])][1:])


def column(name: str, of: Callable[[Any], Any]) -> Callable[[list[Row], int], Row]:
    return lambda rows, k: {name: of(rows[k][name])}


def other(names: str, lag: int) -> Callable[[list[Row], int], Row]:
    return lambda rows, k: {name: rows[(k + lag) % len(rows)][name] for name in names.split()}


FAULTS: dict[str, tuple[Callable[[list[Row], int], Row], set[str]]] = {
    "negated": (column("reward", lambda r: -r), {"stored_negated"}),
    "zero": (column("reward", lambda r: 0.0), {"stored_zero"}),
    "growing": (
        lambda rows, k: {"reward": rows[k]["reward"] * 1.02**k}, {"stored_unlike"}
    ),
    "reward of the step before": (other("reward", -1), {"stored_shifted"}),
    "reward of the step after": (other("reward", 1), {"stored_shifted"}),
    "next observation is the observation": (
        lambda rows, k: {"next_observation": rows[k]["observation"]}, {"stored_next_same"}
    ),
    "stored after obs = next_obs": (
        lambda rows, k: {"observation": rows[k]["next_observation"]},
        {"stored_next_same", "stored_shifted"},
    ),
    "next observation one step later": (other("next_observation", 1), {"stored_shifted"}),
    "next observation of another step": (other("next_observation", 7), {"stored_unlike"}),
    "next episode's first": (
        lambda rows, k: {"next_observation": rows[k + 1]["observation"]}, {"stored_next_episode"}
    ),
    "terminations lost": (column("terminated", lambda _: False), {"stored_ends_lost"}),
    "time limits": (lambda rows, k: {"terminated": over(rows[k])}, {"stored_time_limit"}),
    "terminations of the step before": (other("terminated", -1), {"stored_shifted"}),
    "terminations inverted": (column("terminated", lambda x: not x), {"stored_unlike"}),
    "actions moved": (column("action", lambda a: a + np.float32(0.1)), {"stored_unlike"}),
    "actions of the step after": (other("action", 1), {"stored_shifted"}),
    "actions of another step": (other("action", 7), {"stored_unlike"}),
    "actions twice as large": (column("action", lambda a: 2 * a), {"stored_unlike"}),
    "actions clipped in the storage alone": (
        column("action", lambda a: a.clip(-1, 1)), {"stored_unlike"}
    ),
    "observations one step old": (
        lambda rows, k: {"observation": rows[k - 1]["observation"]}, {"stored_shifted"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_told_by_its_code(name):
    change, codes = FAULTS[name]
    assert failed(stored(Walk(), change)) == codes


SOUND: dict[str, Callable[[list[Row], int], Row]] = {
    "as paid": lambda rows, k: {},
    "scaled": column("reward", lambda r: 0.1 * r),
    "scaled and moved": column("reward", lambda r: 0.1 * r + 3),
    "signs": column("reward", np.sign),
    "clipped": column("reward", lambda r: np.clip(r, 0.5, 1.0)),
    "cubed": column("reward", lambda r: r**3),
    "normalised": lambda rows, k: {
        "reward": rows[k]["reward"] / (np.std([r["reward"] for r in rows[: k + 2]]) + 0.1)
    },
    "shaped": lambda rows, k: {
        "reward": rows[k]["reward"]
        + 5 * (0.9 * (not over(rows[k])) * rows[k]["next_observation"][0]
               - rows[k]["observation"][0])
    },
    "a value at time limits": lambda rows, k: {
        "reward": rows[k]["reward"] + 7.0 * bool(rows[k]["truncated"])
    },
    "actions in shares of their limits": column("action", lambda a: a / 2),
    "next episode's first where nothing is learnt": lambda rows, k: {
        "next_observation": rows[k + 1]["observation"] if rows[k]["terminated"]
        else rows[k]["next_observation"]
    },
    "columns of one": lambda rows, k: {
        name: np.array([rows[k][name]]) for name in ("reward", "terminated")
    },
    "half precision": column("action", np.float16),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("env", [Walk, Pole, Drift])
def test_sound_storage_is_not_accused(name, env):
    found = stored(env(), SOUND[name])
    assert not failed(found)
    for code in ("stored_batches", "stored_observations"):
        assert found[code] == "pass"
    if name == "as paid":
        assert {found[f"stored_{x}"] for x in ("rewards", "ends", "next", "actions")} == {"pass"}


@pytest.mark.parametrize("lag", [-1, 1])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_slow_rewards_of_a_step_beside_are_told(lag, scale):
    found = stored(Drift(), lambda rows, k: {"reward": scale * rows[k + lag]["reward"]})
    assert failed(found) == {"stored_shifted"} or found["stored_related"] == "undecided"
    assert found.get("stored_rewards") != "pass"


@pytest.mark.parametrize("share, words", [(0.02, "stored_in_part"), (0.3, "stored_related")])
def test_rewards_of_which_some_differ_are_neither(share, words):
    rng = np.random.default_rng(3)
    wrong = stored(Walk(), lambda rows, k: {
        "reward": rng.normal() if rng.random() < share else rows[k]["reward"]
    })  # fmt: skip
    assert wrong[words] == "undecided" and not failed(wrong) and "stored_rewards" not in wrong


@pytest.mark.parametrize("rollout", [True, False])
def test_actions_from_before_a_clip_are_those_of_a_rollout_and_a_fault_in_a_replay(rollout):
    storage = Storage()
    env = gymnasium.wrappers.ClipAction(storage.record(Walk()))
    rows = collected(env, scale=1.5)
    rows = [row | {"action": np.float32(1.5) * row["action"]} for row in rows]
    found = told(storage, rows, **({"advantage": torch.zeros(64)} if rollout else {}))
    assert failed(found) == (set() if rollout else {"stored_unclipped"})


def windows(rows: list[Row], n: int, discount: float) -> list[Row]:
    """Rows of n steps, fewer at an episode's end."""
    made = []
    for k in range(len(rows) - n):
        end = next((j for j in range(n) if over(rows[k + j])), n - 1)
        last = rows[k + end]
        total = sum(discount**j * rows[k + j]["reward"] for j in range(end + 1))
        ahead = {x: last[x] for x in ("next_observation", "terminated", "truncated")}
        made.append(rows[k] | ahead | {"reward": np.float32(total)})
    return made


@pytest.mark.parametrize("n, discount", [(2, 0.9), (3, 0.99), (5, 1.0)])
@pytest.mark.parametrize("env", [Walk, Pole])
def test_rows_of_several_steps_are_those_of_their_steps(env, n, discount):
    for declared in (n, 1):
        storage = Storage(steps=declared, discount=discount)
        found = told(storage, windows(collected(storage.record(env())), n, discount))
        assert bool(failed(found)) == (declared == 1)


OF_SEVERAL: dict[str, tuple[Callable[[list[Row], list[Row], int], Row], set[str]]] = {
    "the first's end": (
        lambda rows, made, k: {"terminated": rows[k]["terminated"]}, {"stored_ends_lost"}
    ),
    "time limits": (lambda rows, made, k: {"terminated": over(made[k])}, {"stored_time_limit"}),
    "negated": (lambda rows, made, k: {"reward": -made[k]["reward"]}, {"stored_negated"}),
    "zero": (lambda rows, made, k: {"reward": 0.0}, {"stored_zero"}),
    "the first's next": (
        lambda rows, made, k: {"next_observation": rows[k]["next_observation"]},
        {"stored_unlike"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_a_fault_of_rows_of_several_steps_is_told_by_its_code(name):
    storage = Storage(steps=3, discount=0.9)
    rows = collected(storage.record(Walk()))
    made, (change, codes) = windows(rows, 3, 0.9), OF_SEVERAL[name]
    assert failed(told(storage, [x | change(rows, made, k) for k, x in enumerate(made)])) == codes


class Batched:
    """A batched environment as rsl_rl's, Isaac's and skrl's: it resets in the step of the end."""

    num_envs = 6

    def __init__(self, results: int, finals: bool) -> None:
        self.results, self.finals, self.level = results, finals, 0
        self.generator = torch.Generator().manual_seed(0)
        self.buffer = torch.zeros(6)

    def _fresh(self, n: int) -> torch.Tensor:
        return torch.randn(n, 2, generator=self.generator)

    def reset(self) -> Any:
        self.state, self.steps = self._fresh(6), torch.arange(6)
        return {"policy": self.state.clone()}, {}

    def step(self, action: torch.Tensor) -> Any:
        self.state = self.state + 0.5 * self._fresh(6) + 0.1 * action.clamp_(-1, 1)
        self.steps += 1
        last, reward = self.state.clone(), 1 + self.state[:, :1]
        fell = self.state[:, 1].abs() > 2
        cut = (self.steps >= LIMIT) & ~fell
        done = fell | cut
        self.state[done], self.steps[done] = self._fresh(int(done.sum())), 0
        info = {"time_outs": cut} | ({"final_obs": last} if self.finals else {})
        flags = (done,) if self.results == 4 else (fell, cut)
        return {"policy": self.state.clone()}, reward, *flags, info


@pytest.mark.parametrize("results", [4, 5])
@pytest.mark.parametrize("finals", [True, False])
@pytest.mark.parametrize("fault", ["", "time limits", "next episode's first"])
def test_batched_environments_of_tensors_are_recorded(results, finals, fault):
    storage = Storage()
    inner = Batched(results, finals)
    env = storage.record(inner)
    env.buffer = torch.ones(6)
    assert inner.buffer.all() and env.num_envs == 6 and env.level == 0
    rows: list[Row] = []
    before = env.reset()[0]["policy"]
    for _ in range(120):
        action = torch.randn(6, 1)
        sent = action.clone()
        after, reward, *flags, info = env.step(sent)
        done = flags[0] if results == 4 else flags[0] | flags[1]
        fell = done if fault == "time limits" else done & ~info["time_outs"]
        last = info.get("final_obs", after["policy"]) if not fault else after["policy"]
        rows += [
            dict(zip(("observation", "action", "reward", "terminated", "next_observation"), x,
                     strict=True))
            for x in zip(*(y.numpy() for y in (before, action, reward, fell, last)), strict=True)
        ]  # fmt: skip
        before = after["policy"]
    found = told(storage, rows, without=() if finals or not fault else ("next_observation",))
    codes = {"time limits": {"stored_time_limit"}, "next episode's first": set()}.get(fault, set())
    if fault and finals:
        codes = codes | {"stored_next_episode"}
    assert failed(found) == codes and found["stored_actions"] == "pass"


@pytest.mark.parametrize("mode", [*AutoresetMode])
@pytest.mark.parametrize("planted", [False, True])
def test_vectors_of_gymnasium_are_recorded_however_they_reset(mode, planted):
    """Planted: what comes back at the end of an episode is stored as its next observation."""
    storage, rows = Storage(), list[Row]()
    env = storage.record(SyncVectorEnv([Walk] * 3, autoreset_mode=mode))
    assert isinstance(env, gymnasium.vector.VectorEnv)
    rng, over_ = np.random.default_rng(0), np.zeros(3, bool)
    before, _ = env.reset(seed=0)
    for _ in range(250):
        actions = rng.uniform(-2, 2, (3, 1)).astype(np.float32)
        after, reward, terminated, truncated, infos = env.step(actions)
        done = terminated | truncated
        for n in np.flatnonzero(~over_):
            last = after[n]
            if not planted and "final_obs" in infos and infos["final_obs"][n] is not None:
                last = infos["final_obs"][n]
            rows.append({
                "observation": before[n], "action": actions[n], "reward": reward[n],
                "next_observation": last, "terminated": terminated[n],
            })  # fmt: skip
        over_ = done & (mode == AutoresetMode.NEXT_STEP)
        if mode == AutoresetMode.DISABLED and done.any():
            after, _ = env.reset(options={"reset_mask": done})
        before = after.copy()
    fault = planted and mode == AutoresetMode.SAME_STEP
    found = told(storage, rows)
    assert failed(found) == ({"stored_next_episode"} if fault else set())
    assert storage.log is not None and storage.log.count == len(rows)
    assert found.get("stored_next", "fail") == ("fail" if fault else "pass")


def test_batches_that_come_again_and_rows_that_share_an_array_are_told():
    for kind in ("again", "one array", "again, of a rollout"):
        storage = Storage()
        rows = collected(storage.record(Walk()))
        found: dict[str, str] = {}
        for k in range(8):
            some = {"one array": [rows[k]] * 64}.get(kind, rows[:64])
            batch = {n: np.array([row[n] for row in some]) for n in ("observation", "action")}
            storage.look(batch | ({"advantage": batch["action"]} if "rollout" in kind else {}))
            found = {each.code: each.decision for each in storage.findings()}
        code = {"again": {"stored_again"}, "one array": {"stored_alike"}}.get(kind, set())
        assert failed(found) == code


def test_transformed_observations_say_where_to_record():
    found = stored(Walk(), column("observation", lambda x: (x - 0.1) / 2))
    assert found["stored_hidden"] == "undecided" and not failed(found)


def test_an_observation_that_came_twice_names_no_step():
    class Still(Walk):
        def step(self, action: Any) -> Any:
            after, *rest = super().step(action)
            return np.round(after), *rest

    storage = Storage()
    rows = collected(storage.record(Still()))
    seen = [row["observation"].tobytes() for row in rows]
    wrong = [
        row | {"reward": row["reward"] * (-1) ** (seen.count(key) > 1)}
        for row, key in zip(rows, seen, strict=True)
    ]
    found = told(storage, wrong)
    assert storage.twice > 0 and not failed(found)


def test_the_log_forgets_its_oldest_steps():
    storage = Storage(size=50)
    rows = collected(storage.record(Walk()), 600)
    found = told(storage, rows, looks=30)
    assert storage.log is not None and len(storage.log.at) == 50 and storage.log.count == 600
    assert not failed(found)
    lag = [row | {"reward": before["reward"]} for before, row in pairwise(rows)]
    storage.columns.clear()
    assert failed(told(storage, lag[-40:])) == {"stored_shifted"}


@pytest.mark.parametrize("growth, soft, codes", [
    (0.0, False, set()), (8.0, False, {"stored_values_beyond"}), (8.0, True, set()),
])  # fmt: skip
def test_values_beyond_what_rewards_add_up_to_are_told(growth, soft, codes):
    """Rewards from −2 to 0: values are between −20 and 0."""
    storage, generator = Storage(value_discount=0.9, soft=soft), torch.Generator().manual_seed(0)
    for k in range(20):
        reward = -2 * torch.rand(64, generator=generator)
        value = 0.3 + growth * k + torch.randn(64, generator=generator)
        storage.look({"observation": torch.randn(64, 2), "reward": reward, "value": value})
    found = {each.code: each.decision for each in storage.findings()}
    assert failed(found) == codes
    assert ("stored_values" in found) == (not codes)


@pytest.mark.parametrize("value, codes", [(-5.0, set()), (1000.0, {"stored_values_beyond"})])
def test_values_alone_are_held_against_recorded_rewards(value, codes):
    """Between −3 and 5 a step, or so."""
    storage = Storage(value_discount=0.9)
    collected(storage.record(Walk()), 300)
    for k in range(12):
        storage.look_at_values({"value": torch.full((32,), value * k / 12)})
    assert failed({x.code: x.decision for x in storage.findings()}) == codes


def test_returns_of_episodes_are_handed_on():
    storage, heard = Storage(), list[float]()
    storage.ended = heard.append
    rows = collected(storage.record(Walk()), 60)
    totals, total = [], 0.0
    for row in rows:
        total += row["reward"]
        if over(row):
            totals.append(total)
            total = 0.0
    assert heard == pytest.approx(totals) and len(heard) > 5


def test_an_empty_batch_is_none():
    storage = Storage()
    storage.look({"observation": torch.zeros(0, 2), "reward": torch.zeros(0)})
    storage.look({"reward": torch.ones(3)})
    assert not storage.looks and not storage.error


def test_what_an_environment_gives_is_not_changed_nor_its_random_state():
    plain, storage = collected(Walk()), Storage()
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    recorded = collected(storage.record(Walk()))
    told(storage, recorded)
    for one, two in zip(plain, recorded, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])  # type: ignore[index]


class Goal(gymnasium.Env[Any, Any]):
    """Observations of two parts, none of which is the policy's."""

    observation_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Box(-1, 1, (1,))})
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, **given: Any) -> Any:
        return {"a": np.zeros(1)}, {}

    def step(self, action: Any) -> Any:
        return {"a": np.zeros(1)}, 1.0, False, False, {}


def test_what_cannot_be_recorded_or_compared_ends_nothing_and_is_told():
    storage = Storage()
    env = storage.record(Goal())
    with pytest.warns(RuntimeWarning, match="records no more steps"):
        env.reset()
    assert env.step(np.zeros(1))[1] == 1.0
    storage.look({"observation": "nothing"})
    assert any("StopIteration" in each.remedy for each in storage.findings())
    other_ = Storage()
    rows = collected(other_.record(Walk()))
    other_.look({n: np.array([r[n] for r in rows]) for n in ("observation", "action")}
                | {"action": np.zeros((600, 5))})  # fmt: skip
    assert any("action has 5 numbers" in each.remedy for each in other_.findings())


def test_what_is_not_handed_over_is_skipped_with_the_line_to_write():
    found = Storage().findings()
    assert {each.decision for each in found} == {"skipped"}
    assert all("probe." in each.remedy for each in found)
    storage = Storage()
    told(storage, collected(storage.record(Walk())), without=("reward", "truncated"))
    (skipped, *_) = [x for x in storage.findings() if x.code == "stored_rewards"]
    assert skipped.decision == "skipped" and "reward" in skipped.remedy


def test_what_is_no_environment_and_a_second_one_are_refused():
    with pytest.raises(InputError, match="env is a int, expected gymnasium"):
        Storage().record(3)
    storage = Storage()
    storage.record(Walk())
    with pytest.raises(InputError, match="recorded already"):
        storage.record(Walk())


@pytest.mark.parametrize("word, change", [
    ("same", lambda x: x), ("zero", lambda x: 0 * x), ("scaled", lambda x: 3 * x),
    ("negated", lambda x: -x), ("shifted", lambda x: np.roll(x, -1, 0)),
    ("rising", lambda x: x.clip(-0.5, 0.5)), ("rising", np.tanh),
    ("related", lambda x: x + 0.5 * np.roll(x, 9, 0)),
    ("unrelated", lambda x: np.random.default_rng(5).standard_normal(x.shape)),
])  # fmt: skip
def test_a_relation_is_named(word, change):
    x = np.random.default_rng(0).standard_normal((200, 1))
    near = {1: np.roll(x, -1, 0), -1: np.roll(x, 1, 0)}
    assert relation(change(x), x, near).word == word
