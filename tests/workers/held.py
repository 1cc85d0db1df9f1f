"""Objects that the tests of workers put into processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Counter:
    """State, errors, sizes, deaths."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise ValueError(f"start is {start}")
        self.count = start

    def add(self, more: int) -> int:
        self.count += more
        return self.count

    def divide(self, by: int) -> float:
        return self.count / by

    def doubled(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        return 2 * array

    def unpicklable(self) -> Any:
        return lambda: None

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def pid(self) -> int:
        return os.getpid()

    def session(self) -> int:
        return os.getsid(0)

    def end(self, code: int) -> None:
        os._exit(code)

    def stop_oneself(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep(self, seconds: float, started: str = "") -> str:
        """Returns what ended the sleep; makes the file `started` once it has begun."""
        try:
            if started:
                Path(started).touch()
            time.sleep(seconds)
        except KeyboardInterrupt:
            return "interrupted"
        return "slept"


class Refusing:
    def __init__(self) -> None:
        from gradlab.errors import InputError

        raise InputError("size is 0, expected an integer ≥ 1")
