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

from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import check_rollouts
from gradlab.gradients.setting import (
    Setting,
    Starts,
    group_count,
)
from gradlab.gradients.start_laws import check_alive, visits
from gradlab.measurement.grams import TermCache, explicit_kernels, kept_cells
from gradlab.measurement.inner_products import (
    Measured,
    all_action_sources,
    first_action_sources,
    in_order,
    moments_of,
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
    visiting = {
        name: estimator for name, estimator in chosen.items() if not estimator.way.all_actions
    }
    staying = {name: estimator for name, estimator in chosen.items() if name not in visiting}
    begin, samples = affordable(setting, truth, samples)
    setting = replace(setting, starts=begin)
    path = None if truth.path is None else (setting.simulator, truth.path)
    sources = all_action_sources(staying, TermCache(setting, len(staying), path), {})
    T = None if truth.every is None else truth.every.gradients
    at = begin
    if visiting:
        at = visited(setting, steps_beside(setting, truth), samples, truth)
        there = replace(setting, starts=at)
        check_rollouts(there, setting.horizon)
        sources += first_action_sources(visiting, there, samples, {}, progress)[0]
    rows = None if T is None else T.__getitem__
    cells, means = moments_of(sources, setting.policy, begin, rows, progress)
    products = kept_cells(cells, setting.horizon, batch, kept)
    repeats = samples if visiting else 1
    kernels = explicit_kernels("objective", sources, products, begin, rows, repeats)
    true = None if T is None else T.mean(dim=0)
    return in_order(chosen, cells, (kernels,), means, true, at, len(begin.states), samples)


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
