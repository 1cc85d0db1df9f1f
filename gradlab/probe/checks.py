"""Checks on the rows of a probe: what each needs, and its test.

A test gets the rows of one table, the newest last, and gives the fields of its finding, or None
where nothing is wrong. Exact tests (a zero, a size, a bound) have no rate. Statistical ones are
false in at most `ALPHA` of whole runs, however often they are made: test k has level
α / (k (k + 1)), which sums to α over all k.

    saturation    more than half of the values at a limit, and a tanh that lets under 10% of the
                  gradient through, in 16 rows; or under 2% in the first row and in this one
    noise         share + t se < 1%, all recent bursts together
    returns       t = (J̄_first − J̄_newest) / √(v/n + v/3n), v the larger variance, over three
                  windows of 250 updates or more, none of which rose

On the task, t is Student's quantile at the test's level with starts − 1 degrees of freedom:

    doubling      ln-variance slope b:  b − t se > ln 2 / H           doubles within the horizon H,
                  exponential, not a power law, and H is not among what may be best (95%)
    diverging     λ − t se > ln 1/γ                                   outgrows the discount
    direction     upper end of the stored interval, moved out to t, < 0, from 64 starts on;
                  of the model gradient, or of the critic's where the loop follows that alone
    over data     ln MSE(H) − ln MSE(data) − t se > 0                 worse than no model derivative
    critic        bias²(true dynamics) − ½ bias²(model) − t se > 0    the critic makes most of it
    bound         |mean Q| − t se > r_max / (1 − γ), where no reward grows along the path
    drift         ln error now − ln error at best − t se > 0          the model's Jacobians lose
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.findings import Finding
from gradlab.runs.identity import by_default
from gradlab.runs.probe.returns import LEAST, Returns
from gradlab.runs.probe.schema import ALPHA, ESTIMATORS, FEWEST, HALF, NOISE, judged
from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.intervals import Z, student
from gradlab.statistics.successive import Signal, pooled
from gradlab.wording import gradient, horizons, two

Row = Mapping[str, Any]
_Found = dict[str, Any] | None  # fields of a finding
_LOOKED = 10  # updates: a head that begins at 0 blocks the first gradients only
_POOL = 64  # bursts that are judged together
_RECENT = 16  # rows
_BORN = 0.02  # of the gradient through a tanh, where sound actors let 5% or more
_FULL = 0.99  # of the actions at their limits
_COST = 0.1  # of it, above which a saturated actor still learns
_IN_A_ROW = 3  # windows
_LEVEL = 0.999
DATA, MODEL = 0, 1  # indices of estimators
_DIRECTION = ("cosine", "cosine_low", "cosine_high")
_ROUNDING = 1e-6  # of a logarithm whose samples do not differ at all


@dataclass(frozen=True)
class Evidence:
    """The rows of one table, the newest last.

    Attributes:
        count: rows of this table so far, those that are no longer here included.
        names: of the parameters.
        critic_alone: the loop's actor follows the critic alone, without a step of a model.
    """

    rows: Sequence[Row]
    count: int
    names: Sequence[str] = ()
    critic_alone: bool = False

    @property
    def new(self) -> Row:
        return self.rows[-1]

    @property
    def level(self) -> float:
        """Probability of a false alarm in this test."""
        return ALPHA / (self.count * (self.count + 1))

    def reach(self, freedom: float, tests: int = 1) -> float:
        """Standard errors that chance may reach: Student's quantile at this test's level.

        Args:
            freedom: degrees of it, independent parts less one; tests: made of this row.
        """
        return _quantile(self.level / tests, freedom)

    def at(self, name: str) -> float:
        """A number of the newest row; NaN where it has none."""
        return float(self.new.get(name, np.nan))


@dataclass(frozen=True)
class Check:
    """One question about the rows of a table.

    Attributes:
        code: of its finding; needs: columns of the newest row, without which nothing is asked.
        test: the fields of the finding, "code" for another one of its kind; None: sound.
        unrolled: about steps of a model, which a loop that follows the critic alone has not.
    """

    code: str
    table: str
    needs: tuple[str, ...]
    test: Callable[[Evidence], _Found]
    unrolled: bool = False

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding of the newest row, where it fails."""
        if not all(name in evidence.new for name in self.needs):
            return None
        if self.unrolled and evidence.critic_alone:
            return None
        found = self.test(evidence)
        fields: dict[str, Any] = {"code": self.code, "decision": "fail", **(found or {})}
        return None if found is None else Finding(**fields)


