"""Recommendations of theories beside what was measured, each with "applies" or "does not apply".

RP Prop 5.10     h* = 3/(2l) · W₀(⅔ l^{4/3} (ε_v/ε_f)^{2/3}), l = ln 1/γ, for L_f, L_π < 1. It
                 minimises a surrogate: the printed bound itself is smallest at h = 0
MAAC Lemma A.1   the horizon of its smallest bound, found by trying all of them
Lyapunov         1/λ: so many steps until a perturbation of the closed loop is e times as large
growth           2/slope: so many until the gradient is, from ln variance ≈ slope · h
"""

from __future__ import annotations

from math import isfinite

from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Advice
from gradlab.errors import InputError
from gradlab.runs.bound_comparison import absence
from gradlab.runs.decision_rules import growth_of
from gradlab.runs.profile import Profile
from gradlab.statistics.bounds.rp import rp_optimal_horizon

RP, MAAC = "RP Prop 5.10", "MAAC Lemma A.1"
NEEDED = ("gamma", "epsilon_f", "epsilon_v", "L_f", "L_pi")


def advice(profile: Profile, among: Candidates) -> tuple[Advice, ...]:
    """For the judged estimator, or whichever estimator a theorem was computed for."""
    horizons = [_rp(profile, among), _maac(profile, among), _lyapunov(profile)]
    growth = _growth(profile, among)
    return tuple(horizons if growth is None else [*horizons, growth])


def _rp(profile: Profile, among: Candidates) -> Advice:
    constants = {} if profile.theory is None else profile.theory.constants
    for name in (among.judged, *among.names):
        keys = [f"{name}, RP Prop 5.8: {each}" for each in NEEDED]
        if not all(key in constants for key in keys):
            continue
        gamma, model, critic, L_f, L_pi = (constants[key] for key in keys)
        try:
            horizon = rp_optimal_horizon(gamma, model, critic)
        except InputError as error:
            return Advice(RP, None, False, str(error))
        applies = L_f < 1 and L_pi < 1
        measured = f"measured L_f = {L_f:.3g}, L_π = {L_pi:.3g} for {name}; both below 1 are needed"
        why = f"{measured}; it minimises a surrogate, not the bound"
        return Advice(RP, horizon if isfinite(horizon) else None, applies, why)
    return Advice(RP, None, False, _missing(profile))


def _maac(profile: Profile, among: Candidates) -> Advice:
    bounds = () if profile.theory is None else profile.theory.bounds
    lemma = [each for each in bounds if each.theorem == MAAC and each.estimator in among.names]
    if not lemma:
        return Advice(MAAC, None, False, _missing(profile))
    bound = min(lemma, key=lambda each: each.estimator != among.judged)  # the judged one's, if any
    why = f"{bound.sentence}, for {bound.estimator}"
    return Advice(MAAC, bound.best if bound.best >= 0 else None, bound.applies, why)


def _missing(profile: Profile) -> str:
    return absence(profile) or "its constants were not measured for these estimators"


def _lyapunov(profile: Profile) -> Advice:
    rate = float(profile.truth.get("lyapunov", float("nan")))
    if not isfinite(rate):
        return Advice("Lyapunov", None, False, "the closed loop's exponent λ is not known")
    if rate <= 0:
        why = f"λ = {rate:.3g} per step: the simulator's closed loop does not stretch"
        return Advice("Lyapunov", None, False, why)
    why = f"1/λ with λ = {rate:.3g} per step, the simulator's largest over the starts"
    return Advice("Lyapunov", 1 / rate, True, why)


def _growth(profile: Profile, among: Candidates) -> Advice | None:
    growth = None if among.judged is None else growth_of(profile, among.judged)
    if growth is None:
        return None
    slope = f"slope {growth.slope:.3g} of ln variance per step from h = {growth.onset} on"
    if not growth.grows or growth.law == "power":
        return Advice("growth of the gradient", None, False, f"{slope}: not an exponential")
    return Advice("growth of the gradient", 2 / growth.slope, True, f"2/slope with {slope}")
