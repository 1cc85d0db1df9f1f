"""A probe that looks at the return: whole episodes, windows, words, and a loop left alone."""

from __future__ import annotations

import gc
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.findings import CODES
from gradlab.networks.actors import squashed
from gradlab.probe import updates
from gradlab.probe.alarms.catalogue import IN_A_ROW, KIND, fallen
from gradlab.probe.returns import CLOSEST
from gradlab.reporting.output import advice_of
from gradlab.runs.probe import results, schema
from gradlab.runs.probe.returns import LEAST, TRAINED, WINDOW, Returns
from gradlab.statistics.over_groups import difference_of_means
from gradlab.storage.journal import Journal
from gradlab.verdicts.probe.findings import verdict
from tests.probe import planted_probe
from tests.probe.small_loops import Clock, net
from tests.racing.small_environments import Drawing, Sliding, gain_of


def looped(policy: nn.Module, probe: Any, updates: int, rate: float = 0.0, first: int = 0) -> Any:
    optimizer = probe._optimizer
    optimizer.param_groups[0]["lr"] = rate
    for step in range(first, first + updates):
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        optimizer.step()
    return probe


def probed(policy: nn.Module, updates: int, rate: float = 0.0, first: int = 0, **given: Any) -> Any:
    optimizer = torch.optim.SGD(policy.parameters(), rate)
    options = {"env": Sliding, "clock": lambda: 0.0} | given
    return looped(policy, gradlab.Probe(policy, optimizer, **options), updates, rate, first)


def test_rows_are_returns_of_whole_episodes_from_fresh_resets():
    rows: list[dict[str, Any]] = []
    probed(gain_of(-1.0), 10 * CLOSEST, log=rows.append, seed=5).close()
    seeds = [child(5, f"probe episode {k}") % 2**31 for k in range(10)]
    starts = [np.random.default_rng(seed).uniform(1, 2) for seed in seeds]
    expected = [Sliding.return_of(-1.0, x) for x in starts]
    assert values(rows) == pytest.approx(expected, rel=1e-5)
    updates = [row["update"] for row in rows if "returns/value" in row]
    assert set(np.diff(updates)) == {CLOSEST} and (WINDOW - 1) * CLOSEST >= LEAST


@pytest.mark.parametrize(("tests", "share"), [(0.0, 0.05), (0.03, 0.05), (0.06, 0.05)])
def test_the_first_answer_comes_when_it_was_announced(tests, share, monkeypatch, capsys):
    """Tests of every update that take so many seconds of one, and episodes of 1 s."""
    clock = Clock()

    def lost(small: Any) -> bool:
        clock.now += tests / 1.7
        return False

    class Slow(Sliding):
        def step(self, action: Any) -> Any:
            clock.now += 0.1
            return super().step(action)

    rows: list[dict[str, Any]] = []

    def log(row: dict[str, Any]) -> None:
        rows.append(row | {"at": clock.now})

    monkeypatch.setattr(updates, "lost", lost)
    policy = gain_of(-1.0)
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = gradlab.Probe(policy, optimizer, env=Slow, log=log, overhead_budget=share, clock=clock)
    probe.budget.own += 20.0  # a start
    for step in range(8_000):
        clock.now += 1.0 - tests
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        optimizer.step()
        if sum("returns/value" in row for row in rows) == 2 * WINDOW:
            break
    (said,) = re.findall(r"first answer in about (\d+) (minutes|hours)", capsys.readouterr().err)
    played = next(k for k, row in enumerate(rows) if "returns/value" in row)
    first = next(row["at"] for row in rows[played:] if "vitals/due" in row)
    promised = int(said[0]) * {"minutes": 60, "hours": 3600}[said[1]]
    assert clock.now - first == pytest.approx(promised, rel=0.1)


@pytest.mark.parametrize("hesitates", [0, 25])
def test_the_first_episode_is_played_as_soon_as_its_own_part_of_the_budget_allows(hesitates):
    """Episodes of 80 steps of 1 ms, of which the environment does not say; one step takes 2 s."""
    clock = Clock()

    class Longer(Sliding):
        STEPS, made = 80, 0

        def step(self, action: Any) -> Any:
            Longer.made += 1
            clock.now += 2.0 if Longer.made == hesitates else 1e-3
            return super().step(action)

    rows: list[dict[str, Any]] = []
    policy = gain_of(-1.0)
    options = {"env": Longer, "clock": clock, "log": rows.append, "overhead_budget": 0.05}
    probe = gradlab.Probe(policy, torch.optim.SGD(policy.parameters(), 0.0), **options)
    for step in range(100):
        clock.now += 0.1
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        probe._optimizer.step()
        if values(rows):
            break
    assert 0.1 * step < 0.08 / (0.25 * 0.05) + 0.1


