"""Claims on growing variance and rough landscapes, run small, and able to come out otherwise."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts
from analyses.jacobians import errors as jacobians
from analyses.jacobians import landscape, robots, var_exp
from analyses.jacobians import page as jacobian_claims
from gradlab.fitting.policies import KP
from gradlab.tasks import task_from_name

SCRIPTS = (var_exp, landscape)


@pytest.fixture(scope="module")
def small():
    return {script: script.measure(small=True) for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.split(".")[1])
def test_a_verdict_is_saved(script, small, tmp_path):
    verdicts.save(small[script], tmp_path, "python -m analyses.this")
    (tmp_path / "README.md").write_text("# Above\n")
    for _ in range(2):
        jacobian_claims.refresh(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Above")
    assert text.count(f"| {small[script].claim} |") == 1
    stem = tmp_path / small[script].claim.lower()
    made = read_verdicts(tmp_path)[stem.name]
    assert all(np.isfinite(value) for value in made["numbers"].values())


def test_traces_are_covariances_and_leave_one_out():
    G = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)).double()
    value, left_out = var_exp.traces(G)
    assert value == pytest.approx(float(np.trace(np.cov(G.numpy().T))))
    rest = np.delete(G.numpy(), 4, axis=0)
    assert left_out[4] == pytest.approx(float(np.trace(np.cov(rest.T))))


def planted(law, late, control):
    """Fits of variances that follow formulas, as `measure` would table them."""
    rows = []
    for world, contracts, actions, formula in (
        ("unstable", False, "all", lambda h: law(h) if h <= 30 else late(h)),
        ("contractive", True, "all", control),
        ("contractive", True, "first", control),
    ):
        spread = np.exp(1e-3 * np.random.default_rng(0).standard_normal(200))
        found = {h: (formula(h), formula(h) * spread) for h in var_exp.ALL}
        fits = var_exp.fit(found, var_exp.HORIZONS)
        fits |= {f"late_{name}": x for name, x in var_exp.fit(found, var_exp.LATE).items()}
        about = {"world": world, "contracts": contracts, "actions": actions, "N": 200}
        sizes = {"L_f": 2.0, "L_pi": 1.0, "bound": 4.2 if not contracts else 0.0}
        rows += [about | {"h": h, "variance": found[h][0]} | sizes | fits for h in var_exp.ALL]
    return pd.DataFrame(rows)


def exponential(h):
    return np.exp(0.4 * h)


def power(h):
    return float(h) ** 4


def test_an_exponential_is_found_and_a_power_law_is_none():
    flat = 1.0
    met = var_exp.judge(planted(exponential, exponential, lambda h: flat - 1e-3 * h))
    assert met.holds
    assert met.numbers["unstable_all_slope"] == pytest.approx(0.4)
    assert met.numbers["unstable_all_delta_aic"] > 10
    assert not var_exp.judge(planted(power, power, lambda h: flat - 1e-3 * h)).holds
    assert not var_exp.judge(planted(exponential, exponential, power)).holds


def test_a_power_law_that_turns_exponential_is_told_apart():
    late = var_exp.judge(planted(power, lambda h: power(30) * exponential(h - 30), lambda h: 1.0))
    assert not late.holds
    assert "h = 20 to 60" in late.sentence


def test_a_contractive_control_grows_only_by_its_number_of_terms(small):
    numbers = small[var_exp].numbers
    assert numbers["contractive_all_slope_low"] > 0
    assert abs(numbers["contractive_first_late_slope"]) < 1e-6


def test_roughness_of_a_parabola_is_known_and_scale_free():
    x = np.linspace(-1, 1, 21)
    bowl = x[:, None] ** 2 + x[None] ** 2
    assert landscape.roughness(bowl) == pytest.approx(0.01)
    assert landscape.roughness(7 + 300 * bowl) == pytest.approx(0.01)
    wavy = bowl + 0.1 * np.sin(40 * x)[:, None]
    assert landscape.roughness(wavy) > 3 * landscape.roughness(bowl)


@pytest.mark.parametrize(("factor", "holds"), [(4.0, True), (2.0, False)])
def test_only_a_threefold_roughness_meets_the_criterion(factor, holds, small):
    table = small[landscape].table
    planted = table.assign(roughness=np.where(table["h"] == landscape.LONG, 0.01 * factor, 0.01))
    verdict = landscape.judge(planted)
    assert verdict.holds == holds
    assert verdict.numbers["cart-pole_swing-up_ratio"] == pytest.approx(factor)


def test_a_posture_controller_pushes_back_and_stays_within_its_limits():
    simulator = task_from_name("Hopper-v5", {}).simulator
    controller, gains = robots.posture(simulator)
    rest = torch.from_numpy(np.concatenate([simulator.built.qpos[1:], simulator.built.qvel]))[None]
    assert torch.equal(controller(rest), torch.zeros(1, 3, dtype=torch.float64))
    assert gains.joints == ("thigh_joint", "leg_joint", "foot_joint")
    bent = rest.clone()
    bent[0, 2] += 0.1  # state: z, tilt, thigh, leg, foot, …
    assert controller(bent)[0].tolist() == pytest.approx([-0.1 * KP, 0.0, 0.0])
    bent[0, 2] += 100
    assert controller(bent)[0, 0] == -1.0


def test_random_actions_are_uniform_over_the_control_range():
    policy = robots.random(task_from_name("Humanoid-v5", {}).simulator)
    noise = torch.randn(4000, 17, generator=torch.Generator().manual_seed(0)).double()
    actions = policy(torch.zeros(4000, 45, dtype=torch.float64), noise)
    assert actions.abs().max() < 0.4
    np.testing.assert_allclose(actions.std(0), 0.8 / 12**0.5, rtol=0.05)


@pytest.mark.slow
def test_the_frozen_outcome_can_be_made_again(tmp_path):
    jacobians.main(small=True, output=tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| Hopper-v5 | posture |" in text
    assert "∂s'/∂a" in text
    assert json.loads((tmp_path / "made.json").read_text())["gains"]["Hopper-v5"]["kp"]
    assert (tmp_path / "path-tracking/report.html").exists()
