"""Constituency trees: all of them by hand, labels, masks, and what is said of bad input."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg

LABELS = pytest.mark.parametrize("labels", [None, 2])
LENGTHS = torch.tensor([3, 1, 0, 2])


def scores_of(labels: int | None, words: int = 3, batch: tuple[int, ...] = (4,)) -> Tensor:
    return 2 * torch.randn(*batch, words, words, *([labels] if labels else []), dtype=torch.float64)


def padded(labels: int | None) -> rg.Constituency:
    """Rows of 3, 1, 0 and 2 words."""
    return rg.constituency(labels)(scores_of(labels), rg.padding(LENGTHS, 3).expand(4, 3, 3))


def splits(first: int, last: int) -> list[list[tuple[int, int]]]:
    """The spans of all binary trees, by their definition."""
    if first == last:
        return [[(first, last)]]
    return [
        [(first, last), *one, *other]
        for middle in range(first, last)
        for one, other in itertools.product(splits(first, middle), splits(middle + 1, last))
    ]


@LABELS
def test_it_is_the_sum_over_all_trees(labels: int | None):
    scores = scores_of(labels, 4, ())
    table = scores.unsqueeze(-1) if labels is None else scores
    trees = splits(0, 3)
    assert len(trees) == 5
    totals = torch.stack([sum(table[i, j].logsumexp(-1) for i, j in tree) for tree in trees])
    positions = rg.constituency(labels)(scores)
    assert_close(positions.log_z, totals.logsumexp(0))
    best = trees[int(torch.stack([sum(table[i, j].amax() for i, j in tree) for tree in trees]).argmax())]
    assert {tuple(span) for span in (positions.mode >= 0).nonzero().tolist()} == set(best)
    assert all(positions.mode[i, j] == table[i, j].argmax() for i, j in best)


@LABELS
def test_the_answers_are_sums_over_the_support(labels: int | None):
    p, q = padded(labels), padded(labels)
    support = p.enumerate_support()
    log_prob = p.log_prob(support)
    probability = log_prob.exp()
    assert_close(probability.sum(0), torch.ones(4, dtype=torch.float64))
    indicator = p.indicator(support)
    assert_close((probability.view(*probability.shape, *[1] * (indicator.dim() - 2)) * indicator).sum(0), p.mean)
    assert_close(-torch.xlogy(probability, probability).sum(0), p.entropy())
    crossed = (probability * q.log_prob(support).masked_fill(probability == 0, 0)).sum(0)
    assert_close(-p.entropy() - crossed, p.kl(q))
    best = log_prob.sort(0, descending=True).values
    found = p.k_best(3)
    real = (found >= 0).flatten(2).any(-1) | (torch.arange(3).unsqueeze(-1) == 0)
    assert_close(p.log_prob(found).where(real, -torch.inf).exp(), best[:3].exp())


@LABELS
def test_draws_come_as_often_as_they_should(labels: int | None):
    """Five standard deviations, on both roads."""
    positions = padded(labels)
    for plain in (False, True):
        if plain:
            with rg.plain_road():
                z = positions.sample((3000,))
        else:
            z = positions.sample((3000,))
        assert (positions.log_prob(z) > -torch.inf).all()
        assert (positions.indicator(z).mean(0) - positions.mean).abs().max() < 5 * 0.5 / 3000**0.5


@LABELS
def test_an_absent_word_is_no_part_of_the_tree(labels: int | None):
    """What is left is the tree of the others."""
    scores, present = scores_of(labels, 4, ()), torch.tensor([True, False, True, True])
    positions = rg.constituency(labels)(scores, present)
    left = rg.constituency(labels)(scores[present][:, present])
    assert_close(positions.log_z, left.log_z)
    assert_close(positions.mean[present][:, present], left.mean)
    assert (positions.mean[~present] == 0).all() and (positions.mean[:, ~present] == 0).all()
    assert torch.equal(positions.mode[present][:, present], left.mode)
    assert (positions.mode[~present] == -1).all()


def test_a_forbidden_span_is_in_no_tree():
    allowed = torch.ones(4, 4, dtype=torch.bool)
    allowed[1, 2] = False
    positions = rg.constituency()(scores_of(None, 4, ()), allowed)
    assert positions.mean[1, 2] == 0 and positions.log_z > -torch.inf
    allowed[0, 3] = False  # nothing holds all words
    none = rg.constituency()(scores_of(None, 4, ()), allowed)
    assert none.log_z == -torch.inf and (none.mode == -1).all() and (none.mean == 0).all()
    assert none.log_prob(none.mode) == 0 and none.entropy() == 0


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 0), (1, 1), (2, 2), (0, 2)],  # one less
        [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2)],  # that cross, and no whole
        [(0, 0), (1, 1), (0, 1), (1, 2), (0, 2)],  # a word is none
        [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)],  # one more
    ],
)
def test_what_is_no_tree_is_impossible(spans: list[tuple[int, int]]):
    z = torch.full((3, 3), -1)
    for first, last in spans:
        z[first, last] = 0
    positions = rg.constituency()(torch.zeros(3, 3))
    assert positions.log_prob(z) == -torch.inf
    assert_close(positions.log_prob(positions.mode), torch.tensor(0.5).log())


def test_trees_that_cross_are_none():
    """Of four words, as many spans as a tree has, two of which cross."""
    z = torch.full((4, 4), -1)
    for first, last in [(0, 0), (1, 1), (2, 2), (3, 3), (0, 3), (0, 2), (1, 3)]:
        z[first, last] = 0
    assert rg.constituency()(torch.zeros(4, 4)).log_prob(z) == -torch.inf


def test_gradients_train_a_parser():
    scores = torch.zeros(4, 4, 3, requires_grad=True)
    gold = rg.constituency(3)(torch.randn(4, 4, 3)).mode
    for _ in range(60):
        (slope,) = torch.autograd.grad(rg.constituency(3)(scores).log_prob(gold), scores)
        scores = (scores + slope).detach().requires_grad_()
    assert torch.equal(rg.constituency(3)(scores).mode, gold)
    assert rg.constituency(3)(scores).log_prob(gold).exp() > 0.9


@LABELS
def test_the_second_derivative_is_right(labels: int | None):
    scores = scores_of(labels, 3, (2,)).requires_grad_()
    answers = lambda scores: (rg.constituency(labels)(scores).mean, rg.constituency(labels)(scores).entropy())  # noqa: E731
    assert torch.autograd.gradcheck(answers, scores, fast_mode=True)
    assert torch.autograd.gradgradcheck(answers, scores, fast_mode=True)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_of_no_words_there_is_one_tree(batch: tuple[int, ...]):
    found = rg.constituency(2)(torch.zeros(*batch, 0, 0, 2))
    assert found.log_z.shape == found.entropy().shape == batch
    assert (found.log_z == 0).all() and (found.entropy() == 0).all()
    assert found.mode.shape == found.sample().shape == (*batch, 0, 0)
    assert (found.log_prob(found.mode) == 0).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: rg.constituency(0), "labels of at least 1, or None, but got 0"),
        (lambda: rg.constituency()(torch.zeros(2, 3, 4)), r"shape \(\*B, K, K\), but got \(2, 3, 4\)"),
        (lambda: rg.constituency(5)(torch.zeros(3, 3)), r"shape \(\*B, K, K, 5\), but got \(3, 3\)"),
        (lambda: rg.constituency(5)(torch.zeros(3, 3, 4)), r"shape \(\*B, K, K, 5\), but got \(3, 3, 4\)"),
        (
            lambda: rg.constituency()(torch.zeros(4, 4, 4), torch.ones(4, 4, dtype=torch.bool)),
            "may be the words of each row as well as the spans of all rows",
        ),
        (
            lambda: rg.constituency()(torch.zeros(3, 3)).log_prob(torch.full((3, 3), 1)),
            "labels from 0 to 0 where there is a span, or -1 for none, but got 1",
        ),
        (lambda: rg.constituency(9)(torch.zeros(9, 9, 9)).enumerate_support(), "at most 100000 events"),
    ],
)
def test_what_is_wrong_is_said(call, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        call()
