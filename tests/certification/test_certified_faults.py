"""The certificate names the forty planted faults, and is silent where nothing is wrong."""

from __future__ import annotations

import pytest

import gradlab
from tests.certification.faults.fault import Fault
from tests.certification.faults.judged import is_named
from tests.certification.faults.planted import FAULTS
from tests.certification.sound_systems import sound_tasks

SAMPLES = 128  # in the fast suite
SOUND = dict(sound_tasks())
SOME = list(SOUND)[::9]
# A wrong derivative of a step that is a function: no memory of earlier calls, no single precision.
WRONG_DERIVATIVES = [
    fault for fault in FAULTS if fault.blocks and not {"stale", "single precision"} & {*fault.kinds}
]


@pytest.mark.parametrize("fault", WRONG_DERIVATIVES, ids=lambda fault: fault.name)
def test_fault_is_found_and_its_block_named(fault: Fault) -> None:
    certification = gradlab.certify(fault.task(), samples=SAMPLES)
    assert is_named(fault, certification), certification.sentences


@pytest.mark.parametrize("name", SOME)
def test_sound_system_passes(name: str) -> None:
    certification = gradlab.certify(SOUND[name], samples=SAMPLES)
    assert certification.passed, certification.sentences
