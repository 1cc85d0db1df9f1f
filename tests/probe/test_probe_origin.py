"""The first operation, module and sample that leave the finite numbers, planted and found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import nan
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal

import gradlab
from gradlab.probe import updates
from gradlab.probe.alarms.evidence import ALPHA, excluded
from gradlab.probe.budget import Budget
from gradlab.probe.critics import LastPasses
from gradlab.probe.isolation import Finder
from gradlab.probe.parts import loss_weights
from gradlab.probe.parts.implied import Bootstraps, ValueTargets
from gradlab.probe.parts.moves import Targets
from gradlab.probe.parts.objectives import ActorObjective
from gradlab.probe.parts.passes import PolicyCall
from gradlab.probe.parts.recorder import Episodes, Ring
from gradlab.probe.parts.rows import StoredCopies
from gradlab.probe.update_statistics import Latch
from tests.probe.actor_critics import answers
from tests.probe.small_loops import probed

ORIGIN = "origin of a non-finite gradient"


class Root(nn.Module):
    """√|x|: finite at 0, its derivative is not; below 0 √x is not."""

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x if self.signed else x * x)


def policy(signed: bool) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2, bias=False), Root(signed), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
    return net


def told(net: nn.Module, bad: Tensor, at: int = 3, after: Any = None) -> tuple[list[str], Any]:
    """Five updates, the one numbered `at` with the state `bad` in row 5."""
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = probed(net, optimizer)
    for step in range(5):
        optimizer.zero_grad()
        state = torch.rand(8, 2) + 0.5
        if step >= at:
            state[5] = bad
        with probe(step):
            action = net(state)
            (action.sum() if after is None else after(action, step)).backward()
        optimizer.step()
    assert not probe.off
    return [each.message for each in probe.alarms if each.kind == ORIGIN], probe


def test_a_forward_pass_names_operation_module_and_row():
    messages, _ = told(policy(signed=True), torch.tensor([-1.0, 1.0]))
    assert "NaN first out of sqrt (row 5 of 8) in the forward pass of 1" in messages[0]


def test_a_backward_pass_names_operation_module_and_row():
    messages, _ = told(policy(signed=False), torch.tensor([0.0, 1.0]))
    assert "(row 5 of 8)" in messages[0] and "in the backward pass through 1" in messages[0]


def test_a_gradient_that_arrives_lost_comes_from_the_loss_and_names_its_rows():
    def loss(action: Tensor, step: int) -> Tensor:
        scale = torch.ones(8, 1)
        scale[2] = torch.inf if step == 3 else 1.0
        return (action * scale).sum()

    messages, _ = told(policy(signed=False), torch.tensor([1.0, 1.0]), after=loss)
    assert "when it reached the policy's output (row 2 of 8)" in messages[0]
    assert "the loss, the critic or the model" in messages[0]


def test_operations_of_later_marked_passes_are_watched():
    net = policy(signed=False)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    probe = probed(net, optimizer)
    for step in range(6):
        optimizer.zero_grad()
        with probe(step):
            action = net(torch.rand(8, 2) + 0.5)
            margin = torch.ones(8, 1)
            margin[3] = 0.0 if step >= 2 else 1.0
            (action * margin).abs().log().sum().backward()
        if step < 2:
            optimizer.step()
    told = [each.message for each in probe.alarms if each.kind == "first non-finite operation"]
    assert "inf first out of log (row 3 of 8)" in told[0] and "marked" in told[0]


def test_an_operation_is_no_origin_of_what_it_was_given():
    spoilt = torch.tensor([1.0, torch.nan, torch.inf])
    with Finder() as finder:
        spoilt.mul(2).add(1)
    assert finder.found == ""
    with Finder() as finder:
        torch.tensor([1.0, -1.0]).log().add(spoilt[0])
    assert finder.found == "NaN first out of log (row 1 of 2)"


def test_what_an_accelerator_notes_is_the_first_update_that_was_lost():
    latch, weight = Latch(), nn.Parameter(torch.zeros(2))
    for update, size in enumerate((1.0, torch.nan, 2.0, torch.inf)):
        weight.grad = torch.tensor([1.0, size])
        latch.see([weight], update)
    assert [latch.take(), latch.take()] == [1, -1]


def test_an_update_that_an_accelerator_has_noted_is_named_within_twenty():
    policy, lost = nn.Linear(2, 1), nn.Parameter(torch.zeros(2))
    lost.grad = torch.full((2,), torch.nan)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer)
    for step in range(60):
        optimizer.zero_grad()
        if step == 41:
            probe._updates._latches["non-finite gradient"].see([lost], probe._updates.count)
        with probe(step):
            policy(torch.randn(8, 2)).sum().backward()
        optimizer.step()
    (alarm,) = probe.alarms
    assert "the policy's optimiser was not finite in update 42" in alarm.message


def test_watching_operations_changes_no_bit():
    def run(probed: bool) -> list[Tensor]:
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        probe = (
            gradlab.Probe(net, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
            if probed
            else None
        )
        for step in range(40):
            optimizer.zero_grad()
            loss = net(torch.randn(8, 2)).square().mean()
            if step % 5 == 0:
                loss = loss * torch.inf
            if probe is None:
                loss.backward()
            else:
                with probe(step):
                    loss.backward()
            if all(bool(torch.isfinite(p.grad).all()) for p in net.parameters()):
                optimizer.step()
        assert probe is None or not probe.off
        return [*(p.detach() for p in net.parameters()), torch.rand(3)]

    assert all(torch.equal(a, b) for a, b in zip(run(False), run(True), strict=True))


@pytest.mark.parametrize("scaled", [True, False])
def test_a_scaler_that_searches_its_scale_is_no_origin(scaled):
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    probe = probed(net, optimizer)
    with probe(0, scaler if scaled else None):
        (scaler.scale(net(torch.ones(1, 1)).sum()) * torch.inf).backward()
    assert bool(probe.alarms) != scaled


class Agent(nn.Module):
    """Two networks that are called apart and stepped at once, as in PPO."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.actor = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def dies(which: str, at: int, probes: list[gradlab.Probe], clip: bool = True) -> None:
    """Raises ValueError after update `at` + 2, since one return is infinite in row 37.
    The clock lets the probe look at few updates only."""
    agent, ticks = Agent(), iter(range(10**9))
    optimizer = torch.optim.Adam(agent.parameters(), 1e-3)
    policy = agent if which == "agent" else agent.actor
    probe = gradlab.Probe(policy, optimizer, clock=lambda: 1e-3 * next(ticks))
    probes.append(probe)
    for step in range(200):
        state = torch.randn(64, 2)
        action = torch.distributions.Normal(agent.actor(state), 1.0, validate_args=True)
        goal = state.sum(1, keepdim=True)
        goal[37] = torch.inf if step == at else 0.0
        loss = (
            action.log_prob(goal.clamp(-1, 1)).mean() + ((agent.critic(state) - goal) ** 2).mean()
        )
        optimizer.zero_grad()
        with probe(step):
            loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()


