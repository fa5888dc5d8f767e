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


def heads(theirs: nn.MultiheadAttention, **parts) -> rg.MultiHead:
    """A MultiHead with the weights of PyTorch's."""
    ours = rg.MultiHead(theirs.embed_dim, theirs.num_heads, **parts).double()
    for name, weight, bias in zip(
        ("query", "key", "value"), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
    ):
        getattr(ours, name).load_state_dict({"weight": weight, "bias": bias})
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    return ours


@pytest.mark.parametrize("mask", ["none", "padding", "causal"])
def test_multihead_is_that_of_pytorch(mask: str):
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    ours, words = heads(theirs), torch.randn(2, 4, 8, dtype=torch.float64)
    allowed = {"none": None, "padding": rg.padding(torch.tensor([2, 4]), 4), "causal": rg.causal(4)}[mask]
    theirs_mask = {
        "padding": {"key_padding_mask": ~rg.padding(torch.tensor([2, 4]), 4)[:, 0]},
        "causal": {"attn_mask": ~rg.causal(4)},
    }
    wanted, weights = theirs(words, words, words, average_attn_weights=False, **theirs_mask.get(mask, {}))
    out = ours(words, ours.prepare(words, words, allowed))
    assert_close((out.context, out.weights), (wanted, weights))


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
    "mask of keys or of queries": (dict(mask=(2, 4)), r"mask expected a shape that can be told apart.*got \(2, 4\)"),
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