def test_an_early_first_episode_announces_updates_that_fit_the_first_answer(capsys):
    """Updates of 2 s become such of 1 ms."""
    clock = Clock()

    class Timed(Sliding):
        def step(self, action: Any) -> Any:
            clock.now += 4e-3
            return super().step(action)

    policy = gain_of(-1.0)
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = gradlab.Probe(policy, optimizer, env=Timed, log=[].append, clock=clock)
    probe.budget.own += 20.0  # a start
    for step in range(120):
        clock.now += 2.0 if step < 5 else 1e-3
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        optimizer.step()
    (said,) = re.findall(
        r"every ([\d,]+) updates, (\d+) of 32 so far, first answer in about .*?, ([\d,]+) updates",
        capsys.readouterr().err,
    )
    every, count, updates = (int(each.replace(",", "")) for each in said)
    assert updates == pytest.approx((2 * WINDOW - count) * every, rel=0.3)


@pytest.mark.parametrize("before", [0, 5])
def test_training_episodes_say_when_their_first_windows_are_full(before, capsys):
    """Episodes `before` the first step is seen to be made, of random actions, are in no window and
    take no time of updates."""
    rows, clock = [], Clock()
    policy = gain_of(-1.0)
    probe = gradlab.Probe(policy, log=rows.append, clock=clock)
    for _ in range(before):
        probe.note(episode_return=1.0)
    for step in range(540):
        clock.now += 1.0
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        if step % 50 == 0:
            probe.note(episode_return=1.0)
    said = [row["vitals/due"] for row in rows if "vitals/due" in row]
    words = [
        f"returns: first answer in about {each} minutes, {15 - 2 * k} more training episodes"
        for k, each in enumerate((25, 14))
    ]
    assert all(each in row for each, row in zip(words, said, strict=False))
    assert capsys.readouterr().err == f"gradlab probe: {words[0]}\n"  # once
    probe.close()
    said = [row["vitals/due"] for row in rows if "vitals/due" in row]
    assert "returns: no answer, 10 of 16 training episodes, 6 more would do" in said[-1]


def test_an_answer_of_training_episodes_is_foretold_beside_that_of_an_environment(capsys):
    """The line promised the first answer in minutes where training episodes gave it in the run."""
    rows, clock, policy = list[dict[str, Any]](), Clock(), gain_of(-1.0)
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = gradlab.Probe(policy, optimizer, env=Sliding, log=rows.append, clock=clock)
    for step in range(110):
        clock.now += 1.0
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        optimizer.step()
        if step % 50 == 0:
            probe.note(episode_return=1.0)
    said = [row["vitals/due"] for row in rows if "vitals/due" in row]
    words = "; training episodes answer in about 12 minutes, 14 more training episodes"
    assert words in said[0] and words in capsys.readouterr().err


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))


@pytest.mark.parametrize("make", [net, dropping])
def test_the_loop_computes_the_same_bits(make):
    class Global(Sliding):
        """Draws from everything that is shared."""

        def reset(self, seed=None):
            torch.randn(3), np.random.rand(3), random.random()
            seen, info = super().reset(seed)
            return np.repeat(seen, 2), info

        def step(self, action):
            torch.randn(3), np.random.rand(3), random.random()
            seen, *rest = super().step(action)
            return np.repeat(seen, 2), *rest

    def left(watched: bool) -> Any:
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        policy = make()
        optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
        rows: list[dict[str, Any]] = []
        given = {"env": Global, "log": rows.append, "clock": lambda: 0.0}
        probe = gradlab.Probe(policy, optimizer, **given) if watched else None
        for step in range(120):
            loss = policy(torch.randn(8, 2)).square().mean() + random.random() * np.random.rand()
            optimizer.zero_grad()
            if probe is None:
                loss.backward()
            else:
                with probe(step):
                    loss.backward()
            optimizer.step()
        seen = sum("returns/value" in row for row in rows)
        parameters = [p.detach().clone() for p in policy.parameters()]
        return parameters, torch.get_rng_state(), np.random.get_state()[1], random.getstate(), seen

    (theta, *states, none), (same, *again, seen) = left(False), left(True)
    assert all(torch.equal(a, b) for a, b in zip(theta, same, strict=True))
    assert torch.equal(states[0], again[0]) and (states[1] == again[1]).all()
    assert states[2] == again[2] and none == 0
    assert seen > 5


