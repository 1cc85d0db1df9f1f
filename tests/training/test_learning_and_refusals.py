"""Rows, parts and runs that make no sense are refused by name, before anything is written.

Rows of every family better the return: from about -100 in the small world, -300 elsewhere.
Temperatures that hold the entropy of a policy. A second replay that the model fills, and MBPO,
which trains on it. DDPPO: two models, critics on both stores, policies from replayed states, ten
updates a step.
"""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import gradlab
from gradlab.data.replay import Replay
from gradlab.errors import InputError
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.systems.learned import TwoModels
from gradlab.tasks import double_integrator
from gradlab.training.algorithm import LearnedModel
from gradlab.training.algorithms import (
    find,
    measured,
    with_changes,
    with_horizons,
    with_weights,
)
from gradlab.training.collection import Branches
from gradlab.training.learner import Learner
from gradlab.training.loop import describe, settings_of, train
from gradlab.training.parts.context import (
    Branched,
    Branching,
    Draws,
    FixedWeights,
    Newest,
    Passes,
    Stores,
    TwoStores,
)
from gradlab.training.parts.critics import ActionGradient, Copied, OneStep, Soft, Steve
from gradlab.training.parts.duals import Automatic, Stiffness, Temperature
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.parts.window_losses import StateLambda
from gradlab.training.settings import Asynchronous, Planning, Settings
from tests.training.small_runs import (
    MODEL,
    SMALL,
    assert_estimated,
    numbers,
    other,
    row,
    same_tables,
    stopped,
    task,
)

DRAWS = Draws((0, 1), torch.float64, "cpu")


def small(**changes):
    branching = replace(Branching(every=20, rollouts=30, lengths=(1, 3, 0, 40)), **changes)
    return replace(row("mbpo"), source=Branched(branching, 0.25))


def drift(state, action):
    """One coordinate that moves by the action and counts steps, and one that stays."""
    return state + torch.cat([action, torch.zeros_like(action)], dim=1), state[:, 0]


def model(end=100.0):
    return from_function(drift, state_dim=2, action_dim=1, alive=lambda s: s[:, 0] < end)


def replayed(rows=50):
    """Transitions whose states are their numbers, apart for each seed."""
    replay = Replay(2, 100, 2, 1, torch.float64)
    number = torch.arange(2.0 * rows, dtype=torch.float64).view(2, rows, 1) / 1000
    flat = number[..., 0]
    state, after = torch.cat([0 * number, number], 2), torch.cat([number, number], 2)
    replay.add(state, number, flat, after, 0 * flat)
    return replay


def forward(state, noise):
    """One to the right."""
    return torch.ones_like(state[..., :1]), None


def filled(branching, **model_options):
    branches = Branches(branching, replayed(), DRAWS)
    table_row = branches.fill(replayed(), model(**model_options), forward, None, 0)
    return branches, table_row


def test_rollouts_branch_off_replayed_states_of_their_own_seed_and_follow_the_model():
    branches, told = filled(Branching(rollouts=20, lengths=(3,)))
    rows = branches.replay.rows[:, : len(branches.replay)].view(2, 3, 20, -1)
    assert told["scheduled"] == 3 and told["realised"].tolist() == [3.0, 3.0]
    assert (rows[0, 0, :, 1] < 0.05).all() and (rows[1, 0, :, 1] >= 0.05).all()
    for step in range(3):
        assert (rows[:, step, :, 0] == step).all() and (rows[:, step, :, 4] == step + 1).all()
        assert torch.equal(rows[:, step, :, 1], rows[:, 0, :, 1])


def test_a_step_without_numbers_is_not_stored():
    def breaks(state, action):
        after, reward = drift(state, action)
        return torch.where(state[:, :1] > 0.5, torch.nan, after), reward

    branches = Branches(Branching(rollouts=20, lengths=(4,)), replayed(), DRAWS)
    broken = from_function(breaks, state_dim=2, action_dim=1)
    told = branches.fill(replayed(), broken, forward, None, 0)
    assert branches.replay.rows.isfinite().all()
    assert told["realised"].tolist() == [2.0, 2.0]


