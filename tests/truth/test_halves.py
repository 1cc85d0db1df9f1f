"""One half of the starts chooses where a truth is cut, the other judges it there."""

import torch

from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.starts import Starts
from gradlab.truth.agreement import PRECISION, judge_first, precision_of
from gradlab.truth.truth import halves_of_gradients, halves_of_sweep
from tests.truth.linear_policies import feedback

N, T = 64, 40


def judged(seed, error, groups=N):
    """Action gradients of mean 1 and independent noise at every truncation, J = 1 everywhere."""
    ones = torch.ones(N, 1, dtype=torch.float64)
    starts = Starts(ones, ones[:, 0], torch.arange(N) % groups)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(T, N, 1, generator=generator, dtype=torch.float64)
    jacobian = policy_jacobian(feedback(0.5), starts.states, torch.zeros(N, 0))
    sweep = 1 + error * N**0.5 * noise
    return judge_first(sweep, jacobian, starts, None), jacobian, starts


def test_a_truncation_that_looks_precise_by_luck_is_not_believed():
    """True relative standard errors of .4 at 40 truncations: one of them looks like a quarter."""
    by_all = by_halves = 0
    for seed in range(30):
        sweep, jacobian, starts = judged(seed, 0.4)
        by_all += bool(sweep.good.any())
        halves = halves_of_sweep(sweep, jacobian, starts)
        chosen = halves.chosen(sweep).nonzero().flatten()
        by_halves += bool(len(chosen)) and halves.at(sweep, int(chosen[-1]) + 1).good
    assert by_all >= 27 and by_halves <= 9


def test_a_truncation_that_is_precise_is_believed():
    """0.08, and its upper end: G = 1 + σz has E G² = 1 + σ² and Var G² = 4σ² + 2σ⁴, whose mean over
    the 32 starts of a half has a relative standard error of 0.18."""
    error = 0.08
    square = error**2 * N
    doubt = ((4 * square + 2 * square**2) / 32) ** 0.5 / (1 + square)
    for seed in range(5):
        sweep, jacobian, starts = judged(seed, error)
        halves = halves_of_sweep(sweep, jacobian, starts)
        assert halves.chosen(sweep).all()
        references = [halves.at(sweep, t) for t in range(1, T + 1)]
        assert all(reference.good for reference in references)
        mean = sum(reference.standard_error for reference in references) / T
        # Of all starts, not of the half; a sample's own doubt is a little smaller.
        assert abs(mean - error * (1 + 2 * doubt) ** 0.5) < 0.004


def test_the_judging_half_has_none_of_the_choosing_halfs_groups():
    sweep, jacobian, starts = judged(0, 0.1, groups=16)
    halves = halves_of_sweep(sweep, jacobian, starts)
    odd = (starts.group % 2 == 1).nonzero().flatten()
    few = Starts(starts.states[odd], starts.weight[odd], starts.group[odd])
    alone = precision_of(sweep.gradients[3, odd], few)
    reference = halves.at(sweep, 4)
    torch.testing.assert_close(torch.tensor([reference.norm]).double(), alone.norm)
    label = few.group.unique(return_inverse=True)[1]
    sums = torch.zeros(8, 1, dtype=torch.float64).index_add_(0, label, sweep.gradients[3, odd])
    share = sums.square() / sums.square().sum()
    upper = (1 + 2 * (share.square().sum() - 1 / 8).sqrt()).sqrt()
    torch.testing.assert_close(2**0.5 * halves.judging.error[3:4], upper * alone.error)
    changed = sweep.gradients.clone()
    changed[:, starts.group % 2 == 0] += 100.0
    other = judge_first(changed, jacobian, starts, None)
    assert halves_of_sweep(other, jacobian, starts).at(other, 4).norm == reference.norm


def test_few_groups_are_not_split():
    sweep, jacobian, starts = judged(0, 0.1, groups=4)
    halves = halves_of_sweep(sweep, jacobian, starts)
    assert halves.judging is sweep.precision
    assert halves.at(sweep, 2).relative_se == sweep.at(2).relative_se < PRECISION
    assert halves_of_gradients(sweep, starts).choosing is sweep.precision
