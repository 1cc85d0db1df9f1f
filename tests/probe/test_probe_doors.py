"""What a probe refuses, what it survives, and that it never stops a loop.

Unusual policies, optimisers and arguments: supported, or refused in words.
"""

from __future__ import annotations

import copy
import errno
import pickle
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe import arguments, sampler, updates
from gradlab.probe.parts.implied import Implied
from gradlab.probe.parts.passes import Heard, Twin
from gradlab.storage import journal
from gradlab.storage.journal import Journal
from tests.probe.actor_critics import GAMMA, ROWS, Loop, answers, watched
from tests.probe.small_loops import linear_task, looped, net, probed, vitals
from tests.probe.test_probe_recorder import Walk, collected


def emptied() -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    optimizer.param_groups[0]["params"] = []
    return optimizer


class FullyShardedDataParallel(nn.Linear):
    """By its name: real ones need a process group."""


SPLIT = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
REFUSED: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    ("policy is a function, expected a torch.nn.Module", lambda: {"policy": lambda s: s}),
    ("policy has no trainable parameter", lambda: {"policy": net().requires_grad_(False)}),
    ("policy has lazy parameters", lambda: {"policy": nn.LazyLinear(2)}),
    ("policy has complex parameters: hold their real",
     lambda: {"policy": nn.Linear(2, 2, dtype=torch.complex64)}),
    ("policy has sharded parameters .*probe a whole replica",
     lambda: {"policy": nn.Sequential(FullyShardedDataParallel(2, 2))}),
    (".*mark the closure's backward pass",
     lambda: {"policy": (own := net()), "optimizer": torch.optim.LBFGS(own.parameters())}),
    ("critic_optimizer is a list without step hooks", lambda: {"critic_optimizer": []}),
    (r"critic is given without a task.*critic_optimizer", lambda: {"critic": nn.Linear(3, 1)}),
    ("policy is spread over", lambda: {"policy": SPLIT}),
    ("optimizer is a list without step hooks",
     lambda: {"optimizer": [torch.optim.SGD(net().parameters())] * 2}),
    ("optimizer has no parameters", lambda: {"optimizer": emptied()}),
    ("optimizer has none of the policy's",
     lambda: {"optimizer": torch.optim.SGD(net().parameters())}),
    ("task is 'pendulum'", lambda: {"task": "pendulum"}),
    ("critic is str, expected a torch.nn.Module or",
     lambda: {"task": linear_task(), "critic": "q"}),
    ("critic returns shape", lambda: {"task": linear_task(), "critic": lambda s, a: s}),
    ("policy cannot take inputs of shape", lambda: {"task": linear_task(3)}),
    ("overhead_budget is 0, expected", lambda: {"overhead_budget": 0}),
    ("overhead_budget is 5, expected", lambda: {"overhead_budget": 5}),
    ("log is 3", lambda: {"log": 3}),
]  # fmt: skip


@pytest.mark.parametrize("words, given", REFUSED)
def test_bad_arguments_are_refused_in_one_line(words, given):
    with pytest.raises(InputError, match="^" + words) as caught:
        gradlab.Probe(**({"policy": net()} | given()))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "run.h5").write_text("mine")
    with pytest.raises(InputError, match=r"run\.h5, which holds a run already.*resume=True") as e:
        gradlab.Probe(net(), log=tmp_path / "run.h5")
    assert (tmp_path / "run.h5").read_text() == "mine" and "--" not in str(e.value)


def failing(row: dict[str, Any]) -> None:
    raise KeyError("the user's logger")


@pytest.mark.parametrize("strict", [False, True])
def test_a_probe_that_fails_warns_once_and_goes(strict):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=failing, overhead_budget=1.0, clock=lambda: 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if strict else "always")
        looped(policy, optimizer, probe, 300)
    assert probe.off and not policy._forward_hooks and not optimizer._optimizer_step_post_hooks
    if not strict:
        assert [str(each.message) for each in caught] == [
            "gradlab's probe is off; training goes on (KeyError: \"the user's logger\")"
        ]


def test_sparse_gradients_are_told_and_the_loop_goes_on():
    policy = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer)
    with pytest.warns(RuntimeWarning, match="gradient is sparse.*say sparse=False to the layer"):
        looped(policy, optimizer, probe, 5, lambda step: policy(torch.tensor([1, 2])).sum())
    assert probe.off


