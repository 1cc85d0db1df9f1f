"""Measurements beside a loop: the numbers of `measure`, closed forms, alarms of real systems.

Who moved what: planted faults are named by their cause, sound loops beside them are not.
"""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module

import gradlab
from gradlab.data.trajectories import child
from gradlab.probe.alarms.evidence import CAUSES, IMPLIED, UNCLEARED
from gradlab.probe.measured import Past, Question, measured
from gradlab.probe.parts.moves import Cleared
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.tasks import Task
from tests.probe import actor_critics
from tests.probe.actor_critics import Loop, Soft, answers, watched
from tests.probe.small_loops import EYE, linear_task, probed

A = torch.tensor([[0.9, 0.2], [0.0, 0.8]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
GAIN = torch.tensor([[-0.05, -0.4]], dtype=torch.float64)


def task(prior_b: Tensor = B) -> Task:
    return linear_task(A=A, B=B, start_mean=torch.ones(2, dtype=torch.float64), prior=(A, prior_b))


def policy() -> nn.Module:
    found = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        found.weight.copy_(GAIN)
    return found


def true_value() -> Tensor:
    """P of V(s) = −sᵀ P s under the policy, noise left out."""
    M, cost, P = A + B @ GAIN, EYE + GAIN.T @ GAIN, torch.zeros_like(EYE)
    for _ in range(500):
        P = cost + 0.8 * M.T @ P @ M
    return P


class Critic(nn.Module):
    """`scale` times the true Q, plus `shift`."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift
        self.register_buffer("P", true_value())

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        after = s @ A.to(s).T + a @ B.to(s).T
        cost = (s**2).sum(1) + (a**2).sum(1) + 0.8 * ((after @ self.P.to(s)) * after).sum(1)
        return -self.scale * cost + self.shift


def test_a_measurement_has_the_numbers_of_measure():
    question = Question(replace(task(0.8 * B), horizon=6), Critic(0.7), seed=3)
    row, _ = measured(question, policy(), 128, 17, Past())
    profile = gradlab.measure(
        question.task, policy(), Critic(0.7), starts=64, batch=128, truth="matched",
        seed=child(3, "probe 17"),
    )  # fmt: skip
    for quantity in ("bias2", "variance", "mse", "snr"):
        q = profile.quantities.index(quantity)
        for e, name in enumerate(ESTIMATORS):
            want = profile.columns["value"][profile.estimators.index(name), q]
            np.testing.assert_allclose(row[quantity][e], want, rtol=1e-12)
    chosen = gradlab.choose(profile)
    assert chosen.mse is not None and chosen.pair is not None
    cell = ESTIMATORS[row["chosen_estimator"]], row["chosen_horizon"]
    assert cell == chosen.mse.cell
    assert row["weight_zero"] == pytest.approx(float(chosen.pair.mse.share[0]), abs=1e-9)


class Offset(nn.Module):
    """K s + b, of which b alone is trained, or nothing that is trained moves the action."""

    def __init__(self, moves: float = 1.0) -> None:
        super().__init__()
        self.moves = moves
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, s: Tensor) -> Tensor:
        return s @ GAIN.T.to(s) + self.moves * self.b


def test_a_true_gradient_that_is_lost_in_noise_is_no_gradient_of_0():
    """By symmetry of the starts ∇_b J is 0, and none of its samples is."""
    centred = linear_task(A=A, B=B, prior=(A, B))
    question = Question(replace(centred, horizon=2), Critic(), seed=3)
    norms = [measured(question, Offset(), 128, k, Past())[0]["truth_norm"] for k in range(6)]
    assert 0 < np.isnan(norms).sum() < 6 and 0 not in norms
    assert measured(question, Offset(0.0), 128, 0, Past())[0]["truth_norm"] == 0


def test_growth_and_errors_of_jacobians_are_those_of_the_matrices():
    row, past = measured(Question(task(0.5 * B), None, seed=0), policy(), 256, 1, Past())
    radius = float(torch.linalg.eigvals(A + B @ GAIN).abs().max())
    assert row["lyapunov"] == pytest.approx(np.log(radius), abs=0.01)
    assert row["lyapunov_horizon"] == np.inf
    assert past.scale is not None
    J = np.concatenate([A.numpy(), B.numpy()], 1) * past.scale
    wrong = np.concatenate([0 * A.numpy(), 0.5 * B.numpy()], 1) * past.scale
    want = np.log(np.linalg.norm(wrong) / np.linalg.norm(J))
    assert row["jacobian_error"] == pytest.approx(want, abs=1e-9)
    exact, _ = measured(Question(task(), None, seed=0), policy(), 256, 2, past)
    assert exact["jacobian_error"] == -np.inf
    better, _ = measured(Question(task(0.75 * B), None, seed=0), policy(), 256, 3, past)
    assert row["jacobian_error"] - better["jacobian_error"] == pytest.approx(np.log(2), abs=1e-9)


def test_measurements_are_new_draws_and_repeat_with_the_seed():
    question = Question(task(0.8 * B), None, seed=1)
    one, same, other = (measured(question, policy(), 256, k, Past())[0] for k in (5, 5, 6))
    assert one["reward_max"] == same["reward_max"] != other["reward_max"]
    later, past = measured(question, policy(), 256, 5, Past(reward_max=1e9))
    assert later["return_bound"] == pytest.approx(5e9) and past.reward_max == 1e9


def rung(worlds: Sequence[Task], critic: nn.Module) -> set[str]:
    """A loop of three updates; the probe's task becomes the next world with each of them."""
    net = policy()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = gradlab.Probe(
        net, optimizer, task=worlds[0], critic=critic, overhead_budget=1.0, clock=lambda: 0.0
    )
    measurements: Any = probe._updates.measurements
    for step in range(3):
        optimizer.zero_grad()
        with probe(step):
            net(torch.ones(4, 2, dtype=torch.float64)).sum().backward()
        world = worlds[min(step, len(worlds) - 1)]
        measurements.subject = lambda seed, task=world: (Question(task, critic, 0), net)
        optimizer.step()
    assert not probe.off and probe._updates.measurements is not None
    probe.close()
    return {each.kind for each in probe.alarms}


WORSE = [task(0.9 * B), task(0.9 * B), task(0.1 * B)]
OF_THE_CRITIC = {"critic-dominated bias", "wrong direction"}  # of the shortest horizons
OF_THE_PRIOR = {"drifting model Jacobian", "wrong direction", "worse than without a model"}


@pytest.mark.parametrize(
    "worlds, critic, kinds",
    [
        ([task(0.9 * B)], {}, set()),
        ([task(0.999 * B)], {"scale": 0.2}, OF_THE_CRITIC),
        ([task(0.9 * B)], {"shift": 1e4}, {"critic beyond its bound"}),
        (WORSE, {}, OF_THE_PRIOR),
    ],
)
@pytest.mark.sampled(2)
def test_a_wrong_critic_and_a_prior_that_gets_worse_are_told_and_sound_ones_are_not(
    worlds, critic, kinds
):
    assert rung(worlds, Critic(**critic)) == kinds


# Prioritised replay: draws by |δ| and weighed losses accuse no sound loop, and hide no fault.


GAMMA, TAU, FIRST = 0.97, 0.01, 400
NAMES = ("observation", "action", "reward", "next_observation", "terminated")


def net(inputs: int, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 1), last)


class Replay:
    """Rows drawn in proportion to |δ| ^ α, and weights (N p) ^ −β over the largest of them."""

    def __init__(self, alpha: float, size: int) -> None:
        self.alpha, self.size = alpha, size
        self.rows: list[tuple[Any, ...]] = []
        self.priorities = np.zeros(10_000)

    def add(self, *row: Any) -> None:
        self.priorities[len(self.rows)] = self.priorities.max() or 1.0
        self.rows.append(row)

    def draw(self, beta: float) -> tuple[Any, list[Tensor], Tensor]:
        p = self.priorities[: len(self.rows)] ** self.alpha
        p /= p.sum()
        at = np.random.choice(len(p), self.size, p=p)
        weights = (len(p) * p[at]) ** -beta
        columns = zip(*(self.rows[k] for k in at), strict=True)
        tensors = [torch.as_tensor(np.stack(each), dtype=torch.float32) for each in columns]
        weights = torch.as_tensor(weights / weights.max(), dtype=torch.float32)
        return at, [x if x.ndim > 1 else x[:, None] for x in tensors], weights[:, None]


def run(
    fault: str, updates: int, alpha: float = 0.6, size: int = 64, rate: float = 2e-3
) -> tuple[gradlab.Probe, dict[str, dict[str, Any]]]:
    """DDPG on the pendulum, and the newest answer of every check."""
    torch.manual_seed(0), np.random.seed(0)
    actor, critic = net(3, nn.Tanh()), net(4, nn.Identity())
    target_actor, target_critic = copy.deepcopy((actor, critic))
    actor_optimizer = torch.optim.Adam(actor.parameters(), 1e-3)
    critic_optimizer = torch.optim.Adam(critic.parameters(), rate)
    log: list[dict[str, Any]] = []
    probe = gradlab.Probe(
        actor, actor_optimizer, critic_optimizer=critic_optimizer, critic_alone=True,
        log=log.append, overhead_budget=1.0, clock=lambda: 0.0,
    )  # fmt: skip
    env, replay = probe.record(gymnasium.make("Pendulum-v1")), Replay(alpha, size)
    state, before = env.reset(seed=0)[0], 0.0
    for step in range(FIRST + updates):
        with torch.no_grad():
            mean = actor(torch.as_tensor(state)).numpy()
        action = np.clip(mean + 0.3 * np.random.randn(1), -1, 1).astype(np.float32)
        after, reward, ended, cut, _ = env.step(2 * action)
        paid, before = (before if fault == "rewards of the step before" else reward), reward
        replay.add(state, action, np.float32(paid), after, np.float32(ended))
        state = env.reset()[0] if ended or cut else after
        if step < FIRST:
            continue
        at, rows, weights = replay.draw(0.4 + 0.6 * (step - FIRST) / updates)
        s, a, r, following, d = rows
        with torch.no_grad():
            v = target_critic(torch.cat([following, target_actor(following)], 1))
            scale = 0.1 if fault == "rewards scaled in targets" else 1.0
            y = scale * r + GAMMA * (1 - d) * v
        given = dict(zip(NAMES, rows, strict=True))
        probe.batch(**given, next_value=v, target=y, discount=GAMMA)
        error = critic(torch.cat([s, a], 1)) - y
        loss = (weights * error**2).mean()
        critic_optimizer.zero_grad()
        (-loss if fault == "sign of the weights" else loss).backward()
        critic_optimizer.step()
        replay.priorities[at] = error.detach().abs().numpy()[:, 0] + 1e-3
        seen = following if fault == "policy at next observations" else s
        actor_loss = -critic(torch.cat([s, actor(seen)], 1)).mean()
        actor_optimizer.zero_grad()
        with probe(step):
            actor_loss.backward()
        actor_optimizer.step()
        with torch.no_grad():
            for one, other in ((target_actor, actor), (target_critic, critic)):
                for t, p in zip(one.parameters(), other.parameters(), strict=True):
                    t.lerp_(p, TAU)
    probe.close()
    return probe, answers(log)


def test_a_critic_of_scaled_rewards_is_said_to_have_learnt_these():
    probe, found = run("rewards scaled in targets", 210)
    said = found["the critic's implied reward is the paid one"]
    assert "of 0.1 r, as in its targets" in said["proof"] and not probe.alarms
    assert found["targets are r + γ (1 − d) v"]["proof"].startswith("y = 0.1 r + 0.97 (1 − d) v")


@pytest.mark.parametrize("fault", ["", "policy at next observations"])
def test_a_policy_at_other_rows_than_its_critic_is_named(fault):
    probe, found = run(fault, 110)
    told = [alarm.message for alarm in probe.alarms]
    assert bool(told) == bool(fault) and all("at those of the next step" in each for each in told)
    check = found["actor's steps raise their objective"]
    assert (check["state"] == "fault") == bool(fault)


@pytest.mark.slow
def test_weights_of_the_wrong_sign_are_named():
    probe, _ = run("sign of the weights", 1050)
    assert {alarm.kind for alarm in probe.alarms} & set(CAUSES) == {IMPLIED}


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"alpha": 1.0, "size": 16, "rate": 3e-4}])
def test_a_sound_loop_is_not_accused_however_slow_its_critic(given):
    probe, found = run("", 420, **given)
    assert not probe.alarms and not any(each["state"] == "fault" for each in found.values())
    assert found["the critic's implied reward is the paid one"]["state"] == (
        "waiting" if given else "sound"
    )


