"""Nearest neighbours, against every distance taken by hand."""

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import Neighbours

SCALE = np.array([1.0, 0.5, 2.0])


def points(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3))


def by_hand(rows, count):
    scaled = rows / SCALE
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1)[:, :count]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4], [100], [10, 30, 70, 150, 151]])
def test_neighbours_are_the_nearest_however_the_points_came(cuts):
    rows, near = points(200), Neighbours(5, SCALE)
    for part in np.split(rows, cuts):
        near.add(part)
    index, distance = by_hand(rows, 5)
    np.testing.assert_array_equal(near.index, index)
    np.testing.assert_allclose(near.distance, distance, rtol=1e-12)


def test_repeated_points_are_counted_and_no_ones_neighbour_at_distance_zero():
    rows = points(50)
    near = Neighbours(3, SCALE)
    near.add(np.concatenate([rows, rows[[4, 4, 7]]]))
    near.add(rows[[9]])
    assert near.repeated == 4 and len(near) == 54
    index, distance = by_hand(rows, 3)
    np.testing.assert_array_equal(near.index[:50], index)
    np.testing.assert_array_equal(near.index[50:], index[[4, 4, 7, 9]])
    np.testing.assert_allclose(near.distance[50:], distance[[4, 4, 7, 9]])


def test_what_cannot_be_searched_is_refused():
    near = Neighbours(3, SCALE)
    near.add(np.concatenate([points(3), points(3)]))
    with pytest.raises(InputError, match=r"data has 3 different \(s, a\)"):
        _ = near.index
    with pytest.raises(InputError, match="finite"):
        near.add(np.full((1, 3), np.nan))
    with pytest.raises(InputError, match="an integer ≥ 1"):
        Neighbours(0, SCALE)
    with pytest.raises(InputError, match="positive"):
        Neighbours(1, np.zeros(3))