def test_a_measurement_that_fails_leaves_the_rest_at_work(monkeypatch):
    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("no measurement today")

    monkeypatch.setattr(sampler, "measured", broken)
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows, task=linear_task())
    with pytest.warns(RuntimeWarning, match="no measurement today") as caught:
        looped(policy, optimizer, probe, 120)
    assert len(caught) == 1 and not probe.off
    assert any("vitals/grad_norm" in row for row in rows)


@pytest.mark.slow
def test_a_compiled_policy_is_watched_and_one_compiled_later_is_left_alone():
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    policy = torch.compile(nn.Sequential(nn.Linear(2, 1), nn.Tanh()), backend="eager")
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows, task=linear_task())
    looped(policy, optimizer, probe, 100)
    assert not probe.off
    assert any("vitals/saturation/0" in row for row in rows)
    assert any("measured/lyapunov" in row for row in rows)
    original = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
    probe = gradlab.Probe(original, log=rows.append, overhead_budget=1.0, clock=lambda: 0.0)
    later = torch.compile(original, backend="eager", fullgraph=True)
    looped(later, torch.optim.SGD(original.parameters(), 1e-3), probe, 5)
    assert not probe.off


def test_functional_transforms_pass_the_hook_unseen():
    policy = net()
    probe = gradlab.Probe(policy)
    jacobian = torch.func.vmap(torch.func.jacrev(policy))(torch.randn(3, 2))
    assert jacobian.shape == (3, 1, 2)
    assert probe._updates.watch.inputs == () and probe._updates.watch.error is None


def test_other_processes_of_a_group_stay_silent(monkeypatch):
    monkeypatch.setattr(arguments, "spectator", lambda: True)
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=rows.append)
    looped(policy, optimizer, probe, 120)
    assert rows == [] and not policy._forward_hooks


# A probe that fails beside other people's hooks: the loop goes on, and nobody's hook is lost.


