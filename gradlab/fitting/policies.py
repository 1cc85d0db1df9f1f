"""A policy that stabilises a task: linear-quadratic feedback, distilled into a network.

    a = −K (s − s*),   K = (R + γ Bᵀ P B)⁻¹ (γ Bᵀ P A + Sᵀ),   P from the discounted Riccati eq.
    u = kp (q₀ − q) − kd q̇   in units of the control limit: holds a MuJoCo body's initial pose

A, B and the reward's curvature −2 [Q S; Sᵀ R] are the prior model's at the reference state without
its noise: a policy trained through a biased prior would rest at the prior's target.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.networks.mlp import Policy
from gradlab.networks.spectral import Which, baked, normalise
from gradlab.progress import Progress, check_progress, silent
from gradlab.statistics.over_groups import student_mean
from gradlab.systems.differentiable import mujoco_environment
from gradlab.systems.mujoco import MujocoEnvironment
from gradlab.systems.system import System, linearize_running, step_running
from gradlab.tasks import Task
from gradlab.user_code import differentiating

_CURVATURE_STEP = 1e-4  # state units; exact for quadratic rewards
UPDATES = 1500
ROWS = 512
STARTS = 256
_FAR = 30.0  # times the median over starts, beyond which a rollout has run away
_NONE = "no policy was given, and none could be made: {}; pass a policy of your own"
_SPREAD = (1.0, 0.1, 3.0)  # scales of the visited states on which the network is taught


@differentiating
def stabilising_policy(
    task: Task,
    *,
    share: float = 1.0,
    spectral: Which | None = None,
    bound: float = 1.0,
    seed: int = 0,
    progress: Progress = silent,
) -> Policy:
    """The prior's (else the simulator's) discounted Riccati feedback as a 2×256 ELU network.

    For a MuJoCo environment without a prior: the feedback that holds its initial pose.

    Args:
        share: of the feedback K. At 1 the gradient through the prior is close to 0; less leaves a
            gradient to measure.
        spectral, bound: layers held at a spectral norm (`networks.spectral`) while it learns. All
            of L layers at `bound` leave slopes up to bound^L of the scaled state, which may be
            too little to stabilise.

    Raises:
        InputError: the linearization at the reference state has no stabilising feedback, or a
            share that is not above 0.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    progress = check_progress(progress)
    validation.number("share", share, above=0)
    model = task.prior if task.prior is not None else task.simulator
    ds = task.simulator.state_dim
    reference = torch.tensor(task.reference_state or (0.0,) * ds, dtype=torch.float64)
    environment = mujoco_environment(model)
    if environment is not None:
        gain = hold_pose_gain(environment)
    else:
        gain = riccati_gain(model, reference, task.discount)
    policy = _distil(task, share * gain, reference, seed, progress, spectral, bound)
    policy.fitted = True
    if environment is None:
        _warn_if_worse_than_nothing(task, model, policy, seed)
    return policy


def _warn_if_worse_than_nothing(task: Task, model: System, policy: Policy, seed: int) -> None:
    """Compares returns by the model that the feedback is made of, from the same starts."""
    begin = task.starts(STARTS, stream(seed, "distil-starts"))
    gain = torch.zeros(STARTS, dtype=torch.float64)
    for acting in (1.0, 0.0):
        state = begin
        for t in range(_taught_steps(task)):
            with torch.no_grad():
                action = acting * policy(state.float()).double()
                out = step_running(model, state, action, None)
            gain += (2 * acting - 1) * task.discount**t * out.reward
            state = out.state
    gain = gain[torch.isfinite(gain)]
    if len(gain) > 1 and student_mean(gain.numpy()).high < 0:
        warnings.warn(
            "the fitted policy is worse than no action at all by the model's returns: set "
            "reference_state to where the task should rest with action 0, or give a policy of your "
            "own",
            stacklevel=3,
        )


