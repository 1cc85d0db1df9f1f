"""A probe that looks at the return: whole episodes, windows, words, and a loop left alone."""

from __future__ import annotations

import random
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
from gradlab.probe.checks import fallen
from gradlab.reporting.output import advice_of
from gradlab.runs.probe import results
from gradlab.runs.probe.returns import EPISODES_APART, LEAST, TRAINED, WINDOW, Returns
from gradlab.statistics.over_groups import difference_of_means
from gradlab.verdicts.probe.findings import verdict
from tests.probe import planted_probe
from tests.probe.small_loops import net
from tests.racing.small_environments import Drawing, Sliding, gain_of

APART = 50 * EPISODES_APART  # updates between two episodes


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
    options = {"env": Sliding} | given
    return looped(policy, gradlab.Probe(policy, optimizer, **options), updates, rate, first)


def test_rows_are_returns_of_whole_episodes_from_fresh_resets():
    rows: list[dict[str, Any]] = []
    probed(gain_of(-1.0), 10 * APART, log=rows.append, seed=5).close()
    seeds = [child(5, f"probe episode {k}") % 2**31 for k in range(10)]
    starts = [np.random.default_rng(seed).uniform(1, 2) for seed in seeds]
    expected = [Sliding.return_of(-1.0, x) for x in starts]
    assert values(rows) == pytest.approx(expected, rel=1e-5)
    updates = [row["update"] for row in rows if "returns/value" in row]
    assert updates == [APART * k for k in range(1, 11)] and (WINDOW - 1) * APART >= LEAST


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
        given = {"env": Global, "log": rows.append, "every": 10}
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
    found = fallen(planted(LOW), "returns")
    assert found.code == "falling return" and "fell from 0 to -9" in found.said
    assert found.said.endswith(CODES["falling return"].remedy)


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
            for n in range(4 * WINDOW, len(value) + 1, WINDOW)
        )
    assert false <= 1


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
        probe = probed(gain_of(-1.0), 400, env=Breaking, log=rows.append)
    assert not probe.off and sum("vitals/looked" in row for row in rows) == 8
    assert sum("returns/value" in row for row in rows) == 2


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


def told(folder: Path, **tables: Any) -> Any:
    rows = {"vitals": [planted_probe.window(k) for k in range(1, 31)], **tables}
    return advice_of(planted_probe.written(folder / "run.h5", rows, horizon=None, task=""))


def values(rows: list[dict[str, Any]], column: str = "returns/value") -> list[Any]:
    return [row[column] for row in rows if column in row]


def rows_of(means: list[float], window: int = WINDOW) -> list[dict[str, Any]]:
    found = planted(means, window=window, apart=50 * WINDOW // window)
    each = zip(found.update.tolist(), found.value.tolist(), strict=True)
    return [
        {"number": k, "update": u, "step": u - 1, "value": v, "length": 10.0, "episodes": 1}
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
    ],
)
def test_a_window_of_few_updates_is_no_advice(means, light, said, tmp_path):
    """Of hundreds of windows of ten updates many rise by chance."""
    rows = [row | {"update": row["update"] // 50} for row in rows_of(means)]
    shown = told(tmp_path, returns=rows)
    found = shown.field("return")
    assert shown.light == light and said in found and "windows" not in found
    assert "Over the last" not in found


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