@pytest.mark.parametrize("which", ["agent", "agent.actor"])
@pytest.mark.parametrize("at", [60, 61, 99, 150])
@pytest.mark.sampled(3)
def test_a_loop_that_dies_of_one_infinite_return_is_seen_at_any_update(which, at):
    probes: list[gradlab.Probe] = []
    try:
        dies(which, at, probes)
    except ValueError:
        probes[0].close()
    first, end = probes[0].alarms[0], probes[0].alarms[-1]
    alone = which == "agent.actor"  # the critic is lost first; by the norm of both, the actor next
    assert first.kind == (updates.LOST_CRITIC if alone else "non-finite gradient")
    assert end.kind == "non-finite at the end"
    assert end.message.startswith(f"The loop died (ValueError) at update {at + 2}: parameters are ")
    since = "since its step; " if alone else f"since the step of update {at + 1}; "
    row = "critic: the gradient of its loss is infinite in row 37 of 64"
    assert since in end.message and row in end.message


@pytest.mark.parametrize("declared", [True, False])
def test_the_row_that_loses_a_critic_of_states_is_named_declared_or_found(declared):
    agent = Agent()
    moves, fits = (torch.optim.Adam(n.parameters(), 1e-3) for n in (agent.actor, agent.critic))
    probe = gradlab.Probe(agent.actor, moves, critic_optimizer=fits, clock=lambda: 0.0)
    if declared:
        probe.networks(critic=agent.critic)
    for step in range(12):
        state = torch.randn(64, 2)
        goal = torch.zeros(64, 1)
        goal[37] = torch.inf if step == 11 else 0.0
        fits.zero_grad()
        ((agent.critic(state) - goal) ** 2).mean().backward()
        fits.step()
        moves.zero_grad()
        with probe(step):
            agent.actor(state).square().mean().backward()
        moves.step()
    (told,) = [alarm.message for alarm in probe.alarms if alarm.kind == updates.LOST_CRITIC]
    assert "the critic: the gradient of its loss is infinite in row 37 of 64" in told


