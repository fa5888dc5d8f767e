"""Scores that know where the queries before have looked, against their equations, written out in loops."""

import examples
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.testing import assert_close

import regard as rg
from regard.kernels.additive import cpu as additive_cpu


def additive(score: rg.Coverage, query: Tensor, keys: Tensor, features: Tensor) -> Tensor:
    """w . tanh(W q + V k + U f + b) of one query (D), with features (K, F): (K,)."""
    w, v, energy = (part.weight for part in (score.additive.query, score.additive.key, score.additive.energy))
    return torch.stack([energy[0] @ torch.tanh(w @ query + v @ k + score.seen(f)) for k, f in zip(keys, features)])  # noqa: B905


def convolved(rows: Tensor, filters: Tensor) -> Tensor:
    """F * rows, for rows (C, K) and filters (F, C, width): (K, F)."""
    (_, places), reach = rows.shape, filters.shape[-1] // 2
    out = torch.zeros(places, len(filters), dtype=rows.dtype)
    for k in range(places):
        for j in range(max(0, k - reach), min(places, k + reach + 1)):
            out[k] += filters[:, :, j - k + reach] @ rows[:, j]
    return out


def weights(score: rg.Coverage, query: Tensor, keys: Tensor, features) -> Tensor:
    """The weights (Q, K) of one row, whose features are made of those before."""
    rows = []
    for one in query:
        last = rows[-1] if rows else torch.zeros(len(keys), dtype=keys.dtype)
        total = sum(rows) if rows else last
        rows.append(additive(score, one, keys, features(last, total)).softmax(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["coverage", "location-aware", "location-aware, summed"])
def test_equation(kind: str):
    score, (query, keys, values) = examples.SCORES[kind](), examples.inputs()
    features = {
        "coverage": lambda last, total: total.unsqueeze(-1),
        "location-aware": lambda last, total: convolved(last.unsqueeze(0), score.convolution.weight),
        "location-aware, summed": lambda last, total: convolved(torch.stack((last, total)), score.convolution.weight),
    }[kind]
    wanted = torch.stack([weights(score, *row, features) for row in zip(query, keys, strict=True)])
    assert_close(rg.attend(query, keys, values, score=score).weights, wanted)


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", ["coverage", "location-aware, summed"])
def test_gradients_go_back_through_the_steps(kind: str):
    score, inputs = examples.SCORES[kind](), [each.requires_grad_() for each in examples.inputs()]
    names = [name for name, _ in score.named_parameters()]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = score

        def forward(self, *given: Tensor) -> Tensor:
            return rg.attend(*given, score=self.score).context

    def function(query: Tensor, keys: Tensor, values: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip((f"score.{name}" for name in names), parameters, strict=True))
        return torch.func.functional_call(Model(), named, (query, keys, values))

    assert gradcheck(function, (*inputs, *score.parameters()))


def test_each_step_takes_the_fast_road(monkeypatch: pytest.MonkeyPatch):
    from roads import taken

    monkeypatch.setattr(additive_cpu, "SMALLEST", 0)
    score = rg.LocationAware(5, 5, 6, width=3)
    arguments = [each.float() for each in examples.inputs()]
    assert taken((rg.Additive,), lambda: rg.attend(*arguments, score=score))


def test_the_batch_may_have_any_number_of_dimensions():
    query, keys = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 7, 5)
    score = rg.LocationAware(5, 5, 6, width=3)
    out, one = rg.attend(query, keys, keys, score=score), rg.attend(query[1, 1], keys[1, 1], keys[1, 1], score=score)
    assert_close(out.context[1, 1], one.context)
    assert out.state.score.shape == (3, 2, 2, 7) and one.state.score.shape == (2, 7)


def test_the_loss_does_not_count_the_query_s_own_weights():
    """Equation 12 in loops; with the own weights among them it would never be zero."""
    looked = torch.rand(2, 4, 5).softmax(-1)
    wanted = [[sum(min(row[t, k], row[:t, k].sum()) for k in range(5)) for t in range(4)] for row in looked]
    assert_close(rg.coverage_loss(looked), torch.tensor(wanted))
    assert (rg.coverage_loss(torch.eye(3)) == 0).all()
    assert (torch.minimum(torch.eye(3), torch.eye(3).cumsum(0)).sum(-1) == 1).all()


def test_the_loss_goes_on_from_call_to_call():
    query, keys, values = examples.inputs()
    attention = rg.Attention(rg.Coverage(5, 5, 6).double())
    memory = attention.prepare(keys, values)
    first = attention(query[:, :2], memory)
    later = attention(query[:, 2:], memory, first.state)
    wanted = rg.coverage_loss(attention(query, memory).weights)
    assert_close(rg.coverage_loss(first.weights), wanted[:, :2])
    assert_close(rg.coverage_loss(later.weights, first.state.score[..., 1, :]), wanted[:, 2:])


def test_an_even_width_is_refused():
    with pytest.raises(
        ValueError, match="LocationAware expected an odd width, the same number on both sides, but got 4"
    ):
        rg.LocationAware(5, 5, 6, width=4)


@pytest.mark.parametrize("score", [rg.Coverage(3, 3, 4), rg.LocationAware(3, 3, 4, filters=2, width=3)])
def test_no_rows_and_no_queries(score: rg.Score):
    query, keys = torch.randn(2, 3, 3), torch.randn(2, 5, 3)
    assert rg.attend(query[:0], keys[:0], keys[:0], score=score).context.shape == (0, 3, 3)
    first = rg.attend(query[:, :1], keys, keys, score=score)
    nothing = rg.attend(query[:, :0], keys, keys, score=score, state=first.state)
    again = rg.attend(query[:, 1:2], keys, keys, score=score, state=nothing.state)
    assert_close(again.context, rg.attend(query[:, 1:2], keys, keys, score=score, state=first.state).context)
