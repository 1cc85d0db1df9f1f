"""Remedies: planted trials judged either way, arms that differ in one thing, small runs."""

import json
import math
import zlib
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts
from analyses.harness.paired_trials import HORIZONS
from analyses.remedies import gradloss, multistep, n_w_sens, pred_cost, sn_var, two_model
from analyses.remedies import page as remedy_claims
from analyses.remedies.spectral_arms import (
    ARMS,
    by_raw_weights,
    initial_policy,
    plain,
    tasks,
)
from analyses.remedies.spectral_arms import HORIZONS as UNROLLS
from gradlab.networks import spectral


def numbers(level, spread=0.05, seed=0):
    """All columns of a model whose errors are at one level."""
    wobble = np.random.default_rng(seed).normal(scale=spread, size=16)
    names = ["prediction", "jacobian", "jacobian_all"]
    names += [f"{what}_{h}" for what in ("bias2", "product") for h in HORIZONS]
    found = {name: level * float(np.exp(w)) for name, w in zip(names, wobble, strict=False)}
    return found | {f"cosine_{h}": 0.9 for h in HORIZONS} | {"clipped": 0.02, "times": 2.0}


def rows(levels, cells, trials=5):
    """Trials of models (arm, budget) → level, in every cell."""
    return pd.DataFrame(
        [
            cell | {"trial": k, "arm": arm, "budget": budget}
            | numbers(level, seed=zlib.crc32(repr((k, arm, budget, cell)).encode()))
            for cell in cells
            for k in range(trials)
            for (arm, budget), level in levels.items()
        ]
    )  # fmt: skip


SIZES = [{"world": w, "rows": r} for w in ("linear", "pendulum") for r in (1000, 3000)]
FITS = {("nll", "equal steps"): 1.0, ("nll", "equal time"): 1.0, ("nll", "time of both"): 1.0}
FITS |= {("double", "equal steps"): 1.0, ("double", "steps of both"): 1.0}


@pytest.mark.parametrize(
    ("linear", "pendulum", "holds"), [(0.8, 0.5, True), (0.5, 0.8, False), (1.0, 0.5, False)]
)
def test_gradloss_asks_for_both_worlds_and_for_more_on_the_pendulum(linear, pendulum, holds):
    levels = {"linear": linear, "pendulum": pendulum}
    table = pd.concat(
        rows(FITS | {("dd", "both"): levels[cell["world"]]}, [cell]) for cell in SIZES
    )
    assert gradloss.judge(table).holds == holds


@pytest.mark.parametrize(
    ("level", "holds"), [(1.5, True), (1.06, False), (1.0, False), (0.5, False)]
)
def test_pred_cost_asks_for_worse_predictions_everywhere(level, holds):
    assert pred_cost.judge(rows(FITS | {("dd", "both"): level}, SIZES)).holds == holds


@pytest.mark.parametrize(
    ("two", "single", "holds"), [(0.5, 0.8, True), (0.8, 0.5, False), (1.1, 1.3, False)]
)
def test_two_models_have_to_beat_both_single_ones(two, single, holds):
    levels = FITS | {("dd", "both"): single, ("two-model", "both"): two}
    assert two_model.judge(rows(levels, SIZES)).holds == holds


@pytest.mark.parametrize(("level", "holds"), [(0.5, True), (1.0, False), (1.5, False)])
def test_multistep_is_judged_against_one_step_fitted_as_long(level, holds):
    levels = {("1 step", "equal steps"): 3.0}
    levels |= {("1 step", f"time of {each}"): 1.0 for each in multistep.LOSSES}
    levels |= {(each, "both"): level for each in multistep.LOSSES}
    cells = [{"world": name, "rows": 3000} for name in multistep.WORLDS]
    assert multistep.judge(rows(levels, cells)).holds == holds


