"""Ray in one process: calls are pickled and may kill their actor, in an order that is drawn.

An actor that dies loses its object and makes another; its call is repeated, as Ray does.
"""

import pickle
import random
from contextlib import contextmanager
from types import SimpleNamespace


class RayTaskError(Exception):
    def __init__(self, cause):
        super().__init__(f"many\nlines\n{cause}")
        self.cause = cause


class RayActorError(Exception):
    pass


class Call:
    def __init__(self, actor, arguments):
        self.actor, self.request, self.ended, self.value, self.error = actor, arguments, 0, None, 0


class Actor:
    def __init__(self, ray, kind, options, arguments):
        self.ray, self.kind, self.made = ray, kind, pickle.dumps(arguments)
        self.attempts, self.object, self.calls, self.died = (
            options["max_task_retries"] + 1,
            0,
            [],
            0,
        )
        self.answer = SimpleNamespace(remote=self.called)

    def called(self, *arguments):
        self.ray.seen.append(arguments)
        self.calls.append(Call(self, pickle.dumps(arguments)))
        return self.calls[-1]

    def serve(self):
        """The next call."""
        call = self.calls.pop(0)
        for _ in range(self.attempts):
            self.object = self.object or self.kind(*pickle.loads(self.made))
            if not self.ray.dies():
                try:
                    call.value = pickle.dumps(self.object.answer(*pickle.loads(call.request)))
                except Exception as error:
                    call.error = RayTaskError(error)
                break
            self.object, self.died = None, self.died + 1
        else:
            call.error = RayActorError("the actor died")
        call.ended = True


class InlineRay:
    """Calls of an actor are served in their order, those of different ones in any.

    Args:
        deaths: chance that an actor dies of a call, of the first `most` deaths.
    """

    exceptions = SimpleNamespace(RayTaskError=RayTaskError, RayActorError=RayActorError)

    def __init__(self, seed=0, deaths=0.0, most=10**9):
        self.random, self.deaths, self.most = random.Random(seed), deaths, most
        self.died, self.lived, self.actors, self.seen = 0, 0, [], []

    def dies(self):
        self.lived += 1
        rested = self.lived > 3 or self.deaths == 1  # what is repeated does not die again
        dead = rested and self.died < self.most and self.random.random() < self.deaths
        self.died += dead
        self.lived *= not dead
        return dead

    def remote(self, kind):
        def options(**given):
            def made(*arguments):
                self.actors.append(Actor(self, kind, given, arguments))
                return self.actors[-1]

            return SimpleNamespace(remote=made)

        return SimpleNamespace(options=options)

    def get(self, call):
        while not call.ended:
            call.actor.serve()
        if call.error:
            raise call.error
        return pickle.loads(call.value)

    def wait(self, calls, num_returns=1, timeout=None):
        if timeout is None and not any(call.ended for call in calls):
            chosen = self.random.choice(calls)
            while not chosen.ended:
                chosen.actor.serve()
        ended = [call for call in calls if call.ended]
        return ended, [call for call in calls if not call.ended]

    def kill(self, actor):
        actor.calls.clear()

    @contextmanager
    def cluster(self, address):
        """In the place of `gradlab.machine.cluster`."""
        yield self
