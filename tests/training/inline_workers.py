"""A pool of workers in this process: calls are pickled and may die, in an order that is drawn."""

import pickle
import random

from gradlab.workers import WorkerDied
from gradlab.workers.interface import named


class InlineCall:
    def __init__(self, worker, method, request):
        self.worker, self.method, self.request = worker, method, request
        self.value = None
        self.ended = not worker.alive

    def serve(self):
        if self.ended:
            return
        self.ended = True
        pool = self.worker.pool
        if not self.worker.alive or pool.dies():
            self.worker.alive, self.worker.died, self.worker.held = False, True, None
            return
        method = getattr(self.worker.object(), self.method)
        self.value = pickle.dumps(method(*pickle.loads(self.request)))

    def result(self):
        while not self.ended:
            self.worker.pool.serve(self.worker)
        if self.value is None:
            raise WorkerDied("the worker died")
        return pickle.loads(self.value)


class InlineWorker:
    def __init__(self, pool, what, arguments):
        self.pool, self.what, self.made = pool, what, pickle.dumps(arguments)
        self.alive, self.died, self.held, self.calls, self.role = True, False, None, [], ""

    def object(self):
        if self.held is None:
            self.held = named(self.what)(*pickle.loads(self.made))
        return self.held

    def call(self, method, *arguments):
        call = InlineCall(self, method, pickle.dumps(arguments))
        self.calls.append(call)
        self.role = arguments[0] if method == "become" else self.role
        self.pool.called(method, arguments)
        return call

    def kill(self):
        self.alive = False


class InlinePool:
    """Calls of a worker are served in their order, those of different ones in any.

    Args:
        deaths: chance that a worker dies of a call, of the first `most` deaths.
    """

    cores = 2

    def __init__(self, seed=0, deaths=0.0, most=10**9):
        self.random, self.deaths, self.most = random.Random(seed), deaths, most
        self.died, self.lived, self.workers, self.seen = 0, 0, [], []

    def dies(self):
        self.lived += 1
        rested = self.lived > 3 or self.deaths == 1  # what is repeated does not die again
        dead = rested and self.died < self.most and self.random.random() < self.deaths
        self.died += dead
        self.lived *= not dead
        return dead

    def called(self, method, arguments):
        """Keep what was sent to the object."""
        if method == "do":
            self.seen.append(arguments)

    def start(self, what, *arguments):
        self.workers.append(InlineWorker(self, what, arguments))
        return self.workers[-1]

    def serve(self, worker):
        """The next call of a worker."""
        worker.calls.pop(0).serve()

    def wait(self, calls, timeout=None):
        waiting = [call for call in calls if not call.ended]
        if waiting and len(waiting) == len(calls):
            chosen = self.random.choice(waiting)
            while not chosen.ended:
                self.serve(chosen.worker)
        return [call for call in calls if call.ended]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
