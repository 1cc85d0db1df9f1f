"""What every claim says in parts, from its frozen verdict (`criteria`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from math import nan
from pathlib import Path

import numpy as np

from analyses.harness.contrast_parts import contrasts, frontier
from analyses.harness.criteria import (
    Frozen,
    Numbers,
    Part,
    counted,
    exact,
    measured,
    ratio,
    sized,
    within,
)
from gradlab.statistics.intervals import Z

HORIZONS = (1, 2, 3, 5, 8, 10, 15, 20, 30)  # of VAR-EXP and SN-VAR
UNSTABLE = ("MuJoCo_pendulum", "cart-pole_swing-up", "Hopper", "HalfCheetah")


def bias_lin(of: Numbers) -> Iterator[Part]:
    yield exact("violations of the bound", of["violations"], "below", 0)
    for world in ("linear", "pendulum"):
        for source in ("jacobian", "prediction", "reward gradient"):
            name, label = f"{world}_{source}", f"slope, {world}, {source}"
            yield from sized(exact(label, of[f"slope_min_{name}"], "above", 0.0), 0.9)
            yield from counted([exact(label, of[f"slope_max_{name}"], "below", 1.1)], "size")
        for error in ("0", "0.0001", "0.001"):
            value = of[f"tenfold_median_{world}_{error}"]
            label = f"bias × at tenfold ε_f^g, {world}, ε_f {error}"
            yield from sized(exact(label, value, "above", 1.0), 5.0)


def var_exp(of: Numbers) -> Iterator[Part]:
    for world in UNSTABLE:
        label = world.replace("_", " ")
        aic = of[f"{world}_all_delta_aic"]
        yield from sized(exact(f"exponential over power law, ΔAIC, {label}", aic, "above", 0), 10)
        yield measured(of, f"{world}_all_slope", "above", 0.0, f"slope, {label}", "_")
    for theta in ("all", "first"):
        low = exact(
            f"lower end of the slope, contractive, {theta}", of[f"contractive_{theta}_slope_low"],
            "below", 0.0,
        )  # fmt: skip
        yield from counted([low], "beside")


def sn_var(of: Numbers, worlds: tuple[str, ...] = ("pendulum", "cart-pole")) -> Iterator[Part]:
    """At every horizon, corrected for all of them, where they are kept; ten times at 15."""
    for world in worlds:
        key = f"{world.replace(' ', '_')}_improved"
        label = f"variance plain/normalised at h = 15, {world}"
        for h in HORIZONS:
            if f"{key}_h{h}" in of:
                at_h = label.replace("15", str(h))
                yield ratio(of, f"{key}_h{h}", "above", 1, label=at_h, joint="_")
        at_15 = sized(ratio(of, f"{key}_ratio_both", "above", 1, label=label, joint="_"), 10)
        yield from at_15 if f"{key}_h15" not in of else list(at_15)[1:]
        slope = of[f"{key}_slope_both"] / of[f"{key}_slope_plain"]
        label = f"slope normalised / plain, {world}"
        yield from counted([Part(label, slope, nan, nan, "below", 0.5)], "size")


def opt_h(of: Numbers) -> Iterator[Part]:
    for gamma in (0.95, 0.99):
        value = of[f"spearman_policy_gradient_gamma{gamma}_N256"]
        spread = 1.06**0.5 * Z / (20 - 3) ** 0.5  # Fisher's z of a rank correlation, over seeds
        low, high = np.tanh(np.arctanh(value) + spread * np.array([-1.0, 1.0]))
        label = f"Spearman(h*, ε_v/ε_f), γ = {gamma}"
        yield from sized(Part(label, value, low, high, "above", 0.0), 0.9)


def bias_dec(of: Numbers) -> Iterator[Part]:
    counts = (value for name, value in of.items() if name.startswith("violations"))
    label = f"violations of the bounds in {of['checked']:,.0f}"
    yield exact(label, sum(counts), "below", 0)
    off = abs(of["rate"] / of["rate_expected"] - 1)
    form = (
        exact("least R² of the additive fit", of["r2_least"], "above", 0.95),
        exact("rate of the critic's coefficient, share off", off, "below", 0.2),
    )
    yield from counted(form, "beside")


def early_late(frozen: Frozen) -> Iterator[Part]:
    """The gap of the squares of bias(25) and bias(0), by whose sign the criterion judges."""
    rows = frozen.rows
    rows = rows[
        (rows.task == "path_tracking") & (rows.horizon == 25) & (rows.law == "visited")
        & (rows.estimator == "model")
    ]  # fmt: skip
    for iteration, side in ((0, "below"), (20000, "above")):
        for seed, cell in rows[rows.iteration == iteration].groupby("seed"):
            row = cell.set_index("quantity").loc["bias_gap"]
            yield Part(
                f"bias²(25) − bias²(0) at iteration {iteration:,}, seed {seed}", row.value,
                row.ci_low, row.ci_high, side, 0.0, n=int(row.starts),
            )  # fmt: skip


def early_late_arms(of: Numbers) -> Iterator[Part]:
    """As published below 1 early and above 1 late; in every arm each of four seeds crosses 1."""
    for iteration, side in ((1000, "below"), (7500, "above")):
        label = f"bias(25)/bias(0) at iteration {iteration:,}"
        yield ratio(of, f"published, prior published, {iteration}", side, 1.0, label=label)
    for arm in ("published", "no offset", "factor 1"):
        crossings = sum(name.startswith(f"crossing {arm} ") for name in of)
        yield from counted([exact(f"seeds that cross 1, {arm}", crossings, "above", 4)], "size")


def cond1(frozen: Frozen) -> Iterator[Part]:
    """An error of at most c·i: what grows more slowly than i keeps the bound."""
    rows = frozen.rows
    for row in rows[rows.coordinate == "norm"].itertuples():
        label = f"exponent, {row.task}, {row.loop} loop, {row.noise}"
        ends = row.exponent, row.exponent_low, row.exponent_high
        yield Part(label, *ends, "below", 1.0)


def cond1_learned(of: Numbers) -> Iterator[Part]:
    for name, value in of.items():
        if name.endswith("_exponent"):
            label = f"median {name.replace('_', ' ')}"
            yield exact(label, value, "below", 1.0)


def landscape_learned(of: Numbers) -> Iterator[Part]:
    for world in ("pendulum", "cart-pole"):
        for key, label, size in (
            ("longer", "roughness at h = 15 over h = 3", 3.0),
            ("both", "roughness plain over normalised, h = 15", 2.0),
        ):
            part = ratio(of, f"{world}_{key}", "above", 1.0, label=f"{label}, {world}", joint="_")
            yield from sized(part, size)


def u_shape(of: Numbers) -> Iterator[Part]:
    """A falling error through the true dynamics; a fall and a rise of it through learned ones."""
    fall = of["true_ratio_largest"]
    label = f"true dynamics, error(50)/error(1), worst of {of['cells']:.0f} cells"
    yield from sized(exact(label, fall, "below", 1.0), 0.05)
    if "slope_high_largest" in of:
        slope = of["slope_high_largest"]
        yield exact("slope of log error, upper end, worst cell", slope, "below", 0)
    yield exact("learned models, cells shown to have no U", of["cells_without_a_u"], "below", 0)
    label, shown = f"learned models, cells of {of['cells']:.0f} with a U", of["cells_with_a_u"]
    every = shown == of["cells"]
    yield Part(label, shown, *((shown, shown) if every else (nan, nan)), "above", of["cells"])
    asked = exact("learned models, cells with a U of our size", of["cells_learned_met"], "above",
                  of["cells"])  # fmt: skip
    yield from counted([asked], "size")


def tab1_path(of: Numbers) -> Iterator[Part]:
    """Against every row that the paper compares with."""
    for name, other in product(("mpg-v1", "mpg-v2"), ("n-step-dpg", "n-step-adp", "td3", "sac")):
        yield measured(of, f"{name} − {other}", "above", 0.0)
    yield exact("ADP seeds that reach −30", of["ADP seeds above −30"], "below", 0)
    for mpg, name in product(("mpg-v1", "mpg-v2"), ("n-step-dpg", "td3", "sac")):
        share = of[f"{mpg} to −30"] / of[f"{name} to −30"]
        part = Part(f"iterations to −30, {mpg} / {name}", share, nan, nan, "below", 1.0)
        yield from sized(part, 0.5)


def tab1_pend(of: Numbers) -> Iterator[Part]:
    for other in ("n-step-adp", "n-step-dpg", "mpg-v1", "td3", "sac"):
        yield measured(of, f"mpg-v2 − {other}", "above", 0.0)
    label = "share of MPG-v1 seeds that never reach −2"
    yield exact(label, of[label], "above", 0.8)


def data_var(frozen: Frozen) -> Iterator[Part]:
    rows = frozen.rows
    for row in rows[(rows.part == "gap") & rows.iteration.isin([0, 1000])].itertuples():
        label = f"Var_critic(J_0) − Var(J_H), {row.task}, iteration {row.iteration:,}"
        yield Part(label, row.value, row.ci_low, row.ci_high, "above", 0.0)


def n_w_sens(of: Numbers) -> Iterator[Part]:
    for d in (3, 10, 30):
        span = ratio(of, f"largest/smallest over n, d = {d}", "below", 1.5)
        yield from counted([span], "size")
        for n in (1, 5, 10, 25):
            yield ratio(of, f"with/without, d = {d}, n = {n}", "below", 1.0)
    yield measured(of, "spearman", "below", 0.0, "Spearman of the best w with d")


def floor(of: Numbers) -> Iterator[Part]:
    for kind in ("constant", "against ∇J", "wrong model"):
        value, low, high = (of[f"slope_{end}_{kind}"] for end in ("mean", "low", "high"))
        yield from within(f"slope of log floor, {kind}", (value, low, high), 1.7, 2.3)
    yield exact("transient slope", of["transient_worst"], "below", -0.4)


def one_over_n(of: Numbers) -> Iterator[Part]:
    for kind in ("dp", "dr"):
        value, low, high = (of[f"{kind}_{end}"] for end in ("slope", "low", "high"))
        yield from within(f"slope, {kind.upper()}", (value, low, high), -1.05, -0.95)


def mixture(frozen: Frozen) -> Iterator[Part]:
    rows = frozen.rows
    rows = rows[(rows.measure == "bias") & ~rows.world.str.contains("control")]
    for h, best, other in ((0, "ν", 0.0), (100, "ζ", 1.0)):
        for row in rows[(rows.h == h) & (rows.beta == other)].itertuples():
            label = f"bias by the other law less that from {best}, h = {h}, {row.world}"
            starts = 2048 if "pendulum" in row.world else None
            yield Part(label, row.gap, row.gap_low, row.gap_high, "above", 0.0, n=starts)


def dd_vs_mse_worlds(frozen: Frozen) -> Iterator[Part]:
    """That the loss is needed: at equal steps, the papers' condition; a fifth of the squared bias
    is our size."""
    rows = frozen.rows
    rows = rows[(rows.quantity == "bias2") & (rows.trials_of == "ten")]
    for row in rows[rows.pair.isin(["w = 10, equal steps", "w = 10, equal time"])].itertuples():
        label = f"squared bias with/without, {row.world}, noise {row.noise:.0%}, {row.pair[8:]}"
        part = Part(label, row.value, row.ci_low, row.ci_high, "below", 1.0, ratio=True)
        if row.pair.endswith("steps"):
            yield from sized(part, 0.8)
        else:
            yield from counted([part], "time")


def landscape(of: Numbers) -> Iterator[Part]:
    for world in UNSTABLE:
        ends = (of[f"{world}_{end}"] for end in ("ratio", "low", "high"))
        label = f"roughness at h = 15 over h = 3, {world.replace('_', ' ')}"
        yield from sized(Part(label, *ends, "above", 1.0, ratio=True), 3.0)


def dp_vs_dr(of: Numbers) -> Iterator[Part]:
    for error, h in product((0.01, 0.05), (1, 2, 3, 5, 10, 20, 30)):
        ends = (of[f"bias_ratio_{end}_h{h}_error{error}"] for end in ("mean", "low", "high"))
        label = f"bias(DR)/bias(DP), h = {h}, model error {error:.0%}"
        yield Part(label, *ends, "below", 1.0, ratio=True)


def lemma_noise(of: Numbers) -> Iterator[Part]:
    yield exact("violations", of["violations"], "below", 0)
    for kind, slope, margin in (("biased", 1.0, 0.1), ("zero_mean", 2.0, 0.2)):
        label = f"slope, {kind.replace('_', '-')} noise"
        least, largest = (of[f"{kind}_slope_{end}"] for end in ("least", "largest"))
        band = (
            exact(label, least, "above", slope - margin),
            exact(label, largest, "below", slope + margin),
        )
        yield from counted(band, "size")


def time_h(of: Numbers) -> Iterator[Part]:
    for kind in ("all", "first"):
        yield exact(f"R² of a line, θ in {kind}", of[f"{kind}_r2"], "above", 0.98)
        label = f"time(25)/time(0), θ in {kind}"
        yield ratio(of, f"{kind}_ratio", "above", 5.0, label=label, joint="_")


def k_samples(of: Numbers) -> Iterator[Part]:
    half = of["interval_half_width"]
    for name in ("least", "largest"):
        value, label = of[f"ratio_{name}"], f"measured over predicted variance, {name}"
        yield from within(label, (value, value - half, value + half), 0.9, 1.1)


# Claims that are judged by the numbers of their verdict.
BY_NUMBERS: Mapping[str, Callable[[Numbers], Iterable[Part]]] = {
    "U-SHAPE": u_shape,
    "U-SHAPE-LEARNED": u_shape,
    "BIAS-LIN": bias_lin,
    "GRADLOSS": lambda of: (
        part
        for budget, kind in (("equal steps", "sentence"), ("equal time", "time"))
        for world, size in product(("linear", "pendulum"), (1000, 3000, 10000))
        for part in counted([ratio(of, f"jacobian {world} {size} {budget}", "below", 1.0)], kind)
    ),
    "VAR-EXP": var_exp,
    "VAR-EXP-LEARNED": var_exp,
    "SN-VAR": sn_var,
    "HOPPER-SN": lambda of: sn_var(of, ("random actions", "holding its posture")),
    "COND1-LEARNED": cond1_learned,
    "LANDSCAPE-LEARNED": landscape_learned,
    "OPT-H": opt_h,
    "BIAS-DEC": bias_dec,
    "EARLY-LATE-ARMS": early_late_arms,
    "THM1-MPG": lambda of: [
        exact("largest relative error as printed", of["printed_error_largest"], "below", 1e-8),
        *counted(
            [exact("with the tail action's θ frozen", of["detached_error"], "below", 1e-8)],
            "beside",
        ),
    ],
    "THM1-MPG-J": lambda of: (
        exact("relative error at n = 600, exact", of["exact_error"], "below", 1e-8),
        exact("relative error by samples", of["monte_carlo_error"], "below", 0.02),
    ),
    "RULE-W": lambda of: (
        exact(f"largest gap, {name}", of[f"largest_gap_{name}"], "below", 1e-6)
        for name in ("mpg", "mpg_journal", "journal_against_mpg", "stated")
    ),
    "TAB1-PATH": tab1_path,
    "TAB1-PEND": tab1_pend,
    # That the loss is needed (DDPPO): the gradient's squared bias falls with it, each world.
    "DD-VS-MSE": lambda of: (
        ratio(of, f"{world} {noise} {size} w = 10, equal time", "below", 1.0, label="squared bias "
              f"with/without, {world}, noise {noise:.0%}, {size:,} rows, equal time")
        for world, noise, size in product(
            ("pendulum", "cart-pole"), (0.0, 0.1), (500, 2000, 5000, 20000)
        )
    ),
    "TWO-MODEL-BIAS": lambda of: (
        ratio(of, f"{world} {other}", "below", 1.0)
        for world in ("pendulum 1000", "pendulum 3000", "pendulum 10000", "cart-pole 3000")
        for other in ("single", "no loss")
    ),
    "PRED-COST": lambda of: (
        ratio(of, name, "above", 1.0) for name in of if name.endswith("equal steps")
    ),
    "N-W-SENS": n_w_sens,
    "CAPACITY-ERRORS": lambda of: (
        ratio(of, f"{quantity} {world} equal steps", "below", 1.0)
        for quantity, world in product(("jacobian", "bias2"), ("linear", "cart-pole", "pendulum"))
    ),
    "FLOOR": floor,
    "1-OVER-N": one_over_n,
    "LANDSCAPE": landscape,
    "DP-VS-DR": dp_vs_dr,
    "MULTISTEP": lambda of: (
        part
        for budget, kind in (("equal steps", "sentence"), ("equal time", "time"))
        for h, quantity in product((5, 10), ("product", "bias2"))
        for world in ("pendulum", "cart-pole")
        for part in counted(
            [ratio(of, f"{quantity}_{h} {world} {h} steps, {budget}", "below", 1.0)], kind
        )
    ),
    "LEMMA-NOISE": lemma_noise,
    "TIME-H": time_h,
    "LEMMA-A1": lambda of: (
        part
        for name, label, kind in (
            ("violations_own_states", "violations on the model's own states", "sentence"),
            ("violations_total_variation", "violations, total variation", "sentence"),
            ("violations", "violations on common states", "beside"),
        )
        for part in counted([exact(label, of[name], "below", 0)], kind)
    ),
    "MONOTONE": lambda of: [
        exact("violations as printed", of["violations_printed"], "below", 0),
        *counted([exact("with α once", of["violations_corrected"], "below", 0)], "beside"),
    ],
    "K-SAMPLES": k_samples,
    "MAAC-TIME": lambda of: [ratio(of, "maac over mbpo, training", "above", 1.0)],
}  # fmt: skip
PARTS: Mapping[str, Callable[[Frozen], Iterable[Part]]] = {
    **{claim: lambda frozen, parts=parts: parts(frozen.numbers)
       for claim, parts in BY_NUMBERS.items()},
    "EARLY-LATE": early_late,
    "COND1": cond1,
    "DATA-VAR": data_var,
    "MIXTURE": mixture,
    "DD-VS-MSE-WORLDS": dd_vs_mse_worlds,
    "FRONTIER": frontier,
    **dict.fromkeys(
        ("ABL-H0", "ENTROPY-REAL", "TWO-MODEL", "CAPACITY", "DDPPO-H", "MPC", "SN-TRAIN-SWING-UP",
         "SHAC-WINDOW", "WINDOW-GAIN", "DMO-JACOBIANS", "RACE", "AHAC-THRESHOLD", "PWM-GRADIENTS",
         "ASYNC", "STALENESS"),
        contrasts,
    ),
}  # fmt: skip
# The claim's premise does not occur in what was run, so that its numbers do not test it.
PREMISES = {
    "SN-TRAIN": "the premise did not occur: plain training does not fail at h = 15 on the pendulum "
    "(final return −0.06, at h = 3 −3.03)",
}


def parts_of(claim: str, stem: Path) -> list[Part]:
    """The parts of a criterion; none where it was not tried.

    Args:
        claim: that the verdict is of.
        stem: its frozen verdict, without suffix.
    """
    return list(PARTS[claim](Frozen(stem))) if claim in PARTS else []