PLANTED = {
    "frozen targets": ("targets do not move", "critic's targets have not moved for 25"),
    "one frozen target": ("targets do not move", "target 2 of the critic has not moved for 25"),
    "frozen target of the policy": ("targets do not move", "policy's targets have not moved"),
    "crossed targets": ("targets are crossed", "target 2 follows network 1: are they crossed"),
    "twins of equal weights": ("twin critics are one", "networks 1 and 2 move and are equal"),
    "swapped tau": ("targets follow too fast", "targets take 0.98 of the network"),
    "copied at every step": ("targets follow too fast", "or is the copy made at every step"),
    "critic in the actor's optimiser": ("actor's steps move another network", "hold the critic's"),
    "one of twin critics in the actor's optimiser": (
        "actor's steps move another network",
        "hold the critic's",
    ),
    "model in the actor's optimiser": ("actor's steps move another network", "another optimiser"),
    "gradients add up": ("gradients are not cleared", "policy's gradients add up"),
    "actor's gradients in the critic": ("gradients are not cleared", "critic's gradients add up"),
    "actor's gradients in the model": (
        "gradients are not cleared",
        "neither policy nor critic",
    ),
    "outside of steps": ("network moves without a step", "the policy changes between"),
    "target into network": ("network moves without a step", "target exchanged"),
}


