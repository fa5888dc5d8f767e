"""Semi-Markov chains with scores of whole spans, by where they begin, their width and their label: by enumeration."""

import itertools
import math

import pytest
import torch
from roads import answers, plain_answers
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg

B, T, W, S = 2, 4, 3, 2
PRESENT = {"all": [[1, 1, 1, 1]] * 2, "lengths": [[1, 1, 1, 0], [0, 0, 0, 0]], "holes": [[1, 0, 1, 1], [1, 1, 1, 0]]}
presents = pytest.mark.parametrize("present", PRESENT)


def scores(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def made(present: str = "all", forbidden: float = 0.0, labels: int = S) -> rg.SemiMarkov:
    spans = scores(B, T, W, labels)
    spans = spans.masked_fill(torch.rand(spans.shape) < forbidden, -math.inf)
    return rg.SemiMarkov(scores(B, T, labels), scores(B, labels, labels), spans, torch.tensor(PRESENT[present]).bool())


def every(positions: rg.SemiMarkov, row: int) -> dict[tuple[int, ...], float]:
    """The score of each labelling of a row, span by span."""
    nodes, links, spans, present = (
        each[row] for each in (positions.scores, positions.transitions, positions.durations, positions.present)
    )
    choices = [range(nodes.shape[-1]) if there else (-1,) for there in present]
    found = {}
    for z in itertools.product(*choices):
        total, begin, before = 0.0, 0, -1
        for label, run in itertools.groupby(z):
            width = len(list(run))
            if label >= 0:
                if width > W:
                    total = -math.inf
                    break
                total += float(nodes[begin : begin + width, label].sum() + spans[begin, width - 1, label])
                total += float(links[before, label]) if before >= 0 else 0.0
            begin, before = begin + width, label
        found[z] = total
    return found


@presents
@pytest.mark.parametrize("forbidden", [0.0, 0.3])
@pytest.mark.parametrize("road", ["kernel", "plain"])
def test_every_segmentation(present: str, forbidden: float, road: str):
    positions = made(present, forbidden)
    if road == "plain":
        with rg.plain_road():
            check(positions)
    else:
        check(positions)


def check(positions: rg.SemiMarkov) -> None:
    for row in range(B):
        found = {z: value for z, value in every(positions, row).items() if value > -math.inf}
        total = torch.tensor(list(found.values()), dtype=torch.float64)
        chances, z = total.softmax(0), torch.tensor([list(each) for each in found]).view(-1, T)
        parts = (positions.scores, positions.transitions, positions.durations, positions.present)
        alone = rg.SemiMarkov(*(each[row] for each in parts))
        assert_close(positions.log_z[row], total.logsumexp(0))
        assert_close(positions.entropy()[row], -(chances * chances.log()).sum())
        assert_close(positions.mean[row], (alone.indicator(z) * chances[:, None, None]).sum(0))
        assert_close(alone.log_prob(z), total - total.logsumexp(0))
        best = sorted(found, key=lambda each: -found[each])[:5]
        wanted = [*map(list, best), *[[-1] * T] * (5 - len(best))]
        assert positions.k_best(5)[:, row].tolist() == wanted


def test_spans_in_another_order_are_noticed():
    positions = made()
    wrong = rg.SemiMarkov(positions.scores, positions.transitions, positions.durations.flip(1), positions.present)
    assert not torch.isclose(wrong.log_z, positions.log_z).any()


@presents
def test_the_kernel_is_the_plain_road(present: str):
    given, allowed = made(present, labels=3), torch.tensor(PRESENT[present]).bool()
    parts = given.scores, given.transitions, given.durations
    for answer in (lambda each: each.log_z, lambda each: each.mean, lambda each: each.marginals):
        function = lambda *given, answer=answer: answer(rg.SemiMarkov(*given, allowed))  # noqa: E731
        assert_close(answers(function, *parts), plain_answers(function, *parts), rtol=1e-8, atol=1e-8)
    drawn = given.sample((400,))
    assert (given.log_prob(drawn) > -math.inf).all()
    share = given.indicator(drawn).mean(0)
    assert_close(share, given.mean, atol=0.12, rtol=0)


@presents
def test_the_same_scores_everywhere(present: str):
    given = made(present)
    alike = rg.SemiMarkov(given.scores, given.transitions, given.durations[:, 0], given.present)
    spans = given.durations[:, :1].expand(-1, T, -1, -1)
    each = rg.SemiMarkov(given.scores, given.transitions, spans, given.present)
    z = alike.sample((3,))
    assert_close((each.log_z, each.mean, each.log_prob(z)), (alike.log_z, alike.mean, alike.log_prob(z)))
    assert_close(each.kl(alike), torch.zeros(B).double(), atol=1e-10, rtol=0)
    assert_close(alike.kl(given), each.kl(given))
    assert_close(given.kl(alike), given.kl(each))


@pytest.mark.parametrize("answer", ["log_z", "mean", "entropy", "log_prob"])
def test_second_gradients(answer: str):
    present = torch.tensor(PRESENT["holes"]).bool()
    z = made("holes").sample()
    kinds = {
        "log_z": lambda each: each.log_z,
        "mean": lambda each: each.mean,
        "entropy": lambda each: each.entropy(),
        "log_prob": lambda each: each.log_prob(z),
    }
    function = lambda *given: kinds[answer](rg.SemiMarkov(*given, present))  # noqa: E731
    given = [scores(*shape).requires_grad_() for shape in ((B, T, S), (B, S, S), (B, T, W, S))]
    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


class TestTheOver:
    def test_spans_alone(self):
        """Two spans that score, and nothing else."""
        spans = torch.zeros(T, W, S)
        spans[0, 1, 0] = spans[2, 1, 1] = 9.0
        assert rg.semi_markov(W, torch.zeros(S, S), spans)(torch.zeros(T, S)).mode.tolist() == [0, 0, 1, 1]

    def test_batches_and_padding(self):
        nodes, links, spans = scores(B, T, S), scores(S, S), nn.Parameter(scores(B, T + 1, W, S))
        long = torch.nn.functional.pad(nodes, (0, 0, 0, 1), value=math.inf)
        padded = rg.semi_markov(W, links, spans, links[0], links[1])(long, (torch.arange(T + 1) < T).expand(B, -1))
        for row in range(B):
            alone = rg.semi_markov(W, links, spans[row, :T], links[0], links[1])(nodes[row])
            assert_close((padded.log_z[row], padded.mean[row, :T]), (alone.log_z, alone.mean))
        padded.log_z.sum().backward()
        assert spans.grad is not None and spans.grad.isfinite().all() and (spans.grad[:, T] == 0).all()

    @pytest.mark.unchecked
    def test_what_is_refused(self):
        over = rg.semi_markov(W, torch.zeros(S, S), torch.zeros(B, 3, W, S))
        with pytest.raises(ValueError, match=r"durations expected 4 matrices, one for each place where they count"):
            over(torch.zeros(B, T, S))
        with pytest.raises(ValueError, match=r"durations expected no two meanings, but \(4, 4, 3, 2\) may be those of"):
            rg.semi_markov(W, torch.zeros(S, S), torch.zeros(4, 4, W, S))(torch.zeros(4, 4, 4, S))
