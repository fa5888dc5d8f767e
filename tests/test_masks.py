"""Every mask against its sentence, position by position."""

import itertools

import pytest
import torch

import regard as rg


def test_padding():
    mask = rg.padding(torch.tensor([[0, 1], [3, 5]]), 4)
    assert mask.shape == (2, 2, 1, 4)
    assert mask.sum(-1).squeeze(-1).tolist() == [[0, 1], [3, 4]]
    assert mask[1, 0, 0].tolist() == [True, True, True, False]


@pytest.mark.parametrize(("queries", "places"), [(1, 1), (4, 4), (2, 5), (1, 6)])
def test_causal(queries: int, places: int):
    mask = rg.causal(queries, places)
    for q, k in itertools.product(range(queries), range(places)):
        assert mask[q, k] == (k <= places - queries + q)


@pytest.mark.parametrize("width", [1, 2, 3, 9])
def test_a_window_of_w_holds_w_positions_the_current_one_included(width: int):
    mask = rg.window(width, 3, 6)
    assert mask.sum(-1).tolist() == [min(width, 4), min(width, 5), min(width, 6)]
    assert mask[:, 3:].diagonal().all() and not mask[0, 4]


def test_document():
    mask = rg.document(torch.tensor([[0, 1]]), torch.tensor([[1, 1, 0]]))
    assert mask.tolist() == [[[False, False, True], [True, True, False]]]


def test_masks_combine():
    either = rg.causal(3) & ~rg.window(1, 3) | rg.document(torch.tensor([0, 1, 0]))
    assert either.int().tolist() == [[1, 0, 1], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("mask", [lambda: rg.causal(3, 2), lambda: rg.window(1, 3, 2)])
def test_more_queries_than_places_are_refused(mask):
    with pytest.raises(ValueError, match="at least as many places as queries, but got 2 places for 3 queries"):
        mask()


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="window expected a width of at least 1, the query's own position, but got 0"):
        rg.window(0, 3)


def test_a_mask_hides_places_from_the_weights():
    weights = rg.attend(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2, 3, 4), mask=rg.causal(3)).weights
    assert (weights[:, ~rg.causal(3)] == 0).all() and (weights[:, rg.causal(3)] > 0).all()
