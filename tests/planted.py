"""A profile with every difficulty a real one can have, made by formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.findings import Finding
from gradlab.runs.identity import Identity, by_default
from gradlab.verdicts.recommendation import Field, Light, Recommendation

COLUMNS = ["estimator", "horizon", "quantity", "value", "se", "ci_low", "ci_high", "n", "method"]
QUANTITIES = ("mean_norm", "bias2", "variance", "mse", "cosine", "sign_agreement", "snr")
BATCH = 256


def worded(code: str, decided: bool, text: str) -> Finding:
    """A finding with words of its own."""
    return Finding(code, "pass" if decided else "undecided", text=text)


def first_sentence(sentences: Sequence[Finding], figure: str | None = None) -> Recommendation:
    """Of a verdict that has no recommendation of its own: its first decided sentence."""
    if not sentences:
        nothing = Field("use", "these numbers support no verdict")
        return Recommendation("none", (nothing,), figure)
    first = next((each for each in sentences if each.decision == "pass"), sentences[0])
    light: Light = "act" if first.decision == "pass" else "choose"
    return Recommendation(light, (Field("use", first.text),), figure, tuple(sentences))


def table(horizon: int = 25, truth: bool = True, own: tuple[str, ...] = ()) -> pd.DataFrame:
    """Variance grows and bias falls with n; some bias² are negative; a cosine exceeds 1."""
    rng = np.random.default_rng(0)
    rows = []
    for k, name in enumerate(("data", "model", "mixed", "true_dynamics", *own)):
        for n in range(1 if name == "data" else horizon + 1):
            bias = (0.0 if name == "true_dynamics" else 6e-3 * k) + 0.6 * 0.72**n
            bias += 2e-3 * rng.normal()
            variance = 9.0 * (1.0 + 0.1 * k) * 1.19**n
            values = {
                "mean_norm": (1.4, 0.05),
                "bias2": (bias, 0.12 * abs(bias) + 2e-3),
                "variance": (variance, 0.08 * variance),
                "mse": (bias + variance / BATCH, 0.1 * (bias + variance / BATCH)),
                "sign_agreement": (0.97 - 0.012 * n - 0.2 * bias, 0.01 + 0.002 * n),
                "cosine": (1.004 - 0.5 * bias - 2e-3 * n, 0.01 + 0.003 * n),
                "snr": (1.96 / variance - 8e-4 * n * (k == 1), 0.1 / variance + 2e-3),
            }
            for quantity in QUANTITIES:
                if not truth and quantity in ("bias2", "mse", "cosine", "sign_agreement"):
                    continue
                value, se = values[quantity]
                low, high = value - 1.96 * se, value + 1.96 * se
                low = low if quantity == "cosine" else max(low, 0.0)
                rows.append((name, n, quantity, value, se, low, high, 256, "jackknife over groups"))
    return pd.DataFrame(rows, columns=COLUMNS)


FINDINGS = (
    Finding("jacobians", "pass", "simulator", 1e-9, n=96),
    Finding("actions_saturated", "fail", "steer", 0.81, threshold=0.5),
    Finding("float32", "pass", "model", 1e-7, threshold=0.01, at="h = 25"),
)


VERDICT = (
    worded(
        "horizon",
        True,
        "Usable horizon ≈ 7 steps (95 % CI 5–9, N = 256); the MSE-optimal is 6. "
        "Your setting H = 25 has 4.1× (CI 3.0–5.6) the error of the best.",
    ),
    worded(
        "data",
        True,
        "The model gradient is 3.2 times more accurate than the data gradient (CI 2.1–4.9).",
    ),
    worded(
        "variance",
        False,
        "Undecided: no exponential growth detected up to h = 25 (slope CI contains 0).",
    ),
)


@dataclass(frozen=True)
class Profile:
    """What the report reads of a profile."""

    frame: pd.DataFrame = field(default_factory=table)
    config: Mapping[str, object] = field(
        default_factory=lambda: {
            "task": "inverted_pendulum",
            "task_parameters": {"engine": "mujoco", "slider": "stock"},
            "horizon": 25,
            "starts": 256,
            "batch": BATCH,
            "truth": "matched",
            "termination": "ignore",
            "seed": 0,
            "discount": 0.99,
            "policy_hash": "a1b2c3d4e5f6",
            "command": "gradlab measure inverted_pendulum --output runs/demo/inverted_pendulum.h5",
        }
    )
    environment: Mapping[str, str] = field(
        default_factory=lambda: {
            "gradlab": "0.1.0",
            "torch": "2.13.0",
            "mujoco": "4.0.0",
            "commit": "0123abc",
            "wall_seconds": "41.3",
            "precision": "float64",
            "threads": "1",
            "created": "2026-01-01T00:00:00+00:00",
        }
    )
    truth: Mapping[str, object] = field(
        default_factory=lambda: {
            "kind": "matched",
            "method": "simulator unrolled with its own Jacobians",
            "horizon": 400,
            "admissible": True,
            "reason": "agrees with common-random-number differences along 8 directions",
            "lyapunov": -0.031,
            "relative_se": 0.04,
            "norm": 1.41,
            "remainder": 0.002,
        }
    )
    batch: int = BATCH
    sanity: tuple[Finding, ...] | None = FINDINGS
    attribution: None = None
    realised: None = None
    rehearsal: None = None
    jumps: None = None
    file: Path | None = None

    @property
    def estimators(self) -> tuple[str, ...]:
        return tuple(str(name) for name in dict.fromkeys(self.frame["estimator"]))

    @property
    def identities(self) -> Mapping[str, Identity]:
        return by_default(self.estimators)

    @property
    def quantities(self) -> tuple[str, ...]:
        return QUANTITIES

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Each column as [estimator, quantity, horizon], NaN where not measured."""
        axes = ["estimator", "quantity", "horizon"]
        horizons = range(int(self.frame["horizon"].max()) + 1)
        full = pd.MultiIndex.from_product([self.estimators, self.quantities, horizons], names=axes)
        frame = self.frame.drop_duplicates(axes).set_index(axes).reindex(full)
        shape = len(self.estimators), len(self.quantities), len(horizons)
        names = ("value", "ci_low", "ci_high")
        return {name: frame[name].to_numpy(float).reshape(shape) for name in names}

    def table(self) -> pd.DataFrame:
        return self.frame
