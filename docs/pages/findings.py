"""Findings: a sentence, its number from a committed file, figure and command."""

from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from docs.pages.tables import REPORTS, rows_of

HEAD = """# Findings

Twelve things that measuring gradients has shown. Below each number, with its 95% interval,
stand the file that it comes from and the command that made it. Each holds for the tasks
that it names, most of them small. [Claims of the papers](../../reports/claims/README.md) have a
page of their own.
"""


@dataclass(frozen=True)
class Finding:
    """One card.

    Attributes:
        sentence: what was found.
        number: text with one {} for each row of `rows`, "value [low, high]".
        rows: columns and their values that pick one row of `file` each.
        file: a table in reports/; figure: a picture there, "" for none; command: makes both.
        text: what it is and what it is not.
        columns: names of value, low and high; times: what they are multiplied with.
    """

    sentence: str
    number: str
    file: str
    rows: tuple[dict[str, str], ...]
    figure: str
    command: str
    text: str
    columns: tuple[str, str, str] = ("value", "ci_low", "ci_high")
    times: float = 1.0


MEASURE = "gradlab measure path_tracking --starts 1024"
# Before the command of a study that has left the tree: of the older ones, and of the others.
THERE = "git worktree add build/57789d45 57789d45    # then, in that folder:\n    "
LATER = THERE.replace("57789d45", "7f6a4f4a")
FINDINGS = (
    Finding(
        "A gradient that is right at the start states can lower the return",
        "Gain of a step along the critic's gradient: **{}%** of the best step",
        "path-tracking/numbers.csv",
        ({"estimator": "data", "horizon": "0", "quantity": "gain"},),
        "path-tracking/figures/gain.png",
        MEASURE,
        "Path tracking, one policy, one critic. At the start states the same gradient agrees with "
        "the matched truth: [Which gradient?](../which_gradient.md) has the table.",
        times=100,
    ),
    Finding(
        "Fix the model's states, not its Jacobians",
        "Gain of 25 steps, θ in all actions: **{}%** along the model's states, **{}%** along the "
        "simulator's with the same Jacobians",
        "path-tracking/numbers.csv",
        (
            {"estimator": "model_all", "horizon": "25", "quantity": "gain"},
            {"estimator": "mixed_all", "horizon": "25", "quantity": "gain"},
        ),
        "path-tracking/figures/mse.png",
        MEASURE,
        "Path tracking with MPG's prior model, which errs by half a metre in each step.",
        times=100,
    ),
    Finding(
        "Late in one training the critic is the better gradient, through an offset of the prior",
        "|Bias| of 25 model steps over that of the critic alone, after 20,000 iterations: **{}** "
        "through the published prior, **{}** through the same one without its offset",
        "bias-variance/early-late-exchange.csv",
        tuple(
            {
                "law": "visited",
                "iteration": "20000",
                "prior": prior,
                "horizon": "25",
                "quantity": "bias_ratio",
            }
            for prior in ("published", "no offset")
        ),
        "bias-variance/early-late-exchange.png",
        THERE + "python -m analyses.horizons.early_late_exchange",
        "The same policies, critics and replayed states of one seed of MPG-v2 on path tracking; "
        "with the offset the two cross, without it they do not. Four seeds do not show it "
        "(EARLY-LATE-ARMS in the report).",
    ),
    Finding(
        "Steering by measured error gained nothing that six seeds can show",
        "Return averaged over the run, measured weights less MPG's rule: **{}**",
        "choice/measured-weights.csv",
        (
            {
                "task": "path_tracking",
                "arm": "weights-pair",
                "against": "rule",
                "quantity": "mean return over the run",
            },
        ),
        "choice/measured-weights.png",
        THERE + "python -m analyses.measured_weights table",
        "MPG-v2, path tracking, six paired seeds, 10,000 iterations. A measurement no longer "
        "holds 500 iterations later.",
        ("change", "low", "high"),
    ),
    Finding(
        "A loss on derivatives is needed in one world and harmful in the next",
        "Squared bias of the policy gradient with the directional-derivative loss over without, "
        "equal fitting time: **{}** on the cart-pole, **{}** on the pendulum",
        "remedies/dd-vs-mse-worlds.csv",
        tuple(
            {
                "world": world,
                "noise": "0",
                "rows": "500",
                "pair": "w = 10, equal time",
                "quantity": "bias2",
                "trials_of": "ten",
            }
            for world in ("cart-pole", "pendulum")
        ),
        "remedies/dd-vs-mse-worlds.png",
        THERE + "python -m analyses.remedies.dd_vs_mse_worlds table",
        "Ten paired trials of learned models without noise, 500 rows. Two papers contradict one "
        "another here (DDPPO, RP-PGM), and neither is right everywhere.",
    ),
    Finding(
        "A model loss over several steps made products of Jacobians worse at equal time",
        "Error of the product of five Jacobians, 5-step loss over 1-step loss: **{}** on the "
        "cart-pole",
        "remedies/multistep.csv",
        ({"world": "cart-pole", "pair": "5 steps, equal time", "quantity": "product_5"},),
        "remedies/multistep.png",
        LATER + "python -m analyses.remedies.multistep",
        "28 paired trials, 3,000 rows. At equal optimiser steps the comparison flatters the loss "
        "that costs more.",
    ),
    Finding(
        "For steps of a given length, choose by gain and not by error",
        "What a step adds, chosen by gain less chosen by error: **{}** points of the best step",
        "choice/by-gain.csv",
        ({"chosen": "single", "step": "same length", "criterion": "gain"},),
        "../docs/pictures/by-gain.png",
        LATER + "python -m analyses.choice.choice_by_gain",
        "120 linear-quadratic worlds with closed forms. For plain steps at the largest stable rate "
        "error chooses better.",
        ("difference", "low", "high"),
        times=100,
    ),
    Finding(
        "While model-based rows train, the critic makes their bias, not the model",
        "Share of the critic in the squared bias over a whole training: MAAC **{}%** on the "
        "cart-pole, **{}%** on the pendulum, RP-DP **{}%** and **{}%**",
        "model-based/whose-gradient.csv",
        tuple(
            {"world": world, "row": row, "stage": "0", "horizon": "3"}
            for row in ("maac", "rp-dp")
            for world in ("cart-pole", "pendulum")
        ),
        "model-based/whose-gradient.png",
        LATER + "python -m analyses.model_based.whose_gradient",
        "Every model-based row whose bias is above its noise, but SVG(∞) on the cart-pole; shares "
        "above 100% are made up for by the model's. Five seeds, small networks, 4,000 transitions.",
        ("critic", "critic low", "critic high"),
        times=100,
    ),
    Finding(
        "At sixteen steps through contacts, a learned model errs less than the simulator",
        "Mean squared error of the gradient through a model over that through the simulator: "
        "**{}** on Hopper, **{}** on the cart-pole",
        "mujoco/pwm-gradients.csv",
        tuple(
            {"world": world, "model": "plain", "horizon": "16", "reference": "true"}
            for world in ("Hopper-v5", "cart_pole_swing_up")
        ),
        "mujoco/pwm-gradients.png",
        THERE + "python -m analyses.first_order.regularised",
        "Return of 16 steps without a critic, 64 starts, one policy on each task. On Hopper 97% of "
        "the simulator's error is bias: derivatives do not see the jumps of contacts, which a "
        "fitted model smooths. Plain ensembles do as well as regularised ones, and over one "
        "step the simulator's gradient errs less on both tasks.",
        ("value", "low", "high"),
    ),
    Finding(
        "Late in training, a gradient six steps old has lost its direction",
        "Cosine of a stale gradient with the fresh one after 10,000 iterations: **{}** one step of "
        "the policy later, **{}** six steps later",
        "scale/staleness-lags.csv",
        tuple({"task": "path_tracking", "iteration": "10000", "lag": lag} for lag in ("1", "6")),
        "scale/staleness.png",
        LATER + "python -m analyses.staleness judge",
        "MPG-v2 on path tracking, five seeds, 4,096 replayed states. Two asynchronous learners "
        "have a lag of one step, twelve would have about eight. With the true gradient the fresh "
        "one has a positive cosine in some seeds and a negative one in others, so the claim "
        "itself is untested.",
        (
            "cosine with the fresh gradient",
            "cosine with the fresh gradient low",
            "cosine with the fresh gradient high",
        ),
    ),
    Finding(
        "The best horizon follows the critic's error, but loosely",
        "Rank correlation of the best horizon with critic error over model error: **{}**; the "
        "paper implies 1",
        "claims.csv",
        ({"claim": "OPT-H"},),
        "bias-variance/opt-h.png",
        THERE + "python -m analyses.bounds.opt_h",
        "20 seeds × 5 ratios in linear-quadratic worlds: a rule for the horizon from two error "
        "sizes is not enough, measuring is.",
        ("number", "low", "high"),
    ),
)


