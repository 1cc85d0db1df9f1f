"""A runner that does what `--critic` says in the place of a measurement, without torch."""

import os
import signal
import time
from itertools import pairwise
from pathlib import Path


class Fake:
    def __init__(self, folder: str) -> None:
        os.chdir(folder)

    def run(self, words: list[str], log: str) -> tuple[int, str, str]:
        option = dict(pairwise(words))
        output, way = Path(option["--output"]), option.get("--critic", "fine")
        with open(log, "a") as file:
            print(f"process {os.getpid()}: {' '.join(words)}", file=file)
        marker = output.with_suffix(".tried")
        if way == "dies" or (way == "dies-once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "fails":
            return 1, "", f"{output} cannot be written (No space left on device)"
        if way == "raises":
            raise ValueError("a mistake")
        if way == "sleeps":
            output.write_text("half")  # an interrupted run has a file, too
            try:
                marker.touch()
                time.sleep(600)
            except KeyboardInterrupt:
                return 130, "", "interrupted"
        output.write_text(" ".join(words))
        return 0, f"Result of {output.stem}.", ""