def weights(best, span, helps=0.5, luck=1.0):
    """Trials of N-W-SENS: w's best value by dimension, span over n, luck of the trials that chose
    at the largest w."""
    made = []
    for d, trial in product((3, 10, 30), (*n_w_sens.CHOOSING, *n_w_sens.JUDGING)):
        chose = trial in n_w_sens.CHOOSING
        plain = {"dimension": d, "trial": trial, "n": 0, "w": 0.0, "arm": "nll"}
        made += [plain | {"budget": b, "jacobian": 1.0} for b in ("equal steps", "equal time")]
        for n, w in n_w_sens.GRID if chose else n_w_sens.split_grid(best[d]):
            level = helps * (1 + abs(math.log10(w / best[d]))) * span ** (n / 25)
            level *= luck if chose and w == n_w_sens.WEIGHTS[-1] else 1.0
            made.append(
                {"dimension": d, "trial": trial, "n": n, "w": w, "arm": "dd", "budget": "both",
                 "jacobian": level * (1 + 0.01 * (trial % 10))}
            )  # fmt: skip
    return pd.DataFrame(made)


FALLING = {3: 10.0, 10: 1.0, 30: 0.1}


@pytest.mark.parametrize(
    ("best", "span", "helps", "holds"),
    [
        (FALLING, 1.2, 0.5, True),
        ({3: 0.1, 10: 1.0, 30: 10.0}, 1.2, 0.5, False),
        (FALLING, 2.0, 0.4, False),
        (FALLING, 1.2, 1.2, False),
    ],
)
def test_n_and_w_are_judged_by_span_help_and_order(best, span, helps, holds):
    verdict = n_w_sens.judge(weights(best, span, helps))
    assert verdict.holds == holds
    assert [verdict.numbers[f"chosen w, d = {d}"] for d in best] == list(best.values())


def test_a_weight_that_only_its_own_trials_like_is_judged_on_others():
    """The luckiest w of three trials gains nothing on the trials that judge."""
    lucky = dict.fromkeys((3, 10, 30), n_w_sens.WEIGHTS[-1])
    verdict = n_w_sens.judge(weights(lucky, 1.0, helps=1.2, luck=0.1))
    first = verdict.table[verdict.table["trials_of"] == "choosing"]
    assert (first.loc[first["w"] == n_w_sens.WEIGHTS[-1], "value"] < 0.2).all()
    assert verdict.numbers["with/without, d = 3, n = 10"] == pytest.approx(1.2, rel=0.1)
    assert not verdict.holds


def test_the_largest_ratio_over_n_is_covered_although_it_was_picked():
    """Equal means over n, noisy trials: the ends hold 1 in 95% of repetitions or more."""
    draws = np.random.default_rng(4)
    held = []
    for _ in range(300):
        values = np.exp(draws.normal(scale=0.3, size=(4, 6)))
        rows = pd.DataFrame(
            {"arm": "dd", "n": n, "trial": k, "jacobian": values[i, k]}
            for i, n in enumerate(n_w_sens.NEIGHBOURS)
            for k in range(6)
        )
        value, low, high = n_w_sens.over_neighbours(rows)
        assert low < value < high
        held.append(low <= 1 <= high)
    assert np.mean(held) >= 0.93


def test_the_page_sorts_claims_into_sections(tmp_path):
    verdict = pred_cost.judge(rows(FITS | {("dd", "both"): 1.5}, SIZES))
    verdicts.save(verdict, tmp_path, "python -m analyses.remedies.pred_cost")
    made = read_verdicts(tmp_path)["pred-cost"]
    more = {name: made | {"claim": name} for name in ("SN-VAR", "VAR-EXP-LEARNED", "SOMETHING")}
    kept = {"pred-cost": made} | {name.lower(): row for name, row in more.items()}
    (tmp_path / "verdicts.json").write_text(json.dumps(kept))
    (tmp_path / "made.json").write_text("{}")
    remedy_claims.refresh(tmp_path)
    page = (tmp_path / "README.md").read_text()
    places = [page.index(f"| {claim} |") for claim in
              ("PRED-COST", "SN-VAR", "VAR-EXP-LEARNED", "SOMETHING")]  # fmt: skip
    assert places == sorted(places)
    assert page.index("## Others") < places[-1]


