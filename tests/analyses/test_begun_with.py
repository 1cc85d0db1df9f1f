"""The table of runs that begin with given networks."""

import pandas as pd

from analyses.choice.begun_with import OWN, rates


def row(world, rate, iteration, seed, value, quantity="return"):
    return dict(
        world=world, rate=rate, iteration=iteration, seed=seed, quantity=quantity, value=value
    )


def test_returns_are_means_over_seeds_in_the_order_of_iterations():
    table = pd.DataFrame([
        row("path", 1e-6, 60, 0, -2.0), row("path", 1e-6, 60, 1, -4.0),
        row("path", 1e-6, 0, 0, -6.0), row("path", 1e-6, 0, 1, -6.0),
        row("path", OWN, 0, 0, 1.5), row("path", OWN, 250, 0, 0.7, "gain of model_all, h = 25"),
    ])  # fmt: skip
    lines = rates(table).splitlines()
    assert lines[2:] == [
        "| path | 1e-06 | −6 after 0, −3 after 60 |",
        "| path | 0.0003, falling | 1.5 after 0 |",
    ]
