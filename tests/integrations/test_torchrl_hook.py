"""TorchRL's trainers with the hook: the same bits, the right network, what is refused."""

from typing import Any

import pytest
import torch

from gradlab.errors import InputError
from gradlab.storage import journal
from tests.integrations.bits import integrator_task, often, same, tables

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
ALWAYS: dict[str, Any] = {"every": 50}
KINDS = pytest.mark.parametrize("kind", ["DDPG", "TD3", "SAC"])


SLOW = [pytest.param(kind, 1040, marks=pytest.mark.slow) for kind in ("DDPG", "SAC")]


@pytest.mark.parametrize(("kind", "updates"), [("DDPG", 240), *SLOW])
def test_a_trainer_learns_the_same_bits_with_a_hook(trainers, kind, updates, tmp_path):
    often_enough = often(updates)
    hook = trainers.ProbeHook(tmp_path / "run.h5", integrator_task(), **often_enough)
    assert same(trainers.run(kind, None, updates), trainers.run(kind, hook, updates))
    groups = journal.read(tmp_path / "run.h5").groups
    assert groups["vitals"]["update"].values[-1] >= updates
    assert len(groups["successive"]["update"].values) >= 1
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


@pytest.mark.parametrize("kind", ["TD3", "SAC"])
def test_rows_tell_of_gradients_before_clipping_saturation_and_frames(trainers, kind):
    rows: list[dict[str, Any]] = []
    trainers.run(kind, trainers.ProbeHook(rows.append, **ALWAYS), 120)
    vitals = next(row for row in rows if "vitals/looked" in row)
    assert vitals["vitals/marked"] == 1 and vitals["vitals/grad_norm"] > 1e-3
    assert 0 <= vitals["vitals/saturation/0"] < 1 and vitals["update"] == 50
    assert vitals["step"] == 40 and tables(rows)["successive"] >= 1


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


def test_a_loss_module_is_asked_as_it_is_shipped(trainers):
    hook = trainers.ProbeHook()
    trainers.run("DDPG", hook, 60)
    assert hook.probe.alarms == []
    found = {each.code: each.finding.decision for each in hook.probe._log._held.values()}
    laws = ("critic.reward", "critic.discount", "critic.mask", "critic.detached", "actor.sign")
    assert {found[law] for law in laws} == {"pass"}
