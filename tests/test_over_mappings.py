"""What each over is beyond the laws: its equation, its errors."""

import math

import pytest
import torch
from torch.testing import assert_close

import regard as rg


def test_softmax():
    scores = torch.randn(2, 3, 4)
    assert_close(rg.softmax(scores).mean, scores.softmax(-1))


def test_top_k_is_a_softmax_over_the_k_best():
    weights = rg.top_k(2)(torch.tensor([[0.0, 3.0, 1.0, 2.0]])).mean
    assert_close(weights, torch.tensor([[0.0, 1 / (1 + math.exp(-1)), 0.0, 1 / (1 + math.exp(1))]]))
    assert_close(rg.top_k(9)(torch.tensor([[0.0, 1.0]])).mean, torch.tensor([[0.0, 1.0]]).softmax(-1))


def test_sparsemax_is_the_projection_onto_the_simplex():
    scores = torch.randn(50, 6, dtype=torch.float64)
    weights = rg.sparsemax(scores).mean
    others = torch.distributions.Dirichlet(torch.ones(6, dtype=torch.float64)).sample((200, 50))
    assert ((weights - scores).norm(dim=-1) <= (others - scores).norm(dim=-1)).all()
    assert (weights == 0).any()


def test_entmax_lies_between_softmax_and_sparsemax():
    scores = 2 * torch.randn(100, 8, dtype=torch.float64)
    assert_close(rg.entmax(1.0)(scores).mean, rg.softmax(scores).mean)
    assert_close(rg.entmax(2.0)(scores).mean, rg.sparsemax(scores).mean)
    places = [(rg.entmax(alpha)(scores).mean > 0).sum() for alpha in (1.0, 1.2, 1.5, 1.8, 2.0)]
    assert places == sorted(places, reverse=True) and places[0] > places[-1]


def test_entmax_with_a_learned_alpha_is_learned_by_what_holds_it():
    attention = rg.Attention(over=rg.entmax(torch.nn.Parameter(torch.full((2, 1, 1), 1.5))))
    assert [name for name, _ in attention.named_parameters()] == ["over.alpha"]
    query, keys = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 7, 4)
    attention(query, attention.prepare(keys, keys)).context.square().sum().backward()
    assert (attention.over.alpha.grad != 0).all()


def test_two_entmaxes_are_equal_if_their_alphas_are():
    alpha = torch.nn.Parameter(torch.tensor(1.5))
    assert rg.entmax(1.5) == rg.entmax(1.5) != rg.entmax(1.6) and len({rg.entmax(1.5), rg.entmax(1.5)}) == 1
    assert rg.entmax(alpha) == rg.entmax(alpha) != rg.entmax(torch.nn.Parameter(torch.tensor(1.5)))
    assert rg.entmax(1.5) != rg.sparsemax and repr(rg.entmax(1.5)) == "entmax(alpha=1.5)"


def window_of(over: rg.local, queries: int, places: int, carried=None, mask=None) -> torch.Tensor:
    step = rg.Step(torch.zeros(queries, 2), torch.zeros(places, 2), mask, carried)
    return over.at(step)(torch.randn(queries, places), mask).mean > 0


def test_a_monotonic_window_holds_two_radius_plus_one_places():
    inside = window_of(rg.local(2), 7, 7)
    assert inside[3].tolist() == [False, True, True, True, True, True, False]
    assert inside[0].tolist() == [True, True, True, False, False, False, False]


def test_a_monotonic_window_moves_on_with_the_state_and_in_the_end_looks_nowhere():
    assert window_of(rg.local(1), 1, 5, carried=torch.tensor(3)).tolist() == [[False, False, True, True, True]]
    positions = rg.local(1).at(rg.Step(torch.zeros(1, 2), torch.zeros(5, 2), None, torch.tensor(9)))(
        torch.zeros(1, 5), None
    )
    assert positions.mode == -1 and positions.log_prob(torch.tensor([-1])) == 0


def test_a_predicted_window_is_the_equation_of_luong():
    """Equations 9 and 10 in loops."""
    predicted = rg.Predicted(3, 4)
    query, scores = torch.randn(2, 3), torch.randn(2, 9)
    mask = rg.padding(torch.tensor(8), 9).expand(2, 9)
    weights = rg.local(2, predicted).at(rg.Step(query, torch.zeros(9, 3), mask))(scores, mask).mean
    for q in range(2):
        p = 8 * torch.sigmoid(predicted.position.weight[0] @ torch.tanh(predicted.query.weight @ query[q]))
        window = [k for k in range(8) if abs(k - round(p.item())) <= 2]
        align = scores[q, window].softmax(-1)
        for k in range(9):
            wanted = (
                align[window.index(k)] * torch.exp(-((k - p) ** 2) / (2 * (2 / 2) ** 2))
                if k in window
                else torch.tensor(0.0)
            )
            assert_close(weights[q, k], wanted)


def test_the_lost_tail_of_a_window_is_nowhere():
    step = rg.Step(torch.zeros(1, 3), torch.zeros(9, 3))
    positions = rg.local(2, rg.Predicted(3, 4)).at(step)(torch.zeros(1, 9), None)
    nowhere = positions.log_prob(torch.tensor([-1])).exp()
    assert 0 < nowhere < 1
    assert_close(nowhere, 1 - positions.mean.sum(-1))


def test_dropout_is_that_of_pytorch_in_training_and_nothing_otherwise():
    over, scores = rg.dropout(rg.softmax, 0.5), torch.zeros(4, 1000)
    step = rg.Step(torch.zeros(4, 2), torch.zeros(1000, 2), training=True)
    weights = over.at(step)(scores, None).mean
    kept = weights > 0
    assert 0.4 < kept.float().mean() < 0.6
    assert_close(weights[kept], torch.full_like(weights[kept], 2 / 1000))
    assert over.at(step._replace(training=False)) is rg.softmax


def test_dropout_of_a_window_still_moves_on():
    attention = rg.Attention(over=rg.dropout(rg.local(1), 0.5))
    memory = attention.prepare(torch.ones(5, 2), torch.ones(5, 2))
    assert attention(torch.ones(2, 2), memory).state.over == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rg.entmax(0.5), "entmax expected alpha from 1 to 4, but got 0.5"),
        (lambda: rg.entmax(math.nan), "entmax expected alpha from 1 to 4, but got nan"),
        (lambda: rg.top_k(0), "top_k expected k of at least 1, but got 0"),
        (lambda: rg.subset(0), "subset expected k of at least 1, but got 0"),
        (lambda: rg.without_replacement(-1), "without_replacement expected k of at least 1, but got -1"),
        (lambda: rg.local(0), "local expected a radius of at least 1, but got 0"),
        (
            lambda: rg.dropout(rg.softmax, 1.0),
            "dropout expected a probability p of at least 0 and below 1, but got 1.0",
        ),
        (lambda: rg.OneHot(), "OneHot expected exactly one of weights and scores"),
    ],
)
def test_errors(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_dropout_of_sets_is_refused():
    with pytest.raises(TypeError, match="dropout expected an over that gives OneHot, but got Subset"):
        rg.attend(torch.ones(1, 2), torch.ones(3, 2), torch.ones(3, 2), over=rg.dropout(rg.subset(2), 0.5))