def test_a_root_at_0_loses_every_row_and_is_named():
    net, heard = nn.Linear(2, 3), LastPasses(Budget(1.0, lambda: 0.0))
    net.register_forward_hook(heard.hook)
    out = net(torch.randn(8, 2))
    (out - out.detach()).square().sum(1).sqrt().sum().backward()
    said = heard.lost()
    assert "is NaN in rows 0, 1, 2, … of 8: look for a root, norm or power at 0" in said
    heard.release()
    out = net(torch.randn(8, 2))
    (out - torch.where(torch.arange(8)[:, None] == 5, torch.nan, 0.0)).square().sum().backward()
    assert heard.lost().endswith("is NaN in row 5 of 8: look at their rewards and targets")


@pytest.mark.slow
def test_a_program_that_ends_by_an_error_says_what_it_leaves():
    code = "from tests.probe.test_probe_origin import dies\nkept = []\ndies('agent', 70, kept)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "ValueError: Expected parameter loc" in done.stderr
    assert "non-finite at the end: The loop died (ValueError) at update 72" in done.stderr


# PPO's weights of log π: a wrong sign, an inverted ratio, and returns are told from advantages.


CHECK = "actions are weighed by their advantages"
KINDS = ("wrong weights of actions", "wrong advantages", "stored rows differ")
GAMMA, TRACE, STEPS = 0.99, 0.95, 64


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