def causes(probe: gradlab.Probe) -> set[str]:
    return {alarm.kind for alarm in probe.alarms} & set(CAUSES)


@pytest.mark.parametrize("fault", PLANTED)
@pytest.mark.sampled(5)
def test_two_lines_name_the_cause(fault):
    loop = Loop(fault)
    probe = watched(loop)
    loop.run(probe, 300)
    kind, words = PLANTED[fault]
    found = [alarm for alarm in probe.alarms if alarm.kind in CAUSES]
    found.sort(key=lambda alarm: CAUSES.index(alarm.kind))
    assert found and found[0].kind == kind
    assert {alarm.kind for alarm in found[1:]} <= {kind, "targets do not move"}
    assert words in found[0].message and found[0].message.endswith("?")


@pytest.mark.parametrize("fault", ["", "frozen target of the policy"])
def test_a_target_of_the_policy_is_found_beside_declared_critics(fault):
    loop = Loop(fault)
    probe = watched(loop)
    probe.networks(critic=list(loop.critics), target=list(loop.targets))
    loop.run(probe, 300)
    told = [alarm.message for alarm in probe.alarms]
    assert len(told) == bool(fault)
    assert all("policy's targets have not moved" in each for each in told)


@pytest.mark.parametrize("used, state", [
    ("each", "sound"), ("one twice", "fault"), ("critics", "open"), ("the policy itself", "open"),
    ("tensors alone", "open"),
])  # fmt: skip
@pytest.mark.sampled(3)
def test_a_declared_target_that_is_never_called_is_told(used, state):
    """One of twins; of all of them, or of the policy's, the calls may be out of sight."""
    loop, rows = Loop(), []
    probe = watched(loop, log=rows.append)
    probe.networks(critic=[*loop.critics], target=[*loop.targets, loop.target_policy])
    base = copy.deepcopy(loop.critics[0])

    def values(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        policy = loop.policy if used == "the policy itself" else loop.target_policy
        networks = {"critics": loop.critics, "one twice": [loop.targets[1]] * 2}
        with torch.no_grad():
            pair = given["next"], policy(given["next"])
            both = [
                torch.func.functional_call(base, dict(each.named_parameters()), pair)
                if used == "tensors alone" else each(*pair)
                for each in networks.get(used, loop.targets)
            ]  # fmt: skip
            value = torch.stack(both).min(0).values
        return given["reward"] + actor_critics.GAMMA * (1 - given["ended"]) * value, value

    loop.target_values = values
    loop.run(probe, 120)
    hooked = bool(loop.targets[0].body[0]._forward_hooks)
    probe.close()
    found = answers(rows)["targets follow"]
    assert found["state"] == state
    message = "target 1 of the critic is never called, while another is: is one taken twice"
    assert [message in each.message for each in probe.alarms] == [True] * (state == "fault")
    told = "target 1 of the policy" if used == "the policy itself" else "target 1 of the critic"
    assert (f"{told} was not called once" in found["proof"]) == (state != "sound")
    assert hooked == (used not in ("each", "the policy itself"))
    assert not any(part._forward_hooks for part in loop.targets.modules())


@pytest.mark.parametrize("updates", [0, 30])
def test_targets_that_are_declared_late_are_judged_by_looks_since_then(updates):
    """As one of many that are drawn at random, which comes later."""
    loop, rows = Loop(), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 130)
    spare = copy.deepcopy(loop.targets[0])  # called in none of the looks
    probe.networks(critic=[*loop.critics], target=[*loop.targets, loop.target_policy, spare])
    loop.run(probe, updates)
    probe.close()
    assert not causes(probe) and answers(rows)["targets follow"]["state"] != "fault"
    told = [row["update"] for row in rows if row.get("checks/check") == "targets follow"]
    assert told[-1] == 130 + updates  # it goes on


def handing(probe: gradlab.Probe) -> Callable[[dict[str, Tensor], Tensor, Tensor], None]:
    """What hands over a batch with its observations."""

    def hand(given: dict[str, Tensor], goal: Tensor, value: Tensor) -> None:
        probe.batch(
            observation=given["state"], reward=given["reward"], terminated=given["ended"],
            next_observation=given["next"], next_value=value, target=goal,
            discount=actor_critics.GAMMA,
        )  # fmt: skip

    return hand


