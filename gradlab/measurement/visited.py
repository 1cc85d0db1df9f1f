"""One truth for every estimator: the gradient of the objective, ∇_θ E_ζ[V^π].

By the policy gradient theorem it is, with ν the normalised discounted visitation from ζ,

    ∇_θ E_ζ[V^π] = Σ_t γᵗ E_ζ[J_θπ(s_t)ᵀ ∂_a Q^π(s_t, a_t)] = E_ν[J_θπᵀ ∂_a Q^π] / (1 − γ)

so that estimators with θ in every action, and scores, begin at the starts themselves, and those
with θ in the first action at states visited from these starts, their gradients times 1/(1 − γ).
The sum over t ends where γᵗ does, as in a loop: the gradient of a critic may be wrong where nothing
is left of the true one. Where the truth is cut at its T, so is the sum: what is left out belongs to
both sides then. A visited state is paired with the truth of the start that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.gradients.courses import Carried
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import check_rollouts
from gradlab.gradients.setting import (
    Setting,
    Starts,
    group_count,
)
from gradlab.gradients.start_laws import check_alive, visits
from gradlab.measurement.accumulator import accumulated
from gradlab.measurement.grams import GramSource, Held, explicit_kernels, kept_cells
from gradlab.measurement.inner_products import (
    Measured,
    explicit_cells,
    explicit_sources,
    first_action_gradients,
    horizons_of,
)
from gradlab.progress import Progress, silent
from gradlab.systems.system import System
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.truth import Truth

SAMPLES = 8  # visited states per start, at most
VISITING = 20.0  # seconds of one core for the Jacobians at them (`linearization_price`)
FEWEST = 16  # starts, however dear


def objective_moments(
    chosen: Mapping[str, Estimator],
    setting: Setting,
    truth: Truth,
    progress: Progress = silent,
    kept: Sequence[int] | None = None,
    samples: int = SAMPLES,
    batch: int = 256,
) -> Measured:
    """Moments of every estimator at every horizon it has, all against one truth, and kernels.

    Args:
        truth: whose `every` is ∇_θ V at each start, weights included. Where there is none, states
            are visited for as many steps as there are horizons.
        kept: horizons whose inner products are kept; None: `grams.kept_cells`.
        samples: visited states per start, at most.
        batch: N′ at which errors decide whose inner products are kept.
    """
    visiting = {name: estimator for name, estimator in chosen.items() if not estimator.way.every}
    staying = {name: estimator for name, estimator in chosen.items() if name not in visiting}
    begin, samples = affordable(setting, truth, samples)
    setting = replace(setting, starts=begin)
    path = None if truth.path is None else (setting.simulator, truth.path)
    held = Held(setting, len(staying), path)
    cells, means = explicit_cells(staying, held, truth, progress, {})
    T = None if truth.every is None else truth.every.gradients
    at = begin
    if visiting:
        seen = visited(setting, steps_beside(setting, truth), samples, truth)
        check_rollouts(replace(setting, starts=seen), setting.horizon)
        first = first_action_gradients(visiting, replace(setting, starts=seen), progress)
        keys = [(name, n) for name in visiting for n in horizons_of(visiting[name])]
        noise = seen.policy_noise(setting.policy, setting.seed, 0)
        jacobian = policy_jacobian(setting.policy, seen.states, noise)
        G = torch.stack([first[name][n] for name, n in keys]) * seen.weight[:, None]
        at, whole = seen, visiting_source(keys, G, jacobian, samples)
        moments, mean = accumulated(
            lambda rows: [whole.rows(rows)], setting.policy, begin, T, samples
        )
        cells |= dict(zip(keys, moments, strict=True))
        means |= dict(zip(keys, mean, strict=True))
    products = [cell for cell in cells if cell[1] in (kept or ())]
    products = products or kept_cells(cells, setting.horizon, len(chosen), batch)
    sources = explicit_sources(staying, held, products)
    if visiting:
        some = [k for k, key in enumerate(keys) if key in products]
        sources.append(visiting_source([keys[k] for k in some], G[some], jacobian, samples))
    kernels = explicit_kernels("objective", sources, begin, T, samples if visiting else 1)
    ordered = {key: cells[key] for name in chosen for key in cells if key[0] == name}
    true = None if T is None else T.mean(dim=0)
    means = {key: means[key] for key in ordered}
    return Measured(ordered, (kernels,), means, true, at, len(begin.states), samples)


def steps_visited(setting: Setting, status: str, horizon: int) -> int:
    """For how many steps states are visited, beside a truth of this status and of so many steps: 1%
    of the discount is left after them, unless the truth, cut, ends before."""
    if status in ("converged", "imprecise"):
        return max(horizon, effective_horizon(setting.discount))
    return horizon


def steps_beside(setting: Setting, truth: Truth) -> int:
    """`steps_visited`; as many as there are horizons where no return was summed."""
    if truth.every is None and truth.status != "jumps":
        return max(setting.horizon, 1)
    return steps_visited(setting, truth.status, truth.horizon)


def visited(setting: Setting, steps: int, samples: int, truth: Truth | None = None) -> Starts:
    """The states that all starts visit in so many steps; in those of the truth, where they leave
    the finite numbers after them, or all of them end."""
    if truth is not None and steps > truth.horizon:
        with suppress(InputError):
            return visited(setting, steps, samples)
        steps = truth.horizon
    at = visits(replace(setting, horizon=steps), samples)
    if setting.termination == "mask":
        check_alive(at)
    return at


def affordable(setting: Setting, truth: Truth, most: int) -> tuple[Starts, int]:
    """The starts whose gradients are taken, and how many visited states of each.

    Fewer visits where Jacobians are dear; and fewer starts where one visit is, too, and there is no
    truth that all of them would be paired with.
    """
    begin = setting.starts
    price = setting.horizon * linearization_price(setting.simulator) * len(begin.states)
    if not price:
        return begin, most
    samples = min(max(int(VISITING / price), 1), most)
    few = max(int(len(begin.states) * VISITING / price), FEWEST)
    alone = group_count(begin.group) == len(begin.states)
    if price <= VISITING or truth.every is not None or not alone:
        return begin, samples
    return begin.block(slice(0, min(few, len(begin.states)))), samples


def linearization_price(system: System) -> float:
    """Seconds of one core for the Jacobians at one state; 0 where nobody counts them."""
    price: float = getattr(system, "linearization_price", 0.0)
    return price


def visiting_source(
    keys: Sequence[tuple[str, int]], G: Tensor, jacobian: PolicyJacobian, samples: int
) -> GramSource:
    """First-action gradients at the visits of some starts, as (visit, start).

    Args:
        keys: estimator and horizon of each of the action gradients G [K, visits, da], which
            include the weights of the states; jacobian: ∂π/∂θ there.
        samples: visits of each start.
    """
    x = G.reshape(len(keys), -1, samples, G.shape[2]).transpose(1, 2)  # [K, S, n, da]
    sample = torch.arange(jacobian.samples).reshape(-1, samples).T

    def rows(block: slice) -> Carried:
        some = jacobian.rows(sample[:, block].flatten())
        return Carried(x[:, :, block], some, (samples - 1,) * len(keys))

    return GramSource(tuple(keys), rows, visits=True)