@lru_cache(maxsize=4096)
def _quantile(level: float, freedom: float) -> float:
    return -float(scipy.special.stdtrit(freedom, level))


def listed(which: Any, names: Sequence[str]) -> str:
    """At most three names, and how many more."""
    chosen = [names[int(k)] if k < len(names) else f"parameter {k}" for k in np.flatnonzero(which)]
    more = f" and {len(chosen) - 3} more" if len(chosen) > 3 else ""
    return ", ".join(chosen[:3]) + more


def _nonfinite(evidence: Evidence) -> _Found:
    """A gradient that is not finite."""
    lost = int(evidence.new["nonfinite_updates"])
    where = listed(np.asarray(evidence.new["nonfinite"]) > 0, evidence.names)
    return dict(value=lost, n=int(evidence.at("looked")), at=where) if lost else None


def _dead_parameters(evidence: Evidence) -> _Found:
    """Tensors whose gradient was exactly 0 in every update of the newest rows."""
    looked, dead = 0, np.full(np.shape(evidence.new["zero"]), True)
    for row in reversed(evidence.rows):
        looked += int(row["looked"])
        dead &= np.asarray(row["zero"]) >= row["looked"]
        if looked >= _LOOKED or not dead.any():
            break
    return (
        dict(at=listed(dead, evidence.names), n=looked)
        if looked >= _LOOKED and dead.any()
        else None
    )


def _noise(evidence: Evidence) -> _Found:
    """Successive gradients without anything in common, by all recent bursts."""
    rows = [row for row in evidence.rows[-_POOL:] if np.isfinite(row["share_se"])]
    if not rows:
        return None
    found = [
        Signal(int(row.get("fresh", row["pairs"])), *(float(row[each]) for each in _PRODUCTS))
        for row in rows
    ]
    signal = pooled(found)
    top = signal.share + evidence.reach(signal.pairs - 1) * signal.se
    return dict(value=signal.share, high=max(top, 0.0), n=signal.pairs) if top < NOISE else None


def _saturated(evidence: Evidence) -> _Found:
    """Actions at their limits since the run began, or most of them for `_RECENT` rows.

    Sound actors saturate within tens of updates while their critic is young, and come back.
    """
    rows = [row for row in evidence.rows[-_RECENT:] if row.get("watched")]
    if not rows or not np.size(evidence.new["saturation"]):
        return None
    shares = np.array([row["saturation"] for row in rows], dtype=np.float64)
    passed = _passed(evidence.new)
    lasted = (len(rows) == _RECENT) & (shares > HALF).all(axis=0) & ~(passed > _COST)
    begun = (passed < _BORN) & (_passed(evidence.rows[0]) < _BORN)
    begun |= np.isnan(passed) & (shares > _FULL).all(axis=0)  # not recorded
    many = evidence.count == len(evidence.rows) and sum(row["watched"] for row in rows) >= _LOOKED
    bad = lasted | (begun & many & (shares[-1] > HALF))
    if not bad.any():
        return None
    share = shares.mean(axis=0)
    j = int(np.argmax(np.where(bad, share, -1.0)))
    return dict(at=str(j), value=share[j], n=len(rows))


def _passed(row: Row) -> NDArray[np.float64]:
    """The share that a tanh lets through by action; NaN where it is not known."""
    return np.asarray(row.get("attenuation", np.nan), dtype=np.float64)


def fallen(returns: Returns, table: str) -> Finding | None:
    """Returns that stay below those of the first window, as the newest window fills.

    All are tested against the same first window: at `_LEVEL` each, at most 0.3% of runs of a
    hundred windows ring falsely (normal, t3, log-normal and with rare low ones, 2,000 runs each).

    Args:
        table: "returns" or "episodes", whose they are.
    """
    means, newest = returns.windows, returns.changes(_IN_A_ROW)
    if len(newest) < _IN_A_ROW or any(each.direction == "rose" for each in newest):
        return None
    if any(each.updates < LEAST or not each.mean < means[0].mean() for each in newest):
        return None
    first, last = means[0], np.concatenate(means[-_IN_A_ROW:])
    lower = float(first.mean() - last.mean())
    worst = max(float(each.var(ddof=1)) for each in (first, last))
    half = student(len(first) - 1, _LEVEL) * sqrt(worst / len(first) + worst / len(last))
    if not lower > half:
        return None
    was, now = (two(float(each.mean())) for each in (first, means[-1]))
    return Finding(
        "falling return", "fail", "the policy" if table == "returns" else "training episodes",
        lower, threshold=half, n=newest[-1].updates, at=f"{was} to {now}",
    )  # fmt: skip