def write(folder: Path) -> None:
    """Writes findings.md."""
    cards = [card(number, finding) for number, finding in enumerate(FINDINGS, 1)]
    (folder / "findings.md").write_text("\n".join([HEAD, *cards, false_alarms(len(cards) + 1)]))


def card(number: int, finding: Finding) -> str:
    """Markdown of one finding."""
    shown = finding.number.format(*(_shown(finding, row) for row in finding.rows))
    return _markdown(number, finding.sentence, shown, finding)


def _shown(finding: Finding, picked: dict[str, str]) -> str:
    rows = [row for row in rows_of(finding.file) if picked.items() <= row.items()]
    assert len(rows) == 1, (finding.sentence, picked, len(rows))
    return interval(*(finding.times * float(rows[0][name]) for name in finding.columns))


def interval(value: float, low: float, high: float) -> str:
    """Three significant figures, with a minus sign that does not break."""
    text = [f"{part:.3g}" if abs(part) < 1000 else f"{part:,.0f}" for part in (value, low, high)]
    return f"{text[0]} [{text[1]}, {text[2]}]".replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def false_alarms(number: int) -> str:
    """The tenth card, whose number is a count: runs on defaults, of seeds that set no threshold."""
    rows = [
        row for row in rows_of("loops/defaults.csv") if not row["error"] and int(row["seed"]) >= 4
    ]
    rung = sum(bool(row["alarms"]) for row in rows)
    ends = binomtest(rung, len(rows)).proportion_ci()
    share = interval(100 * rung / len(rows), 100 * ends.low, 100 * ends.high)
    finding = Finding(
        "The probe's alarms are rarely false in the loops of others",
        "",
        "loops/defaults.csv",
        (),
        "",
        THERE + "python -m analyses.third_party --cleanrl DIR",
        "Nine algorithms of CleanRL, Stable-Baselines3 and TorchRL on their defaults, every test "
        "made as often as it can be.",
    )
    shown = f"Runs with an alarm: {rung} of {len(rows)}, **{share}%** (exact interval)"
    return _markdown(number, finding.sentence, shown, finding)


def _markdown(number: int, sentence: str, shown: str, finding: Finding) -> str:
    folder = (
        str(Path(finding.file).parent) if "/" in finding.file else str(Path(finding.figure).parent)
    )
    assert (REPORTS / folder / "README.md").exists(), folder
    picture = f"![{sentence}](../../reports/{finding.figure})\n\n" if finding.figure else ""
    return (
        f"## {number}. {sentence}\n\n{shown}.\n\n{finding.text}\n\n"
        f"{picture}    {finding.command}\n\n"
        f"[The report](../../reports/{folder}/README.md); numbers: `reports/{finding.file}`.\n"
    )
