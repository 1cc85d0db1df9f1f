"""No flipped bit in any file of gradlab's ends a process, raises a traceback or passes unseen."""

import pytest

from tests.robustness.flips import ALLOWED, FORGED, KINDS, flip_outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_refused_or_noticed(kind):
    found = flip_outcomes(kind, 40)
    assert found.total() == 40
    assert set(found) <= ALLOWED, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_file_ends_a_child_process_at_worst(kind):
    found = flip_outcomes(kind, 300)
    assert set(found) <= {*ALLOWED, "silent"}, found
