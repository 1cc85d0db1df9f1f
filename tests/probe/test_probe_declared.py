"""What a loop declares: planted faults are named first, sound loops pass, no bit is changed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe import declared
from gradlab.verdicts.probe.findings import failures
from tests.probe.declared_loops import Loop, Soft

NAMED = {
    "policy at rest": "moved_still",
    "critic in the actor's optimiser": "moved_by_another",
    "one of twins in no optimiser": "moved_still",
    "twins of equal weights": "moved_twins_equal",
    "frozen targets": "moved_target_frozen",
    "one frozen target": "moved_target_frozen",
    "frozen target of the policy": "moved_target_frozen",
    "swapped tau": "moved_target_fast",
    "copied at every step": "moved_target_fast",
    "crossed targets": "moved_target_astray",
    "target into network": "moved_between",
    "outside of steps": "moved_between",
    "gradients add up": "moved_uncleared",
    "actor's gradients in the critic": "moved_mixed",
    "sign of the actor's loss": "actor.sign.",
    "no mask": "critic.mask.",
    "discount twice": "critic.discount.",
    "reward of the wrong sign": "critic.reward.",
    "pairs": "critic.rows.",
    "largest of twins": "critic.twins.",
    "a lost reward": "nan.column",
}


@pytest.mark.parametrize("fault", NAMED)
def test_a_planted_fault_is_named_first(fault, tmp_path):
    loop = Loop(fault)
    probe = loop.probed(log=tmp_path / "run.h5", every=5)
    loop.run(probe, 260 if "policy" in fault else 130 if "frozen" in fault else 45)
    probe.close()
    first = failures(gradlab.load(tmp_path / "run.h5"))[0]
    assert first.code.startswith(NAMED[fault]), [x.code for x in probe.alarms]


SOFT = {
    "no correction of the tanh": "actor.density.",
    "no entropy in the target": "critic.entropy.",
}


@pytest.mark.parametrize("fault", SOFT)
def test_a_planted_fault_of_a_soft_loop_is_named_first(fault, tmp_path):
    loop = Soft(fault)
    probe = loop.probed(log=tmp_path / "run.h5")
    loop.run(probe, 30)
    probe.close()
    first = failures(gradlab.load(tmp_path / "run.h5"))[0]
    assert first.code.startswith(SOFT[fault]), [x.code for x in probe.alarms]


@pytest.mark.parametrize("kind", [Loop, Soft])
def test_a_sound_loop_fails_nothing_and_computes_the_same_bits(kind, tmp_path):
    bare, loop = kind(), kind()
    torch.manual_seed(1)
    bare.run(None, 60)
    probe = loop.probed(log=tmp_path / "run.h5", every=5)
    torch.manual_seed(1)
    loop.run(probe, 60)
    assert all(torch.equal(a, b) for a, b in zip(bare.state(), loop.state(), strict=True))
    probe.close()
    assert probe.alarms == [] and not probe._log.failed
    told = {each.code: each.finding.decision for each in gradlab.load(tmp_path / "run.h5").reported}
    assert told["moved_own"] == told["critic.reward"] == told["actor.sign"] == "pass"
    assert told["moved_targets"] == "pass"
    hooks = [m._forward_hooks for m in (loop.policy, *loop.critics)]
    assert not any(hooks) and not loop.fits._optimizer_step_post_hooks
    held = weakref.ref(loop.policy)
    del loop, bare, hooks, probe
    gc.collect()
    assert held() is None


class Walk(gymnasium.Env):  # type: ignore[type-arg]
    """A point that is pushed, paid −|x|, cut after 20 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.age = self.np_random.normal(size=2).astype(np.float32), 0
        return self.x.copy(), {}

    def step(self, action: Any) -> Any:
        noise = self.np_random.normal(size=2)
        self.x = (0.9 * self.x + 0.1 * np.float32(action) + 0.1 * noise).astype(np.float32)
        self.age += 1
        return self.x.copy(), -float(np.abs(self.x).sum()), False, self.age >= 20, {}


class Recorded(Loop):
    """The loop on rows of an environment, as it stores them."""

    def start(self, probe: gradlab.Probe | None) -> None:
        env: Any = Walk()
        env = env if probe is None else probe.record(env, discount=0.9)
        rng, rows = np.random.default_rng(0), []
        seen, _ = env.reset(seed=0)
        for _ in range(400):
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            after, paid, ended, cut, _ = env.step(action)
            stored = -paid if self.fault == "stored rewards negated" else paid
            rows.append((seen, action, [stored], after, [float(ended)]))
            seen = env.reset()[0] if ended or cut else after
        self.rows = [torch.as_tensor(np.array(x), dtype=torch.float32) for x in zip(*rows)]  # noqa: B905

    def batch(self) -> dict[str, Tensor]:
        at = torch.randint(len(self.rows[0]), (32,))
        names = ("observation", "action", "reward", "next_observation", "terminated")
        return {name: column[at] for name, column in zip(names, self.rows, strict=True)}


