"""Profiles of explicit gradients whose bias and noise are planted."""

import dataclasses

import numpy as np

from gradlab.measurement.assembly import assembled
from gradlab.statistics.grams import Kernels
from gradlab.statistics.moments import estimates
from tests.planted_moments import moments

P = 12
CONFIG = {"task": "planted", "starts": 0, "discount": 0.9, "truth": "matched", "actions": {}}
TRUTH = {"admissible": True, "status": "converged", "lyapunov": -0.1, "reason": "planted"}


def planted(gradients, truth, batch=64, kernels=True, admissible=True, **config):
    """A profile of explicit gradients {(estimator, horizon): [N, P]} and a truth [N, P]."""
    cells = {key: moments(G, truth) for key, G in gradients.items()}
    if not admissible:
        none = dict(truth=None, difference=None, cross=None)
        cells = {key: dataclasses.replace(each, **none) for key, each in cells.items()}
    config = CONFIG | {"starts": len(truth), "batch": batch, "horizon": 0} | config
    horizon = max(n for _, n in cells)
    facts = TRUTH | {"admissible": admissible}
    profile = assembled(cells, horizon, batch, config, {}, facts)
    X = np.stack([*gradients.values(), *([truth] if admissible else [])], axis=1)
    fold = np.arange(len(X)) % 2
    own = X @ X.swapaxes(1, 2)
    total = np.stack([X @ X[fold == f].sum(axis=0).T for f in (0, 1)])
    parts = np.ones(len(X)), own, own, total, fold
    kernel = Kernels("first", tuple(gradients), admissible, *parts)
    return dataclasses.replace(profile, kernels=(kernel,) if kernels else ())


def noisy(rng, N, bias, spread, truth=None):
    """Gradients of a given bias (along the last axis) and noise per coordinate."""
    aside = np.zeros(P)
    aside[-1] = bias
    mean = np.eye(P)[0] if truth is None else truth
    return mean + aside + spread * rng.normal(size=(N, P))


def world(seed=0, N=400, horizon=6):
    """Bias of the model falls to 0 at h = 3 and rises again; noise doubles with every step."""
    rng = np.random.default_rng(seed)
    found = {("data", 0): noisy(rng, N, 0.8, 0.1)}
    for h in range(1, horizon + 1):
        found["model", h] = noisy(rng, N, 0.3 * abs(h - 3), 0.02 * 2**h)
        found["mixed", h] = noisy(rng, N, 0.9, 0.02 * 2**h)
        found["true_dynamics", h] = noisy(rng, N, 0.0, 0.1)
    return found, np.eye(P)[0] + 0.01 * rng.normal(size=(N, P))


def explicit(G, truth, batch):
    return estimates(moments(G, truth), batch)