def test_the_length_follows_its_schedule_and_never_shrinks_below_one():
    schedule = Branching(lengths=(1, 15, 20, 160))
    assert [schedule.length(k) for k in (0, 20, 29, 30, 90, 160, 10**6)] == [1, 1, 1, 2, 8, 15, 15]


def test_a_batch_has_the_share_of_real_rows_and_the_newest_of_the_model():
    branching = Branching(every=10, rollouts=20, kept=2, lengths=(1, 2, 0, 20))
    branches = Branches(branching, replayed(), DRAWS)
    for k in range(0, 50, 10):
        branches.fill(replayed(), model(), lambda s, n, k=k: (0 * s[..., :1] + k, None), None, k)
    batch = Branched(branching, 0.25)(Stores(replayed(), branches.replay, DRAWS, 40), 45)
    assert (batch.action[:, :10] < 1).all()
    assert set(batch.action[:, 10:].flatten().tolist()) == {30.0, 40.0}


SHAC, MISFIT = find("shac").target, "take windows of as many steps"
ROWS = [
    ("bptt", {"terms": (Term(0),)}, "has no critic: take horizons from 1"),
    ("svg", {"critic_loss": ActionGradient(OneStep())}, "differentiates critics by actions"),
    ("svg", {"policy": "deterministic", "target": OneStep()}, "take a gaussian policy"),
    ("svg", {"loss": find("sac").loss, "terms": find("sac").terms}, "critic is V.s., in which"),
    ("svg", {"target": SHAC}, r"a target along paths: take source=Newest.steps"),
    ("maac", {"policy": "deterministic"}, "which has no entropy, but a target for stochastic"),
    ("maac", {"target": OneStep(twin=True)}, "but a target for deterministic ones"),
    ("maac", {"terms": (Term(3),)}, "first action alone at horizons"),
    ("svg-inf", {"reuse": 2}, "has reuse 2, but an on-policy batch is new"),
    ("rp-dr", {"source": Newest(10)}, MISFIT + ", or of a multiple"),
    ("shac", {"model": LearnedModel()}, "shac uses no model"),
    ("shac", {"policy": "deterministic", "target": replace(SHAC, stochastic=False)},
     r"has exploration 0\.1, but follows its own actions"),
    ("apg", {"fit": find("shac").fit}, "apg has no critic to be fitted in 16 passes"),
    ("dmo", {"adaptive": Stiffness()}, "differentiates no simulator"),
    ("ddppo", {"updates": 0}, "ddppo's updates is 0, expected an integer"),
    ("mpg-v2", {"terms": (Term(0), Term(0))}, "different horizons"),
    ("steve", {"model": LearnedModel(members=1)}, r"steve has targets .* one of 2 members"),
    ("mpg-v2", {"policy_rate": 1e-3}, "expected 2 values in a tuple"),
]  # fmt: skip
PARTS = [
    (Asynchronous, {"learners": 0}, "learners is 0"),
    (Stiffness, {"threshold": 0.0}, "stiffness's threshold is 0"),
    (StateLambda, {"critics": 3}, "critics is 3, expected 1 or 2"),
    (Passes, {"epochs": 0}, "epochs is 0"),
    (MixtureLoss, {"beta": 1.1}, r"beta is 1\.1"),
    (Steve, {"horizon": 0}, "STEVE's horizon is 0"),
    (Copied, {"every": 0}, "every is 0"),
    (Newest, {"steps": 0}, "steps is 0"),
    (Branching, {"lengths": (1, 2, 5, 5)}, "rollout_length is .*the iterations between which"),
    (Branched, {"real": 2}, "real is 2"),
    (Automatic, {"entropy": math.nan}, "temperature's entropy is nan"),
    (Planning, {"horizon": 2, "samples": 4, "elites": 5}, "elites is 5, expected 2 to its 4"),
    (LearnedModel, {"learning_rate": 0.0}, "model's learning_rate is 0"),
    (LearnedModel, {"loss": "nll"}, "loss 'nll', expected one of nll, mse, multistep, dd"),
    (LearnedModel, {"members": 4, "elites": 5}, "elites is 5, expected 1 to its 4"),
    (FixedWeights((0.5, 0.5)), {"iteration": 0, "horizons": (0,)}, "one for each"),
]  # fmt: skip


