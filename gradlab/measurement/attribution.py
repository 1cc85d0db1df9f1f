"""Substitutions and redrawn noise of a measurement's estimators, for its attribution.

Bias: substitutions into every estimator that differentiates a model along states that it rolls out
with θ in the first action. Variance, by source: for g(s, ε, ξ, m) of the start, policy noise,
dynamics noise and ensemble members,

    V = Var_s E[g|s] + E Var_ε E[g|s, ε] + E Var_ξ E[g|s, ε, ξ] + E Var_m g      (total variance)
    E Var[g | s, ε, ξ] = ½ E|g − g(m′)|²,   E Var[g | s, ε] = ½ E|g − g(ξ′, m′)|²,   …

with primes redrawn; the starts have the rest of V. Horizons: 1 … H in equal ratios, at most eight,
that of the smallest MSE among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab import theory, validation
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.gradients.estimator import Estimator, checked, first_horizon, with_entropy
from gradlab.gradients.setting import Setting, by_group, grouping
from gradlab.gradients.start_laws import visits
from gradlab.gradients.trajectory import TermRequest
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.measurement.assembly import truth_values
from gradlab.measurement.resolve import Resolved
from gradlab.measurement.substitution import (
    CAUSES,
    MOST_HORIZONS,
    Substitutions,
    detail,
    squared_bias_games,
    substitutions,
)
from gradlab.measurement.visited import steps_visited
from gradlab.progress import Progress
from gradlab.runs.identity import Cell
from gradlab.runs.profile import Profile
from gradlab.runs.substitutions import (
    Coalitions,
    Label,
    SubstitutionResults,
    VarianceDraws,
    rows_of,
)
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.statistics.shapley import Game
from gradlab.systems.system import Recorded
from gradlab.truth.truth import matched_truth

DRAWS = ("policy", "dynamics", "member")
NUMBERS = 1 << 23  # of per-sample gradients held at once, for each of the four draws


def added_variance(
    estimator: Estimator, setting: Setting, horizons: Sequence[int]
) -> list[dict[str, Estimate]]:
    """What each of `DRAWS` adds to the trace of the per-sample covariance, at each horizon.

    Args:
        horizons: those of the estimator; its own horizon is not used.

    Raises:
        InputError: the estimator does not fit the policy or the starts.
    """
    begin = checked(estimator, setting.policy, setting.starts, setting.termination)
    plain, policy = with_entropy(estimator, setting.policy)
    plain = replace(plain, tail=replace(plain.tail, horizon=max(horizons)))
    step = max(1, NUMBERS // sum(p.numel() for p in policy.parameters()))
    blocks = [
        _products(plain, replace(setting, policy=policy, starts=rows), tuple(horizons))
        for rows in begin.blocks(step)
    ]
    products = torch.cat(blocks, dim=2)  # [horizons, DRAWS, N]
    label, size = grouping(begin)
    return [
        {
            name: sample_mean(sums, size)
            for name, sums in zip(DRAWS, by_group(of_horizon, label), strict=True)
        }
        for of_horizon in products
    ]


def _products(estimator: Estimator, setting: Setting, horizons: tuple[int, ...]) -> Tensor:
    """What each of `DRAWS` adds to ½|g − g′|² of every sample, [horizons, DRAWS, N]."""
    asked = TermRequest(setting.policy, setting.starts, horizons, setting.seed, setting.termination)
    several = [
        costate_terms(
            estimator, asked.elsewhere(replace(setting.starts, redrawn=frozenset(DRAWS[k:])))
        )
        for k in range(len(DRAWS) + 1)  # all … none
    ]
    added = []
    for k in range(len(horizons)):
        every = [terms.jacobian.gradients(terms.costates[k]) for terms in several]
        left = [0.5 * (every[-1] - gradient).square().sum(dim=1) for gradient in every]
        added.append([more - less for more, less in pairwise(left)])
    return torch.stack([torch.stack(shares) for shares in added])


_RULE = (
    f"at most {MOST_HORIZONS} horizons, 1 … H in equal ratios, the estimator's MSE-best in the "
    f"place of its nearest"
)
_VISITED = "one visited state per start"
_MEMORY = 8e9  # bytes of the truth's Jacobians, on its own path and on the model's
_ASKED = "the horizons that were asked for"
_NONE_ASKED = "it has none of the horizons that were asked for"


def attributed(
    profile: Profile, asked: Resolved, among: Sequence[int] | None, progress: Progress
) -> tuple[SubstitutionResults, tuple[Finding, ...]]:
    """Everything that an attribution of this profile needs, and RP-PGM's h* of the first model.

    Args:
        among: horizons to attribute; None: by the rule above.
    """
    if profile.truth["kind"] == "objective":
        profile, asked = _at_visited_states(profile, asked, progress)
    skipped: dict[str, str] = {}
    games: list[tuple[Cell, Game]] = []
    rows: list[tuple[Label, Estimate]] = []
    draws: list[tuple[Cell, Mapping[str, Estimate]]] = []
    optimum: tuple[Finding, ...] = ()
    for done, (name, estimator) in enumerate(asked.chosen.items()):
        progress("attribution", done, len(asked.chosen))
        horizons = _horizons(profile, name, estimator, among)
        why = _no_substitution(profile, estimator, asked)
        if why or not horizons:
            skipped[name] = why or _NONE_ASKED
        else:
            steps = int(profile.truth["horizon"])
            substituted = substitutions(estimator, replace(asked.setting, horizon=steps), horizons)
            optimum = optimum or (optimal_horizon(substituted, name),)
            rows += _rows(substituted, len(games))
            games += [
                ((name, n), game)
                for n, game in zip(horizons, squared_bias_games(substituted), strict=True)
            ]
        why = _no_redraw(profile, estimator)
        if why or not horizons:
            skipped[f"variance of {name}"] = why or _NONE_ASKED
            continue
        every = added_variance(estimator, asked.setting, horizons)
        draws += [((name, n), variance) for n, variance in zip(horizons, every, strict=True)]
    progress("attribution", len(asked.chosen), len(asked.chosen))
    results = SubstitutionResults(
        coalitions=_stacked(games, profile.left_out.shape[3]),
        rows=rows_of(rows),
        draws=_drawn(draws, profile.left_out.shape[3]),
        state_names=_names(asked.task.state_names, "s", asked.setting.simulator.state_dim),
        action_names=_names(asked.task.action_names, "a", asked.setting.simulator.action_dim),
        skipped=skipped,
        rule=_RULE if among is None else _ASKED,
    )
    return results, optimum


def optimal_horizon(substituted: Substitutions, name: str) -> Finding:
    """RP-PGM Proposition 5.10 by constants along the truth's path, in the task's units.

    ε_f is (4.7) on the simulator's states, ε_v (4.8) averaged over the steps; L_f and L_π are the
    largest norms of the model's [A B] and of K, growth that of A + BK of either.
    """
    model, true = substituted.along[1]
    K = model.linear.K[:-1].numpy()
    blocks = [(x.linear.A.numpy(), x.linear.B.numpy()) for x in (model, true)]
    tails = [(x.tail.q_s.flatten(0, 1), x.tail.q_a.flatten(0, 1)) for x in (model, true)]
    (A_hat, B_hat), (A, B) = blocks
    (q_s_hat, q_a_hat), (q_s, q_a) = tails
    try:
        epsilon_f = theory.rp_model_error(A, A_hat, B, B_hat)
        epsilon_v = theory.rp_critic_error(q_s, q_s_hat, q_a, q_a_hat)
        constants = theory.RPConstants(
            substituted.discount,
            L_f=_largest(np.concatenate([A_hat, B_hat], axis=3)),
            L_pi=_largest(K),
            closed_loop=max(_largest(A + B @ K), _largest(A_hat + B_hat @ K)),
        )
        h = theory.rp_horizon(substituted.discount, epsilon_f, epsilon_v)
    except InputError as error:  # not finite, or without a root
        return Finding("theory_none", "skipped", name, at=str(error))
    n, unmet = A.shape[1], " and ".join(constants.unmet)
    at = f"ε_f {epsilon_f:.3g}, ε_v {epsilon_v:.3g}, growth {constants.growth:.3g} a step"
    if unmet:
        return Finding("theory_outside", "skipped", name, h, n=n, at=f"{at}, not {unmet}")
    return Finding("theory", "pass", name, h, n=n, at=at)


def _largest(J: NDArray[np.float64]) -> float:
    """The largest spectral norm of Jacobians [..., d, d']."""
    return float(np.linalg.norm(J, 2, axis=(-2, -1)).max())


def _at_visited_states(
    profile: Profile, asked: Resolved, progress: Progress
) -> tuple[Profile, Resolved]:
    """The same first-action gradients against their matched truth, at one state per start.

    Its expectation at visited states, weights included, is the gradient of the return, so that
    the causes are those of the same bias; the truth of a start cannot be substituted into.
    """
    here, told = asked.setting, profile.truth
    steps = steps_visited(here, str(told["status"]), int(told["horizon"]))
    setting = replace(here, starts=visits(replace(here, horizon=steps), 1))
    reference = matched_truth(setting, check=False, progress=progress)
    there = replace(profile, truth={**truth_values(reference, "matched"), "law": _VISITED})
    return there, replace(asked, setting=setting)


def check_horizons(chosen: bool | Sequence[int], longest: int) -> None:
    """Can these horizons be attributed? Asked before anything is computed.

    Raises:
        InputError: more than eight, or not of a measurement up to `longest`.
    """
    if isinstance(chosen, bool):
        return
    given = list(chosen) if isinstance(chosen, Sequence) and not isinstance(chosen, str) else []
    whole = all(isinstance(n, int) and 0 <= n <= longest for n in given)
    if not whole or not 1 <= len(set(given)) <= MOST_HORIZONS:
        raise InputError(
            f"attribute is {given or validation.shown(chosen)}, expected 1 to {MOST_HORIZONS} "
            f"horizons from 0 to {longest}, or True"
        )


def spread_horizons(longest: int, best: int | None = None) -> tuple[int, ...]:
    """At most eight of 1 … H in equal ratios; `best` takes the place of its nearest inner one."""
    if longest == 0:
        return (0,)
    chosen = {round(n) for n in np.geomspace(1, longest, MOST_HORIZONS)}
    if best is not None and 0 < best <= longest and best not in chosen:
        inner = sorted(chosen - {1, longest})
        if len(chosen) == MOST_HORIZONS and inner:
            chosen.remove(min(inner, key=lambda n: abs(np.log(n / best))))
        chosen.add(best)
    return tuple(sorted(chosen))


def _horizons(
    profile: Profile, name: str, estimator: Estimator, chosen: Sequence[int] | None
) -> tuple[int, ...]:
    """Those of one estimator; an estimator of one horizon has that one."""
    least, most = first_horizon(estimator), estimator.tail.horizon
    if least == most:
        return (most,)
    if chosen is not None:
        return tuple(sorted({n for n in chosen if least <= n <= most}))
    mse = profile.columns["value"][
        profile.estimators.index(name), profile.quantities.index("mse"), 1 : most + 1
    ]
    best = int(np.nanargmin(mse)) + 1 if np.isfinite(mse).any() else None
    return spread_horizons(most, best)


def _no_substitution(profile: Profile, estimator: Estimator, asked: Resolved) -> str:
    """Why the truth cannot be put in the place of this estimator's parts; "": it can."""
    truth, simulator = profile.truth, asked.setting.simulator
    if not truth["admissible"]:
        return "there is no truth to put in the place of its parts"
    if estimator.way.all_actions:
        return f"it has actions {estimator.actions!r}: parts are substituted in first actions only"
    if estimator.cut:
        return f"its path is cut ({estimator.cut}), which no part of the truth would restore"
    if isinstance(estimator.states, Recorded):
        return "its states are recorded: the true critic's values cannot be continued from them"
    if estimator.jacobians is None:
        return "it differentiates no model: all of its squared bias is the critic's ∇_a"
    if estimator.states is simulator and estimator.jacobians is simulator:
        return "its dynamics are the simulator's: all of its squared bias is the critic's"
    width = simulator.state_dim + simulator.action_dim + 2
    needed = 8 * 2 * truth["horizon"] * len(asked.setting.starts.states) * width**2
    if needed > _MEMORY:
        return f"the truth's whole path needs about {needed / 1e9:.0f} GB: measure fewer starts"
    return ""


def _no_redraw(profile: Profile, estimator: Estimator) -> str:
    """Why the noise of this estimator cannot be drawn again; "": it can."""
    if profile.truth.get("law") == _VISITED:
        return "its samples are taken at visited states: measure with law='start'"
    if isinstance(estimator.states, Recorded):
        return "its noise was recorded and cannot be drawn again"
    return ""


def _rows(substituted: Substitutions, cells: int) -> Iterator[tuple[Label, Estimate]]:
    """Entries and steps of every cause at every horizon; `cells`: the number of earlier ones."""
    for k, n in enumerate(substituted.horizons):
        for cause in CAUSES:
            parts = detail(substituted, cause, n)
            for (block, output, column), entry in zip(parts.labels, parts.entries, strict=True):
                yield Label(cells + k, cause, block, output, column, -1), entry
            for step, share in enumerate(parts.steps):
                yield Label(cells + k, cause, "", -1, -1, step), share


def _stacked(games: Sequence[tuple[Cell, Game]], groups: int) -> Coalitions:
    shape = len(games), 2 ** len(CAUSES)
    value = np.array([game.value for _, game in games], dtype=np.float64).reshape(shape)
    left_out = np.array([game.left_out for _, game in games]).reshape(*shape, groups)
    means = [game.mean for _, game in games if game.mean]
    mean = np.array(means, dtype=np.float64).reshape(-1, 2)
    return Coalitions(CAUSES, tuple(cell for cell, _ in games), value, left_out, mean)


def _drawn(draws: Sequence[tuple[Cell, Mapping[str, Estimate]]], groups: int) -> VarianceDraws:
    shape = len(draws), len(DRAWS)
    value = [[of_cell[name].value for name in DRAWS] for _, of_cell in draws]
    left_out = [[of_cell[name].left_out for name in DRAWS] for _, of_cell in draws]
    return VarianceDraws(
        DRAWS,
        tuple(cell for cell, _ in draws),
        np.array(value, dtype=np.float64).reshape(shape),
        np.array(left_out, dtype=np.float64).reshape(*shape, groups),
    )


def _names(given: Sequence[str], letter: str, count: int) -> tuple[str, ...]:
    """One name per coordinate; an entropy term adds the action log π."""
    names = tuple(given) or tuple(f"{letter}{k}" for k in range(count))
    return names if len(names) == count else (*names, "log π")[:count]
