"""Every row calls what it is said to call, as often: rows of 20 iterations, counted by hand.

real, imagined, newest     rows of batches, from either store or on policy
environments               transitions collected, 16 steps of 4 at first, then one in two updates
model, two models, prior, simulator    transitions made by an update
by member                  the same, by every member of an ensemble
densities                  log-probabilities of actions that an update draws
second order               gradients that are differentiated again
members                    of an ensemble that an update uses
"""

from collections import Counter

import numpy as np
import pytest
import torch

import gradlab
from gradlab.data.replay import Replay
from gradlab.storage import journal
from gradlab.systems import from_function
from gradlab.training import ALGORITHMS, evaluations, loop
from gradlab.training.collection import Environments
from gradlab.training.loop import train
from gradlab.training.members import Acting
from gradlab.training.models.branches import Branches
from gradlab.training.models.seed_models import SeedModels, SeedTwoModels
from tests.training.small_runs import SMALL, push, row

T, B, K = 20, 16, 5  # iterations, rows of a batch, paths from each state
OPTIONS = SMALL | dict(
    iterations=T, evaluate_every=T, log_every=T, checkpoint_every=T, keep=(), gradient_every=0
)
STORED = 360  # rows of the second replay: 4 fillings of 30 rollouts of at most 3 steps

REPLAYED = {"environments": 25 * 4, "real": T * B}
REUSED = REPLAYED | {"real": 2 * B}  # ten iterations on one batch
BRANCHED = {"environments": 25 * 4, "real": T * 1, "imagined": T * 15, "fillings": 1}
ON_POLICY = {"environments": (16 + 19 * 4) * 4, "newest": T * 16}  # windows of 4 steps
ENSEMBLE = {"members": 2}
STEVE = ENSEMBLE | {"by member": T * 3 * 2 * B}
EXPANDED = T * (B + 3 * 2 * B)  # densities at the next states, then along every member's path


def soft(paths, steps, target=T * B):
    """Densities of a soft target, and along the policy's paths to the critic at their end."""
    return {"densities": target + T * paths * (steps + 1)}


MAAC = BRANCHED | STEVE | {"model": T * 3 * K * B} | soft(K * B, 3, EXPANDED)
# Its temperature follows the entropy of the policy at every batch.
DDPPO = BRANCHED | ENSEMBLE | soft(B, 3, 2 * T * B)
DDPPO |= {"real": T * (1 + B), "two models": T * 3 * B}
DDPPO_ONE = {("model" if name == "two models" else name): n for name, n in DDPPO.items()}
RP_DP = REPLAYED | ENSEMBLE | soft(B, 3) | {"model": T * 3 * B}
RP_DR = ON_POLICY | ENSEMBLE | soft(4, 4) | {"model": T * 16}
WINDOWED = ON_POLICY | {"simulator": T * 16 + 2, "densities": T * 16}

