"""What attention is beyond the laws: shapes, errors, readers, heads, glimpses."""

import examples
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg


class Reader:
    """Values that lie elsewhere, such as on a disk; counts what is read."""

    def __init__(self, values: Tensor):
        self.values = values
        self.places = []

    def read(self, z: Tensor) -> Tensor:
        self.places.append(z)
        return torch.take_along_dim(self.values, z.clamp(min=0).unsqueeze(-1), -2)


@pytest.mark.parametrize("over", ["softmax", "subset(2)", "without_replacement(2)", "sigmoid", "local-p"])
@pytest.mark.parametrize("read", ["mean", "sample", "mode", "straight_through"])
def test_a_reader_reads_what_the_tensor_holds(read: str, over: str):
    query, keys, values = examples.inputs()
    contexts = []
    for each in (values, Reader(values)):
        torch.manual_seed(0)
        contexts.append(
            rg.attend(
                query,
                keys,
                each,
                score=rg.dot,
                read=examples.READS[read](),
                over=examples.OVERS[over]() if over != "local-p" else rg.softmax,
            ).context
        )
    assert_close(*contexts)


def test_a_hard_read_reads_one_place_a_query_and_a_soft_read_all():
    query, keys, values = examples.inputs()
    hard, soft = Reader(values), Reader(values)
    out = rg.attend(query, keys, hard, read=rg.sample)
    rg.attend(query, keys, soft, read=rg.mean)
    assert [z.tolist() for z in hard.places] == [out.z.tolist()]
    assert [z.shape for z in soft.places] == [(2, 4)]


def test_hard_samples_in_training_and_takes_the_mode_in_evaluation():
    query, keys, values = examples.inputs()
    attention = rg.Attention(rg.dot, read=rg.hard)
    memory = attention.prepare(keys, values)
    draws = torch.stack([attention(query, memory).z for _ in range(50)])
    assert (draws != draws[0]).any()
    attention.eval()
    assert (attention(query, memory).z == attention(query, memory).positions.mode).all()


def test_draws_stand_in_front():
    query, keys, values = examples.inputs()
    out = rg.attend(query.expand(7, 2, 3, 5), keys, values, read=rg.sample, mask=rg.padding(torch.tensor([1, 4]), 4))
    assert out.context.shape == (7, 2, 3, 2) and out.z.shape == out.log_prob.shape == (7, 2, 3)
    assert (out.z[:, 0] == 0).all() and (out.z[:, 1] != out.z[0, 1]).any()
    assert_close(out.context[3, 1, 2], values[1, out.z[3, 1, 2]])


def test_where_nothing_may_be_seen_nothing_is_read():
    query, keys, values = examples.inputs()
    out = rg.attend(query, keys, values, read=rg.sample, mask=torch.zeros(2, 1, 4, dtype=torch.bool))
    assert (out.z == -1).all() and (out.context == 0).all() and (out.log_prob == 0).all()


def test_nan_in_the_scores_propagates():
    query, keys, values = examples.inputs()
    query[0, 1] = float("nan")
    context = rg.attend(query, keys, values).context
    assert context[0, 1].isnan().all() and context[0, 0].isfinite().all() and context[1].isfinite().all()


def test_nan_in_the_scores_is_looked_for_where_anomalies_are_detected():
    query, keys, values = examples.inputs()
    query[0, 1] = float("nan")
    with (
        pytest.warns(UserWarning, match="Anomaly Detection has been enabled"),
        torch.autograd.detect_anomaly(),
        pytest.raises(ValueError, match="scores expected numbers, but got NaN"),
    ):
        rg.attend(query, keys, values, score=rg.dot)


