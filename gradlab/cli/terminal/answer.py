"""A command's document on standard output: sentences and tables, or one JSON document."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gradlab.cli.arguments import Document
from gradlab.cli.terminal.progress_bars import bars
from gradlab.cli.terminal.streams import utf8
from gradlab.cli.terminal.tables import print_tables
from gradlab.errors import Failure, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from gradlab.verdicts.screen import Light, Screen

WIDTH, NAMES = 80, 20  # columns of a list, and those of its names
HEADINGS = {
    "tasks": "tasks:",
    "estimators": "estimators:",
    "measure --also": "estimators of `gradlab measure --also`:",
    "named estimators": "estimators of gradlab.gradients.named, in Python:",
    "algorithms": "algorithms: source; policy, gradient, critic's target; model, data",
    "remedies": "remedies of a learned model:",
}


def of_screen(screen: Screen) -> Document:
    """A first screen as plain values; "verdict" holds every sentence."""
    notice: Document = {"notice": screen.notice} if screen.notice else {}
    return notice | {
        "recommendation": screen.headline,
        "light": screen.light,
        "sure": screen.sure,
        "numbers": [asdict(fact) for fact in screen.numbers],
        "verdict": [asdict(sentence) for sentence in screen.rest],
    }


def of_run(run: Path, page: bool, more: Sequence[Document] = ()) -> Document:
    """The first screen of a run that was just written, and its page if `page` is set.

    Args:
        more: sentences about what the command chose, below those of the verdict.
    """
    from gradlab.reporting.kinds import page_of, screen_of
    from gradlab.reporting.output import check_page, write

    document: Document = {"run": str(run)}
    if page:
        shown = page_of(run)
        try:
            with bars() as progress:
                document["report"] = str(write(check_page(run), shown, progress))
        except (InputError, OSError) as error:
            raise Failure(f"the run is in {run}, its page failed: {error}") from error
        screen = shown.screen
    else:
        screen = screen_of(run)
    first = of_screen(screen)
    verdict = [*(asdict(sentence) for sentence in screen.rest), *more]
    return first | {"verdict": verdict} | document


def answer(document: Document, as_json: bool, explain: bool = False) -> None:
    """Print the document of a command on standard output.

    Args:
        explain: print what stands below the recommendation, too.
    """
    if as_json:
        print(json.dumps(_plain(document), allow_nan=False, ensure_ascii=not utf8()))
        return
    headline = str(document.get("headline", ""))
    if headline:
        bold(headline)
    if "text" in document:
        print(str(document["text"]).removeprefix(headline).lstrip("\n"))
    if "recommendation" in document:
        _print_screen(document)
    if explain or "recommendation" not in document:
        _print_verdict(document)
        print_tables(document)
    for kind in ("run", "report"):
        if kind in document:
            print(f"{kind + ':':8}{document[kind]}")
    _print_lists(document)
    if "recommendation" in document and not explain:
        print("--explain prints the rest.")


def _print_lists(document: Document) -> None:
    """Names with their lines; a star marks those that are taken where nothing is chosen."""
    defaults = document.get("by default")
    taken = defaults if isinstance(defaults, dict) else {}
    for kind, heading in HEADINGS.items():
        entries = document.get(kind)
        if isinstance(entries, dict):
            print(f"\n{heading}")
            for name, entry in entries.items():
                mark = "*" if name in taken.get(kind, ()) else " "
                print(_entry(f"{mark} {name:{NAMES}}", entry))


def _entry(name: str, entry: str | dict[str, str]) -> str:
    """A name with its line; an algorithm with its source, and below it its parts."""
    if isinstance(entry, str):
        return _filled(f"{name} {entry}")
    parts = (
        f"{entry['policy']}; {entry['gradient']}; target: {entry['target']}",
        f"{entry['model']}; data: {entry['data']}",
    )
    lines = (_filled(f"{'':{NAMES + 2}} {part}") for part in parts)
    return "\n".join([_filled(f"{name} {entry['source']}"), *lines])


def _filled(text: str) -> str:
    """A text in columns after the names."""
    indent = " " * (NAMES + 3)
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _print_screen(document: Document) -> None:
    """The recommendation, how sure it is, and its numbers."""
    from gradlab.verdicts.screen import light_line

    console = _console()
    if "notice" in document:
        console.print(str(document["notice"]), style="bold red")
    console.print(str(document["recommendation"]), style="bold")
    console.print(light_line(cast("Light", document["light"]), str(document["sure"])))
    numbers = document["numbers"]
    facts = numbers if isinstance(numbers, list) else []
    width = max((len(fact["text"]) for fact in facts), default=0)
    for fact in facts:
        console.print(f"  {fact['text']:>{width}}  {fact['label']}")
    if "networks" in document:
        console.print(str(document["networks"]))
    console.print()


def bold(sentence: str) -> None:
    """Print the first sentence of an answer, which says what was found."""
    _console().print(sentence, style="bold")


def _console() -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            """Raise, where rich would exit with 1: a closed pipe (`| head`) is no failure, see
            `main`."""
            raise BrokenPipeError

    return Piped(soft_wrap=False, highlight=False, markup=False)


def _print_verdict(document: Document) -> None:
    """Sentences with a blank line between them, each once: those that are decided in bold, and the
    first one where it is the answer."""
    from gradlab.verdicts.screen import unsaid

    console, verdict = _console(), document.get("verdict")
    sentences = verdict if isinstance(verdict, list) else []
    above = f"{document.get('notice', '')} {document.get('recommendation', '')}"
    texts = unsaid([str(each["text"]) for each in sentences], above)
    if sentences and "recommendation" not in document and "headline" not in document:
        bold(texts[0])
        console.print()
        sentences, texts = sentences[1:], texts[1:]
    for sentence, text in zip(sentences, texts, strict=True):
        if text:
            console.print(f"• {text}", style="bold" if sentence["decided"] else None)
            console.print()


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
