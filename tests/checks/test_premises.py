"""What leaves nothing to decide is the first sentence, and nothing is decided from it."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab import choose, cli
from gradlab.checks.premises import _off, _outweighed
from gradlab.cli.answer import answer
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.findings.checks import detached, failed_premises
from gradlab.gradients.setting import as_starts, distinct
from gradlab.reporting import profile_page
from gradlab.reporting.page import render
from gradlab.reporting.profile_page import page
from gradlab.statistics.moments import sample_mean
from gradlab.systems import from_function
from gradlab.tasks import Task
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice import chosen
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import KEEP
from gradlab.verdicts.measurement.verdict import advice
from tests.checks.planted_premises import CASES, Linear, Quadratic, cost, draws, task
from tests.first_screens import WORDS, repeated, words_of


@pytest.fixture(scope="module")
def profiles():
    return {
        name: gradlab.measure(made, policy, critic, starts=32, horizon=2, judges=4, rehearse=False)
        for name, (made, policy, critic, _) in CASES.items()
    }


@pytest.fixture(scope="module")
def pages(profiles):
    """The words of every page; its figures, which take the time, are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_page, "panels", lambda *_: [])
        return {name: words_of(render(page(profile))) for name, profile in profiles.items()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sampled(5)
def test_what_leaves_nothing_to_decide_is_the_first_sentence(name, profiles, pages, capsys):
    told, first = advice(profiles[name]), CASES[name][3]
    read = facts(profiles[name])
    if (cell := advise(read).cell) is not None:  # returns alone decide
        assert told.fix_first == read.premise.removesuffix(".") and not told.gain
        assert (told.light, told.horizon) == ("none", cell[1])
        return
    assert [each.name for each in told.fields] == ["use", "why"] and told.use == KEEP
    assert told.light == "none" and told.field("why").startswith(first.removesuffix("."))
    assert first.removesuffix(".") in pages[name]
    answer(told.document, as_json=False)
    said = f"○ Caution use {KEEP} why {first.removesuffix('.')}"
    assert " ".join(capsys.readouterr().out.split()).startswith(said)
    answer(told.document, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["recommendation"] == {each.name: each.text for each in told.fields}
    assert document["findings"][0]["sentence"].startswith(first)


def test_a_policy_that_was_fitted_here_is_told_where_to_rest(profiles):
    still = profiles["saturated output"]
    own = advice(still).field("why")
    made, policy, critic, _ = CASES["saturated output"]
    fitted = copy.deepcopy(policy)
    fitted.fitted = True  # as of `gradlab.fitting.stabilising_policy`
    fitted = gradlab.measure(made, fitted, critic, starts=32, horizon=2, judges=4, rehearse=False)
    why = advice(fitted).field("why")
    assert "reference_state" not in own and "saturated actions, or ignored ones" in own
    assert "Set reference_state= of the task" in why and "--policy" in why
    assert len(why.split()) <= WORDS


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sampled(5)
def test_nothing_is_decided_from_it(name, profiles, pages):
    read = facts(profiles[name])
    if (cell := advise(read).cell) is None:
        with pytest.raises(InputError, match="nothing can be chosen"):
            choose(profiles[name])
    else:  # it says what is known of the one, and that it was not compared
        said = str(choose(profiles[name]))
        assert "no update yet" not in said and "fix first" in said
        assert "returns_only" in {e.code for e in chosen(profiles[name])[1].rest}
        with pytest.raises(InputError, match="nothing can be chosen"):
            choose(profiles[name], estimators=[each for each in read.own if each != cell[0]][:1])
    told = {each.code for each in advice(profiles[name]).rest}
    assert told.isdisjoint({"usable_horizons", "best_horizon", "data_against_model", "fix"})


def test_a_critic_of_the_other_sign_is_said_to_fall_where_the_return_rises(profiles):
    for name in ("a critic of the other sign", "a critic of another scale"):
        (code,) = {each.code for each in failed_premises(profiles[name].sanity)}
        assert code == ("critic_sign" if "sign" in name else "critic_size")


@pytest.mark.parametrize("level, code", [(0.02, "critic_size"), (-1.0, "critic_sign")])
def test_a_critic_that_was_hardly_fitted_has_no_sign(level, code):
    """Its values fall where the return rises, and have the return's sign."""
    generator = np.random.default_rng(0)
    r = generator.normal(-70, 10, 96)
    q = level * -70 - abs(level) * (r + 70) + 0.01 * generator.standard_normal(96)
    means = [sample_mean(each, np.ones(96)) for each in (q, r, q * r, q * q, r * r)]
    assert _off(means).code == code


@pytest.mark.parametrize("size, few", [(1.0, False), (1e3, True)])
def test_a_fit_that_a_few_rollouts_outweigh_is_not_to_be_made_anew(size, few):
    """One state in 96 from which the return is a thousand times as large."""
    returns = torch.linspace(-1, 1, 96)
    returns[7] = size
    assert _outweighed(returns) == few


OWN = """
from tests.checks.planted_premises import CASES
def task(): return CASES[{name!r}][0]
def policy(): return CASES[{name!r}][1]
def critic(): return CASES[{name!r}][2]
"""


@pytest.mark.parametrize("name", ["zero reward", "dead output", "a critic of another scale"])
def test_the_command_line_begins_with_it_and_chooses_nothing(name, tmp_path, capsys):
    own, run = tmp_path / "own.py", str(tmp_path / "run.h5")
    own.write_text(OWN.format(name=name))
    words = ["measure", f"{own}:task", "--policy", f"{own}:policy", "--critic", f"{own}:critic"]
    words += ["--starts", "32", "--horizon", "2", "--judges", "4", "--no-report", "--output", run]
    assert cli.main(words) == 0
    assert f" why {CASES[name][3].removesuffix('.')}" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["choose", run]) == 2
    assert "nothing can be chosen: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_sound_measurement_is_decided_from(monkeypatch):
    monkeypatch.setattr(profile_page, "panels", lambda *_: [])
    profile = gradlab.measure(task(), Linear(), Quadratic(), starts=64, judges=4)
    assert "premises_hold" in {each.code for each in profile.sanity}
    assert advice(profile).horizon > 0
    assert choose(profile).best is not None
    assert repeated(words_of(render(page(profile)))) == []


@pytest.mark.slow
@pytest.mark.parametrize("given", ["no model", "the simulator"])
def test_who_owns_the_simulator_is_told_how_far_to_unroll_it(given):
    made = task(model=0)
    made = replace(made, prior=None) if given == "no model" else made
    profile = gradlab.measure(made, Linear(), Quadratic(), starts=64, judges=4)
    assert profile.estimators == ("data", "true_dynamics", "true_dynamics_all")
    assert not any(each.control for each in profile.identities.values())
    told = advice(profile)
    assert told.use.startswith("the simulator (") and told.horizon > 0
    assert choose(profile).best.cell[0] != "data"


@pytest.mark.slow
def test_an_exact_model_of_another_object_is_said_and_competes():
    profile = gradlab.measure(task(model=1), Linear(), Quadratic(), starts=64, judges=4)
    (said,) = (each for each in profile.sanity if each.code == "model_exact")
    assert (said.decision, said.subject) == ("fail", "prior model")
    told = advice(profile)
    assert told.use.startswith("your model (") and told.horizon > 0


def test_a_level_in_the_critic_is_no_fault():
    """Gradients do not see it."""
    profile = gradlab.measure(task(), Linear(), Quadratic(level=500.0), starts=64, judges=4)
    assert failed_premises(profile.sanity) == ()


def test_tiled_starts_count_once():
    states = draws(16, torch.Generator().manual_seed(0))
    one, eight = (
        gradlab.measure(task(), Linear(), Quadratic(), starts=each)
        for each in (states, states.repeat(8, 1))
    )
    assert one.table().equals(eight.table())
    assert (eight.config["starts"], eight.config["rows"]) == (16, 128)
    assert advice(eight).notice == "112 of 128 starts repeat others and count once: N = 16."
    assert advice(one).notice == ""


def test_uneven_repetitions_are_weights():
    states = draws(16, torch.Generator().manual_seed(0))
    found = distinct(as_starts(torch.cat([states[:4], states]), 2))
    assert torch.equal(found.states, states)
    assert found.weight.tolist() == pytest.approx([1.6] * 4 + [0.8] * 12)


def test_a_policy_without_a_gradient_is_refused():
    with pytest.raises(InputError, match="no gradient in its parameters"):
        gradlab.measure(task(), Linear(lambda x: x.detach()), Quadratic(), starts=16)


def test_a_critic_is_not_judged_where_a_policy_has_settled():
    """There returns are small, and so is what the critic is wrong by."""

    def settling(s, a):
        return 0.3 * s + 0.01 * a, cost(s, a)

    simulator = from_function(settling, 2, 1)
    made = Task("settling", simulator, None, draws, 0.98, 2)
    profile = gradlab.measure(made, Linear(), Quadratic(1.1, -0.4), starts=64, judges=4)
    assert failed_premises(profile.sanity) == ()


def test_the_simulators_detached_step_is_named_before_the_models():
    model, simulator = (Finding(f"{who}_detached", "fail") for who in ("model", "simulator"))
    found = Finding("critic_size", "fail"), model, simulator
    assert failed_premises(found) == (simulator, model, found[0])
    assert detached(found) == {"simulator", "model"} and detached((model,)) == {"model"}
    policy = Finding("policy_detached", "fail")
    assert detached((policy,)) == {"simulator", "model"} and detached(()) == set()
