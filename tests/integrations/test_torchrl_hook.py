"""TorchRL's trainers with the hook: the same bits, the right network, what is refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymWrapper
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    MLP,
    AdditiveGaussianModule,
    ProbabilisticActor,
    QValueActor,
    TanhModule,
    TanhNormal,
    ValueOperator,
)
from torchrl.objectives import DDPGLoss, DQNLoss, SACLoss, SoftUpdate, TD3Loss
from torchrl.trainers import Trainer
from torchrl.trainers.trainers import ReplayBufferTrainer, TargetNetUpdaterHook

import gradlab
from gradlab.errors import InputError
from gradlab.integrations.torchrl import ProbeHook
from gradlab.integrations.torchrl_models import parts_of
from gradlab.storage import journal
from tests.integrations.bits import (
    Integrator,
    integrator_task,
    often,
    same,
    seeded,
    streams,
    tables,
    trained,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
ALWAYS: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}


def deterministic(spec: Any) -> Any:
    """tanh behind the network, as TorchRL's own examples of DDPG and TD3 have it."""
    net = TensorDictModule(MLP(2, 1, num_cells=[8]), ["observation"], ["param"])
    squash = TanhModule(in_keys=["param"], out_keys=["action"], spec=spec)
    return TensorDictSequential(net, squash)


def stochastic(spec: Any) -> Any:
    net = nn.Sequential(MLP(2, 2, num_cells=[8]), NormalParamExtractor())
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
    )


def loss_of(kind: Any, spec: Any) -> Any:
    actor = stochastic(spec) if kind is SACLoss else deterministic(spec)
    critic = ValueOperator(MLP(3, 1, num_cells=[8]), in_keys=["observation", "action"])
    named = {} if kind is DDPGLoss else {"action_spec": spec}
    loss = kind(actor, critic, **named)
    loss.make_value_estimator(gamma=0.5)
    return loss


def trainer_of(kind: Any, updates: int = 100) -> Any:
    seeded()
    world = Integrator()
    environment = GymWrapper(world)
    environment.set_seed(0)  # the collector resets before the trainer seeds it
    spec = environment.action_spec
    loss = loss_of(kind, spec)
    noise = AdditiveGaussianModule(spec=spec, sigma_init=0.3, annealing_num_steps=10)
    behaviour = TensorDictSequential(loss.actor_network, noise)
    collector = Collector(environment, behaviour, frames_per_batch=20, total_frames=10**6)
    trainer = Trainer(
        collector=collector, total_frames=updates // 2, frame_skip=1, loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), 1e-3), optim_steps_per_batch=40,
        clip_norm=1e-4, progress_bar=False, seed=0, log_interval=1,
    )  # fmt: skip
    storage = TensorDictReplayBuffer(storage=LazyTensorStorage(600), batch_size=8)
    trainer.world = world
    trainer.stored = ReplayBufferTrainer(storage, flatten_tensordicts=True)
    trainer.stored.register(trainer)
    TargetNetUpdaterHook(SoftUpdate(loss, eps=0.99)).register(trainer, "targets")
    return trainer


def left(trainer: Any) -> dict[str, Any]:
    stored = trainer.stored.replay_buffer[:]
    return {
        "modules": trained(trainer.loss_module),
        "actor": trained(trainer.loss_module.actor_network),
        "optimizer": trainer.optimizer.state_dict(),
        "stored": stored.flatten_keys(".").to_dict(),
        "environment": [trainer.world.state, trainer.world.np_random.bit_generator.state],
        "streams": streams(),
        "counted": [trainer.collected_frames, trainer._optim_count],
    }


def run(kind: Any, hook: ProbeHook | None, updates: int) -> dict[str, Any]:
    trainer = trainer_of(kind, updates)
    if hook is not None:
        hook.register(trainer)
    trainer.train()
    return left(trainer)


SLOW = [pytest.param(kind, 1040, marks=pytest.mark.slow) for kind in (DDPGLoss, SACLoss)]