@pytest.mark.slow
@pytest.mark.parametrize("analysis", [gradloss, multistep, n_w_sens])
def test_small_runs_end_in_a_verdict(analysis, tmp_path):
    analysis.main(small=True, output=tmp_path)
    made = next(iter(read_verdicts(tmp_path).values()))
    assert made["claim"] in remedy_claims.LOSSES
    assert np.isfinite(list(made["numbers"].values())).all()


def test_both_policies_start_from_the_same_weights_but_for_their_norms():
    task = tasks()["pendulum"][0]
    free, held = (initial_policy(task, 3, normalised) for normalised in (False, True))
    for layer, other in zip(
        (each for each in free.modules() if isinstance(each, torch.nn.Linear)),
        (each for each in held.modules() if hasattr(each, "in_features")),
        strict=True,
    ):
        ratio = layer.weight / other.weight
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)
    assert all(norm.values[0] == pytest.approx(1, abs=1e-5) for norm in spectral.norms(held))


def test_gradients_by_raw_weights_are_those_of_automatic_differentiation():
    policy = initial_policy(tasks()["cart-pole"][0], 0, normalised=True).double().eval()
    draw = torch.Generator().manual_seed(0)
    state = torch.randn(3, 4, generator=draw).double()
    noise = torch.randn(3, 1, generator=draw).double()

    def each_sample(network):
        rows = [
            torch.autograd.grad(network(state, noise)[k].sum(), list(network.parameters()))
            for k in range(3)
        ]
        names = [name for name, _ in network.named_parameters()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    baked = plain(policy)
    ours = torch.stack(
        [torch.cat([g.flatten() for g in row.values()]) for row in each_sample(baked)]
    )
    found = by_raw_weights(policy)(ours)
    raw = each_sample(policy)
    begin = 0
    for name, value in baked.named_parameters():
        part = found[:, begin : begin + value.numel()]
        begin += value.numel()
        theirs = name.replace(".weight", ".parametrizations.weight.original")
        expected = torch.stack([row[theirs if theirs in row else name].flatten() for row in raw])
        torch.testing.assert_close(part, expected, rtol=1e-8, atol=1e-12)


def planted(ratio, slope_both, tasks_=("pendulum", "cart-pole")):
    """Variances that grow as e^{0.4 h}, divided by `ratio` at h = 15 where both are normalised."""
    noise = np.random.default_rng(0)
    rows = []
    for task in tasks_:
        for stage in sn_var.STAGES:
            for arm in ARMS:
                for seed in range(5):
                    for h in UNROLLS:
                        slope = slope_both if arm == "both" else 0.4
                        size = np.exp(6 + slope * (h - 15) + 0.05 * noise.standard_normal())
                        variance = size / (ratio if arm == "both" else 1)
                        rows.append(
                            {"task": task, "stage": stage, "arm": arm, "seed": seed, "h": h,
                             "variance": variance, "variance_raw": 2 * variance, "simulator": 1.0,
                             "relative_variance": 1.0 + 0.01 * noise.standard_normal(),
                             "distance": 0.5, "jacobian_error": 0.1, "explained": 0.9,
                             "last_norm": 2.0, "product_of_norms": 9.0,
                             "return": -1.0, "saturated": 0.0, "N": 256}
                        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("ratio", "slope", "holds"),
    [(60, 0.15, True), (9, 0.195, False), (40, 0.195, True), (40, 0.25, False)],
)
def test_only_a_tenth_of_the_variance_and_half_the_slope_meet_sn_var(ratio, slope, holds):
    verdict = sn_var.judge(planted(ratio, slope))
    assert verdict.holds == holds
    assert verdict.numbers["pendulum_improved_ratio_both"] == pytest.approx(ratio, rel=0.1)
    assert verdict.numbers["cart-pole_improved_slope_both"] == pytest.approx(slope, abs=0.01)


def test_sn_var_needs_every_h():
    table = planted(60, 0.15)
    at = (table["arm"] == "both") & (table["h"] == 1)
    assert not sn_var.judge(table.assign(variance=table["variance"].mask(at, 1e9))).holds
