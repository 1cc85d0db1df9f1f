"""Figures of a profile's table. Each takes the long table and an Axes, and returns the Axes.

    gain            what one step along every gradient gains: does it help?
    bias_variance   one estimator: squared bias, variance / N′ and MSE over the horizon
    mse             every estimator's MSE over the horizon
    cosine          every estimator's direction against the truth
    sign_agreement  share of parameters that every estimator moves the right way
    snr             every estimator's signal-to-noise ratio

The table has a row per estimator, horizon and quantity, with value, ci_low and ci_high. The
estimator `data` has no horizon: its one row, at horizon 0, is drawn as a level with its band.

    sample_norm     size of one sample's gradient: does it explode?

    realised_gains              what steps really did to the return, from `Realised.table()`

    contest                     errors of weights and single gradients, `choice.tables`

    column          any figure at the width of a paper's column ("single", "text", "double")

Figures of an attribution take its own long table (`gradlab.runs.attribution`):

    ledger, variance_sources      shares of squared bias and of variance, as waterfalls
    entries, error_steps          which derivative, at which step

Figures of a choice take its tables (`gradlab.choice.tables`):

    choice_horizon, choice_weights, what_if_grid

Figure of temporal decays, from `gradlab.choice.decays.decay_table`:

    decay      error over α

Figures of a comparison of Jacobians take its own long table (`gradlab.tools.jacobians.result`):

    jacobian_entries, jacobian_time, jacobian_distance      where the model is wrong
    product_growth, lyapunov, chain_error, model_error      how far one may chain

Figure of a certificate, from `Certification.table()`:

    certified_errors      by block and stratum

Figures of a test of remedies take its own long tables (`gradlab.tools.remedies.result`):

    remedy_effects, remedy_horizons, remedy_jacobians      with a remedy over without
    remedy_levels, remedy_marks                            every model by itself

Figure of an estimator's own surface (`gradlab.measurement.return_slices`):

    loss_slices      the return along lines through θ

Figures of logs take their own long table (`gradlab.tools.logs.result`):

    logged_agreement, logged_referee, logged_noise, logged_critics      gradients and scores
    logged_direction, logged_prediction                                 the model by itself

Figure of a race or a rehearsal, from `Race.table()` or `Rehearsal.table()`:

    return_over_updates      where each candidate led

Figures of training runs take a row per evaluation and seed (`gradlab.runs.training.results.table`):

    returns, training_curve, mixture_weights, gradient_errors, update_times

and where measurements drive the mixture (`gradlab.runs.training.measured_weights.table`):

    weights_against_rule, error_over_rule

and gradients measured at the checkpoints of a run, a row per iteration, estimator and quantity:

    errors_through_training, weights_through_training

Figures of a probe take a row per seed, step, quantity and place
(`gradlab.runs.probe.tables.curves`):

    probe_curve, gradient_norms, layer_norms, lost_gradients, action_shares, dead_columns
    chosen_horizons, growth_rates, critic_values, probe_cost
    moved_profiles, moved_chains      over the horizon at several steps (`profiles`, `chains`)
"""

from typing import Any

from gradlab.errors import imported
from gradlab.figures.attribution import entries, error_steps, ledger, variance_sources
from gradlab.figures.choice import choice_horizon, choice_weights, contest, what_if_grid
from gradlab.figures.columns import column
from gradlab.figures.error import bias_variance, cosine, decay, mse, sign_agreement, snr
from gradlab.figures.gain import gain, loss_slices, realised_gains
from gradlab.figures.growth import sample_norm
from gradlab.figures.probe import (
    action_shares,
    chosen_horizons,
    critic_values,
    dead_columns,
    gradient_norms,
    growth_rates,
    layer_norms,
    lost_gradients,
    moved_chains,
    moved_profiles,
    probe_cost,
    probe_curve,
)
from gradlab.figures.through_training import errors_through_training, weights_through_training
from gradlab.figures.training import (
    error_over_rule,
    gradient_errors,
    mixture_weights,
    return_over_updates,
    returns,
    training_curve,
    update_times,
    weights_against_rule,
)
from gradlab.figures.validation import of_table

__all__ = [
    "action_shares",
    "bias_variance",
    "certified_errors",
    "chain_error",
    "choice_horizon",
    "choice_weights",
    "chosen_horizons",
    "contest",
    "cosine",
    "critic_values",
    "dead_columns",
    "decay",
    "entries",
    "error_over_rule",
    "error_steps",
    "errors_through_training",
    "gain",
    "gradient_errors",
    "gradient_norms",
    "growth_rates",
    "jacobian_distance",
    "jacobian_entries",
    "jacobian_time",
    "layer_norms",
    "ledger",
    "logged_agreement",
    "logged_critics",
    "logged_direction",
    "logged_noise",
    "logged_prediction",
    "logged_referee",
    "loss_slices",
    "lost_gradients",
    "lyapunov",
    "mixture_weights",
    "model_error",
    "moved_chains",
    "moved_profiles",
    "mse",
    "probe_cost",
    "probe_curve",
    "product_growth",
    "realised_gains",
    "remedy_effects",
    "remedy_horizons",
    "remedy_jacobians",
    "remedy_levels",
    "remedy_marks",
    "return_over_updates",
    "returns",
    "sample_norm",
    "sign_agreement",
    "snr",
    "training_curve",
    "update_times",
    "variance_sources",
    "weights_against_rule",
    "weights_through_training",
    "what_if_grid",
]

_OF_TOOLS = {  # by gradlab.tools.NAME.figures
    "certify": ("certified_errors",),
    "jacobians": (
        "chain_error", "jacobian_distance", "jacobian_entries", "jacobian_time", "lyapunov",
        "model_error", "product_growth",
    ),
    "logs": (
        "logged_agreement", "logged_critics", "logged_direction", "logged_noise",
        "logged_prediction", "logged_referee",
    ),
    "remedies": (
        "remedy_effects", "remedy_horizons", "remedy_jacobians", "remedy_levels", "remedy_marks",
    ),
}  # fmt: skip
_HOMES = {name: tool for tool, names in _OF_TOOLS.items() for name in names}

for _name in set(__all__) - set(_HOMES):
    globals()[_name] = of_table(globals()[_name])

__all__ += ["column"]  # which takes the axes of a figure, no table


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradlab.figures' has no attribute {name!r}")
    figure = globals()[name] = of_table(imported(f"gradlab.tools.{_HOMES[name]}.figures:{name}"))
    return figure
