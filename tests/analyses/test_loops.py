"""Faults are edits that apply, runs are judged by their first sentence, bits and cost by pairs."""

import json
from pathlib import Path

import pytest

from analyses.loops import verdict
from analyses.loops.__main__ import cells
from analyses.loops.cases import FAULTS, SOUND, UNSEEN
from analyses.loops.run import run
from analyses.loops.worlds import PENDULUM, PUCK, Field, Puck

CASES = {
    f"{group}: {name}": case
    for group, table in (("fault", FAULTS), ("unseen", UNSEEN), ("sound", SOUND))
    for name, case in table.items()
    if not case.library
}


@pytest.mark.parametrize("name", CASES)
def test_every_edit_applies_once_to_a_loop_that_compiles(name: str) -> None:
    compile(CASES[name].text, name, "exec")


def test_runs_are_as_many_as_the_criterion_says() -> None:
    groups = [cell[0] for cell in cells()]
    counts = {group: groups.count(group) for group in groups}
    assert counts == {"faults": 120, "unseen": 36, "sound": 200, "long": 3, "pairs": 24}
    assert len(FAULTS) == 40 and len({case.kind for case in FAULTS.values()}) >= 10
    assert len(set(cells())) == len(groups)


def _row(headline: str, light: str = "none", **more: object) -> verdict.Row:
    return {"headline": headline, "light": light, "alarms": {}, "faults": [], "error": ""} | more


def test_a_cause_counts_in_the_first_sentence_alone() -> None:
    case = FAULTS["reward's sign"]
    cause = "The stored rewards have the opposite sign of those paid: where? Seen from step 4 on."
    assert verdict.named(_row(cause), case)
    assert not verdict.named(_row(f"The return fell. {cause}"), case)
    falling = (
        "Since the first window the return fell by 3 ± 1: check the signs of the reward and of"
    )
    assert not verdict.named(_row("No alarm."), case)
    for name, each in FAULTS.items():
        if name not in ("reward's sign", "reward grows with the step", "sign of PPO's loss"):
            assert not verdict.named(_row("No alarm. Whether a step helps is not known."), each)
    assert verdict.red(_row(falling)) and not verdict.named(
        _row(falling), FAULTS["sign of PPO's loss"]
    )


def test_a_sound_run_is_red_with_any_alarm() -> None:
    sound = _row("No alarm.", "choose")
    assert not verdict.red(sound)
    for more in ({"alarms": {"x": 3}}, {"faults": ["x"]}, {"light": "none"}, {"error": "died"}):
        assert verdict.red(sound | more)


def test_majority_cost_and_bits_are_of_the_rows(tmp_path: Path) -> None:
    right = {"group": "faults", "case": "time limit stored as terminal"}
    said = [_row(words) | right for words in ("A time limit is stored.", "Time limit", "No alarm.")]
    table = verdict.by_case(said, FAULTS, "faults").set_index("fault")
    assert table.loc[right["case"], "named"] == 2 and table.loc[right["case"], "majority"]
    assert table["majority"].sum() == 1
    pair = {"group": "pairs", "case": "TD3", "digest": "a", "bare_digest": "a", "seconds": 10.0}
    rows = [*said, _row("", "choose") | pair | {"bare_seconds": 9.0}]
    rows.append(_row("", "choose") | pair | {"bare_seconds": 10.0, "bare_digest": "b"})
    text = verdict.write_verdict(rows, tmp_path)
    assert "cost, start included: 5.0% of the time" in text and "1 of 2 pairs" in text
    assert "not decided" in (tmp_path / "README.md").read_text()


def test_the_field_is_the_environment() -> None:
    """The same steps in torch as in Gymnasium."""
    import gymnasium
    import numpy as np
    import torch

    for env_id in (PUCK, PENDULUM):
        env, field = gymnasium.make(env_id).unwrapped, Field(env_id, 1, 0)
        env.reset(seed=0)
        state = torch.tensor(np.asarray(env.state, dtype=np.float32))[None]
        field.state, field.age = state, torch.zeros(1)
        for k in range(20):
            action = env.action_space.high * np.sin(np.arange(len(env.action_space.high)) + k)
            observed, reward, *_ = env.step(action.astype(np.float32))
            found, paid, *_ = field.step(torch.tensor(action, dtype=torch.float32)[None])
            assert found[0].numpy() == pytest.approx(observed, abs=1e-4)
            assert float(paid) == pytest.approx(float(reward), abs=1e-4)
    puck = Puck()
    puck.state = np.array([2.99, 0.0, 1.0, 0.0])
    assert puck.step(np.zeros(2))[1] < -10 and np.linalg.norm(puck.state[:2]) > 3


@pytest.mark.slow
def test_a_run_is_a_process_whose_log_is_read(tmp_path: Path) -> None:
    """A fault is named; with the probe and without, the same bits."""
    row = run("faults", "γ = 1", PENDULUM, 91, 20, tmp_path)
    assert row["error"] == "" and verdict.named(row, FAULTS["γ = 1"]) and verdict.red(row)
    bare = run("faults", "γ = 1", PENDULUM, 91, 20, tmp_path, bare=True)
    assert bare["digest"] == row["digest"] and "headline" not in bare
    refused = run("faults", "optimiser holds the target actor", PENDULUM, 91, 20, tmp_path)
    assert refused["light"] == "none" and "none of the policy's parameters" in refused["headline"]
    json.dumps(row)
