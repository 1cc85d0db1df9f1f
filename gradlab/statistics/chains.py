"""Growth rates of a product of Jacobians, without forming it.

    P_t = M_{t−1} ⋯ M_0,      ln σ_k(P_t),      λ_k = slope of ln σ_k over the steps

The product is kept as Q diag(e^l) with orthogonal Q: rotations on its right change no singular
value and are dropped. One step takes the QR factors of M Q diag(e^l), columns sorted by size, and
Jacobi rotations of the triangle's rows, which find graded singular values to high relative accuracy
(Demmel and Veselić, 1992). Only the logarithms l grow, so that two thousand steps overflow no more
than two.

Exponents are slopes over the second half of the window: the first half holds the transient of
non-normal matrices and the turning of the directions. Modes that turn let ln σ_k swing about its
line for good, so that a slope over n steps is off by about its swing over n (`swing`), which no
number of starts shows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
_Indices = NDArray[np.int64]

_SWEEPS = 30  # convergence is quadratic: five are common
_ORTHOGONAL = 1e-12  # cosine between rows at which the sweeps end


def log_singular_values(M: _Array, skip: Flags | None = None) -> _Array:
    """ln σ_k of every product P_t, t = 0 … H, largest first.

    Args:
        M: [H, N, d, d].
        skip: [H, N], steps that are passed over as if M were the identity; M may be anything there.

    Returns:
        [H + 1, N, d]; −inf where a product is singular.
    """
    H, n, d = M.shape[:3]
    logs = np.zeros((H + 1, n, d))
    Q = np.broadcast_to(np.eye(d), (n, d, d))
    for t in range(H):
        here = np.full(n, True) if skip is None else ~skip[t]
        logs[t + 1] = logs[t]
        if here.any():
            turned, grown = _graded(M[t, here] @ Q[here], logs[t, here])
            Q = Q.copy()
            Q[here], logs[t + 1, here] = turned, grown
    return logs


def exponents(logs: _Array, skip: Flags | None = None) -> _Array:
    """Finite-time Lyapunov exponents λ_k per step over the second half of the window.

    Args:
        logs: [H + 1, N, d] of `log_singular_values`.
        skip: [H, N], steps that were passed over and do not count.

    Returns:
        [N, d], in the order of the singular values; NaN where no step of the second half counts,
        −inf where the product is singular.
    """
    H, n = logs.shape[0] - 1, logs.shape[1]
    half = H // 2
    counted = np.full((H, n), True) if skip is None else ~skip
    steps = counted[half:].sum(0).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (logs[H] - logs[half]) / steps[:, None]
    return np.asarray(np.where(np.isneginf(logs[H]), -np.inf, slope))


def second_half(curves: _Array) -> _Array:
    """The part of curves [H + 1, ...] whose slopes are the exponents."""
    return curves[(len(curves) - 1) // 2 :]


def swing(late: _Array) -> _Array:
    """Range of what a line leaves of curves [n + 1, ...], per step, [...]."""
    steps = len(late) - 1
    share = np.arange(steps + 1).reshape(-1, *[1] * (late.ndim - 1)) / steps
    with np.errstate(invalid="ignore"):  # −inf where a product is singular
        left = late - late[0] - share * (late[-1] - late[0])
    return np.asarray(np.nan_to_num(np.ptp(left, axis=0)) / steps)


def ahead(late: _Array) -> _Array:
    """Slope of curves [n + 1, ...] as it would be over a window of twice the length, [...], did it
    go on to change as from the first half of these steps to the second; NaN with fewer than 2."""
    steps = len(late) - 1
    middle = steps // 2
    if not middle:
        return np.full(late.shape[1:], np.nan)
    with np.errstate(invalid="ignore"):  # −inf where a product is singular
        early = (late[middle] - late[0]) / middle
        last = (late[-1] - late[middle]) / (steps - middle)
        # Of steps n … 3n, from the middle of the last part, in halves of n.
        return np.asarray(last + (last - early) * (3 - middle / steps))


def product_error(true: _Array, model: _Array, skip: Flags | None = None) -> _Array:
    """‖P̂_t − P_t‖_F / ‖P_t‖_F of two chains, t = 0 … H: above 1, zero is the better guess.

    Both are divided by ‖P_t‖ at every step, so that only their ratio can overflow (to inf).

    Args:
        true, model: [H, N, d, d].
        skip: [H, N], steps that both chains pass over.

    Returns:
        [H + 1, N]; NaN once the true product is 0.
    """
    H, n, d = true.shape[:3]
    P, guess = (np.broadcast_to(np.eye(d) / d**0.5, (n, d, d)).copy() for _ in range(2))
    errors = np.zeros((H + 1, n))
    for t in range(H):
        here = np.full(n, True) if skip is None else ~skip[t]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            P[here], guess[here] = true[t, here] @ P[here], model[t, here] @ guess[here]
            size = np.linalg.norm(P, axis=(1, 2), keepdims=True)
            P, guess = P / size, guess / size
            errors[t + 1] = np.linalg.norm(guess - P, axis=(1, 2))
        errors[t + 1] = np.where(np.isfinite(P).all((1, 2)), errors[t + 1], np.nan)
        # inf − inf: the guess has left every scale.
        lost = np.isnan(errors[t + 1]) & np.isfinite(P).all((1, 2))
        errors[t + 1, lost] = np.inf
    return errors


def _graded(X: _Array, logs: _Array) -> tuple[_Array, _Array]:
    """Left singular vectors [N, d, d] and ln σ [N, d] of X diag(e^logs), largest first.

    X D = q R with sorted columns, then Jacobi rotations J of the rows of R, kept as unit vectors C
    and logarithms of their sizes, until they are orthogonal: X D = q J diag(σ) Wᵀ.
    """
    n, d = logs.shape
    with np.errstate(divide="ignore"):
        order = np.argsort(-(logs + np.log(np.linalg.norm(X, axis=1))), axis=1)
    q, R = np.linalg.qr(_columns(X, order))
    C, logs = _unit_rows(R, np.take_along_axis(logs, order, 1))
    J = np.broadcast_to(np.eye(d), (n, d, d)).copy()  # row k: what makes row k of J R
    for _ in range(_SWEEPS):
        largest = 0.0
        for i, j in _rounds(d):
            largest = max(largest, _rotate(C, logs, J, i, j))
        if largest < _ORTHOGONAL:
            break
    order = np.argsort(-logs, axis=1)
    turned = q @ J.transpose(0, 2, 1)
    return _columns(turned, order), np.take_along_axis(logs, order, 1)


def _columns(X: _Array, order: _Indices) -> _Array:
    return np.take_along_axis(X, order[:, None, :], 2)


def _unit_rows(R: _Array, logs: _Array) -> tuple[_Array, _Array]:
    """R diag(e^logs) = diag(e^l) C with rows of C of norm 1, or 0 where l = −inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        entries = np.log(np.abs(R)) + logs[:, None, :]
        largest = entries.max(2)
        C = np.sign(R) * np.exp(entries - largest[:, :, None])
        C = np.where(np.isneginf(largest)[:, :, None], 0.0, C)
        norm = np.linalg.norm(C, axis=2)
        return C / np.where(norm > 0, norm, 1.0)[:, :, None], largest + np.log(norm)


