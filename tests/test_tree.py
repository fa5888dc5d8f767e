"""Dependency trees: every answer against the list of all trees, closed-form counts, and what is hard for others."""

import math
import pickle
from math import comb

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.positions.algorithms import trees as algorithms

KINDS = {
    "projective": rg.tree(),
    "projective, several roots": rg.tree(single_root=False),
    "any": rg.tree(projective=False),
    "any, several roots": rg.tree(projective=False, single_root=False),
}
kinds = pytest.mark.parametrize("kind", KINDS)
SPARSE, LARGE = "half of the arcs forbidden", "large"
SCORES = {
    "few": lambda: torch.randn(3, 3, 3).double(),
    "four": lambda: torch.randn(3, 4, 4).double(),
    SPARSE: lambda: (each := torch.randn(12, 4, 4).double()).masked_fill(torch.rand_like(each) < 0.5, -math.inf),
    LARGE: lambda: 1e4 * torch.randn(6, 4, 4).double(),
}
cases = pytest.mark.parametrize("case", SCORES)


def is_tree(heads: list[int], present: list[bool], projective: bool, single_root: bool) -> bool:
    """By following every word to its root, and every arc over what is below it."""

    def above(word: int) -> list[int]:
        way = [word]
        while heads[way[-1]] not in way:
            way.append(heads[way[-1]])
        return way

    words = [word for word, there in enumerate(present) if there]
    if any((heads[word] >= 0) != there for word, there in enumerate(present)):
        return False
    if any(not present[heads[word]] for word in words):
        return False
    roots = [word for word in words if heads[word] == word]
    if any(above(word)[-1] not in roots for word in words) or (single_root and len(roots) > 1):
        return False
    between = [(heads[word], other) for word in words for other in range(*sorted((word, heads[word])))]
    return not projective or all(head in above(other) for head, other in between if present[other])


def oracle(scores: Tensor, present: Tensor, over: rg.tree) -> tuple[Tensor, Tensor]:
    """All trees of one sentence and their scores, the best first."""
    size = scores.shape[-1]
    every = torch.cartesian_prod(*[torch.arange(-1, size)] * size).view(-1, size)
    trees = [z for z in every.tolist() if is_tree(z, present.tolist(), over.projective, over.single_root)]
    totals = [sum(scores[i, j].item() for i, j in enumerate(z) if j >= 0) for z in trees]
    order = sorted(range(len(trees)), key=lambda at: -totals[at])
    kept = [at for at in order if totals[at] > -math.inf]
    return torch.tensor(trees, dtype=torch.long).view(-1, size)[kept], torch.tensor(totals, dtype=torch.float64)[kept]


def made(case: str) -> tuple[Tensor, Tensor]:
    scores = SCORES[case]()
    return scores, torch.rand(scores.shape[:-1]) < 0.85


def tree(kind: str, scores: Tensor, present: Tensor | None = None) -> rg.Tree:
    over = KINDS[kind]
    present = torch.ones(scores.shape[:-1], dtype=torch.bool) if present is None else present
    return rg.Tree(scores, present, over.projective, over.single_root)


def check_answers(kind: str, case: str) -> None:
    """Log Z, marginals, entropy, the k best, and which events are possible."""
    scores, present = made(case)
    positions = tree(kind, scores, present)
    best = positions.k_best(5)
    for row in range(len(scores)):
        trees, totals = oracle(scores[row], present[row], KINDS[kind])
        log_z, single = totals.logsumexp(0), rg.select(positions, torch.tensor([row]))
        assert_close(single.log_z[0], log_z)
        if len(trees) == 0:
            assert (single.mean == 0).all() and single.entropy() == 0 and (best[:, row] == -1).all()
            assert single.log_prob(single.mode) == 0 and (single.sample((3,)) == -1).all()
            continue
        probability = (totals - log_z).exp()
        expected = (probability[:, None, None] * (trees.unsqueeze(-1) == torch.arange(scores.shape[-1]))).sum(0)
        assert_close(single.mean[0], expected, rtol=1e-7, atol=1e-9)
        assert_close(single.log_prob(trees.unsqueeze(1))[:, 0].exp(), probability, rtol=1e-7, atol=1e-9)
        assert_close(single.entropy()[0], -torch.xlogy(probability, probability).sum(), rtol=1e-6, atol=1e-7)
        found = best[: len(trees), row]
        assert_close(single.log_prob(found.unsqueeze(1))[:, 0] + log_z, totals[:5])
        assert len(found.unique(dim=0)) == len(found) and (best[len(trees) :, row] == -1).all()