def warm(algorithm, temperature):
    return with_changes(algorithm, temperature=temperature)


CHANGES = [
    (with_horizons, "td3", (0, 25), "td3 follows one gradient"),
    (with_horizons, "mpg-v2", (5, 25), "needs 0 among them"),
    (with_horizons, "mpg-v2", (0, -1), "from 0"),
    (with_horizons, "svg", (3,), "follows horizon 1 alone"),
    (with_horizons, "rp-dr", (0,), MISFIT),
    (with_weights, "td3", (0.5,), "td3 follows one gradient: leave them out and give one horizon"),
    (with_weights, "mpg-v2", (1.0,), r"expected one for each of the horizons \(0, 25\)"),
    (with_weights, "mpg-v2", (0.0, 0.0), "expected finite numbers, not all zero"),
    (warm, "sac", math.nan, "temperature is nan"),
    (warm, "td3", Automatic(), "td3 has none: its return has no entropy; take one of .*sac"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "words"), ROWS)
def test_a_row_whose_parts_do_not_fit(name, changes, words):
    with pytest.raises(InputError, match=words):
        replace(find(name), **changes)


@pytest.mark.parametrize(("part", "options", "words"), PARTS)
def test_a_part_with_an_impossible_number(part, options, words):
    with pytest.raises(InputError, match=words):
        part(**options)


@pytest.mark.parametrize(("change", "name", "value", "words"), CHANGES)
def test_a_change_that_a_row_cannot_have(change, name, value, words):
    with pytest.raises(InputError, match=words):
        change(find(name), value)


def test_what_depends_on_another_choice():
    mixed = replace(
        row("mpg-v2"), terms=(Term(0), Term(5, "all")), weights=FixedWeights((0.5, 0.5)), name="mix"
    )
    for call, words in (
        (lambda: measured(find("bptt"), weights="measured"), "no critic of actions to measure"),
        (lambda: measured(mixed, weights="measured"), "give terms of the first action alone"),
        (lambda: find("shac").rows(20_000), "takes windows of 32 steps of 20000 agents"),
        (
            lambda: replace(find("svg-inf"), replay=9).rows(8),
            "32 steps of 8 agents, but its replay",
        ),
        (lambda: find("mpg"), "did you mean mpg-v"),
        (lambda: find("ppo"), "which gradlab does not train: watch"),
    ):
        with pytest.raises(InputError, match=words):
            call()


LIMIT = (2.0, 1.0)
BY_MEASURED, PROCESSES = {"weights": "measured"}, {"asynchronous": Asynchronous()}
RUNS = [
    ("td3", {"seeds": 0}, "seeds is 0"),
    ("td3", {"iteration": 5}, "did you mean iterations|setting 'iteration' is not known"),
    ("td3", {"termination": "stop"}, "termination is 'stop'"),
    ("td3", {"keep": (2.0,)}, "keep is 2"),
    ("td3", {"device": "abacus"}, "expected 'cpu' or 'cuda'"),
    ("td3", {"device": "cuda:77"}, "cannot be used"),
    ("td3", BY_MEASURED, "td3 has measured weights, but it follows one gradient: mixtures are"),
    ("mpg-v2", BY_MEASURED | {"horizon": "measured"}, "choose one"),
    ("mpg-v2", BY_MEASURED | {"by": "best"}, "by is 'best', expected one of"),
    ("mpg-v2", BY_MEASURED | {"measure_starts": 3}, "measure_starts is 3"),
    ("shac", PROCESSES, "shac cannot be trained asynchronously: its batches are the newest steps"),
    ("mbpo", PROCESSES, "mbpo cannot be trained asynchronously: it learns a model between"),
    ("td3", {"ray": "local"}, "the run is in one process"),
    ("sac", {"policy": Policy(3, 2)}, "policy is a Policy, expected gradlab's GaussianPolicy"),
    ("ddpg", {"policy": Policy(4, 2, limit=LIMIT)}, "policy has state_dim 4, expected 3"),
    ("sac", {"policy": GaussianPolicy(3, 2, squash=True)},
     r"policy has limit \[1.0, 1.0\], expected \[2.0, 1.0\]"),
    ("svg", {"critic": QCritic(3, 2)}, "critic is a QCritic, expected gradlab's VCritic"),
    ("bptt", {"critic": QCritic(3, 2)}, "critic is given, but bptt has none"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "words"), RUNS)