def planted(means: list[float], spread: float = 1.0, window: int = WINDOW, apart: int = 40) -> Any:
    """Windows with exactly these means and standard deviation."""
    unit = np.linspace(-1, 1, window)
    unit = spread * unit / unit.std(ddof=1)
    value = np.concatenate([mean + unit for mean in means])
    update = apart * np.arange(1, len(value) + 1)
    return Returns(update, 2 * update, value, window)


def test_changes_are_welchs_of_windows_that_do_not_overlap():
    found = planted([0.0, 5.0, 4.0, 4.2]).changes()
    assert [each.direction for each in found] == ["rose", "fell", "open"]
    assert [each.mean for each in found] == pytest.approx([5.0, 4.0, 4.2])
    assert {each.updates for each in found} == {WINDOW * 40}
    half = difference_of_means(planted([5.0]).value, planted([0.0]).value)
    assert (found[0].number.low, found[0].number.high) == pytest.approx((half.low, half.high))
    assert planted([0.0, 5.0]).since_begin().direction == "rose"


LOW = [0.0, -9.0, -9.0, -9.0]


def test_a_return_that_stays_below_its_begin_is_alarming():
    alarm = fallen(planted(LOW), "returns")
    assert alarm.kind == KIND and "fell from 0 to −9" in alarm.message
    assert alarm.message.endswith(CODES[KIND].remedy)