def _beyond(
    column: str, limit: Callable[[Evidence], float],
    where: Callable[[Evidence], bool] = lambda _: True,
    shown: Callable[[float], float] = lambda x: x,
    about: Callable[[Evidence], dict[str, Any]] = lambda _: {},
) -> Callable[[Evidence], _Found]:  # fmt: skip
    """x − t se > limit, where it is asked; told as another number of x."""

    def test(evidence: Evidence) -> _Found:
        x, margin = evidence.at(column), _reach(evidence) * evidence.at(f"{column}_se")
        if not (where(evidence) and x - margin > limit(evidence)):
            return None
        low, high = sorted(map(shown, (x - margin, x + margin)))
        told = {"value": shown(x), "low": low, "high": high} | about(evidence)
        return _of(evidence, **told)

    return test


def _exponential(evidence: Evidence) -> bool:
    """Variance also grows as more rewards are summed: that is no fault where it is not exponential,
    nor while the longest horizon may still be best (NaN: no truth to choose a horizon by)."""
    kept = evidence.at("kept_high") >= _longest(evidence)
    return evidence.at("growth_evidence") > DECISIVE and not kept


def _by_critic(evidence: Evidence) -> dict[str, Any]:
    """The critic's share of the bias: all, where model and critic err apart."""
    bias2 = np.asarray(evidence.new["bias2"])[:, -1]
    share = bias2[3] / bias2[1] if bias2[1] > 0 else np.inf
    return _longer(evidence) | {"value": min(share, 1.0), "low": np.nan, "high": np.nan}


def _longer(evidence: Evidence) -> dict[str, Any]:
    return {"subject": _judged(evidence), "at": str(_longest(evidence))}


def _judged(evidence: Evidence) -> str:
    """The gradient at the longest horizon: the model's, where there is one."""
    return gradient(by_default(ESTIMATORS)[judged(evidence.new)])


def _wrong_direction(evidence: Evidence) -> _Found:
    """The gradient that the loop follows points away from the true one."""
    if not evidence.critic_alone:
        return _model_away(evidence)
    value, top = (float(each[DATA, 0]) for each in _tops(evidence))
    if not top < 0:
        return None
    return _of(evidence, code="critic's gradient points away", value=value, high=top)


def _model_away(evidence: Evidence) -> _Found:
    tests = max(np.shape(evidence.new["cosine"])[1] - 1, 1)
    cosines, top = (each[MODEL, 1:] for each in _tops(evidence, tests))
    bad = np.flatnonzero(top < 0) + 1
    if not len(bad):
        return None
    h = int(bad[-1])
    right = np.flatnonzero(evidence.new["cosine_low"][MODEL, 1:] > 0) + 1
    shown = f" (its sign is shown to be right at {horizons(right.tolist())})" if len(right) else ""
    return _of(
        evidence, subject=gradient(by_default(ESTIMATORS)["model"]), value=cosines[h - 1],
        high=top[h - 1], at=f"h = {horizons(bad.tolist())}{shown}",
    )  # fmt: skip


