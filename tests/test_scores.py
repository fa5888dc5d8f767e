"""Every score against its equation, written out in loops."""

import math

import examples
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg


def loop(function, query: Tensor, keys: Tensor) -> Tensor:
    """function(q, k) of every query with every key of its row."""
    return torch.stack(
        [
            torch.stack([torch.stack([function(q, k) for k in ks]) for q in qs])
            for qs, ks in zip(query, keys, strict=True)
        ]
    )


def equations() -> dict:
    additive, bilinear = rg.Additive(5, 5, 6).double(), rg.Bilinear(5, 5).double()
    learned = rg.Cosine(nn.Parameter(torch.tensor(3.0, dtype=torch.float64)))
    w, u, v = additive.query.weight, additive.key.weight, additive.energy.weight[0]
    return {
        "dot": (rg.dot, lambda q, k: q @ k),
        "scaled_dot": (rg.scaled_dot, lambda q, k: q @ k / math.sqrt(5)),
        "cosine": (rg.Cosine(2.0), lambda q, k: 2 * q @ k / q.norm() / k.norm()),
        "cosine, learned": (learned, lambda q, k: 3 * q @ k / q.norm() / k.norm()),
        "additive": (additive, lambda q, k: v @ torch.tanh(w @ q + u @ k)),
        "bilinear": (bilinear, lambda q, k: q @ (bilinear.key.weight @ k)),
        "biased": (rg.biased(rg.dot, torch.tensor(0.5)), lambda q, k: q @ k + 0.5),
    }


@pytest.mark.parametrize("name", equations())
def test_equation(name: str):
    score, equation = equations()[name]
    query, keys, _ = examples.inputs()
    assert_close(score(query, keys), loop(equation, query, keys))


def test_location_depends_on_the_query_alone():
    score, (query, keys, _) = rg.Location(5, 10).double(), examples.inputs()
    assert_close(score(query, keys), (query @ score.place.weight.T)[..., :4])
    assert_close(score(query, keys), score(query, torch.zeros_like(keys)))


@pytest.mark.unchecked
def test_location_refuses_more_keys_than_places():
    with pytest.raises(ValueError, match="Location expected at most places=3 keys, but got 4"):
        rg.Location(5, 3)(torch.ones(1, 5), torch.ones(4, 5))


@pytest.mark.parametrize("name", examples.SCORES)
def test_prepared_keys_give_the_same_scores(name: str):
    score, (query, keys, _) = examples.SCORES[name](), examples.inputs()
    if hasattr(score, "prepare") and not hasattr(score, "at"):
        assert_close(score.compare(query, score.prepare(keys)), score(query, keys))


def test_the_sharpness_of_a_cosine_is_learned_if_it_is_a_parameter():
    assert [name for name, _ in rg.Cosine(nn.Parameter(torch.tensor(1.0))).named_parameters()] == ["sharpness"]
    assert not list(rg.Cosine(1.0).parameters())


def test_an_additive_attention_of_an_older_model_gives_the_same_numbers():
    """A hand-written encoder-decoder's attention, whose weights are loaded into the score's three matrices."""
    w, u, v = nn.Linear(4, 6, bias=False), nn.Linear(5, 6, bias=False), nn.Linear(6, 1, bias=False)
    state, annotations = torch.randn(2, 4), torch.randn(2, 7, 5)
    energy = v(torch.tanh(w(state).unsqueeze(1) + u(annotations))).squeeze(-1)
    wanted = torch.bmm(energy.softmax(-1).unsqueeze(1), annotations)
    attention = rg.Attention(rg.Additive(4, 5, 6))
    attention.score.load_state_dict({"query.weight": w.weight, "key.weight": u.weight, "energy.weight": v.weight})
    out = attention(state.unsqueeze(1), attention.prepare(annotations, annotations))
    assert_close(out.context, wanted)
