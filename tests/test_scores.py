"""Every score against its equation, written out in loops."""

import math

import examples
import pytest
import torch
from roads import Contexts, check_contexts
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.additive import cpu, look_cpu
from regard.kernels.streamed import cpu_cuda


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
    content = rg.Content(5, 5).double()
    read_off, strength = lambda q: content.key(q), lambda q: (1 + content.strength(q).exp()).log().squeeze()
    return {
        "dot": (rg.dot, lambda q, k: q @ k),
        "scaled_dot": (rg.scaled_dot, lambda q, k: q @ k / math.sqrt(5)),
        "cosine": (rg.Cosine(2.0), lambda q, k: 2 * q @ k / q.norm() / k.norm()),
        "cosine, learned": (learned, lambda q, k: 3 * q @ k / q.norm() / k.norm()),
        "content": (content, lambda q, k: strength(q) * read_off(q) @ k / read_off(q).norm() / k.norm()),
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


class Tutorial(nn.Module):
    """The attention of PyTorch's tutorial on translation, whose three layers have biases."""

    def __init__(self, size: int):
        super().__init__()
        self.Wa, self.Ua, self.Va = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, 1)

    def forward(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys))).squeeze(2).unsqueeze(1)
        weights = scores.softmax(-1)
        return torch.bmm(weights, keys), weights


def test_the_weights_of_pytorch_s_tutorial_load_and_give_the_same_numbers():
    theirs, query, keys = Tutorial(8), torch.randn(3, 1, 8), torch.randn(3, 5, 8)
    ours = rg.Attention(rg.Additive(8, 8, 8, bias=True))
    names = {"query": theirs.Wa, "key": theirs.Ua, "energy": theirs.Va}
    state = {f"{name}.{key}": value for name, layer in names.items() for key, value in layer.state_dict().items()}
    ours.score.load_state_dict(state)
    out = ours(query, ours.prepare(keys, keys), weights=True)
    assert_close((out.context, out.weights), theirs(query, keys))
    without = rg.Attention(rg.Additive(8, 8, 8))
    without.score.load_state_dict({name: value for name, value in state.items() if name.endswith("weight")})
    assert (without(query, without.prepare(keys, keys)).context - out.context).abs().max() > 1e-3
    scores = theirs.Va(torch.tanh(theirs.Wa(query) + theirs.Ua(keys))).mT  # all three count where no softmax is taken
    assert_close(ours.score(query, keys), scores)


