"""A run that does what `--critic` says in the place of a measurement, without torch."""

import json
import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

from gradlab.tools.sweep.child import follow


def main(parent: int, words: list[str]) -> int:
    assert follow(parent)
    option = dict(pairwise(words))
    output, way = Path(option["--output"]), option.get("--critic", "fine")
    print(f"process {os.getpid()}: {' '.join(words)}", file=sys.stderr)
    marker = output.with_suffix(".tried")
    if way == "dies" or (way == "dies-once" and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "fails":
        print(
            f"gradlab: failed: {output} cannot be written (No space left on device)",
            file=sys.stderr,
        )
        return 1
    if way == "raises":
        raise ValueError("a mistake")
    if way == "sleeps":
        output.write_text("half")  # an interrupted run has a file, too
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
        marker.write_text(str(os.getpid()))
        time.sleep(600)
    if way == "slow":
        marker.write_text(str(os.getpid()))
        time.sleep(1.5)
    if way == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        marker.write_text(str(os.getpid()))
        time.sleep(600)
    output.write_text(" ".join(words))
    print(json.dumps({"recommendation": {"result": f"that of {output.stem}"}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
