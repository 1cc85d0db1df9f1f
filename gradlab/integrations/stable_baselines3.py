"""The probe as a callback of Stable-Baselines3: the optional extra gradlab[sb3].

    model.learn(100_000, callback=ProbeCallback(log="run.h5", task=task))

It finds the actor and its optimiser by itself (`stable_baselines3_models`), marks every backward
pass, and counts steps as the model does. With a task, whose states must be what the policy
observes, gradients are measured on the task with the model's critic and discount.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from gradlab.errors import InputError, not_installed
from gradlab.integrations.states import (
    LoopParts,
    after_backward,
    check_widths,
    compare,
    headline,
    probe_of,
)
from gradlab.probe.budget import Clock
from gradlab.probe.probe import Logs, Probe
from gradlab.probe.returns import MakeEnv
from gradlab.tasks import Task

try:
    from stable_baselines3.common.callbacks import BaseCallback

    from gradlab.integrations.stable_baselines3_models import check_measurable, parts_of
except ImportError as error:
    raise not_installed("stable-baselines3", "sb3") from error

_LOSSES = ("train/critic_loss", "train/value_loss")
_TABLES = ("stdout", "log", "json", "csv")  # outputs that a sentence would break


class ProbeCallback(BaseCallback):
    """Watches a model's policy gradients while it learns: TD3, DDPG, SAC, PPO and A2C.

    Args:
        log: path of a run file, a function of one dict per row, several of these, or None.
        task: adds bias and variance by horizon; its discount is replaced by the model's.
        overhead_budget: share of the time that the probe may take.
        seed: of the probe's own starts and noise.
        resume: go on in the run file that `log` names, as after loading a saved model.
        env: a function that makes an environment as the model's, without normalisers: whole
            episodes of the policy without noise are played in it, and say if the return rises.
        verbose: as in every callback; 1 says at the end of training what the probe has cost.
        clock: seconds, for the budget.

    The critic's loss and the return of episodes, as the model has them, stand beside the gradients.
    A few numbers and the alarms also go to the model's own logger, as "gradlab/…". Calling `learn`
    again goes on in the same log. `probe` is the `gradlab.Probe`, once training has begun.
    """

    def __init__(
        self,
        log: Logs = None,
        task: Task | None = None,
        overhead_budget: float = 0.05,
        seed: int = 0,
        verbose: int = 0,
        *,
        resume: bool = False,
        clock: Clock = time.perf_counter,
        env: MakeEnv | None = None,
    ) -> None:
        super().__init__(verbose)
        self.log, self.task = log, task
        self._given: dict[str, Any] = {"overhead_budget": overhead_budget, "seed": seed}
        self._given |= {"resume": resume, "clock": clock, "env": env}
        self.probe: Probe | None = None
        self._parts: LoopParts | None = None
        self._passes: Any = None
        self._loss: Any = None  # the last one that was noted

    def _on_training_start(self) -> None:
        if self.probe is None:
            self._begin()
        elif self._parts is None or self._parts.optimizer is not parts_of(self.model).optimizer:
            raise InputError(
                "callback has watched another model: give this one a new ProbeCallback, with "
                "a log of its own or resume=True"
            )
        else:
            self.probe.resume()
        if self._passes is None and self._parts is not None:
            self._passes = after_backward(self._parts.watched.module, self._mark)

    def _on_step(self) -> bool:
        if self.n_calls == 1 and self.task is not None:
            compare(self.task, self._transition)
        if self.probe is not None:
            self.probe._attempt(self._note, self.probe)
        return True

    def _note(self, probe: Probe) -> None:
        """The critic's loss where another one was recorded, and returns of episodes that ended."""
        recorded = self.logger.name_to_value
        loss = next((recorded[name] for name in _LOSSES if name in recorded), None)
        if loss is not None and loss is not self._loss:
            self._loss = loss
            probe.note(critic_loss=loss)
        for info in self.locals.get("infos", ()):
            if "episode" in info:
                probe.note(episode_return=info["episode"]["r"])

    def _on_training_end(self) -> None:
        if self._passes is not None:
            self._passes.remove()
            self._passes = None
        if self.probe is None:
            return
        self.probe.close()
        if self.verbose:
            alarms = len(self.probe.alarms)
            print(f"gradlab probe: {self.probe.spent:.1%} of the time, alarms: {alarms}")

    def _begin(self) -> None:
        model: Any = self.model
        parts, task = parts_of(model), self.task
        if task is not None:
            check_measurable(model)
            check_widths(task, model.observation_space.shape, model.action_space.shape)
            task = replace(task, discount=model.gamma)
        self.probe = probe_of(parts, task, [self.log, self._record], self._given)
        self._parts = parts

    def _mark(self) -> None:
        if self.probe is not None:
            with self.probe(int(self.model.num_timesteps)):
                pass  # the backward pass is over

    def _record(self, row: dict[str, Any]) -> None:
        for name, value in headline(row).items():
            self.logger.record(name, value)
        if "alarms/message" in row:
            name = f"gradlab/{row['alarms/alarm']}"
            self.logger.record(name, row["alarms/message"], exclude=_TABLES)

    def _transition(self) -> tuple[Any, Any, Any] | None:
        """(s, a, s') of the first environment; None where an episode has ended."""
        model: Any = self.model
        collected: Any = self.locals
        normalizer = model.get_vec_normalize_env()
        if collected["dones"][0]:
            return None
        action = collected.get("clipped_actions", collected.get("actions"))
        if normalizer is None:
            return model._last_obs[0], action[0], collected["new_obs"][0]
        if model.num_timesteps > model.n_envs:  # the first state is known normalised only
            return None
        return model._last_original_obs[0], action[0], normalizer.get_original_obs()[0]
