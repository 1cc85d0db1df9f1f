"""Model predictive control at test: the policy's actions, refined by the cross-entropy method.

    score(a_0 … a_{H−1}) = Σ_{t<H} γᵗ r_t + γᴴ Q(s_H, π(s_H)),   s_{t+1} = f(s_t, a_t)

The first sequences are the policy's own paths, later ones are drawn around the mean of the best;
its first action is applied (MAAC, appendix A.5; PETS, Chua et al. 2018, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.training.algorithm import Algorithm
from gradlab.training.models.seed_models import Model, model_step
from gradlab.training.parts.context import Objective, Value
from gradlab.training.parts.targets import within
from gradlab.training.settings import Planning


def check(algorithm: Algorithm, prior: object | None, planning: Planning | None) -> None:
    """Raises InputError where there is no model to plan with."""
    if planning is not None and algorithm.model is None and prior is None:
        raise InputError(
            f"planning needs a model, but {algorithm.name} learns none and the task has no prior: "
            f"take an algorithm with a learned model, or a task with a prior"
        )


@dataclass(frozen=True, eq=False)
class Planner:
    """What a plan is made with; states have a leading axis [E] of seeds.

    Attributes:
        draw: the policy's action at normal noise, [E, N, ds], [E, N, da] → [E, N, da]; act: its
            action without.
        value: of the critic; 0 where there is none.
        objective: its discount, factor on rewards and terminal states; entropy is not planned for.
        limit: largest |action|, [da], or None.
    """

    choice: Planning
    model: Model
    draw: Callable[[Tensor, Tensor], Tensor]
    act: Callable[[Tensor], Tensor]
    value: Value
    objective: Objective
    action_dim: int
    limit: Tensor | None

    @torch.no_grad()
    def __call__(self, state: Tensor, step: int) -> Tensor:
        """The action [E, S, da] that is applied in `state` [E, S, ds] at one step of an episode."""
        choice, (seeds, starts, _) = self.choice, state.shape
        begin = state.repeat_interleave(choice.samples, dim=1)
        shape = (choice.horizon, starts * choice.samples, self.action_dim)
        elite = state.new_zeros(0)  # [H, E, S, elites, da]
        for number in range(choice.rounds):
            generator = stream(0, f"planning {number}", step)
            noise = _normal(shape, generator, state)
            dealt = _normal((*shape[:2], self.model.noise_dim), generator, state)
            plan = self._around(elite, noise) if number else None
            score, plan = self._rolled_out(begin, plan, noise, dealt)
            best = score.view(seeds, starts, -1).topk(choice.elites, dim=2).indices
            every = plan.view(choice.horizon, seeds, starts, choice.samples, -1)
            at = best[None, ..., None].expand(choice.horizon, -1, -1, -1, every.shape[4])
            elite = every.gather(3, at)
        return elite.mean(dim=3)[0]

    def _around(self, elite: Tensor, noise: Tensor) -> Tensor:
        """Sequences [H, E, N, da] as far around the mean of the best ones as they lie apart."""
        mean, std = (
            x.repeat_interleave(self.choice.samples, dim=2)
            for x in (elite.mean(dim=3), elite.std(dim=3))
        )
        return within(mean + std * noise[:, None], self.limit)

    def _rolled_out(
        self, state: Tensor, plan: Tensor | None, noise: Tensor, dealt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score [E, N] of N sequences, and the sequences [H, E, N, da]: `plan`, or the policy's."""
        objective, total = self.objective, state.new_zeros(state.shape[:2])
        alive = torch.ones_like(total)
        actions = []
        for t in range(self.choice.horizon):
            if plan is None:
                drawn = self.draw(state, noise[t].expand(state.shape[0], -1, -1))
                actions.append(within(drawn, self.limit))
            else:
                actions.append(plan[t])
            through = dealt[t].expand(state.shape[0], -1, -1) if dealt.shape[2] else None
            state, reward, still = model_step(self.model, state, actions[t], through)
            total = total + objective.discount**t * objective.reward_scale * alive * reward
            alive = alive * still if objective.masked else alive
        end = self.value(state, self.act(state))
        total = total + objective.discount**self.choice.horizon * alive * end
        return torch.nan_to_num(total, nan=-torch.inf, posinf=-torch.inf), torch.stack(actions)


def _normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """The same for every seed."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)