def test_a_run_that_cannot_be(tmp_path, name, options, words):
    with pytest.raises(InputError, match=words):
        train(row(name), task(), tmp_path / "run.h5", **SMALL | options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["policy", "critic"])
def test_spectral_norms_would_change_the_networks_that_are_given(tmp_path, role):
    held = replace(row("ddpg"), **{f"{role}_spectral": "all"})
    given = {"policy": Policy(3, 2, limit=LIMIT), "critic": QCritic(3, 2)}[role]
    with pytest.raises(InputError, match=f"{role} is given, but spectral norms would change it"):
        train(held, task(), tmp_path / "run.h5", **{role: given}, **SMALL)


class Opaque:
    """The double integrator as a program without derivatives."""

    state_dim, action_dim, noise_dim, differentiable = 2, 1, 2, False
    step, sample_noise = (
        getattr(double_integrator().simulator, name) for name in ("step", "sample_noise")
    )

    def linearize(self, state, action, noise=None):
        raise NotImplementedError("a closed program")


CLOSED = replace(double_integrator(), simulator=Opaque())
ALIKE, BARE = (replace(world, prior=None) for world in (task(), double_integrator()))
NO_JACOBIANS = "no Jacobians.*a closed program"
WORLDS = [
    (CLOSED, "shac", {}, "shac follows the simulator's Jacobians.*a closed pro"),
    (CLOSED, "td3", {"gradient_every": 5}, f"gradient_every is 5, but .*{NO_JACOBIANS}"),
    (CLOSED, "mpg-v2", BY_MEASURED, f"gives {NO_JACOBIANS}.*take 'rule'"),
    (BARE, "mpg-v2", BY_MEASURED, "has no prior"),
    (BARE, "td3", {"planning": Planning(2)}, "planning needs a model, but td3 learns none"),
    (double_integrator(), "svg-inf", {"gradient_every": 5, "agents": 3},
     "svg-inf is measured on its newest paths.*agents=4"),
]  # fmt: skip


@pytest.mark.parametrize(("world", "algorithm", "options", "words"), WORLDS)
def test_a_task_that_a_row_cannot_be_trained_or_measured_on(
    tmp_path, world, algorithm, options, words
):
    with pytest.raises(InputError, match=words):
        train(algorithm, world, tmp_path / "run.h5", **options)
    assert not list(tmp_path.iterdir())


def test_a_model_is_asked_for_where_the_task_has_none():
    settings = Settings(precision="float64", termination="ignore")
    for name in ("mpg-v1", "mpg-v2", "mpg-general", "n-step-adp"):
        with pytest.raises(InputError, match="has no prior"):
            Learner(row(name), ALIKE, settings)
    for name in ("td3", "sac", "ddpg", "n-step-dpg"):
        Learner(row(name), ALIKE, settings)


def bettered(tmp_path, algorithm, world, share, iterations, **options):
    """Every seed ends with a loss of less than this share of its first one."""
    options = SMALL | {"iterations": iterations, "evaluate_every": iterations} | options
    path = train(algorithm, world, tmp_path / "run.h5", **options)
    returns = read(path).groups["evaluations"]["return_mean"].values
    assert (returns[-1] > share * returns[0]).all(), returns


