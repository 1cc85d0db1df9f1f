"""What is chosen is what was planted, and what the samples cannot decide stays open.

What is chosen by gain raises the return, as exact linear-quadratic worlds say.
"""

import dataclasses
import json
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import gradlab
from gradlab import choose
from gradlab.choice.best import at_batch, best, candidates, singles
from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic
from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithms import find, with_changes
from gradlab.verdicts.choice import advice_of, chosen, statements
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import KEEP, recommendation
from tests.choice import quadratic_worlds as study
from tests.choice.planted_gradients import P, explicit, noisy, planted, world
from tests.measurement.scalar import ONE, Quadratic, known_biases, scalar_policy, scalar_task
from tests.runs.planted_gains import planted as realised
from tests.verdicts.test_recommendation import PAPER
from tests.verdicts.test_recommendation import planted as planted_gains
from tests.verdicts.test_what_is_advised import BEST, CRITIC, FALLS, RISES, rehearsed

# The horizon


def test_the_planted_horizon_is_found_and_moves_with_the_batch():
    """bias² + P (0.02 · 2ʰ)²/N′ is least at h = 3 for large batches and at h = 2 for N′ = 1."""
    profile = planted(*world(), batch=4000)
    chosen = choose(profile)
    assert chosen.mse.cell == ("model", 3)
    assert chosen.mse.kept == (("model", 3),)
    assert chosen.direction.cell == ("model", 3)
    error = {h: 0.09 * (h - 3) ** 2 + P * 4e-4 * 4.0**h for h in range(1, 7)}
    assert min(error, key=error.get) == 2
    small = choose(profile, batch=1)
    assert small.batch == 1
    assert small.mse.cell == ("model", 2)
    assert small.mse.value == pytest.approx(error[2], rel=0.2)


def test_gradients_that_need_the_simulator_compete_only_when_they_are_named():
    profile = planted(*world(), batch=4000)
    chosen = choose(profile)
    assert "true_dynamics" not in chosen.estimators
    assert chosen.excluded == {"mixed": "states", "true_dynamics": "control"}
    assert choose(profile, estimators=["model", "true_dynamics"]).mse.cell[0] == "true_dynamics"


def test_ties_stay_in_the_set_and_the_missing_samples_are_told():
    rng = np.random.default_rng(1)
    truth = np.broadcast_to(np.eye(P)[0], (80, P))
    found = {("model", h): noisy(rng, 80, 0.3 + 0.01 * h, 1.0) for h in range(1, 6)}
    chosen = choose(planted(found, truth))
    assert len(chosen.mse.kept) > 1
    assert chosen.mse.more > 0
    said = statements(chosen)[0]
    assert (said.code, said.decision) == ("least_error", "undecided")
    assert said.more >= chosen.mse.more


def test_no_more_starts_are_asked_for_between_gradients_that_point_alike():
    rng = np.random.default_rng(1)
    truth = np.broadcast_to(np.eye(P)[0], (80, P))
    found = {("model", h): noisy(rng, 80, 0.001 + 0.0001 * h, 0.1) for h in range(1, 6)}
    chosen = choose(planted(found, truth), by="direction")
    assert chosen.direction.more == 0 and len(chosen.direction.kept) > 1
    said = statements(chosen)[0]
    assert (said.code, said.decision, said.more) == ("best_direction", "undecided", 0)


def covered(shape, trials, N=64, batch=64):
    """How often the set holds a best horizon of noisy profiles with this squared bias."""
    hits = 0
    for trial in range(trials):
        rng = np.random.default_rng([7, trial])
        common = rng.normal(size=(N, P))
        noise = 0.5 * common[None] + 0.5 * rng.normal(size=(len(shape), N, P))
        aside = np.eye(P)[-1]
        found = {
            ("model", h + 1): np.eye(P)[0] + bias**0.5 * aside + each
            for h, (bias, each) in enumerate(zip(shape, noise, strict=True))
        }
        truth = np.broadcast_to(np.eye(P)[0], (N, P))
        profile = planted(found, truth, batch)
        kept = best(profile, candidates(profile, None).cells, "mse").kept
        least = [("model", h + 1) for h in np.flatnonzero(shape == shape.min())]
        hits += least[trial % len(least)] in kept
    return hits / trials