class Joint(nn.Module):
    """Means and values by one call."""

    def __init__(self, actor: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.actor, self.critic, self.held = actor, critic, (torch.zeros(0), 0, ())

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(states), self.critic(states)

    def part(self, k: int) -> Callable[[Tensor], Tensor]:
        def called(states: Tensor) -> Tensor:
            version = self.critic[0].weight._version
            if self.held[0] is not states or self.held[1] != version:
                self.held = states, version, self(states)
            return self.held[2][k]

        return called


class Inside(nn.Module):
    """A distribution of the actions at observations that it normalises by itself."""

    def __init__(self, actor: nn.Module, log_std: Tensor) -> None:
        super().__init__()
        self.actor, self.log_std = actor, log_std

    def forward(self, states: Tensor) -> Normal:
        return Normal(self.actor(moved(states))[:, 0], self.log_std.exp())


def moved(states: Tensor) -> Tensor:
    return 0.5 * states + 0.1


def ppo(
    fault: str,
    discrete: bool,
    trace: float = TRACE,
    send: Callable[[np.ndarray], np.ndarray] = np.asarray,
    once: bool = False,
    resets: str = "",
) -> dict[str, Any]:
    """CleanRL's PPO in short, and its check's newest row; critics that tell states apart.

    Args:
        send: what the loop makes of its actions before it sends them.
        once: one pass over each of many short rollouts, as in A2C.
        resets: in steps of their own, whose rows are "masked" in the losses or "kept".
    """
    # What is seen by a correlation alone takes more looks.
    rollouts, steps, passes = (120, 16, 1) if once else (8 + 16 * ("order" in fault), STEPS, 4)
    torch.manual_seed(0)
    name, width = ("CartPole-v1", 2) if discrete else ("Pendulum-v1", 1)
    make = [lambda: gymnasium.make(name)] * 4
    mode = AutoresetMode.NEXT_STEP if resets else AutoresetMode.SAME_STEP
    dead = np.zeros(4, bool)
    env: Any = SyncVectorEnv(make, copy=fault != "shared", autoreset_mode=mode)
    states = env.single_observation_space.shape[0]
    actor, critic = net(states, width), net(states, 1)
    with torch.no_grad():
        critic[2].weight.mul_(60)
    log_std = nn.Parameter(torch.zeros(1))
    costs = net(states, 1) if "costs" in fault else None
    values = nn.ModuleList([critic, *([costs] if costs else [])])
    apart = torch.optim.Adam(values.parameters(), 1e-3) if fault.startswith("apart") else None
    held = [*actor.parameters(), log_std, *([] if apart else values.parameters())]
    both = torch.optim.Adam(held, 1e-3)
    rows: list[dict[str, Any]] = []
    joint, fault = fault.startswith("joint"), fault.removeprefix("joint").strip()
    inside, fault = fault.startswith("inside"), fault.removeprefix("inside").strip()
    handed, fault = fault.startswith("handed"), fault.removeprefix("handed").strip()
    outside, fault = fault.startswith("outside"), fault.removeprefix("outside").strip()
    whole = Joint(actor, critic) if joint else Inside(actor, log_std) if inside else actor
    probe = gradlab.Probe(
        whole, both, critic_optimizer=apart, log=rows.append, overhead_budget=1.0,
        clock=lambda: 0.0,
    )  # fmt: skip
    if joint:
        actor, critic = whole.part(0), whole.part(1)

    several, fault = fault.startswith("sequences"), fault.removeprefix("sequences").strip()

    def at_sequences(module: nn.Module, states: Tensor) -> Tensor:
        return module(states.unflatten(0, (-1, 2))).flatten(0, 1)

    if fault == "no module":
        layers = critic

        def critic(states: Tensor) -> Tensor:
            inner = nn.functional.linear(states, layers[0].weight, layers[0].bias)
            return nn.functional.linear(inner.tanh(), layers[2].weight, layers[2].bias)

    def policy(states: Tensor) -> Distribution:
        if inside:
            return whole(states)
        states = moved(states) if outside else states
        mean = at_sequences(actor, states) if several else actor(states)
        return Categorical(logits=mean) if discrete else Normal(mean[:, 0], log_std.exp())

    env = probe.record(env) if fault != "not recorded" else env
    state = torch.as_tensor(env.reset(seed=0)[0])
    for iteration in range(rollouts):
        kept = []
        for _ in range(steps):
            with torch.no_grad():
                pi, value = policy(state), critic(state)[:, 0]
                action = pi.mean if fault == "mean" else pi.sample()
            sent = action.numpy() if discrete else action[:, None].numpy()
            after, reward, ended, cut, infos = env.step(send(sent))
            row = state, action, pi.log_prob(action), torch.as_tensor(reward).float(), value
            over, final = torch.as_tensor(ended | cut), torch.zeros(4)
            live, dead = torch.as_tensor(~dead | (resets != "masked")), (ended | cut) & bool(resets)
            over |= ~live  # the row of a reset: worth nothing
            for n in np.flatnonzero(cut):
                last = after[n] if fault == "reset" or resets else infos["final_obs"][n]
                last = state[n] if fault == "before the end" else last
                with torch.no_grad():
                    final[n] = critic(torch.as_tensor(last))[0] + 3.0 * (fault == "neither")
            kept.append((*row, over.float(), torch.as_tensor(cut), final, live))
            state = torch.as_tensor(after)
        s, a, old, r, v, e, cut, final, lives = map(torch.stack, zip(*kept, strict=True))
        advantage, carried = torch.zeros_like(r), torch.zeros(4)
        with torch.no_grad():
            last = following = v[-1] if fault == "late" else critic(state)[:, 0]
            if fault == "no last":
                last = following = 0 * last
        for t in reversed(range(steps)):
            delta = r[t] + GAMMA * ((1 - e[t]) * following + final[t]) - v[t]
            carried = delta + GAMMA * trace * (1 - e[t]) * carried
            advantage[t], following = carried, v[t]
        probe.rollout(
            reward={"scaled": 0.1 * r, "shifted": r + 1}.get(fault, r), value=v, ended=e,
            last_value=last, advantage=advantage, discount=GAMMA, trace=trace, truncated=cut,
            final_value=final,
        )  # fmt: skip
        goal = advantage + v
        w = {"returns": goal, "after": advantage.roll(-1, 0), "before": advantage.roll(1, 0)}.get(
            fault, advantage
        )
        if fault in ("normalised and values", "normalised beside costs", "apart, normalised"):
            goal = (advantage - advantage.mean()) / advantage.std() + v
        goal = advantage if "no values" in fault else goal
        goal = (advantage - advantage.mean()) / advantage.std() if "alone" in fault else goal
        flat = [x.flatten(0, 1) for x in (s, a, old, w, goal)]
        if fault == "order":
            flat[3] = w.T.flatten()
        if fault == "noise":  # of which advantages and values explain a tenth
            flat[3] = flat[4] + 3 * goal.std() * torch.randn_like(flat[4])
        for _ in range(passes):
            rows_of_steps = torch.randperm(4 * steps)
            for index in rows_of_steps[lives.flatten()[rows_of_steps]].split(64):
                s_, a_, old_, w_, goal_ = (x[index] for x in flat)
                if handed:
                    probe.batch(observation=s_)
                pi = policy(s_)
                ratio = (pi.log_prob(a_) - old_).exp()
                ratio = 1 / ratio if fault == "ratio" else ratio
                ratio = ratio[:, None] if fault == "weights of all" else ratio
                w_ = (w_ - w_.mean()) / w_.std() if fault != "not normalised" else w_
                lost = torch.max(-w_ * ratio, -w_ * ratio.clamp(0.8, 1.2)).mean()
                loss = -lost if fault == "sign" else lost
                loss = loss - 0.01 * pi.entropy().mean()
                both.zero_grad()
                if fault == "minibatch and values":
                    goal_ = w_ + (goal_ - flat[3][index])
                other = costs and (costs(s_)[:, 0] - s_[:, 0].abs()) ** 2
                fitted = at_sequences(critic, s_) if several else critic(s_)
                error = (fitted if "pairs" in fault else fitted[:, 0]) - goal_
                fit = nn.functional.huber_loss(error, 0 * error) if fault == "Huber" else error**2
                fit = fit if costs is None else fit + other
                with probe(iteration * 4 * steps):
                    (loss if apart else loss + 0.5 * fit.mean()).backward()
                both.step()
                if apart:
                    apart.zero_grad()
                    fit.mean().backward()
                    apart.step()
    probe.close()
    causes = [alarm.message for alarm in probe.alarms if alarm.kind in KINDS]
    found = answers(rows)
    more = {"ends": found[Bootstraps.name], "fitted": found[ValueTargets.name]}
    more |= {"copies": found[StoredCopies.name], "targets": found[Targets.name]}
    return found[CHECK] | {"causes": causes} | more


@pytest.mark.parametrize("resets", ["masked", "kept"])
@pytest.mark.parametrize("fault", ["", "no values", "late", "before the end", "sign"])
@pytest.mark.sampled(4)
def test_rollouts_of_environments_that_are_reset_in_steps_of_their_own(fault, resets):
    found = ppo(fault, False, resets=resets)
    assert bool(found["causes"]) == bool(fault), found
    wrong = {"no values": "fitted", "late": "ends", "before the end": "ends"}.get(fault)
    for name, check in {"weights": found, "fitted": found["fitted"], "ends": found["ends"]}.items():
        bad = name == wrong or (fault == "sign" and name == "weights")
        assert (check["state"] == "fault") == bad and check["state"] in ("sound", "fault"), name


@pytest.mark.parametrize("discrete", [False, True])
def test_a_rollout_whose_observations_share_an_array_is_told(discrete):
    found = ppo("shared", discrete)
    assert found["causes"] and all("same row again and again" in x for x in found["causes"])
    assert found["state"] == "off" and "again and again, not copies" in found["proof"]


@pytest.mark.parametrize("fault", ["", "no values", "late", "sign", "pairs"])
@pytest.mark.sampled(2)
def test_a_policy_that_gives_values_beside_its_means_is_its_own_critic(fault):
    found = ppo(f"joint {fault}".strip(), False)
    assert found["state"] == ("fault" if fault == "sign" else "sound")
    assert found["ends"]["state"] == ("fault" if fault == "late" else "sound")
    assert found["fitted"]["state"] == ("fault" if fault in ("no values", "pairs") else "sound")


@pytest.mark.parametrize("fault", ["", "after", "no values"])
def test_a_policy_and_a_critic_that_are_called_at_sequences_are_judged_row_by_row(fault):
    """As A2C does, at [T, N, ds] of a rollout."""
    found = ppo(f"sequences {fault}".strip(), False)
    assert [found[each]["state"] for each in ("copies", "ends")] == ["sound"] * 2
    assert found["state"] == ("fault" if fault == "after" else "sound")
    assert found["fitted"]["state"] == ("fault" if fault == "no values" else "sound")


@pytest.mark.parametrize(
    "fault, words",
    [
        ("", ""),
        ("neither", ""),
        ("no last", ""),
        ("no module", ""),
        ("reset", "final_value is the critic's value of the next episode's first observation"),
        ("before the end", "final_value is the critic's value of the observation before the last"),
        ("late", "last_value is the critic's value of the observation before the last step"),
    ],
)
@pytest.mark.sampled(3)
def test_values_at_the_ends_of_a_rollout_are_held_against_the_critics(fault, words):
    found = ppo(fault, False)
    assert bool(found["causes"]) == bool(words) and all(words in x for x in found["causes"])
    states = {"": "sound", "neither": "open", "no last": "open", "no module": "off"}
    assert found["ends"]["state"] == states.get(fault, "fault")
    assert ("no critic that is a module of its own" in found["ends"]["proof"]) == (
        fault == "no module"
    )


@pytest.mark.slow
def test_a_critic_that_is_copied_to_be_called_has_no_target():
    found = ppo("", False, once=True)
    assert found["ends"]["looks"] > 32 and found["targets"]["state"] == "off"


@pytest.mark.parametrize("fault, words", [
    ("", ""), ("returns", ""), ("order", ""), ("not normalised", ""), ("Huber", ""),
    ("normalised and values", "fitted to normalised advantages plus values"),
    ("minibatch and values", "fitted to normalised advantages plus values"),
    ("no values", "fitted to advantages without the values"),
    ("pairs", "fitted to the targets of all rows at once, [B, B]: do values and targets have"),
    ("beside costs", ""),
    ("apart", ""),
    ("apart, normalised", "fitted to normalised advantages plus values"),
    ("normalised beside costs", "fitted to normalised advantages plus values"),
])  # fmt: skip
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.sampled(8)
def test_the_critic_of_a_rollout_is_fitted_to_advantages_plus_values(fault, words, discrete):
    found = ppo(fault, discrete)
    state = "off" if fault == "Huber" else "fault" if words else "sound"
    assert found["fitted"]["state"] == state
    told = [each for each in found["causes"] if "the critic is fitted to" in each]
    assert bool(told) == bool(words) and all(words in each for each in told)


@pytest.mark.slow
@pytest.mark.parametrize("fault, state, words", [
    ("apart", "off", "values are in what it is fitted to; whether advantages are normalised"),
    ("apart, normalised", "off", "whether advantages are normalised in it cannot be read"),
    ("apart, no values", "fault", "V is pulled to A in 10 of the newest 10 minibatches"),
    ("apart, alone", "off", "the loss does not pull V to v + A"),
    ("apart, pairs", "fault", "V is pulled to the targets of all rows at once, [B, B] in 10 of"),
])  # fmt: skip
def test_of_a_critic_that_has_not_moved_since_the_rollout_what_can_be_read_is_said(
    fault, state, words
):
    found = ppo(fault, False, once=True)
    assert found["fitted"]["state"] == state and words in found["fitted"]["proof"]
    told = f"fitted to {'the targets' if 'pairs' in fault else 'advantages without the values'}"
    assert [told in each for each in found["causes"]] == [True] * len(found["causes"])
    assert bool(found["causes"]) == (state == "fault")


def test_a_size_is_a_fault_where_its_looks_exclude_what_sound_loops_have():
    drawn = np.random.default_rng(0)
    runs = 0.35 + 0.1 * drawn.normal(size=(2000, 100))  # the least that is sound
    wrong = [any(excluded(run[k - 10 : k], 0.35, k) for k in range(10, 101)) for run in runs]
    assert np.mean(wrong) < ALPHA
    for mean, state in ((0.03, "fault"), (0.3, "open"), (0.8, "sound")):
        check = loss_weights.LossWeights()
        check._looks = loss_weights.LOOKS
        looks = mean + 0.05 * drawn.normal(size=loss_weights.LOOKS)
        check._seen.extend((each, 0.1, 0.5, 0.5) for each in looks)
        assert check.answer().state == state
    assert not excluded([0.03, 0.9], 0.35, 2)  # few looks exclude nothing


def test_an_action_without_a_gradient_is_told():
    draw = torch.Generator().manual_seed(0)
    check, mean = loss_weights.LossWeights(), torch.randn(256, 3, generator=draw).requires_grad_()
    drawn = (mean + torch.randn(256, 3, generator=draw)).detach()
    for summed, still in (([0, 1, 2], -1), ([0, 2], 1), ([], -1)):
        log_prob = Normal(mean, 1.0).log_prob(drawn)[:, summed].sum(1)
        (arrived,) = torch.autograd.grad(log_prob.sum(), mean)
        made: Any = SimpleNamespace(outputs=[mean], arrived={0: arrived})
        assert loss_weights._still(made, drawn.numpy()) == still
        fixed = drawn * torch.tensor([1.0, 0.0, 1.0])  # an action that is always the same
        assert loss_weights._still(made, fixed.numpy()) == -1
    check._limits = np.zeros((2, 3))
    check._seen.extend([(0.9, 0.1, 0.5, 0.5)] * loss_weights.LOOKS)
    check._still.extend([-1] + [1] * (loss_weights.LOOKS - 1))
    assert check.answer().state == "sound"
    check._still.append(1)
    assert check.answer().state == "fault" and "mean of action 2, of" in check.answer().message


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(
    "fault, words",
    [
        ("", ""),
        ("not normalised", ""),
        ("sign", "is its sign right"),
        ("ratio", "the new probability over the old?"),
        ("returns", "is the value subtracted as a baseline?"),
    ],
)
@pytest.mark.sampled(4)
def test_weights_are_held_against_the_rollouts_advantages(fault, words, discrete):
    found = ppo(fault, discrete)
    assert found["state"] == ("fault" if words else "sound")
    assert bool(found["causes"]) == bool(words) and all(words in each for each in found["causes"])
    assert found["value"] > 0.35 or words


@pytest.mark.parametrize("place", ["inside", "handed outside"])
@pytest.mark.parametrize("fault, state", [("", "sound"), ("sign", "fault"), ("order", "fault")])
@pytest.mark.sampled(2)
def test_weights_are_read_where_a_loop_normalises_its_observations(place, fault, state):
    found = ppo(f"{place} {fault}", False)
    assert found["state"] == state and bool(found["causes"]) == (state == "fault")


def test_a_loop_that_normalises_and_hands_over_no_rows_is_told_to():
    found = ppo("outside", False)
    assert found["state"] == "off" and "each minibatch as it was stored" in found["proof"]


def test_actions_without_noise_are_named_where_their_loss_weighs_none():
    found = ppo("mean", False)
    assert found["state"] == "off" and "are the policy's means, without noise" in found["proof"]


@pytest.mark.parametrize("fault, state", [("order", "fault"), ("noise", "open")])
def test_weights_of_other_rows_are_no_raw_returns_and_a_fault_where_it_is_certain(fault, state):
    found = ppo(fault, False)
    assert found["state"] == state and bool(found["causes"]) == (state == "fault")
    assert all("by something else than their advantages" in each for each in found["causes"])


def test_a_loop_that_changes_its_reward_by_itself_is_told_what_to_do_unless_it_is_a_factor():
    found = ppo("shifted", False)
    assert found["state"] == "off" and "does to them beside a constant factor" in found["proof"]
    assert ppo("scaled", False)["state"] == "sound"


@pytest.mark.parametrize("send", [lambda a: np.clip(2 * a, -2, 2), lambda a: 2 * np.tanh(a)])
@pytest.mark.parametrize(
    "fault, state", [("", "sound"), ("sign", "fault"), ("before", "fault"), ("order", "fault")]
)
@pytest.mark.sampled(3)
def test_weights_are_read_where_the_loop_scales_or_squashes_actions_by_itself(fault, state, send):
    found = ppo(fault, False, 0.8, send)
    assert found["state"] == state and bool(found["causes"]) == (state == "fault")
    assert (found["value"] > 0.8) == (fault == "") or fault == "before"
    assert ("in the order of the observations" in found["proof"]) == (fault == "order")


def test_a_loss_that_weighs_each_action_by_all_advantages_is_told():
    """[B, 1] times [B], in one pass over each rollout."""
    found = ppo("weights of all", False, once=True)
    assert found["state"] == "fault" and "all actions weigh the same" in found["proof"]
    assert all("shapes [B, 1] and [B] in it?" in each for each in found["causes"])


@pytest.mark.parametrize("weighed, share", [
    ("advantages", 0.0), ("normalised", 0.0), ("returns", 1.0), ("halfway", nan),
])  # fmt: skip
def test_values_that_hardly_vary_are_read_by_the_level_of_the_weights(weighed, share):
    drawn = np.random.default_rng(0)
    a, v = 4.7 * drawn.normal(size=200) + 1, -23 + 0.1 * drawn.normal(size=200)
    w = {"advantages": a, "normalised": (a - a.mean()) / a.std(), "returns": a + v}
    noisy = w.get(weighed, a + v / 2) * (1 + 0.05 * drawn.normal(size=200))
    assert loss_weights._level(noisy, a, v) == pytest.approx(share, nan_ok=True)
    assert np.isnan(loss_weights._level(noisy, a, v / 10))  # 2.3 is not apart from 0


def test_values_beside_the_means_of_a_sequence_are_those_of_its_observations():
    """Of a recurrent actor-critic, called at [T, N, ds] and a hidden state [1, N, 8]."""
    states, mean, value, hidden = (
        torch.randn(x) for x in ((5, 4, 3), (5, 4, 1), (5, 4), (1, 4, 8))
    )
    call = PolicyCall(
        nn.Identity(), (states, hidden), (mean, value, hidden), False, states, {1: value}
    )
    flat = call.flat((5, 4))
    assert [tuple(x.shape) for x in flat.outputs] == [(20, 1), (20,), (1, 4, 8)]
    assert torch.equal(flat.arrived[1], value.reshape(-1)) and flat.args[1].shape == (1, 4, 8)


@pytest.mark.parametrize(("trace", "discrete"), [(0.0, False), (0.8, False), (TRACE, True)])
@pytest.mark.parametrize("fault", ["", "before", "after"])
@pytest.mark.sampled(3)
def test_advantages_of_a_neighbour_are_told_where_rewards_or_ends_say_which_step_is_which(
    fault, trace, discrete
):
    """CartPole pays 1 at every step: the ends of its episodes say it there."""
    found = ppo(fault, discrete, trace)
    words = f"by the advantages of the step {fault}: where do rows move"
    assert [words in each for each in found["causes"]] == [True] * len(found["causes"])
    assert (found["state"] == "fault") == bool(found["causes"]) == bool(fault)


@pytest.mark.parametrize(("ends", "recorded", "said"), [
    ([0, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 1], True),
    ([0, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1], False),  # one step late
    ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], False),
    ([1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], False),
])  # fmt: skip
def test_ends_say_which_step_is_which_where_they_are_those_recorded(ends, recorded, said):
    ring, episodes = Ring(Budget(0.05, lambda: 0.0), 8), Episodes(1)
    states = np.arange(24, dtype=np.float32).reshape(12, 1, 2)
    ring.keep(episodes, states[0])
    for k, end in enumerate(recorded):
        ring.keep(episodes, states[2 * k + 1], [[0.0]], [0.0], [bool(end)], [False])
        if end and k < 5:
            ring.keep(episodes, states[2 * k + 2])
    rollout: Any = SimpleNamespace(ended=torch.tensor(ends).float())
    assert loss_weights._ends_say(rollout, ring) == said
    check = loss_weights.LossWeights()
    check._seen.extend([(0.8, 0.1, np.nan, np.nan)] * loss_weights.LOOKS)
    assert check.answer().state == "open" and "not told apart" in check.answer().proof