FAST = {"policy_rate": (1e-3, 1e-4), "value_rate": (3e-3, 3e-4)}
PLAIN = {
    "mpg-v2": (replace(row("mpg-v2"), policy_rate=(3e-3, 3e-5)), 300, {}),
    "bptt": (replace(with_horizons(row("bptt"), (8,)), policy_rate=(3e-3, 3e-4)), 200, {}),
    "svg": (
        replace(
            row("svg"), hidden=(32, 32), batch=64, model=None, target_critic=Copied(20), **FAST
        ),
        800,
        {"interval": 1, "agents": 8},
    ),
    "svg-inf": (
        replace(row("svg-inf"), model=None, policy_rate=(3e-3, 3e-4), hidden=(16, 16)), 150, {}
    ),
}  # fmt: skip
SHARES = {"svg": 0.75, "svg-inf": 0.5}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("mpg-v2", "svg"))) for name in PLAIN],
)
def test_with_the_tasks_own_model(tmp_path, name):
    algorithm, iterations, options = PLAIN[name]
    bettered(tmp_path, algorithm, task(), SHARES.get(name, 1 / 3), iterations, seeds=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rp-dp", "rp-dp-sn", "rp-dr", "ddppo", "mbpo", "svg"])
def test_with_a_learned_model(tmp_path, name):
    small = row(name)
    model = replace(small.model, hidden=(32,), first_steps=500, every=100, steps=100, batch=64)
    quick = replace(small, hidden=(32, 32), batch=64, model=model, tau=0.02, **FAST)
    options, share, iterations = {"agents": 8}, 0.5, 600
    if small.source.branching is not None:
        branching = Branching(every=100, rollouts=500, lengths=(1, 2, 0, 600))
        quick = replace(quick, source=replace(small.source, branching=branching))
    if name == "mbpo":
        quick, iterations = replace(quick, source=replace(quick.source, real=0.05)), 800
    if name == "svg":
        options, share, iterations = options | {"interval": 1}, 0.75, 800
        quick = replace(quick, target_critic=Copied(20), tau=small.tau)
    bettered(tmp_path, quick, replace(task(), prior=None), share, iterations, seeds=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shac", "ahac", "sapo", "abpt", "agpo", "apg", "dmo"])
def test_on_windows_of_the_double_integrator(tmp_path, name):
    small = row(name)
    if small.model is not None:
        model = replace(MODEL, hidden=(32,), every=10, first_steps=400, steps=50, batch=64)
        small = replace(small, model=model)
    quick = replace(
        small, hidden=(16, 16), policy_rate=(1e-2, 1e-3), terms=(Term(16, "all"),),
        source=Newest(16),
    )  # fmt: skip
    world = gradlab.tasks.double_integrator()
    bettered(tmp_path, quick, world, 1 / 3, 60, agents=6, episode=40, seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_maac_on_the_analytic_pendulum(tmp_path, learned):
    model = LearnedModel(members=3, hidden=(32, 32), first_steps=1000, steps=200)
    algorithm = replace(
        find("maac-no-steve"), hidden=(64, 64), batch=64, policy_rate=(1e-3, 1e-4),
        value_rate=(1e-3, 1e-4), model=model if learned else None,
    )  # fmt: skip
    path = train(
        algorithm, gradlab.tasks.inverted_pendulum(engine="analytic"), tmp_path / "run.h5",
        iterations=2000, evaluate_every=1000, evaluation_starts=16, warmup=1000, agents=16,
        interval=1, seeds=3,
    )  # fmt: skip
    returns = read(path).groups["evaluations"]["return_mean"].values
    assert (returns[-1] > returns[0]).all()


RATE = 0.01


def column(path, table, name):
    return read(path).groups[table][name].values


def temperature_of(choice, limit=None):
    return Temperature(choice, 2, 2, limit, torch.float64, torch.device("cpu"))


def test_alpha_rises_where_there_is_too_little_entropy_and_falls_where_there_is_too_much():
    tuned = temperature_of(Automatic(entropy=-2.0, first=0.5, rate=RATE))
    log_prob = torch.tensor([[2.5, 2.7], [1.0, 1.8]], dtype=torch.float64)  # entropy -2.6, -1.4
    tuned.step(log_prob)
    # Adam's first step has the size of its rate, whatever the gradient's.
    expected = 0.5 * torch.tensor([[math.exp(RATE)], [math.exp(-RATE)]], dtype=torch.float64)
    torch.testing.assert_close(tuned.value, expected, rtol=1e-7, atol=0)


@pytest.fixture
def whole(small_run):
    small = warm(row("sac"), Automatic(rate=0.05))
    return small, small_run(small, **SMALL, seeds=2)


def test_a_run_records_what_alpha_each_seed_has_and_a_stopped_one_goes_on(tmp_path, whole):
    small, path = whole
    alpha = column(path, "updates", "temperature")
    assert alpha.shape == (SMALL["iterations"] // SMALL["log_every"], 2)
    assert (alpha > 0).all() and len(set(alpha[:, 0])) == len(alpha)
    again = stopped(partial(train, small, task(), tmp_path / "b.h5"), 50, **SMALL, seeds=2)
    same_tables(again, path)
    assert torch.equal(numbers(again), numbers(path))


@pytest.mark.slow
def test_a_policy_is_held_at_the_entropy_that_is_wanted(tmp_path):
    wide = {}
    for entropy in (-3.0, 0.0):
        small = replace(
            warm(row("sac"), Automatic(entropy=entropy, rate=0.05)),
            policy_rate=(1e-2, 1e-2),
        )
        options = SMALL | {"iterations": 300, "evaluate_every": 300, "checkpoint_every": 300}
        path = train(small, task(), tmp_path / f"{entropy}.h5", **options)
        wide[entropy] = column(path, "updates", "temperature")[-1, 0]
    assert wide[0.0] > 2 * wide[-3.0]


def stores():
    """Replay, whose states are below 0.1, and rollouts of the model, which begin there at 1."""
    branches = Branches(Branching(every=10, rollouts=20, lengths=(2,)), replayed(), DRAWS)
    branches.fill(replayed(), model(), forward, None, 0)
    return Stores(replayed(), branches.replay, DRAWS, 40), branches.choice


def test_critics_see_rows_of_both_stores_and_policies_begin_in_replayed_states_alone():
    both, branching = stores()
    batch = TwoStores(branching, 0.25)(both, 7)
    alone = Branched(branching, 0.25)(both, 7)
    for name, value in alone.tensors.items():
        assert torch.equal(value, batch.tensors[name])
    assert torch.equal(alone.visited, alone.state)
    real = {tuple(state) for state in both.replay.rows[0, :, :2].tolist()}
    begun = [tuple(state) for state in batch.visited[0].tolist()]
    assert batch.visited.shape == (2, 40, 2) and set(begun) <= real and len(set(begun)) > 10
    assert not {tuple(state) for state in batch.state[0, 10:].tolist()} <= real


def test_the_gradient_is_that_of_the_estimator_with_states_of_one_model_and_slopes_of_another():
    world, errs = task().simulator, from_function(other, state_dim=3, action_dim=2, noise_dim=3)
    small = replace(
        row("ddppo"), model=None, source=find("sac").source, activation="tanh", target=Soft(0.2)
    )
    two = replace(task(), prior=TwoModels(world, errs))
    assert_estimated(small, two, alpha=0.2, systems=(world, errs), apart=5.0)


def test_policy_and_critic_are_updated_ten_times_for_every_transition_unless_settings_say_other():
    ddppo, sac, pendulum = (
        find("ddppo"),
        find("sac"),
        gradlab.tasks.inverted_pendulum(engine="analytic"),
    )
    assert ddppo.delay == ddppo.reuse == 1
    for agents in (1, 8):
        chosen = settings_of(ddppo, pendulum, None, {"agents": agents})
        assert chosen.interval == 10 * agents
        # Fits and rollouts of the model: every 250 transitions.
        assert ddppo.model.every * agents / chosen.interval == 250
        assert ddppo.source.branching.every == ddppo.model.every
    assert settings_of(ddppo, pendulum, None, {"interval": 3}).interval == 3
    assert settings_of(ddppo, pendulum, Settings(interval=4), {}).interval == 4
    assert settings_of(sac, pendulum, None, {}).interval == 8
    assert describe(sac, pendulum, Settings())["algorithm"]["updates"] is None
    assert describe(ddppo, pendulum, Settings())["algorithm"]["updates"] == 10
