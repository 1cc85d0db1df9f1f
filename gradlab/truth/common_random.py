"""Gradients by differences of returns on common random numbers: no derivative of anything.

    D_ε(v) = (R(θ + εv) − R(θ − εv)) / 2ε   per start, the noise of both rollouts being the same

Along a smooth return D_ε is the derivative up to O(ε²), which D_2ε measures. Where episodes end,
the return jumps with the step at which they do: that flux is measured by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.ways import WAYS
from gradlab.networks.interface import act, flat_parameters
from gradlab.progress import Progress, silent
from gradlab.truth.returns import moved, stepped

_DIRECTIONS = 8
_WIDER = 100.0  # step of the boundary term in units of the step of the differences
_MORE = 8  # starts of the boundary term per start of the differences


@dataclass(frozen=True)
class Differences:
    """Central differences of returns along directions of θ, on common random numbers.

    Attributes:
        narrow, wide: at step ε and 2ε, for every truncation, importance weights included,
            [T, directions, n].
        boundary: the part of a wider difference that changed ends of episodes make, which no
            pathwise gradient sees, [T, directions, n′ ≥ n]; None where termination is ignored.
        directions: [directions, P], unit length.
    """

    narrow: Tensor
    wide: Tensor
    boundary: Tensor | None
    directions: Tensor

    def at(self, T: int) -> Differences:
        """Those of truncation T, an axis of length 1."""
        rows = slice(T - 1, T)
        boundary = None if self.boundary is None else self.boundary[rows]
        return replace(self, narrow=self.narrow[rows], wide=self.wide[rows], boundary=boundary)


def common_random_differences(
    setting: Setting, *, actions: str = "first", n: int = 64, progress: Progress = silent
) -> Differences:
    """Differences of the T-step return for T = 1 … H along 8 random directions.

    The step ε moves actions by about a thousandth of their size. With `actions="first"` only the
    first action sees the perturbed parameters. Noise equals the rollouts' of the same seed, so
    that a difference is paired with the unrolled gradient of the same start.

    Under termination "mask" a difference at so small a step hardly ever sees an episode end
    elsewhere: of what it would see then, a jump of the return with a chance of order ε, the
    boundary term is measured by itself at a step WIDER times as large, as the return under the
    perturbed episodes' own ends less that under the unperturbed ends.
    """
    policy, starts, seed = setting.policy, setting.starts, setting.seed
    few = starts.block(slice(0, min(n, len(starts.states))))
    theta = flat_parameters(policy)
    draw = torch.randn(_DIRECTIONS, len(theta), generator=stream(seed, "directions")).to(theta)
    trained = torch.cat([p.new_full((p.numel(),), p.requires_grad) for p in policy.parameters()])
    directions = nn.functional.normalize(draw * trained, dim=1)
    size = own_size(policy, few.states, few.policy_noise(policy, seed, 0), directions)
    # θ, where s_0 has no say, moves by a hundredth.
    epsilon = min(1e-3 * size, 1e-2 * max(float(theta.norm()), 1.0))

    def rolled(rows: Starts, *steps: float) -> tuple[Tensor, Tensor]:
        """Weighted discounted rewards and alive, [horizon, directions, len(steps), rows]."""
        n, t = len(rows.states), count()
        perturbed = [(step * v, n) for v in directions for step in steps]
        carrying = moved(policy, perturbed)

        def acting(state: Tensor, noise: Tensor) -> Tensor:
            carries = WAYS[actions].carries(next(t))
            return carrying(state, noise) if carries else act(policy, state, noise)

        each = torch.arange(n).repeat(len(perturbed))
        going = stepped(replace(setting, starts=rows), [(rows, each)], acting, rest=False)
        taken = []
        for k, step in enumerate(islice(going, setting.horizon)):
            taken.append(step)
            progress("finite differences", k + 1, setting.horizon)
        shape = (setting.horizon, _DIRECTIONS, len(steps), len(rows.states))
        paid, alive = (
            torch.stack([getattr(step, name) for step in taken]).reshape(shape)
            for name in ("paid", "before")
        )
        return rows.weight * paid, alive

    rewards, alive = rolled(few, epsilon, -epsilon, 2 * epsilon, -2 * epsilon)
    counted = torch.where(alive, rewards, 0.0) if setting.termination == "mask" else rewards
    plus, minus, plus2, minus2 = counted.cumsum(dim=0).unbind(dim=2)
    boundary = None
    if setting.termination == "mask":
        more = starts.block(slice(0, min(_MORE * n, len(starts.states))))
        wide = _WIDER * epsilon
        paid, going = rolled(more, wide, -wide, 0.0)
        ends = going.to(paid.dtype) - going[:, :, 2:].to(paid.dtype)
        up, down, _ = torch.where(ends == 0, 0.0, paid * ends).unbind(dim=2)
        boundary = (up - down).cumsum(dim=0) / (2 * wide)
    narrow, wider = (plus - minus) / (2 * epsilon), (plus2 - minus2) / (4 * epsilon)
    return Differences(narrow, wider, boundary, directions)


def own_size(
    policy: nn.Module,
    states: Tensor,
    noise: Tensor,
    directions: Tensor,
    weight: Tensor | None = None,
) -> float:
    """Length of a step along unit directions [D, P] that moves actions by their own size, rms over
    states of these weights [N]; None: equal ones."""
    jacobian = policy_jacobian(policy, states, noise)
    with torch.no_grad():
        action = act(policy, states, noise)
    row = torch.ones_like(action[:, 0]) if weight is None else weight / weight.mean()
    reach, size = (
        float((row[:, None] * x.square()).mean().sqrt()) for x in (jacobian @ directions, action)
    )
    return max(size, 1e-2) / max(reach, 1e-12)


def mean_and_error(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over samples [..., n] and its standard error, groups [n] being the independent units.

    The error of one group alone is unknown, 0 here.
    """
    n = values.shape[-1]
    labels, inverse = np.unique(group.cpu().numpy(), return_inverse=True)
    mean, groups = values.mean(dim=-1), len(labels)
    if groups < 2:
        return mean, torch.zeros_like(mean)
    deviations = values - mean[..., None]
    label = torch.from_numpy(inverse).to(values.device)
    sums = values.new_zeros(*values.shape[:-1], groups).index_add_(-1, label, deviations)
    return mean, (sums.square().sum(dim=-1) * groups / (groups - 1)).sqrt() / n
