"""A simulator's own derivatives are tested at states of the path, and a wrong entry is named."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab import systems
from gradlab.systems.system import Linearization
from gradlab.tools.jacobians.page import screen
from tests.jacobians.systems import GAIN, feedback, linear, starts
from tests.planted_tools import PlantedSystem, said


class Planted(PlantedSystem):
    """A system whose `linearize` is written by hand, with a fault."""

    def linearize(self, state, action, noise=None):
        found = self.system.linearize(state, action, noise)
        blocks = [x.clone() for x in (found.A, found.B, found.r_s, found.r_a)]
        self.fault(*blocks)
        return Linearization(*blocks, found.certificate)


def scaled(A, B, r_s, r_a):
    A[:, 1, 1] *= 1.01


def turned(A, B, r_s, r_a):
    B[:, 1, 0] *= -1


def zeroed(A, B, r_s, r_a):
    A[:, 0, 1] = 0


def transposed(A, B, r_s, r_a):
    A.copy_(A.mT.clone())


def dropped(A, B, r_s, r_a):
    r_s[:, 1] = 0


def sound(A, B, r_s, r_a):
    pass


def rolled(system, fault, width, **settings):
    gain = GAIN[:, :width] if width <= 3 else 0.1 * torch.ones(1, width, dtype=torch.float64)
    wide = gain.expand(system.action_dim, -1)
    start = 0.5 * starts(16, width)
    return gradlab.compare_jacobians(
        Planted(system, fault), None, start, feedback(wide), horizon=12, discount=0.9, **settings
    )


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (scaled, "∂s'/∂s of s1' by s1"),
        (turned, "∂s'/∂a of s1' by a0"),
        (zeroed, "∂s'/∂s of s0' by s1"),
        (transposed, "∂s'/∂s of s0' by s1"),
        (dropped, "∂r/∂s of reward by s1"),
    ],
)
@pytest.mark.parametrize(("system", "width"), [(linear(), 3), (systems.Pendulum(), 2)])
def test_a_wrong_entry_is_red_and_named(system, width, fault, named):
    run = rolled(system, fault, width)
    first = screen(run)
    if fault is transposed and width == 3:
        named = named.replace("s0'", "s2'")
    assert first.light == "none"
    assert first.headline == (f"Fix the simulator Planted first: {named} is not that of its step.")
    sentence = said(run, "certificate")
    assert not sentence.decided and f"wrong: {named} is off in " in sentence.text


@pytest.mark.parametrize(
    ("system", "width"),
    [(linear(), 3), (systems.Pendulum(), 2), (systems.CartPoleModel(), 4)],
)
def test_sound_derivatives_are_shown_to_be(system, width):
    run = rolled(system, sound, width)
    assert run.notes["tested"] == "sound"
    assert said(run, "certificate").decided
    assert "tested: those of its step at 96 states" in said(run, "certificate").text
    assert screen(run).light != "none"


def bouncing(s, a):
    """A hard impact, with restitution: a jump of the step, and of its derivatives."""
    v = s[:, 1] + 0.05 * (a[:, 0] - 9.8)
    z = s[:, 0] + 0.05 * v
    hit = z < 0
    state = torch.stack([torch.where(hit, -0.7 * z, z), torch.where(hit, -0.7 * v, v)], 1)
    return state, -((state[:, 0] - 1) ** 2) - 0.01 * a[:, 0] ** 2


def test_impacts_are_no_wrong_derivatives():
    start = starts(32, 2).abs()
    system = systems.from_function(bouncing, 2, 1)
    policy = feedback(torch.tensor([[0.1, -0.2]], dtype=torch.float64))
    run = gradlab.compare_jacobians(system, None, start, policy, horizon=40)
    assert run.notes["tested"] == "sound"


def test_a_run_of_before_was_not_tested():
    run = rolled(linear(), sound, 3)
    notes = {name: value for name, value in run.notes.items() if not name.startswith("test")}
    old = replace(run, notes=notes)
    assert "not tested: `gradlab certify`" in said(old, "certificate").text
    assert screen(old).light == "choose"
