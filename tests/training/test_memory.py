"""Memory of the policy's rollouts: predicted from small ones, against that of the whole."""

import re
from dataclasses import replace

import pytest
import torch

from gradlab.cli import main
from gradlab.errors import InputError
from gradlab.training import loop
from gradlab.training.algorithms import with_horizons
from gradlab.training.loop import train
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import SMALL, row, task


def run_of(name, horizon, batch, **changes):
    wide = replace(row(name), hidden=(16, 16), **changes)
    wide = replace(with_horizons(wide, (horizon,)), batch=batch)
    return begin(replace(wide, batch=wide.rows(4)), task(), Settings(**SMALL, seeds=2))


@pytest.mark.parametrize(
    ("name", "horizon", "batch"),
    [("rp-dp-sn", 7, 60), ("maac", 1, 60), ("ddppo", 4, 60), ("bptt", 12, 50), ("rp-dr", 5, 60)],
)
def test_what_is_predicted_is_what_the_whole_rollout_keeps_and_draws(name, horizon, batch):
    run = run_of(name, horizon, batch)
    # Of the run itself, by a count of its own.
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    learner = run.learner
    if run.dynamics is not None:
        learner.model = run.dynamics.rollout()
    rows = loop._batch(run, run.algorithm.batch)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, steps = learner.policy_loss(0, rows, learner.weights(0), learner.draws)
    assert steps == horizon and loss.isfinite().all()
    drawn = [block.untyped_storage() for _, block in learner.draws._blocks.values()]
    blocks = [storage.nbytes() for storage in drawn]
    kept |= {storage.data_ptr(): storage for storage in drawn}
    # Numbers are drawn in float64 for each seed, then put together: twice the largest, for a while.
    whole = sum(storage.nbytes() for storage in kept.values()) + 2 * max(blocks)
    assert loop.predicted(run) == pytest.approx(whole, rel=0.02)


def test_a_horizon_beyond_memory_is_refused_before_anything_is_written(tmp_path, capsys):
    path, long = tmp_path / "run.h5", with_horizons(row("rp-dp"), (10_000_000,))
    path.write_bytes(b"an earlier run")
    message = r"rollouts of 10000000 steps take about .* GB at their peak, but the machine has"
    with pytest.raises(InputError, match=message) as refused:
        train(long, task(), path, **SMALL, overwrite=True)
    assert "\n" not in str(refused.value) and path.read_bytes() == b"an earlier run"
    command = ["train", "rp-dp", "double_integrator", "--horizons", "100000000", "--output"]
    assert main([*command, str(tmp_path / "other.h5")]) == 2
    assert "lower the horizon" in capsys.readouterr().err
    assert not (tmp_path / "other.h5").exists()


def test_the_peak_is_noted_before_training_where_there_is_a_rollout(tmp_path):
    notes = []
    train(row("rp-dp"), task(), tmp_path / "a.h5", **(SMALL | {"iterations": 1}), note=notes.append)
    train(row("td3"), task(), tmp_path / "b.h5", **(SMALL | {"iterations": 1}), note=notes.append)
    (line,) = notes
    assert re.fullmatch(r"policy rollouts of 3 steps take about [\d.]+ MB at their peak", line)
