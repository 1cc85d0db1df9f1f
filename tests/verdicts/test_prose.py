"""The words of every kind of run; `python -m tests.verdicts.prose` writes them again."""

import pytest

from tests.verdicts.prose import CASES, GOLDEN, rendered


@pytest.mark.parametrize("kind", CASES)
def test_words_are_those_of_the_golden_file(kind):
    assert rendered(kind) == (GOLDEN / f"{kind}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_its_kind():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)