@pytest.mark.parametrize("mask", ["none", "padding", "causal"])
def test_multihead_is_that_of_pytorch(mask: str):
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    ours, words = rg.MultiHead.from_torch(theirs), torch.randn(2, 4, 8, dtype=torch.float64)
    allowed = {"none": None, "padding": rg.padding(torch.tensor([2, 4]), 4), "causal": rg.causal(4)}[mask]
    theirs_mask = {
        "padding": {"key_padding_mask": ~rg.padding(torch.tensor([2, 4]), 4)[:, 0]},
        "causal": {"attn_mask": ~rg.causal(4)},
    }
    wanted, weights = theirs(words, words, words, average_attn_weights=False, **theirs_mask.get(mask, {}))
    out = ours(words, ours.prepare(words, words, allowed))
    assert_close((out.context, out.weights), (wanted, weights))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("key_dim", "value_dim"), [(None, None), (6, 5), (8, 5)])
def test_multihead_from_pytorch(bias: bool, batch_first: bool, key_dim: int | None, value_dim: int | None):
    theirs = nn.MultiheadAttention(8, 4, bias=bias, kdim=key_dim, vdim=value_dim, batch_first=batch_first)
    theirs = theirs.double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    sizes = (3, 8), (5, key_dim or 8), (5, value_dim or 8)
    query, keys, values = given = [torch.randn(2, *size, dtype=torch.float64) for size in sizes]
    wanted, weights = theirs(
        *(each if batch_first else each.transpose(0, 1) for each in given), average_attn_weights=False
    )
    ours = rg.MultiHead.from_torch(theirs)
    out = ours(query, ours.prepare(keys, values))
    assert_close((out.context, out.weights), (wanted if batch_first else wanted.transpose(0, 1), weights))
    assert not ours.training
    ours.query.weight.data.zero_()
    assert all((parameter != 0).all() for parameter in theirs.parameters()), "the weights are copies"


def test_dropout_of_pytorch_s_is_dropout_of_ours():
    ours = rg.MultiHead.from_torch(nn.MultiheadAttention(8, 2, dropout=0.25))
    assert isinstance(ours.attention.over, rg.dropout) and ours.attention.over.p == 0.25


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_multihead_from_pytorch_refuses_what_it_has_no_counterpart_for(option: str):
    with pytest.raises(ValueError, match=f"from_torch expected a module without {option}, which has no counterpart"):
        rg.MultiHead.from_torch(nn.MultiheadAttention(8, 2, **{option: True}))


@pytest.mark.parametrize("score", [rg.scaled_dot, rg.dot])
@pytest.mark.parametrize("read", [rg.mean, rg.mode])
def test_a_mask_for_each_head(score, read):
    attention, words = rg.MultiHead(8, 4, score, read=read), torch.randn(2, 5, 8)
    mask = torch.rand(2, 4, 5, 5) < 0.6
    out = attention(words, attention.prepare(words, words, mask))
    assert (out.weights[~mask] == 0).all() and (out.weights[mask & mask.any(-1, keepdim=True)] > 0).all()
    alike = torch.rand(2, 5, 5) < 0.6
    one = attention(words, attention.prepare(words, words, alike))
    each = attention(words, attention.prepare(words, words, alike.unsqueeze(1).expand(2, 4, 5, 5)))
    assert_close((one.context, one.weights), (each.context, each.weights))
    assert_close(attention(words, attention.prepare(words, words, mask[:1, :, :1])).context.shape, out.context.shape)
    words, mask = words[0], mask[0]  # without a batch
    apart = attention(words, attention.prepare(words, words, mask))
    assert_close(apart.weights, out.weights[0])


