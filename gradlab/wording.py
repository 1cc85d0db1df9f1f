"""Numbers and names in sentences: two significant digits, no false precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, Context
from math import floor, inf, isfinite, isinf, isnan, log10
from typing import Any, Protocol

_SYSTEMS = {
    ("model", "model"): "your model",
    ("simulator", "model"): "your model along the simulator's states",
    ("recorded", "model"): "your model along recorded states",
    ("simulator", "simulator"): "the simulator",
    ("model", "simulator"): "the simulator along your model's states",
    ("recorded", "simulator"): "the simulator along recorded states",
    ("simulator", "none"): "the simulator",
    ("model", "none"): "your model",
    ("recorded", "none"): "recorded states",
}
_SHORT = {
    ("model", "model"): "model",
    ("simulator", "model"): "mixed",
    ("simulator", "simulator"): "simulator",
}
_CARRIED = {"first": "first action", "all": "BPTT"}
_OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}
_WAYS = {
    "first": "first action only",
    "all": "BPTT",
    "replayed": "BPTT from replayed states",
    "score": "the score",
    "ivw": "IVW-H",
    "ddcg": "DDCG",
    "total": "total propagation",
}


class Identity(Protocol):
    """What words need of a `runs.identity.Identity`; nothing else of a run is known here."""

    @property
    def name(self) -> str: ...
    @property
    def actions(self) -> str: ...
    @property
    def systems(self) -> tuple[str, str]: ...
    @property
    def data(self) -> bool: ...
    @property
    def cut(self) -> str: ...
    @property
    def counted(self) -> bool: ...
    @property
    def gradient_model(self) -> bool: ...
    @property
    def ambiguous(self) -> bool: ...


Writer = Callable[[float, int], str]  # of a number to so many digits
_MINUS = re.compile(r"(?<![\w.)\]−–-])-(?=\.?\d)")


def signed(text: str) -> str:
    """`text` with − before negative numbers, as figures have it; a command in backticks stays."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _MINUS.sub("−", text)
    return "`".join(part if k % 2 else _MINUS.sub("−", part) for k, part in enumerate(parts))


def describe(identity: Identity) -> tuple[str, str]:
    """What an estimator differentiates, and how; the only place that makes words of who one is.

    Returns:
        "your model", "BPTT", with the estimator's name where another one of the
        measurement is the same; ("the critic alone", "") of the data gradient.
    """
    how = _WAYS.get(identity.actions, identity.actions)
    how += f", {identity.cut}" if identity.cut else ""
    how += " cut" if identity.cut and not identity.counted else ""
    how += ", Jacobians of another model" if identity.gradient_model else ""
    if identity.data:
        return "the critic alone", identity.name if identity.ambiguous else ""
    return _SYSTEMS[identity.systems], f"{how}: {identity.name}" if identity.ambiguous else how


def label(name: str, identities: Mapping[str, Identity] | None) -> str:
    """A gradient's name in figures, lists and tables; where nothing but a name is known, that."""
    if identities is None or name not in identities:
        return name
    identity = identities[name]
    who, how = describe(identity)
    cut = identity.cut or identity.gradient_model
    if identity.data and not cut:
        text = "data (critic only)"
    elif identity.systems in _SHORT and identity.actions in _CARRIED and not cut:
        text = f"{_SHORT[identity.systems]}, {_CARRIED[identity.actions]}"
    elif identity.ambiguous:
        return name
    else:
        if identity.cut:
            how = identity.cut if identity.counted else f"cut: {identity.cut}"
        alone = identity.systems[0] == "simulator"
        return how if alone else f"{who.removeprefix('the ')}, {how}"
    return f"{text}: {name}" if identity.ambiguous else text


AT_STARTS = "critic alone at the starts"  # BPTT at h = 0: nothing is backpropagated through


def at_horizon(name: str, horizon: int, identities: Mapping[str, Identity]) -> str:
    """model, BPTT at h = 5; critic alone at the starts."""
    known = identities.get(name)
    if known is not None and not horizon and known.actions == "all" and not known.data:
        return AT_STARTS
    return f"{label(name, identities)} at h = {horizon}"


def gradient(identity: Identity) -> str:
    """An estimator as the subject of a sentence."""
    who, how = describe(identity)
    label = f" {identity.name}" if identity.ambiguous else ""
    if identity.data:
        return f"the data gradient{label}"
    for way, carried in _CARRIED.items():  # as figures call it
        if identity.systems in _SHORT and how == _WAYS[way]:
            return f"the {_SHORT[identity.systems]} gradient ({carried})"
    if identity.actions not in ("first", "all"):
        return f"{how} on {who}"
    return f"the gradient of {who} ({how})"


def samples(config: Mapping[str, Any]) -> str:
    """The number of starts of a measurement."""
    return f"N = {int(config['starts']):,}"


def rounded_up(count: int) -> int:
    """Two significant digits, rounded up: an estimate, not a count."""
    unit = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // unit) * unit


def states_each(batch: int, update: int) -> str:
    """256 states (N′); 64 states (N′ / 4): of a batch beside that of the user's update."""
    part = round(update / batch)
    return f"{batch:,} states (N′{f' / {part}' if part > 1 else ''})"


def steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


def updates(count: int) -> str:
    return "1 update" if count == 1 else f"{count:,} updates"


def stepping(optimizer: str, rate: float) -> str:
    """Adam at 1.5e-4"""
    return f"{_OPTIMIZERS.get(optimizer, optimizer)} at {_power(rate)}"


