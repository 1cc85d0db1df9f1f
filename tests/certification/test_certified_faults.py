"""The certificate names the forty planted faults, and is silent where nothing is wrong."""

import pytest

import gradlab
from tests.certification.faults.judged import alarms, outcome
from tests.certification.faults.planted import FAULTS
from tests.certification.sound_systems import mujoco_tasks, sound_tasks

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
