"""BIAS-DEC, run small: constants by autograd, and verdicts that could have been others."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.bounds import bias_dec, wrong_quadratics
from analyses.bounds.tailed_gradients import Dynamics
from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts


@pytest.fixture(scope="module")
def small():
    return bias_dec.measure(small=True)


@pytest.fixture(scope="module")
def world():
    return wrong_quadratics.make_world()


def test_errors_have_the_sizes_of_their_levels(world):
    errors = wrong_quadratics.wrong(world, 3)
    off = [
        torch.linalg.matrix_norm(wrong - right, 2)
        for wrong, right in (
            (errors.model.A, world.system.A),
            (errors.model.B, world.system.B),
        )
    ]
    level = errors.model_level.expand(3, -1, -1)
    torch.testing.assert_close(off[0] + off[1], level, atol=1e-12, rtol=0)
    twist = (errors.critic - world.critic).flatten(-2).norm(dim=-1) / world.critic.norm()
    torch.testing.assert_close(twist, errors.critic_level.expand(3, -1, -1), atol=1e-12, rtol=0)


def test_sensitivities_are_those_of_autograd(world):
    model = Dynamics(1.05 * world.system.A, world.system.B)
    path, K = wrong_quadratics.followed(world, model, model, 4)

    def rolled(weight):
        s, rows = world.starts, []
        for _ in range(5):
            rows.append(torch.cat([s, s @ weight.T], dim=1))
            s = s @ model.closed_loop(weight).T
        return torch.stack(rows)

    weight = world.setting.weight
    torch.testing.assert_close(path, rolled(weight))
    jacobian = torch.autograd.functional.jacobian(rolled, weight)[..., 0, :]
    sizes = torch.linalg.matrix_norm(jacobian, 2).amax(dim=1)[1:]
    expected = (sizes ** (1 / torch.arange(1, 5))).max()
    assert float(K) == pytest.approx(float(expected))


def test_the_bounds_hold_and_the_parts_add_up(small):
    numbers = small.numbers
    for name in ("maac", "rp"):
        for states in bias_dec.STATES:
            assert numbers[f"violations_{name}_{states}"] == 0
    assert numbers["r2_least"] > 0.9
    # At h ≤ 20 the closed loop's second eigenvalue still slows the decay a little.
    assert numbers["rate_without_factor"] == pytest.approx(numbers["rate_expected"], rel=0.15)
    assert abs(numbers["rate"] / numbers["rate_expected"] - 1) > 0.2
    assert numbers["rate_noisy"] > 0.5 * numbers["rate_expected"]


def test_without_errors_the_bias_is_zero_against_the_h_step_gradient_and_not_against_the_truth(
    small,
):
    table = small.table
    none = table[(table["epsilon_f"] == 0) & (table["epsilon_v"] == 0)]
    assert none["bias"].max() < 1e-14
    assert small.numbers["without_errors_h1"] > 0.2
    assert small.numbers["without_errors_h20"] < 1e-4


def planted(world, law):
    """Rows whose bias follows a given law of (ε_f, ε_v, h), bounds out of the way."""
    grid = [
        {"process_noise": noise, "states": states, "horizon": h, "seed": seed}
        | {"epsilon_f": f, "epsilon_v": v, "bias": law(f, v, h), "maac": 1e9, "rp": 1e9}
        for noise in ("none", "some")
        for states in bias_dec.STATES
        for h in bias_dec.HORIZONS
        for seed in range(2)
        for f in np.linspace(0, 0.05, 5)
        for v in np.linspace(0, 0.5, 5)
    ]
    return bias_dec.judge(pd.DataFrame(grid), world)


def test_only_additive_biases_with_the_right_decay_and_below_the_bounds_are_accepted(world):
    rate = np.log(wrong_quadratics.DISCOUNT * bias_dec.radius(world) ** 2)
    fades = lambda h: np.exp(rate * h)  # noqa: E731
    assert planted(world, lambda f, v, h: 3 * f + fades(h) * v).holds
    assert not planted(world, lambda f, v, h: 3 * f + np.exp(0.5 * rate * h) * v).holds
    assert not planted(world, lambda f, v, h: 100 * f * fades(h) * v + fades(h) * 1e-3 * v).holds
    assert not planted(world, lambda f, v, h: 1e12 * (3 * f + fades(h) * v)).holds


def test_the_verdict_is_saved(small, tmp_path):
    verdicts.save(small, tmp_path, "python -m analyses.bounds.bias_dec")
    made = read_verdicts(tmp_path)["bias-dec"]
    assert np.isfinite(list(made["numbers"].values())).all()