@pytest.mark.parametrize("normalised", ["", "critic", "target", "critic and target"])
@pytest.mark.sampled(2)
def test_critic_and_target_get_observations_in_one_form(normalised):
    loop, rows = Loop(), []
    fit, values, probe = loop.fit_critic, loop.target_values, watched(loop, log=rows.append)

    def moved(given: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        return given | {name: 0.5 * given[name] - 0.1}

    if "critic" in normalised:
        loop.fit_critic = lambda given, goal: fit(moved(given, "state"), goal)
    if "target" in normalised:
        loop.target_values = lambda given: values(moved(given, "next"))

    loop.run(probe, 200, handing(probe))
    probe.close()
    found = answers(rows)["targets are r + γ (1 − d) v"]
    assert not causes(probe) and found["state"] == (
        "open" if normalised in ("critic", "target") else "sound"
    )
    given = {"critic": "target gets stored next", "target": "critic gets stored"}
    assert given.get(normalised, "") in found["proof"]


@pytest.mark.parametrize("by", ["batch", "running statistics"])
def test_rewards_that_are_standardised_by_batch_are_amber_and_said_once_while_it_trains(by, capsys):
    loop, rows = Loop(), []
    plain, probe = loop.batch, watched(loop, log=rows.append)

    def batch() -> dict[str, Tensor]:
        given = plain()
        r = given["reward"]
        mean, spread = (r.mean(), r.std() + 1e-6) if by == "batch" else (-2.1, 2.0)
        return given | {"reward": 10 * (r - mean) / spread}

    loop.batch = batch
    loop.run(probe, 110, handing(probe))
    said = "not shown that targets are r + γ (1 − d) v: rewards have mean 0 and deviation 10 in"
    assert capsys.readouterr().err.count(said) == (by == "batch")
    loop.run(probe, 110, handing(probe))
    probe.close()
    assert said not in capsys.readouterr().err
    found = answers(rows)["targets are r + γ (1 − d) v"]
    assert not causes(probe) and found["state"] == ("open" if by == "batch" else "sound")
    assert ("mean 0 and deviation 10 in every batch" in found["proof"]) == (by == "batch")


@pytest.mark.parametrize(
    ("row", "beside", "state"),
    [(0.0, 0.0, "fault"), (0.0, 0.1, "open"), (1e-4, 0.0, "sound"), (1.0, 0.1, "sound")],
)
@pytest.mark.sampled(2)
def test_a_minimum_over_the_batch_is_told_from_what_targets_say_of_each_row(row, beside, state):
    """Exactly, or beside something of the loop's own, as an entropy; however little rows vary."""
    loop, rows = Loop(), []
    values, probe = loop.target_values, watched(loop, log=rows.append)

    def least(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        own = values(given)[1]
        value = own.min() + row * (own - own.min()) + beside * torch.randn_like(own)
        return given["reward"] + actor_critics.GAMMA * (1 - given["ended"]) * value, value

    loop.target_values = least

    loop.run(probe, 200, handing(probe))
    probe.close()
    found = answers(rows)["targets are r + γ (1 − d) v"]
    assert found["state"] == state and bool(causes(probe)) == (state == "fault")
    said = {"fault": "one value", "open": "do not rise with what the targets", "sound": "declared"}
    assert said[state] in found["proof"]


@pytest.mark.parametrize("kind", ["", "with a learned model"])
def test_a_sound_loop_has_a_proof_of_each_part(kind):
    loop, rows = Loop(kind), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 300)
    probe.close()
    assert not causes(probe)
    found = answers(rows)
    follow = found["targets follow"]
    # exact: the network rests while its target moves
    assert follow["state"] == "sound" and follow["value"] == pytest.approx(0.02, rel=1e-4)
    alone = "gradients are cleared between steps"
    for name in (
        "actor's step moves the policy alone", "networks move by steps alone", alone,
        f"critic's {alone}", *[f"other network's {alone}"] * bool(kind),
    ):  # fmt: skip
        assert found[name]["state"] == "sound" and found[name]["value"] == 0
    none = "no optimiser of its own was seen to step a network beside policy and critic"
    assert (none in found[f"other network's {alone}"]["proof"]) == (not kind)


@pytest.mark.parametrize("make", [Loop, Soft])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("where", ["loss", "optimiser"])
@pytest.mark.sampled(2)
def test_a_twin_that_never_moves_is_named_in_the_place_of_its_target(make, where, declared):
    loop = make(f"one of twins in no {where}")
    probe = watched(loop)
    if declared:  # critics are counted apart from the policy
        targets = [loop.target_policy, *loop.targets]
        probe.networks(critic=[*loop.critics], target=targets)
    loop.run(probe, 270)
    assert causes(probe) == {"critic does not move"}
    words = {"loss": "network 2 has not moved", "optimiser": "all 4 tensors of one of 2 critics"}
    assert words[where] in probe.alarms[0].message


@pytest.mark.parametrize("make", [Loop, Soft])
@pytest.mark.parametrize("error", ["", "Huber"])
@pytest.mark.parametrize("pairs", ["", " of pairs"])
@pytest.mark.sampled(3)
def test_a_loss_of_values_beside_the_targets_of_all_rows_is_named(make, error, pairs):
    loop, rows = make(error + pairs), []
    probe = watched(loop, log=rows.append)

    def each(r: dict[str, Tensor], goal: Tensor, value: Tensor) -> None:
        given = {"reward": r["reward"], "terminated": r["ended"], "discount": 0.9}
        probe.batch(**given, next_value=value, target=goal)

    loop.run(probe, 110, each)
    probe.close()
    found = answers(rows)["targets are r + γ (1 − d) v"]
    assert found["state"] == ("fault" if pairs else "sound")
    assert causes(probe) == ({"wrong targets"} if pairs else set())
    assert all("values of all rows, [B, B]" in x.message for x in probe.alarms if pairs)


def test_a_policy_at_rest_is_no_fault_of_its_target():
    loop, rows = Loop("policy at rest"), []
    nudged = next(loop.target_policy.parameters())
    nudged.data += 0.01
    loop.follow = lambda: None  # nor do the critics' move, in a hundred updates
    probe = watched(loop, log=rows.append)
    probe.networks(critic=[*loop.critics], target=[loop.target_policy])
    loop.run(probe, 300)
    probe.close()
    assert "targets do not move" not in {alarm.kind for alarm in probe.alarms}
    found = answers(rows)["targets follow"]
    assert found["state"] == "open" and "the policy's network 1 did not move" in found["proof"]


def test_passes_of_every_critic_are_let_go_of():
    """The graph of a pass is as large as its batch."""
    loop, made = Loop(), []
    probe = watched(loop)
    probe.networks(critic=[*loop.critics], target=[*loop.targets])
    for critic in loop.critics:
        critic.register_forward_hook(lambda module, args, output: made.append(weakref.ref(output)))
    loop.run(probe, 5)
    assert len(made) == 25 and not any(each() is not None for each in made)


def test_targets_of_critics_that_begin_late_are_no_fault():
    """Those of critics that rest, as in a warm-up, rest for as long."""
    loop, batches = Loop(), iter(range(1000))
    fit = loop.fit_critic
    loop.fit_critic = lambda *given: fit(*given) if next(batches) >= 810 else None
    for target in loop.targets.parameters():
        target.data *= 1.001
    follow = loop.follow
    loop.follow = lambda: follow() if next(batches) >= 810 else None
    probe = watched(loop)
    probe.networks(critic=[*loop.critics], target=[*loop.targets])
    loop.run(probe, 310)
    assert "targets do not move" not in causes(probe)


def test_a_target_that_is_sent_a_gradient_and_copied_seldom_is_no_critic_without_an_optimiser():
    torch.manual_seed(0)
    policy, critic = nn.Linear(3, 1), nn.Linear(3, 1)
    target = copy.deepcopy(critic)
    both = torch.optim.SGD([*policy.parameters(), *critic.parameters()], 1e-3)
    probe = probed(policy, both)
    for step in range(130):
        state, action = torch.randn(16, 3), torch.randn(16, 1)
        error = critic(state) - 1 - 0.9 * target(state + 0.1)  # not under no_grad
        both.zero_grad()
        with probe(step):
            ((policy(state) * action).mean() + error.square().mean()).backward()
        both.step()
    assert not [x.message for x in probe.alarms if x.kind == "critic does not move"]


@pytest.mark.parametrize("sent", [True, False])
def test_targets_that_an_optimiser_steps_are_named_where_a_loss_sends_to_them(sent):
    """One that holds them beside the critic and never has a gradient of theirs does no harm."""
    loop = Loop()
    every = [*loop.critics.parameters(), *loop.targets.parameters()]
    loop.critic_optimizer = torch.optim.Adam(every, 1e-3)
    if sent:
        plain, loop.target_values = loop.target_values, lambda rows: with_gradient(rows)

        def with_gradient(rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            value = loop.targets[0](rows["next"], loop.target_policy(rows["next"]).detach())
            return plain(rows)[0] + value - value.detach(), value.detach()

    probe = watched(loop)
    probe.networks(critic=[*loop.critics], target=[*loop.targets])
    loop.run(probe, 120)
    assert causes(probe) == ({"targets are stepped"} if sent else set())
    assert all("made under no_grad" in alarm.message for alarm in probe.alarms)


class Twins(torch.nn.Module):
    """Both critics in one module."""

    def __init__(self, critics: torch.nn.ModuleList) -> None:
        super().__init__()
        self.critics = critics

    def forward(self, *given: torch.Tensor) -> list[torch.Tensor]:
        return [each(*given) for each in self.critics]


@pytest.mark.parametrize("fault, many, whose", [
    ("", 2, ""), ("one of twins in no optimiser", 2, "one of 2 critics are"),
    ("one of twins in no optimiser", 3, "each of 2 of 3 critics are"),
])  # fmt: skip
def test_one_of_an_ensemble_that_is_declared_as_a_list_is_in_an_optimiser(fault, many, whose):
    """The loop calls the module that holds them all, of which its optimiser holds the first."""
    loop, rows = Loop(fault, twins=many), []
    whole = Twins(loop.critics)

    def fit(rows: dict[str, Tensor], goal: Tensor) -> None:
        loop.critic_optimizer.zero_grad()
        values = whole(rows["state"], rows["action"])
        sum((value - goal).square().mean() for value in values).backward()
        loop.critic_optimizer.step()

    loop.fit_critic = fit
    probe = watched(loop, log=rows.append)
    probe.networks(critic=list(loop.critics), target=list(loop.targets))
    loop.run(probe, 120)
    probe.close()
    held = answers(rows)["an optimiser holds all of the critic"]
    assert held["state"] == ("fault" if fault else "sound")
    assert [f"all 4 tensors of {whose} in no optimiser" in each.message
            for each in probe.alarms] == [True] * bool(fault)  # fmt: skip


@pytest.mark.parametrize("fault", ["", "one of twins in no loss", "one of twins in no optimiser"])
@pytest.mark.sampled(2)
def test_a_twin_at_rest_within_one_module_is_amber_unless_a_loss_sends_to_it(fault):
    """Where no optimiser holds what a loss sends a gradient to."""
    loop, rows = Loop(fault), []
    probe = watched(loop, log=rows.append)
    probe.networks(critic=Twins(loop.critics), target=Twins(loop.targets))
    loop.run(probe, 300)
    probe.close()
    unheld = "optimiser" in fault
    assert causes(probe) == ({"critic does not move"} if unheld else set())
    assert not unheld or "4 of 8 tensors of the critic are in no" in probe.alarms[0].message
    found = answers(rows)["targets follow"]
    assert found["state"] == ("open" if fault else "sound")
    assert ("4 of 8 tensors of the critic's network 1 did not move" in found["proof"]) == bool(
        fault
    )


class Stacked(nn.Module):
    """An ensemble of linear critics in stacked weights."""

    def __init__(self, equal: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(2, 3, 1)), nn.Parameter(torch.zeros(2, 1))
        self.weight.data[1] = self.weight.data[0] if equal else self.weight.data[1]

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        given = torch.cat([state, action], 1).expand(2, -1, -1)
        return torch.baddbmm(self.bias[:, None], given, self.weight)


@pytest.mark.parametrize("equal", [True, False])
def test_equal_members_of_an_ensemble_in_stacked_weights_are_told(equal):
    torch.manual_seed(0)
    critic, policy = Stacked(equal), actor_critics.actor()
    target, rows = copy.deepcopy(critic), list[dict[str, Any]]()
    own, others = (torch.optim.Adam(x.parameters(), 1e-3) for x in (policy, critic))
    probe = gradlab.Probe(
        policy, own, critic_optimizer=others, log=rows.append, overhead_budget=1.0,
        clock=lambda: 0.0,
    )  # fmt: skip
    probe.networks(critic=critic, target=target)
    for step in range(150):
        s, a = torch.randn(32, 2), torch.randn(32, 1)
        others.zero_grad()
        (critic(s, a) - target(s, a).detach().amin(0) - s[:, :1]).square().mean().backward()
        others.step()
        with torch.no_grad():
            for p, q in zip(target.parameters(), critic.parameters(), strict=True):
                p.lerp_(q, 0.01)
        own.zero_grad()
        with probe(step):
            (-critic(s, policy(s)).amin(0).mean()).backward()
        own.step()
    probe.close()
    assert causes(probe) == ({"twin critics are one"} if equal else set())
    assert (
        not equal
        or "members of the critic's ensemble move and are equal" in probe.alarms[0].message
    )
    assert answers(rows)["targets follow"]["state"] == ("fault" if equal else "sound")


class Mean(nn.Module):
    """Of two critics, each called as a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = actor_critics.Critic(), actor_critics.Critic()

    def forward(self, *given: Tensor) -> Tensor:
        return (self.one(*given) + self.other(*given)) / 2


@pytest.mark.parametrize("held", [True, False])
def test_a_part_of_the_critic_that_no_optimiser_holds_is_named_in_two_lines(held):
    loop = Loop(twins=1)
    loop.critics = nn.ModuleList([Mean()])
    loop.targets = copy.deepcopy(loop.critics)
    stepped = loop.critics if held else loop.critics[0].one
    loop.critic_optimizer = torch.optim.Adam(stepped.parameters(), 1e-3)
    probe = watched(loop)
    loop.run(probe, 120)
    assert causes(probe) == (set() if held else {"critic does not move"})
    assert held or "4 of 8 tensors of the critic are in no optimiser" in probe.alarms[0].message


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("kind", ["held", "in none", "steps later", "fixed"])
@pytest.mark.sampled(3)
def test_a_critic_in_no_optimiser_is_named_where_a_loss_of_its_own_fits_it(kind, declared):
    """One that is fixed is sent the policy's gradient alone; some optimisers step seldom."""
    torch.manual_seed(0)
    policy, critic, rows = nn.Linear(3, 1), nn.Linear(3, 1), []
    held = [*policy.parameters(), *(critic.parameters() if kind == "held" else ())]
    both, later = torch.optim.SGD(held, 1e-3), torch.optim.SGD(critic.parameters(), 1e-3)
    if kind == "in none":
        del later
    probe = probed(policy, both, rows)
    if declared:
        probe.networks(critic=critic)
    for step in range(130):
        state, action = torch.randn(16, 3), torch.randn(16, 1)
        loss = (policy(state) * action).mean()
        if kind == "fixed":
            loss = loss - critic(state + policy(state)).mean()
        else:
            loss = loss + (critic(state) - action).square().mean()
        both.zero_grad()
        with probe(step):
            loss.backward()
        both.step()
    probe.close()
    told = [x.message for x in probe.alarms if x.kind == "critic does not move"]
    assert bool(told) == (kind == "in none")
    assert all("all 2 tensors of the critic are in no optimiser" in each for each in told)
    found = answers(rows)["an optimiser holds all of the critic"]
    if kind == "fixed" and declared:
        assert found["state"] == "open" and "fixed by intention" in found["proof"]


@pytest.mark.parametrize("detached", [True, False])
def test_an_entropy_that_sends_nothing_to_the_actor_is_no_yes(detached):
    loop, rows = Soft(), []
    probe = watched(loop, log=rows.append)
    probe.networks(critic=[*loop.critics], target=[*loop.targets])
    for step in range(300):
        batch = loop.batch()
        loop.fit_critic(batch, loop.target_values(batch)[0])
        loop.follow()
        action, density = loop.policy.drawn(batch["state"])
        density = density.detach() if detached else density
        values = torch.stack([critic(batch["state"], action) for critic in loop.critics])
        loop.actor_optimizer.zero_grad()
        with probe(step):
            (loop.ALPHA * density - values.min(0).values).mean().backward()
        loop.actor_optimizer.step()
    probe.close()
    found = answers(rows)["actor's steps raise their objective"]
    assert not causes(probe) and found["state"] == ("open" if detached else "sound")
    assert ("is it detached" in found["proof"]) == detached


def test_what_is_sent_in_parts_and_clipped_is_cleared_all_the_same():
    policy = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    check = Cleared("policy", [*policy.parameters()])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # ten windows, then one in ten
        check.begin()
        optimizer.zero_grad()
        for _ in range(3):
            policy(torch.randn(5, 3, generator=generator)).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        check.look()
        optimizer.step()
    found = check.answer()
    assert (found.state, found.value, found.looks) == ("sound", 0.0, 11)
    assert not policy.weight._backward_hooks and not policy.bias._backward_hooks


@pytest.mark.parametrize(("cleared", "state"), [(True, "sound"), (False, "fault")])
def test_a_clipped_gradient_that_is_small_beside_what_is_sent_is_seen(cleared, state):
    policy, check = torch.nn.Linear(3, 2), None
    optimizer = torch.optim.SGD(policy.parameters(), 1e-6)
    check = Cleared("policy", [*policy.parameters()])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        check.begin()
        if cleared:
            optimizer.zero_grad()
        (50 * policy(torch.randn(64, 3, generator=generator)).square().sum()).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)  # of some thousands
        check.look()
        optimizer.step()
    assert check.answer().state == state


@pytest.mark.parametrize("fault, marked, state", [
    ("critic's gradients in the policy", True, "fault"),
    ("critic's gradients in the policy", False, "open"),
    ("critic's gradients are cleared", True, "sound"), ("", False, "sound"),
])  # fmt: skip
@pytest.mark.sampled(2)
def test_what_the_critics_loss_leaves_in_the_policy_is_told(fault, marked, state):
    loop, rows = Soft(fault), []
    probe = watched(loop, log=rows.append)
    marks = probe if marked else lambda step: nullcontext()
    loop.run(marks, 125)
    probe.close()
    found = answers(rows)["gradients are cleared between steps"]
    assert found["state"] == state, found
    told = [each.message for each in probe.alarms if each.kind == UNCLEARED]
    assert bool(told) == (state == "fault") and all("critic's loss" in each for each in told)


@pytest.mark.parametrize("own, expected", [(False, "fault"), (True, "open")])
def test_what_is_sent_before_the_mark_is_the_critics_where_it_steps_along_it(own, expected):
    """Both backward passes come before both steps. A first half of the actor's own loss that is
    not marked is sent to the critic, too, which is cleared before its step."""
    torch.manual_seed(0)
    policy, critic = (nn.Sequential(nn.Linear(n, 8), nn.Tanh(), nn.Linear(8, 1)) for n in (3, 4))
    steps = [torch.optim.Adam(each.parameters(), 1e-3) for each in (policy, critic)]
    rows: list[dict[str, Any]] = []
    probe = gradlab.Probe(policy, steps[0], critic_optimizer=steps[1], log=rows.append,
                          overhead_budget=1.0, clock=lambda: 0.0)  # fmt: skip
    probe.networks(critic=critic, target=copy.deepcopy(critic))

    def value(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return critic(torch.cat([state, action], 1))

    for step in range(150):
        state, after, action = torch.randn(32, 3), torch.randn(32, 3), torch.randn(32, 1)
        for each in steps:
            each.zero_grad()
        if own:
            value(after, policy(after)).mean().neg().backward()
        else:
            target = state[:, :1] + 0.9 * value(after, policy(after))
            (value(state, action) - target).square().mean().backward()
        critic.requires_grad_(False)
        with probe(step):
            value(state, policy(state)).mean().neg().backward()
        critic.requires_grad_(True)
        steps[0].step()
        if own:
            steps[1].zero_grad()
            (value(state, action) - state[:, :1]).square().mean().backward()
        steps[1].step()
    probe.close()
    found = answers(rows)["gradients are cleared between steps"]
    assert found["state"] == expected, found
    told = [each.message for each in probe.alarms if each.kind == UNCLEARED]
    assert bool(told) == (not own) and all("critic's loss sent" in each for each in told)


@pytest.mark.parametrize("trunk_last", [False, True])
def test_a_trunk_that_two_losses_share_and_an_actor_that_adds_up_are_no_leak(trunk_last):
    """Gradients of the critic's in the trunk, and of a first half of the actor's, are intended."""
    policy = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 9))
    parameters = [p for k in (0, 1) for p in policy[k ^ trunk_last].parameters()]
    for shared in (True, False):
        check, critic = Cleared("policy", parameters), torch.nn.Linear(8, 1)
        for _ in range(12):
            check.begin()
            policy.zero_grad()
            state = torch.randn(5, 3)
            if shared:
                critic(policy[0](state)).square().sum().backward()
            else:
                check.mark()
                policy(state).square().sum().backward()
            check.part()
            check.mark()
            policy(torch.randn(5, 3)).square().sum().backward()
            check.look()
        assert check.answer().state == "sound", shared


