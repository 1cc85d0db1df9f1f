"""A critic beside the policy: whether it moves, what spoils it, and that nothing is disturbed.

What a probe writes down, against numbers worked out beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradlab
from gradlab.probe.alarms.catalogue import GradientGrowth
from gradlab.probe.alarms.evidence import BELOW
from gradlab.probe.updates import STRIDE, THROWN
from gradlab.statistics.successive import fresh, signal
from gradlab.storage import journal
from tests.probe.small_loops import probed, vitals

UPDATES, BATCH, LATE = 120, 16, 60


class Loop:
    """Actor and critic by hand; `shared` steps both with one optimiser and one loss."""

    def __init__(self, shared: bool = False, rate: float = 1e-3, critic_rate: float = 1e-3) -> None:
        torch.manual_seed(0)
        self.actor = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        both = [*self.actor.parameters(), *self.critic.parameters()]
        self.moves = torch.optim.Adam(both if shared else self.actor.parameters(), rate)
        self.values = (
            self.moves if shared else torch.optim.Adam(self.critic.parameters(), critic_rate)
        )
        self.shared, self.rows = shared, []  # type: ignore[var-annotated]
        self.rewards: Callable[[int], Tensor] = lambda update: torch.ones(BATCH)
        self.spoil: Callable[[int, Tensor], None] = lambda update, state: None
        self.step = True

    def probe(self, **given: Any) -> gradlab.Probe:
        given = {"overhead_budget": 1.0, "clock": lambda: 0.0, "critic": self.critic} | given
        return gradlab.Probe(
            self.actor, self.moves, critic_optimizer=self.values, log=self.rows.append, **given
        )

    def run(self, probe: gradlab.Probe | None, updates: int = UPDATES) -> list[Tensor]:
        torch.manual_seed(1)
        for update in range(updates):
            state = torch.randn(BATCH, 3)
            self.spoil(update, state)
            self.values.zero_grad()
            self.moves.zero_grad()
            action = self.actor(state)
            value = self.critic(torch.cat([state, action.detach()], 1))[:, 0]
            loss = (value - self.rewards(update)).square().mean()
            if not self.shared:
                loss.backward()
                self.values.step()
                self.moves.zero_grad()
                loss = torch.zeros(())
            loss = loss - self.critic(torch.cat([state, self.actor(state)], 1)).mean()
            if probe is None:
                loss.backward()
            else:
                with probe(update):
                    loss.backward()
            if self.step:
                self.moves.step()
        held = (self.actor, self.critic)
        return [p.detach().clone() for module in held for p in module.parameters()]

    def told(self, kind: str) -> list[tuple[int, str]]:
        rows = [row for row in self.rows if row.get("alarms/alarm") == kind]
        return [(row["update"], row["alarms/message"]) for row in rows]


def lost(at: int) -> Callable[[int], Tensor]:
    """Rewards of which the fifth is no number in one update."""

    def rewards(update: int) -> Tensor:
        found = torch.ones(BATCH)
        found[5] = torch.nan if update == at else 1.0
        return found

    return rewards


def scheduled(whose: str, rate: Callable[[int], Any], shared: bool = False) -> Loop:
    """Two groups, of which the first follows a schedule."""
    loop = Loop(shared)
    optimizer = getattr(loop, whose)
    optimizer.add_param_group({"params": nn.Parameter(torch.zeros(1)), "lr": 1e-3})
    loop.spoil = lambda update, state: optimizer.param_groups[0].update(lr=rate(update))
    loop.run(loop.probe(), 100)
    return loop


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor])
@pytest.mark.parametrize(
    ("whose", "shared", "words"),
    [("moves", False, "policy's"), ("moves", True, "policy's"), ("values", False, "critic's")],
)
@pytest.mark.sampled(3)
def test_a_schedule_beyond_its_end_is_named_with_the_step_at_which_it_passed_it(
    whose, shared, words, kind
):
    loop = scheduled(whose, lambda update: kind(1e-3 * (1 - update / 50)), shared)
    # The critic steps before its update is marked.
    since, first = 51 - (whose == "values"), loop.told(BELOW)[0]
    assert 53 <= first[0] <= 54 and all(
        f"since step {since}." in said for _, said in loop.told(BELOW)
    )
    assert first[1].startswith(f"The learning rate of the {words} optimiser is −")
    assert first[1].endswith("Does the schedule go on beyond its end?")


@pytest.mark.parametrize("whose", ["moves", "values"])
@pytest.mark.parametrize(
    "rate",
    [
        lambda update: 1e-3 * max(1 - update / 50, 0),
        lambda update: 1e-3 * (1 - update / 98),  # the last rollout passes the end
        lambda update: sum([1e-3, *[-1e-3 / 90] * min(update, 90)]),  # −8e-19 by rounding
        lambda update: -1e-3,  # ascends by intention
        lambda update: torch.tensor(1e-3 * max(1 - update / 50, 0)),
    ],
)
@pytest.mark.sampled(4)
def test_no_rate_of_a_sound_loop_is_below_0(whose, rate):
    loop = scheduled(whose, rate)
    assert not loop.told(BELOW) and any("vitals/looked" in row for row in loop.rows)


@pytest.mark.parametrize("shared", [True, False])
def test_a_loop_learns_the_same_bits_with_its_critic_watched(shared):
    bare, watched = Loop(shared), Loop(shared)
    start = bare.actor[0].weight.detach().clone()
    expected = bare.run(None)
    found = watched.run(watched.probe())
    assert all(map(torch.equal, found, expected)) and not torch.equal(found[0], start)
    row = next(row for row in watched.rows if "vitals/looked" in row)
    assert row["vitals/critic_steps"] == 100 - shared  # the hundredth is over after its row
    assert 0 < row["vitals/critic_ratio"] < 0.02 and row["vitals/critic_rate"] == 1e-3
    assert [each for each in watched.rows if "alarms/alarm" in each] == []


@pytest.mark.parametrize("shared", [True, False])
def test_a_lost_reward_is_told_at_once_with_its_row(shared):
    loop = Loop(shared)
    loop.rewards = lost(LATE)
    loop.run(loop.probe())
    (first, *_) = loop.told("non-finite critic gradient")
    assert first[0] == LATE and f"row 5 of {BATCH}" in first[1]
    assert loop.told("non-finite gradient")[0][0] <= LATE + 1


def test_a_gradient_lost_while_updates_are_passed_over_is_told_within_ten():
    loop, ticks = Loop(), iter(range(10**9))
    loop.rewards = lost(LATE)
    loop.run(loop.probe(overhead_budget=1e-6, clock=lambda: float(next(ticks))))
    told = [row for row in loop.rows if row.get("alarms/alarm", "").startswith("non-finite")]
    assert LATE <= told[0]["update"] <= LATE + 10


@pytest.mark.parametrize("shared", [True, False])
def test_a_critic_that_stands_still_is_told_with_its_rate(shared):
    loop = Loop(shared, critic_rate=0.0, rate=0.0 if shared else 1e-3)
    loop.run(loop.probe())
    ((at, words), *_) = loop.told("critic does not move")
    assert at == 100 and "at the learning rate 0" in words
    assert bool(loop.told("actor does not move")) == shared


def test_gradients_thrown_away_without_a_step_are_told():
    loop = Loop()
    loop.step = False
    loop.run(loop.probe(), THROWN + 1)
    ((_, words),) = loop.told("actor does not move")
    assert f"{THROWN} backward passes" in words and "Call its step()" in words


def test_a_policy_of_which_the_optimiser_holds_a_part_is_told_with_the_rest():
    loop = Loop()
    loop.moves = torch.optim.Adam(list(loop.actor.parameters())[2:], 1e-3)
    loop.run(loop.probe())
    ((at, words), *_) = loop.told("actor moves in part")
    assert at == 100 and words.startswith("The policy's 0.weight, 0.bias had a gradient")


@pytest.mark.parametrize("share", [1.0, 1e-6])
def test_targets_that_explode_are_told_within_thirteen_stretches(share):
    """Also where the budget leaves no time to look."""
    loop, ticks = Loop(), iter(range(10**9))
    loop.rewards = lambda update: torch.full((BATCH,), 1.03**update)
    loop.run(loop.probe(overhead_budget=share, clock=lambda: float(next(ticks))), 280)
    ((at, words), *_) = loop.told("exploding critic")
    assert at <= 260 and "gradient grew" in words


# PPO on InvertedPendulum-v5: its episodes grow from 10 steps to 1,000. 0: nothing is measured.
POLE = [0.2, 0.91, 1.116, 1.922, 5.428, 9.081, 20.676, 14.88, 11.06]
# SAC on InvertedDoublePendulum-v5: its targets rise from 7 to 60.
SWINGS = [1.5, 0.999, 1.03, 1.43, 2.09, 4.86, 8.41, 17.9, 28.9, 57.1, 72.6, 60.1, 79.4, 64.3, 72.9]
STANDS = [0.377, 0.316, 0.371, 2.048, 2.091, 3.633, 3.963, 8.818, 15.474, 16.542]

SIZES: list[tuple[str, bool, list[float]]] = [
    ("exponential", True, [1.03 ** (20 * k) for k in range(13)]),
    ("after a start", True,
     [0.6, 0.2, 0.1, 0.1, 0.3, 0.8, 1.4, 1.7, *(7 * 1.8**k for k in range(5))]),
    ("a double pole that learns to swing", False, [*[1.5] * 2, *SWINGS]),
    ("a leap", False, [1.0] * 4 + [1e4] * 8),
    ("from nothing, back to where it was", False, [2.0] * 3 + [1e-9 * 30**k for k in range(7)]),
    ("a pole that learns to stand", False, [*[0.1] * 2, *POLE]),
    ("hundredfold, one stretch of four measured", False,
     [*[0.1] * 2, *(x for k in range(9) for x in (0.1 * 2.0**k, 0, 0, 0))]),
    ("a pole, one stretch of four measured", False,
     [*[0.1] * 2, *(x for size in STANDS for x in (size, 0, 0, 0))]),
    ("exponential, one stretch of four measured", True,
     [x for k in range(13) for x in (1.03 ** (80 * k), 0, 0, 0)]),
    ("slowly", False, [1.5**k for k in range(20)]),
    ("noise of a factor of ten", False, [1, 10, 1, 1, 10, 10, 1, 10, 1, 1, 10, 10, 10, 10]),
]  # fmt: skip


@pytest.mark.parametrize("name, expected, sizes", SIZES)
def test_growth_without_an_end_is_known_from_leaps_and_from_coming_back(name, expected, sizes):
    growth, told = GradientGrowth("exploding critic", young=2), False
    for size in sizes:
        for _ in range(20):
            growth.add(size)
        told = growth.stretch() is not None or told
    assert told == expected


@pytest.mark.parametrize("which", ["rate", "critic_rate"])
def test_steps_a_hundred_times_too_long_are_told_with_the_rate(which):
    loop = Loop(**{which: 0.3})  # type: ignore[arg-type]
    loop.run(loop.probe())
    kinds = {"rate": "learning rate too large", "critic_rate": "critic's learning rate too large"}
    for name, kind in kinds.items():
        assert bool(loop.told(kind)) == (name == which)
    assert "at the learning rate 0.3" in loop.told(kinds[which])[0][1]


# Samples that return in the next batch are seen, and pairs that share them do not count.


def test_pairs_that_share_more_than_chance_explains_are_left_out():
    assert fresh(np.array([0, 64.0, 0, 16])).tolist() == [True, False, True, False]
    assert fresh(np.array([13.0, 6, 20, 17])).tolist() == [True, True, False, False]
    assert fresh(np.full(3, np.nan)).all()  # not seen: all that there is


def gradients(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Products, squares of batches without any signal, and samples in common, of 33 in a row."""
    generator = np.random.default_rng(seed)
    rows, index = [], []
    while len(rows) < 33:
        data = generator.standard_normal((64, 30))
        for _ in range(4):
            parts = generator.permutation(64).reshape(4, 16)
            parts = parts if name == "partition" else [np.arange(16)] * 4
            rows += [data[part].mean(0) for part in parts]
            index += [len(index) // 16 * 64 + part for part in parts]
    g = np.array(rows[:33])
    shared = np.array([len(np.intersect1d(a, b)) for a, b in pairwise(index)])
    return np.stack([(g[1:] * g[:-1]).sum(1), shared[:32]]), (g**2).sum(1)


@pytest.mark.parametrize("name, biased", [("partition", 6 / 32 / 4), ("same", 30 / 32)])
def test_shared_samples_make_a_share_out_of_nothing_unless_left_out(name, biased):
    """Between epochs on 4 parts a quarter of the samples return; one batch 16 times is itself."""
    plain, kept = [], []
    for seed in range(300):
        (products, shared), squares = gradients(name, seed)
        plain.append(signal(products, squares).share)
        kept.append(signal(products, squares, fresh(shared)).share)
    for found, truth in ((plain, biased), (kept, 0.0)):
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - truth) < 4 * error + 0.01


