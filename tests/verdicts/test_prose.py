"""The words of every kind of run; `python -m tests.verdicts.prose` writes them again."""

import pytest

from tests.first_screens import WORDS
from tests.verdicts.prose import CASES, GOLDEN, rendered

FIRST = [(kind, title) for kind in CASES for title in CASES[kind]]


@pytest.mark.parametrize("kind", CASES)
def test_words_are_those_of_the_golden_file(kind):
    assert rendered(kind) == (GOLDEN / f"{kind}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_its_kind():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize(("kind", "title"), FIRST)
def test_a_field_has_at_most_forty_words(kind, title, tmp_path):
    for field in CASES[kind][title](tmp_path).fields:
        assert 0 < len(field.text.split()) <= WORDS, field
