"""Columns of the table "measured": bias and variance on the task, and what follows from them.

A cell is one of four estimators at one horizon; `_low` and `_high` are the ends of 95% intervals,
`_se` standard errors. What could not be measured is NaN.
"""

from __future__ import annotations

from gradlab.runs.probe.columns import ProbeColumn

LAW = "visited"  # states at which gradients are judged; before, it was the starts
STEPS = 25  # of the fresh path whose growth is measured
CELLS = ("bias2", "variance", "mse", "snr", "mean_norm", "cosine", "sign_agreement")
ENDS = ("low", "high")

_CELL = ("estimator", "horizon")
_UNITS = {
    "bias2": "squared gradient norm",
    "variance": "squared gradient norm, one sample",
    "mse": "squared gradient norm, one batch",
    "snr": "|mean|² / variance, one sample",
    "mean_norm": "gradient norm, noise taken out",
    "cosine": "of the mean gradient with the true one",
    "sign_agreement": "share of parameters whose sign agrees with the true gradient's",
}

_QUESTION = {
    "step": ProbeColumn(unit="as the loop counts", shared=True),
    "starts": ProbeColumn(unit="starts"),
    "seconds": ProbeColumn(unit="s", shared=True),
    "batch": ProbeColumn(unit="samples"),
    "discount": ProbeColumn(unit="γ"),
    "truth_norm": ProbeColumn(unit="gradient norm"),
    "truth_checked": ProbeColumn(
        unit="1: the truth was compared with finite differences this time"
    ),
}
_PROFILE = (
    {name: ProbeColumn(_CELL, unit) for name, unit in _UNITS.items()}
    | {f"{name}_{end}": ProbeColumn(_CELL, _UNITS[name]) for name in CELLS for end in ENDS}
    | {
        "bias2_se": ProbeColumn(_CELL, _UNITS["bias2"]),
        "cosine_se": ProbeColumn(_CELL, _UNITS["cosine"]),
    }
)
_CHOICE = {
    "chosen_estimator": ProbeColumn(unit="index of estimator"),
    "chosen_horizon": ProbeColumn(unit="steps"),
    "kept_low": ProbeColumn(unit="steps, shortest horizon that may be best"),
    "kept_high": ProbeColumn(unit="steps, longest horizon that may be best"),
    "kept": ProbeColumn(_CELL, "1: may have the least MSE (95% set)"),
    "weight_zero": ProbeColumn(unit="weight of the horizon 0 in the pair with the longest one"),
    "weight_zero_low": ProbeColumn(unit="weight, lower end of 95%"),
    "weight_zero_high": ProbeColumn(unit="weight, upper end of 95%"),
    "weight": ProbeColumn(("horizon",), "of least MSE among horizons 0, 1, 2, 4, … of one mixture"),
    "weight_low": ProbeColumn(("horizon",), "weight, lower end of 95%"),
    "weight_high": ProbeColumn(("horizon",), "weight, upper end of 95%"),
    "sign_reliable": ProbeColumn(
        unit="steps, up to which every cosine of the model is surely above 0"
    ),
    "over_data": ProbeColumn(
        unit="ln MSE of the model at the longest horizon over that of the data"
    ),
    "over_data_se": ProbeColumn(unit="ln"),
}
_GROWTH = {
    "growth": ProbeColumn(unit="ln variance per step"),
    "growth_se": ProbeColumn(unit="ln variance per step"),
    "growth_evidence": ProbeColumn(unit="AIC of a power law less that of the exponential"),
    "lyapunov": ProbeColumn(unit="per step, closed loop of the simulator"),
    "lyapunov_se": ProbeColumn(unit="per step"),
    "lyapunov_horizon": ProbeColumn(unit="steps, 1/λ; inf where nothing grows"),
    "chain_norm": ProbeColumn(
        ("chain",), "log10 |∂s_t/∂s_0|, largest singular value, mean over starts"
    ),
    "chain_condition": ProbeColumn(
        unit="log10 of largest over smallest singular value after 25 steps"
    ),
    "tenfold": ProbeColumn(unit="steps in which |∂s_t/∂s_0| grows tenfold; inf where it does not"),
    "float32_step": ProbeColumn(unit="first step at which |∂s_t/∂s_0| exceeds float32; inf: never"),
}
_CRITIC = {
    "critic_gap": ProbeColumn(unit="bias² of true_dynamics less half the model's, longest horizon"),
    "critic_gap_se": ProbeColumn(unit="squared gradient norm"),
    "value": ProbeColumn(unit="mean critic value at the starts"),
    "value_se": ProbeColumn(unit="reward"),
    "reward_max": ProbeColumn(unit="largest |reward| on the fresh paths"),
    "return_bound": ProbeColumn(unit="largest |reward| so far / (1 − γ)"),
}
_JACOBIANS = {
    "jacobian_error": ProbeColumn(unit="ln of the relative error of A and B"),
    "jacobian_error_se": ProbeColumn(unit="ln"),
    "jacobian_states": ProbeColumn(unit="states at which Jacobians were taken"),
    "jacobian_nonfinite": ProbeColumn(unit="of these: ∂f/∂s or ∂f/∂a not finite"),
    "jacobian_flagged": ProbeColumn(unit="of these: certificate failed (contact, limit, end)"),
    "starts_lost": ProbeColumn(unit="starts that masking would drop"),
    "nonfinite_where": ProbeColumn(text=True),
    "dead_action": ProbeColumn(("action",), "1: ∂f/∂a and ∂r/∂a are exactly 0 everywhere"),
    "float32_cosine": ProbeColumn(unit="of the gradients in float32 and in float64"),
    "float32_error": ProbeColumn(unit="|float32 − float64| / |float64|, longest horizon"),
    "sampling_error": ProbeColumn(unit="standard error of one batch's gradient over its norm"),
}
MEASURED = _QUESTION | _PROFILE | _CHOICE | _GROWTH | _CRITIC | _JACOBIANS