@pytest.mark.parametrize(("cleared", "state"), [(False, "fault"), (True, "sound")])
def test_saturated_actions_send_gradients_of_0_and_what_was_left_is_seen(cleared, state):
    policy = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    policy(torch.ones(5, 3)).sum().backward()
    check = Cleared("policy", [*policy.parameters()])
    for _ in range(12):
        policy[0].weight.grad = torch.ones(2, 3)
        check.begin()
        if cleared:
            optimizer.zero_grad()
        policy(torch.full((5, 3), 1e6)).sum().backward()  # 1 − tanh² is 0
        check.look()
    assert check.answer().state == state


@pytest.mark.parametrize("fault", ["", "crossed targets"])
def test_declared_targets_that_are_no_copies_of_one_network_each_have_that_in_their_order(fault):
    """Crossed ones have become copies of one network, as where the loop goes on after a restart."""
    loop = Loop(fault)
    if fault:
        loop.targets[1].load_state_dict(loop.critics[0].state_dict())
    if not fault:
        loop.targets = copy.deepcopy(loop.critics[::-1])  # each nearer to the other's network
        with torch.no_grad():
            torch._foreach_mul_([*loop.targets.parameters()], 0.4)
    probe = watched(loop)
    probe.networks(critic=loop.critics, target=[*loop.targets, loop.target_policy])
    loop.run(probe, 150)
    assert causes(probe) == ({"targets are crossed"} if fault else set())


