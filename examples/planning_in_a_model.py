"""Is planning in a model worth it, by gradients or by sampling, and how far ahead?

    python examples/planning_in_a_model.py path_tracking 1 5 10

    score(a_0 … a_{H−1}) = Σ_{t<H} γᵗ r_t + γᴴ Q(s_H, π(s_H)),   s_{t+1} = f(s_t, a_t)

A plan is searched in the task's prior model f, around the policy's own path, by

    gradient    Adam on the actions
    cem         means and deviations of the best tenth (PETS, Chua et al. 2018, algorithm 1)

with equally many roll-outs, a gradient counting three. Its gain is the discounted return in the
simulator of the plan, and then the policy, less the policy's, on the same noise; `promised` is the
same difference of scores in the model.
"""

import sys
from functools import partial

import torch

import gradlab

GRADIENT, ROUNDS, LONGEST = 3, 4, 500  # roll-outs of one gradient; of sampling; steps of a return


def within(task, actions):
    """Actions, none beyond the task's limit."""
    limit = actions.new_tensor(task.action_limit or [float("inf")] * actions.shape[-1])
    return actions.clamp(-limit, limit)


@torch.no_grad()
def unplanned(task, policy, state, horizon):
    """Actions [S, H, da] of the policy along its own path through the model."""
    actions = []
    for _ in range(horizon):
        actions.append(within(task, policy(state)))
        state = task.prior.step(state, actions[-1]).state
    return torch.stack(actions, 1)


def scores(task, policy, critic, state, plans):
    """[S, C], of plans [S, C, H, da] from states [S, ds]."""
    S, C, H, _ = plans.shape
    state, total = state.repeat_interleave(C, 0), 0.0
    for t in range(H):
        after = task.prior.step(state, plans[:, :, t].reshape(S * C, -1))
        total, state = total + task.discount**t * after.reward, after.state
    total = total + task.discount**H * critic(state, policy(state))
    return total.reshape(S, C).nan_to_num(-torch.inf, -torch.inf, -torch.inf)


def by_gradient(score, within, first, spread, rollouts):
    """The best plan [S, H, da] that Adam meets."""
    free, best, value = (first / spread).requires_grad_(), first, score(first[:, None])[:, 0]
    adam = torch.optim.Adam([free], lr=0.1)
    for _ in range(rollouts // GRADIENT):
        plan = within(free * spread)
        found = score(plan[:, None])[:, 0]
        best = torch.where((found > value)[:, None, None], plan, best).detach()
        value = torch.maximum(found, value).detach()
        adam.zero_grad()
        (-found[found.isfinite()].sum()).backward()
        free.grad.nan_to_num_(0.0, 0.0, 0.0)
        adam.step()
    return best


@torch.no_grad()
def by_sampling(score, within, first, spread, rollouts):
    """The mean of the best tenth after some rounds of the cross-entropy method."""
    count, draw = max(rollouts // ROUNDS, 20), torch.Generator().manual_seed(0)
    mean, std = first, spread.expand_as(first)
    for _ in range(ROUNDS):
        noise = torch.randn(len(first), count, *first.shape[1:], generator=draw, dtype=first.dtype)
        plans = within(mean[:, None] + std[:, None] * noise)
        top = score(plans).topk(count // 10, 1).indices[..., None, None]
        best = plans.take_along_dim(top, 1)
        mean, std = best.mean(1), best.std(1).clamp_min(1e-2 * spread)
    return mean


@torch.no_grad()
def returns(task, policy, state, plan):
    """Discounted returns [S] of the simulator: the plan [S, H, da], then the policy."""
    noise, total = torch.Generator().manual_seed(1), 0.0
    for t in range(min(LONGEST, int(5 / (1 - task.discount)))):
        action = plan[:, t] if t < plan.shape[1] else within(task, policy(state))
        drawn = task.simulator.sample_noise(len(state), noise, state.dtype)
        after = task.simulator.step(state, action, drawn)
        total, state = total + task.discount**t * after.reward, after.state
    return total


PLANNERS = {"gradient": by_gradient, "cem": by_sampling}


def compared(task, policy, critic, horizons, starts=32, rollouts=512):
    """Rows (planner, H, gain, its standard error, promised gain)."""
    state = task.starts(starts, torch.Generator().manual_seed(2)).double()
    wide = task.action_limit or [10 * each for each in task.exploration or (0.1,)]
    spread = 0.5 * torch.tensor(wide, dtype=torch.float64)
    plain = returns(task, policy, state, state.new_zeros(starts, 0, 1))
    for H in horizons:
        score = partial(scores, task, policy, critic, state)
        first = unplanned(task, policy, state, H)
        for name, search in PLANNERS.items():
            plan = search(score, partial(within, task), first, spread, rollouts)
            gain = returns(task, policy, state, plan) - plain
            own, found = score(torch.stack([first, plan], 1)).detach().unbind(1)
            yield name, H, gain.mean(), gain.std() / starts**0.5, (found - own).mean()


if __name__ == "__main__":
    name, *horizons = sys.argv[1:]
    task = getattr(gradlab.tasks, name)()
    policy = gradlab.fitting.stabilising_policy(task).double()
    critic = gradlab.fitting.fit_critic(task, policy).double()
    for row in compared(task, policy, critic, [int(each) for each in horizons]):
        print("{:9}{:3} steps: gain {:8.3g} ± {:.2g}, promised {:.3g}".format(*row))
