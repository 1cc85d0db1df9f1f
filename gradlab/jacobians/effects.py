"""The effect of each entry of ΔJ on the gradient in the first action.

    g = Σ_t γᵗ zₜᵀ (r_s, r_a)_t,   z_0 = (0, I),   z_{t+1} = (I, K_{t+1}) [A B]_t z_t
    effect of entry (i, j)  =  Σ_t γᵗ w_{t,i} ΔJ_{t,ij} z_{t,j}
    w_t = (γ p_{t+1}, 1)  for (s', r),    p_t = c_t + γ M_tᵀ p_{t+1},   p_H = 0

To first order in ΔJ, on the simulator's states and without a critic; the root mean square over the
starts is relative to that of g. Masked steps are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from gradlab.errors import InputError
from gradlab.jacobians.rows import At, Rows
from gradlab.jacobians.visited import Array, Visited
from gradlab.statistics.over_groups import group_sums, root_ratio


def add_effects(
    rows: Rows, visited: Visited, discount: float, states: Sequence[str], actions: Sequence[str]
) -> None:
    """Quantity "effect" of section entry."""
    with np.errstate(over="ignore", invalid="ignore"):
        effects, gradient = _effects(visited, discount)
    finite = np.isfinite(effects).all((1, 2)) & np.isfinite(gradient)
    if not finite.any():
        raise InputError(
            "states lead to no finite Jacobian and gradient: begin where the simulator stays finite"
        )
    squares = effects[finite].reshape(int(finite.sum()), -1)
    X = group_sums(squares, visited.group[finite])
    Z = group_sums(gradient[finite][:, None], visited.group[finite])
    labels = list(product([*states, "reward"], [*states, *actions]))
    estimates = root_ratio(X, np.broadcast_to(Z, X.shape), np.full(X.shape[1], finite.sum()))
    rows.add(
        "entry",
        "effect",
        estimates,
        At(output=[o for o, _ in labels], input=[i for _, i in labels]),
    )


def _effects(visited: Visited, discount: float) -> tuple[Array, Array]:
    """Squared norm over actions of every entry's effect [N, ds + 1, ds + da], and of g [N]."""
    H, n, ds = visited.states[1:].shape
    J, K, kept = visited.true.J.copy(), visited.K, visited.kept
    wrong = visited.wrong
    J[~kept] = np.eye(*J.shape[2:])
    J[..., ds, :][~kept] = 0.0
    costate = _costates(J, K, discount)
    z = np.zeros((n, *J.shape[3:], K.shape[2]))
    z[:, ds:] = np.eye(K.shape[2])
    effects, gradient = np.zeros((*wrong.shape[1:], K.shape[2])), np.zeros((n, K.shape[2]))
    for t in range(H):
        effects += discount**t * np.einsum("ni,nij,nja->nija", costate[t], wrong[t], z)
        gradient += discount**t * np.einsum("nj,nja->na", J[t, :, ds], z)
        if t + 1 < H:
            moved = J[t, :, :ds] @ z
            z = np.concatenate([moved, K[t + 1] @ moved], 1)
    return (effects**2).sum(3), (gradient**2).sum(1)


def _costates(J: Array, K: Array, discount: float) -> Array:
    """[H, N, ds + 1]: what a change of (s', r) of step t is worth, (γ p_{t+1}, 1)."""
    H, n, outputs = J.shape[:3]
    ds = outputs - 1
    worth = np.ones((H, n, outputs))
    p = np.zeros((n, ds))
    for t in reversed(range(H)):
        worth[t, :, :ds] = discount * p
        pulled = np.einsum("ni,nij->nj", worth[t], J[t])
        p = pulled[:, :ds] + np.einsum("na,nas->ns", pulled[:, ds:], K[t])
    return worth