@pytest.mark.parametrize(
    ("means", "apart"),
    [
        (LOW[:-1], 40),  # too few windows
        ([0.0, -9.0, -9.0, -4.0], 40),  # recovers
        ([0.0, -9.0, 1.0, -9.0], 40),  # not in a row
        ([0.0, 9.0, 5.0, 1.0], 40),  # falls, but above its begin
        ([0.0, -0.1, -0.2, -0.3], 40),  # within the noise
        (LOW, LEAST // WINDOW),  # fewer than 250 updates a window
    ],
)
def test_what_sound_loops_do_is_not_alarming(means, apart):
    assert fallen(planted(means, apart=apart), "returns") is None


@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
def test_a_return_that_stays_raises_no_alarm(draw):
    rng, false = np.random.default_rng(0), 0
    for _ in range(60):
        value = -getattr(rng, draw)(20 * WINDOW)
        update = 40 * np.arange(len(value))
        false += any(
            fallen(Returns(update[:n], update[:n], value[:n]), "returns") is not None
            for n in range((1 + IN_A_ROW) * WINDOW, len(value) + 1, WINDOW)
        )
    assert false <= 1


@pytest.mark.slow
def test_a_loop_that_lowers_its_return_is_told_and_its_log_says_so(tmp_path, capsys):
    policy = gain_of(-4.0)  # nearly the best; the loss below drives it to 0
    probe = probed(policy, 100 * CLOSEST, rate=1e-3, log=tmp_path / "run.h5")
    probe.close()
    assert KIND in {alarm.kind for alarm in probe.alarms}
    assert f"{KIND}: The return of the policy fell" in capsys.readouterr().err
    shown = advice_of(tmp_path / "run.h5")
    assert shown.light == "none"
    assert shown.field("finding").startswith("Since the first window the return fell by")


def test_files_of_before_are_read(tmp_path):
    schemas = schema.tables(4, 2, None)
    tables = {name: schemas[name] for name in ("vitals", "successive", "alarms")}
    config = {"seed": 0, "overhead_budget": 0.05, "parameters": list(planted_probe.NAMES)}
    head = schema.attributes(planted_probe.NAMES, "", config, planted_probe.ENVIRONMENT)
    journal = Journal(tmp_path / "old.h5", tables, head)
    row = planted_probe.window(1) | {"due": ""}
    journal.append("vitals", {k: v for k, v in row.items() if k in tables["vitals"].columns
                              or k == "update"})  # fmt: skip
    run = results.load(tmp_path / "old.h5")
    assert run.returns == {} and run.episodes == {} and run.updates == 100
    shown = advice_of(tmp_path / "old.h5")
    assert shown.light == "choose" and "env=make_env" in shown.field("next")


class Breaking(Sliding):
    """Works for some steps."""

    made = 0

    def step(self, action):
        Breaking.made += 1
        if Breaking.made > 35:
            raise RuntimeError("the robot is off")
        return super().step(action)


def test_an_environment_that_breaks_costs_the_loop_nothing():
    rows: list[dict[str, Any]] = []
    with pytest.warns(RuntimeWarning, match="looks at no more returns.*the robot is off"):
        probe = probed(gain_of(-1.0), 200, env=Breaking, log=rows.append)
    assert not probe.off and sum("vitals/looked" in row for row in rows) == 2
    assert sum("returns/value" in row for row in rows) == 1


def broken():
    raise OSError("no such licence")


@pytest.mark.parametrize(
    ("words", "env", "policy"),
    [
        ("env is a Sliding, expected a function that makes", Sliding(), gain_of(1.0)),
        ("env is 3, expected a function", 3, gain_of(1.0)),
        ("env failed .*no such licence", broken, gain_of(1.0)),
        ("env is a object without reset", object, gain_of(1.0)),
        ("draws inside forward", Sliding, Drawing(1, 1)),
        ("cannot take inputs of shape", Sliding, nn.Linear(2, 1)),
    ],
)
def test_what_cannot_be_looked_at_is_refused_at_the_begin(words, env, policy, tmp_path):
    with pytest.raises(InputError, match=words):
        gradlab.Probe(policy, env=env, log=tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())


class Heads(nn.Module):
    """Mean and log σ from one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.layer(state).chunk(2, -1)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_a_squashed_policy_whose_actions_end_elsewhere_than_those_of_env_is_told(scale, capsys):
    gymnasium, rows, now = pytest.importorskip("gymnasium"), list[dict[str, Any]](), [0.0]
    policy = squashed(Heads(), scale=scale)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(
        policy, optimizer, log=rows.append, clock=lambda: now[0],
        env=lambda: gymnasium.make("Pendulum-v1"),
    )  # fmt: skip
    for step in range(110):
        now[0] += 1.0
        loss = policy.actor(torch.ones(1, 3))[0].sum()
        with probe(step):
            loss.backward()
        optimizer.step()
    probe.close()
    told = capsys.readouterr().err.count("end at -1 and 1, those of env at -2 and 2")
    assert told == (scale is None)
    due = [row["vitals/due"] for row in rows if "vitals/due" in row]
    assert due and all(("squashed(actor, scale=2)" in each) == (scale is None) for each in due)


def trained(steps: int, given: Any = (), **options: Any) -> tuple[list[float], list[Any]]:
    """A loop with a vector of two environments that record their episodes; theirs, and rows."""
    gymnasium = pytest.importorskip("gymnasium")

    def make():
        return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))

    torch.manual_seed(0)
    worlds = gymnasium.vector.SyncVectorEnv([make, make])
    policy = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    rows, now = list[dict[str, Any]](), [0.0]
    probe = gradlab.Probe(
        policy, optimizer, log=rows.append, clock=lambda: now[0],
        **{"env": make} | options if options or not given else {},
    )  # fmt: skip
    seen, _ = worlds.reset(seed=0)
    returns = []
    for step in range(steps):
        now[0] += 1.0
        actions = policy(torch.as_tensor(seen)).argmax(-1).numpy()
        seen, _, _, _, info = worlds.step(actions)
        if "episode" in info and step:
            ended = info["episode"]["r"][info["_episode"]]
            returns += [float(x) for x in ended]
            if given:
                probe.note(episode_return=given[0](ended))
        optimizer.zero_grad()
        with probe(step):
            policy(torch.as_tensor(seen)).square().mean().backward()
        optimizer.step()
    probe.close()
    return returns, [row for row in rows if "episodes/value" in row]


def test_training_episodes_are_read_from_the_loops_own_wrappers():
    returns, rows = trained(400)
    assert len(returns) > 10
    assert sorted(row["episodes/value"] for row in rows) == sorted(returns)
    assert [row["episodes/number"] for row in rows] == list(range(len(rows)))


def test_wrappers_are_found_by_a_loop_that_is_above_its_budget_for_good():
    """Where a PPO of short updates took 14% of the time, they were never sought."""
    returns, rows = trained(400, overhead_budget=1e-6)
    assert len(returns) > 10
    assert sorted(row["episodes/value"] for row in rows) == sorted(returns)


@pytest.mark.parametrize(
    "wrapped, field, said",
    [
        (False, "next", "wrap the environment in RecordEpisodeStatistics"),
        (True, "return", "first answer after 16 training episodes, none has ended"),
    ],
)
def test_it_is_said_where_no_wrapper_is_found_or_none_of_its_episodes_has_ended(
    wrapped, field, said, tmp_path
):
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CartPole-v1")
    env = gymnasium.wrappers.RecordEpisodeStatistics(env) if wrapped else env
    policy = nn.Linear(4, 2)
    gc.collect()  # the wrappers of other tests
    probe = gradlab.Probe(policy, log=tmp_path / "run.h5")
    for step in range(120):
        with probe(step):
            policy(torch.randn(8, 4)).square().mean().backward()
    probe.close()
    assert said in advice_of(tmp_path / "run.h5").field(field)


def test_episodes_that_become_longer_are_told_with_a_new_estimate(capsys):
    """A policy that learns to last: the first estimate, of short episodes, is far off."""
    clock, rows, length = Clock(), list[dict[str, Any]](), [1.0]

    class Longer(Sliding):
        def step(self, action: Any) -> Any:
            clock.now += 0.1 * length[0]
            return super().step(action)

    policy = gain_of(-1.0)
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = gradlab.Probe(policy, optimizer, env=Longer, log=rows.append, clock=clock)
    for step in range(2_950):
        clock.now += 1.0
        length[0] = 1.0 if step < 500 else 20.0
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 1)).square().mean().backward()
        optimizer.step()
    probe.close()
    every = [int(each.replace(",", "")) for each in
             re.findall(r"an episode every ([\d,]+) updates", capsys.readouterr().err)]  # fmt: skip
    assert len(every) > 1 and all(b > 2 * a for a, b in pairwise(every))
    due = [row["vitals/due"] for row in rows if "vitals/due" in row]
    so_far = len(values(rows))
    assert f"{so_far} of 32 so far, first answer in about" in due[-2]
    more = re.search(rf"no answer, {so_far} of 32 episodes, about ([\d,]+) more updates", due[-1])
    assert more is not None
    newest = next(row["returns/every"] for row in reversed(rows) if "returns/every" in row)
    assert int(more[1].replace(",", "")) == pytest.approx((32 - so_far) * newest, rel=0.1)


def told(folder: Path, **tables: Any) -> Any:
    rows = {"vitals": [planted_probe.window(k) for k in range(1, 31)], **tables}
    return advice_of(planted_probe.written(folder / "run.h5", rows, horizon=None, task=""))


def values(rows: list[dict[str, Any]], column: str = "returns/value") -> list[Any]:
    return [row[column] for row in rows if column in row]


def rows_of(means: list[float], window: int = WINDOW) -> list[dict[str, Any]]:
    found = planted(means, window=window, apart=50 * WINDOW // window)
    each = zip(found.update.tolist(), found.value.tolist(), strict=True)
    return [
        {"number": k, "update": u, "step": u - 1, "value": v, "length": 10.0, "episodes": 1,
         "every": 50, "seconds": 0.1}
        for k, (u, v) in enumerate(each)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("means", "light", "said"),
    [
        ([0.0, 9.0], "act", "Over the last 800 updates the return rose by 9 (CI"),
        ([0.0, 9.0], "act", "Over the last 800 updates the return rose by 9 (CI"),
        ([0.0, 9.0, 5.0], "choose", "Over the last 800 updates the return fell by 4 (CI"),
        ([0.0, 1.0], "choose", "Over the last 800 updates the return rose by 1 (CI 0.28–1.7)"),
        ([0.0, 0.0], "choose", "is not shown to have changed: 0 (CI"),
        ([0.0, -9.0], "choose", "Over the last 800 updates the return fell by 9"),
    ],
)
def test_the_light_follows_the_return(means, light, said, tmp_path):
    shown = told(tmp_path, returns=rows_of(means))
    assert shown.light == light and said in shown.field("return")
    # A rise of 1 (CI 0.28–1.7) is shown at 95%, and no green light.
    assert ("with 99.8% confidence" in shown.field("return")) == (means == [0.0, 1.0])


@pytest.mark.parametrize(
    ("means", "light", "said"),
    [
        ([0.0, -9.0, 0.0], "choose", "Since the first window the return is not shown"),
        ([0.0, 9.0, 0.0], "choose", "fallen by 9 since step 1,599, its best (7.7–10, 99.8%)"),
        ([0.0, 9.0, 2.0], "choose", "99.8%). Since the first window the return rose by 2 (CI"),
        ([0.0, 1.0, 9.0, 8.0], "act", "Since the first window the return rose by 8"),
        ([0.0, 1.0, -9.0], "choose", "Since the first window the return fell"),
        ([0.0, 5.0, 5.0, 3.8], "choose", "Over the last 16 updates the return fell by 1.2 (CI"),
    ],
)
def test_a_window_of_few_updates_is_no_advice(means, light, said, tmp_path):
    """Of hundreds of windows of ten updates many rise by chance."""
    rows = [row | {"update": row["update"] // 50} for row in rows_of(means)]
    shown = told(tmp_path, returns=rows)
    found = shown.field("return")
    assert shown.light == light and said in found and "windows" not in found
    assert ("Over the last" in found) == (means[-1] == 3.8)


def test_a_window_says_how_many_episodes_it_has(tmp_path):
    """Those of one update are not parted: 10 of the first, then 8."""
    rows = rows_of([0.0, 9.0, 9.0], TRAINED)
    rows = [row | {"update": rows[9]["update"]} if k < 10 else row for k, row in enumerate(rows)]
    told(tmp_path, episodes=rows)
    found = verdict(results.load(tmp_path / "run.h5"))
    (said,) = (each for each in found if each.code == "probe.return rose")
    assert said.n == 18 and said.subject == "the return of training episodes"


@pytest.mark.parametrize("apart", [1, 40])
def test_a_return_that_rose_and_fell_back_is_told_with_its_best(apart):
    found = planted([-15.0, 10.0, 30.0, 31.0, 29.0, 0.0, -21.0, -20.0], 15.0, apart=apart)
    best = found.below_best()
    assert best is not None and best.mean == pytest.approx(31.0)
    assert best.step == found.step[4 * WINDOW - 1] and best.number.value == pytest.approx(-51.0)
    half = difference_of_means(found.windows[7], found.windows[3], 1 - 0.001 / 7)
    assert (best.number.low, best.number.high) == pytest.approx((half.low, half.high))
    dip = planted([-15.0, 10.0, 30.0, 31.0, 29.0, 33.0, 24.0], 15.0, apart=apart)
    assert dip.below_best() is None


@pytest.mark.parametrize("window", [TRAINED, WINDOW])
@pytest.mark.parametrize("draw", ["normal", "heavy", "skewed", "rarely low", "won or lost"])
def test_noise_around_a_plateau_has_not_fallen(draw, window):
    rng, said = np.random.default_rng(0), 0
    draws = {
        "normal": rng.standard_normal,
        "heavy": lambda n: rng.standard_t(2, n),
        "skewed": lambda n: -rng.lognormal(0, 1, n),
        "rarely low": lambda n: 0.1 * rng.standard_normal(n) - 10 * (rng.random(n) < 0.05),
        "won or lost": lambda n: (rng.random(n) < 0.5).astype(float),
    }
    for _ in range(200):
        value = draws[draw](window * int(rng.integers(5, 41)))
        update = np.arange(len(value))
        said += Returns(update, update, value, window).below_best() is not None
    assert said <= 2  # 1%; 5% are allowed


@pytest.mark.parametrize("share", [0.9, 0.4, 0.001])
def test_nothing_is_green_without_a_look_at_the_return(share, tmp_path):
    bursts = [planted_probe.burst(40 * k, share) for k in range(1, 13)]
    shown = told(tmp_path, successive=bursts)
    assert shown.light == "choose" and "average" not in str(shown)
    assert shown.field("return") == "unknown"
    assert shown.field("next").startswith("pass env=make_env, or call note(")


@pytest.mark.parametrize("before", [0, 8])
def test_a_return_is_not_above_the_random_actions_that_filled_the_replay(before):
    """Of a trained policy whose updates change nothing: its first window is not the warm-up's."""
    random = np.random.default_rng(0).normal(-1300, 50, before)
    trained = np.random.default_rng(1).normal(-130, 50, 24)
    update = np.append(np.zeros(before, dtype=int), np.arange(1, 25) * 40)
    returns = Returns.of(
        {"update": update, "step": update, "value": np.append(random, trained)}, TRAINED
    )
    assert returns.ends == [8, 16, 24] and not returns.risen


def test_episodes_of_one_update_belong_to_one_window():
    """As in PPO, where all episodes of a rollout are of one iterate."""
    update = np.repeat([10, 20, 30, 40], 6)
    value = np.repeat([1.0, 1.0, 5.0, 5.0], 6) + np.tile([-0.1, 0.1], 12)
    columns = {"update": update, "step": update, "value": value}
    found = Returns.of(columns, 8)
    assert found.ends == [12, 24] and found.lacking == 0
    (change,) = found.changes()
    assert change.updates == 20 and change.number.value == pytest.approx(4)
    early = Returns.of({name: each[:12] for name, each in columns.items()}, 8)
    assert early.ends == [12] and early.lacking == 8
