"""`gradlab watch RUN.h5`: a run in progress, on the terminal or as a local page."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gradlab.cli.arguments import Document
from gradlab.cli.terminal.streams import undisturbed
from gradlab.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from gradlab.watching.state import Watcher

_LEFT = "gradlab: the view has ended, the run has not been touched"


@dataclass(frozen=True)
class Watch:
    """How far is a run that is being written, and is something wrong in it?

    The run is one of `gradlab train`, or of a probe in a loop of your own. It is never changed; one
    that does not exist yet is waited for. On a terminal the view is redrawn until Ctrl-C; a pipe
    gets a line now and then until the run has ended.

        gradlab watch runs/mpg-v2-path_tracking.h5
        gradlab watch run.h5 --web --open
    """

    file: Annotated[Positional[Path], arg(metavar="RUN.h5")]
    """The run, which may not exist yet."""
    once: bool = False
    """Print the whole present state once."""
    web: bool = False
    """Serve the report of the growing run as a page, to the users of this machine alone."""
    port: Annotated[int | None, arg(metavar="PORT")] = None
    """Port of the page. Default: a free one."""
    open: bool = False
    """Open the page in a browser."""
    json: bool = False
    """Print the present state as one JSON document."""

    def run(self, command: str) -> Document:
        """Show the run until Ctrl-C, or once."""
        if self.file.suffix not in (".h5", ".hdf5"):
            raise InputError(f"RUN.h5 is {self.file}: name the run, a file that ends in .h5")
        if self.web and (self.once or self.json):
            raise InputError("--web goes on and --once and --json do not: give one of them")
        if not self.web and (self.port is not None or self.open):
            raise InputError("--port and --open are for the page: add --web")
        if self.port is not None and not 0 <= self.port < 1 << 16:
            raise InputError(f"--port is {self.port}, expected a number up to 65535")
        with undisturbed():
            from rich.console import Console

            from gradlab.watching.showing import screen
            from gradlab.watching.state import Watcher, document

        watcher = Watcher(self.file)
        state = watcher.state()
        if state.phase == "unreadable":
            raise InputError(state.told)
        if self.json:
            return document(state)
        # The command line has replaced standard output by standard error meanwhile.
        console = Console(file=sys.__stdout__, markup=False, highlight=False, emoji=False)
        if self.once:
            with console.capture() as captured:  # without regard to the height of the screen
                console.print(screen(watcher.state(), watcher.clock(), console.width))
            return {"text": captured.get().rstrip("\n")}
        try:
            self._follow(watcher, console)
        except KeyboardInterrupt:
            return {"text": _LEFT}
        except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
            sys.__stdout__ = None  # type: ignore[misc]
        return {}

    def _follow(self, watcher: Watcher, console: Console) -> None:
        from gradlab.watching import showing

        if self.web:
            showing.page(watcher, self.port or 0, self.open, console)
        elif console.is_terminal:
            showing.redraw(watcher, console)
        else:
            showing.lines(watcher, console.file)
