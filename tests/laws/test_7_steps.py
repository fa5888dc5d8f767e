"""Law 7: Q queries at once equal Q calls with the state handed on; selecting rows commutes with attention; inputs are
never changed; nothing is kept on a module."""

import copy

import examples
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg

TRIPLES = [(score, "softmax") for score in examples.SCORES if score != "biased"]
TRIPLES += [(score, over) for score in ("additive", "fatigue") for over in examples.OVERS]
triples = pytest.mark.parametrize("triple", dict.fromkeys(TRIPLES), ids=", ".join)
SPANNING = (rg.CTC, rg.Chain, rg.Constituency, rg.SemiMarkov, rg.Tree)
"""What is normalised over all queries of a call, which cannot be asked in turn."""


def is_spanning(over: str) -> bool:
    scores = examples.tensors(1, examples.queries(over), 4)[0]
    return isinstance(examples.positions(examples.OVERS[over](), scores), SPANNING)


in_turn = pytest.mark.parametrize(
    "triple", [triple for triple in dict.fromkeys(TRIPLES) if not is_spanning(triple[1])], ids=", ".join
)


def attention(triple: tuple[str, str], read=rg.mean) -> rg.Attention:
    return rg.Attention(examples.SCORES[triple[0]](), examples.OVERS[triple[1]](), read).eval()


def in_steps(model: rg.Attention, query: Tensor, memory: rg.Memory) -> tuple[Tensor, Tensor]:
    """Contexts and weights of one query after another."""
    state, outs = None, []
    for one in query.split(1, -2):
        outs.append(model(one, memory, state))
        state = outs[-1].state
    return torch.cat([out.context for out in outs], -2), torch.cat([out.weights for out in outs], -2)


def check_steps(model: rg.Attention, query: Tensor, memory: rg.Memory) -> None:
    """The law of steps."""
    out, (contexts, weights) = model(query, memory), in_steps(model, query, memory)
    assert_close(out.context, contexts)
    if model.read is rg.mean or not isinstance(out.positions, rg.Alignment):  # else in turn they are given the stops
        assert_close(out.weights, weights)


@in_turn
@pytest.mark.parametrize("read", ["mean", "online"])  # online is the mode, but of what spans the queries
def test_queries_at_once_equal_queries_in_turn(triple: tuple[str, str], read: str):
    query, keys, values = examples.inputs()
    model = attention(triple, examples.READS[read]())
    check_steps(model, query, model.prepare(keys, values, rg.padding(torch.tensor([2, 4]), 4)))


@in_turn
def test_a_state_goes_on_where_it_left_off(triple: tuple[str, str]):
    query, keys, values = examples.inputs()
    model = attention(triple)
    memory = model.prepare(keys, values)
    first = model(query[:, :2], memory)
    second = model(query[:, 2:], memory, first.state)
    assert_close(torch.cat((first.context, second.context), 1), model(query, memory).context)


@pytest.mark.parametrize("over", [*filter(is_spanning, examples.OVERS)])
def test_what_spans_all_queries_refuses_a_score_that_carries(over: str):
    query, keys, values = examples.inputs(examples.queries(over))
    model = attention(("fatigue", over))
    refused = (
        r"to carry nothing, as (Chain|CTC|SemiMarkov) spans all queries|tree expected scores of as many words as heads|"
        "constituency expected scores of the shape"
    )
    with pytest.raises((TypeError, ValueError), match=refused):
        model(query, model.prepare(keys, values))
    plain = attention(("additive", over))
    with pytest.raises((AssertionError, ValueError)):
        check_steps(plain, query, plain.prepare(keys, values))


@in_turn
def test_rows_selected_before_equal_rows_selected_after(triple: tuple[str, str]):
    query, keys, values = examples.inputs()
    model = attention(triple)
    memory = model.prepare(keys, values, rg.padding(torch.tensor([3, 2]), 4))
    rows = torch.tensor([1, 1, 0])
    first = model(query[:, :1], memory)
    late = model(query[:, 1:], memory, first.state)
    early = model(query[rows, 1:], rg.select(memory, rows), rg.select(first.state, rows))
    assert_close(early.context, late.context[rows])
    assert_close(early.weights, rg.select(late.positions, rows).mean)


def test_select_of_a_reader_is_refused():
    class Reader:
        def read(self, z: Tensor) -> Tensor:
            return z.unsqueeze(-1)

    memory = rg.Attention().prepare(torch.ones(2, 3, 4), Reader())
    with pytest.raises(TypeError, match="values that are a tensor or can select, but got the reader Reader"):
        rg.select(memory, torch.tensor([0]))


@in_turn
@pytest.mark.parametrize("read", examples.READS)
def test_nothing_is_changed_or_kept(triple: tuple[str, str], read: str):
    arguments = examples.inputs()
    before = [each.clone() for each in arguments]
    model = attention(triple, examples.READS[read]()).train()
    state, attributes = copy.deepcopy(model.state_dict()), {name: set(vars(m)) for name, m in model.named_modules()}
    if read != "relaxed" or examples.positions(model.over, torch.ones(2, 3, 4, dtype=torch.float64)).has_relaxed:
        model(arguments[0], model.prepare(*arguments[1:]))
    assert all((now == then).all() for now, then in zip(arguments, before, strict=True))
    assert_close(dict(model.state_dict()), dict(state))
    assert attributes == {name: set(vars(m)) for name, m in model.named_modules()}


class TestMutants:
    def test_a_part_that_forgets(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(rg.local, "next", lambda self, carried, positions: None)
        query, keys, values = examples.inputs()
        model = attention(("additive", "local-m"))
        with pytest.raises(AssertionError):
            check_steps(model, query, model.prepare(keys, values))
