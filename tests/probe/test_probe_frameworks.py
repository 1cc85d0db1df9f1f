"""Loops in the manner of rsl_rl and Dreamer, sound: two lines of probe raise no alarm.

Every one is the framework's own update in short: whose module is called how, by which optimisers.

The actor's own steps against its objective: the wrong sign is told, a sound loop is not.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import gradlab
from gradlab.probe import measured as prices
from gradlab.probe import sampler
from gradlab.probe.alarms.evidence import UNFOLLOWED
from gradlab.probe.budget import GRACE, GUARDED, Budget
from gradlab.probe.critics import LastPasses
from gradlab.probe.measured import (
    CHECKED,
    FIXED,
    MARGIN,
    STARTS,
    TRIED,
    Past,
    Question,
    first_price,
    trial_price,
)
from gradlab.probe.parts import objectives, passes
from gradlab.probe.parts import parts as parts_of_a_loop
from gradlab.probe.parts.formula import OwnFormula
from gradlab.probe.parts.implied import Implied
from gradlab.probe.policy_calls import Hook
from gradlab.reporting.output import advice_of
from gradlab.truth.oracles import AT_MOST
from tests.probe.actor_critics import ROWS, Batched, Loop, Soft, answers, watched
from tests.probe.small_loops import looped, probed

GAMMA, TRACE, N = 0.95, 0.9, 32
Made = tuple[nn.Module, torch.optim.Optimizer]


class World:
    """N points in the plane, as tensors: pushed, paid for being near 0, cut after 20 steps."""

    def __init__(self) -> None:
        self.state, self.age = torch.randn(N, 2), torch.randint(20, (N,))

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.state = 0.9 * self.state + 0.2 * action.clamp(-1, 1) + 0.05 * torch.randn(N, 2)
        reward, self.age = 1 - (self.state**2).sum(1), self.age + 1
        ended = self.age >= 20
        self.age = self.age * ~ended
        self.state = torch.where(ended[:, None], torch.randn(N, 2), self.state)
        return self.state, reward, ended.float()


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, outputs))


def gae(reward: Tensor, value: Tensor, ended: Tensor, last: Tensor) -> Tensor:
    advantage, carried, following = torch.zeros_like(value), torch.zeros_like(last), last
    for t in reversed(range(len(value))):
        delta = reward[t] + GAMMA * (1 - ended[t]) * following - value[t]
        carried = delta + GAMMA * TRACE * (1 - ended[t]) * carried
        advantage[t], following = carried, value[t]
    return advantage


class ActorCritic(nn.Module):
    """rsl_rl's: two networks and σ in one module that is never called as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = net(2, 2), net(2, 1)
        self.std = nn.Parameter(torch.ones(2))

    def forward(self) -> None:
        raise NotImplementedError

    def distribution(self, state: Tensor) -> Normal:
        mean = self.actor(state)
        return Normal(mean, mean * 0.0 + self.std)