def _tops(evidence: Evidence, tests: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines, and how large they may be: the upper ends of the stored intervals, as far out as
    this test's level takes; 1 where there are too few starts for intervals to cover, and where the
    interval ends there: a cosine lost in noise may be estimated beyond 1, above its upper end."""
    values, high = (
        np.asarray(evidence.new[name], dtype=np.float64) for name in ("cosine", "cosine_high")
    )
    if evidence.at("starts") < FEWEST:
        return values, np.ones_like(values)
    top = values + (high - values) * _reach(evidence, tests) / Z
    return values, np.where(high < 1, np.maximum(top, high), 1.0)


def _critic_beyond_bound(evidence: Evidence) -> _Found:
    """A critic that promises more than all rewards together."""
    value, se, bound = (evidence.at(name) for name in ("value", "value_se", "return_bound"))
    margin = _reach(evidence) * se
    if not abs(value) - margin > bound:
        return None
    return _of(evidence, value=value, low=value - margin, high=value + margin, threshold=bound)


def _jacobian_drift(evidence: Evidence) -> _Found:
    """A model whose Jacobians are worse than they have been."""
    rows = [row for row in evidence.rows if np.isfinite(row.get("jacobian_error", np.nan))]
    if len(rows) < 2 or rows[-1] is not evidence.new:
        return None
    now, earlier = rows[-1], rows[:-1]
    reach = _reach(evidence, len(earlier))
    best = min(earlier, key=lambda row: row["jacobian_error"] + reach * row["jacobian_error_se"])
    gap = float(now["jacobian_error"] - best["jacobian_error"])
    margin = reach * sqrt(now["jacobian_error_se"] ** 2 + best["jacobian_error_se"] ** 2)
    if not gap - margin > _ROUNDING:
        return None
    return _of(
        evidence, value=exp(gap), low=exp(gap - margin), high=exp(gap + margin),
        at=f"step {int(best['step'])}",
    )  # fmt: skip


def _lost_jacobians(evidence: Evidence) -> _Found:
    """States at which the model in use has no finite derivative."""
    lost, states = (evidence.new[name] for name in ("jacobian_nonfinite", "jacobian_states"))
    where, masked = str(evidence.new.get("nonfinite_where", "")), int(evidence.at("starts_lost"))
    return dict(value=lost, threshold=states, at=where, n=masked) if lost else None


def _reach(evidence: Evidence, tests: int = 1) -> float:
    return evidence.reach(evidence.at("starts") - 1, tests)


def _longest(evidence: Evidence) -> int:
    """The longest horizon of the profile."""
    return int(np.shape(evidence.new["variance"])[1] - 1)


def _of(evidence: Evidence, **found: Any) -> dict[str, Any]:
    """What was found, on so many starts."""
    return found | {"n": int(evidence.at("starts"))}


_PRODUCTS = ("energy", "signal", "root_squares", "signal_share", "share_se")
CHECKS = (
    Check("non-finite gradient", "vitals", ("looked", "nonfinite", "nonfinite_updates"),
          _nonfinite),
    Check("dead path", "vitals", ("looked", "zero"), _dead_parameters),
    Check("saturated actor", "vitals", ("saturation", "watched"), _saturated),
    Check("gradient no better than noise", "successive", ("pairs", *_PRODUCTS), _noise),
    *(
        Check(code, "measured", ("starts", *needs), test, unrolled)
        for code, needs, test, unrolled in (
        ("non-finite Jacobian", ("jacobian_nonfinite", "jacobian_states"), _lost_jacobians, True),
        ("diverging sensitivities", ("lyapunov", "lyapunov_se", "discount"),
         _beyond("lyapunov", lambda e: _ROUNDING - log(e.at("discount")),
                 shown=lambda rate: log(10) / rate,
                 about=lambda e: {"threshold": e.at("float32_step")}), True),
        ("variance doubling time", ("variance", "growth", "growth_se", "growth_evidence"),
         _beyond("growth", lambda e: log(2) / max(_longest(e), 1), _exponential,
                 lambda slope: log(2) / slope, lambda e: {"subject": _judged(e)}), True),
        ("wrong direction", _DIRECTION, _wrong_direction, False),
        ("worse than without a model", ("variance", "over_data", "over_data_se", "kept_high"),
         _beyond("over_data", lambda _: 0.0, lambda e: e.at("kept_high") < _longest(e), exp,
                 _longer), True),
        ("critic-dominated bias", ("bias2", "critic_gap", "critic_gap_se"),
         _beyond("critic_gap", lambda _: 0.0, about=_by_critic), True),
        ("critic beyond its bound", ("value", "value_se", "return_bound"),
         _critic_beyond_bound, False),
        ("drifting model Jacobian", ("jacobian_error", "jacobian_error_se"), _jacobian_drift, True),
        )
    ),
)  # fmt: skip


def examine(table: str, evidence: Evidence) -> list[Finding]:
    """What the newest row of a table fails."""
    found = (check(evidence) for check in CHECKS if check.table == table)
    return [each for each in found if each is not None]