@lru_cache(maxsize=16)
def _rounds(d: int) -> tuple[tuple[_Indices, _Indices], ...]:
    """A round-robin tournament: every pair once, the pairs of a round disjoint."""
    players = list(range(d + d % 2))
    rounds = []
    for _ in range(len(players) - 1):
        pairs = zip(players[: len(players) // 2], players[::-1], strict=False)
        real = np.array([sorted(p) for p in pairs if max(p) < d], dtype=np.int64)
        real = real.reshape(-1, 2)
        rounds.append((real[:, 0], real[:, 1]))
        players = [players[0], players[-1], *players[1:-1]]
    return tuple(rounds)


def _rotate(C: _Array, logs: _Array, J: _Array, i: _Indices, j: _Indices) -> float:
    """Make rows i and j of diag(e^logs) C orthogonal, in place; the largest cosine there was.

    With a, b the sizes, g the cosine and ρ = b/a ≤ 1 the rotation has the tangent τ ρ,
        τ = 2 g / (s + √(s² + 4 ρ² g²)),   s = 1 − ρ²,
    which neither underflow nor overflow of e^logs can touch.
    """
    rows = np.arange(len(C))[:, None]
    swap = logs[:, i] < logs[:, j]
    big, small = np.where(swap, j, i), np.where(swap, i, j)
    a, b = logs[rows, big], logs[rows, small]
    x, y, u, v = C[rows, big], C[rows, small], J[rows, big], J[rows, small]
    g = np.einsum("npk,npk->np", x, y)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isneginf(b), 0.0, np.exp(b - a))
    s = 1 - ratio**2
    root = s + np.sqrt(s**2 + (2 * ratio * g) ** 2)
    tau = np.where(root > 0, 2 * g / np.where(root > 0, root, 1.0), 0.0)
    cos = 1 / np.sqrt(1 + (tau * ratio) ** 2)
    sin = (tau * ratio * cos)[:, :, None]
    x, y = x + (tau * ratio**2)[:, :, None] * y, y - tau[:, :, None] * x
    J[rows, big] = cos[:, :, None] * u + sin * v
    J[rows, small] = cos[:, :, None] * v - sin * u
    for which, at, log in ((x, big, a), (y, small, b)):
        norm = np.linalg.norm(which, axis=2)
        safe = np.where(norm > 0, norm, 1.0)
        C[rows, at] = which / safe[:, :, None]
        with np.errstate(divide="ignore"):
            logs[rows, at] = log + np.log(norm * cos)
    return float(np.abs(g).max(initial=0.0))
