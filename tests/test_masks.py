"""Every mask against its sentence, position by position."""

import itertools
import math

import examples
import pytest
import torch

import regard as rg

STRUCTURES = "segments", "chain", "semi_markov", "tree", "constituency", "ctc", "forced_alignment"
"""Whose masks are of words and labels."""


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


OVERS = {name: examples.OVERS[name] for name in examples.OVERS if not name.startswith(STRUCTURES)}


@pytest.mark.unchecked
@pytest.mark.parametrize("over", OVERS)
@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(4, 5, 6, dtype=torch.uint8), TypeError, "mask expected dtype bool.*but got torch.uint8"),
        (torch.ones(4, 5, 6), TypeError, "mask expected dtype bool.*but got torch.float32"),
        ([[True]], TypeError, "mask expected dtype bool.*but got list"),
        (torch.ones(4, 6).bool(), ValueError, r"told apart.*got \(4, 6\).*mask\[\.\.\., None, :\].*mask\[None\]"),
        (torch.ones(5).bool(), ValueError, r"mask expected the shape.*got \(5,\)"),
        (torch.tensor(True), ValueError, r"mask expected the shape.*got \(\)"),
        (torch.ones(3, 6).bool(), ValueError, r"mask expected the shape.*got \(3, 6\)"),
        (torch.ones(1, 4, 5, 6).bool(), ValueError, r"mask expected the shape.*got \(1, 4, 5, 6\)"),
        (torch.ones(4, 5, 5).bool(), ValueError, r"mask expected the shape.*got \(4, 5, 5\)"),
    ],
)
def test_every_over_checks_its_mask(over: str, mask, error, message: str):
    scores = torch.randn(4, 4 if mask is not None and "apart" in message else 5, 6).to(torch.float64)
    step = rg.Step(torch.ones(4, scores.shape[1], 5).double(), torch.ones(4, 6, 5).double(), training=False)
    with pytest.raises(error, match=message):
        examples.at(OVERS[over](), step)(scores, mask)


def test_a_mask_of_queries_is_that_of_every_row_where_it_cannot_be_padding():
    scores = torch.randn(2, 5, 6)
    assert (rg.softmax(scores, rg.causal(5, 6)).mean == rg.softmax(scores, rg.causal(5, 6)[None]).mean).all()
    places = torch.arange(6) < 4
    assert (rg.softmax(scores, places).mean == rg.softmax(scores, places.expand(2, 5, 6)).mean).all()


@pytest.mark.unchecked
@pytest.mark.parametrize("attention", [lambda: rg.Attention(), lambda: rg.MultiHead(6, 2)])
def test_padding_that_passes_for_a_mask_of_queries_is_refused(attention):
    words, padding = torch.randn(3, 3, 6), torch.arange(3) < torch.tensor([[1], [2], [3]])
    with pytest.raises(
        ValueError, match=r"told apart from that of padding, \(B, K\), but got \(3, 3\).*causal\(n\)\[None\]"
    ):
        attention().prepare(words, words, padding)
    attention().prepare(words, words, padding[:, None, :])
    attention().prepare(words, words, rg.causal(3)[None])


PARTS = {**{f"{score}, softmax": (score, "softmax") for score in examples.SCORES if score != "biased"},
         **{f"additive, {over}": ("additive", over) for over in OVERS}}  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("read", ["mean", "mode", "sample"])
@pytest.mark.parametrize("parts", PARTS)
def test_what_no_query_may_look_at_may_be_anything(parts: str, read: str, bad: float):
    """The same contexts and gradients as of zeros there, which are finite."""
    score, over = PARTS[parts]
    attention = rg.Attention(examples.SCORES[score](), examples.OVERS[over](), examples.READS[read]()).eval()
    check_hidden(attention, bad)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("score", ["scaled_dot", "additive"])
@pytest.mark.parametrize("over", [rg.softmax, rg.local(2), rg.local(2, rg.Predicted(5, 4)), rg.entmax(1.5)])
def test_nor_by_a_fast_road(over, score: str, bad: float, size: str):
    kind = {"scaled_dot": rg.scaled_dot, "additive": rg.Additive(5, 5, 16)}[score]
    queries, places = (3, 8) if size == "small" else (100, 1500)
    check_hidden(rg.Attention(kind, over), bad, queries, places, torch.float32)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nor_behind_projections_for_heads(bad: float):
    check_hidden(rg.MultiHead(6, 2), bad, width=6, dtype=torch.float32)


def check_hidden(attention, bad: float, queries=3, places=4, dtype=torch.float64, width=5) -> None:
    query, keys, values = (torch.randn(2, size, width, dtype=dtype) for size in (queries, places, places))
    found = []
    for there in (bad, 0.0):
        keys[1, places // 2 :] = values[1, places // 2 :] = there
        leaves = [each.clone().requires_grad_() for each in (query, keys, values)]
        torch.manual_seed(0)
        mask = rg.padding(torch.tensor([places, places // 2]), places)
        out = attention(leaves[0], attention.prepare(*leaves[1:], mask))
        total = out.context.square().sum() + (0 if out.log_prob is None else out.log_prob.sum())
        wanted = [*leaves, *attention.parameters()]
        found.append([out.context, *torch.autograd.grad(total, wanted, allow_unused=True)])
    for one, other in zip(*found, strict=True):
        if one is not None:
            assert one.isfinite().all()
            torch.testing.assert_close(one, other)


def test_a_reader_of_places_that_hold_nan():
    class Reader:
        def read(self, z):
            return torch.where(z < 2, 1.0, torch.nan).unsqueeze(-1)

    for over in (rg.softmax, rg.local(1)):
        out = rg.attend(
            torch.ones(1, 1, 2), torch.ones(1, 3, 2), Reader(), over=over, mask=rg.padding(torch.tensor([2]), 3)
        )
        assert out.context.item() == 1


@pytest.mark.parametrize("over", OVERS)
def test_a_query_of_nan_reads_nan(over: str):
    query, keys, values = examples.inputs()
    query[0, 1] = math.nan
    for read in ("mean", "mode", "sample"):
        out = rg.attend(
            query, keys, values, score=rg.dot, over=OVERS[over](), read=examples.READS[read](), training=False
        )
        assert out.context[0, 1].isnan().all() and out.context[1].isfinite().all()
        assert out.log_prob is None or (out.log_prob[0].isnan().any() and out.log_prob[1].isfinite().all())