@cases
@kinds
def test_answers_are_those_of_the_list_of_all_trees(kind: str, case: str):
    check_answers(kind, case)


@kinds
def test_possible_events_are_the_trees(kind: str):
    scores, present = made("four")
    positions = tree(kind, torch.zeros_like(scores), present)
    support = positions.enumerate_support()
    for row in range(len(scores)):
        possible = positions.log_prob(support)[:, row] > -math.inf
        trees = oracle(torch.zeros(4, 4), present[row], KINDS[kind])[0]
        assert sorted(support[possible, row].tolist()) == sorted(trees.tolist())


@kinds
def test_five_words(kind: str):
    scores = torch.randn(1, 5, 5).double()
    positions, (trees, totals) = tree(kind, scores), oracle(scores[0], torch.ones(5).bool(), KINDS[kind])
    assert_close(positions.log_z[0], totals.logsumexp(0))
    assert (positions.k_best(20)[:, 0] == trees[:20]).all()


@kinds
def test_divergence(kind: str):
    scores = torch.randn(2, 1, 4, 4).double()
    p, q = (tree(kind, each) for each in scores)
    trees = oracle(scores[0, 0], torch.ones(4).bool(), KINDS[kind])[0].unsqueeze(1)
    assert_close(p.kl(q), (p.log_prob(trees).exp() * (p.log_prob(trees) - q.log_prob(trees))).sum(0))


@pytest.mark.parametrize("words", [1, 2, 3, 6, 9])
def test_counts_of_trees(words: int):
    """Cayley's n^(n-1) and (n+1)^(n-1), and of projective trees the ternary numbers (Yuret 1998)."""
    counts = {kind: tree(kind, torch.zeros(words, words).double()).log_z.exp().item() for kind in KINDS}
    assert_close(counts["any"], float(words ** (words - 1)))
    assert_close(counts["any, several roots"], float((words + 1) ** (words - 1)))
    assert_close(counts["projective"], float(comb(3 * words - 2, words - 1) / words))
    assert_close(counts["projective, several roots"], float(comb(3 * words, words) / (2 * words + 1)))


@cases
@kinds
def test_samples_are_trees_and_come_as_often_as_they_should(kind: str, case: str):
    scores, present = made(case)
    positions = tree(kind, scores, present)
    z = positions.sample((2000,))
    assert positions.log_prob(z).isfinite().all()
    spread = 4.5 * (positions.mean * (1 - positions.mean) / 2000).clamp(min=0).sqrt() + 1e-3
    assert ((positions.indicator(z).mean(0) - positions.mean).abs() < spread).all()


@pytest.mark.parametrize("gap", [30.0, 800.0, 1e4])
@kinds
def test_words_that_prefer_each_other(kind: str, gap: float):
    """All best heads go round: every tree gives up much, and what remains must still be told apart."""
    scores = torch.randn(1, 4, 4).double()
    for one, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        scores[0, one, other] = gap
    trees, totals = oracle(scores[0], torch.ones(4).bool(), KINDS[kind])
    positions = tree(kind, scores)
    expected = ((totals - totals.logsumexp(0)).exp()[:, None, None] * torch.nn.functional.one_hot(trees, 4)).sum(0)
    assert_close(positions.mean[0], expected, rtol=1e-6, atol=1e-9)
    assert (positions.mode[0] == trees[0]).all()
    assert ((positions.indicator(positions.sample((2000,))).mean(0)[0] - expected).abs() < 0.06).all()


def test_the_single_root_is_exact_where_dropping_roots_is_not():
    """Of two roots the better one would be kept, but the other can hang from nothing that is worth as much."""
    scores = torch.tensor([[11.0, 9.0], [1.0, 10.0]])
    for projective in (True, False):
        assert rg.tree(projective, single_root=False)(scores).mode.tolist() == [0, 1]
        assert rg.tree(projective)(scores).mode.tolist() == [1, 1]