def two(value: float) -> str:
    """Two significant digits: 0.021, 12,000; 2.2e-7 and 1.4e6 where that is shorter."""
    return rounded(value, 2)


def change(first: float, last: float) -> str:
    """−95 → −4: two significant digits, or as many as half of the difference needs, six at most."""
    size, gap = max(abs(first), abs(last)), abs(last - first) / 2
    told = isfinite(gap) and gap > 0
    digits = min(max(2, floor(log10(size)) - floor(log10(gap)) + 1), 6) if told else 2
    return f"{rounded(first, digits)} → {rounded(last, digits)}"


def rounded(value: float, digits: int) -> str:
    """So many significant digits: 0.021, 12,000, 1.4e6."""
    if not isfinite(value) or value == 0 or 1e-4 <= abs(value) < 1e5:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,g}" if abs(rounded) >= 1e4 else f"{rounded:g}"
    return _power(value, digits)


def counted(value: float, digits: int = 2) -> str:
    """The same of what may be a count: whole numbers below a million to the last digit."""
    whole = isfinite(value) and value == round(value) and abs(value) < 1e6
    return f"{value:,.0f}" if whole else rounded(value, digits)


def below(value: float) -> str:
    """Two significant digits, rounded up: a bound must stay one."""
    return two(float(Context(prec=2, rounding=ROUND_CEILING).create_decimal(value)))


def _power(value: float, digits: int = 2) -> str:
    factor, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{float(factor):g}e{int(power)}"


def times(ratio: float) -> str:
    return f"{two(ratio)}×"


def horizons(over: Sequence[int]) -> str:
    """Horizons as runs: 1–3, 7."""
    runs: list[list[int]] = []
    for h in sorted(over):
        if runs and h == runs[-1][-1] + 1:
            runs[-1].append(h)
        else:
            runs.append([h])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def percent(share: float, digits: int = 2) -> str:
    """Two significant digits, and whole from ten on; or more."""
    if isinf(share):
        return "∞" if share > 0 else "-∞"
    return f"{100 * share:.{digits}g}%" if abs(share) < 0.1 else f"{share:.{digits - 2}%}"


def share(value: float, digits: int = 2) -> str:
    """A share of the possible gain in whole percent, or more digits, never rounded to all or
    nothing of it."""
    value, most = max(-1.0, min(value, 1.0)), 1 - 10.0**-digits
    if abs(value) >= most + 0.5 * 10.0**-digits:
        return f"{'over ' if value > 0 else 'under −'}{most:.{digits - 2}%}"
    return f"{round(100 * value, digits - 2) + 0.0:.{digits - 2}f}%".replace("-", "−")


def cosine(value: float, decimals: int = 2) -> str:
    """Two decimals, or more, never rounded to ±1, beyond which a noise-corrected estimate may
    lie."""
    most = 1 - 10.0**-decimals
    if abs(value) >= most + 0.5 * 10.0**-decimals:
        return f"{'>' if value > 0 else '<-'}{most:.{decimals}f}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def turned(value: float, low: float, high: float) -> str:
    """0.97 (CI 0.95–0.98), of a cosine"""
    return with_interval(value, low, high, write=cosine)


def span(low: float, high: float) -> str:
    """The two ends of an interval; "unknown" where one is no number."""
    return with_ends(low, low, high)[1]


def with_interval(
    value: float, low: float, high: float, unit: str = "", more: str = "", write: Writer = rounded
) -> str:
    """1.44× (CI 1.42–1.46, N = 64); of a noise-corrected square below 0, "at most 40× (95%)"

    Args:
        unit: behind the value; more: text behind the interval, in the same brackets.
        write: a number with so many digits, as `percent`.
    """
    number, ends = with_ends(value, low, high, write)
    rest = f", {more}" if more else ""
    if value < 0 <= low:
        return f"{number}{unit} (95%{rest})"
    return f"{number}{unit} (CI {ends}{rest})"


def with_ends(value: float, low: float, high: float, write: Writer = rounded) -> tuple[str, str]:
    """A value and the two ends of its interval, all three to as many digits, two at least, as tell
    the ends apart: "1.44" and "1.42–1.46", "75%" and "74–76%". Ends that five digits do not tell
    apart are one. Of a square below 0, from which noise was taken, both are "at most 40"."""
    if isnan(low) or isnan(high):
        return write(value, 2), "unknown"
    if value < 0 <= low:
        return (f"at most {write(high, 2)}",) * 2
    n = next((n for n in range(2, 6) if write(low, n) != write(high, n)), 2)
    first, last = write(low, n), write(high, n)
    joined = f"{first} to {last}" if low < 0 or high < 0 else f"{first.removesuffix('%')}–{last}"
    return write(value, n), first if first == last else joined


def beside(value: float, width: float) -> str:
    """A value to a last digit below an interval's width, with two digits at least, five at most."""
    digits = 2
    if value and 0 < width < inf:
        digits = floor(log10(abs(value))) - floor(log10(width)) + 1
    return rounded(value, min(max(digits, 2), 5))


def duration(seconds: float) -> str:
    if not isfinite(seconds):
        return "time unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[str], most: int) -> str:
    """a, b and 3 more"""
    shown, rest = list(names[:most]), len(names) - most
    parts = [*shown, f"{rest} more"] if rest > 0 else shown
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
