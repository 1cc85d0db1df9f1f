"""A critic of a given policy, by fitted evaluation on simulator rollouts.

    y = Σ_{k<n} γᵏ r_k + γⁿ Q̄(s_n, π(s_n)),   loss (Q(s_0, a_0) − y)²

(s_0, a_0) are visited states with an exploratory first action (the task's own spread, else that of
the policy's actions); the n steps after it follow π, so the target is on-policy for every n and no
correction is needed. Q̄ is a slowly moving copy.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.fitting import policies
from gradlab.gradients.rollout import check_rollouts, rollout
from gradlab.gradients.setting import Setting, Starts, policy_noise_at
from gradlab.networks import checkpoint
from gradlab.networks.interface import act, check_policy, double_copy
from gradlab.networks.mlp import Policy, QCritic, judge
from gradlab.networks.spectral import Which, baked, normalise
from gradlab.progress import Progress, check_progress, silent
from gradlab.systems.system import step_running
from gradlab.tasks import Task
from gradlab.user_code import differentiating

TRAJECTORIES = 512
_VISITED = 16  # states taken from each trajectory
STEPS = 25  # n of the targets
UPDATES = 2000
_REFITTED = 200  # updates from where a critic stands
ROWS = 256
_TARGET_RATE = 0.01
_SMALLEST = 1e-2  # exploration of a policy that always acts alike, in action units
_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class EvaluationData:
    """Transitions for fitted evaluation: s [M, ds], a [M, da], n-step return [M], s_n, alive."""

    state: Tensor
    action: Tensor
    returns: Tensor
    last_state: Tensor
    last_action: Tensor
    bootstrap: Tensor


@differentiating
def fit_critic(
    task: Task,
    policy: nn.Module,
    *,
    steps: int = STEPS,
    termination: str = "ignore",
    spectral: Which | None = None,
    bound: float = 1.0,
    seed: int = 0,
    progress: Progress = silent,
) -> QCritic:
    """Q^π as a 2×256 ELU network, float32, from n-step targets.

    Args:
        steps: n of the targets; 1 relies on the critic, 25 on the simulator.
        termination: as in the measurement: "ignore", or "mask" to stop returns at terminal states.
        spectral, bound: layers held at a spectral norm (`networks.spectral`) while it learns.

    Raises:
        InputError: the policy does not fit the task, or its rollouts leave the finite numbers.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    progress = check_progress(progress)
    validation.whole("steps", steps, 1)
    policy = double_copy("policy", policy)
    progress("critic", 0, UPDATES)
    data = evaluation_data(task, policy, steps, termination, seed)
    generator = stream(seed, "critic")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        critic = QCritic(
            task.simulator.state_dim, task.simulator.action_dim, scale=task.observation_scale
        )
    if spectral is not None:
        normalise(critic, spectral, bound)
    _train(critic, data, generator, progress)
    return baked(critic.eval())


@differentiating
def refit_critic(
    task: Task,
    policy: nn.Module,
    critic: nn.Module,
    *,
    updates: int = _REFITTED,
    steps: int = STEPS,
    states: Tensor | None = None,
    termination: str = "ignore",
    seed: int = 0,
) -> nn.Module:
    """A copy of a Q critic after so many further updates towards Q^π, as between two stretches of
    training: from where it stands, at its own precision.

    Args:
        states: [M, ds], from which its transitions start; None: states of new roll-outs.
    """
    refitted = copy.deepcopy(critic).requires_grad_(True)
    policy = double_copy("policy", policy)
    if states is None:
        data = evaluation_data(task, policy, steps, termination, seed)
    else:
        data = _exploratory(task, policy, states, steps, termination, seed)
    _train(refitted, data, stream(seed, "critic"), silent, updates)
    return refitted


