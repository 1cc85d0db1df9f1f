"""The words of every kind of run; `python -m tests.verdicts.prose` writes them again."""

import pytest

from tests.first_screens import WORDS
from tests.verdicts.prose import CASES, GOLDEN, told


@pytest.mark.parametrize("kind", CASES)
def test_words_are_those_of_the_golden_file_and_few_in_a_field(kind):
    text, shown = told(kind)
    assert text == (GOLDEN / f"{kind}.txt").read_text(encoding="utf-8")
    fields = [field.text for each in shown for field in each.fields]
    assert all(0 < len(field.split()) <= WORDS for field in fields), fields


def test_every_golden_file_has_its_kind():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)
