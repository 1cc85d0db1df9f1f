"""The probe as a hook of TorchRL's Trainer: the optional extra gradlab[torchrl].

    ProbeHook(log="run.h5", task=task).register(trainer)

Every backward pass through the actor is marked, every step of its optimiser is an update, and steps
count collected frames. In a loop without a Trainer say `with probe(step): loss.backward()`, as in
any other.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from gradlab.errors import InputError, not_installed
from gradlab.integrations.states import after_backward, compare, headline, probe_of
from gradlab.probe.budget import Clock
from gradlab.probe.probe import Logs, Probe
from gradlab.probe.returns import MakeEnv
from gradlab.tasks import Task

try:
    from torchrl.trainers import Trainer
    from torchrl.trainers.trainers import TrainerHookBase

    from gradlab.integrations.torchrl_models import (
        action_key,
        check_measurable,
        discount_of,
        parts_of,
    )
except ImportError as error:
    raise not_installed("torchrl", "torchrl") from error


_LOSSES = ("loss_qvalue", "loss_value", "loss_critic")  # of TD3, SAC; DDPG; PPO, A2C
_RETURN = ("next", "episode_reward")


class ProbeHook(TrainerHookBase):  # type: ignore[misc]
    """Watches the actor of a trainer's loss while it trains.

    Args:
        log: path of a run file, a function of one dict per row, several of these, or None.
        task: adds bias and variance by horizon; its discount is replaced by the loss's.
        overhead_budget: share of the time that the probe may take.
        seed: of the probe's own starts and noise.
        resume: go on in the run file that `log` names, as after loading a saved model.
        env: a function that makes one of Gymnasium's, as the trainer's: whole episodes of the
            policy without noise are played in it, and say if the return rises.
        clock: seconds, for the budget.

    The critic's loss stands beside the gradients, and the return of episodes where the environment
    sums it up (RewardSum). A few numbers also go to the trainer's own logger, as "gradlab/…".
    `probe` is the `gradlab.Probe`, once training has begun. Checkpoints hold nothing of it, since
    training does not depend on it; a resumed run goes on in its log with resume=True.
    """

    def __init__(
        self,
        log: Logs = None,
        task: Task | None = None,
        overhead_budget: float = 0.05,
        seed: int = 0,
        *,
        resume: bool = False,
        clock: Clock = time.perf_counter,
        env: MakeEnv | None = None,
    ) -> None:
        self.log, self.task = log, task
        self._given: dict[str, Any] = {"overhead_budget": overhead_budget, "seed": seed}
        self._given |= {"resume": resume, "clock": clock, "env": env}
        self.probe: Probe | None = None
        self._trainer: Any = None
        self._passes: Any = None
        self._shown: dict[str, float] = {}
        self._compared = False

    def register(self, trainer: Trainer, name: str = "gradlab_probe") -> None:
        """Raises InputError for a learner in other processes, or a hook with a trainer."""
        if getattr(trainer, "learner_backend", "local") != "local":
            raise InputError(
                "trainer's learner runs in other processes, where no hook can look: use "
                "learner_backend='local'"
            )
        if self._trainer is not None:
            raise InputError("hook is registered already: make one ProbeHook per trainer")
        self._trainer = trainer
        trainer.register_op("setup", self._begin)
        trainer.register_op("batch_process", self._compare)
        trainer.register_op("process_loss", self._note_loss)
        trainer.register_op("post_steps_log", self._show)
        trainer.register_op("shutdown", self._end)
        trainer.register_module(name, self)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing was kept."""

    def _begin(self) -> None:
        parts, task = parts_of(self._trainer), self.task
        if task is not None:
            check_measurable(self._trainer)
            discount = discount_of(self._trainer.loss_module)
            task = task if discount is None else replace(task, discount=discount)
        self.probe = probe_of(parts, task, [self.log, self._record], self._given)
        self._passes = after_backward(parts.watched.module, self._mark)

    def _end(self) -> None:
        if self._passes is not None:
            self._passes.remove()
        if self.probe is not None:
            self.probe.close()

    def _mark(self) -> None:
        if self.probe is not None:
            with self.probe(int(self._trainer.collected_frames)):
                pass  # the backward pass is over

    def _record(self, row: dict[str, Any]) -> None:
        self._shown |= headline(row)

    def _show(self, batch: Any) -> dict[str, float] | None:
        shown, self._shown = self._shown, {}
        return shown or None

    def _note_loss(self, batch: Any, losses: Any) -> None:
        if self.probe is not None:
            self.probe._attempt(_note_loss, self.probe, losses)

    def _compare(self, batch: Any) -> Any:
        """A step of the first batch, made again by the task's simulator."""
        if self.probe is not None:
            self.probe._attempt(_note_returns, self.probe, batch)
        if self.task is not None and not self._compared:
            self._compared = True
            compare(self.task, lambda: self._transition(batch))
        return batch

    def _transition(self, batch: Any) -> tuple[Any, Any, Any] | None:
        """(s, a, s') of the batch; None where it has ends of episodes only."""
        loss = self._trainer.loss_module
        observed, acted = loss.actor_network.in_keys[0], action_key(loss)
        flat = batch.reshape(-1).cpu()
        whole = (~flat["next", "done"].flatten()).nonzero().flatten()
        if not len(whole):
            return None
        # The last one: a seed set after the first reset leaves the first step without its state.
        row = flat[int(whole[-1])]
        return row[observed].numpy(), row[acted].numpy(), row["next", observed].numpy()


def _note_loss(probe: Probe, losses: Any) -> None:
    name = next((each for each in _LOSSES if each in losses.keys()), None)  # noqa: SIM118
    if name is not None:
        probe.note(critic_loss=losses[name].detach().mean())


def _note_returns(probe: Probe, batch: Any) -> None:
    if _RETURN not in batch.keys(include_nested=True):
        return
    ended = batch["next", "done"].flatten()
    for each in batch[_RETURN].flatten()[ended].tolist():
        probe.note(episode_return=each)
