"""What is chosen by gain raises the return, as exact linear-quadratic worlds say."""

import dataclasses

import numpy as np
import pytest

from gradlab import choose
from gradlab.errors import InputError
from gradlab.verdicts.choice import screen, statements
from tests.choice import quadratic_worlds as study
from tests.choice.planted_gradients import planted, world
from tests.runs.planted_gains import planted as realised

DATA_0, MODEL_5 = "data (critic only) at h = 0", "model, first action at h = 5"
DATA, MODEL, OTHER = ("data", 0), ("model", 5), ("model", 10)


def at(seed=3, gradients=None, starts=200, batch=256):
    one = study.world(np.random.default_rng([1, seed]))
    rng = np.random.default_rng([2, seed])
    return one, study.measured(one, rng, starts, batch, gradients and gradients(one))


def long_and_short(one):
    """J_0 is short and half across the truth; the model is the truth, four times too long."""
    M = one.truth()
    across = np.random.default_rng(4).normal(size=M.shape)
    S = one.covariance()
    t, a = (M @ S).ravel(), (across @ S).ravel()
    across -= (a @ t) / (t @ t) * M  # its mean gradient is orthogonal to the truth's
    across *= np.linalg.norm(t) / np.linalg.norm((across @ S).ravel())
    return {DATA: 0.5 * M + 0.8 * across, MODEL: 4 * M}


def step(one, G):
    """Share of the best possible gain that a short step along the mean gradient has."""
    S, length = one.covariance(), 1e-4 * np.linalg.norm(one.W)
    best = study.gained(one, study.unit((one.truth() @ S).ravel()), length)
    return study.gained(one, study.unit((G @ S).ravel()), length) / best


def test_the_closed_forms_of_the_study_agree_with_differences():
    one = study.world(np.random.default_rng(5))
    S, W = one.covariance(), one.W
    gradient = (one.truth() @ S) / (1 - study.GAMMA)
    for i in np.ndindex(W.shape):
        nudge = np.zeros_like(W)
        nudge[i] = 1e-5
        both = [one.returns(W + each) for each in (nudge, -nudge)]
        assert (both[0] - both[1]) / 2e-5 == pytest.approx(gradient[i], rel=1e-5)
    drawn = one.visited(np.random.default_rng(6), 20_000)
    assert drawn.T @ drawn / len(drawn) == pytest.approx(S, abs=0.03 * np.abs(S).max())
    long = dataclasses.replace(one, model_A=one.A, model_B=one.B).gradients()["model", 12]
    assert np.linalg.norm(long - one.truth()) < np.linalg.norm(long)


@pytest.mark.slow
def test_gain_and_error_choose_otherwise_and_the_return_follows_gain():
    one, profile = at(gradients=long_and_short)
    gradients = long_and_short(one)
    chosen = choose(profile)
    assert chosen.by == "gain" and chosen.best is chosen.gain
    assert (chosen.gain.cell, chosen.mse.cell) == (MODEL, DATA)
    assert chosen.gain.kept == (MODEL,) and chosen.mse.kept == (DATA,)
    gains = {cell: step(one, G) for cell, G in gradients.items()}
    assert gains[MODEL] == pytest.approx(1, abs=1e-3) and gains[DATA] < 0.6
    for cell, gain in gains.items():  # what is measured is what the return does
        found = profile.estimate(cell[0], "gain", cell[1]).value
        assert found == pytest.approx(gain, abs=0.08)
    assert choose(profile, by="mse").best.cell == DATA
    shown = screen(chosen)
    assert shown.headline.startswith(f"Use {MODEL_5}: largest gain") and shown.light == "act"
    by_error = screen(choose(profile, by="mse")).headline
    assert by_error.startswith(f"Use {DATA_0}: lowest mean")


def test_steps_that_lower_the_return_are_named():
    def opposed(one):
        M = one.truth()
        return {DATA: -M, MODEL: M, OTHER: 2 * M}

    one, profile = at(gradients=opposed)
    chosen = choose(profile)
    assert chosen.steps.lowers == (DATA,) and chosen.steps.raises == (MODEL, OTHER)
    assert not chosen.steps.realised
    assert step(one, -one.truth()) < 0
    said = next(each for each in statements(chosen) if each.about == "steps")
    assert said.decided and f"lower it: {DATA_0}" in said.text
    # Both rays of the truth gain alike: neither is excluded.
    assert set(chosen.gain.kept) == {MODEL, OTHER}