class RslRl:
    """PPO on a storage of tensors, its rate adapted to the KL divergence."""

    def __init__(self) -> None:
        self.world, self.module, self.rate = World(), ActorCritic(), 1e-3
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=self.rate)
        self.made: Made = self.module, self.optimizer

    def run(self, probe: gradlab.Probe, updates: int) -> None:
        for iteration in range(updates // 10):
            storage: list[tuple[Tensor, ...]] = []
            state = self.world.state
            with torch.inference_mode():
                for _ in range(12):
                    pi, value = self.module.distribution(state), self.module.critic(state)[:, 0]
                    action = pi.sample()
                    following, reward, ended = self.world.step(action)
                    reward = reward + GAMMA * value * ended  # all ends are time limits
                    density = pi.log_prob(action).sum(-1)
                    row = state, action, density, pi.mean, pi.stddev, value, reward, ended
                    storage.append(row)
                    state = following
                s, a, old, mean, std, v, r, e = map(torch.stack, zip(*storage, strict=True))
                advantage = gae(r, v, e, self.module.critic(state)[:, 0])
                returns = advantage + v
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            flat = [x.flatten(0, 1).clone() for x in (s, a, old, mean, std, v, returns, advantage)]
            for _ in range(5):
                for index in torch.randperm(12 * N).chunk(2):
                    self.update(probe, iteration, [x[index] for x in flat])

    def update(self, probe: gradlab.Probe, iteration: int, rows: list[Tensor]) -> None:
        s, a, old, mean, std, v, returns, advantage = rows
        pi, value = self.module.distribution(s), self.module.critic(s)[:, 0]
        with torch.inference_mode():
            kl = torch.distributions.kl_divergence(Normal(mean, std), pi).sum(-1).mean()
            self.rate *= 1 / 1.5 if kl > 0.02 else 1.5 if 0.0 < kl < 0.005 else 1
            self.rate = min(max(self.rate, 1e-5), 1e-2)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
        ratio = (pi.log_prob(a).sum(-1) - old).exp()
        loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
        clipped = v + (value - v).clamp(-0.2, 0.2)
        loss = loss + torch.max((value - returns) ** 2, (clipped - returns) ** 2).mean()
        loss = loss - 0.01 * pi.entropy().sum(-1).mean()
        self.optimizer.zero_grad()
        with probe(iteration):
            loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()


class WorldModel(nn.Module):
    """A recurrent state h of the observations and actions so far, its observation and reward."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.embed = nn.GRUCell(4, 16), nn.Linear(16, 2)
        self.decode, self.reward = net(16, 2), net(16, 1)

    def imagine(self, h: Tensor, action: Tensor) -> Tensor:
        return self.cell(torch.cat([self.embed(h), action], 1), h)

    def observe(self, h: Tensor, seen: Tensor, action: Tensor) -> Tensor:
        return self.cell(torch.cat([seen, action], 1), h)


class Dreamer:
    """An actor that is trained through imagined rollouts of a recurrent model, a slow critic."""

    def __init__(self) -> None:
        self.world, self.model, self.actor = World(), WorldModel(), net(16, 4)
        self.critic = net(16, 1)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.of_model = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3, eps=1e-5)
        self.of_critic = torch.optim.Adam(self.critic.parameters(), lr=1e-3, eps=1e-5)
        self.made: Made = self.actor, self.optimizer

    def act(self, h: Tensor) -> Tensor:
        mean, spread = self.actor(h).chunk(2, 1)
        std = nn.functional.softplus(spread) + 0.1
        return torch.tanh(mean + std * torch.randn_like(mean))

    def run(self, probe: gradlab.Probe, updates: int) -> None:
        h = torch.zeros(N, 16)
        for step in range(updates):
            seen = []
            with torch.no_grad():
                for _ in range(4):
                    action = self.act(h)
                    before = self.world.state
                    _, reward, ended = self.world.step(action)
                    seen.append((before, action, reward, self.world.state))
                    h = self.model.observe(h, before, action) * (1 - ended[:, None])
            begun = self.fit_model(seen)
            self.imagine(probe, step, begun)

    def fit_model(self, seen: list[tuple[Tensor, ...]]) -> Tensor:
        h, states, loss = torch.zeros(N, 16), [], torch.zeros(())
        for before, action, reward, following in seen:
            h = self.model.observe(h, before, action)
            loss = loss + ((self.model.decode(h) - following) ** 2).mean()
            loss = loss + ((self.model.reward(h)[:, 0] - reward) ** 2).mean()
            states.append(h)
        self.of_model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
        self.of_model.step()
        return torch.cat(states).detach()

    def imagine(self, probe: gradlab.Probe, step: int, h: Tensor) -> None:
        self.model.requires_grad_(False)
        states, rewards = [h], []
        for _ in range(4):
            h = self.model.imagine(h, self.act(h.detach()))
            states.append(h)
            rewards.append(self.model.reward(h))
        values = [self.slow(each) for each in states]
        returns, following = [], values[-1]
        for t in reversed(range(4)):
            rest = (1 - TRACE) * values[t + 1] + TRACE * following
            following = rewards[t] + GAMMA * rest
            returns.insert(0, following)
        self.optimizer.zero_grad()
        with probe(step):
            (-torch.stack(returns).mean()).backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), 100.0)
        self.optimizer.step()
        self.model.requires_grad_(True)
        found = self.critic(torch.stack(states[:-1]).detach())
        loss = ((found - torch.stack(returns).detach()) ** 2).mean()
        self.of_critic.zero_grad()
        loss.backward()
        self.of_critic.step()
        with torch.no_grad():
            for slow, online in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(online, 0.02)


LOOPS: dict[str, Any] = {"rsl_rl": RslRl, "Dreamer": Dreamer}


@pytest.mark.parametrize("name", LOOPS)
def test_two_lines_accuse_no_sound_loop(name):
    torch.manual_seed(0)
    loop, rows = LOOPS[name](), []
    policy, optimizer = loop.made
    probe = probed(policy, optimizer, rows)
    loop.run(probe, 50)
    probe.close()
    found = answers(rows)
    assert not probe.alarms and not any(each["state"] == "fault" for each in found.values())
    assert found[OwnFormula.name]["state"] == "sound"
    assert found["gradients are cleared between steps"]["looks"] >= 3


# What a measurement will cost, on a planted clock, and the share that is kept on the true one.


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Critic(nn.Module):
    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return -(state**2).sum(1) - (action**2).sum(1)


def task(decay: float) -> gradlab.Task:
    eye = torch.eye(2, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        A=decay * eye, B=0.1 * eye, Q=eye, R=eye, noise_covariance=0.01 * eye,
        start_mean=torch.zeros(2, dtype=torch.float64), start_covariance=eye, discount=0.9,
    )  # fmt: skip


def policy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2).double()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A millisecond for every 64 rows that are stepped, three for their Jacobians."""
    clock = Clock()
    step, linearize = prices.step_running, prices.linearize_running
    unroll = prices.unroll_first_action

    def stepped(simulator: Any, states: Any, *rest: Any) -> Any:
        clock.now += 1e-3 * len(states) / STARTS
        return step(simulator, states, *rest)

    def linearized(*given: Any) -> Any:
        clock.now += 3e-3
        return linearize(*given)

    def unrolled(*given: Any, **named: Any) -> Any:
        found = unroll(*given, **named)
        clock.now += 4e-3 * found.horizon
        return found

    monkeypatch.setattr(prices, "step_running", stepped)
    monkeypatch.setattr(prices, "linearize_running", linearized)
    monkeypatch.setattr(prices, "unroll_first_action", unrolled)
    return clock


def test_chains_that_converge_soon_are_priced_by_their_length(clock):
    question = Question(task(0.5), Critic(), 0)
    price = trial_price(question, policy(), clock)
    assert price == pytest.approx(MARGIN * TRIED * 4e-3 + FIXED)
    found = first_price(question, policy(), clock)
    steps = (found - FIXED) / MARGIN / (4e-3 + CHECKED * 1e-3)
    assert steps == pytest.approx(round(steps)) and question.horizon <= steps <= TRIED


def test_chains_that_do_not_are_priced_by_the_longest_there_may_be(clock):
    question = Question(task(1.105), Critic(), 0)
    found = first_price(question, policy(), clock)
    assert found == pytest.approx(MARGIN * AT_MOST * (4e-3 + CHECKED * 1e-3) + FIXED)


def test_chains_that_are_given_up_are_priced_by_what_was_made_of_them(clock):
    found = first_price(Question(task(1.3), Critic(), 0), policy(), clock)
    assert (found - FIXED) / MARGIN / (4e-3 + CHECKED * 1e-3) < TRIED


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_share_is_kept_on_the_true_clock(share, monkeypatch):
    made: list[float] = []

    def measured(*given: Any) -> Any:
        made.append(time.process_time())
        while time.process_time() < made[-1] + 0.002:
            pass
        return {"starts": 64, "variance": np.ones((4, 3))}, Past()

    monkeypatch.setattr(sampler, "UNTRIED", 0.0)
    monkeypatch.setattr(sampler, "trial_price", lambda question, policy: 0.0)
    monkeypatch.setattr(sampler, "first_price", lambda question, policy: 0.002)
    monkeypatch.setattr(sampler, "measured", measured)
    watched = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2)).double()
    optimizer, clock = torch.optim.SGD(watched.parameters(), 1e-4), time.process_time
    probe = gradlab.Probe(watched, optimizer, task=task(0.5), overhead_budget=share, clock=clock)
    begun, step = clock(), 0
    while clock() < begun + 2.0 or (not made and share > 0.02 and clock() < begun + 20.0):
        optimizer.zero_grad()
        with probe(step):
            watched(torch.randn(256, 2, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        step += 1
    parts = probe._parts  # whose first looks are made whatever they cost, too
    grace = GRACE * probe.budget._always / probe.budget._looks / 2.0
    grace += min(GRACE / max(parts._looks, 1), 1.0) * parts._own / 2.0
    grace += (
        probe._updates._recorders.price / 2.0
    )  # all objects are searched once, whatever it costs
    grace += parts_of_a_loop.LOAN * share * (parts._looks <= parts_of_a_loop.FIRST)  # a loan, open
    # What is tested at every update takes a tenth of this tiny loop; looks do not yield to it.
    assert probe.budget.governed <= ((1 + GUARDED) * share + grace) * probe.budget.elapsed
    spent = probe.budget
    assert probe._updates.count == step
    assert made or share < 0.02, (spent.own, spent._always, spent._bursts, spent.elapsed)


CHECK = "actor's steps raise their objective"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Loop, Soft])
@pytest.mark.parametrize("fault", ["", "sign of the actor's loss"])
def test_a_wrong_sign_is_told_in_two_lines(kind, fault):
    loop, rows = kind(fault), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 290)
    probe.close()
    found = answers(rows)[CHECK]
    assert found["state"] == ("fault" if fault else "sound")
    assert found["value"] <= 0.16 if fault else found["value"] >= 0.6
    told = [each.message for each in probe.alarms if each.kind == objectives.DESCENT]
    assert bool(told) == bool(fault)
    assert all(each.endswith("is the sign of its loss right?") for each in told)
    objective = "Q − α log π" if kind is Soft else "Q"
    assert all(f"its own objective, {objective}, in" in each for each in told)
    assert found["proof"].startswith(f"{objective} rose in")


