"""What is said of checkpoints, on planted gradients: explicit ones in θ are the truth."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.early_late import __main__ as early_late
from analyses.early_late import samples as samples_of
from analyses.early_late.errors import errors, rule_weight
from analyses.early_late.samples import RETURN, Place, Samples, load, products, save, starts_of
from analyses.mpg_table_1.runs import task_of
from gradlab.data.noise import stream
from gradlab.gradients.start_laws import visitation
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic
from gradlab.storage import records

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


ITERATIONS = (0, 1000, 2000, 5000, 10_000, 20_000)


def ratios_at(ratios, half=0.05):
    """Rows of `errors.table` with |bias(25)|/|bias(0)| given at every checkpoint."""
    rows = []
    for iteration, ratio in zip(ITERATIONS, ratios, strict=True):
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
    verdict = early_late.judge(ratios_at(ratios))
    assert verdict.holds == holds
    assert verdict.sentence.startswith(opening)
    assert "nan" not in verdict.sentence


def test_other_laws_have_a_claim_of_their_own():
    other = ratios_at((2.0, 2.0, 2.0, 2.0, 2.0, 0.5)).assign(law="return")
    both = pd.concat([ratios_at((0.5, 0.6, 0.7, 0.8, 1.5, 3.0)), other])
    visited, back = early_late.judge(both), early_late.judge(both, "return")
    assert (visited.claim, visited.holds) == ("EARLY-LATE", True)
    assert (back.claim, back.holds) == ("EARLY-LATE-RETURN", False)
    assert "return, 0: above 1" in visited.sentence and "visited, 0: below 1" in back.sentence


def test_what_is_measured_anew_replaces_its_places_alone():
    before, anew = ratios_at((2.0, 0.6, 0.7, 0.8, 1.5, 3.0)), ratios_at((0.5, 1, 1, 1, 1, 1))
    first = anew[(anew.iteration == 0) & (anew.seed == 1)]
    both = early_late.replaced(before, first)
    ratios = both[(both.quantity == "bias_ratio") & (both.horizon == 25)]
    found = ratios.set_index(["iteration", "seed"])["value"]
    assert len(both) == len(before)
    assert (found[0, 0], found[0, 1], found[1000, 1]) == (2.0, 0.5, 0.6)


def test_the_crossing_is_interpolated_in_the_logarithm():
    verdict = early_late.judge(ratios_at((0.5, 0.5, 0.5, 0.5, 2.0, 3.0)))
    assert verdict.numbers["crossing_path_tracking_seed0"] == pytest.approx(7500)
    assert "the rule's T/2 is 4500" in verdict.sentence


TASK = "inverted_pendulum"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Seeds 3 and 0 (in that order), 5 kept states each, at iteration 1000."""
    root = tmp_path_factory.mktemp("runs")
    place = Place(TASK, 1000, 0, "visited").folder(root)
    place.mkdir(parents=True)
    states = np.arange(2 * 5 * 4, dtype=np.float64).reshape(2, 5, 4) * 1e-3
    arrays = {
        "seed": records.Array(np.array([3, 0]), ("seed",)),
        "sample": records.Array(np.arange(5), ("sample",)),
        "coordinate": records.Array(np.arange(4), ("coordinate",)),
        "state": records.Array(states, ("seed", "sample", "coordinate")),
    }
    records.write(place / "states.h5", records.Record({"kind": "states"}, {"states": arrays}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        checkpoint.save(Policy(4, 1, hidden=(8,)), place / "seed0-policy.safetensors")
        checkpoint.save(QCritic(4, 1, hidden=(8,)), place / "seed0-critic.safetensors")
    return root


def test_visited_states_are_those_of_the_seed(checkpoints):
    found = starts_of(Place(TASK, 1000, 0, "visited"), 3, checkpoints).states
    np.testing.assert_allclose(found, (20 + np.arange(12)).reshape(3, 4) * 1e-3)
    assert len(starts_of(Place(TASK, 1000, 3, "visited"), 1024, checkpoints).states) == 5


@pytest.mark.parametrize("place", [Place(TASK, 0, 0, "visited"), Place(TASK, 1000, 0, "starts")])
def test_elsewhere_starts_follow_the_tasks_law(checkpoints, place):
    found = starts_of(place, 6, checkpoints).states
    torch.testing.assert_close(found, task_of(TASK).starts(6, stream(0, "starts")).double())


def test_states_of_the_return_are_those_that_the_checkpoint_visits(checkpoints):
    """From the task's own starts, some of them later than at the start."""
    place = Place(TASK, 1000, 0, RETURN)
    policy = samples_of.policy_at(place, checkpoints)
    found = starts_of(place, 6, checkpoints)
    want = visitation(task_of(TASK), policy, 6, 0)
    assert torch.equal(found.states, want.states[0])
    at_starts = task_of(TASK).starts(6, stream(0, "starts")).double()
    assert int((found.states != at_starts).any(dim=1).sum()) > 0


def test_the_truth_is_long_where_the_precise_one_is_cut(checkpoints):
    place = Place(TASK, 1000, 0, "visited")
    task, policy = task_of(TASK), samples_of.policy_at(place, checkpoints)
    begin = starts_of(place, 5, checkpoints)
    gradients, steps = samples_of.long_truth(task, policy, begin, 0)
    assert gradients.shape == (5, 1) and steps >= 100