@pytest.fixture
def fast_when_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the roads of the additive score for small sizes too."""
    for module in (cpu, look_cpu):
        monkeypatch.setattr(module, "SMALLEST", 0)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("over", [rg.softmax, rg.sigmoid, rg.sparsemax])
def test_biases_by_the_fast_roads(over, queries: int, fast_when_small: None):
    check_contexts(Contexts(rg.Additive(5, 6, 7, bias=True), over), *arguments_of(queries))
    assert cpu.is_matrix(rg.Additive(5, 6, 7, bias=True).energy)


def arguments_of(queries: int) -> list[Tensor]:
    return [torch.randn(2, queries, 5), torch.randn(2, 9, 6), torch.randn(2, 9, 3)]


def test_biases_streamed(monkeypatch: pytest.MonkeyPatch):
    query, keys, values = arguments_of(3)
    attention = rg.Attention(rg.Additive(5, 6, 7, bias=True), read=rg.mode).requires_grad_(False)
    outs = []
    for smallest in (0, 1 << 13):
        monkeypatch.setattr(cpu_cuda, "SMALLEST", smallest)
        outs.append(attention(query, attention.prepare(keys, values)))
    assert_close((outs[0].z, outs[0].log_prob), (outs[1].z, outs[1].log_prob))


SIZES = {torch.float16: (1e-4, 1.0, 1e4, 6e4), torch.bfloat16: (1e-30, 1.0, 1e30), torch.float32: (1e-40, 1e-25, 1e30)}


@pytest.mark.parametrize(("dtype", "size"), [(dtype, size) for dtype, sizes in SIZES.items() for size in sizes])
def test_a_cosine_of_vectors_of_any_size(dtype: torch.dtype, size: float):
    """Squares that a number of this type cannot hold do no harm."""
    query = torch.tensor([[size, size, 0.0], [0.0, -size, 0.0]]).to(dtype)
    keys = torch.tensor([[size, 0.0, 0.0], [0.0, size, 0.0], [0.0, 0.0, 0.0]]).to(dtype)
    root = math.sqrt(0.5)
    wanted = torch.tensor([[root, root, 0.0], [0.0, -1.0, 0.0]])
    assert_close(rg.Cosine()(query, keys).float(), wanted, atol=1e-2 if dtype != torch.float32 else 1e-6, rtol=0)
    context = rg.attend(query, keys, keys, score=rg.Cosine(4.0), weights=True)
    assert context.weights.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_cosine_has_finite_gradients_at_zero(dtype: torch.dtype):
    query = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    keys = torch.cat((torch.zeros(1, 3), torch.ones(1, 3))).to(dtype).requires_grad_()
    rg.Cosine()(query, keys).sum().backward()
    assert query.grad.isfinite().all() and keys.grad.isfinite().all()


def test_each_head_has_a_score_of_its_own():
    scores = [rg.Additive(4, 4, 4), rg.Bilinear(4, 4), rg.Additive(4, 4, 4, bias=True)]
    together = rg.MultiHead(12, 3, score=rg.per_head(*scores))
    words = torch.randn(2, 5, 12)
    out = together(words, together.prepare(words, words))
    query, keys = (layer(words).unflatten(-1, (3, 4)) for layer in (together.query, together.key))
    apart = [score(query[:, :, head], keys[:, :, head]).softmax(-1) for head, score in enumerate(scores)]
    assert_close(out.weights, torch.stack(apart, 1))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: rg.per_head(rg.dot), TypeError, "per_head expected modules that score query and keys alone.*got dot"),
        (lambda: rg.per_head(rg.Coverage(2, 2, 2)), TypeError, "query and keys alone, but got Coverage"),
        (
            lambda: rg.per_head(rg.Cosine(), rg.Cosine())(torch.ones(3, 1, 2), torch.ones(3, 4, 2)),
            ValueError,
            r"keys expected 2 heads, one for each score of per_head.*but got \(3, 4, 2\)",
        ),
        (
            lambda: rg.per_head(rg.Additive(2, 2, 5), rg.Cosine())(torch.ones(2, 1, 2), torch.ones(2, 4, 2)),
            ValueError,
            r"per_head expected scores that prepare keys of one size, but got the sizes \[5, 2\]",
        ),
    ],
)
def test_scores_that_cannot_be_those_of_heads(call, kind: type, message: str):
    with pytest.raises(kind, match=message):
        call()


WIDTHS = {
    "dot": (lambda: rg.dot, r"query expected 4 as the last size, that of the keys, but got \(2, 3, 5\)"),
    "scaled_dot": (lambda: rg.scaled_dot, r"query expected 4 as the last size, that of the keys"),
    "cosine": (rg.Cosine, "query expected 4 as the last size, which Cosine compares with the keys"),
    "content": (lambda: rg.Content(6, 4), "query expected 6 as the last size, which Content compares with the keys"),
    "content, keys": (lambda: rg.Content(5, 6), r"keys expected 6 as the last size, the key_dim of Content"),
    "additive": (lambda: rg.Additive(6, 4, 2), "query expected 6 as the last size, which Additive compares"),
    "additive, keys": (lambda: rg.Additive(5, 6, 2), r"keys expected 6 as the last size, the key_dim of Additive"),
    "bilinear": (lambda: rg.Bilinear(6, 4), "query expected 6 as the last size, which Bilinear compares"),
    "bilinear, keys": (lambda: rg.Bilinear(5, 6), "keys expected 6 as the last size, the key_dim of Bilinear"),
    "location": (lambda: rg.Location(6, 9), "query expected 6 as the last size, which Location compares"),
    "biased": (lambda: rg.biased(rg.dot, torch.zeros(1)), "query expected 4 as the last size, that of the keys"),
    "coverage": (lambda: rg.Coverage(6, 4, 2), "query expected 6 as the last size, which Additive compares"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("over", [rg.softmax, rg.local(1)])
@pytest.mark.parametrize("name", WIDTHS)
def test_vectors_of_a_size_that_does_not_fit_are_refused_in_words(name: str, over):
    make, message = WIDTHS[name]
    with pytest.raises(ValueError, match=message):
        rg.attend(torch.randn(2, 3, 5), torch.randn(2, 9, 4), torch.randn(2, 9, 1), score=make(), over=over)