@pytest.mark.parametrize("other", [False, True])
def test_a_loss_with_other_terms_than_the_critic_is_not_judged(other):
    """In TD3+BC a sound step lowers Q wherever the data's actions are worse."""
    loop = Loop()
    check, rows = heard(loop), loop.batch()
    for _ in range(30):
        action = loop.policy(rows["state"])
        lost = 10 * ((action + 0.5) ** 2).mean() if other else 0.0
        (lost - loop.critics[0](rows["state"], action).mean()).backward()
        loop.actor_optimizer.step()
        check.after()
    assert check.answer().state == ("off" if other else "sound")
    assert not other or "the loss has other terms" in check.answer().proof


def heard(loop: Loop) -> objectives.ActorObjective:
    check = objectives.ActorObjective(loop.policy)
    loop.policy.register_forward_hook(Hook(check.hear_policy, print))
    for critic in loop.critics:
        critic.register_forward_hook(Hook(check.hear_critic, print))
    check.on = True
    return check


def test_a_rise_is_that_of_the_objective_itself():
    """Against the loop's own formula, at the noise that was drawn and at its own temperature."""
    loop = Soft(rate=0.01)
    check, rows = heard(loop), loop.batch()
    state = torch.get_rng_state()
    loss = loop.actor_loss(rows)
    loss.backward()
    made = check.made
    assert made is not None
    critics, pick = [(copy.deepcopy(m), args) for m, args in made.values], objectives._PICKS[0]
    old = passes.action_of(made, loop.policy)
    assert isinstance(old, passes.Action)
    *weights, left, density = objectives._weights(made, old, critics, pick) or (0.0,) * 4
    assert density > 0
    assert weights == [pytest.approx(-1, rel=1e-3), pytest.approx(loop.ALPHA, rel=1e-3)]
    assert left < 1e-5
    loop.actor_optimizer.step()
    check.on = False
    new = old.again(made.again(passes.Twin(loop.policy).parts))
    torch.set_rng_state(state)
    fall = float((loss - loop.actor_loss(rows)).detach())
    assert objectives._rise(critics, pick, old, new, loop.ALPHA) == pytest.approx(fall, rel=2e-2)