@pytest.mark.parametrize("alias", ["module", "memory", ""])
def test_a_target_that_is_the_network_itself_is_told_at_the_first_look(alias):
    loop = Loop()
    if alias == "module":
        loop.targets[1] = loop.critics[1]
    elif alias:
        for its, own in zip(
            loop.targets[1].parameters(), loop.critics[1].parameters(), strict=True
        ):
            its.data = own.data
    probe = watched(loop)
    probe.networks(critic=loop.critics, target=[*loop.targets, loop.target_policy])
    loop.run(probe, 40)
    told = [each.message for each in probe.alarms if "is the critic itself" in each.message]
    assert bool(told) == bool(alias)
    assert causes(probe) == ({"targets follow too fast"} if alias else set())


@pytest.mark.slow
def test_targets_that_are_copied_now_and_then_are_declared():
    for period, quiet in ((None, False), (400, True)):
        loop = Loop("frozen targets")
        probe = watched(loop)
        probe.networks(
            critic=loop.critics, target=[*loop.targets, loop.target_policy], period=period
        )
        loop.run(probe, 300)
        assert (not causes(probe)) == quiet


@pytest.mark.slow
def test_copies_that_act_or_are_referred_to_are_no_targets():
    loop = Loop()
    reference = copy.deepcopy(loop.policy)

    def refer(rows: dict[str, torch.Tensor], *_: torch.Tensor) -> None:
        with torch.no_grad():
            reference(rows["state"])

    probe = watched(loop)
    loop.run(probe, 300, refer)
    assert not causes(probe)


