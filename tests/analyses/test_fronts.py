"""What a page says first: its sentence and its intervals come from the rows that are named."""

import csv
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.advice import verdict as advice
from analyses.claims import fronts
from analyses.claims.fronts import FRONTS, BestOf, Row
from analyses.harness.criteria import read_verdicts

REPORTS = Path(__file__).parents[2] / "reports"


def signed(value, digits=0):
    return f"{value:.{digits}f}".replace("-", "−")


def ends(folder, claim, name, digits=0, factor=1):
    """value [low, high] of a verdict; with a factor of −1 the other way round."""
    of = read_verdicts(REPORTS / folder)[claim]["numbers"]
    value, *rest = (factor * of[f"{name}{end}"] for end in ("", " low", " high"))
    low, high = sorted(rest)
    return f"{signed(value, digits)} [{signed(low, digits)}, {signed(high, digits)}]"


def advised():
    """What the cells of `advice` say, on its page and on the first one."""
    rows = [json.loads(line) for line in (REPORTS / "advice/cells.jsonl").open()]
    told = [row for row in rows if row["recommended"]]
    kept = [row for row in rows if not row["recommended"]]
    n, k = len(told), len(kept)
    first, ended = sum(advice.named(rows)), sum(advice.ends(rows))
    near = sum(row["share"][0] >= 0.95 for row in told)
    nearer = sum(row["share"][0] >= 0.9 for row in told)
    green, wrong = sum(row["light"] == "act" for row in told), len(advice.wrong_greens(rows))
    helped, count = sum(bool(row["helps"]) for row in kept), {2: "two"}[wrong]
    yield "../README.md", f"return in {first} of {n} recommendations, and all recommended updates"
    yield "../README.md", f"together in {ended}; {near} of {n} were within 5% of the best choice"
    yield "../README.md", f"{count.title()} of {green} green lights were wrong"
    yield "../README.md", f"{k} cells, in {helped} of which some gradient helps"
    yield (
        "advice/README.md",
        f"in {first} of {n} cells the first update raised the return, in {ended}",
    )
    yield "advice/README.md", f"Of {green} green lights {count} were wrong"
    yield "advice/README.md", f"{near} of {n} recommendations were within 5% of the best choice in"
    yield "advice/README.md", f"hindsight, {nearer} within 10%"
    yield "advice/README.md", f"in {k - helped} of {k} cells nothing helped"


def measured():
    """The two measurements of MPG's tasks."""
    path, pendulum = (
        pd.read_csv(REPORTS / task / "numbers.csv").set_index(["estimator", "quantity", "horizon"])
        for task in ("path-tracking", "inverted-pendulum")
    )
    gain = 100 * path.xs("gain", level="quantity")[["value", "ci_low", "ci_high"]]
    critic, model, every, mixed = (
        gain.loc[name] for name in ("data", "model", "model_all", "mixed")
    )
    at = [signed(x) for x in (*critic.loc[0], *every.loc[25])]
    assert (every.ci_high.loc[:5] < 0).all()
    least, best = (signed(x) for x in (every.value.loc[14:].min(), every.value.loc[14:].max()))
    yield "../README.md", f"14–25 model steps (BPTT) gain {least}–{best}% of the best step; up to 5"
    yield "README.md", f"points backwards: {at[0]}% (CI {at[1]} to {at[2]})"
    yield "README.md", f"through the prior: up to {at[3]}% (CI {at[4]}–{at[5]}); up to 5 steps it"
    late = [signed(x) for x in (model.value.loc[3:].min(), model.value.loc[3:].max())]
    yield "README.md", f"through the prior ({signed(model.value[1])}%); longer ones with θ in the"
    yield "README.md", f"({signed(model.value[2])}% at two steps, {late[0]} to {late[1]}% beyond)"
    yield "README.md", f"have {mixed.value.loc[4:].min():.0f}% and more from h = 4 on"
    gain = 100 * pendulum.value.xs("gain", level="quantity")
    assert gain["data"].loc[0] >= 99 and (gain["model"].loc[1:].round() >= 97).all()
    assert list(gain.index[gain < 0].to_frame().loc["mixed"].horizon) == [1, *range(5, 26)]
    sizes = pendulum.value.loc["model"].unstack("quantity")
    times = (sizes.mean_norm / (sizes.mse / sizes.relative_mse) ** 0.5).loc[1:]
    yield "README.md", f"length is between {times.min():.1f} and {times.max():.0f} times the true"