AXES = [("nb", 2), ("bn", 2), ("nb1", 2), ("nb", 5), ("nb", ROWS), ("bn", ROWS)]
FOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "least": lambda values: values.min(0).values,
    "mean": lambda values: values.mean(0),
    "first": lambda values: values[0],
}


@pytest.mark.parametrize("axes, several", AXES)
@pytest.mark.parametrize("which", FOLLOWED)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_ensemble_in_one_module_is_read_whichever_axis_is_its_batch(axes, several, which, sign):
    """Also one of as many critics as rows; what the loss follows of them is found."""
    loop = Soft()
    loop.critics, loop.ALPHA = nn.ModuleList([Batched(axes, several)]), 0.02
    check, rows = heard(loop), loop.batch()
    action, density = loop.policy.drawn(rows["state"])
    values = loop.critics[0](rows["state"], action)
    values = values.T if axes == "bn" else values.reshape(several, ROWS)
    loss = (loop.ALPHA * density[:, 0] - sign * FOLLOWED[which](values)).mean()
    loss.backward()
    loop.actor_optimizer.step()
    check.after()
    assert check._weights[:3] == pytest.approx((-sign, loop.ALPHA, 0), abs=1e-3)
    assert list(check._rises) == [sign > 0]
    assert check.density.answer().looks == 1


