"""Several steps: chained derivatives, their signs, smoothed returns, and what rollouts meet."""

import pytest
import torch

import gradlab
from gradlab.systems import Pendulum, from_function
from gradlab.tools.certify.chains import Chain, smoothed
from gradlab.tools.certify.evaluation import by_autograd


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_tangents_are_the_derivative_of_the_returns():
    run = Chain(Pendulum(), 0.5 * random(6, 3), 0.5 * random(4, 6, 1, seed=1), None, 0.9)
    direction = random(6, 3, 1, seed=2)
    _, path = run.rolled(run.first)
    given = run.tangents(by_autograd, direction, path)[..., 0]
    h = 1e-6
    up, down = (run.rolled(run.first + sign * h * direction[..., 0])[0] for sign in (1, -1))
    torch.testing.assert_close(given, (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


def test_the_step_at_which_a_chained_gradient_turns_is_named():
    # dR_1 = 1, dR_2 = 1 - 0.99 · 2 < 0 by a derivative of -2 for 0.9.
    system = from_function(lambda s, a: (0.9 * s - 2.9 * (s - s.detach()), s[:, 0]), 1, 1)
    certificate = gradlab.certify(system, states=random(64, 1), actions=random(64, 1))
    assert certificate.facts["sign horizon"] == 1
    assert any(finding.kind == "sign" for finding in certificate.findings)


def test_signs_of_a_sound_system_hold_over_the_whole_horizon():
    certificate = gradlab.certify(gradlab.tasks.double_integrator(), samples=64, horizon=12)
    assert certificate.facts["sign horizon"] == 12


def test_a_kink_is_rough_and_its_smoothed_gradient_is_beside():
    system = from_function(lambda s, a: (s, torch.relu(a[:, 0])), 1, 1)
    run = Chain(system, torch.zeros(8, 2).double(), torch.zeros(0, 8, 1).double(), None, 0.9)
    result = smoothed(run, by_autograd, torch.tensor([0.1]).double(), random(4000, 8, 1))
    # ∇R = 0 at the kink by torch's convention, ∇E R = 1/2.
    assert result.gap == pytest.approx(1.0, abs=1e-6)
    assert result.noise < 0.05
    certificate = gradlab.certify(system, states=random(64, 1), actions=torch.zeros(64, 1))
    assert certificate.passed
    (finding,) = (each for each in certificate.findings if each.kind == "rough")
    assert finding.stratum == "onset" and finding.size == pytest.approx(1.0, abs=1e-6)


def test_clips_are_found_without_being_named():
    """Beyond a clip at 0.137 the derivative is wrong, in a stratum of its own."""

    def step(s, a):
        clipped = s.clamp(-0.137, 50.0)
        return clipped + 0.1 * a, -(s[:, 0] ** 2)

    certificate = gradlab.certify(from_function(step, 2, 2), samples=256)
    assert certificate.passed, certificate.sentences
    strata = certificate.facts["strata"]
    assert strata["saturation"] > 0 and strata["onset"] > 0


def test_the_first_step_that_is_not_finite_is_named():
    def step(s, a):
        return s + 1 + 0 * a + 0 * (20.5 - s).sqrt(), s[:, 0]

    def starts(n, generator):
        return torch.full((n, 1), 10.0, dtype=torch.float64)

    task = gradlab.Task("counter", from_function(step, 1, 1), None, starts, 0.9, 5, ("count",))
    certificate = gradlab.certify(task, samples=2048)
    (note,) = (each for each in certificate.findings if each.severity == "note")
    assert (note.kind, note.row) == ("not finite", "count′")
    assert "at step 11" in note.sentence  # 10, 11, …, 21: the root of −0.5