COUNTS = {
    "mpg-v1": REUSED | {"prior": 10 * 25 * B, "simulator": 2 * 25 * B},
    "mpg-v2": REUSED | {"prior": 10 * 25 * B},
    "mpg-general": REUSED | {"prior": 10 * 25 * B},
    "n-step-dpg": REUSED | {"simulator": 2 * 25 * B},
    "n-step-adp": REUSED | {"prior": (T + 2) * 25 * B},
    "ddpg": REPLAYED,
    "td3": REPLAYED,
    "sac": REPLAYED | soft(B, 0),
    "maac": MAAC,
    "maac-h0": BRANCHED | STEVE | soft(K * B, 0, EXPANDED),
    "maac-no-steve": BRANCHED | ENSEMBLE | {"model": T * 3 * K * B} | soft(K * B, 3),
    "maac-one-sample": MAAC | {"model": T * 3 * B} | soft(B, 3, EXPANDED),
    "maac-five-batch": MAAC
    | {"environments": 29 * 4, "real": T * 4, "imagined": T * 76}  # 80 rows in the warm-up
    | {"by member": 5 * STEVE["by member"]}
    | soft(5 * B, 3, 5 * EXPANDED),
    "maac-real-data": REPLAYED | STEVE | {"model": T * 3 * K * B} | soft(K * B, 3, EXPANDED),
    "maac-no-entropy": MAAC,
    "mbpo": BRANCHED | soft(B, 0),
    "steve": REPLAYED | STEVE | soft(B, 0, EXPANDED),
    "mage": REPLAYED | ENSEMBLE | {"model": T * B, "second order": T * 2},
    "bptt": REPLAYED | {"prior": T * 25 * B},
    # Of the action, and now, for the importance of the policy's and of the critic's loss.
    "svg": REPLAYED | ENSEMBLE | {"model": T * B, "densities": T * 3 * B},
    "svg-inf": ON_POLICY | ENSEMBLE | {"model": T * 16, "densities": T * 16},
    "rp-dp": RP_DP,
    "rp-dp-sn": RP_DP,
    "rp-dr": RP_DR,
    "rp-dr-sn": RP_DR,
    "ddppo": DDPPO,
    "ddppo-no-gradient-loss": DDPPO,
    "ddppo-one-model": DDPPO_ONE,
    "ddppo-double-parameters": DDPPO_ONE,
    # Every transition is linearized once, where it was collected; two more show that it can be.
    "shac": WINDOWED,
    "ahac": WINDOWED,
    # Along its paths, inside its target, and for its temperature; at its paths' ends, twice.
    "sapo": WINDOWED | {"densities": T * 3 * 16},
    "abpt": WINDOWED | {"densities": T * 5 * 16},
    "agpo": WINDOWED | {"densities": T * 3 * 16},
    "apg": WINDOWED,
    "dmo": ON_POLICY | ENSEMBLE | {"model": T * 16, "densities": T * 16},
}


@pytest.fixture
def counts(monkeypatch):
    """A Counter, filled by calls that are not made inside an enclosed one."""
    counter, inside = Counter(), []

    def count(owner, name, tally, enclosed=False):
        whole = getattr(owner, name)

        def counting(*arguments, **options):
            if not inside:
                counter.update(tally(*arguments, **options))
            inside.extend([name] * enclosed)
            try:
                return whole(*arguments, **options)
            finally:
                if enclosed:
                    inside.pop()

        monkeypatch.setattr(owner, name, counting)

    def stepped(what):
        def tally(model, state, *_):
            ensemble = model if isinstance(model, SeedModels) else model.gradient
            counter["members"] = ensemble.members
            return {what: state.shape[:-1].numel()}

        return tally

    def read(replay, uniform, newest=None):
        return {"imagined" if replay.rows.shape[1] == STORED else "real": uniform.shape[1]}

    count(evaluations, "evaluate", lambda *_, **__: {}, enclosed=True)
    count(loop, "check", lambda *_: {}, enclosed=True)
    count(Environments, "step", lambda self, *_: {"environments": self.agents}, enclosed=True)
    count(Branches, "fill", lambda *_: {"fillings": 1}, enclosed=True)
    count(SeedTwoModels, "step", stepped("two models"), enclosed=True)
    count(SeedModels, "step", stepped("model"))
    count(SeedModels, "step_by_member", stepped("by member"))
    count(Acting, "draw", lambda self, of, state, _: {"densities": state.shape[1]})
    count(Replay, "sample", read)
    count(Replay, "newest", lambda self, size: {"newest": size})
    count(torch.autograd, "grad", lambda *_, **o: {"second order": int("create_graph" in o)})
    return counter, lambda what, rows: None if inside else counter.update({what: rows})


def counting_world(note, what):
    """The small world without an end, whose updates' transitions are noted."""

    def step(state, action, noise):
        note(what, len(state))
        return push(state, action, noise)

    return from_function(step, state_dim=3, action_dim=2, noise_dim=3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_row_calls_what_it_is_said_to_call(tmp_path, counts, name):
    counter, note = counts

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    worlds = (counting_world(note, what) for what in ("simulator", "prior"))
    task = gradlab.Task("push", *worlds, starts, 0.9, 5, action_limit=(2.0, 1.0))
    counter.clear()
    path = train(row(name), task, tmp_path / "run.h5", **OPTIONS)
    assert {what: n for what, n in counter.items() if n} == COUNTS[name]
    updates = journal.read(path).groups["updates"]
    assert (updates["policy_norm"].values > 0).all() and (updates["nonfinite"].values == 0).all()
    for column in ("policy_norm", "policy_loss", "critic_norm"):
        assert np.isfinite(updates[column].values).all(), column