class Atoms(nn.Module):
    """Logits of a distribution over returns, as C51's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 11)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([state, action], 1))


class OfAtoms(nn.Module):
    """Their mean."""

    def __init__(self, atoms: nn.Module) -> None:
        super().__init__()
        self.atoms = atoms

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.atoms(state, action).softmax(-1) @ torch.linspace(-5, 5, 11)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_that_the_loop_makes_values_of_are_read_by_the_declared_critic(sign, declared):
    loop = Loop()
    loop.critics = nn.ModuleList([Atoms()])
    critic, check = OfAtoms(loop.critics[0]), heard(loop)
    check.declared = [critic] if declared else []
    state = loop.batch()["state"]
    logits = loop.critics[0](state, loop.policy(state))
    (-sign * (logits.softmax(-1) @ torch.linspace(-5, 5, 11))).mean().backward()
    loop.actor_optimizer.step()
    check.after()
    assert list(check._rises) == [sign > 0] * declared


RAISED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the policy's": lambda own, rows: own,
    "the replay's": lambda own, rows: rows,
    "detached": lambda own, rows: own.detach(),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("entropic", [False, True])
@pytest.mark.parametrize("actions", RAISED)
@pytest.mark.parametrize("rows", ["mean", "least", "weighted"])
def test_a_loss_that_does_not_follow_the_critic_is_told(whole, entropic, actions, rows):
    """Weights of rows, as of regressions to actions of the replay, may send anything."""
    loop = Soft()
    if whole:
        loop.critics = nn.ModuleList([Batched("nb", 2)])
    check = heard(loop)
    for _ in range(objectives._LOOKED):
        drawn, batch = loop.policy.drawn(loop.batch()["state"]), loop.batch()
        state, action = batch["state"], RAISED[actions](drawn[0], batch["action"])
        values = torch.cat([critic(state, action).reshape(-1, ROWS) for critic in loop.critics])
        weights = torch.rand(ROWS) if rows == "weighted" else torch.ones(ROWS)
        raised = values.min() if rows == "least" else (weights * values.min(0).values).mean()
        (0.2 * entropic * drawn[1].mean() - raised).backward()
        loop.actor_optimizer.step()
        check.after()
        loop.actor_optimizer.zero_grad()
    found, own = check.answer(), actions == "the policy's"
    wrong = rows == "least" if own else rows == "mean"
    assert (found.kind == UNFOLLOWED) == wrong
    words = "in one row of the batch alone" if own else "other actions than the policy's"
    assert not wrong or words in found.message


@pytest.mark.parametrize("kind", [Loop, Soft])
def test_a_critics_loss_before_its_step_is_none_of_the_actors(kind):
    """Also where both losses are sent back before both steps."""
    loop = kind()
    check = heard(loop)
    for _ in range(objectives._LOOKED):
        rows = loop.batch()
        loss = loop.actor_loss(rows)
        goal, _ = loop.target_values(rows)
        values = [critic(rows["state"], rows["action"]) for critic in loop.critics]
        (sum((goal - value).square().mean() for value in values) + 0.0).backward()
        loss.backward()
        loop.actor_optimizer.step()
        check.after()
        loop.actor_optimizer.zero_grad()
    assert check.answer().kind != UNFOLLOWED


def test_a_critic_whose_rows_are_not_known_is_not_looked_at():
    assert passes.outputs_by_row(nn.Flatten(0), torch.randn(4, 3)) is None


@pytest.mark.parametrize("axes, several", [*AXES, ("nb", 10)])
@pytest.mark.parametrize("rows", [2, 10, ROWS])
def test_what_a_critic_has_learnt_is_the_mean_of_its_ensemble(axes, several, rows):
    critic, (state, action) = Batched(axes, several), torch.randn(2, rows, 2)
    expected = (
        torch.stack([one(state, action[:, :1]) for one in critic.critics]).mean(0)[:, 0].detach()
    )
    action = action[:, :1]
    check, values = Implied(), critic(state, action).detach()
    check.begin()
    check.hear([passes.Heard(critic, (state, action), (values,), False)], [critic])
    given = {"observation": state, "action": action, "next_value": torch.zeros(rows)}
    given |= {"terminated": torch.zeros(rows)}
    of = SimpleNamespace(at=np.arange(rows), paid=expected.numpy)
    check.take(of, given, GAMMA, [critic], 200)
    assert check._share == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("axes", ["nb", "bn", "nb1"])
def test_a_lost_row_of_an_ensemble_is_named(axes):
    critic, passes = Batched(axes, 2), LastPasses(Budget(1.0, time.process_time))
    critic.register_forward_hook(passes.hook)
    values, goal = critic(torch.randn(9, 2), torch.randn(9, 1)), torch.zeros(9)
    goal[5] = float("nan")
    (values - (goal[:, None] if axes in ("bn", "nb1") else goal)).square().sum().backward()
    assert passes.rows == 1 and "row 5 of 9" in passes.lost(), passes.lost()


@pytest.mark.parametrize("looks, fault", [("0" * 14, True), ("0" * 13, False), ("110" * 80, False),
                                          ("0001" * 40, True), ("01" * 200, False)])  # fmt: skip
def test_a_wrong_sign_is_decided_by_the_odds_of_the_newest_looks(looks, fault):
    check = objectives.ActorObjective(nn.Linear(1, 1))
    told = []
    for each in looks:
        check._looks += 1
        check._count(each == "1")
        told.append(check.answer().state == "fault")
    assert any(told) == fault
    # a fall adds log(.84 / .40) = .74, a rise takes log(.60 / .16) = 1.32 away, down to 0
    if fault:
        assert told.index(True) == (13 if "1" not in looks else 38)


def test_noise_is_known_where_most_of_it_is_lost_in_a_flat_tanh():
    """Three in four actions of σ = 12 are at a limit; what is no noise is told from it."""
    torch.manual_seed(0)
    mean, log_std = torch.randn(64, 2), torch.full((64, 2), 2.5)
    squash, drawn = passes.Squash(torch.ones(2)), torch.randn(64, 2)
    for noise, known in ((drawn, True), (0.2 * drawn, False)):
        action = torch.tanh(mean + log_std.exp() * noise)
        found = passes.noise_of(mean, log_std, action, squash)
        assert (found is not None) == known
        if found is not None:
            inner = action.abs() < 0.99
            assert torch.allclose(found[inner], noise[inner], atol=1e-4)


def test_a_wrong_sign_that_is_read_from_the_loss_is_told_at_the_second_fit():
    check = objectives.ActorObjective(nn.Linear(1, 1))
    states = []
    for look in range(8):
        check._looks += 1
        check._count(False, exact=look % objectives.REFIT == 0)
        states.append(check.answer().state)
    assert states == ["waiting"] * 7 + ["fault"]


def test_an_entropy_of_the_wrong_sign_is_no_rise_and_named_as_that():
    """Q − α log π does rise along the loss, by its own α."""
    loop = Soft()
    loop.ALPHA = -0.2
    check = heard(loop)
    for _ in range(8):
        loop.actor_optimizer.zero_grad()
        loop.actor_loss(loop.batch()).backward()
        loop.actor_optimizer.step()
        check.after()
    assert list(check._rises) == [False] * 8
    found = check.answer()
    assert found.state == "fault" and "and α above 0" in found.message
    assert "Q − α log π" not in found.message + found.proof


@pytest.mark.parametrize("alpha", [50.0, -50.0])
@pytest.mark.parametrize("corrected", [True, False])
def test_where_the_entropy_outweighs_q_its_sign_and_density_are_told(alpha, corrected):
    loop = Soft("" if corrected else "no correction of the tanh")
    loop.ALPHA = alpha
    check = heard(loop)
    for _ in range(3 * objectives.REFIT):
        loop.actor_loss(loop.batch()).backward()
        loop.actor_optimizer.step()
        check.after()
        loop.actor_optimizer.zero_grad()
    assert not any(check._rises) and bool(check._rises) == (alpha < 0)
    assert alpha < 0 or "outweighs" in check.answer().proof
    assert check.density.answer().state == ("sound" if corrected else "fault")


def test_small_actions_without_a_tanh_lack_no_correction():
    loop = Soft(rate=1e-4)
    loop.policy.squashed, last = False, loop.policy.body[2]
    last.weight.data *= 0.3
    last.bias.data[1] = -2.5
    check = heard(loop)
    for _ in range(30):
        loop.actor_loss(loop.batch()).backward()
        loop.actor_optimizer.step()
        check.after()
        loop.actor_optimizer.zero_grad()
    assert check.density.answer().state == "off"
    assert check._weights[:3] == pytest.approx((-1, loop.ALPHA, 0), abs=1e-4)


def test_a_loop_without_a_critic_or_targets_says_what_it_does_not_hand_over():
    policy, rows = nn.Linear(2, 1), []
    optimizer = torch.optim.Adam(policy.parameters())
    probe = probed(policy, optimizer, rows)
    looped(policy, optimizer, probe, 30)
    probe.close()
    for check, words in ((CHECK, "critic=…"), ("targets follow", "critic=…, target=…")):
        found = answers(rows)[check]
        assert found["state"] == "off" and f"probe.networks({words})" in found["proof"]
    assert not policy._forward_hooks


def test_a_check_that_fails_is_off_and_the_others_go_on(monkeypatch):
    def broken(*_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(objectives.ActorObjective, "after", broken)
    loop, rows = Loop(), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 150)
    probe.close()
    found = answers(rows)
    assert found[CHECK]["state"] == "off" and "ValueError: planted" in found[CHECK]["proof"]
    assert found["targets follow"]["state"] == "sound"


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("fault", ["", "no correction of the tanh"])
@pytest.mark.sampled(2)
def test_a_density_without_its_correction_is_told(fault, scale):
    """Also where the loop scales actions to the environment's limits, and nothing says so."""
    loop, rows = Soft(fault), []
    loop.policy.scale = scale
    probe = watched(loop, log=rows.append)
    probe.record(gymnasium.make("Pendulum-v1"))  # actions within ± 2
    loop.run(probe, 150)
    probe.close()
    found = answers(rows)["log π is that of the squashed action"]
    assert found["state"] == ("fault" if fault else "sound") and found["value"] == bool(fault)
    told = [each for each in probe.alarms if each.kind == objectives.DENSITY]
    assert bool(told) == bool(fault) and all("log(1 − tanh²)" in each.message for each in told)


