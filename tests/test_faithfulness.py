"""`regard.faithfulness` by brute force, on models of which is known what matters, and beside captum."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard import faithfulness as faithful

SHARES = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.1, 0.6, 0.3, 0.0]])
"""What each place adds to the answer."""
PRESENT = torch.tensor([[True, True, True, True], [True, True, True, False]])


def answer(kept: Tensor) -> Tensor:
    return (SHARES * kept).sum(-1)


def by_hand(row: int, importance: Tensor, counts: list[int], hidden: bool) -> list[float]:
    """The answers of one row when so many places are hidden, or shown."""
    places = [k for k in range(4) if PRESENT[row, k]]
    order = sorted(places, key=lambda k: (-float(importance[row, k]), k))
    kept = [order[count:] if hidden else order[:count] for count in counts]
    return [sum(float(SHARES[row, k]) for k in some) for some in kept]


@pytest.mark.parametrize("hidden", [True, False])
def test_curves_are_what_is_counted_by_hand(hidden: bool):
    importance = torch.tensor([[0.2, 0.9, 0.2, 0.1], [0.3, 0.2, 0.9, 2.0]])
    curve = (faithful.deletion if hidden else faithful.insertion)(answer, importance, PRESENT, steps=4)
    for row, counts in enumerate(([0, 1, 2, 3, 4], [0, 1, 2, 3, 3])):  # of three places, a quarter is one, rounded up
        wanted = by_hand(row, importance, counts, hidden)
        assert_close(curve.values[row], torch.tensor(wanted))
        area = sum((a + b) / 2 for a, b in pairwise(wanted)) / 4
        assert_close(curve.area[row].item(), area, atol=1e-6, rtol=0)


def test_comprehensiveness_and_sufficiency_by_hand():
    importance = torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, 3.0, 2.0, 9.0]])
    for shares, counts in (([0.5], [[2], [2]]), ([0.01, 0.3, 0.9], [[1, 2, 4], [1, 1, 3]])):
        for metric, hidden in ((faithful.comprehensiveness, True), (faithful.sufficiency, False)):
            lost = [1 - sum(by_hand(row, importance, counts[row], hidden)) / len(shares) for row in range(2)]
            assert_close(metric(answer, importance, PRESENT, shares), torch.tensor(lost))


def test_the_order_that_matters_is_better_than_chance_and_as_good_as_the_truth():
    """And its opposite is worse: the control."""
    shares = torch.rand(40, 12).square()
    shares[:, 4:] = 0
    shares = shares / shares.sum(-1, keepdim=True)
    shuffled = torch.stack([each[torch.randperm(12)] for each in shares])
    told = faithful.hiding(lambda each: each.sum(-1), shuffled)
    right, wrong = (faithful.faithfulness(told, each, truth=shuffled > 0) for each in (shuffled, -shuffled))
    for name, better in (("deletion", -1), ("insertion", 1), ("comprehensiveness", 1), ("sufficiency", -1)):
        means = {which: better * float(value.mean()) for which, value in right[name].items()}
        assert means["given"] >= means["oracle"] > means["random"] + 0.05, name
        assert better * float(wrong[name]["given"].mean()) < means["random"] - 0.05, name


def test_without_a_truth_there_is_no_oracle():
    assert set(faithful.faithfulness(answer, SHARES, PRESENT)["insertion"]) == {"given", "random"}


def test_the_pointing_game():
    truth = torch.tensor([[False, False, True, False], [False, False, False, False]])
    importance = torch.tensor([[0.1, 0.9, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert faithful.pointing(importance, truth).tolist() == [0.0]
    present = torch.tensor([[True, False, True, True]]).expand(2, 4)
    assert faithful.pointing(importance, truth, present).tolist() == [1.0]


def test_tau_is_that_of_counted_pairs():
    first, second = torch.randn(5, 6), torch.randn(5, 6).round()
    present = torch.rand(5, 6) < 0.8
    for row in range(5):
        places = present[row].nonzero().flatten().tolist()
        pairs = [(i, j) for i in places for j in places if i < j]
        one = [torch.sign(first[row, i] - first[row, j]).item() for i, j in pairs]
        two = [torch.sign(second[row, i] - second[row, j]).item() for i, j in pairs]
        ties = (sum(map(abs, one)) * sum(map(abs, two))) ** 0.5
        wanted = sum(a * b for a, b in zip(one, two, strict=True)) / max(ties, 1)
        found = faithful.rank_correlation(first, second, present)[row].item()
        assert found == pytest.approx(wanted, abs=1e-6)
    assert faithful.rank_correlation(first, first).tolist() == pytest.approx([1.0] * 5)
    assert faithful.rank_correlation(first, torch.zeros(5, 6)).tolist() == [0.0] * 5


# The permutation test of attention.


def test_permuted_weights_are_the_same_numbers_at_places_that_are_there():
    weights = torch.rand(3, 2, 6)
    there = torch.tensor([6, 3, 1])[:, None, None] > torch.arange(6)
    weights = weights * there
    found = faithful._permuted(weights, there.expand(weights.shape))
    assert_close(found.sort(-1).values, weights.sort(-1).values)
    assert (found[~there.expand(weights.shape)] == 0).all() and (found[2] == weights[2]).all()
    assert (found[0] != weights[0]).any()


def test_permutation_tells_whether_it_matters_where_one_looks():
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, 4)
    told = torch.eye(4)[:, :2].clone()
    told[2:, 1] = 1.0  # every place but the first says the other label
    matters = faithful.permutation(lambda weights: weights @ told, weights)
    assert matters.tolist() == [1.0, 1.0]
    assert faithful.permutation(lambda weights: torch.full((2, 2), 0.5), weights).tolist() == [0.0, 0.0]


# Integrated gradients.


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(15, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs).softmax(-1)[:, 1]


def test_integrated_gradients_sum_to_the_difference():
    net, inputs = Net().double(), torch.randn(4, 5, 3, dtype=torch.float64)
    found = faithful.integrated_gradients(net, inputs, 0.3, steps=400)
    assert_close(found.sum(-1), (net(inputs) - net(torch.full_like(inputs, 0.3))).detach(), atol=1e-6, rtol=1e-5)


def test_integrated_gradients_are_captums():
    attribution = pytest.importorskip("captum.attr", reason="needs the extra oracles")
    net, inputs = Net().double(), torch.randn(4, 5, 3, dtype=torch.float64)
    theirs = attribution.IntegratedGradients(net).attribute(inputs, 0.3, n_steps=50, method="riemann_middle").sum(-1)
    assert_close(
        faithful.integrated_gradients(net, inputs, 0.3), theirs, atol=1e-7, rtol=1e-6
    )  # its steps are in float32


# The certificate.


@pytest.mark.parametrize("read", [rg.mode, rg.mean], ids=["hard", "soft"])
def test_what_a_hard_read_did_not_read_has_no_effect(read):
    """A certificate of the values, where the keys stay: of the mean it fails, for that has read all."""
    query, keys, values = torch.randn(3, 1, 4), torch.randn(3, 6, 4), torch.randn(3, 6, 2)
    out = rg.attend(query, keys, values, read=rg.mode)
    event = out.positions.indicator(out.z).squeeze(1).bool()
    change = faithful.certificate(lambda given: rg.attend(query, keys, given, read=read).context, values, event)
    assert (change == 0).all() if read is rg.mode else (change > 0.01).all()


def test_a_certificate_counts_chance_out_but_not_what_was_read():
    inputs, read = torch.randint(0, 9, (2, 5)), torch.tensor([[True, False, True, False, True]]).expand(2, 5)

    def draws(words: Tensor) -> Tensor:
        return torch.rand(2, 3) + words[:, :1]

    assert (faithful.certificate(draws, inputs, read) == 0).all()
    assert (faithful.certificate(lambda words: words.float().sum(-1), inputs, read, draws=8) > 0).all()
    assert (faithful.certificate(lambda words: words.sum(-1), inputs, torch.ones_like(read)) == 0).all()


def test_a_certificate_that_becomes_nan_fails():
    inputs, read = torch.rand(2, 3), torch.tensor([True, False, False]).expand(2, 3)
    change = faithful.certificate(lambda each: each[:, 0] / (each == inputs).all(-1), inputs, read)
    assert change.isinf().all()
