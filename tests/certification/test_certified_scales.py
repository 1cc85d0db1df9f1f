"""Faults are found far from the origin, and beside states that are a million times larger."""

import math
from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.systems import from_function
from gradlab.tasks import Task
from gradlab.tools.certify.comparison import SAFETY
from gradlab.tools.certify.evaluation import SIZE, Points, reference
from tests.certification.faults.fault import with_derivative_of
from tests.certification.faults.judged import alarms, outcome
from tests.certification.faults.planted import FAULTS
from tests.certification.sound_systems import elsewhere, mujoco_tasks, sound_tasks

FAR = dict(elsewhere())["far"]


def broken(s, a):
    """∂s0′/∂s0 lacks a hundredth."""
    out = FAR.simulator.step(s, a)
    first = with_derivative_of(out.state[:, 0], 0.99 * (out.state[:, 0] - s[:, 1]) + s[:, 1])
    return torch.stack([first, out.state[:, 1]], 1), out.reward


def wrong_blocks(task):
    findings = gradlab.certify(task, samples=128).findings
    return {finding.block for finding in findings if finding.severity == "wrong"}


def test_fault_is_found_a_thousand_kilometres_from_the_origin():
    assert wrong_blocks(FAR) == set()
    assert wrong_blocks(replace(FAR, simulator=from_function(broken, 2, 1))) == {"A"}


def test_fault_is_found_beside_states_that_left():
    """One start in twenty is a million times larger than the others."""

    def starts(n, generator):
        near = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return near * torch.where(torch.arange(n) % 20 == 0, 1e6, 1.0)[:, None]

    def step(s, a):
        pull = torch.sin(3 * s)
        return 0.5 * s + with_derivative_of(pull, 0.99 * pull) + a, -s.square().sum(1)

    task = Task("heavy tails", from_function(step, 2, 1), None, starts, 0.98, 4)
    assert wrong_blocks(task) == {"A"}


def test_wide_step_that_aliases_is_not_the_best():
    """sin in single precision: ten times the usual step, and its quarter, are whole periods."""
    epsilon = torch.finfo(torch.float32).eps
    usual = 2 * math.pi / 2.5
    size = torch.full((2,), usual / (SIZE * epsilon ** (1 / 3)), dtype=torch.float64)

    def step(s, a):
        after = torch.sin(s.float() + a.float()).to(s.dtype)
        return after, after[:, 0]

    z = torch.linspace(-3, 3, 64, dtype=torch.float64)[:, None] * torch.ones(2)
    z = z.float().double()
    differences = reference(from_function(step, 1, 1), Points(z, None), size, 1e-3, epsilon)
    gap = (differences.D - z.sum(1).cos()[:, None, None]).abs()
    assert (gap <= SAFETY * differences.error).all()


def test_errors_of_blocks_in_units_a_million_times_apart_are_those_of_rounding():
    """s1′ has ∂/∂a of 1e-9 of its ∂/∂s in spreads: what differences make of it says nothing."""

    def step(s, a):
        return torch.stack([0.9 * s[:, 0], 1e6 * s[:, 1] + 1e-3 * a[:, 0]], 1), -(s[:, 0] ** 2)

    certificate = gradlab.certify(from_function(step, 2, 1), samples=256)
    assert certificate.passed and certificate.table()["p95"].max() < 1e-3


# The certificate names the forty planted faults, and is silent where nothing is wrong.


# In the fast suite, where a second batch of derivatives follows the first; of `certify`.
SAMPLES, DEFAULT = 288, 2048
SOUND = dict(sound_tasks())
SOME = list(SOUND)[::12]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found_and_its_block_named(fault):
    certified = outcome(fault, SAMPLES)
    assert certified.named, certified


@pytest.mark.parametrize("name", SOME)
def test_sound_system_passes(name):
    certification = gradlab.certify(SOUND[name], samples=SAMPLES)
    assert certification.passed, certification.sentences


@pytest.mark.slow
def test_at_least_39_of_40_faults_are_found_with_the_default_number_of_states():
    missed = [fault.name for fault in FAULTS if not outcome(fault, DEFAULT).named]
    assert len(missed) <= 1, missed


@pytest.mark.slow
def test_at_most_one_false_alarm_in_two_hundred_sound_systems():
    systems = SOUND | dict(mujoco_tasks())
    raised = [name for name, task in systems.items() if alarms(gradlab.certify(task))]
    assert len(systems) >= 200
    assert len(raised) <= 1, raised
