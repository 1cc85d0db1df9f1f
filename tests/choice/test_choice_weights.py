"""Weights of several gradients: the known optimum, contenders, and rules of the papers."""

import dataclasses

import numpy as np
import pytest

from gradlab import choose
from gradlab.statistics.mixing import MpgJournalWeights, MpgWeights
from gradlab.verdicts.choice import statements
from tests.choice.planted_gradients import P, explicit, noisy, planted, world


def test_weights_of_two_are_the_known_optimum():
    """E = diag(v1, v2)/N′ for unbiased, independent estimators: w_2 = v1/(v1 + v2)."""
    rng = np.random.default_rng(2)
    N, truth = 3000, np.broadcast_to(np.eye(P)[0], (3000, P))
    found = {("data", 0): noisy(rng, N, 0, 2.0), ("model", 5): noisy(rng, N, 0, 1.0)}
    pair = choose(planted(found, truth, batch=20)).pair
    assert pair.cells == (("data", 0), ("model", 5))
    assert pair.mse.share[1] == pytest.approx(4 / 5, abs=0.05)
    assert pair.mse.low[1] <= 4 / 5 <= pair.mse.high[1] + 0.02
    mixture, single = pair.contender("mse"), pair.contender("best single")
    assert mixture.mse == pytest.approx(P * 4 / 5 / 20, rel=0.1)
    assert single.mse == pytest.approx(P / 20, rel=0.1)


def test_gradients_that_point_away_have_no_weights_by_direction():
    rng = np.random.default_rng(9)
    truth = np.broadcast_to(np.eye(P)[0], (200, P))
    found = {cell: -noisy(rng, 200, 0.0, 0.1) for cell in (("data", 0), ("model", 4))}
    text = next(e.text for e in statements(choose(planted(found, truth))) if e.about == "pair")
    assert "by direction none: no mixture points along the truth. On the" in text
    assert "nan" not in text


def test_opposite_biases_cancel_and_shrinkage_alone_does_not_win():
    rng = np.random.default_rng(3)
    truth = np.broadcast_to(np.eye(P)[0], (600, P))
    found = {("data", 0): noisy(rng, 600, 0.8, 0.3), ("model", 4): noisy(rng, 600, -0.4, 0.3)}
    pair = choose(planted(found, truth, batch=1000)).pair
    assert pair.mse.share == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    assert pair.contender("mse").against.high < np.log(0.5)
    assert pair.contender("mse").gap.low > 0
    same = {("data", 0): found["data", 0], ("model", 4): 2 * found["data", 0]}
    shrunk = choose(planted(same, truth, batch=1000)).pair
    assert not shrunk.contender("direction").against.high < -0.05
    assert abs(shrunk.contender("direction").gap.high) < 0.01


def test_contenders_are_judged_on_the_half_that_did_not_choose_them():
    gradients, truth = world(4, N=60)
    profile = planted(gradients, truth)
    chosen = choose(profile, iteration=3000, ramp=4000)
    odd = slice(1, None, 2)
    for mixing in (chosen.pair, chosen.several):
        assert mixing.unseen == 30
        for each in mixing.contenders:
            G = sum(w * gradients[cell] for w, cell in zip(each.weights, mixing.cells, strict=True))
            want = explicit(G[odd], truth[odd], 64)
            assert each.mse == pytest.approx(want["mse"].value, rel=1e-9)
            assert each.cosine == pytest.approx(want["cosine_batch"].value, rel=1e-9)
    rule = chosen.pair.contender("MPG rule, iteration 3000 of 4000")
    assert rule.weights == pytest.approx(MpgWeights(ramp=4000)(3000, [0, 6]))
    own = {cell[0] for cell, w in zip(
        chosen.several.cells, chosen.several.contenders[-1].weights, strict=True) if w}  # fmt: skip
    assert own == {"data", "model"}


def test_both_papers_have_one_rule_as_a_function_of_time_over_the_ramp():
    for k in (0, 700, 2000, 3100, 4000, 5000):
        journal = MpgJournalWeights(iterations=4000)(k, [0, 3, 25])
        assert MpgWeights(ramp=4000)(k, [0, 3, 25]) == pytest.approx(journal, rel=1e-9)


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
    assert choose(planted(twins, truth)).pair.mse.share == pytest.approx([0.5, 0.5])
    zero = {("data", 0): 0 * truth, ("model", 2): 0 * truth}
    chosen = choose(planted(zero, truth))
    assert chosen.pair.direction.share.tolist() == [0, 0]
    assert chosen.mse.value == pytest.approx(1.0, rel=0.1)
    assert statements(chosen)
    few = {cell: G[:4] for cell, G in gradients.items()}
    chosen = choose(planted(few, truth[:4]))
    assert chosen.pair is None
    assert any("4 independent groups" in note for note in chosen.notes)
