"""Everything that a verdict says about planted runs, one file per kind of run in golden/.

    python -m tests.verdicts.prose          # writes the files again, after a change of words

Other tests assert what is decided and the numbers; the words are held here alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradlab import choose
from gradlab.reporting.output import advice_of
from gradlab.reporting.output import compared as side_by_side
from gradlab.runs.comparison import compared
from gradlab.runs.profile import Profile
from gradlab.tools.jacobians.page import advice as jacobians
from gradlab.tools.logs.findings import advice as logs
from gradlab.tools.remedies.page import advice as remedies
from gradlab.verdicts import attribution as attributed
from gradlab.verdicts import choice, comparison
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.measurement.verdict import advice, verdict
from gradlab.verdicts.recommendation import Recommendation
from tests import planted_tools
from tests.choice import planted_gradients
from tests.logs.carts import noisy, recorded, task
from tests.probe import planted_probe
from tests.runs.planted_gains import planted as planted_steps
from tests.runs.planted_gains import planted_jumps
from tests.runs.planted_pairs import profile as paired
from tests.runs.planted_training import RETURNS, written
from tests.verdicts import test_recommendation, test_verdict
from tests.verdicts import test_what_is_advised as advised
from tests.verdicts.planted_profiles import FAMILIES, FLAT, SENTENCES, planted, profile, u_shape

GOLDEN = Path(__file__).parent / "golden"
Case = Callable[[Path], Recommendation]


def _measured(profile: Profile) -> Case:
    return lambda folder: advice(profile)


def _about(about: str) -> Case:
    """The sentence about one thing for every law that is planted for it, in their order."""

    def told(folder: Path) -> Recommendation:
        found = (verdict(profile(**changes)) for changes in SENTENCES[about])
        codes = FAMILIES[about]
        rest = tuple(e for rows in found for e in rows if e.code.startswith(codes))
        return Recommendation("none", (), rest=rest)

    return told


def _probed(folder: Path, **changes: float) -> Recommendation:
    tables = planted_probe.everything()
    if changes:
        tables |= {"measured": [planted_probe.measurement(400, **changes)]}
    return advice_of(planted_probe.written(folder / "probe.h5", tables))


def _looped(folder: Path, *tables: str, **more: Any) -> Recommendation:
    rows = {name: planted_probe.everything()[name] for name in tables} | more
    return advice_of(planted_probe.written(folder / "loop.h5", rows, horizon=None, task=""))


def _logged(folder: Path) -> Recommendation:
    from gradlab.tools.logs.compute import measure_logs

    wrong = task(0.4)
    return logs(
        measure_logs(recorded(300, 40), noisy(), wrong.prior, discount=wrong.discount, horizon=8)
    )


def _trained(**changes: object) -> Case:
    return lambda folder: advice_of(written(folder / "training.h5", **changes))


def _chosen(samples: int) -> Case:
    return lambda folder: choice.advice_of(
        choose(planted_gradients.planted(*planted_gradients.world(2, N=samples)))
    )


def _advised(**planted: object) -> Case:
    """What is advised at visited states, of planted gains, steps and rehearsals."""
    return lambda folder: recommendation(advised.read(**planted))


def _attributed(shares: Mapping[str, float], **changed: object) -> Case:
    found = test_verdict.attribution(shares, **changed)
    return lambda folder: attributed.screen(FLAT, found, attributed.sentences(found, FLAT))


def _advice() -> Mapping[str, Case]:
    nearly = {("model_all", 4): tuple(0.95 * change for change in advised.RISES)}
    both = {advised.BEST: advised.RISES, **nearly, advised.CRITIC: advised.FALLS}
    passing = {advised.BEST: advised.PASSES, advised.CRITIC: advised.FALLS}
    falling = {advised.BEST: advised.FALLS, advised.CRITIC: advised.FALLS}
    raised, unconfirmed = advised.RAISED, dict.fromkeys(both, advised.NOTHING_MORE)
    return {
        "gains alone": _advised(),
        "a plain step that raised the return": _advised(realised=raised),
        "a plain step that lowered the return": _advised(realised=advised.LOWERED),
        "updates that last until the critic's fit": _advised(
            realised=raised, rehearsal=advised.rehearsed(both)
        ),
        "updates that stop helping": _advised(
            realised=raised, rehearsal=advised.rehearsed(passing)
        ),
        "updates from few judges": _advised(
            realised=raised, rehearsal=advised.rehearsed(both, groups=16)
        ),
        "updates that raise what a plain step lowers": _advised(
            realised=advised.LOWERED, rehearsal=advised.rehearsed(both)
        ),
        "updates that fresh draws do not confirm": _advised(
            realised=raised, rehearsal=advised.rehearsed(both, again=unconfirmed)
        ),
        "the next ones that fresh draws confirm": _advised(
            gains=advised.RISING, rehearsal=advised.rehearsed(
                {advised.BEST: advised.RISES, advised.SHORT: advised.NEAR}, again=unconfirmed
            ),
        ),
        "updates that are not told apart": _advised(
            gains=advised.RISING, realised=None,
            rehearsal=advised.rehearsed({advised.SHORT: advised.RISES, advised.BEST: advised.NEAR},
                                        noise=5.0),
        ),
        "updates of the critic that bring less": _advised(
            gains=advised.RISING, rehearsal=advised.rehearsed(
                {advised.BEST: advised.RISES, advised.CRITIC: advised.NEAR},
                again={advised.BEST: (1, 2, 5, 9, 17)},
            ),
        ),
        "updates that fall": _advised(
            realised=raised, rehearsal=advised.rehearsed(falling)
        ),
        "updates of noise": _advised(rehearsal=advised.rehearsed(both, noise=300.0)),
        "a return that jumps": _advised(
            realised=raised, jumps=planted_jumps("harmful"), admissible=False,
            status="jumps",
        ),
        "gains that are not told from zero": _advised(gains=test_recommendation.PAPER, se=2.0),
        "no truth": _advised(admissible=False, status="none"),
        "gradients of another problem": _advised(
            realised=planted_steps({advised.BEST: 0.1, advised.CRITIC: 0.1}, norm=5.0)
        ),
        "updates beside gradients of another problem": _advised(
            realised=planted_steps({advised.BEST: 0.1, advised.CRITIC: 0.1}, norm=5.0),
            rehearsal=advised.rehearsed(both),
        ),
    }  # fmt: skip


CASES: Mapping[str, Mapping[str, Case]] = {
    "measurement": {
        "errors that do not depend on the horizon": _measured(FLAT),
        "a best horizon in the middle": _measured(planted(u_shape, lambda n: 0.9, noise=0.001)),
        "variance that grows": _measured(planted(lambda n: 1.0, lambda n: 0.9, lambda n: 1.5**n)),
        "a few starts that carry the numbers": _measured(
            planted(u_shape, lambda n: 0.9, tails=lambda n: 4.0)
        ),
        "no usable direction": _measured(planted(u_shape, lambda n: 0.3)),
        "no truth": _measured(
            planted(
                lambda n: 1.0, lambda n: 0.9, admissible=False, status="none",
                reason="the truth diverges",
            )
        ),
    },
    "recommendation": {
        title: (lambda folder, row=row: test_recommendation.recommended(row[0], **row[1]))
        for title, row in test_recommendation.ADVISED.items()
    },
    "sentences": {about: _about(about) for about in SENTENCES},
    "comparison": {
        "half the error": lambda folder: comparison.screen(
            compared(paired(), paired(lambda n: 0.5))
        ),
        "the same error": lambda folder: comparison.screen(compared(paired(), paired())),
    },
    "advice": _advice(),
    "attribution": {
        "one part makes most of it": _attributed({"B": 0.8, "states": 0.06, "A": 0.14}),
        "nothing is told from zero": _attributed(
            {"B": 0.8}, total=test_verdict.part("total", "total", 0.5, 0.5)
        ),
        "too few starts": _attributed({"B": 0.8}, replaced=None),
    },
    "choice": {"many samples": _chosen(400), "few samples": _chosen(16)},
    "probe": {
        "everything that is decided": lambda folder: _probed(folder),
        "thresholds inside their intervals": lambda folder: _probed(
            folder, weight_zero=0.5, weight_zero_low=0.4, weight_zero_high=0.7,
        ),
        "a loop without a task whose return rises": lambda folder: _looped(
            folder, "vitals", "returns"
        ),
        "a return that rose and fell back": lambda folder: _looped(
            folder, "vitals",
            returns=[
                row | {"update": row["update"] // 5, "value": row["value"] - 15.0 * (k >= 48)}
                for k, row in enumerate(planted_probe.everything()["returns"])
            ],
        ),
        "a check that is open, and a return that rises": lambda folder: _looped(
            folder, "vitals", "returns",
            findings=[planted_probe.answer(0, 100, "critic.level.elsewhere", "undecided")],
        ),
        "nobody has looked at the return": lambda folder: _looped(folder, "vitals", "successive"),
    },
    "training": {
        "five seeds, one of which diverges": _trained(event="seed 4 diverged"),
        "every seed improves": _trained(),
        "one seed fails": _trained(returns=RETURNS - [[0.0], [0], [1]] * np.eye(5)[3] * 60),
        "the return falls below its start": _trained(returns=RETURNS - [[0.0], [0], [300]]),
        "no return rises": _trained(returns=RETURNS - [[0.0], [300], [600]]),
        "no return rises from a policy that was given": _trained(
            returns=RETURNS - [[0.0], [300], [600]], given=("policy", "critic")
        ),
        "everything at once": _trained(
            event="critic is not finite",
            returns=np.where(np.arange(5) < 3, RETURNS, 0.0) - [[0.0], [0], [100]],
        ),
        "several runs": lambda folder: side_by_side([
            written(folder / "a.h5", name="good"),
            written(folder / "b.h5", name="bad", returns=RETURNS - [[20.0, 21, 19, 20, 20]]),
            written(folder / "c.h5", name="near", returns=RETURNS - [[2.0, -2, 1, -1, 0.5]]),
        ])[0].advice,
        "one of four runs is better than all": lambda folder: side_by_side([
            written(folder / "a.h5", name="good"),
            *(
                written(folder / f"{name}.h5", name=name,
                        returns=RETURNS - [[20.0, 21, 19, 20, 20]])
                for name in ("bad", "worse", "worst")
            ),
        ])[0].advice,
    },
    "jacobians": {
        "a model": lambda folder: jacobians(planted_tools.compared()),
        "the simulator alone": lambda folder: jacobians(planted_tools.compared(model=False)),
        "a policy that is not the user's": lambda folder: jacobians(
            planted_tools.compared(model=False, networks="a stabilising policy, fitted here")
        ),
    },
    "remedies": {
        "four trials": lambda folder: remedies(planted_tools.RUN),
        "one trial, which has no interval": lambda folder: remedies(
            planted_tools.planted(trials=1)
        ),
    },
    "logs": {"a model that is wrong": _logged},
}  # fmt: skip


def told(kind: str) -> tuple[str, list[Recommendation]]:
    """Every case of a kind: its fields, then its sentences; and the cases themselves."""
    with tempfile.TemporaryDirectory() as folder:
        texts, shown = [], []
        for number, (title, case) in enumerate(CASES[kind].items()):
            (place := Path(folder) / str(number)).mkdir()
            shown.append(case(place))
            texts.append(f"# {title}\n{_text(shown[-1])}".replace(str(place), "FOLDER"))
        return "\n".join(texts), shown


def _text(shown: Recommendation) -> str:
    """What stands above the fold, how it was measured, then every sentence."""
    hows = [f"  how {each.name} was measured: {each.how}" for each in shown.fields if each.how]
    sentences = [f"{each.decision:9} {each.code}: {each.said}" for each in shown.rest]
    return "\n".join([*([str(shown)] if shown.fields else []), *hows, *sentences]) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for kind in CASES:
        (GOLDEN / f"{kind}.txt").write_text(told(kind)[0], encoding="utf-8")
