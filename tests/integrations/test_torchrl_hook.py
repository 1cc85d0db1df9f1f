"""TorchRL's trainers with the hook: the same bits, the right network, what is refused."""

import sys
import warnings
from typing import Any

import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.storage import journal
from tests.integrations.bits import integrator_task, often, same, seeded, tables, trained

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
ALWAYS: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}
KINDS = pytest.mark.parametrize("kind", ["DDPG", "TD3", "SAC"])


SLOW = [pytest.param(kind, 1040, marks=pytest.mark.slow) for kind in ("DDPG", "SAC")]


@pytest.mark.parametrize(("kind", "updates"), [("DDPG", 240), *SLOW])
def test_a_trainer_learns_the_same_bits_with_a_hook(trainers, kind, updates, tmp_path, monkeypatch):
    often_enough = often(monkeypatch, updates // 4)
    hook = trainers.ProbeHook(tmp_path / "run.h5", integrator_task(), **often_enough)
    assert same(trainers.run(kind, None, updates), trainers.run(kind, hook, updates))
    groups = journal.read(tmp_path / "run.h5").groups
    assert groups["vitals"]["update"].values[-1] >= updates
    assert len(groups["successive"]["update"].values) >= updates // 100
    assert len(groups["measured"]["update"].values) >= 4


@KINDS
def test_policy_and_critic_are_those_of_the_loss(kind, trainers):
    trainer = trainers.trainer_of(kind)
    trainer.train()
    loss, parts = trainer.loss_module, trainers.parts_of(trainer)
    s, a = torch.randn(5, 2), torch.rand(5, 1) * 2 - 1
    assert torch.equal(parts.policy(s), trainers.acted(loss, s))
    assert torch.allclose(parts.critic(s, a), trainers.valued(kind, loss, s, a), atol=1e-6)
    assert parts.critic_alone
    stepped = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in parts.policy.parameters()} <= stepped


@KINDS
def test_rows_tell_of_gradients_before_clipping_saturation_and_frames(trainers, kind):
    rows: list[dict[str, Any]] = []
    trainers.run(kind, trainers.ProbeHook(rows.append, **ALWAYS), 120)
    vitals = next(row for row in rows if "vitals/looked" in row)
    assert vitals["vitals/marked"] == 1 and vitals["vitals/grad_norm"] > 1e-3
    assert 0 <= vitals["vitals/saturation/0"] < 1 and vitals["update"] == 100
    assert vitals["step"] == 60 and tables(rows)["successive"] >= 1


@KINDS
def test_the_critics_loss_stands_beside_the_gradients(trainers, kind):
    rows: list[dict[str, Any]] = []
    trainer = trainers.trainer_of(kind)
    trainers.ProbeHook(log=rows.append, **ALWAYS).register(trainer)
    trainer.train()
    losses = [row["vitals/critic_loss"] for row in rows if "vitals/critic_loss" in row]
    assert losses and all(loss > 0 for loss in losses)


def test_headlines_reach_the_trainers_logger(trainers):
    trainer, hook = trainers.trainer_of("DDPG", 120), trainers.ProbeHook(**ALWAYS)
    hook.register(trainer)
    trainer.train()
    assert trainer._log_dict["gradlab/grad_norm"] and hook.probe is not None and hook.probe.off
    assert not trainer.optimizer._optimizer_step_post_hooks
    assert not any(m._forward_hooks for m in trainer.loss_module.actor_network.modules())


def test_a_trainer_is_saved_and_loaded_with_a_hook(trainers):
    trainer, other = trainers.trainer_of("DDPG"), trainers.trainer_of("DDPG")
    trainers.ProbeHook().register(trainer), trainers.ProbeHook().register(other)
    trainer.optim_steps(trainer.stored.extend(next(iter(trainer.collector))))
    assert trainer.state_dict()["gradlab_probe"] == {}
    other.load_state_dict(trainer.state_dict())
    assert same(trained(other.loss_module)[0][0], trained(trainer.loss_module)[0][0])


def test_a_step_is_held_against_the_simulator(trainers):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        trainers.run("DDPG", trainers.ProbeHook(task=integrator_task()), 40)
    with pytest.warns(RuntimeWarning, match="is not the loop's environment"):
        trainers.run("DDPG", trainers.ProbeHook(task=integrator_task(1.5)), 40)


def test_the_losss_discount_is_the_tasks(trainers):
    hook = trainers.ProbeHook(task=integrator_task())
    trainer = trainers.trainer_of("DDPG")
    trainer.loss_module.make_value_estimator(gamma=0.7)
    hook.register(trainer)
    trainer.train()
    assert hook.probe._updates.measurements.subject(0)[0].task.discount == pytest.approx(0.7)


@pytest.mark.parametrize("words, trainer", [
    ("trainer's loss is a DQNLoss without an actor_network", "without_an_actor"),
    ("trainer has no optimizer that steps its loss's actor_network", "without_an_optimizer"),
    ("task is given, but the actor sees observation, pixels", "with_two_inputs"),
])  # fmt: skip
def test_what_cannot_be_watched_is_said(trainers, words, trainer):
    made = getattr(trainers, trainer)()
    trainers.ProbeHook(task=integrator_task()).register(made)
    with pytest.raises(InputError, match="^" + words):
        made.train()


def test_a_hook_has_one_trainer_and_that_learns_here(trainers):
    hook, trainer = trainers.ProbeHook(), trainers.trainer_of("DDPG")
    hook.register(trainer)
    with pytest.raises(InputError, match=r"^hook is registered already"):
        hook.register(trainers.trainer_of("DDPG"))
    trainer.learner_backend = "ray"
    with pytest.raises(InputError, match=r"^trainer's learner runs in other processes"):
        trainers.ProbeHook().register(trainer)


def test_a_plain_loop_marks_its_backward_pass(trainers):
    """TorchRL without a Trainer: two lines, as in any other loop."""
    seeded()
    loss, rows = trainers.loss_of("DDPG", trainers.action_spec()), []
    optimizer = torch.optim.Adam(loss.actor_network.parameters(), 1e-3)
    probe = gradlab.Probe(loss.actor_network, optimizer, log=rows.append, **ALWAYS)
    for step in range(100):
        batch = trainers.observed(torch.randn(8, 2))
        with probe(step):
            loss.loss_actor(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    found = tables(rows)
    assert found.pop("checks") and found == {"vitals": 1, "successive": 2} and not probe.off


def test_without_the_package_the_remedy_is_said(monkeypatch):
    for name in [k for k in sys.modules if k.startswith("gradlab.integrations.torchrl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchrl.trainers", None)
    with pytest.raises(InputError, match=r"^torchrl is not installed: pip install 'gradlab\["):
        import gradlab.integrations.torchrl  # noqa: F401
