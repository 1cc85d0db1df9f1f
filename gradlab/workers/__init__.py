"""Processes that hold an object each: of this machine (`local`), or of a cluster (`cluster`)."""

from gradlab.workers.interface import Call, CallFailed, Pool, Worker, WorkerDied

__all__ = ["Call", "CallFailed", "Pool", "Worker", "WorkerDied", "pool_of"]


def pool_of(ray: str | None, workers: int | None) -> Pool:
    """Processes of this machine; those of a cluster of Ray by its HOST:PORT, or "local".

    Args:
        workers: how many there will be on a cluster; None: one per processor.
    """
    if ray is None:
        from gradlab.workers.local import LocalPool

        return LocalPool()
    from gradlab.workers.cluster import ClusterPool

    return ClusterPool(ray, workers=workers)
