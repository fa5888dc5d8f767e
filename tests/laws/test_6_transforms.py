"""Law 6: attention survives torch.compile(fullgraph=True), torch.export, torch.func, inference_mode, autocast, saving,
pickling and copying. The shape checks of jaxtyping, which a user does not have on, are off."""

import copy
import io
import pickle

import examples
import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch.testing import assert_close

import regard as rg

pytestmark = pytest.mark.unchecked


def module(score: str = "scaled_dot", over: str = "softmax", read: str = "mean") -> torch.nn.Module:
    """query, keys, values to context and weights, by one triple of the table."""
    parts = examples.SCORES[score](), examples.OVERS[over](), examples.READS[read]()

    class Attend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = rg.Attention(*parts)

        def forward(self, query: Tensor, keys: Tensor, values: Tensor):
            out = self.attention(query, self.attention.prepare(keys, values))
            drawn = () if out.log_prob is None else (out.log_prob, out.z)
            return out.context, out.weights, *drawn

    return Attend().eval()


TRIPLES = [
    *((score, "softmax", "mean") for score in examples.SCORES),
    *(("additive", over, "mean") for over in examples.OVERS),
    *(("additive", over, "sample") for over in examples.OVERS),
    *(("dot", "softmax", read) for read in examples.READS),
]
LOWERED = [  # one of each family: the others trace the same operations
    *(
        ("additive", over, "mean")
        for over in ("softmax", "entmax(1.5)", "local-p", "subset(2)", "monotonic", "segments")
    ),
    ("dot", "softmax", "relaxed"),
]
EVENTS = (  # an over of each kind of event
    "softmax", "sigmoid", "subset(2)", "without_replacement(2)", "local-p", "monotonic", "monotonic(2)", "segments",
    "chain", "semi_markov", "ctc", "tree, non-projective",
)  # fmt: skip
TRACED = [each for each in TRIPLES if each[2] != "sample" or each[1] in EVENTS]
traced = pytest.mark.parametrize("triple", dict.fromkeys(TRACED), ids=", ".join)
triples = pytest.mark.parametrize("triple", dict.fromkeys(TRIPLES), ids=", ".join)


def answers(model, *arguments: Tensor) -> list[Tensor]:
    torch.manual_seed(0)
    return list(model(*arguments))


def check_answers(transformed, model: torch.nn.Module, *arguments: Tensor) -> None:
    """The transformed model answers as the model does; given the same event, if it draws one."""
    context, weights, *drawn = answers(transformed, *arguments)
    wanted = answers(model, *arguments)
    assert_close(weights, wanted[1])
    if drawn:
        log_prob, z = drawn
        query, keys, values = arguments
        positions = model.attention(query, model.attention.prepare(keys, values)).positions
        wanted = [positions.gather(values, z), weights, positions.log_prob(z)]
        assert_close(log_prob, wanted[2])
    assert_close(context, wanted[0])


@traced
def test_compile(triple: tuple[str, str, str]):
    """That it is one graph; and for every over, and a score, a read, that the graph is lowered with its backward."""
    torch._dynamo.reset()
    model, arguments = module(*triple), examples.inputs(examples.queries(triple[1]))
    backend = "aot_eager" if triple in LOWERED else "eager"
    check_answers(torch.compile(model, fullgraph=True, backend=backend), model, *arguments)


def test_compile_with_the_default_backend():
    torch._dynamo.reset()
    model, arguments = module("additive"), examples.inputs()
    check_answers(torch.compile(model, fullgraph=True), model, *arguments)


@traced
def test_export(triple: tuple[str, str, str]):
    model, arguments = module(*triple), examples.inputs(examples.queries(triple[1]))
    check_answers(torch.export.export(model, arguments).module(), model, *arguments)


def test_export_returns_what_attention_returns():
    class Attend(torch.nn.Module):
        def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> rg.Attended:
            return rg.attend(query, keys, values, read=rg.mode)

    arguments = examples.inputs()
    out = torch.export.export(Attend(), arguments).module()(*arguments)
    wanted = Attend()(*arguments)
    assert isinstance(out, rg.Attended) and isinstance(out.positions, rg.OneHot)
    assert_close((out.context, out.weights, out.log_prob), (wanted.context, wanted.weights, wanted.log_prob))


