"""Every planted fault is named, and nothing beside it; sound losses have none."""

import pytest
import torch

from gradlab.tools.audit.compute import audit
from tests.auditing import faulty, public, sound
from tests.auditing.drawn import KINDS, Fault, draw, made


@pytest.mark.parametrize(("make", "kind", "words"), faulty.FAULTS)
def test_fault_is_the_one_finding_that_is_wrong(make, kind, words):
    torch.manual_seed(1)
    result = audit(**make())
    wrong = [finding for finding in result.findings if finding.severity == "wrong"]
    assert [finding.kind for finding in wrong] == [kind], result
    assert words in wrong[0].sentence
    assert not result.passed


FAULTY = [row for row in public.FAULTY if row[1] not in [each[0] for each in faulty.FAULTS]]


@pytest.mark.parametrize(("source", "make", "kind"), FAULTY)
def test_a_fault_of_a_public_thread_is_named(source, make, kind):
    torch.manual_seed(1)
    result = audit(**make())
    assert not result.passed and kind in {finding.kind for finding in result.findings}, source


SCORED = ("reinforce", "score_through_model", "svg", "gumbel")  # and surrogates on purpose
WHOLE = ("sac_cleanrl", "sac_sb3", "ddpg", "td3", "maac", "shac", "ppo")
OWN = [make for _, make in public.SOUND if make not in sound.SOUND]


@pytest.mark.parametrize("make", [*sound.SOUND, *OWN], ids=lambda make: make.__name__)
@pytest.mark.sampled(7)
def test_sound_loss_has_no_finding_but_gradients_left_in_the_critic(make):
    torch.manual_seed(1)
    result = audit(**make())
    assert result.passed, result
    if make not in OWN:
        assert {finding.kind for finding in result.findings} <= {"left behind", "dead rows"}, result
    if make.__name__ in WHOLE + SCORED:
        assert result.derivative.surrogate == (make.__name__ in SCORED)


# Of losses drawn from parts, sound ones have no fault and planted ones are named.


FAULTS: tuple[Fault, ...] = ("none", "sample", "normal", "round", "detach", "data", "no_grad")


def _mistakes(fault, seeds):
    """Seeds of which the verdict is wrong."""
    mistaken = []
    for seed in seeds:
        torch.manual_seed(seed)
        result = audit(**made(draw(seed, fault)), directions=0)
        wrong = [finding.kind for finding in result.findings if finding.severity == "wrong"]
        # Where the planted fault takes all of the gradient, that is the finding.
        allowed = [[]] if fault == "none" else [[KINDS[fault]], ["dead actor"]]
        if wrong not in allowed:
            mistaken.append(seed)
    return mistaken


@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts(fault):
    assert _mistakes(fault, range(6)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_is_that_of_the_parts_in_many(fault):
    assert _mistakes(fault, range(6, 206)) == []
