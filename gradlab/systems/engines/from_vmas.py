"""The world of a VMAS scenario (vectorised multi-agent simulator, in torch) as a System.

The state is that of every movable entity in the world's order: position (2), velocity (2) and,
where it rotates, angle and turn rate. The action is that of all agents side by side, clipped to
their range. What does not move stands in every row where one reset of the scenario put it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError, required
from gradlab.systems.function import from_function
from gradlab.systems.system import System

_Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
_SIZES = 8  # batch sizes whose worlds are kept


def from_vmas(
    scenario: Any,
    reward: _Reward | None = None,
    seed: int = 0,
    **settings: object,
) -> System:
    """A System from a scenario, with gradients through its world.

    Args:
        scenario: a name, as "simple", or a `vmas.simulator.scenario.BaseScenario`.
        reward: (state [N, ds], action [N, da], next_state [N, ds]) -> [N]; None: the scenario's
            own, summed over agents. One that shapes its reward by remembering the last step is no
            function of state and action: `gradlab certify` reports it as stale, and it wants a
            reward here.
        seed: of the reset that places what does not move.
        settings: the scenario's own, as n_agents.

    Raises:
        InputError: VMAS is not installed, there is no such scenario, its agents talk or have a
            state of their own, or an argument is wrong.
    """
    if reward is not None:
        validation.function("reward", reward, "(state, action, next_state)")
    validation.whole("seed", seed)
    vmas = required("vmas", "vmas")

    def made(rows: int) -> Any:
        try:
            return vmas.make_env(scenario, rows, "cpu", grad_enabled=True, seed=seed, **settings)
        except Exception as error:
            raise InputError(f"VMAS cannot make {validation.shown(scenario)}: {error}") from error

    first = made(1)
    _check_stateless(first)
    places = [(e.state.pos, e.state.rot) for e in first.world.entities]
    world_of = lru_cache(_SIZES)(made)

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        environment = world_of(len(state))
        _placed(environment.world, places, state)
        _act(environment, action)
        after = _read(environment.world)
        if reward is not None:
            return after, reward(state, action, after)
        rewards = [environment.scenario.reward(agent) for agent in environment.agents]
        return after, torch.stack(rewards).sum(0).to(state.dtype)

    widths = [agent.action_size for agent in first.agents]
    return from_function(step, _read(first.world).shape[1], sum(widths))


def _check_stateless(environment: Any) -> None:
    if environment.world.dim_c and not all(agent.silent for agent in environment.agents):
        raise InputError("scenario has agents that talk: their messages are no part of a state")
    for agent in environment.world.agents:
        held = [name for name, value in vars(agent.dynamics).items() if isinstance(value, Tensor)]
        if held:
            raise InputError(
                f"scenario has {agent.name} with a {held[0]} in its dynamics, which no state sets"
            )


def _placed(world: Any, places: list[tuple[Tensor, Tensor]], state: Tensor) -> None:
    """Every entity's state, from the row or from the places of what does not move."""
    column = 0
    for entity, (pos, rot) in zip(world.entities, places, strict=True):
        if entity.movable:
            entity.state.pos, entity.state.vel = torch.split(state[:, column : column + 4], 2, 1)
            column += 4
        else:
            entity.state.pos = pos.to(state.dtype).expand(len(state), 2)
            entity.state.vel = torch.zeros_like(entity.state.pos)
        if entity.rotatable:
            entity.state.rot, entity.state.ang_vel = torch.split(
                state[:, column : column + 2], 1, 1
            )
            column += 2
        else:
            entity.state.rot = rot.to(state.dtype).expand(len(state), 1)
            entity.state.ang_vel = torch.zeros_like(entity.state.rot)


def _act(environment: Any, action: Tensor) -> None:
    """One step of the world, as `Environment.step` makes it without its own clones and checks."""
    widths = [agent.action_size for agent in environment.agents]
    for agent, given in zip(environment.agents, torch.split(action, widths, 1), strict=True):
        reach = agent.action.u_range_tensor.to(action.dtype)
        multiplier = agent.action.u_multiplier_tensor.to(action.dtype)
        agent.action.u = given.clamp(-reach, reach) * multiplier
    for agent in environment.world.agents:
        environment.scenario.env_process_action(agent)
    environment.scenario.pre_step()
    environment.world.step()
    environment.scenario.post_step()


def _read(world: Any) -> Tensor:
    parts = []
    for entity in world.entities:
        parts += [entity.state.pos, entity.state.vel] if entity.movable else []
        parts += [entity.state.rot, entity.state.ang_vel] if entity.rotatable else []
    return torch.cat(parts, 1)