@kinds
def test_a_constant_for_all_arcs_of_a_word_changes_nothing(kind: str):
    scores, shift = torch.randn(2, 5, 5), torch.tensor([0.0, -10.0, 300.0, 1e4, -3e4]).unsqueeze(-1)
    first, second = tree(kind, scores), tree(kind, scores + shift)
    assert_close(second.mean, first.mean, rtol=1e-2, atol=2e-3)  # as much as the sums above lose
    exact = tree(kind, scores.double()), tree(kind, scores.double() + shift)
    assert_close(exact[1].mean, exact[0].mean, rtol=1e-9, atol=1e-10)
    assert_close(exact[1].log_z, exact[0].log_z + shift.sum())


@kinds
def test_padding_changes_nothing_and_rows_are_independent(kind: str):
    scores, lengths = torch.randn(4, 5, 5).double(), torch.tensor([0, 1, 3, 5])
    positions = KINDS[kind](scores, rg.padding(lengths, 5))
    for row, length in enumerate(lengths.tolist()):
        alone = KINDS[kind](scores[row, :length, :length])
        assert_close(positions.log_z[row], alone.log_z)
        assert_close(positions.mean[row, :length, :length], alone.mean)
        assert (positions.mean[row, length:] == 0).all() and (positions.mean[row, :, length:] == 0).all()
        assert positions.mode[row].tolist() == [*alone.mode.tolist(), *[-1] * (5 - length)]
        assert (positions.sample()[row, length:] == -1).all()


@kinds
def test_words_between_may_be_absent(kind: str):
    scores, there = torch.randn(5, 5).double(), torch.tensor([True, False, True, True, False])
    inside = KINDS[kind](scores, there.unsqueeze(-1) & there)
    alone = KINDS[kind](scores[there][:, there])
    assert_close(inside.log_z, alone.log_z)
    assert_close(inside.mean[there][:, there], alone.mean)
    assert inside.mode[~there].tolist() == [-1, -1]


