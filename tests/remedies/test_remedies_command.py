"""`gradlab remedies`: what it writes and says, how it goes on, what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gradlab import cli, reporting
from gradlab.fitting.collection import collect
from gradlab.reporting import render
from gradlab.reporting.shell import number
from gradlab.tasks import pendulum
from gradlab.tools.remedies import compute
from gradlab.tools.remedies import page as remedies_page
from gradlab.tools.remedies.result import load
from tests.first_screens import check_first_screen, opened
from tests.planted_remedies import ARMS, LEVELS, RUN, TABLE, planted

NETWORKS = """
import torch
from gradlab.networks.mlp import QCritic
def policy():
    network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    network.weight.data = torch.tensor([[-2.0, -1.8]], dtype=torch.float64)
    return network
def critic():
    torch.manual_seed(0)
    return QCritic(2, 1, (8,)).double()
"""
TINY = ("--hidden", "8", "--epochs", "2", "--horizon", "3", "--starts", "8", "--batch", "8")


@pytest.fixture
def networks(tmp_path):
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    return ("--policy", f"{file}:policy", "--critic", f"{file}:critic")


def asked(output, networks, *words):
    found = ["remedies", "double_integrator", *networks, *TINY, "--rows", "120"]
    return [*found, "--output", str(output), "--json", "--no-report", *words]


def answered(capsys, words):
    assert cli.main(words) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys, words):
    assert cli.main(words) == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_run_its_page_its_models_and_its_verdict(tmp_path, networks, capsys, monkeypatch):
    words = asked(tmp_path / "run.h5", networks, "--trials", "2", "--remedies", "spectral,mse")
    words.remove("--no-report")
    document = answered(capsys, words)
    run = load(tmp_path / "run.h5")
    assert run.trials == 2 and run.arms == ("spectral", "mse")
    assert run.config["settings"]["hidden"] == [8] and run.config["rows"] == 120
    assert len(document["table"]) == len(run.table())
    text = " ".join(each["text"] for each in document["verdict"])
    assert "spectral normalisation" in text.lower()
    assert "each trial recorded 120 transitions with the policy and exploration noise" in text
    assert "the baseline was fitted for 2 epochs" in text
    page = Path(document["report"]).read_text()
    assert "gradlab remedies double_integrator" in page
    assert (tmp_path / "run_figures" / "least_mse.png").exists()
    assert list((tmp_path / "run-models").glob("**/*.safetensors"))
    monkeypatch.setattr(reporting, "report", lambda path: path)  # the page is there already
    again = answered(capsys, ["report", str(tmp_path / "run.h5"), "--json"])
    assert again["verdict"] == document["verdict"][:-1]


def test_a_run_that_was_stopped_says_how_it_goes_on(tmp_path, networks, capsys, monkeypatch):
    output, measured = tmp_path / "run.h5", compute.measured

    def stopped(question, k, *more):
        if k == 1:
            raise KeyboardInterrupt
        return measured(question, k, *more)

    monkeypatch.setattr(compute, "measured", stopped)
    assert cli.main(asked(output, networks, "--trials", "2", "--remedies", "mse")) == 130
    said = capsys.readouterr().err
    assert f"1 trial is finished (gradlab report {output}): go on with --resume" in said
    assert load(output).trials == 1


def test_made_networks_are_kept_and_serve_a_run_that_goes_on(tmp_path, capsys, monkeypatch):
    from gradlab.fitting import critics, policies
    from gradlab.networks.mlp import Policy, QCritic

    made: list[str] = []

    def policy(task, **_):
        made.append("policy")
        return Policy(2, 1, (4,)).double()

    def critic(task, policy, **_):
        made.append("critic")
        return QCritic(2, 1, (4,)).double()

    monkeypatch.setattr(policies, "stabilising_policy", policy)
    monkeypatch.setattr(critics, "fit_critic", critic)
    words = asked(tmp_path / "run.h5", (), "--remedies", "mse")
    answered(capsys, [*words, "--trials", "1"])
    assert made == ["policy", "critic"]
    assert (tmp_path / "run.policy.safetensors").exists()
    answered(capsys, [*words, "--trials", "2", "--resume"])
    assert made == ["policy", "critic"] and load(tmp_path / "run.h5").trials == 2


def test_what_does_not_fit_is_refused_before_the_work(tmp_path, networks, capsys):
    words = asked(tmp_path / "run.h5", networks)
    assert "--remedies names 'magic'" in refused(capsys, [*words, "--remedies", "dd,magic"])
    assert "ends in .h5" in refused(capsys, asked(tmp_path / "run.html", networks))
    assert "trials is 0" in refused(capsys, [*words, "--trials", "0"])
    assert "holds no models" in refused(capsys, [*words, "--resume"])
    other = tmp_path / "other.h5"
    collect(pendulum(), 50).save(other)
    place = words.index("--rows")
    rest = [*words[:place], *words[place + 2 :]]
    rest[1] = "path_tracking"
    assert "expected 6" in refused(capsys, [*rest, "--data", str(other)])
    assert not (tmp_path / "run.h5").exists()


# The page of a test of remedies: its verdict, tables and hostile names.


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("remedies") / "run.html"
    path.write_text(render(remedies_page.page(RUN)), encoding="utf-8")
    return path


def test_every_number_of_both_tables_is_on_the_page_and_sorts(tab, page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r'data-v="([^"]+)"', text)
    for value in (*TABLE["ratio"].dropna(), *TABLE["ci_high"].dropna(), *LEVELS["value"]):
        assert repr(float(value)) in shown
    opened(tab, page)
    first = tab.locator("details details:has(.sortable)").first
    tab.locator("summary", has_text="Every number").click()
    first.locator("summary").click()
    names = [each.inner_text() for each in first.locator("th").all()]
    place = names.index("ratio") + 1
    first.locator("th button").nth(place - 1).click()
    cells = first.locator(f"td:nth-child({place})").all()
    found = [float(each.get_attribute("data-v")) for each in cells]
    assert found == sorted(found) and len(found) == 2 * len(ARMS)
    assert cells[0].inner_text() == number(found[0])


def test_a_hostile_task_is_text(tab, tmp_path):
    attack = "</title><script>document.title='broken'</script><img src=x onerror=alert(1)>"
    notes = {
        "trials": [{"trial": 0, "truth": {"status": attack, "reason": attack}, attack: attack}]
    }
    hostile = planted(trials=1, task=attack, notes=notes, environment={attack: attack})
    path = tmp_path / "run.html"
    path.write_text(render(remedies_page.page(hostile)), encoding="utf-8")
    seen = opened(tab, path)
    tab.wait_for_load_state("networkidle")
    assert attack in tab.locator("h1").inner_text()
    assert tab.locator("img").count() == 0 and tab.title() != "broken"
    assert tab.locator("script").count() == 1 and len(seen) == 1


def test_the_first_screen_names_action_price_and_more_samples(tab, tmp_path):
    found = remedies_page.page(RUN)
    check_first_screen(tab, found, tmp_path)
    assert found.screen.headline.startswith("Take spectral normalisation")
    assert [fact.text for fact in found.screen.numbers[:2]] == ["1.5×", "1×"]
    assert "4× the batch" in found.screen.numbers[2].label
