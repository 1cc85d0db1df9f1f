"""Verdict and page of a comparison of Jacobians."""

import pytest
import torch

import gradlab
from gradlab import systems
from gradlab.reporting import report
from gradlab.reporting.page import render
from gradlab.tools.jacobians import page as jacobian_page
from gradlab.tools.jacobians.page import verdict
from gradlab.tools.jacobians.result import load
from gradlab.wording import percent, two
from tests.first_screens import check_first_screen, opened, small
from tests.planted_tools import compared, said


@pytest.fixture(scope="module")
def run():
    return compared()


def test_the_verdict_names_blocks_entries_and_growth(run):
    error = run.rows("block", quantity="relative error", block="A")["value"].iloc[0]
    assert f"∂s'/∂s {percent(error)}" in said(run, "blocks").text
    assert (
        "its own derivatives; tested: those of its step at 96 states"
        in said(run, "certificate").text
    )
    worst = run.rows("entry", quantity="effect").sort_values("value").iloc[-1]
    assert f"Error of {worst['output']} by {worst['input']}" in said(run, "entry").text
    rate = run.rows("exponent", block="closed", output="1")["value"].iloc[0]
    assert f"λ = {two(rate)}" in said(run, "growth").text
    assert "give a measurement" in said(run, "variance").text
    assert all("nan" not in each.text for each in verdict(run))


@pytest.mark.parametrize("model", [None, systems.Pendulum(mass=1.2)])
def test_a_simulator_whose_every_jacobian_is_masked_is_said_to_show_nothing(model, tmp_path):
    spin = torch.tensor([[1.5, 8.0], [1.4, 8.0], [1.6, 8.0], [1.55, 8.0]], dtype=torch.float64)
    push = torch.nn.Linear(2, 1).double()
    torch.nn.init.zeros_(push.weight), torch.nn.init.constant_(push.bias, 2.0)
    run = gradlab.compare_jacobians(systems.Pendulum(), model, spin, push, horizon=1)
    sentence = said(run, "certificate")
    assert not sentence.decided
    assert "none can be used; 4 steps from 4 starts" in sentence.text
    assert {each.about for each in verdict(run)}.isdisjoint({"blocks", "product", "entry"})
    assert report(run.save(tmp_path / "run.h5")).exists()


def test_a_page_is_rebuilt_from_its_file_and_hostile_names_stay_text(tmp_path):
    hostile = compared(names=("<script>alert(1)</script>", "$x^2$"))
    path = hostile.save(tmp_path / "run.h5")
    page = report(path)
    text = page.read_text()
    assert "<script>alert" not in text
    assert "How good are these Jacobians?" in text
    assert "relative Frobenius error" in text
    assert (tmp_path / "run_figures/growth.png").exists()
    assert [each.text for each in verdict(load(path))] == [each.text for each in verdict(hostile)]


def test_panels_of_a_model_appear_only_with_one(run):
    names = {panel.name for panel in jacobian_page.panels(run)}
    assert {
        "entries-error",
        "entries-effect",
        "distance",
        "chain-error",
        "model-error",
        "growth",
    } <= names
    alone = {panel.name for panel in jacobian_page.panels(compared(model=False))}
    assert alone == {"entries-size", "time", "growth", "exponents"}


LQR = ["linear_quadratic", "--set", "A=[[0.9]]", "B=[[0.5]]", "Q=[[1]]", "R=[[1]]"]


def test_the_finding_stands_on_the_first_screen(tab, tmp_path):
    run = compared()
    found = jacobian_page.page(run)
    check_first_screen(tab, found, tmp_path)
    effects = run.rows("entry", quantity="effect").sort_values("value").iloc[-1]
    assert f"{effects['output']} by {effects['input']}" in found.screen.headline
    alone = jacobian_page.page(compared(model=False))
    check_first_screen(tab, alone, tmp_path)
    assert alone.screen.figure == "growth"  # of which the headline speaks


def test_numbers_of_the_maps_can_be_read_on_a_phone(tab, run, tmp_path):
    (tmp_path / "page.html").write_text(render(jacobian_page.page(run)), encoding="utf-8")
    opened(tab, tmp_path / "page.html", width=420)
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert not small(tab)
