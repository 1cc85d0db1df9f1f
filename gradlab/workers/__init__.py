"""Processes that hold an object each: of this machine (`local`), or of a cluster (`cluster`)."""

from gradlab.workers.interface import Call, CallFailed, Pool, Worker, WorkerDied

__all__ = ["Call", "CallFailed", "Pool", "Worker", "WorkerDied"]
