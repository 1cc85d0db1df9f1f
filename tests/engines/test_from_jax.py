"""JAX functions as Systems, against the same system in torch.

`gradlab certify` of a user's file with an engine's step: a system and a task.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import torch

from gradlab.cli import main
from gradlab.errors import InputError
from gradlab.systems import Pendulum, from_jax
from gradlab.systems.system import BLOCKS


def pendulum(state, action):
    angle, speed = state
    torque = 3 * jnp.clip(action[0], -2, 2)
    speed = jnp.clip(speed + 0.05 * (15 * jnp.sin(angle) + torque), -8, 8)
    wrapped = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
    cost = wrapped**2 + 0.1 * state[1] ** 2 + 0.001 * jnp.clip(action[0], -2, 2) ** 2
    return jnp.stack([angle + 0.05 * speed, speed]), -cost


def inputs(n):
    draws = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws[:, :2] * torch.tensor([1.0, 4.0]), 1.5 * draws[:, 2:]


SYSTEM = from_jax(pendulum, 2, 1, rows=64)


@pytest.mark.parametrize("n", [1, 100])
def test_step_and_both_modes_are_those_of_the_same_system_in_torch(n):
    truth = Pendulum()
    ours, theirs = SYSTEM.step(*inputs(n)), truth.step(*inputs(n))
    torch.testing.assert_close(ours.state, theirs.state, rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.reward, theirs.reward, rtol=0, atol=1e-13)
    linear, expected = SYSTEM.linearize(*inputs(n)), truth.linearize(*inputs(n))
    for block in BLOCKS:
        torch.testing.assert_close(
            getattr(linear, block), getattr(expected, block), rtol=0, atol=1e-12
        )
    s, a = (x.requires_grad_() for x in inputs(n))
    out = SYSTEM.step(s, a)
    by_s, by_a = torch.autograd.grad(out.state[:, 1].sum() + 2 * out.reward.sum(), (s, a))
    torch.testing.assert_close(by_s, expected.A[:, 1] + 2 * expected.r_s, rtol=0, atol=1e-12)
    torch.testing.assert_close(by_a, expected.B[:, 1] + 2 * expected.r_a, rtol=0, atol=1e-12)


def test_jax_outside_keeps_its_precision_and_float32_stays_float32():
    s, a = (x.float() for x in inputs(3))
    assert SYSTEM.step(s, a).state.dtype == SYSTEM.linearize(s, a).A.dtype == torch.float32
    assert jnp.zeros(2).dtype == jnp.float32


def test_a_row_does_not_depend_on_its_batch_and_results_own_their_memory():
    s, a = inputs(100)
    whole = SYSTEM.step(s, a).state
    assert torch.equal(SYSTEM.step(s[37:40], a[37:40]).state, whole[37:40])
    same = from_jax(lambda s, a: (s, a[0]), 2, 1, rows=100)
    same.step(s, a).state.zero_()
    assert torch.equal(s, inputs(100)[0])


def test_noise_and_termination():
    system = from_jax(
        lambda s, a, xi: (s + xi, s[0] * a[0]), 2, 1, 2, lambda after: after[0] < 0.0, rows=8
    )
    s, a = inputs(5)
    xi = system.sample_noise(5, torch.Generator().manual_seed(1))
    assert torch.equal(system.step(s, a, xi).state, s + xi)
    assert torch.equal(system.step(s, a).alive, s[:, 0] < 0)


def endless(state, action):
    """Newton's iterations for a square root until they stand still."""
    after = jax.lax.while_loop(
        lambda x: jnp.abs(x @ x - 2.0) > 1e-12, lambda x: x / jnp.sqrt(x @ x / 2), state
    )
    return after, action[0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (None, "^step is None, expected a function"),
        (lambda s, a: s, "^step returned .*, expected two, next_state and reward"),
        (lambda s, a: (s[:1], a[0]), r"^step returned \[1\] in float64 and"),
        (lambda s, a: (s, a), r"^step .* and \[1\] in float64, .* and \[\] in float64"),
        (lambda s, a: (s.astype("float32"), a[0]), r"^step returned \[2\] in float32"),
        (lambda s, a: (s if a[0] > 0 else -s, a[0]), "lax.cond or jnp.where in the place of if"),
        (lambda s: (s, 0.0), "step takes \\(state, action\\)"),
    ],
)  # fmt: skip
def test_bad_steps_end_in_one_line(step, message):
    with pytest.raises(InputError, match=message) as caught:
        from_jax(step, 2, 1)
    assert "\n" not in str(caught.value)


def test_a_loop_of_unknown_length_has_forward_mode_only():
    system = from_jax(endless, 2, 1, rows=8)
    s, a = (x.requires_grad_() for x in inputs(3))
    assert system.linearize(s, a).A.shape == (3, 2, 2)
    with pytest.raises(InputError, match="fixed number of iterations"):
        system.step(s, a).state.sum().backward()


FILE = Path(__file__).parent / "own_file.py"


@pytest.mark.parametrize("name", ["body", "task"])
def test_certify_takes_a_system_and_a_task(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["certify", f"{FILE}:{name}", "--samples", "64", "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)
    assert certificate["passed"]
    assert {row["source"] for row in certificate["table"]} == {"step", "linearize"}
    assert max(row["p95"] for row in certificate["table"] if row["p95"] is not None) < 1e-6
