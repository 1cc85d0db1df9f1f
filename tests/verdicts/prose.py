"""Everything that a verdict says about planted runs, one file per kind of run in golden/.

    python -m tests.verdicts.prose          # writes the files again, after a change of words

Other tests assert what is decided and the numbers; the words are held here alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from gradlab import choose
from gradlab.reporting.kinds import screen_of
from gradlab.runs.comparison import compared
from gradlab.runs.profile import Profile
from gradlab.tools.jacobians.page import screen as jacobians
from gradlab.tools.logs.findings import screen as logs
from gradlab.tools.remedies.findings import screen as remedies
from gradlab.verdicts import comparison
from gradlab.verdicts.choice import choosing as choice
from gradlab.verdicts.measurement.verdict import first_screen
from gradlab.verdicts.screen import Screen
from tests import planted_jacobians, planted_remedies
from tests.choice import planted_gradients
from tests.logs.carts import noisy, recorded, task
from tests.probe import planted_probe
from tests.runs.planted_pairs import profile as paired
from tests.runs.planted_training import written
from tests.verdicts.planted_profiles import FLAT, planted, u_shape

GOLDEN = Path(__file__).parent / "golden"
Case = Callable[[Path], Screen]


def _measured(profile: Profile) -> Case:
    return lambda folder: first_screen(profile)


def _probed(folder: Path, **changes: float) -> Screen:
    tables = planted_probe.everything()
    if changes:
        tables |= {"measured": [planted_probe.measurement(400, **changes)]}
    return screen_of(planted_probe.written(folder / "probe.h5", tables))


def _looped(folder: Path, *tables: str) -> Screen:
    rows = {name: planted_probe.everything()[name] for name in tables}
    return screen_of(planted_probe.written(folder / "loop.h5", rows, horizon=None, task=""))


def _logged(folder: Path) -> Screen:
    from gradlab.tools.logs.compute import measure_logs

    wrong = task(0.4)
    return logs(
        measure_logs(recorded(300, 40), noisy(), wrong.prior, discount=wrong.discount, horizon=8)
    )


def _chosen(samples: int) -> Case:
    return lambda folder: choice.screen(
        choose(planted_gradients.planted(*planted_gradients.world(2, N=samples)))
    )


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
    "comparison": {
        "half the error": lambda folder: comparison.screen(
            compared(paired(), paired(lambda n: 0.5))
        ),
        "the same error": lambda folder: comparison.screen(compared(paired(), paired())),
    },
    "choice": {"many samples": _chosen(400), "few samples": _chosen(16)},
    "probe": {
        "everything that is decided": lambda folder: _probed(folder),
        "thresholds inside their intervals": lambda folder: _probed(
            folder, lyapunov=0.01, lyapunov_se=0.02, critic_gap=0.1, critic_gap_se=0.2,
            over_data=0.1, over_data_se=0.2, weight_zero=0.5, weight_zero_low=0.4,
            weight_zero_high=0.7, growth=0.0, growth_se=0.1,
        ),
        "a loop without a task whose return rises": lambda folder: _looped(
            folder, "vitals", "returns"
        ),
        "nobody has looked at the return": lambda folder: _looped(folder, "vitals", "successive"),
    },
    "training": {
        "five seeds, one of which diverges": lambda folder: screen_of(
            written(folder / "training.h5", event="seed 4 diverged")
        ),
    },
    "jacobians": {
        "a model": lambda folder: jacobians(planted_jacobians.compared()),
        "the simulator alone": lambda folder: jacobians(planted_jacobians.compared(model=False)),
    },
    "remedies": {
        "four trials": lambda folder: remedies(planted_remedies.RUN),
        "one trial, which has no interval over trials": lambda folder: remedies(
            planted_remedies.planted(trials=1)
        ),
    },
    "logs": {"a model that is wrong": _logged},
}  # fmt: skip


def rendered(kind: str) -> str:
    """Every case of a kind: what stands on its first screen, then its sentences."""
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for number, (title, case) in enumerate(CASES[kind].items()):
            (place := Path(folder) / str(number)).mkdir()
            cases.append(f"# {title}\n{_text(case(place)).replace(str(place), 'FOLDER')}")
        return "\n".join(cases)


def _text(screen: Screen) -> str:
    numbers = [f"  {fact.text}  {fact.label}\n      {fact.how}" for fact in screen.numbers]
    sentences = [
        f"{'decided  ' if each.decided else 'undecided'} {each.about}: {each.text}"
        for each in screen.rest
    ]
    head = [f"{screen.light}: {screen.headline}", screen.sure, screen.notice]
    return "\n".join(filter(None, [*head, *numbers, *sentences])) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for kind in CASES:
        (GOLDEN / f"{kind}.txt").write_text(rendered(kind), encoding="utf-8")