def trained(*given: dict[str, Any]) -> list[Tensor]:
    """θ and a moving average of it, which a hook behind these probes' keeps."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    probes = [gradlab.Probe(policy, optimizer, **each) for each in given]
    average = copy.deepcopy(policy)

    def smooth(*_: Any) -> None:
        for kept, p in zip(average.parameters(), policy.parameters(), strict=True):
            kept.data.lerp_(p.detach(), 0.01)

    optimizer.register_step_post_hook(smooth)
    for step in range(130):
        optimizer.zero_grad()
        loss = policy(torch.randn(8, 2)).square().sum()
        marks = [probe(step) for probe in probes]
        for mark in marks:
            mark.__enter__()
        loss.backward()
        for mark in reversed(marks):
            mark.__exit__(None, None, None)
        optimizer.step()
    for probe in probes:
        probe.close()
    assert len(optimizer._optimizer_step_post_hooks) == 1 and not policy._forward_hooks
    return [p.detach() for module in (policy, average) for p in module.parameters()]


def broken(_: Any) -> None:
    raise OSError("no space")


def late_clock(calls: int) -> Callable[[], float]:
    left = iter(range(calls))

    def clock() -> float:
        if next(left, None) is None:
            raise RuntimeError("no time")
        return 0.0

    return clock


def same(found: list[Tensor]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # where warnings are errors, too
        bare = trained()
    return all(torch.equal(a, b) for a, b in zip(bare, found, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_logs_that_fail_one_after_the_other(count):
    with pytest.warns(RuntimeWarning, match="training goes on") as caught:
        found = trained(*[{"log": broken}] * count)
    assert same(found) and len(caught) == count


@pytest.mark.parametrize("calls", [3, 40, 400])
def test_a_clock_that_fails(calls):
    with pytest.warns(RuntimeWarning, match="no time"):
        found = trained({"clock": late_clock(calls)})
    assert same(found)


def test_an_interrupt_in_the_middle_of_a_probe_is_the_users():
    pressed: list[bool] = []

    def interrupted(_: Any) -> None:
        if not pressed:  # once: the probe is left open, and the process goes on
            pressed.append(True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained({"log": interrupted})


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


def run(factor: float, rests: bool = False, **left_out: Any) -> tuple[dict[str, Any], list[str]]:
    """The check's newest row, and what its alarms say; `rests`: the second critic is not stepped,
    and far below all returns."""
    loop, written = Loop(), []
    stepped = loop.critics[:1] if rests else loop.critics
    loop.critic_optimizer = torch.optim.Adam(stepped.parameters(), 4e-3)
    if rests:
        with torch.no_grad():
            [*loop.critics[1].parameters()][-1].sub_(20)
    probe = watched(loop, log=written.append)
    if rests:
        probe.networks(critic=loop.critics, target=loop.targets)
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

    loop.run(probe, 420 if factor else 1050, hand_over)
    probe.close()
    kind = "critic learns another reward"
    return answers(written)[CHECK], [a.message for a in probe.alarms if a.kind == kind]


class Wide(gymnasium.ObservationWrapper):
    """In another unit."""

    def observation(self, observation: Any) -> Any:
        return 50 - 30 * observation


class Normaliser:
    """Running mean and deviation: no module, as many loops have it."""

    def __init__(self) -> None:
        self.mean, self.deviation = torch.zeros(2), torch.ones(2)

    def __call__(self, state: Tensor) -> Tensor:
        return (state - self.mean) / self.deviation

    def update(self, state: Tensor) -> None:
        self.mean = self.mean + 0.01 * (state.mean(0) - self.mean)
        self.deviation = self.deviation + 0.01 * (state.std(0) - self.deviation)


class OfRaw(nn.Module):
    """Q of observations as they are recorded: called by the loop, or made of what it calls."""

    def __init__(self, critic: nn.Module, norm: Normaliser) -> None:
        super().__init__()
        self.critic, self.norm = critic, norm

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.critic(self.norm(state), action)


def test_a_copy_has_a_normalisers_newest_statistics():
    norm = Normaliser()
    critic = OfRaw(Loop().critics[0], norm)
    copy, (state, action) = Twin(critic), torch.randn(2, ROWS, 2)
    norm.update(state)
    assert torch.equal(copy.now().copy(state, action[:, :1]), critic(state, action[:, :1]))


@pytest.mark.slow
@pytest.mark.parametrize("sign, seed", [(1, 0), (1, 1), (1, 2), (-1, 0)])
@pytest.mark.parametrize("inside", ["", "declared", "called"])
def test_a_critic_of_normalised_observations_is_read_where_the_loop_calls_it(inside, sign, seed):
    """It was asked at the observations as handed over, and a sound loop accused; so it was at a
    normaliser's first statistics, inside of a module."""
    loop, norm, written = Loop(rate=3e-3), Normaliser(), []
    torch.manual_seed(seed)
    of_raw = nn.ModuleList(OfRaw(critic, norm) for critic in loop.critics)
    loop.critic_optimizer = torch.optim.Adam(loop.critics.parameters(), 4e-3)
    probe = watched(loop, log=written.append)
    stored = Stored(sign, probe.record(Wide(Walk())))
    if inside:
        probe.networks(critic=of_raw, target=[OfRaw(each, norm) for each in loop.targets])
    critics, handed = loop.critics, stored

    def batch() -> dict[str, Tensor]:
        rows = handed.batch()
        norm.update(rows["state"])
        raw = rows["state"]
        return rows | {"raw": raw, "state": norm(raw), "next": norm(rows["next"])}

    def fit_critic(rows: dict[str, Tensor], goal: Tensor) -> None:
        called, state = (of_raw, "raw") if inside == "called" else (critics, "state")
        loss = sum(((each(rows[state], rows["action"]) - goal) ** 2).mean() for each in called)
        loop.critic_optimizer.zero_grad()
        loss.backward()
        loop.critic_optimizer.step()

    loop.batch, loop.fit_critic = batch, fit_critic  # type: ignore[method-assign]
    loop.run(probe, 420, lambda rows, goal, value: probe.batch(
        observation=rows["raw"], action=rows["action"], reward=rows["paid"],
        terminated=rows["ended"], next_value=value, discount=GAMMA,
    ))  # fmt: skip
    probe.close()
    found = answers(written)[CHECK]
    assert found["state"] == ("sound" if sign > 0 else "fault"), found["proof"]
    assert 0.5 < sign * found["value"] < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("factor, words", [(1, ""), (0.1, ""), (-1, "opposite"), (0, "nothing")])
