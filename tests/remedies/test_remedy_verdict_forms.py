"""The sentence that compares a profile with the one after a remedy."""

from dataclasses import dataclass, replace
from math import log

import numpy as np

from gradlab.runs.comparison import Comparison, compared
from gradlab.runs.decision_rules import LogRatio, least_ratio
from gradlab.statistics.comparison import difference, log_ratio, more_samples
from gradlab.tools.remedies.findings import remedy
from gradlab.verdicts.phrases import further
from tests.runs.planted_pairs import profile as paired
from tests.verdicts.planted_profiles import planted


@dataclass(frozen=True, eq=False)
class OfProfiles:
    """Two measurements: without the remedy, and with it; `name`: the estimator that is judged."""

    comparison: Comparison
    name: str = "model"

    @property
    def samples(self):
        return f"N = {self.comparison.samples}"

    def more(self, ratio):
        count = more_samples(ratio.value, ratio.se, self.comparison.samples)
        return f"{further(count)} decide"

    @property
    def groups(self):
        return len(self._pair("mse", self.horizons[0])[0].left_out)

    @property
    def horizons(self):
        comparison = self.comparison
        if self.name not in comparison.estimators or "mse" not in comparison.quantities:
            return []
        return [
            h
            for h in comparison.measured(self.name, "mse")
            if h and all(np.isfinite(e.left_out).all() for e in self._pair("mse", h))
        ]

    def error(self, horizon):
        return self._pair("mse", horizon)[0].value

    def ratio(self, quantity, horizon):
        first, second = self._pair(quantity, horizon)
        logarithm = log_ratio(second, first)
        if logarithm is None:
            return None
        return LogRatio(
            log(second.value / first.value), logarithm.low, logarithm.high, logarithm.se
        )

    def change(self, quantity, horizon):
        first, second = self._pair(quantity, horizon)
        return second.value - first.value, difference(second, first)

    def _pair(self, quantity, horizon):
        return self.comparison.estimates(self.name, quantity, horizon)

    def least(self):
        pairs = [self._pair("mse", h) for h in self.horizons]
        return least_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def remedied(mse, noise=0.02, **config):
    without = paired(lambda n: 1.0, noise=noise)
    return OfProfiles(compared(without, paired(mse, noise=noise, **config)))


def test_a_remedy_that_helps_far_and_harms_near_is_said_so():
    text = remedy(remedied(lambda n: 0.2 if n >= 8 else 1.5), "spectral normalisation").text
    assert text.startswith("Spectral normalisation ")
    assert "better at h = 8–12, worse at h = 1–7" in text
    assert "the least error over the horizons is 5× (CI" in text


def test_parts_of_a_remedy_carry_their_intervals():
    with_variance = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 1 / 31)
    without = paired()
    second = replace(with_variance, config=without.config)
    text = remedy(OfProfiles(compared(without, second)), "spectral normalisation").text
    assert "cuts variance 31× (CI" in text
    lost = planted(lambda n: 1.0, lambda n: 0.9, lambda n: 0.0)
    pruned = OfProfiles(compared(without, replace(lost, config=without.config)))
    text = remedy(pruned, "pruning").text
    assert text.startswith("Pruning changes the variance by -1 (CI")


def test_a_remedy_without_a_clear_effect_is_not_shown_to_matter():
    sentence = remedy(remedied(lambda n: 0.99, noise=1.0, starts_hash="t"), "the DD loss")
    assert not sentence.decided
    assert sentence.text.startswith("The DD loss leaves variance at ")
    assert "not shown to matter here; " in sentence.text
    assert sentence.text.endswith(("more starts would decide.", "number of starts would decide."))
    none = remedy(OfProfiles(remedied(lambda n: 1.0).comparison, "mixed"), "the DD loss")
    assert none.text == "Undecided: the DD loss has no error to compare (N = 256)."


def test_what_a_remedy_costs_stands_beside_its_gain():
    text = remedy(
        remedied(lambda n: 0.2), "spectral normalisation", "a fit takes 1.6× as long"
    ).text
    assert text.endswith("lower; a fit takes 1.6× as long.")


# Order -------------------------------------------------------------------------------------------
