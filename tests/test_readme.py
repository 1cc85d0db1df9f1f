"""What the README shows runs as printed, and what pages show of stochastic policies."""

import re
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest
import torch
from torch import nn

import gradlab
from gradlab.fitting import critics, policies

PAGES = ("own_task.md", "trainers.md")
ACTORS = ("class Noisy", "squashed(", "parts_of(")
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_api_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policies, "UPDATES", 200)
    monkeypatch.setattr(critics, "UPDATES", 50)
    monkeypatch.setattr(critics, "TRAJECTORIES", 64)
    first = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)[0]
    small = first.replace("starts=512", "starts=8").replace("horizon=25", "horizon=3")
    assert small != first
    exec(compile(small, "README.md", "exec"), {})
    assert (tmp_path / "mpg.h5").exists()
    assert (tmp_path / "mpg.html").exists()


@pytest.mark.slow
def test_the_lines_about_stochastic_policies_run():
    import stable_baselines3

    pages = [(README.parent / "docs/howto" / name).read_text() for name in PAGES]
    shown = [block for page in pages for block in re.findall(r"```python\n(.*?)```", page, re.S)]
    blocks = [block for block in shown if any(word in block for word in ACTORS)]
    assert len(blocks) == len(ACTORS)
    model = stable_baselines3.SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), device="cpu")
    ONE = torch.eye(3, dtype=torch.float64)
    task = gradlab.tasks.linear_quadratic(
        A=0.8 * ONE, B=ONE[:, :1], Q=ONE, R=ONE[:1, :1], noise_covariance=0.01 * ONE,
        start_mean=ONE[0], start_covariance=ONE, discount=0.8,
    )  # fmt: skip
    names = {"torch": torch, "sac_actor": Sac(), "ppo_agent": Ppo(), "td3_actor": Ppo().actor_mean}
    names |= {"model": model, "gradlab": gradlab, "task": replace(task, horizon=1)}
    state, noise = torch.zeros(4, 3), torch.ones(4, 1)
    for block in blocks:
        short = block.replace("parts.critic)", "parts.critic, starts=8, judges=8)")
        exec(compile(short, "README.md", "exec"), names)
    assert names["policy"](state, noise).shape == names["Noisy"](Sac(), 1)(state, noise).shape
    assert len(names["profile"].table())


class Sac(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.deviation = nn.Linear(3, 1), nn.Linear(3, 1)
        self.action_scale, self.action_bias = torch.ones(1), torch.zeros(1)

    def forward(self, state):
        return self.mean(state), self.deviation(state).tanh()


class Ppo(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor_mean, self.actor_logstd = nn.Linear(3, 1), nn.Parameter(torch.zeros(1, 1))


def test_the_readme_is_read_in_two_minutes():
    assert len(README.read_text()) <= 6000


def test_files_that_the_readme_links_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing


def test_installation_papers_and_citation_are_on_the_front():
    text = README.read_text()
    title = re.search(r'^title: "(.*)"$', (README.parent / "CITATION.cff").read_text(), re.M)
    assert text.index("pip install -c constraints.txt .") < text.index("](docs/papers.md)")
    assert f"title = {{{title[1]}}}" in text


@pytest.mark.parametrize("words", ["make demo", "make test"])
def test_the_two_commands_are_in_the_makefile(words):
    assert words in README.read_text()
    assert f"\n{words.split()[1]}:" in (README.parent / "Makefile").read_text()