@pytest.mark.parametrize("fault", ["", "stored rewards negated"])
def test_stored_rows_are_held_against_the_recorded_ones(fault):
    loop = Recorded(fault)
    probe = loop.probed()
    loop.start(probe)
    loop.run(probe, 30)
    probe.close()
    assert [each.code for each in probe.alarms] == (["stored_negated"] if fault else [])


def test_training_episodes_are_those_of_the_recorded_environment():
    loop, rows = Recorded(), []
    probe = loop.probed(log=rows.append)
    loop.start(probe)
    loop.run(probe, 3)
    probe.close()
    found = [row["episodes/value"] for row in rows if "episodes/value" in row]
    bare, expected, total = Recorded(), [], 0.0
    bare.start(None)
    for k, paid in enumerate(bare.rows[2][:, 0].tolist()):
        total += paid
        if k % 20 == 19:
            expected.append(total)
            total = 0.0
    assert found == pytest.approx(expected, rel=1e-5) and len(found) == 20


def test_values_beyond_what_rewards_allow_are_told_of_declared_critics():
    """Q = +186 where all rewards are negative: whatever the cause."""
    loop = Recorded()
    probe = loop.probed()
    loop.start(probe)
    for _ in range(40):
        loop.run(probe, 1)
        with torch.no_grad():
            for critic in loop.critics:
                critic.body[2].bias.add_(5.0)
    probe.close()
    assert "stored_values_beyond" in {each.code for each in probe.alarms}


def test_what_cannot_be_declared_is_refused_in_words():
    loop = Loop()
    probe = gradlab.Probe(loop.policy, loop.moves)
    for words, declare in (
        ("networks.*critic.*is a str, expected a torch.nn.Module", {"critic": ["q"]}),
        ("networks.*target.*has no network of its shapes", {"target": nn.Linear(2, 2)}),
        ("optimizers.*critic.* is a str without step hooks", {"optimizers": {"critic": "adam"}}),
    ):
        with pytest.raises(InputError, match=words):
            probe.networks(**declare)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"losses has gama, expected any of .*discount"):
        probe.losses(gama=0.9)
    with pytest.raises(InputError, match="actor is 3, expected a function"):
        probe.losses(actor=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="env is a object, expected gymnasium"):
        probe.record(object())
    probe.record(Walk())
    with pytest.raises(InputError, match="recorded already"):
        probe.record(Walk())
    loop.run(probe, 3)
    assert not probe.off


@pytest.mark.parametrize("rests", [True, False])
def test_a_temperature_is_the_tensor_that_its_optimiser_steps(rests):
    loop, log_alpha = Loop(), torch.tensor(-1.6, requires_grad=True)
    adam = torch.optim.Adam([log_alpha], 1e-3)
    probe = loop.probed()
    with pytest.raises(InputError, match=r"networks.*temperature.*the tensor that an optimiser"):
        probe.networks(temperature=log_alpha.exp())
    probe.networks(temperature=log_alpha, optimizers={"temperature": adam})
    for _ in range(50):
        loop.run(probe, 1)
        log_alpha.grad = None if rests else torch.ones(())
        adam.step()
    still = {each.finding.subject for each in probe.alarms if each.code == "moved_still"}
    assert not probe.off and still == ({"temperature"} if rests else set())


@pytest.mark.parametrize("kind", ["raises", "dict", "column"])
def test_a_loss_that_cannot_be_asked_ends_nothing(kind):
    def loss(batch: dict[str, Tensor]) -> Any:
        if kind == "raises":
            raise ValueError("no such table")
        return {"a": "words"} if kind == "dict" else batch["weights"].sum()

    loop = Loop()
    probe = loop.probed()
    probe.losses(critic=loss)
    loop.run(probe, 30)
    assert not probe.off and probe.alarms == []
    (held,) = [each for each in probe._log._held.values() if each.code == "loss not asked"]
    assert held.finding.decision == "undecided"


def test_losses_are_asked_after_20_and_200_updates_then_at_ten_times_as_many(monkeypatch):
    loop, asked = Loop(), []
    monkeypatch.setattr(declared.LoopChecks, "_ask", lambda self, _: asked.append(self.loop.count))
    loop.run(probe := loop.probed(every=10), 230)
    probe._loop.count = 1999
    loop.run(probe, 30)
    assert asked == [20, 209, 2009]