@pytest.mark.parametrize("fault", ["", "no correction of the tanh"])
def test_a_loop_that_scales_actions_by_itself_is_told_what_lets_them_be_looked_at(fault):
    """And the advice holds: the two checks are made once it is followed."""
    for recorded in (False, True):
        loop, rows = Soft(fault), []
        loop.policy.scale = 2.0
        probe = watched(loop, log=rows.append)
        if recorded:
            probe.record(gymnasium.make("Pendulum-v1"))
        loop.run(probe, 150)
        probe.close()
        for check in (CHECK, "log π is that of the squashed action"):
            found = answers(rows)[check]
            if not recorded:
                assert found["state"] == "off"
                assert "env = probe.record(env) lets it be looked at" in found["proof"]
            elif check == CHECK and fault:  # its objective is another one, which the page says
                assert "before its tanh" in found["proof"]
            else:
                assert found["state"] != "off" and "probe.record" not in found["proof"]


def test_a_fault_says_when_it_was_last_looked_at_and_a_critics_shows_no_norm_of_the_policys(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(parts_of_a_loop.Parts, "_affordable", lambda self: self._looks < 12)
    loop, rows = Loop("actor's gradients in the critic"), []
    probe = watched(loop, log=[rows.append, tmp_path / "run.h5"])
    loop.run(probe, 250)
    probe.close()
    found = answers(rows)["critic's gradients are cleared between steps"]
    assert found["state"] == "fault" and found["proof"].endswith(
        "last look at update 120, none since"
    )
    first = advice_of(tmp_path / "run.h5")
    assert "The critic's gradients add up" in first.field("finding") and first.figure is None
