"""Arguments are refused in one wording: "X is …, expected …"."""

import math

import pytest

from gradlab import validation
from gradlab.errors import InputError

REFUSED = [
    (validation.number, (math.nan,), {}, "x is nan, expected a finite number"),
    (validation.number, (True,), {"above": 0}, "x is True, expected a number > 0"),
    (validation.number, (-1,), {"least": 0}, "x is -1, expected a number ≥ 0"),
    (validation.number, (0.0,), {"above": 0, "most": 1}, "x is 0.0, expected a number in (0, 1]"),
    (validation.number, (1,), {"least": 0, "below": 1}, "x is 1, expected a number in [0, 1)"),
    (validation.number, (2, "a share"), {"most": 1}, "x is 2, expected a share"),
    (validation.whole, (1.0, 1), {}, "x is 1.0, expected an integer ≥ 1"),
    (validation.flag, (1,), {}, "x is 1, expected True or False"),
    (validation.word, ("b", ("a", "c")), {}, "x is 'b', expected one of a, c"),
    (validation.function, (3, "s"), {}, "x is 3, expected a function of s"),
    (validation.path, ("",), {}, "x is '', expected the path of a file"),
]


@pytest.mark.parametrize(("check", "values", "bounds", "message"), REFUSED)
def test_refused_arguments_are_named_with_what_was_expected(check, values, bounds, message):
    with pytest.raises(InputError) as refused:
        check("x", *values, **bounds)
    assert str(refused.value) == message


def test_numbers_at_closed_ends_are_taken():
    assert validation.number("x", 1, above=0, most=1) == validation.number("x", 1, least=1) == 1.0
