"""Gradients in a step's parameters, for system identification."""

import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_function

MASS = torch.tensor([1.5], dtype=torch.float64)
FRICTION = torch.tensor([[0.1, 0.2]], dtype=torch.float64)


def certified(force, **parameters):
    def step(s, a):
        return s + 0.1 * (a / MASS - force(s)), -s.square().sum(1)

    system = from_function(step, 2, 2)
    return gradlab.certify(system, samples=128, parameters=parameters)


def test_sound_gradients_pass_and_leave_the_tensors_as_they_were():
    before = MASS.clone(), FRICTION.clone()
    certificate = certified(lambda s: FRICTION * s**3, mass=MASS, friction=FRICTION)
    assert certificate.passed
    assert max(certificate.facts["parameters"].values()) < 1e-6
    assert torch.equal(MASS, before[0]) and torch.equal(FRICTION, before[1])
    assert not MASS.requires_grad


def test_a_detached_parameter_is_named():
    certificate = certified(
        lambda s: FRICTION.detach() * s**3 + 0 * FRICTION, mass=MASS, friction=FRICTION
    )
    (finding,) = (each for each in certificate.findings if each.severity == "wrong")
    assert (finding.block, finding.column) == ("parameters", "friction")
    assert finding.size == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("given", [3, {}, {"mass": 1.5}, {"mass": torch.ones(2, 3).T}])
def test_what_is_no_parameter_is_refused(given):
    system = from_function(lambda s, a: (s + a, s[:, 0]), 2, 2)
    with pytest.raises(InputError, match="parameters"):
        gradlab.certify(system, samples=64, parameters=given)
