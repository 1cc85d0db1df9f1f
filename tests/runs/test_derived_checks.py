"""Checks that are read from the numbers of a saved profile."""

from __future__ import annotations

import numpy as np
import pytest

from gradlab.runs.derived_checks import derived_checks
from gradlab.runs.profile import Profile
from tests.verdicts.planted_profiles import H, planted


def signed(profile: Profile, low: list[float]) -> Profile:
    """The profile with a sign agreement whose lower ends are given for h = 1 … H."""
    q = profile.quantities.index("sign_agreement")
    profile.columns["ci_low"][1, q, 1:] = low
    profile.count[1, q] = 256
    return profile


def found(profile: Profile, check: str):
    return next((each for each in derived_checks(profile) if each.check.startswith(check)), None)


def flat() -> Profile:
    return planted(lambda n: 1.0, lambda n: 0.9)


def test_signs_are_reliable_up_to_the_first_horizon_that_may_be_chance():
    check = found(signed(flat(), [0.9] * 7 + [0.4] + [0.9] * (H - 8)), "signs")
    assert check.result == "reliable up to h = 7 (N = 256)"
    assert "at h = 8 half of the parameters" in check.meaning and not check.passed
    assert found(signed(flat(), [0.9] * H), "signs").passed
    none = found(signed(flat(), [0.5] * H), "signs")
    assert none.result == "reliable at no h (N = 256)"


def test_signs_are_judged_at_the_recommended_horizon():
    """At h = 1 half of the parameters may move the wrong way; at h = 5, which is advised, not."""
    profile = signed(flat(), [0.4] * 4 + [0.9] + [0.4] * (H - 5))
    name, q = profile.estimators[1], profile.quantities.index("sign_agreement")
    profile.columns["value"][1, q, 1:] = 0.95
    profile.columns["ci_high"][1, q, 1:] = 0.99
    good, bad = (
        next(each for each in derived_checks(profile, (name, h)) if each.check.startswith("signs"))
        for h in (5, 6)
    )
    assert good.passed and "recommended h = 5" in good.check and "90%" in good.result
    assert not bad.passed and "recommended h = 6" in bad.check
    assert not found(profile, "signs").passed


def test_without_signs_or_a_truth_nothing_is_said_of_them():
    assert found(flat(), "signs") is None
    lost = planted(lambda n: 1.0, lambda n: 0.9, admissible=False, status="none")
    assert found(signed(lost, [0.9] * H), "signs") is None


def test_a_norm_that_multiplies_is_followed_to_the_range_of_float32():
    rate = np.log(10) / 3  # of the norm: tenfold every 3 steps
    check = found(planted(lambda n: 1.0, lambda n: 0.9, lambda n: np.exp(2 * rate * n)), "norm")
    assert check.result.startswith("multiplies by 10 every 3 steps (CI 3–3")
    # 10^(n/3) = 3.4e38 at n = 115.6, to two digits
    assert "at about step 120" in check.meaning and not check.passed


@pytest.mark.parametrize("law", [lambda n: 1.0, lambda n: max(n, 1) ** 2.0])
def test_plateaus_and_power_laws_do_not_explode(law):
    check = found(planted(lambda n: 1.0, lambda n: 0.9, law), "norm")
    assert check.passed and "does not multiply steadily" in check.result
