"""Sound losses in the shapes of published code have no fault."""

import pytest
import torch

from gradlab.tools.audit.compute import audit
from tests.auditing import sound


@pytest.mark.parametrize("make", sound.SOUND, ids=lambda make: make.__name__)
def test_sound_loss_has_no_finding_but_gradients_left_in_the_critic(make):
    torch.manual_seed(1)
    result = audit(**make())
    assert result.passed
    assert {finding.kind for finding in result.findings} <= {"left behind"}, result