def riccati_gain(model: System, reference: Tensor, discount: float) -> Tensor:
    """K [da, ds] of a = −K (s − s*), float64."""
    ds, da = model.state_dim, model.action_dim
    moves = _CURVATURE_STEP * torch.eye(ds + da, dtype=torch.float64)
    rows = torch.cat([torch.zeros(1, ds + da, dtype=torch.float64), moves, -moves])
    out = linearize_running(model, reference + rows[:, :ds], rows[:, ds:])
    A, B = out.A[0].numpy(), out.B[0].numpy()
    # The Hessian of the reward in (s, a), by differences of its closed-form gradient.
    slope = torch.cat([out.r_s, out.r_a], dim=1)[1:]
    hessian = (slope[: ds + da] - slope[ds + da :]) / (2 * _CURVATURE_STEP)
    cost = -((hessian + hessian.T) / 2).numpy() / 2
    Q, S, R = cost[:ds, :ds], cost[:ds, ds:], cost[ds:, ds:]
    root = discount**0.5
    try:
        P = scipy.linalg.solve_discrete_are(root * A, root * B, Q, R, s=S)
        K = np.linalg.solve(R + discount * B.T @ P @ B, discount * B.T @ P @ A + S.T)
    except (np.linalg.LinAlgError, ValueError) as error:
        reason = "no linear feedback stabilises the task at its reference state"
        raise InputError(_NONE.format(reason)) from error
    return torch.from_numpy(K)


def _distil(
    task: Task,
    gain: Tensor,
    reference: Tensor,
    seed: int,
    progress: Progress,
    spectral: Which | None = None,
    bound: float = 1.0,
) -> Policy:
    """A network that gives a = −K (s − s*) on the states that this feedback visits."""
    states = visited_states(task, gain, reference, seed)
    targets = -(states - reference) @ gain.T
    generator = stream(seed, "distil")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        policy = Policy(states.shape[1], targets.shape[1], scale=task.observation_scale)
    if spectral is not None:
        normalise(policy, spectral, bound)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES, eta_min=1e-6)
    states, targets = states.float(), targets.float()
    scale = targets.std(dim=0).clamp_min(1e-6)
    for update in range(UPDATES):
        rows = torch.randint(len(states), (ROWS,), generator=generator)
        loss = (((policy(states[rows]) - targets[rows]) / scale) ** 2).mean()
        optimizer.zero_grad()
        if not torch.isfinite(loss):
            raise InputError(_NONE.format(f"its fit diverged at update {update}"))
        loss.backward()
        optimizer.step()
        schedule.step()
        progress("policy", update + 1, UPDATES)
    policy.eval()
    nn.Module.zero_grad(policy, set_to_none=True)
    return baked(policy)


def _taught_steps(task: Task) -> int:
    """Steps from each start whose states the network is fitted on."""
    return max(2 * task.horizon, 25)


def visited_states(task: Task, gain: Tensor, reference: Tensor, seed: int) -> Tensor:
    """States on the simulator under the feedback, from the starts on, at several scales."""
    n, steps = STARTS, _taught_steps(task)
    state = task.starts(n, stream(seed, "distil-starts"))
    visited = [state]
    limit = torch.tensor(task.action_limit or (torch.inf,) * len(gain), dtype=torch.float64)
    for t in range(steps):
        action = (-(state - reference) @ gain.T).clamp(-limit, limit)
        xi = task.simulator.sample_noise(n, stream(seed, "distil-dynamics", t))
        state = step_running(task.simulator, state, action, xi).state
        visited.append(state)
    path = torch.stack(visited)
    # What runs away from the reference teaches nothing, and spoils the scale of what stays.
    farthest = (path - reference).abs().nan_to_num(torch.inf).amax(dim=0)
    usual = farthest.median(dim=0).values
    inside = path[:, ((farthest <= _FAR * usual) | (usual == 0)).all(dim=1)].flatten(0, 1)
    inside = inside[torch.isfinite(inside.float()).all(dim=1)]
    return torch.cat([reference + scale * (inside - reference) for scale in _SPREAD])


# Held over a control step of 0.05 s, damping of 0.1 makes HalfCheetah chatter between the limits
# (λ = 0.45 per step instead of -0.11).
_KP = 0.5  # control limits per radian
_KD = 0.02  # control limits per radian per second


def hold_pose_gain(system: MujocoEnvironment) -> Tensor:
    """K [da, ds] of a = −K (s − s*), float64, with s* the initial pose at rest."""
    model, root = system.physics.model, system.chart.root
    high = system.physics.control_range[1]
    gain = torch.zeros(model.nu, system.state_dim, dtype=torch.float64)
    for i in range(model.nu):
        joint = int(model.actuator_trnid[i, 0])
        limit = math.copysign(high[i], model.actuator_gear[i, 0])
        gain[i, model.jnt_qposadr[joint] - root] = _KP * limit
        gain[i, model.nq - root + model.jnt_dofadr[joint]] = _KD * limit
    return gain