@pytest.mark.parametrize("shared", ["one optimiser", "encoder"])
def test_shared_networks_are_no_leak(shared):
    torch.manual_seed(0)
    trunk, head, critic = nn.Linear(2, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    first = [*trunk.parameters(), *head.parameters()]
    first += [*critic.parameters()] if shared == "one optimiser" else []
    policy = nn.Sequential(trunk, nn.Tanh(), head) if shared == "one optimiser" else head
    optimizer = torch.optim.Adam(first, 1e-3)
    other = torch.optim.Adam([*trunk.parameters(), *critic.parameters()], 1e-3)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
    for step in range(300):
        hidden = torch.tanh(trunk(torch.randn(8, 2)))
        loss = (head(hidden) ** 2).mean()
        if shared == "one optimiser":
            loss = loss + (critic(hidden) ** 2).mean()
        else:
            other.zero_grad()
            (critic(torch.tanh(trunk(torch.randn(8, 2)))) ** 2).mean().backward()
            other.step()
            hidden = torch.tanh(trunk(torch.randn(8, 2)))
            loss = (head(hidden) ** 2).mean()
        optimizer.zero_grad()
        with probe(step):
            loss.backward()
        optimizer.step()
    assert not causes(probe)


@pytest.mark.parametrize("fault", ["", "never cleared", "the replay's actions"])
def test_a_critic_that_is_frozen_during_the_actors_step_is_looked_at(fault):
    """As Spinning Up's and DroQ's are: nothing is known of it then, and nothing sent to it."""
    loop, rows = Soft(), []
    probe = watched(loop, log=rows.append)
    probe.networks(critic=[*loop.critics], target=[*loop.targets])
    for step in range(150):
        batch = loop.batch()
        goal, _ = loop.target_values(batch)
        if fault != "never cleared":
            loop.critic_optimizer.zero_grad()
        values = [critic(batch["state"], batch["action"]) for critic in loop.critics]
        sum(((value - goal) ** 2).mean() for value in values).backward()
        loop.critic_optimizer.step()
        loop.follow()
        action, density = loop.policy.drawn(batch["state"])
        loop.critics.requires_grad_(False)
        values = [
            critic(batch["state"], batch["action"] if fault == "the replay's actions" else action)
            for critic in loop.critics
        ]
        loop.actor_optimizer.zero_grad()
        with probe(step):
            (loop.ALPHA * density - torch.stack(values).min(0).values).mean().backward()
        loop.actor_optimizer.step()
        loop.critics.requires_grad_(True)
    probe.close()
    found, cleared = answers(rows), "critic's gradients are cleared between steps"
    assert causes(probe) == ({UNCLEARED} if fault == "never cleared" else set())
    assert found[cleared]["state"] == ("fault" if fault == "never cleared" else "sound")
    objective = found["actor's steps raise their objective"]
    assert (objective["state"] == "open") == (fault == "the replay's actions")
    assert fault != "the replay's actions" or "neither detached" in objective["proof"]


@pytest.mark.parametrize("cleared", [True, False])
def test_a_critic_that_steps_after_the_actor_by_one_backward_pass_of_both_is_looked_at(cleared):
    torch.manual_seed(0)
    policy, critic = nn.Linear(32, 1), nn.Linear(32, 1)
    steps = [torch.optim.Adam(each.parameters(), 1e-3) for each in (policy, critic)]
    rows: list[dict[str, Any]] = []
    probe = gradlab.Probe(policy, steps[0], critic_optimizer=steps[1], log=rows.append,
                          overhead_budget=1.0, clock=lambda: 0.0)  # fmt: skip
    probe.networks(critic=critic)
    for step in range(150):
        state = torch.randn(64, 32)
        steps[0].zero_grad()
        if cleared:
            steps[1].zero_grad()
        fit = (critic(state) - state.sum(1, keepdim=True)).square().mean()
        with probe(step):
            (policy(state).square().mean() + fit).backward()
        for each in steps:
            each.step()
    probe.close()
    found = answers(rows)["critic's gradients are cleared between steps"]
    assert (found["state"], found["looks"] > 9) == ("sound" if cleared else "fault", True)
    assert causes(probe) == (set() if cleared else {UNCLEARED})


@pytest.mark.parametrize("delay", [2, 3])
def test_two_steps_of_the_actor_between_those_of_a_critic_that_is_cleared_are_no_fault(delay):
    """The actor's passes send gradients to the critic, which are cleared before its own."""
    loop = Loop()
    probe = watched(loop)
    for step in range(150):
        rows = loop.batch()
        if step % delay == 0:
            loop.fit_critic(rows, loop.target_values(rows)[0])
        loop.actor_optimizer.zero_grad()
        with probe(step):
            loop.actor_loss(rows).backward()
        loop.actor_optimizer.step()
    probe.close()
    assert UNCLEARED not in causes(probe)


@pytest.mark.slow
def test_one_optimiser_that_steps_in_turn_and_moves_the_critic_is_told():
    for frozen in (False, True):
        torch.manual_seed(0)
        loop = Loop()
        both = torch.optim.Adam([*loop.policy.parameters(), *loop.critics.parameters()], 1e-3)
        loop.actor_optimizer = loop.critic_optimizer = both
        probe = watched(loop)
        for step in range(300):
            rows = loop.batch()
            loop.fit_critic(rows, loop.target_values(rows)[0])
            loop.critics.requires_grad_(not frozen)
            both.zero_grad()
            with probe(step):
                loop.actor_loss(rows).backward()
            both.step()
            loop.critics.requires_grad_(True)
            loop.follow()
        assert causes(probe) == (set() if frozen else {"actor's steps move another network"})


def test_a_loop_computes_the_same_bits_and_is_free_afterwards():
    left = []
    for with_probe in (False, True):
        loop = Loop()
        random.seed(0), np.random.seed(0)
        probe = watched(loop) if with_probe else None
        loop.run(probe, 120)
        if probe is not None:
            probe.close()
        left.append([*loop.state(), torch.get_rng_state()])
        assert str(np.random.get_state()) and random.random() == 0.8444218515250481
    assert all(torch.equal(a, b) for a, b in zip(*left, strict=True))
    assert not module._global_forward_hooks
