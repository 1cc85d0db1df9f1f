import pytest
import torch

from analyses.harness.bounds import MAACConstants
from analyses.harness.verdicts import save
from analyses.lemmas import lemma_a1

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def verdict():
    return lemma_a1.measure(small=True)


def test_the_repaired_bound_is_never_violated_on_common_states(verdict, tmp_path):
    assert verdict.holds
    assert verdict.numbers["violations"] == 0
    assert verdict.numbers["violations_total_variation"] == 0
    save(verdict, tmp_path, "python -m analyses.lemmas.lemma_a1")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv"}


def test_an_offset_of_the_model_violates_it_along_the_model_s_own_states(verdict):
    assert verdict.numbers["violations_own_states"] > 0


def test_a_violation_would_be_counted(verdict):
    table = verdict.table
    broken = table.assign(bound=table["bound"].where(table["system"] > 0, 0.5 * table["error"]))
    assert not lemma_a1.judge(broken).holds


def test_sensitivities_are_those_of_autograd():
    world = lemma_a1.draw(3)
    states = lemma_a1.visited(world.simulator, world.W, world.start)
    found = lemma_a1.course(states, world.simulator, world.W)

    def at(flat, t=5):
        W, s = flat.reshape(world.W.shape), world.start
        for _ in range(t):
            s = s @ world.simulator.A.T + s @ W.T @ world.simulator.B.T
        return torch.cat([s, s @ W.T], dim=1)[0]

    expected = torch.func.jacrev(at)(world.W.flatten())
    torch.testing.assert_close(found.slope[5], expected)
    torch.testing.assert_close(found.x[5], at(world.W.flatten()))


def test_the_printed_constant_is_the_sum_that_the_paper_closes():
    """L/(L − 1) Σ_{t<H} (γK)ᵗ (Lᵗ − 1) + L_Q (L^H − 1)/(L − 1) (γK)^H."""
    c = MAACConstants(gamma=0.9, L_f=0.7, L_pi=0.4, L_r=2.0, L_Q=3.0, K=1.3)
    L, gK = 0.7 * 1.4, 0.9 * 1.3
    reward = sum(gK**t * (L**t - 1) for t in range(6)) * L / (L - 1)
    critic = 3.0 * (L**6 - 1) / (L - 1) * gK**6
    assert lemma_a1.printed_c1(6, c) == pytest.approx(reward + critic)


def test_total_variation_of_two_equal_gaussians_is_zero_and_of_distant_ones_one():
    states = torch.ones(3, 2).double()
    nothing, bound = lemma_a1.total_variation(torch.zeros(4).double(), states, 2)
    everything, _ = lemma_a1.total_variation(torch.full((4,), 1e6).double(), states, 2)
    assert nothing == 0.0
    assert bound > 0
    assert everything == pytest.approx(1.0)