@triples
def test_vmap(triple: tuple[str, str, str]):
    model, arguments = module(*triple), examples.inputs(examples.queries(triple[1]))
    if triple[2] in ("mean", "mode"):
        one_by_one = [answers(model, *each) for each in zip(*arguments, strict=True)]
        assert_close(
            list(torch.func.vmap(model)(*arguments)), [torch.stack(each) for each in zip(*one_by_one, strict=True)]
        )
    else:
        out = torch.func.vmap(model, randomness="different")(*arguments)
        assert all(each.shape[0] == examples.B and each.isfinite().all() for each in out)


@triples
def test_grad(triple: tuple[str, str, str]):
    model, (query, keys, values) = module(*triple), examples.inputs(examples.queries(triple[1]))

    def total(query: Tensor) -> Tensor:
        torch.manual_seed(0)
        return torch.stack([each.sum() for each in model(query, keys, values)[:3]]).sum()

    leaf = query.clone().requires_grad_()
    out = total(leaf)
    wanted = torch.autograd.grad(out, leaf)[0] if out.requires_grad else torch.zeros_like(leaf)
    assert_close(torch.func.grad(total)(query), wanted)


@pytest.mark.parametrize("triple", [each for each in TRIPLES if each[2] in ("mean", "mode")], ids=", ".join)
def test_jvp(triple: tuple[str, str, str]):
    model, (query, keys, values) = module(*triple), examples.inputs(examples.queries(triple[1]))
    function = lambda query: model(query, keys, values)[0]  # noqa: E731
    direction, step = torch.randn_like(query), 1e-6
    along = torch.func.jvp(function, (query,), (direction,))[1]
    difference = (function(query + step * direction) - function(query - step * direction)) / (2 * step)
    assert_close(along, difference, rtol=1e-4, atol=1e-6)


@triples
def test_inference_mode(triple: tuple[str, str, str]):
    model, arguments = module(*triple), examples.inputs(examples.queries(triple[1]))
    wanted = answers(model, *arguments)
    with torch.inference_mode():
        assert_close(answers(model, *arguments), wanted)


@triples
def test_autocast(triple: tuple[str, str, str]):
    model = module(*triple).float()
    arguments = [each.float() for each in examples.inputs(examples.queries(triple[1]))]
    with torch.autocast("cpu", torch.bfloat16):
        context = answers(model, *arguments)[0]
    assert context.isfinite().all()
    if triple[2] == "mean" and triple[0] not in ("fatigue",) and triple[1] not in ("local-p", "top_k(2)"):
        assert_close(context.float(), answers(model, *arguments)[0], rtol=0.1, atol=0.1)


@triples
def test_copies(triple: tuple[str, str, str]):
    model, arguments = module(*triple), examples.inputs(examples.queries(triple[1]))
    wanted = answers(model, *arguments)
    assert_close(answers(copy.deepcopy(model), *arguments), wanted)
    attention = pickle.loads(pickle.dumps(model.attention))
    torch.manual_seed(0)
    assert_close(attention(arguments[0], attention.prepare(*arguments[1:])).context, wanted[0])
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    other = module(*triple)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert_close(answers(other, *arguments), wanted)


@pytest.mark.parametrize("over", examples.OVERS)
def test_positions_are_pickled(over: str):
    scores = torch.randn(2, examples.queries(over), 4, dtype=torch.float64)
    positions = examples.positions(examples.OVERS[over](), scores)
    assert_close(pickle.loads(pickle.dumps(positions)).mean, positions.mean)


class TestMutants:
    def test_a_branch_on_data_breaks_the_graph(self):
        def over(scores: Tensor, mask: Tensor | None) -> rg.OneHot:
            return rg.softmax(scores if scores.sum() > 0 else -scores, mask)

        function = lambda *arguments: rg.attend(*arguments, over=over).context  # noqa: E731
        with pytest.raises(Unsupported):
            torch.compile(function, fullgraph=True, backend="aot_eager")(*examples.inputs())