def test_a_critic_that_learns_another_reward_is_told(factor, words):
    found, told = run(factor)
    assert found["state"] == ("fault" if words else "sound")
    assert bool(told) == bool(words) and all(words in each for each in told)
    assert (found["value"] > 0.3) if not words else (found["value"] < 0.2)


@pytest.mark.slow
def test_a_critic_that_rests_is_not_one_that_learns_another_reward():
    found, told = run(1, rests=True)
    assert found["state"] == "sound" and not told, found["proof"]


class Says(nn.Module):
    """A critic that gives a function of what it is given."""

    def __init__(self, says: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.says, self.rate, self.layers = says, nn.Parameter(torch.ones(1)), nn.ModuleList(layers)

    def forward(self, *given: Tensor) -> Tensor:
        return self.says(*given)


LOGITS = torch.linspace(-9, 9, 51)
CRITICS: dict[str, tuple[list[nn.Module], str]] = {  # the action is y, the target
    "values": ([Says(lambda s, y: y)], "sound"),
    "another reward's": ([Says(lambda s, y: y - 2 * s[:, :1])], "fault"),
    "not learnt yet": ([Says(lambda s, y: y - 1.05 * s[:, :1])], "waiting"),
    "the opposite": ([Says(lambda s, y: -y)], "open"),  # of next values, too, as if they diverged
    "another reward's, twice": ([Says(lambda s, y: (y - 2 * s[:, :1]) * torch.ones(2))], "fault"),
    "quantiles": ([Says(lambda s, y: y + torch.linspace(-3, 3, 25))], "sound"),
    "logits": ([Says(lambda s, y: -((y - LOGITS) ** 2) / 50)], "off"),
    "normalised": ([Says(lambda s, y: (y - 20) / 5)], "off"),
    "by a whole batch": ([Says(lambda s, y: -y, nn.BatchNorm1d(1))], "off"),
    "of other next values": ([Says(lambda s, y: y + 2 * s[:, :1])], "open"),
    "of states beside": ([nn.Linear(2, 1), Says(lambda s, y: y)], "sound"),
}


@pytest.mark.parametrize("kind", CRITICS)
def test_what_a_critic_has_learnt_is_read_from_values_alone(kind):
    """Of a critic of another form the check says what to declare; a categorical critic in a sound
    loop was accused of the opposite of the reward."""
    critics, state = CRITICS[kind]
    check, given = Implied(), {}
    for update in range(100, 600, 10):
        reward, v = 1 + 0.5 * torch.randn(ROWS), 20 + 5 * torch.randn(ROWS)
        given = {"terminated": torch.zeros(ROWS), "next_value": v}
        given["observation"] = reward[:, None].expand(-1, 2)
        given["action"] = (reward + GAMMA * v)[:, None]
        found = SimpleNamespace(at=np.arange(ROWS), paid=reward.numpy)
        check.begin()
        check.take(found, given, GAMMA, critics, update)
        calls = []
        for each in critics:
            args = (given["observation"], given["action"])[
                : 1 if isinstance(each, nn.Linear) else 2
            ]
            calls.append(Heard(each, args, (each(*args).detach(),), False))
        check.hear(calls, critics)
    assert check.answer().state == state
    assert state != "off" or "module that gives Q(s, a)" in check.answer().proof


@pytest.mark.filterwarnings("error")
def test_a_single_recorded_row_of_a_batch_is_read_without_a_warning():
    """As from the empty part of a replay; numpy warned of a correlation of one row."""
    check, critic = Implied(), Says(lambda s, y: y)
    state, action = torch.randn(ROWS, 2), torch.randn(ROWS, 1)
    given = {"terminated": torch.zeros(ROWS), "next_value": torch.zeros(ROWS)}
    given |= {"observation": state, "action": action}
    found = SimpleNamespace(at=np.array([3]), paid=action[3].numpy)
    check.take(found, given, GAMMA, [critic], 200)
    check.hear([Heard(critic, (state, action), (action,), False)], [critic])
    assert check._share == pytest.approx(1, abs=1e-5)


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
    assert rewards["state"] == "off" and "does not hand over reward" in rewards["proof"]