def across(one, lengths=(1.0, 1.0)):
    """Errors across the truth that cancel at 1 : 2, before each gradient gets its length."""
    aside = long_and_short(one)[DATA] - 0.5 * one.truth()
    return {
        DATA: lengths[0] * (one.truth() + aside),
        MODEL: lengths[1] * (one.truth() - 0.5 * aside),
    }


@pytest.mark.slow
def test_weights_by_gain_follow_the_lengths_of_gradients():
    _, profile = at(gradients=across, batch=10**6)
    pair = choose(profile).pair
    assert pair.cells == (DATA, MODEL)
    _, halved = at(gradients=lambda one: across(one, (30.0, 0.5)), batch=10**6)
    other = choose(halved).pair.gain.share
    ratio = pair.gain.share[1] / pair.gain.share[0]
    assert other[1] / other[0] == pytest.approx(60 * ratio, rel=1e-6)


def test_the_mixture_gains_more_than_either_where_errors_cancel():
    one, profile = at(gradients=across, batch=10**6)
    pair = choose(profile).pair
    assert pair.gain.share == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    G = across(one)
    mixed = pair.gain.share[0] * G[DATA] + pair.gain.share[1] * G[MODEL]
    assert step(one, mixed) > 0.99 > max(step(one, each) for each in G.values())


def test_the_criterion_of_a_matched_truth_is_its_error():
    profile = planted(*world(1, N=60))
    chosen = choose(profile)
    assert chosen.by == "mse" and chosen.best is chosen.mse and chosen.gain is None
    assert chosen.steps is None and chosen.pair.gain is None
    with pytest.raises(InputError, match=r"by is 'gain', but the truth is .* choose by 'mse'"):
        choose(profile, by="gain")
    with pytest.raises(InputError, match="by is 'best', expected one of"):
        choose(profile, by="best")
    assert choose(profile, by="direction").best.criterion == "direction"


def test_gains_that_are_not_finite_do_not_compete():
    _, profile = at(gradients=long_and_short)
    place = profile.estimators.index("model"), profile.quantities.index("gain"), 5
    columns = {name: values.copy() for name, values in profile.columns.items()}
    left_out = profile.left_out.copy()
    columns["value"][place], left_out[place] = np.nan, np.nan
    lost = dataclasses.replace(profile, columns=columns, left_out=left_out)
    chosen = choose(lost)
    assert chosen.gain.cell == DATA and chosen.gain.unknown == (MODEL,)
    assert MODEL not in (*chosen.steps.raises, *chosen.steps.lowers)
    left_out[:, place[1]] = np.nan
    nothing = choose(lost)
    assert nothing.gain is None and nothing.by == "mse" and nothing.best is nothing.mse


def test_without_a_truth_realised_gains_decide():
    slopes = {DATA: -0.5, MODEL: 0.8, OTHER: 0.1, ("true_dynamics", 5): 5.0}
    gradients, truth = world(10, N=64)
    found = dict.fromkeys(slopes, gradients["model", 2])
    profile = planted(found, truth, admissible=False)
    chosen = choose(dataclasses.replace(profile, realised=realised(slopes, truth=False)))
    assert not chosen.truth and chosen.by is chosen.best is None
    assert chosen.tried.cell == MODEL and chosen.tried.kept == (MODEL,)
    assert chosen.tried.value == pytest.approx(0.8 * 0.4, rel=0.2)
    assert chosen.steps.realised
    assert MODEL in chosen.steps.raises and chosen.steps.lowers == (DATA,)
    first = statements(chosen)[0]
    assert first.about == "realised" and first.decided and MODEL_5 in first.text
    every = choose(
        dataclasses.replace(profile, realised=realised(slopes, truth=False)),
        estimators=["model", "true_dynamics"],
    )
    assert every.tried.cell == ("true_dynamics", 5)
    assert choose(profile).tried is None
    shown = screen(chosen)
    assert shown.headline.startswith(f"Use {MODEL_5}: its step gained most return.")
    assert f"Lower the return: {DATA_0}." in shown.headline and shown.light == "act"
    none = dict.fromkeys(slopes, 0.0)
    nothing = choose(dataclasses.replace(profile, realised=realised(none, truth=False)))
    assert screen(nothing).headline.startswith("Keep the current policy: no step is shown")
