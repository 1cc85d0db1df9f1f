"""The words of every kind of run; `python -m tests.verdicts.prose` writes them again."""

import pytest

from gradlab.verdicts.screen import NUMBERS, WORDS, counted
from tests.verdicts.prose import CASES, GOLDEN, rendered

MEASURED = ("measurement", "advice", "attribution", "choice")
FIRST = [(kind, title) for kind in MEASURED for title in CASES[kind]]


@pytest.mark.parametrize("kind", CASES)
def test_words_are_those_of_the_golden_file(kind):
    assert rendered(kind) == (GOLDEN / f"{kind}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_its_kind():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize(("kind", "title"), FIRST)
def test_a_first_screen_has_at_most_sixty_words_and_eight_numbers(kind, title, tmp_path):
    screen = CASES[kind][title](tmp_path)
    words, numbers = counted(f"{screen.headline} {screen.sure}")
    assert words <= WORDS and numbers <= NUMBERS, f"{screen.headline} {screen.sure}"