@kinds
def test_the_mask_forbids_arcs(kind: str):
    scores, mask = torch.randn(4, 4).double(), torch.ones(4, 4, dtype=torch.bool)
    mask[0, 1] = mask[2, 2] = False
    assert_close(KINDS[kind](scores, mask).log_z, KINDS[kind](scores.masked_fill(~mask, -math.inf)).log_z)
    assert KINDS[kind](scores, mask).mean[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@kinds
def test_low_precision(kind: str, dtype: torch.dtype):
    scores = torch.randn(3, 6, 6).to(dtype).masked_fill(torch.rand(3, 6, 6) < 0.1, -math.inf)
    positions, exact = tree(kind, scores), tree(kind, scores.double())
    assert positions.mean.dtype == dtype and positions.log_z.dtype == torch.float32
    assert_close(positions.mean.double(), exact.mean, rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert_close(positions.log_z.double(), exact.log_z, rtol=1e-5, atol=1e-5)
    assert (positions.mode == exact.mode).all()


@pytest.mark.filterwarnings("ignore")  # theirs
def test_it_agrees_with_torch_struct_where_that_is_right():
    """Which has the heads in the rows, and adds 1e-5 to every weight where trees need not be projective."""
    from torch_struct import DependencyCRF, NonProjectiveDependencyCRF

    scores = torch.randn(2, 5, 5)
    theirs = scores.mT.contiguous().requires_grad_()
    assert_close(rg.tree()(scores).mean, DependencyCRF(theirs, multiroot=False).marginals.mT, rtol=1e-4, atol=1e-5)
    several = NonProjectiveDependencyCRF(theirs.double(), multiroot=True).marginals.mT.float()
    assert_close(rg.tree(False, single_root=False)(scores).mean, several, rtol=1e-3, atol=1e-3)


class TestAttention:
    def test_a_word_reads_its_head_and_a_root_itself(self):
        words = torch.randn(2, 4, 3)
        for read in (rg.mean, rg.sample, rg.mode):
            out = rg.attend(words, words, words, over=rg.tree(), read=read)
            if out.z is not None:
                assert_close(out.context, words.take_along_dim(out.z.unsqueeze(-1), 1))
                assert out.log_prob.shape == (2,)
            else:
                assert_close(out.context, out.weights @ words)

    def test_nothing_is_changed(self):
        scores, mask = torch.randn(2, 4, 4), rg.padding(torch.tensor([2, 4]), 4)
        before = scores.clone(), mask.clone()
        positions = rg.tree()(scores, mask)
        _ = positions.mean, positions.mode, positions.sample(), positions.entropy(), positions.k_best(2)
        assert (scores == before[0]).all() and (mask == before[1]).all()

    def test_it_trains_a_parser(self):
        """The gradient of the loss is what is expected less what is seen."""
        scores, gold = torch.randn(2, 4, 4, requires_grad=True), torch.tensor([[1, 1, 1, 2], [0, 0, 3, 0]])
        positions = rg.tree()(scores)
        (slope,) = torch.autograd.grad(-positions.log_prob(gold).sum(), scores)
        assert_close(slope, positions.mean - positions.indicator(gold))

    def test_it_is_pickled_and_compared(self):
        assert pickle.loads(pickle.dumps(rg.tree(False))) == rg.tree(projective=False) != rg.tree()

    def test_scores_that_are_not_square_are_refused(self):
        with pytest.raises(
            ValueError, match=r"^tree expected scores of as many words as heads, but got \(2, 3, 4\)\.$"
        ):
            rg.tree()(torch.zeros(2, 3, 4))

    def test_trees_of_some_words_are_not_joined(self):
        with pytest.raises(TypeError, match="score expected to carry nothing, as Tree spans all queries"):
            rg.tree()(torch.zeros(2, 2)).then(rg.tree()(torch.zeros(2, 2)))


class TestMutants:
    """Each breaks one clause, which must then be found."""

    @pytest.mark.parametrize("name", ["log_z", "mean", "_is_structure"])
    def test_a_wrong_answer(self, name: str, monkeypatch: pytest.MonkeyPatch):
        law = check_answers if name != "_is_structure" else lambda kind, _: test_possible_events_are_the_trees(kind)
        right = getattr(rg.Tree, name)
        wrong = {
            "log_z": property(lambda self: right.fget(self) + 1e-3),
            "mean": property(lambda self: right.fget(self).mT),
            "_is_structure": lambda self, z: (z >= 0).all(-1),
        }[name]
        monkeypatch.setattr(rg.Tree, name, wrong)
        with pytest.raises(AssertionError):
            law("any", "four")

    def test_trees_of_another_kind(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(KINDS, "any", rg.tree())
        right = rg.Tree._parts.fget
        monkeypatch.setattr(rg.Tree, "_parts", property(lambda self: (*right(self)[:2], False, True)))
        with pytest.raises(AssertionError):
            check_answers("any", "four")

    def test_a_draw_that_takes_the_best_heads(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(rg.Tree, "sample", lambda self, shape: self.scores.argmax(-1).expand(*shape, -1, -1))
        with pytest.raises(AssertionError):
            test_samples_are_trees_and_come_as_often_as_they_should("any", "four")


@pytest.mark.parametrize("roots", [0.0, -4.0, -12.0, -40.0, -torch.inf])
def test_the_gradient_of_the_marginals_where_roots_are_likely_and_where_they_are_not(roots: float):
    """Where they are not, the inverse of the Laplacian is large, and what is asked of it would be lost."""
    torch.manual_seed(0)
    scores, along = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scores.diagonal(dim1=-2, dim2=-1).add_(roots)
    scores[:, 0, 0].clamp_(min=-40.0)  # or there would be no tree
    scores[1, 2, 3] = -torch.inf
    found, plain = (
        torch.autograd.grad(answer(leaf, torch.ones(3, 8, dtype=torch.bool), False, False), leaf, along)[0]
        for answer in (algorithms.marginals, algorithms.plain_marginals)
        for leaf in [scores.clone().requires_grad_()]
    )
    assert_close(found, plain, rtol=0, atol=1e-9)
    assert plain.abs().max() > 0.1