def fitted_networks(
    task: Task,
    given: Mapping[str, nn.Module],
    places: Mapping[str, Path],
    *,
    kept: bool = True,
    termination: str = "ignore",
    spectral: Collection[str] = (),
    share: float = 1.0,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, nn.Module]:
    """Those that are given, and of "policy" and "critic" those that have a place: a stabilising
    policy, a critic fitted to the policy.

    Args:
        places: files of networks that are not given, written as soon as they are fitted.
        kept: a network that is at its place already is taken.
        spectral: kinds whose layers are held at spectral norm 1.
        share, termination: as `stabilising_policy` and `fit_critic` take them.
    """
    networks = dict(given)
    for kind in ("policy", "critic"):
        if kind not in places:
            continue
        if kept and places[kind].is_file():
            networks[kind] = checkpoint.load(places[kind])
            if isinstance(networks[kind], Policy):
                networks[kind].fitted = True  # type: ignore[assignment]
            continue
        held = kind in spectral
        if kind == "policy":
            networks[kind] = policies.stabilising_policy(
                task, share=share, seed=seed, progress=progress, spectral="all" if held else None
            )
        else:
            networks[kind] = fit_critic(
                task, networks["policy"], termination=termination, seed=seed, progress=progress,
                spectral="all_but_last" if held else None,
            )  # fmt: skip
        with suppress(InputError):  # what cannot be kept now is written at the end
            checkpoint.save(networks[kind], places[kind])
    return networks


def evaluation_data(
    task: Task, policy: nn.Module, steps: int, termination: str, seed: int
) -> EvaluationData:
    """M = 512 · 16 rows: states visited under the policy, one exploratory action, then π."""
    simulator = task.simulator
    begin = task.starts(TRAJECTORIES, stream(seed, "critic-starts"))
    check_policy(policy, begin, simulator.action_dim)
    label = torch.arange(TRAJECTORIES)
    starts = Starts(begin, torch.ones(TRAJECTORIES, dtype=torch.float64), label)
    horizon, noise = max(2 * task.horizon, _VISITED), child(seed, "critic visits")
    check_rollouts(Setting(simulator, policy, starts, task.discount, horizon, seed=noise), horizon)
    visits = rollout(simulator, policy, starts, horizon, noise)
    # Half of the rows are the start states themselves: that is where gradients are measured.
    later = torch.linspace(0, visits.horizon, _VISITED // 2).long()
    again = task.starts(TRAJECTORIES * (_VISITED // 2), stream(seed, "critic-more-starts"))
    state = torch.cat([again, visits.states[later].flatten(0, 1)])
    return _exploratory(task, policy, state, steps, termination, seed)


def _exploratory(
    task: Task, policy: nn.Module, state: Tensor, steps: int, termination: str, seed: int
) -> EvaluationData:
    simulator, m = task.simulator, len(state)
    with torch.no_grad():
        mean = act(policy, state, policy_noise_at(policy, m, child(seed, "critic"), 0, state))
    if task.exploration is None:
        spread = mean.std(dim=0).clamp_min(_SMALLEST)
    else:
        spread = torch.tensor(task.exploration, dtype=torch.float64)
    draw = torch.randn(mean.shape, generator=stream(seed, "exploration"), dtype=torch.float64)
    action = mean + spread * draw
    xi = simulator.sample_noise(m, stream(seed, "critic-dynamics"), state.dtype)
    out = step_running(simulator, state, action, xi)
    starts = Starts(out.state, torch.ones(m, dtype=torch.float64), torch.arange(m))
    path = rollout(simulator, policy, starts, steps - 1, child(seed, "critic returns"))
    alive = path.alive & out.alive if termination == "mask" else torch.ones_like(path.alive)
    gamma = task.discount ** torch.arange(1, steps, dtype=torch.float64)[:, None]
    returns = out.reward + (gamma * alive[:-1] * path.rewards).sum(dim=0)
    bootstrap = task.discount**steps * alive[-1].double()
    return EvaluationData(state, action, returns, path.states[-1], path.actions[-1], bootstrap)


def _train(
    critic: nn.Module,
    data: EvaluationData,
    generator: torch.Generator,
    progress: Progress,
    updates: int | None = None,
) -> None:
    updates = UPDATES if updates is None else updates
    target = copy.deepcopy(critic)
    dtype = next(critic.parameters()).dtype
    columns = [column.to(dtype) for column in vars(data).values()]
    scale = columns[2].std().clamp_min(1e-8)
    optimizer = torch.optim.Adam(critic.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, eta_min=1e-5)
    for update in range(updates):
        rows = torch.randint(len(columns[0]), (ROWS,), generator=generator)
        s, a, returns, s_n, a_n, bootstrap = (column[rows] for column in columns)
        with torch.no_grad():
            wanted = returns + bootstrap * judge(target, "Q", s_n, a_n)
        loss = (((judge(critic, "Q", s, a) - wanted) / scale) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.lerp_(fast, _TARGET_RATE)
        progress("critic", update + 1, updates)
    nn.Module.zero_grad(critic, set_to_none=True)
