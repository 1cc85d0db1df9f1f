"""The process of a local worker: makes its object, then serves calls until its parent is gone.

A child whose parent has died sees the end of its pipe where it waits for a call. One that is busy
notices by the parent's number and ends as by SIGTERM, so that a command saves its work.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

from gradlab.workers.interface import Holder, Outcome, failed

_SAVING = 30.0  # seconds that a command has to save its work once its parent is gone


def main(descriptor: int, parent: int) -> None:
    """Serve the calls that come through `descriptor`, from the process `parent`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(descriptor, False)  # a child of this one must not keep the pipe open
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    connection: Connection = Connection(descriptor)
    try:
        what, arguments = pickle.loads(connection.recv_bytes())
        holder = Holder(what, arguments)
        while True:
            connection.send_bytes(_answer(holder, connection.recv_bytes()))
    except (EOFError, OSError):
        return  # the parent has closed the pipe, or died


def _answer(holder: Holder, request: bytes) -> bytes:
    """The outcome of a pickled call; an argument or a value may resist pickling."""
    try:
        method, arguments = pickle.loads(request)
        outcome = holder.serve(method, arguments)
    except Exception as error:
        outcome = failed(error)
    try:
        return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        broken = failed(error)
        why = f"its value cannot be pickled: {broken.message}"
        return pickle.dumps(Outcome(None, broken.kind, why, broken.where), pickle.HIGHEST_PROTOCOL)


def _end_after(parent: int) -> None:
    """End this process once its parent is another one, which adopts orphans."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SAVING)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