@pytest.mark.unchecked
@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (5,), (1, 2, 4, 5, 5), (2, 5, 6)])
def test_a_mask_of_other_heads_is_refused(shape: tuple[int, ...]):
    attention, words = rg.MultiHead(8, 4), torch.randn(2, 5, 8)
    with pytest.raises(ValueError, match=r"mask expected the shape .*but got"):
        attention.prepare(words, words, torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("score", ["scaled_dot", "additive", "per head"])
def test_grouped_queries_are_those_of_heads_whose_keys_are_alike(score: str, key_heads: int):
    """Against a MultiHead with a head of keys for each, in which those of a group are copies."""
    parts = {"scaled_dot": rg.scaled_dot, "additive": rg.Additive(2, 2, 3)}
    part = parts[score] if score in parts else rg.per_head(*(rg.Additive(2, 2, 3) for _ in range(4)))
    ours, wide = (rg.MultiHead(8, 4, part, read=rg.mean, key_heads=count).double() for count in (key_heads, 4))
    assert ours.key.weight.shape == (2 * key_heads, 8)
    for name in ("query", "out"):
        getattr(wide, name).load_state_dict(getattr(ours, name).state_dict())
    for name in ("key", "value"):
        for kind in ("weight", "bias"):
            narrow = getattr(getattr(ours, name), kind).data.unflatten(0, (key_heads, 2))
            getattr(getattr(wide, name), kind).data = narrow.repeat_interleave(4 // key_heads, 0).flatten(0, 1)
    words, mask = torch.randn(3, 5, 8, dtype=torch.float64), torch.rand(3, 4, 5, 5) < 0.7
    memory = ours.prepare(words, words, mask)
    out, wanted = ours(words, memory), wide(words, wide.prepare(words, words, mask))
    assert_close((out.context, out.weights), (wanted.context, wanted.weights))
    assert memory.values.shape == (3, 4 if score == "per head" else key_heads, 5, 2)
    rows = torch.tensor([2, 0])
    assert_close(ours(words[rows], rg.select(memory, rows)).context, out.context[rows])


@pytest.mark.unchecked
def test_sizes_that_do_not_fit_heads_are_refused():
    with pytest.raises(ValueError, match="MultiHead expected heads to be a multiple of key_heads=3, but got 4"):
        rg.MultiHead(8, 4, key_heads=3)
    attention, words = rg.MultiHead(8, 2), torch.randn(2, 5, 8)
    with pytest.raises(ValueError, match=r"query expected 8 as the last size, the model_dim of .* but got \(2, 5, 6\)"):
        attention(words[..., :6], attention.prepare(words, words))
    with pytest.raises(
        ValueError, match=r"keys expected 8 as the last size, which MultiHead projects, but got \(2, 5, 6\)"
    ):
        attention.prepare(words[..., :6], words)
    with pytest.raises(ValueError, match=r"values expected 8 as the last size"):
        attention.prepare(words, words[..., :6])
    with pytest.raises(TypeError, match="values expected a tensor, which MultiHead projects, but got Reader"):
        attention.prepare(words, Reader(words))


def test_multihead_sums_the_log_probability_over_heads():
    attention, words = rg.MultiHead(8, 4, read=rg.sample), torch.randn(3, 5, 8)
    out = attention(words, attention.prepare(words, words, rg.causal(5)))
    assert out.z.shape == (3, 4, 5) and out.log_prob.shape == (3, 5)
    assert_close(out.log_prob, out.positions.log_prob(out.z).sum(1))


def test_multihead_takes_structures_and_states():
    attention, words = rg.MultiHead(8, 2, over=rg.local(1)), torch.randn(3, 5, 8)
    memory = attention.prepare(words, words)
    first = attention(words[:, :2], memory)
    second = attention(words[:, 2:], memory, first.state)
    assert_close(torch.cat((first.context, second.context), 1), attention(words, memory).context)


class Sensor:
    def read(self, z: Tensor) -> Tensor:
        return 10 * z


@pytest.mark.parametrize("training", [True, False])
def test_look(training: bool):
    query = torch.randn(4, 2).clamp(-1, 1).requires_grad_()
    seen = rg.look(query, lambda centre: rg.Coordinate(centre, 0.1), Sensor(), training=training)
    assert_close(seen.context, 10 * seen.z)
    assert_close(seen.log_prob, seen.positions.log_prob(seen.z))
    assert (seen.z == query).all() != training
    seen.log_prob.sum().backward()
    assert query.grad.abs().sum() > 0 or not training


ERRORS = {
    "no keys": (dict(keys=(2, 0, 5), values=(2, 0, 2)), "keys expected at least one place to look at, but got shape"),
    "values": (
        dict(values=(2, 5, 2)),
        r"values expected the shape of the keys but for the last dimension.*got \(2, 5, 2\)",
    ),
    "batch of values": (dict(values=(3, 4, 2)), r"values expected the shape of the keys.*\(3, 4, 2\)"),
    "batch of query": (
        dict(query=(3, 3, 5)),
        r"query expected the shape \(\*B, Q, Dq\) with the batch \(2,\).*\(3, 3, 5\)",
    ),
    "rank of query": (dict(query=(5,)), r"query expected the shape.*got \(5,\)"),
    "rank of keys": (dict(keys=(4,), values=(4,)), r"keys expected the shape \(\*B, K, Dk\), but got \(4,\)"),
    "mask of one row": (
        dict(mask=(4,)),
        r"mask expected the shape \(\*B, Q, K\) with B = \(2,\) and K = 4.*got \(4,\)",
    ),
    "mask of keys": (dict(mask=(2, 3, 5)), r"mask expected the shape.*got \(2, 3, 5\)"),
    "mask of batch": (dict(mask=(3, 3, 4)), r"mask expected the shape.*got \(3, 3, 4\)"),
    "mask of queries": (dict(mask=(2, 2, 4)), r"mask expected 3 queries or 1, but got \(2, 2, 4\)"),
    "mask of queries without batch": (dict(mask=(5, 4)), r"mask expected 3 queries or 1, but got \(2, 5, 4\)"),
    "mask of padding": (
        dict(mask=(2, 4)),
        r"mask expected a shape that can be told apart from that of padding.* but got \(2, 4\) for a batch of 2",
    ),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.parametrize("score", ["scaled_dot", "additive"])
def test_shapes_that_do_not_fit_are_refused(case: str, score: str):
    shapes, message = ERRORS[case]
    arguments = {
        name: torch.randn(shapes.get(name, shape), dtype=torch.float64)
        for name, shape in dict(query=(2, 3, 5), keys=(2, 4, 5), values=(2, 4, 2)).items()
    }
    mask = torch.ones(shapes["mask"], dtype=torch.bool) if "mask" in shapes else None
    with pytest.raises(ValueError, match=message):
        rg.attend(**arguments, score=examples.SCORES[score](), mask=mask)


@pytest.mark.unchecked
def test_a_mask_that_is_not_bool_is_refused():
    query, keys, values = examples.inputs()
    with pytest.raises(
        TypeError, match=r"mask expected dtype bool, True where a key may be looked at, but got torch\.float32"
    ):
        rg.attend(query, keys, values, mask=torch.ones(3, 4))


def test_no_queries_read_nothing():
    for read in (rg.mean, rg.sample):
        assert rg.attend(torch.ones(2, 0, 5), torch.ones(2, 4, 5), torch.ones(2, 4, 3), read=read).context.shape == (
            2,
            0,
            3,
        )


def test_heads_that_do_not_divide_the_model_are_refused():
    with pytest.raises(ValueError, match="MultiHead expected model_dim to be a multiple of heads=3, but got 8"):
        rg.MultiHead(8, 3)


def test_a_score_without_compare_says_what_is_missing():
    with pytest.raises(TypeError, match=r"Score must define compare\(query, prepared\)"):
        rg.Score()(torch.ones(1, 2), torch.ones(1, 2))


def test_an_attention_shows_its_triple():
    shown = repr(rg.Attention(rg.Additive(2, 2, 2), rg.local(2), rg.hard))
    assert "read=hard" in shown and "(score): Additive" in shown and "local(radius=2)" in shown
    assert repr(rg.Attention()) == "Attention(score=scaled_dot, over=softmax, read=mean)"


class TestSummary:
    """What one may want of weights that are not kept."""

    query, keys = torch.randn(2, 7, 4, dtype=torch.float64), torch.randn(2, 9, 4, dtype=torch.float64)

    @pytest.mark.parametrize("mask", [None, torch.ones(7, 9).tril().bool(), rg.padding(torch.tensor([3, 0]), 9)])
    @pytest.mark.parametrize("size", [1, 50, 10**6])
    def test_it_is_that_of_the_weights(self, mask: Tensor | None, size: int, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(rg.attention, "BLOCK", size)
        out = rg.attend(self.query, self.keys, self.keys, mask=mask)
        found = out.summary(top=3)
        assert out.formed is None, "the weights are not kept"
        scores = self.query @ self.keys.mT / 2
        scores = scores if mask is None else scores.masked_fill(~mask, -float("inf"))
        assert_close(found.log_sum_exp, scores.logsumexp(-1))
        assert_close(found.entropy, out.positions.entropy())
        assert_close(found.coverage, out.weights.sum(-2))
        assert_close(found.weights, out.weights.sort(-1, descending=True).values[..., :3])
        assert_close(out.weights.gather(-1, found.places), found.weights)

    def test_of_any_distribution(self):
        for over in (rg.sparsemax, rg.subset(2), rg.local(1)):
            out = rg.attend(self.query, self.keys, self.keys, over=over)
            found = out.summary()
            assert found.log_sum_exp is None or over is not rg.sparsemax
            assert_close((found.weights[..., 0], found.coverage), (out.weights.amax(-1), out.weights.sum(-2)))

    def test_after_the_weights_are_gone_for_good(self):
        with pytest.raises(ValueError, match=r"before detach\(\)"):
            rg.attend(self.query, self.keys, self.keys).detach().summary()

    def test_of_nothing(self):
        for query, keys in ((self.query[:, :0], self.keys), (self.query[:0], self.keys[:0])):
            found = rg.attend(query, keys, keys).summary()
            assert found.coverage.shape == (len(query), 9) and (found.coverage == 0).all()

    def test_how_many(self):
        with pytest.raises(ValueError, match="summary expected top of at least 1, but got 0"):
            rg.attend(self.query, self.keys, self.keys).summary(0)


def test_a_step_of_decoding_computes_nothing_anew():
    """The keys are projected once; a beam is reordered and rows that are done are dropped without another look."""
    score = rg.Additive(4, 4, 8)
    calls = []
    score.key.register_forward_hook(lambda *_: calls.append(0))
    attention = rg.Attention(score, rg.local(2))
    memory = attention.prepare(keys := torch.randn(3, 20, 4), values := torch.randn(3, 20, 2))
    queries, state, rows = torch.randn(5, 3, 1, 4), None, torch.arange(3)
    for step, order in enumerate(([2, 0, 0], [1, 1, 2], [0, 2], [1], [0])):
        out = attention(queries[step, rows], memory, state)
        memory, state, rows = (rg.select(each, torch.tensor(order)) for each in (memory, out.state, rows))
    assert len(calls) == 1
    whole = attention(queries[:, rows].transpose(0, 2)[0], attention.prepare(keys[rows], values[rows]))
    last = attention(queries[4, rows], memory, rg.State(over=torch.tensor([4])))
    assert_close(last.context, whole.context[:, 4:])


KINDS = {
    "a score by name": (
        dict(score="dot"),
        "score expected a part, not its name, but got 'dot': did you mean regard.dot",
    ),
    "a score nearly by name": (dict(score="aditive"), r"got 'aditive': did you mean regard.Additive\(...\)\?"),
    "an over by name": (dict(over="softmax"), "over expected a part, not its name.*did you mean regard.softmax"),
    "an unknown over": (dict(over="zzz"), "got 'zzz': a part such as regard.softmax is what it takes"),
    "a read by name": (dict(read="hard"), "read expected a part, not its name.*did you mean regard.hard"),
    "a score not called": (
        dict(score=rg.Additive),
        r"got the class Additive, which is one when called: Additive\(...\)",
    ),
    "an over not called": (dict(over=rg.monotonic), r"got the class monotonic, which is one when called: monotonic\("),
    "a small over not called": (dict(over=rg.top_k), "over expected a part, but got the class top_k"),
    "a read not called": (dict(read=rg.relaxed), "read expected a part, but got the class relaxed"),
    "a number": (dict(over=3), "over expected a function or a module, such as regard.softmax, but got int"),
    "nothing": (dict(score=None), "score expected a function or a module, such as regard.dot, but got NoneType"),
    "a score for a read": (dict(read=rg.dot), "read expected a part such as regard.mean, but got dot.*part for score"),
    "a read for an over": (dict(over=rg.mean), "over expected a part such as regard.softmax, but got mean"),
    "an over for a score": (dict(score=rg.entmax(1.5)), "score expected a part such as regard.dot, but got entmax"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("case", KINDS)
def test_what_is_no_part_is_refused_in_words_at_every_door(case: str):
    parts, message = KINDS[case]
    if parts.get("score") is not None:
        with pytest.raises(TypeError, match=message):
            rg.monotonic(chunk=2, **parts)
    if "over" in parts:
        with pytest.raises(TypeError, match=message):
            rg.dropout(p=0.1, **parts)
    query, keys, values = examples.inputs()
    with pytest.raises(TypeError, match=message):
        rg.attend(query, keys, values, **parts)
    for make in (rg.Attention, lambda **parts: rg.MultiHead(8, 2, **parts)):
        with pytest.raises(TypeError, match=message):
            make(**parts)
    if "read" in parts:
        with pytest.raises(TypeError, match=message):
            rg.look(query, lambda centre: rg.Coordinate(centre[..., :2], 0.1), Sensor(), **parts)


@pytest.mark.unchecked
def test_a_part_of_one_s_own_may_be_anything_that_can_be_called():
    query, keys, values = examples.inputs()

    class Own:
        def at(self, step: rg.Step):
            return rg.softmax

    out = rg.attend(query, keys, values, score=lambda q, k: q @ k.mT, over=Own(), read=lambda p, v: rg.mode(p, v))
    assert_close(out.context, rg.attend(query, keys, values, score=rg.dot, read=rg.mode).context)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, q, k, v: a(q, k), r"memory expected what prepare\(keys, values, mask\) made, but got Tensor"),
        (lambda a, q, k, v: a(q, a.prepare(k, v), torch.ones(3, 4)), "state expected the out.state of the step before"),
        (lambda a, q, k, v: a(q.numpy(), a.prepare(k, v)), "query expected a tensor, but got ndarray"),
        (lambda a, q, k, v: a.prepare(k.tolist(), v), "keys expected a tensor, but got list"),
        (
            lambda a, q, k, v: a.prepare(k, v.numpy()),
            r"values expected a tensor or an object with read\(z\), but got nd",
        ),
    ],
)
def test_what_is_no_query_memory_or_state_is_refused_in_words(call, message: str):
    query, keys, values = (each.float() for each in (*examples.inputs()[:2], torch.randn(2, 4, 5)))
    with pytest.raises(TypeError, match=message):
        call(rg.Attention(), query, keys, values)
    if "memory" in message or "state" in message:
        heads = rg.MultiHead(5, 1)
        with pytest.raises(TypeError, match=message):
            call(heads, query, keys, values)


class TestWeightsWithTheContext:
    """One pass for both: what is asked for later, with the context."""

    @pytest.mark.parametrize("score", ["dot", "scaled_dot", "additive", "coverage", "fatigue"])
    @pytest.mark.parametrize("over", ["softmax", "sparsemax", "local-m", "subset(2)", "monotonic(2)"])
    @pytest.mark.parametrize("read", ["mean", "mode"])
    def test_they_are_what_they_would_be(self, score: str, over: str, read: str):
        query, keys, values = examples.inputs()
        model = rg.Attention(examples.SCORES[score](), examples.OVERS[over](), examples.READS[read]())
        memory = model.prepare(keys, values, rg.padding(torch.tensor([2, 0]), 4))
        first = model(query[:, :2], memory)
        both, apart = (model(query, memory, weights=wanted) for wanted in (True, False))
        assert_close((both.context, both.weights), (apart.context, apart.weights))
        later = model(query[:, 2:], memory, first.state, weights=True)
        assert_close(later.weights, model(query[:, 2:], memory, first.state).weights)
        if both.log_prob is not None:
            assert_close((both.z, both.log_prob), (apart.z, apart.log_prob))

    def test_gradients_reach_the_scores_through_both(self):
        query, keys, values = examples.inputs()
        leaf, grads = query.requires_grad_(), []
        for wanted in (True, False):
            out = rg.attend(leaf, keys, values, weights=wanted)
            grads.append(torch.autograd.grad(out.context.sum() + out.weights.square().sum(), leaf)[0])
        assert_close(*grads)

    def test_the_scores_are_computed_once(self):
        calls = []

        def score(query: Tensor, keys: Tensor) -> Tensor:
            calls.append(0)
            return query @ keys.mT

        query, keys, values = examples.inputs()
        out = rg.attend(query, keys, values, score=score, weights=True)
        assert out.weights is out.weights and len(calls) == 1

    def test_of_every_head(self):
        attention, words = rg.MultiHead(8, 2), torch.randn(3, 5, 8)
        memory = attention.prepare(words, words)
        both, apart = attention(words, memory, weights=True), attention(words, memory)
        assert both.dense is not None and apart.dense is None
        assert_close((both.context, both.weights), (apart.context, apart.weights))

    def test_they_stay_when_the_query_and_the_keys_are_dropped(self):
        query, keys, values = examples.inputs()
        out = rg.attend(query.requires_grad_(), keys, values, weights=True).detach()
        assert out.weights.shape == (2, 3, 4) and not out.weights.requires_grad


def test_weights_that_are_not_formed_keep_query_and_keys_until_they_are_detached():
    query, keys, values = examples.inputs()
    out = rg.attend(query, keys, values)
    assert out.asked.query is query and out.asked.memory.keys is keys and out.formed is None
    assert out.detach().asked is None
    assert out.weights is not None and out.formed is not None


class Strict(Reader):
    """Values that lie elsewhere, which has nothing at nowhere."""

    def read(self, z: Tensor) -> Tensor:
        assert (z >= 0).all(), "a reader is never asked for nowhere"
        return super().read(z)


@pytest.mark.parametrize(
    "over", ["softmax", "subset(9)", "without_replacement(2)", "sigmoid", "segments", "monotonic(3)"]
)
@pytest.mark.parametrize("draws", [(), (7,)])
def test_a_reader_is_asked_for_places_of_each_draw_and_row_and_never_for_nowhere(over: str, draws: tuple[int, ...]):
    query, keys, values = examples.inputs()
    query, reader = query.expand(*draws, *query.shape), Strict(values.expand(*draws, *values.shape))
    mask = rg.padding(torch.tensor([0, 2]), 4)
    contexts = []
    for each in (values, reader):
        torch.manual_seed(0)
        out = rg.attend(query, keys, each, over=examples.OVERS[over](), read=rg.sample, mask=mask)
        contexts.append(out.context)
    assert_close(*contexts)
    assert (contexts[0][..., 0, :, :] == 0).all()
    assert reader.places and all(z.shape[:-1] == (*draws, 2) for z in reader.places)


def test_a_reader_is_asked_for_nothing_that_is_not_read():
    """Where one place of a row is read, it stands in for those that are nowhere."""
    positions, reader = (
        rg.Subset(torch.tensor([[0.0, -examples.INFINITY, -examples.INFINITY, 1.0]]), 4),
        Strict(torch.eye(4)),
    )
    context = positions.gather(reader, torch.tensor([[3, 0, -1, -1]]))
    assert_close(context, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    assert reader.places[0].tolist() == [3, 0, 3, 3]
