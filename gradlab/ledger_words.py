"""A ledger in sentences: of each estimator the attributed horizon of smallest error, and beside it
what a table of numbers does not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from gradlab.ledger import CANCELLING, CAUSES, SOURCES, Account, Ledger, Part, Spread
from gradlab.profile import Profile
from gradlab.wording import gradient, percent, span

Told = TypeVar("Told", Account, Spread)
UNCLEAR = "no share is clear of 0"


def sentences(ledger: Ledger, profile: Profile) -> list[str]:
    """What the ledger says, the bias first."""
    told = [_bias(each, ledger.starts) for each in _best(ledger.bias, profile)]
    told += _elsewhere(ledger)
    told += [_variance(each, ledger.starts) for each in _best(ledger.variance, profile)]
    return told + list(_skipped(ledger))


def _best(accounts: Sequence[Told], profile: Profile) -> list[Told]:
    """One account of each estimator: where its MSE, or without a truth its variance, is least."""
    quantity = "mse" if profile.truth["admissible"] else "variance"

    def error(account: Told) -> float:
        return profile.estimate(account.estimator, quantity, account.horizon).value

    names = dict.fromkeys(each.estimator for each in accounts)
    return [min((a for a in accounts if a.estimator == name), key=error) for name in names]


def _elsewhere(ledger: Ledger) -> Iterator[str]:
    """Horizons at which shares say little."""
    for name in dict.fromkeys(each.estimator for each in ledger.bias):
        mine = [each for each in ledger.bias if each.estimator == name]
        lost = ", ".join(str(each.horizon) for each in mine if each.lost)
        if lost:
            yield f"The squared bias of {gradient(name)} is lost in noise at n = {lost}."
        cancelling = ", ".join(str(each.horizon) for each in mine if each.cancelling)
        if cancelling:
            yield (
                f"Causes cancel in {gradient(name)} at n = {cancelling}: a share is more than "
                f"{CANCELLING:g}× the squared bias, and others undo it."
            )


def _bias(account: Account, starts: int) -> str:
    where = f"{gradient(account.estimator)} at n = {account.horizon}"
    if account.lost:
        tried = f"squared bias {_value(account.total)}, N = {starts}"
        return f"The squared bias of {where} is lost in noise ({tried}): it has no shares."
    if account.cancelling:
        named = ", ".join(
            f"{CAUSES[name]} {_fraction(account.share(name))}" for name in account.cancelling
        )
        return (
            f"Causes cancel in {where}: {named} of the squared bias (N = {starts}), so that curing "
            f"one of them alone may make it worse."
        )
    clear = sorted((p for p in account.shapley if p.clear), key=lambda p: -abs(p.value))
    told = ", ".join(f"{_fraction(part)} from {CAUSES[part.name]}" for part in clear) or UNCLEAR
    return f"Squared bias of {where}: {told} (N = {starts})."


def _variance(spread: Spread, starts: int) -> str:
    where = f"{gradient(spread.estimator)} at n = {spread.horizon}"
    told = [f"{_fraction(p)} from {SOURCES[p.name]}" for p in spread.sources if p.clear]
    still = [SOURCES[p.name] for p in spread.sources if p.value == 0 and p.se == 0]
    exact = f"; exactly nothing from {', '.join(still)}, which change no gradient" if still else ""
    return f"Variance of {where}: {', '.join(told) or UNCLEAR}{exact} (N = {starts})."


def _skipped(ledger: Ledger) -> Iterator[str]:
    for name, why in ledger.skipped.items():
        yield f"Not attributed: {name}, since {why}."


def _value(part: Part) -> str:
    return f"{part.value:.2g}, 95% interval {span(part.low, part.high)}"


def _fraction(part: Part) -> str:
    low, high = percent(part.fraction_low), percent(part.fraction_high)
    return f"{percent(part.fraction)} ({low} to {high})"