def test_a_batch_used_ten_times_leaves_the_pairs_where_it_changes():
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = probed(net, optimizer)
    for step in range(60):
        if step % 10 == 0:
            torch.manual_seed(step)
            x = torch.randn(8, 3)
        optimizer.zero_grad()
        with probe(step):
            net(x).square().mean().backward()
        optimizer.step()
    (row,) = probe.alarm_log.rows["successive"]
    assert row["pairs"] == 32 and row["fresh"] in (3, 4) and row["overlap"] == 0.0
    assert 4 / 33 - 0.05 < row["distinct"] < 5 / 33 + 0.01


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2), nn.Tanh())


def looped(
    policy: nn.Module, probe: gradlab.Probe, optimizer: Any, updates: int, clip: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Norms of gradients [updates, P] before clipping, and |Δθ| / |θ| [updates]."""
    sizes, ratios = [], []
    for step in range(updates):
        optimizer.zero_grad()
        with probe(step):
            ((policy(torch.randn(16, 3)) - 0.5) ** 2).sum().backward()
        sizes.append(torch.stack([p.grad.double().norm() for p in policy.parameters()]))
        nn.utils.clip_grad_norm_(policy.parameters(), clip)
        before = nn.utils.parameters_to_vector(policy.parameters()).detach().double()
        optimizer.step()
        after = nn.utils.parameters_to_vector(policy.parameters()).detach().double()
        ratios.append((after - before).norm() / before.norm())
    return torch.stack(sizes), torch.stack(ratios)


def test_norms_are_those_before_clipping_and_ratios_those_of_the_steps():
    policy, rows = net(), []
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows)
    sizes, ratios = looped(policy, probe, optimizer, 100)
    row = vitals(rows)[0]
    whole = (sizes**2).sum(1).sqrt()
    assert row["vitals/grad_norm"] == pytest.approx(float(whole.mean()), rel=1e-5)
    assert row["vitals/grad_norm_max"] == pytest.approx(float(whole.max()), rel=1e-5)
    assert row["vitals/layer_norm/2.bias"] == pytest.approx(float(sizes[:, 3].mean()), rel=1e-5)
    assert row["vitals/update_ratio"] == pytest.approx(float(ratios[::STRIDE].mean()), rel=1e-3)
    assert row["vitals/looked"] == 100 and row["vitals/marked"] == 1 and row["step"] == 99


def test_of_several_backward_passes_the_accumulated_gradient_counts():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        optimizer.zero_grad()
        for part in range(3):
            with probe(3 * step + part):
                policy(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["vitals/looked"] == 100
    assert row["vitals/grad_norm"] == pytest.approx(3.0)


def test_without_an_optimiser_one_step_is_one_update():
    policy, rows = nn.Linear(1, 1, bias=False), []
    probe = probed(policy, None, rows)
    for step in range(101):
        policy.zero_grad()
        for _ in range(2):
            with probe(step):
                policy(torch.ones(1, 1)).sum().backward()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["vitals/grad_norm"] == pytest.approx(2.0)
    assert np.isnan(row["vitals/update_ratio"])


def test_a_gradient_scaler_is_divided_out():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=30)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        optimizer.zero_grad()
        with probe(step, scaler):
            scaler.scale(policy(torch.ones(1, 1)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    row = vitals(rows)[0]
    assert scaler.get_scale() > 1024
    assert row["vitals/grad_norm"] == pytest.approx(1.0)
    assert row["vitals/grad_norm_max"] == pytest.approx(1.0)


def test_steps_that_a_scaler_skips_are_no_updates():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    probe = probed(policy, optimizer, rows)
    for step in range(150):
        optimizer.zero_grad()
        factor = torch.inf if step % 3 == 0 else 1.0
        with probe(step, scaler):
            scaler.scale(policy(torch.ones(1, 1)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["step"] == 149
    assert row["vitals/nonfinite_updates"] == 0 and probe.alarms == []


def test_a_lost_gradient_whose_step_the_loop_skips_is_an_update():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows)
    for step in range(101):
        optimizer.zero_grad()
        loss = policy(torch.ones(1, 1)).sum() * (torch.nan if step % 5 == 4 else 1.0)
        with probe(step):
            loss.backward()
        if torch.isfinite(loss):
            optimizer.step()
    row = vitals(rows)[0]
    assert row["update"] == row["vitals/looked"] == 100
    assert row["vitals/nonfinite_updates"] == 20


class Scaled(nn.Module):
    """limit · tanh(W o); behind: the tanh is a hidden one, the newest module all the same."""

    def __init__(self, limit: float, function: bool = False, behind: bool = False) -> None:
        super().__init__()
        self.limit_of_actions, self.behind = limit, behind
        self.layer, self.last = nn.Linear(1, 2, bias=False), nn.Linear(2, 2)
        self.tanh = torch.tanh if function else nn.Tanh()

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        unit = self.tanh(self.layer(observation))
        return self.limit_of_actions * (self.last(unit) if self.behind else unit)


def saturation_of(policy, gain, call=lambda policy, x: policy(x)):
    """The first row of vitals, at pre-activations `gain` and 0.693, where tanh is 0.6."""
    rows = []
    with torch.no_grad():
        policy.layer.weight.copy_(torch.tensor([[gain], [0.6931472]]))
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        with torch.no_grad():
            policy(torch.zeros(1000, 1))  # acting does not count
        with probe(step):
            call(policy, torch.ones(4, 1)).sum().backward()
        optimizer.step()
    assert not probe.off
    probe.close()
    return vitals(rows)[0]


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("gain, share", [(100.0, 1.0), (1e-3, 0.0)])
@pytest.mark.sampled(5)
def test_saturated_actions_are_counted_by_action_in_any_units(gain, share, limit, function):
    row = saturation_of(Scaled(limit, function), gain)
    assert row["vitals/saturation/0"] == share and row["vitals/saturation/1"] == 0.0
    assert row["vitals/attenuation/0"] == pytest.approx(1 - share, abs=1e-5)
    assert row["vitals/attenuation/1"] == pytest.approx(1 - 0.6**2, abs=1e-5)


def test_no_saturation_is_counted_where_no_limit_is_known():
    assert "vitals/saturation/0" not in saturation_of(Scaled(1.0, behind=True), 100.0)
    row = saturation_of(Scaled(1.0), 100.0, partial(checkpoint, use_reentrant=False))
    assert "vitals/saturation/0" not in row


def test_a_run_file_is_readable_while_it_is_written(tmp_path):
    policy, path = net(), tmp_path / "run.h5"
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=path, overhead_budget=1.0, clock=lambda: 0.0)
    looped(policy, probe, optimizer, 250)
    open_run = journal.read(path)
    assert open_run.groups["vitals"]["update"].values.tolist() == [100, 200]
    assert open_run.attributes["kind"] == "probe"
    probe.close()
    closed = journal.read(path)
    assert closed.groups["vitals"]["update"].values.tolist() == [100, 200, 250]
    assert closed.groups["vitals"]["layer_norm"].values.shape == (3, 4)
    assert closed.groups["vitals"]["saturation"].values.shape == (3, 2)
    assert closed.groups["vitals"]["own_seconds"].unit.startswith("s")
    assert len(closed.groups["successive"]["pairs"].values) >= 5
    assert not (tmp_path / "run.h5.journal").exists()


def test_successive_gradients_are_those_of_the_loop():
    policy, rows = nn.Linear(4, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    generator, gradients = torch.Generator().manual_seed(0), []
    for step in range(60):
        optimizer.zero_grad()
        x = torch.randn(8, 4, generator=generator) + 0.2
        with probe(step):
            policy(x).mean().backward()
        gradients.append(x.mean(0).double().numpy())
        optimizer.step()
    row = next(row for row in rows if "successive/signal" in row)
    last, pairs = row["update"], row["successive/pairs"]
    g = np.array(gradients[last - pairs - 1 : last])
    assert row["successive/signal"] == pytest.approx((g[1:] * g[:-1]).sum(1).mean(), rel=1e-5)
    assert row["successive/energy"] == pytest.approx((g**2).sum(1).mean(), rel=1e-5)