def trained():
    """Differences of returns on the pages of model-based training and of Table I."""
    model_based = (
        ("abl-h0", "maac-h0-pendulum − maac-pendulum", "H = 3 gains {} over H = 0", 0, -1),
        ("abl-h0", "maac-h0-pendulum − maac-pendulum, final return", "is shown: {})", 1, 1),
        ("entropy-real", "maac-pendulum − maac-real-data-pendulum", "over the run is {} lower", 0,
         -1),
        ("ddppo-h", "ddppo-h5-pendulum − ddppo-pendulum", "H = 5 gains {},", 0, 1),
        ("ddppo-h", "ddppo-h10-pendulum − ddppo-pendulum", "H = 10 {} in", 0, 1),
        ("two-model", "ddppo-pendulum − ddppo-one-model-pendulum", "two gain {} over", 0, 1),
        ("mpc", "planned − own, pendulum", "five model steps add {} of", 1, 1),
        ("maac-time", "maac over mbpo, update", "takes {} times that", 1, 1),
        ("maac-time", "maac over mbpo, training", "rollouts {} times", 1, 1),
    )  # fmt: skip
    for claim, name, text, digits, factor in model_based:
        said = text.format(ends("model-based", claim, name, digits, factor))
        yield "model-based/README.md", said
    ended = {}
    for name in ("mpg-v2", "td3", "sac"):
        with h5py.File(REPORTS / f"mpg-table-1/full/{name}-path_tracking.h5") as file:
            ended[name] = file["evaluations/return_mean"][-1]
    best = ended["mpg-v2"]
    half = stats.t.ppf(0.975, 4) * best.std(ddof=1) / 5**0.5
    yield "mpg-table-1/README.md", f"{signed(best.mean(), 2)} ± {half:.2f} against −4.60 ± 1.40"
    for other, text in (("sac", "is +{:.1f} [+{:.1f}, +{:.1f}]"), ("td3", "+{:.0f} [")):
        found = stats.ttest_ind(best, ended[other], equal_var=False).confidence_interval()
        gap = best.mean() - ended[other].mean()
        yield "mpg-table-1/README.md", text.format(gap, found.low, found.high)
    row = "sac, gradlab, return at the end"
    yield "beside-sb3/README.md", f"at the end {ends('beside-sb3', 'beside-sb3', row)} apart"


@pytest.mark.parametrize("page, text", [*advised(), *measured(), *trained()])
def test_a_page_says_first_what_was_measured(page, text):
    assert text in (REPORTS / page).read_text()


@pytest.mark.parametrize("front", FRONTS, ids=lambda front: front.name)
def test_a_page_says_what_its_rows_say(front):
    text = front.text(REPORTS)
    page = (REPORTS / front.page).read_text()
    assert f"<!-- front {front.name} -->{text}<!-- /front -->" in page
    undrawn = re.search(r"^(- )?<!-- front [\w-]+ -->[^\n]", page, flags=re.M)
    assert undrawn is None
    assert all(number.text(REPORTS) in text for number in front.numbers.values())


def test_another_number_in_the_row_is_another_sentence(tmp_path):
    source = REPORTS / "first-order/race.csv"
    (tmp_path / "first-order").mkdir()
    rows = list(csv.DictReader(source.open()))
    for row in rows:
        if row["world"] == "pendulum" and row["row"] == "shac":
            row["value"], row["low"], row["high"] = "1.5", "1.25", "123.4"
    with (tmp_path / "first-order/race.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for name in ("window-gain.csv", "window-gains-hopper.csv"):
        shutil.copy(REPORTS / "first-order" / name, tmp_path / "first-order")
    front = next(front for front in FRONTS if front.name == "shac")
    assert "| −250 on the pendulum | 1.5 [1.2, 123] |" in front.text(tmp_path)
    (tmp_path / "first-order/README.md").write_text("<!-- front shac -->old<!-- /front -->, more")
    fronts.write(tmp_path)
    assert (tmp_path / "first-order/README.md").read_text() == (
        f"<!-- front shac -->{front.text(tmp_path)}<!-- /front -->, more"
    )


def test_a_row_that_is_not_one_is_refused():
    with pytest.raises(AssertionError):
        Row("first-order/race.csv", {"row": "shac"}).text(REPORTS)


def test_the_best_of_six_has_an_interval_for_all_six(tmp_path):
    draws = np.random.default_rng(0).normal(size=(6, 5))
    lines = [f"{h},{x}" for h in range(6) for x in draws[h]]
    (tmp_path / "gains.csv").write_text("\n".join(["horizon,gain", *lines]))
    value, low, high = fronts.corrected(draws[2], 6)
    half = stats.t.ppf(1 - 0.05 / 12, 4) * draws[2].std(ddof=1) / 5**0.5
    assert (high - low) / 2 == pytest.approx(half) and value == pytest.approx(draws[2].mean())
    said = BestOf("gains.csv", "horizon", "2", "gain").text(tmp_path)
    assert said == fronts.interval(value, low, high)
    # The largest of six means of nothing is told from 0 in about 5% of repetitions, not in 26%.
    rng = np.random.default_rng(1)
    shown = 0
    for _ in range(1000):
        six = rng.normal(size=(6, 5))
        _, low, _ = fronts.corrected(six[six.mean(axis=1).argmax()], 6)
        shown += low > 0
    assert shown / 1000 < 0.05