SHAPES = {
    "flat": np.full(8, 0.1),
    "tied": np.array([0.5, 0.02, 0.3, 0.02, 0.4, 0.02, 0.3, 0.6]),
    "jagged": np.array([0.05, 0.3, 0.04, 0.5, 0.03, 0.4, 0.06, 0.2]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_set_of_horizons_covers_whatever_the_profile_looks_like(name):
    """At least 95% of the time; 12 trials hold 9 with 99.98% then."""
    assert covered(SHAPES[name], 12) >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_the_set_of_horizons_covers_in_95_of_100(name):
    assert covered(SHAPES[name], 300) >= 0.95 - 2.5 * (0.05 * 0.95 / 300) ** 0.5


# What if


def test_another_batch_is_what_would_have_been_measured_with_it():
    gradients, truth = world(6, N=50)
    for batch in (16, 64, 1024):
        ours = at_batch(
            planted(gradients, truth), batch, singles(planted(gradients, truth), gradients)
        )
        theirs = planted(gradients, truth, batch=batch)
        assert ours.batch == batch
        for name, values in ours.columns.items():
            np.testing.assert_allclose(values, theirs.columns[name], rtol=1e-8, err_msg=name)
        np.testing.assert_allclose(ours.left_out, theirs.left_out, rtol=1e-7)


# What cannot be answered


def test_estimators_under_different_truths_are_refused():
    gradients, truth = world(9, N=40)
    profile = planted(gradients, truth, actions={"mixed": "all"})
    with pytest.raises(InputError, match=r"different truths.*truth='objective'"):
        choose(profile, estimators=["model", "mixed"])
    chosen = choose(profile)
    assert chosen.estimators == ("data", "model")
    assert chosen.excluded["mixed"] == "truth"
    with pytest.raises(InputError, match="expected some of"):
        choose(profile, estimators=["nobody"])


def test_without_a_truth_there_is_agreement_only():
    gradients, truth = world(10, N=200)
    chosen = choose(planted(gradients, truth, admissible=False))
    assert not chosen.truth
    assert chosen.mse is chosen.direction is chosen.against is None
    found = {(one, other): cosine for one, other, cosine in chosen.agreement}
    each = found[("model", 4), ("mixed", 4)]
    want = explicit(gradients["model", 4], gradients["mixed", 4], 64)["cosine"].value
    assert each.value == pytest.approx(want, rel=1e-9)


def test_gradients_that_overflow_are_left_out():
    gradients, truth = world(13, N=60)
    gradients["model", 6] = gradients["model", 6] * np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        chosen = choose(planted(gradients, truth))
    assert ("model", 6) not in chosen.mse.kept
    assert ("model", 6) not in chosen.mse.mixed and ("model", 5) in chosen.mse.mixed


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="batch is"):
        choose(planted(*world(14, N=20)), batch=0)


# Real measurements


@pytest.fixture(scope="module")
def quadratic():
    task = scalar_task(prior=(0.8 * ONE, 0.6 * ONE), noise=0.0)
    return gradlab.measure(task, scalar_policy(), Quadratic(), horizon=6, starts=1000, law="start")


def test_the_set_holds_the_best_horizon_known_in_closed_form(quadratic):
    """g = κ_n s with E s² = m, Var s² known: MSE_n = (κ_n m − truth)² + κ_n² Var(s²)/N′."""
    task, m = scalar_task(prior=(0.8 * ONE, 0.6 * ONE), noise=0.0), 0.5 + 0.36
    from tests.linear_quadratic import lqr_gradient

    truth = float(lqr_gradient(task.simulator, -0.3 * ONE, m * ONE, 0.9, "first"))
    spread = (2 * 0.5**2 + 4 * 0.36 * 0.5) / m**2
    error = {
        (name, n): bias**2 + (bias + truth) ** 2 * spread / quadratic.batch
        for name, each in known_biases(task, 0.3, 6, m).items()
        for n, bias in enumerate(each)
        if name != "true_dynamics" and (n or name == "data")
    }
    chosen = choose(quadratic, estimators=["data", "model", "mixed"])
    best = min(error, key=error.get)
    assert best in chosen.mse.kept
    assert chosen.mse.value == pytest.approx(error[chosen.mse.cell], rel=0.3)
    worst = max(error, key=error.get)
    assert worst not in chosen.mse.kept


# Weights of several gradients: the known optimum, contenders, and rules of the papers.


def test_weights_of_two_are_the_known_optimum():
    """E = diag(v1, v2)/N′ for unbiased, independent estimators: w_2 = v1/(v1 + v2)."""
    rng = np.random.default_rng(2)
    N, truth = 3000, np.broadcast_to(np.eye(P)[0], (3000, P))
    found = {("data", 0): noisy(rng, N, 0, 2.0), ("model", 5): noisy(rng, N, 0, 1.0)}
    mse = choose(planted(found, truth, batch=20)).mse
    assert mse.mixed == (("data", 0), ("model", 5))
    assert mse.weights.share[1] == pytest.approx(4 / 5, abs=0.05)
    assert mse.weights.low[1] <= 4 / 5 <= mse.weights.high[1] + 0.02
    # v₁ v₂ / (v₁ + v₂) beside v₂
    assert mse.held_out.low <= 4 / 5 <= mse.held_out.high


def test_gradients_that_point_away_have_no_weights_by_direction():
    rng = np.random.default_rng(9)
    truth = np.broadcast_to(np.eye(P)[0], (200, P))
    found = {cell: -noisy(rng, 200, 0.0, 0.1) for cell in (("data", 0), ("model", 4))}
    said = {e.code: e for e in statements(choose(planted(found, truth), by="direction"))}
    assert "no_mixture" in said and "mixture" not in said
    assert said["mixture_against_rule"].n == 100
    assert "nan" not in " ".join(each.said for each in said.values())


def test_weights_of_opposite_biases_are_known():
    rng = np.random.default_rng(3)
    truth = np.broadcast_to(np.eye(P)[0], (600, P))
    found = {("data", 0): noisy(rng, 600, 0.8, 0.3), ("model", 4): noisy(rng, 600, -0.4, 0.3)}
    mse = choose(planted(found, truth, batch=1000)).mse
    assert mse.weights.share == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    assert mse.held_out.value < 0.05 and mse.held_out.high < 1


def test_measured_weights_and_rules_are_judged_on_the_half_that_did_not_choose_them():
    gradients, truth = world(4, N=60)
    gradients = {cell: gradients[cell] for cell in (("data", 0), ("model", 6))}
    chosen = choose(planted(gradients, truth))
    assert chosen.mse.mixed == (("data", 0), ("model", 6)) and chosen.against.n == 30
    data, model = gradients.values()

    def error(weights, half):
        mixed = weights[0] * data + weights[1] * model
        return explicit(mixed[half], truth[half], 64)["mse"].value

    rules = {k: MpgWeights()(k, [0, 6]) for k in (0, 4500, 9000)}
    best = min(rules, key=lambda k: error(rules[k], slice(1, None, 2)))
    assert chosen.rule == f"MPG rule, iteration {best} of 9000"
    # Of least error on the first half, within what a ridge of a tenth moves it.
    grid = np.linspace(0, 1, 201)
    fitted = min(grid, key=lambda w: error([1 - w, w], slice(0, None, 2)))
    own = chosen.against.value * error(rules[best], slice(1, None, 2))
    assert own == pytest.approx(error([1 - fitted, fitted], slice(1, None, 2)), rel=0.05)
    assert chosen.against.low < chosen.against.value < chosen.against.high
    # Beside the better one of the two, by the first half.
    single = min(([1, 0], [0, 1]), key=lambda w: error(w, slice(0, None, 2)))
    held_out = error([1 - fitted, fitted], slice(1, None, 2)) / error(single, slice(1, None, 2))
    assert chosen.mse.held_out.value == pytest.approx(held_out, rel=0.05)


def test_both_papers_have_one_rule_as_a_function_of_time_over_the_ramp():
    """MPG-J: e_i = λ^i, then λ^(max − i); λ rises from 1 − η to 1 and falls back (eq. 10, 11)."""
    steps = np.array([0, 3, 25])
    for k in (0, 700, 2000, 3100, 4000, 5000):
        progress = min(k / 4000, 1)
        base = 1 - 0.1 * abs(1 - 2 * progress)
        powers = np.exp(1 / base ** (steps if progress <= 0.5 else 25 - steps))
        assert MpgWeights(ramp=4000)(k, steps) == pytest.approx(powers / powers.sum(), rel=1e-9)


def test_other_batches_are_judged_at_all_horizons_although_few_keep_inner_products():
    """The best horizon is 3; only 0, 1 and 6 keep inner products."""
    gradients, truth = world(7, N=400)
    profile = planted(gradients, truth)
    kept = [("data", 0), ("model", 1), ("model", 6)]
    few = planted({cell: gradients[cell] for cell in kept}, truth)
    thinned = dataclasses.replace(profile, kernels=few.kernels)
    for batch in (16, 64, 256, 1024):
        one, other = (choose(each, batch=batch) for each in (thinned, profile))
        assert one.mse.cell == other.mse.cell == ("model", 3)
        assert one.mse.value == pytest.approx(other.mse.value, rel=1e-9)
        assert one.direction.value == pytest.approx(other.direction.value, abs=2e-3)


def test_degenerate_estimators_share_their_weight_or_say_so():
    gradients, truth = world(12, N=40)
    twins = {("data", 0): gradients["model", 2], ("model", 2): gradients["model", 2]}
    assert choose(planted(twins, truth)).mse.weights.share == pytest.approx([0.5, 0.5])
    zero = {("data", 0): 0 * truth, ("model", 2): 0 * truth}
    chosen = choose(planted(zero, truth))
    assert chosen.direction is None and chosen.mse.weights.share == pytest.approx([0.5, 0.5])
    assert chosen.mse.value == pytest.approx(1.0, rel=0.1)
    assert statements(chosen)
    few = {cell: G[:4] for cell, G in gradients.items()}
    chosen = choose(planted(few, truth[:4]))
    assert chosen.mse.weights is chosen.against is None


TRAINED = """
from dataclasses import replace
from tests.checks.planted_premises import task
def make(push: float = 0.3): return replace(task(push=push), discount=0.97)
"""


@pytest.mark.parametrize(("followed", "row"), [(BEST, "n-step-adp"), (CRITIC, "mpg-v2")])
def test_the_command_that_trains_has_the_settings_of_the_measurement_and_runs(
    followed, row, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(TRAINED)
    checkpoint.save(Policy(2, 1, hidden=(8,)), "mine.safetensors")
    checkpoint.save(QCritic(2, 1, hidden=(8,)), "run.critic.safetensors")
    source = {"task": "own.py:make", "parameters": {"push": 0.2}, "policy": "mine.safetensors"}
    kinds = {"policy": "policy", "critic": "q_critic"}
    about = {"source": source | {"critic": None}, "kinds": kinds}
    told = rehearsed({BEST: FALLS, CRITIC: FALLS} | {followed: RISES})
    profile = dataclasses.replace(planted_gains(PAPER), rehearsal=told)
    config = profile.config | about | {"termination": "mask", "batch": 32}
    dataclasses.replace(profile, config=config).save("run.h5")
    assert main(["choose", "run.h5", "--json"]) == 0
    words = shlex.split(json.loads(capsys.readouterr().out)["train"])
    given = dict(pairwise(words))
    assert words[:4] == ["gradlab", "train", row, "own.py:make"]
    assert given["--set"] == "push=0.2" and given["--batch"] == "32"
    assert given["--termination"] == "mask" and given["--horizons"] == str(followed[1])
    assert (given["--iterations"], given["--policy-rate"]) == ("25", "0.001")
    assert main([*words[1:], "--warmup", "40", "--no-report", "--output", "trained.h5"]) == 0
    assert "iteration 25" in capsys.readouterr().out
    # As in the rehearsal the critic rests.
    critics = [checkpoint.load(each) for each in ("run.critic.safetensors",
               "trained-checkpoints/000025/seed0-critic.safetensors")]  # fmt: skip
    mine, after = (torch.nn.utils.parameters_to_vector(each.parameters()) for each in critics)
    assert torch.equal(mine, after)
    # A policy of a function is one that a row begins with where its measurement says so.
    by_function = config["source"] | {"policy": "own.py:policy"}
    for known in (kinds, {}):
        more = config | {"source": by_function, "kinds": known}
        dataclasses.replace(profile, config=more).save("run.h5", overwrite=True)
        assert main(["choose", "run.h5", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert ("--policy own.py:policy" in said.get("train", "")) == bool(known)
    dataclasses.replace(profile, config=config).save("run.h5", overwrite=True)
    # Nothing is printed that would be refused: no network on disk.
    Path("run.critic.safetensors").unlink()
    assert main(["choose", "run.h5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "train" not in document and "no row" in document["untrained"]
    assert main(["choose", "run.h5"]) == 0
    assert f"train:  {document['untrained']}\n" in capsys.readouterr().out


def test_the_batch_of_the_run_is_no_other_batch():
    task = scalar_task(prior=(0.8 * ONE, 0.6 * ONE))
    profile = gradlab.measure(task, scalar_policy(), Quadratic(), horizon=3, starts=64, batch=64)
    asked, silent = chosen(profile, batch=64)[1], chosen(profile)[1]
    assert profile.rehearsal is not None
    assert str(asked) == str(silent) != str(chosen(profile, batch=16)[1])


@pytest.mark.parametrize("asked", [{}, {"batch": 64}, {"estimators": [BEST[0], "data"]}])
def test_where_no_gain_is_believed_a_choice_says_what_the_report_says(asked):
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    profile = dataclasses.replace(planted_gains(PAPER, status="imprecise"), rehearsal=told)
    few = profile.truth | {"carried_by_few": True, "concentration": 0.9}
    profile = dataclasses.replace(profile, truth=few)
    report = recommendation(facts(profile))
    choice, found, _, _ = chosen(profile, **asked)
    assert report.light == "act" and choice.recommendation == str(found)
    same = [(each.name, each.text.removesuffix("; at batch 256")) for each in found.fields]
    assert same == [(each.name, each.text) for each in report.fields]
    assert not any("trim" in each.text.lower() for each in found.rest)
    # At a batch that nobody rehearsed nothing is green.
    assert found.light == ("choose" if "batch" in asked else "act")
    other = chosen(profile, estimators=["data"])[1]
    assert (other.light, other.use) == ("none", KEEP)


def test_one_iteration_of_the_command_is_one_update_of_the_policy():
    for name, options in (("mpg-v2", {"delay": 1, "reuse": 1}), ("n-step-adp", {"reuse": 1})):
        row = with_changes(find(name), **options)
        assert (row.delay, row.reuse) == (1, 1)


@pytest.mark.parametrize("best", [0, 3])
def test_a_gradient_of_no_step_is_the_critics_whoever_would_step(best):
    """At h = 0 nothing of a model or simulator is differentiated: a row follows it."""
    gains = {"data": [0.2], "mixed": [0.9 if h == best else 0.1 for h in range(6)]}
    _, _, train, why = chosen(planted_gains(gains), estimators=["mixed"], start=["own.py:make"])
    assert train.startswith("gradlab train mpg-v2 own.py:make --horizons 0 ") == (best == 0)
    assert ("see the table" in why) == (best > 0)


def test_where_a_premise_fails_the_choice_lists_what_updates_did():
    """As docs/report.md says of horizons that lower the return."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    failed = Finding("critic_size", "fail", "", 0.02, 0.01, 0.03, n=96)
    profile = dataclasses.replace(planted_gains(PAPER), rehearsal=told, sanity=(failed,))
    _, told, train, untrained = chosen(profile, start=["own.py:make"])
    said = {each.code: each.subject for each in told.rest}
    assert said["updates_lower"] == DATA_0 and said["updates_raise"] == "model, BPTT at h = 5"
    # What is advised until then can be followed.
    assert train.startswith("gradlab train n-step-adp own.py:make ") and not untrained
    assert f"--horizons {BEST[1]} " in train and train.endswith("--value-rate 0 --iterations 25")


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


def test_steps_that_lower_the_return_are_named():
    def opposed(one):
        M = one.truth()
        return {DATA: -M, MODEL: M, OTHER: 2 * M}

    one, profile = at(gradients=opposed)
    chosen = choose(profile)
    assert chosen.lowers == (DATA,) and chosen.raises == (MODEL, OTHER)
    assert step(one, -one.truth()) < 0
    said = {each.code: each for each in statements(chosen)}
    assert said["step_falls"].subject == DATA_0 and said["step_falls"].at == "to first order"
    assert said["step_raises"].decision == "pass"
    # Both rays of the truth gain alike: neither is excluded.
    assert set(chosen.gain.kept) == {MODEL, OTHER}


def across(one, lengths=(1.0, 1.0)):
    """Errors across the truth that cancel at 1 : 2, before each gradient gets its length."""
    aside = long_and_short(one)[DATA] - 0.5 * one.truth()
    return {
        DATA: lengths[0] * (one.truth() + aside),
        MODEL: lengths[1] * (one.truth() - 0.5 * aside),
    }


def test_the_mixture_gains_more_than_either_where_errors_cancel():
    one, profile = at(gradients=across, batch=10**6)
    gain = choose(profile).gain
    assert gain.weights.share == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    G = across(one)
    mixed = gain.weights.share[0] * G[DATA] + gain.weights.share[1] * G[MODEL]
    alone = max(step(one, each) for each in G.values())
    assert step(one, mixed) > 0.99 > alone
    assert gain.held_out.low <= step(one, mixed) - alone <= gain.held_out.high


def test_gradients_of_all_actions_compete_in_the_mixture():
    """What is best alone has the weight, whichever way it carries θ."""

    def worlds(one):
        G = long_and_short(one)
        return {DATA: G[DATA], MODEL: G[DATA] - 0.3 * G[MODEL], ("model_all", 5): G[MODEL]}

    one, profile = at(gradients=worlds)
    gain = choose(profile).gain
    assert gain.cell == ("model_all", 5) and set(gain.mixed) == {DATA, MODEL, gain.cell}
    G = worlds(one)
    mixed = sum(w * G[cell] for w, cell in zip(gain.weights.share, gain.mixed, strict=True))
    assert step(one, mixed) > 0.95 > 0.6 > max(step(one, G[cell]) for cell in (DATA, MODEL))


def test_the_criterion_of_a_matched_truth_is_its_error():
    profile = planted(*world(1, N=60))
    chosen = choose(profile)
    assert chosen.by == "mse" and chosen.best is chosen.mse and chosen.gain is None
    assert chosen.raises == chosen.lowers == ()
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
    assert chosen.gain.cell == DATA and MODEL not in chosen.gain.kept
    assert MODEL not in (*chosen.raises, *chosen.lowers)
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
    assert MODEL in chosen.raises and chosen.lowers == (DATA,)
    first = statements(chosen)[0]
    assert (first.code, first.decision) == ("largest_return", "pass") and first.subject == MODEL_5
    every = choose(
        dataclasses.replace(profile, realised=realised(slopes, truth=False)),
        estimators=["model", "true_dynamics"],
    )
    assert every.tried.cell == ("true_dynamics", 5)
    assert choose(profile).tried is None
    told = advice_of(chosen)
    assert told.use == MODEL_5 and told.tested.endswith(f" return by a step along {MODEL_5}")
    assert told.avoid == f"{DATA_0}: lower return" and told.light == "act"
    none = dict.fromkeys(slopes, 0.0)
    nothing = choose(dataclasses.replace(profile, realised=realised(none, truth=False)))
    told = advice_of(nothing)
    assert told.use == KEEP and told.field("why").startswith("no step raises")
