"""The harness of other people's loops, on a script of our own and the plain loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest

from analyses.third_party import plain as third_party_plain
from analyses.third_party import scripts as third_party_scripts
from analyses.third_party import trials as third_party
from analyses.third_party.faults import Grown, faults
from analyses.third_party.outcome import UNLIMITED, Outcome

SCRIPT = """
import argparse
import torch
from torch import nn, optim

parser = argparse.ArgumentParser()
for name in ("env-id", "seed", "total-timesteps", "learning-starts", "buffer-size"):
    parser.add_argument(f"--{name}")
args = parser.parse_args()
if __name__ == "__main__":
    torch.manual_seed(int(args.seed))
    actor = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    qf1 = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    q_optimizer = optim.Adam(qf1.parameters(), lr=1e-3)
    actor_optimizer = optim.Adam(actor.parameters(), lr=1e-3)
    for global_step in range(int(args.total_timesteps)):
        state = torch.randn(16, 3)
        q_optimizer.zero_grad()
        (qf1(torch.cat([state, state[:, :1]], 1)) - 1).square().mean().backward()
        q_optimizer.step()
        actor_loss = -qf1(torch.cat([state, actor(state)], 1)).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
"""


def run(text: str, probed: bool) -> Outcome:
    given = UNLIMITED if probed else None
    return third_party_scripts.run(text, "none", 1, 120, given)


def test_a_script_with_the_lines_of_a_user_learns_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "td3_continuous_action.py").write_text(SCRIPT)
    text = third_party_scripts.text_of(tmp_path, "td3")
    assert text == SCRIPT
    probed = third_party_scripts.with_probe(text, "td3", ", **options")
    new = [line for line in probed.splitlines() if line not in text.splitlines()]
    assert len(new) == len(third_party_scripts.lines_of("td3")) == 3
    bare, watched = run(text, False), run(probed, True)
    assert bare.digest == watched.digest and bare.error == watched.error == ""
    assert watched.updates == 120 and watched.alarms == ()


def test_a_fault_edited_into_a_script_is_told_and_judged() -> None:
    text = third_party_scripts.with_probe(SCRIPT, "td3", ", **options")
    text = third_party_scripts.changed(text, r"(actor_optimizer = .*lr=)", r"\g<1>0 * ")
    outcome = run(text, True)
    fault = next(each for each in faults(None) if each.told == "actor does not move")
    row = third_party.judged(fault, outcome)
    assert row["found"] and row["told at"] == 100
    late = third_party.judged(replace(fault, within=50), outcome)
    assert not late["found"]


def test_an_edit_that_finds_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing like"):
        third_party_scripts.changed(SCRIPT, "no such line", "")
    with pytest.raises(ValueError, match="no line that begins"):
        third_party_scripts.put_behind(SCRIPT, "no such line", "")


def test_a_plain_loop_is_the_same_with_a_probe_and_its_flaws_are_told() -> None:
    one, other = (third_party_plain.run("Pendulum-v1", 0, 100, x) for x in (None, UNLIMITED))
    assert one.digest == other.digest and other.alarms == ()
    flaws = third_party_plain.Flaws(detached=True)
    faulty = third_party_plain.run("Pendulum-v1", 0, 100, UNLIMITED, flaws)
    assert [kind for _, kind, _ in faulty.alarms] == ["dead path"]


def test_rewards_grow_over_episodes() -> None:
    world = Grown(gymnasium.make("Pendulum-v1"))
    usual = gymnasium.make("Pendulum-v1")
    for env in (world, usual):
        env.reset(seed=0)
    for step in range(1, 4):
        grown, plain = (env.step([0.5])[1] for env in (world, usual))  # type: ignore[arg-type]
        assert grown == pytest.approx(1.03**step * plain)


def test_rows_that_are_there_are_not_run_again(tmp_path: Path) -> None:
    ran: list[int] = []

    def work(count: int):  # type: ignore[no-untyped-def]
        for seed in range(count):
            yield {"loop": "a", "seed": seed}, lambda seed=seed: ran.append(seed) or {"x": seed}

    third_party.kept(tmp_path / "rows.csv", work(2))
    table = third_party.kept(tmp_path / "rows.csv", work(3))
    assert ran == [0, 1, 2] and table["x"].tolist() == [0, 1, 2]


def test_forty_faults_are_planted(tmp_path: Path) -> None:
    assert len(list(faults(tmp_path))) == 40
