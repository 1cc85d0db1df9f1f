"""The study of forty faults in loops: edits apply, patterns are of the cause, verdicts count."""

import pytest

from analyses.loops.__main__ import cells
from analyses.loops.cases import FAULTS, GROUPS, SOUND, UNSEEN
from analyses.loops.verdict import added, by_case, pairs, write_verdict
from gradlab.findings import Finding


def row(group, case, seed, line="no alarm; 3 of 4 checks passed", probed=True, **more):
    told = {"line": line, "light": "choose", "failed": {}} if probed else {}
    known = {"group": group, "case": case, "env": "Pendulum-v1", "seed": seed, "probed": probed}
    return known | {"error": "", "digest": "a", "seconds": 10.0} | told | more


@pytest.mark.parametrize("group", GROUPS)
def test_every_edit_applies_once_and_leaves_a_program_that_is_another(group):
    texts = [case.text for case in GROUPS[group].values() if not case.library]
    for text in texts:
        compile(text, group, "exec")
    assert len(set(texts)) == len(texts)


def test_there_are_forty_faults_and_each_loop_is_run_as_often_as_it_is_asked():
    assert (len(FAULTS), len(UNSEEN), len(SOUND)) == (40, 12, 10)
    runs = list(cells())
    assert len(set(runs)) == len(runs)
    of = {group: sum(cell[0] == group for cell in runs) for group in (*GROUPS, "pairs", "long")}
    assert of == {"faults": 120, "unseen": 36, "sound": 100, "pairs": 12, "long": 6}
    first = [cell[4] for cell in runs if cell[0] == "pairs"][::2]
    assert sorted(first) == [False] * 3 + [True] * 3  # with the probe first in half of the pairs


@pytest.mark.parametrize(
    ("fault", "finding", "other"),
    [
        ("γ squared", Finding("critic.discount.squared", "fail", value=0.9801, threshold=0.99),
         Finding("critic.discount.left_out", "fail", value=1.0, threshold=0.99)),
        ("sign of the actor's loss", Finding("actor.sign.rises", "fail", value=1.0),
         Finding("falling return", "fail", "training episodes", 5.0, at="10 to 5", n=500)),
        ("termination lost", Finding("stored_ends_lost", "fail", value=9, threshold=9, n=9),
         Finding("stored_time_limit", "fail", value=9, threshold=9, n=9)),
        ("targets never updated", Finding("moved_target_frozen", "fail", "target critic", n=300),
         Finding("moved_still", "fail", "critic", value=0, n=300)),
    ],
)  # fmt: skip
def test_a_pattern_takes_the_cause_and_no_neighbour(fault, finding, other):
    rows = [row("faults", fault, k, each.headed) for k, each in enumerate((finding, other, other))]
    (told,) = by_case(rows, "faults", {fault: FAULTS[fault]}).itertuples()
    assert (told.runs, told.named, told.majority, told.said) == (3, 1, False, other.headed)
    rows.append(row("faults", fault, 4, finding.headed))
    rows[2] = row("faults", fault, 2, finding.headed)
    (told,) = by_case(rows, "faults", {fault: FAULTS[fault]}).itertuples()
    assert (told.named, told.majority) == (3, True)


def test_verdict_counts_faults_sound_runs_bits_and_costs(tmp_path):
    mask = "mask of ends: Inverted."
    rows = [row("faults", "mask inverted", k, mask, failed={"critic.mask.inverted": 9})
            for k in range(3)]  # fmt: skip
    rows += [row("faults", "γ = 1", k, failed={"late": 9, "early": 4}) for k in range(3)]
    rows += [row("sound", "TD3", 1), row("sound", "SAC", 1, failed={"dead path": 3})]
    rows += [row("sound", "PPO", 1, light="none"), row("sound", "PPO", 2, error="ValueError")]
    rows += [row("pairs", "TD3", 1, seconds=14.0), row("pairs", "TD3", 1, probed=False)]
    rows += [row("pairs", "SAC", 1, seconds=13.0, digest="b")]
    rows += [row("pairs", "SAC", 1, probed=False)]
    rows += [row("pairs", "PPO", 1, seconds=99.0)]  # its other half has not run
    assert added(pairs(rows, "pairs")) == {"TD3": (10.0, 4.0), "SAC": (10.0, 3.0)}
    told = write_verdict(rows, tmp_path)
    assert "1 of 2 faults, 3 of 6 runs (asked for: 38 of 40): runs are missing" in told
    assert "3 of 4 (asked for: at most 1 of 100): **refuted**" in told
    assert "1 of 2 pairs (asked for: all): **refuted**" in told
    assert "above in TD3 " in told  # 4 s beside 3 s + 5% of 10 s
    page = (tmp_path / "README.md").read_text()
    assert "named 1 of 2 planted faults" in page and "first failed: early)" in page


def test_all_runs_that_go_well_hold(tmp_path):
    lines = {"mask inverted": "mask of ends: Inverted.", "density": "density: Not of it."}
    rows = [row("faults", name, k, lines.get(name, "")) for name in FAULTS for k in range(3)] + [
        row("sound", name, k) for name in SOUND for k in range(10)
    ]
    for group, seeds in (("pairs", (1, 2)), ("long", (3,))):
        for name in ("TD3", "SAC", "PPO"):
            for seed in seeds:
                rows += [row(group, name, seed, seconds=10.4), row(group, name, seed, probed=False)]
    told = [line.rpartition(": ")[2] for line in write_verdict(rows, tmp_path).splitlines()]
    assert told == ["**refuted**", "holds", "holds", "holds", "holds"]