@pytest.mark.parametrize(("kind", "updates"), [(DDPGLoss, 240), *SLOW])
def test_a_trainer_learns_the_same_bits_with_a_hook(
    kind: Any, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often_enough = often(monkeypatch, updates // 4)
    hook = ProbeHook(tmp_path / "run.h5", integrator_task(), **often_enough)
    assert same(run(kind, None, updates), run(kind, hook, updates))
    groups = journal.read(tmp_path / "run.h5").groups
    assert groups["vitals"]["update"].values[-1] >= updates
    assert len(groups["successive"]["update"].values) >= updates // 100
    assert len(groups["measured"]["update"].values) >= 4


@pytest.mark.parametrize("kind", [DDPGLoss, TD3Loss, SACLoss])
def test_policy_and_critic_are_those_of_the_loss(kind: Any) -> None:
    trainer = trainer_of(kind)
    trainer.train()
    loss, parts = trainer.loss_module, parts_of(trainer)
    s, a = torch.randn(5, 2), torch.rand(5, 1) * 2 - 1
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        acted = loss.actor_network(TensorDict({"observation": s}, [5]))["action"]
        assert torch.equal(parts.policy(s), acted)
        given = TensorDict({"observation": s, "action": a}, [5])
        if kind is DDPGLoss:
            expected = loss.value_network(given)["state_action_value"][:, 0]
        else:
            vmapped = getattr(loss, "_vmap_qvalue_network00", None) or loss._vmap_qnetworkN0
            both = vmapped(given.expand(2, 5) if kind is TD3Loss else given,
                           loss.qvalue_network_params)["state_action_value"][..., 0]  # fmt: skip
            expected = both[0] if kind is TD3Loss else both.amin(0)
        assert torch.allclose(parts.critic(s, a), expected, atol=1e-6)
    stepped = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in parts.policy.parameters()} <= stepped


@pytest.mark.parametrize("kind", [DDPGLoss, TD3Loss, SACLoss])
def test_rows_tell_of_gradients_before_clipping_saturation_and_frames(kind: Any) -> None:
    rows: list[dict[str, Any]] = []
    run(kind, ProbeHook(rows.append, **ALWAYS), 120)
    vitals = next(row for row in rows if "vitals/looked" in row)
    assert vitals["vitals/marked"] == 1 and vitals["vitals/grad_norm"] > 1e-3
    assert 0 <= vitals["vitals/saturation/0"] < 1 and vitals["update"] == 100
    assert vitals["step"] == 60 and tables(rows)["successive"] >= 1


@pytest.mark.parametrize("kind", [DDPGLoss, TD3Loss, SACLoss])
def test_the_critics_loss_stands_beside_the_gradients(kind: Any) -> None:
    rows: list[dict[str, Any]] = []
    trainer = trainer_of(kind)
    ProbeHook(log=rows.append, **ALWAYS).register(trainer)
    trainer.train()
    losses = [row["vitals/critic_loss"] for row in rows if "vitals/critic_loss" in row]
    assert losses and all(loss > 0 for loss in losses)


def test_headlines_reach_the_trainers_logger() -> None:
    trainer, hook = trainer_of(DDPGLoss, 120), ProbeHook(**ALWAYS)
    hook.register(trainer)
    trainer.train()
    assert trainer._log_dict["gradlab/grad_norm"] and hook.probe is not None and hook.probe.off
    assert not trainer.optimizer._optimizer_step_post_hooks
    assert not any(m._forward_hooks for m in trainer.loss_module.actor_network.modules())


def test_a_trainer_is_saved_and_loaded_with_a_hook() -> None:
    trainer, other = trainer_of(DDPGLoss), trainer_of(DDPGLoss)
    ProbeHook().register(trainer), ProbeHook().register(other)
    trainer.optim_steps(trainer.stored.extend(next(iter(trainer.collector))))
    assert trainer.state_dict()["gradlab_probe"] == {}
    other.load_state_dict(trainer.state_dict())
    assert same(trained(other.loss_module)[0][0], trained(trainer.loss_module)[0][0])


def test_a_step_is_held_against_the_simulator() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run(DDPGLoss, ProbeHook(task=integrator_task()), 40)
    with pytest.warns(RuntimeWarning, match="is not the loop's environment"):
        run(DDPGLoss, ProbeHook(task=integrator_task(1.5)), 40)


def test_the_losss_discount_is_the_tasks() -> None:
    hook = ProbeHook(task=integrator_task())
    trainer = trainer_of(DDPGLoss)
    trainer.loss_module.make_value_estimator(gamma=0.7)
    hook.register(trainer)
    trainer.train()
    assert hook.probe._updates.measurements.question.task.discount == pytest.approx(0.7)


def without_an_actor() -> Any:
    trainer = trainer_of(DDPGLoss)
    actor = QValueActor(MLP(2, 3), in_keys=["observation"], action_space="one_hot")
    trainer.loss_module = DQNLoss(actor, action_space="one_hot")
    return trainer


def without_an_optimizer() -> Any:
    trainer = trainer_of(DDPGLoss)
    trainer.optimizer = None
    trainer._modules.pop("optimizer")
    return trainer


def with_two_inputs() -> Any:
    trainer = trainer_of(DDPGLoss)
    trainer.loss_module.actor_network.in_keys = ["observation", "pixels"]
    return trainer


@pytest.mark.parametrize("words, trainer", [
    ("trainer's loss is a DQNLoss without an actor_network", without_an_actor),
    ("trainer has no optimizer that steps its loss's actor_network", without_an_optimizer),
    ("task is given, but the actor sees observation, pixels", with_two_inputs),
])  # fmt: skip
def test_what_cannot_be_watched_is_said(words: str, trainer: Any) -> None:
    made = trainer()
    ProbeHook(task=integrator_task()).register(made)
    with pytest.raises(InputError, match="^" + words):
        made.train()


def test_a_hook_has_one_trainer_and_that_learns_here() -> None:
    hook, trainer = ProbeHook(), trainer_of(DDPGLoss)
    hook.register(trainer)
    with pytest.raises(InputError, match=r"^hook is registered already"):
        hook.register(trainer_of(DDPGLoss))
    trainer.learner_backend = "ray"
    with pytest.raises(InputError, match=r"^trainer's learner runs in other processes"):
        ProbeHook().register(trainer)


def test_a_plain_loop_marks_its_backward_pass() -> None:
    """TorchRL without a Trainer: two lines, as in any other loop."""
    seeded()
    loss, rows = loss_of(DDPGLoss, GymWrapper(Integrator()).action_spec), []
    optimizer = torch.optim.Adam(loss.actor_network.parameters(), 1e-3)
    probe = gradlab.Probe(loss.actor_network, optimizer, log=rows.append, **ALWAYS)
    for step in range(100):
        batch = TensorDict({"observation": torch.randn(8, 2)}, [8])
        with probe(step):
            loss.loss_actor(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert tables(rows) == {"vitals": 1, "successive": 2} and not probe.off


def test_without_the_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [k for k in sys.modules if k.startswith("gradlab.integrations.torchrl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchrl.trainers", None)
    with pytest.raises(InputError, match=r"^torchrl is not installed: pip install 'gradlab\["):
        import gradlab.integrations.torchrl  # noqa: F401
