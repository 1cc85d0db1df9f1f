"""What is said of checkpoints, on planted gradients: explicit ones in θ are the truth."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.choice import choice_regret
from analyses.horizons import data_var, early_late
from analyses.horizons.checkpoint_errors import errors, rule_weight
from analyses.horizons.checkpoint_samples import Place, Samples, load, products, save
from analyses.horizons.critic_samples import CriticSamples
from gradlab.data.noise import stream
from gradlab.networks.mlp import Policy

N, DS, DA, H = 64, 3, 2, 26
PLACE = Place("path_tracking", 2000, 0, "visited")


def drawn(*shape, name="through training"):
    return torch.randn(*shape, generator=stream(0, name), dtype=torch.float64)


@pytest.fixture(scope="module")
def policy():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(DS, DA, hidden=(8,)).double()


@pytest.fixture(scope="module")
def samples():
    """J_n errs by 3 − n/10 of the truth, and by 0.1 at n = 7; the mixed ones twice as much."""
    truth = 1 + 0.1 * drawn(N, DA)
    off = torch.tensor([3 - n / 10 for n in range(H)], dtype=torch.float64)
    off[7] = 0.1
    noise = 0.01 * drawn(H, N, DA, name="noise")
    model = truth + off[:, None, None] + noise
    mixed = truth + 2 * off[:, None, None] + noise
    mixed[0] = model[0]
    about = {"status": "converged", "steps": 300, "cut_steps": 300, "reason": "planted"}
    return Samples(PLACE, drawn(N, DS, name="states"), model, mixed, truth, truth, about)


def in_theta(policy, states, x):
    """J_iᵀ x_i by autograd, [K, N, P]."""
    rows = []
    for i, state in enumerate(states):
        action = policy(state[None])[0]
        for each in x[:, i]:
            found = torch.autograd.grad(action @ each, list(policy.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows).reshape(len(states), len(x), -1).transpose(0, 1)


@pytest.mark.parametrize("groups", [None, 16])
def test_products_are_those_of_explicit_gradients(policy, samples, groups):
    G = groups or N
    fold = (np.arange(G) % 3 == 0).astype(int)
    (kernel,) = products(samples, policy, [fold], groups)
    grams = kernel.grams([0, 7, len(samples.cells)])
    explicit = in_theta(policy, samples.states, samples.stacked[[0, 7, len(samples.cells)]])
    group = np.arange(N) % G
    sums = torch.stack([explicit[:, group == g].sum(dim=1) for g in range(G)])
    halves = torch.stack([sums[fold == f].sum(dim=0) for f in (0, 1)])
    np.testing.assert_allclose(grams.own, torch.einsum("gkp,glp->gkl", sums, sums), rtol=1e-9)
    np.testing.assert_allclose(
        grams.total, torch.einsum("gkp,flp->fgkl", sums, halves), rtol=1e-9, atol=1e-9
    )


def test_samples_come_back_from_disk_with_their_place(samples, tmp_path):
    save(samples, tmp_path / "samples.h5")
    again = load(tmp_path / "samples.h5")
    assert again.place == PLACE and again.about["reason"] == "planted"
    assert torch.equal(again.states, samples.states)
    torch.testing.assert_close(again.stacked, samples.stacked, rtol=1e-6, atol=1e-6)


def test_errors_are_those_of_explicit_gradients(policy, samples):
    found = errors(samples, policy).set_index(["estimator", "horizon", "quantity"])["value"]
    G = in_theta(policy, samples.states, samples.stacked[[0, 25, len(samples.cells)]])
    off = G[:2] - G[2]
    bias2 = off.mean(dim=1).square().sum(dim=1) - off.var(dim=1).sum(dim=1) / N
    assert found["model", 25, "bias2"] == pytest.approx(float(bias2[1]), rel=1e-9)
    ratio = float((bias2[1] / bias2[0]).sqrt())
    assert found["model", 25, "bias_ratio"] == pytest.approx(ratio, rel=1e-9)
    assert found["model", 25, "bias_gap"] == pytest.approx(float(bias2[1] - bias2[0]), rel=1e-9)
    assert found["model", 25, "weight_rule"] == rule_weight("path_tracking", 2000)
    assert found["model", 25, "weight_mse"] == pytest.approx(1.0)


def test_a_cut_truth_has_rows_of_its_own(policy, samples):
    about = samples.about | {"cut_steps": 30}
    cut = Samples(PLACE, samples.states, samples.model, samples.mixed, samples.truth,
                  samples.model[25], about)  # fmt: skip
    found = errors(cut, policy).set_index(["law", "estimator", "horizon", "quantity"])["value"]
    assert found["visited, cut", "model", 25, "bias2"] == pytest.approx(0, abs=1e-12)
    assert found["visited", "model", 25, "bias2"] > 0.1


def test_the_planted_horizon_is_chosen_and_beats_every_rival(policy, samples):
    kernels = products(samples, policy, choice_regret.halvings(32, 3), 32)
    means, chosen = choice_regret.regrets(samples, kernels)
    assert chosen == {"model 7": 3} and choice_regret.hindsight(means) == "model 7"
    own = means[means["choice"] == "horizon"].set_index("rival")
    assert own.loc["model 7", "log_ratio"] == pytest.approx(0, abs=1e-12)
    others = own.drop(index="model 7")
    assert (others["log_ratio_low"] > 0).all() and (others["won"] == 1).all()
    mixed = means[(means["choice"] == "pair") & (means["rival"] == "model 0")]
    assert float(mixed["log_ratio"].iloc[0]) > 0


def test_halvings_are_halves_and_differ():
    halves = choice_regret.halvings(20, 5)
    assert [int(each.sum()) for each in halves] == [10] * 5
    assert len({tuple(each) for each in halves}) == 5


def test_components_of_planted_effects_are_found():
    C, B, P = 10, 10, 20_000
    critic, batch, both = (
        drawn(*shape, P, name=f"effect {k}") * size
        for k, (shape, size) in enumerate((((C, 1), 2.0), ((1, B), 1.0), ((C, B), 3.0)))
    )
    M = 5 + critic + batch + both
    found = data_var.components(torch.einsum("cbp,dep->cbde", M, M).numpy(), per_batch=128)
    assert found["critic"] / P == pytest.approx(4.0, rel=0.05)
    assert found["batch"] / P == pytest.approx((1.0 + 9.0) / 2, rel=0.05)


def test_the_variance_of_planted_critics_is_split(policy):
    shift = 3 * drawn(10, 1, DA, name="critics")
    data = 1 + shift + 0.5 * drawn(10, 200, DA, name="both")
    model = 1 + 0.5 * drawn(10, 200, DA, name="starts")
    states = drawn(200, DS, name="states")
    parts = data_var.split(CriticSamples(PLACE, states, data, model, False), policy)
    at = parts.set_index("part")
    assert at.loc["gap", "ci_low"] > 0
    assert at.loc["J_H critic", "ci_low"] < 0.05 * at.loc["J_0 critic", "value"]


def checkpoints(ratios, half=0.05):
    """Rows of `checkpoint_errors.table` with |bias(25)|/|bias(0)| given at every checkpoint."""
    rows = []
    for iteration, ratio in zip(early_late.ITERATIONS, ratios, strict=True):
        cell = {"task": "path_tracking", "iteration": iteration, "law": "visited",
                "estimator": "model"}  # fmt: skip
        for seed in range(2):
            for n in early_late.HORIZONS:
                at = cell | {"seed": seed, "horizon": n}
                rows.append(at | dict(quantity="bias_ratio", value=ratio, ci_low=ratio * (1 - half),
                                      ci_high=ratio * (1 + half)))  # fmt: skip
                gap = ratio**2 - 1
                rows.append(at | dict(quantity="bias_gap", value=gap, ci_low=gap - 2 * half,
                                      ci_high=gap + 2 * half))  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("ratios", "holds", "opening"),
    [
        ((0.5, 0.6, 0.7, 0.8, 1.5, 3.0), True, "True"),
        ((1.0, 0.6, 0.7, 0.8, 1.5, 3.0), False, "Partly"),
        ((0.5, 0.6, 0.7, 0.8, 0.9, 0.5), False, "Partly"),
        ((2.0, 2.0, 2.0, 1.0, 0.9, 0.5), False, "Not seen"),
    ],
)
def test_only_below_one_first_and_above_one_last_passes(ratios, holds, opening):
    verdict = early_late.judge(checkpoints(ratios))
    assert verdict.holds == holds
    assert verdict.sentence.startswith(opening)
    assert "nan" not in verdict.sentence


def test_other_laws_have_a_claim_of_their_own():
    other = checkpoints((2.0, 2.0, 2.0, 2.0, 2.0, 0.5)).assign(law="return")
    both = pd.concat([checkpoints((0.5, 0.6, 0.7, 0.8, 1.5, 3.0)), other])
    visited, back = early_late.judge(both), early_late.judge(both, "return")
    assert (visited.claim, visited.holds) == ("EARLY-LATE", True)
    assert (back.claim, back.holds) == ("EARLY-LATE-RETURN", False)
    assert "return, 0: above 1" in visited.sentence and "visited, 0: below 1" in back.sentence


def test_the_crossing_is_interpolated_in_the_logarithm():
    verdict = early_late.judge(checkpoints((0.5, 0.5, 0.5, 0.5, 2.0, 3.0)))
    assert verdict.numbers["crossing_path_tracking_seed0"] == pytest.approx(7500)
    assert "the rule's T/2 is 4500" in verdict.sentence


def variances(gap, late):
    """Parts of the variance at 0 and 5%, and the late gap of squared biases, ± 0.5."""
    values = {"J_0 critic": 3.0, "J_0 batch": 0.1, "J_H critic": 0.2, "J_H batch": 0.3, "gap": gap}
    parts = [
        {"task": "path_tracking", "iteration": i, "part": name, "value": x, "ci_low": x - 0.5,
         "ci_high": x + 0.5, "fitted": i > 0}
        for i in data_var.EARLY for name, x in values.items()
    ]  # fmt: skip
    bias = {"task": "path_tracking", "iteration": data_var.LATE, "law": "visited", "horizon": 25,
            "estimator": "model", "quantity": "bias_gap", "value": late, "ci_low": late - 0.5,
            "ci_high": late + 0.5}  # fmt: skip
    return pd.DataFrame(parts), pd.DataFrame([bias])


@pytest.mark.parametrize(
    ("gap", "late", "opening"),
    [(2.5, 1.0, "True"), (0.2, 1.0, "Partly"), (2.5, -1.0, "Partly"), (-1.0, 0.1, "Not seen")],
)
def test_both_halves_of_figure_1_are_asked_for(gap, late, opening):
    verdict = data_var.judge(*variances(gap, late))
    assert verdict.sentence.startswith(opening)
    assert verdict.holds == (opening == "True")
    assert "2 of 2" in verdict.sentence