@pytest.mark.parametrize("far", [0.0, 2.0, 4.0])
def test_weights_are_read_where_actions_are_cut_to_their_limits(far):
    """Means that are `far` beyond [−1, 1], and a scale that is nearer to what is left of them."""
    draw = torch.Generator().manual_seed(0)
    mean = (far * torch.randn(256, 3, generator=draw)).requires_grad_()
    log_std = torch.zeros(1, 3, requires_grad=True).expand(256, 3)
    noise, weights = torch.randn(256, 3, generator=draw), torch.randn(256, generator=draw)
    drawn = (mean + noise).detach()
    loss = -(weights * Normal(mean, log_std.exp()).log_prob(drawn).sum(1)).sum()
    arrived = dict(enumerate(torch.autograd.grad(loss, [mean, log_std])))
    made: Any = SimpleNamespace(outputs=[mean, log_std], arrived=arrived)
    cut = drawn.clamp(-1, 1).double().numpy()
    found = loss_weights._weights(made, np.arange(256), cut, loss_weights._limits(cut))
    assert found is not None
    read = found[1]
    assert np.corrcoef(found[0][read], weights[read])[0, 1] > 0.95
    assert (read == (np.abs(cut) < 1).any(1)).all()


class Remembers(nn.Module):
    """One output of every observation, and a hidden state beside."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 8), nn.Linear(8, outputs)

    def forward(self, states: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.cell(states, hidden)
        return self.head(hidden), hidden


def test_a_rollout_of_calls_step_by_step_is_one_pass_of_all_its_rows():
    policy, critic = Remembers(1), Remembers(1)
    check = ActorObjective(policy)
    check.on = True
    policy.register_forward_hook(check.hear_policy)
    critic.register_forward_hook(check.hear_critic)
    states, weights = torch.randn(6, 4, 3), torch.randn(6, 4, 1)
    hidden, loss = torch.zeros(4, 8), torch.zeros(())
    policy(states[0], hidden)  # which no loss follows
    for each, weight in zip(states, weights, strict=True):
        mean, hidden = policy(each, hidden)
        critic(each, torch.zeros(4, 8))[0].sum()
        loss = loss + (mean * weight).sum()
    loss.backward()
    assert check.sent is not None and len(check.sent.calls) == 1
    assert torch.equal(check.sent.calls[0].args[0], states.flatten(0, 1))
    assert torch.equal(check.sent.arrived[0], weights.flatten(0, 1))
    check.after()
    assert check.sent is None


@pytest.mark.parametrize("detached, state", [("", "off"), ("states", "off"), ("actions", "open")])
def test_actions_that_are_detached_in_an_imagined_roll_out_are_open(detached, state):
    policy = nn.Linear(3, 1)
    check = ActorObjective(policy)
    check.on = True
    policy.register_forward_hook(check.hear_policy)
    for _ in range(10):
        s, total = torch.randn(16, 3), torch.zeros(())
        for t in range(4):
            a = policy(s.detach() if detached == "states" else s)
            a = a.detach() if detached == "actions" and t else a
            s = torch.tanh(s + a)
            total = total - s.square().sum()
        (-total).backward()
        check.after()
    found = check.answer()
    assert found.state == state and ("100% of the actions" in found.proof) == (state == "open")


def test_a_hidden_state_without_a_gradient_is_heard_beside_a_value():
    layer, check = nn.Linear(3, 1), ActorObjective(nn.Linear(3, 1))
    check.on = True
    states = torch.randn(4, 3)
    value = layer(states)
    check.hear_critic(layer, (states,), (value, torch.zeros(4, 8)))
    value.sum().backward()
    assert [*check.heard[0].arrived] == [0]
