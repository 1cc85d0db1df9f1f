"""Steps that depend on more than the row of their arguments."""

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.cli.program import command_of
from gradlab.systems import from_function
from gradlab.tools.certify.anew import first_call_findings, first_calls


def certified(step):
    return gradlab.certify(from_function(step, 2, 2), samples=64)


def smooth(s, a):
    return torch.sin(s) + 0.1 * a, -s.square().sum(1)


def kinds(certificate):
    return {finding.kind for finding in certificate.findings}


def test_a_value_that_is_kept_from_a_first_call_is_found_in_one_batch():
    """Of as many rows as the whole sample has, so that no call before had another."""
    kept: dict[int, Tensor] = {}

    def step(s, a):
        after, reward = smooth(s, a)
        return kept.setdefault(len(s), after.detach()) + after - after.detach(), reward

    assert kinds(certified(step)) == {"stale"}


def test_rows_that_mix_are_found():
    assert kinds(certified(lambda s, a: smooth(s - 1e-6 * s.mean(0), a))) == {"rows mix"}


def test_an_argument_that_is_written_into_is_found():
    def step(s, a):
        result = smooth(s, a.detach() + (a - a.detach()))
        a.data.mul_(0.5)
        return result

    assert "arguments changed" in kinds(certified(step))


def test_a_derivative_of_other_rows_is_found_in_its_block():
    def step(s, a):
        after, reward = smooth(s, a)
        others = a.mean(0, keepdim=True)
        return after + 0.1 * (others - others.detach()), reward

    certificate = certified(step)
    assert {each.block for each in certificate.findings if each.severity == "wrong"} == {"B"}


def test_random_state_of_the_caller_is_kept():
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    certified(smooth)
    assert torch.equal(torch.rand(1), wanted)


def test_a_counter_that_turns_late_is_found():
    calls = []

    def step(s, a):
        calls.append(1)
        return smooth(s + (0.01 if len(calls) > 900 else 0.0), a)

    assert kinds(certified(step)) == {"stale"}


def test_an_angle_that_wraps_outside_of_unit_states_is_met():
    def step(s, a):
        turned = s + 0.1 * a
        return torch.remainder(turned + torch.pi, 2 * torch.pi) - torch.pi, -s.cos().sum(1)

    certificate = certified(step)
    assert certificate.passed and certificate.facts["strata"]["onset"] > 0


CACHED = """
import torch, gradlab
kept = []
def make():
    def step(s, a):
        kept or kept.append(s.detach().mean())
        return torch.sin(s) + 0.1 * a + {scale} * kept[0], -s.square().sum(1)
    return gradlab.systems.from_function(step, 2, 2)
"""


@pytest.mark.parametrize(("scale", "passes"), [("1e-3", False), ("0.0", True)])
def test_what_a_first_call_leaves_behind_is_found_by_another_process(tmp_path, scale, passes):
    (tmp_path / "cached.py").write_text(CACHED.replace("{scale}", scale))
    document = command_of("certify")(f"{tmp_path}/cached.py:make", samples=64).run("")
    assert document["passed"] is passes and document["facts"]["first call"] == "tried"
    words = " ".join(each["text"] for each in document["verdict"])
    assert ("depends on its first call" in words) is not passes


def test_a_first_call_that_fails_elsewhere_is_no_finding():
    system = from_function(lambda s, a: (s[:, :1], s[:, 0]), 2, 2)
    calls = first_calls(system, 0)
    assert isinstance(calls, str) and calls.startswith("not tried: step returned")
    assert first_call_findings(calls, 1e-16) == []
