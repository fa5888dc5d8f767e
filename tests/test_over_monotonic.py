"""Monotonic alignments beyond the laws: their equations, their mass, how little is read online."""

import math

import examples
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg


def walked(p: Tensor) -> Tensor:
    """Equation 9 of Raffel et al. in loops, for p (Q, K)."""
    queries, places = p.shape
    before, rows = [1.0] + [0.0] * (places - 1), []
    for i in range(queries):
        row = []
        for j in range(places):
            row.append(
                p[i, j].item()
                * sum(before[k] * math.prod(1 - p[i, l].item() for l in range(k, j)) for k in range(j + 1))  # noqa: E741
            )
        rows.append(row)
        before = row
    return torch.tensor(rows, dtype=torch.float64)


def read_softly(alpha: Tensor, u: Tensor, width: int) -> Tensor:
    """Equation 18 of Chiu and Raffel in loops, for rows of K."""
    beta = torch.zeros_like(alpha)
    for i in range(alpha.shape[0]):
        for k in range(alpha.shape[1]):
            window = list(range(max(0, k - width + 1), k + 1))
            beta[i, window] += alpha[i, k] * u[i, window].softmax(-1)
    return beta


def test_the_expected_alignment():
    scores = torch.randn(5, 7, dtype=torch.float64)
    assert_close(rg.Alignment(scores).mean, walked(scores.sigmoid()))


@pytest.mark.parametrize("places", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 8, 20, None])
def test_the_expected_chunks(chunk: int | None, places: int):
    scores, within = torch.randn(2, 5, places, dtype=torch.float64)
    wanted = read_softly(walked(scores.sigmoid()), within, chunk or places)
    assert_close(rg.Chunkwise(scores, within=within, chunk=chunk).mean, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("p", "places"), [(0.5, 100), (0.9, 50), (0.1, 500), (0.5, 3000)])
def test_no_mass_is_lost_where_closed_forms_lose_it(p: float, places: int, dtype: torch.dtype):
    scores = torch.full((1, 2 * places), math.log(p / (1 - p)), dtype=dtype)
    middle = torch.nn.functional.one_hot(torch.tensor(places), 2 * places).to(dtype)
    assert_close(rg.Alignment(scores, middle).mean.sum(), torch.ones((), dtype=dtype))
    assert_close(rg.Chunkwise(scores, middle, chunk=4).mean.sum(), torch.ones((), dtype=dtype))
    assert closed_form(scores.sigmoid(), middle).sum() < 0.5


def closed_form(p: Tensor, before: Tensor) -> Tensor:
    """What popular code computes: the negative control."""
    passed = (1 - p).clamp(1e-10, 1).log().roll(1, -1).index_fill(-1, torch.tensor(0), 0).cumsum(-1).exp()
    return p * passed * (before / passed.clamp(1e-10, 1)).cumsum(-1)


@pytest.mark.parametrize("places", [10, 2000])
def test_the_log_probability_does_not_underflow(places: int):
    positions = rg.Alignment(torch.zeros(1, places))
    assert_close(positions.log_prob(torch.tensor([places - 1])), torch.tensor(-places * math.log(2.0)))
    steps = rg.Alignment(torch.zeros(2, places)).log_prob(torch.tensor([0, places - 1]))
    assert_close(steps, torch.tensor(-(places + 1) * math.log(2.0)))
    assert_close(positions.kl(rg.Alignment(torch.full((1, places), 1.0))).isfinite(), torch.tensor(True))


@pytest.mark.parametrize("chunk", [1, 2, 5, None])
def test_chunks_are_exact_at_large_scores(chunk: int | None):
    scores, within = torch.randn(1, 4, 11, dtype=torch.float64), 1e4 * torch.randn(1, 4, 11, dtype=torch.float64)
    wanted = read_softly(rg.Alignment(scores).mean[0], within[0], chunk or 11)
    assert_close(rg.Chunkwise(scores, within=within, chunk=chunk).mean[0], wanted)


@pytest.mark.parametrize("chunk", [3, None])
def test_what_all_scores_have_in_common_costs_no_precision(chunk: int | None):
    scores, within = torch.randn(4, 11), 1e4 + torch.randn(4, 11)
    wanted = rg.Chunkwise(scores.double(), within=within.double(), chunk=chunk).mean
    found = rg.Chunkwise(scores, within=within, chunk=chunk).mean
    assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_chunk_with_no_place_that_may_be_read_reads_nothing():
    scores, within = torch.zeros(1, 4), torch.tensor([[-math.inf, -math.inf, 0.0, -math.inf]])
    positions = rg.Chunkwise(scores, within=within, chunk=2)
    wanted = sum(p * positions.indicator(torch.tensor([k])) for k, p in enumerate(positions.stops.mean[0]))
    assert_close(positions.mean, wanted)


def test_nothing_lies_beyond_the_length():
    scores, lengths = torch.randn(2, 5, 8), torch.tensor([3, 8])
    for chunk in (1, 3, None):
        padded = rg.monotonic(chunk)(scores, rg.padding(lengths, 8))
        assert (padded.mean[0, :, 3:] == 0).all()
        assert_close(padded.mean[0, :, :3], rg.monotonic(chunk)(scores[0, :, :3]).mean)
        assert_close(padded.entropy()[0], rg.monotonic(chunk)(scores[0, :, :3]).entropy())


def test_once_past_the_end_nothing_is_read():
    positions = rg.Alignment(torch.tensor([[-math.inf, -math.inf], [0.0, 0.0]]))
    assert positions.mean.sum() == 0 and positions.sample().tolist() == [-1, -1]
    assert positions.log_prob(torch.tensor([-1, -1])) == 0
    assert positions.log_prob(torch.tensor([-1, 0])) == -math.inf


def test_samples_of_several_queries_come_as_often_as_they_should():
    positions = rg.Alignment(torch.randn(1, 3, 3, dtype=torch.float64))
    support, z = positions.enumerate_support(), positions.sample((40_000,))
    found = (z.unsqueeze(1) == support).all(-1).double().mean(0)
    assert_close(found, positions.log_prob(support).exp(), rtol=0, atol=0.01)


def test_online_stops_at_the_first_place_that_is_as_likely_as_not():
    scores = torch.tensor(
        [[-1.0, 0.0, 5.0, -1.0], [-1.0, -2.0, -0.1, 3.0], [9.0, 9.0, 9.0, -9.0], [9.0, 9.0, 9.0, 9.0]]
    )
    assert rg.Alignment(scores).online.tolist() == [1, 3, -1, -1]
    assert rg.Alignment(scores, torch.tensor([0.0, 0.0, 1.0, 0.0])).online.tolist() == [2, 3, -1, -1]


def test_the_mode_may_differ_from_what_is_chosen_online():
    positions = rg.Alignment(torch.tensor([[0.1, 5.0], [0.0, 5.0]]))
    assert positions.online.tolist() == [0, 0] and positions.mode.tolist() == [1, 1]


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_draws_in_turn_go_on_from_where_the_one_before_stopped(chunk: int | None):
    query, keys, values = examples.inputs()
    model = rg.Attention(over=rg.monotonic(chunk), read=rg.sample)
    memory = model.prepare(keys, values)
    state, outs = None, []
    for one in query.split(1, -2):
        outs.append(model(one, memory, state))
        state = outs[-1].state
        assert_close(state.over.argmax(-1)[outs[-1].z[:, 0] >= 0], outs[-1].z[:, 0][outs[-1].z[:, 0] >= 0])
    positions = model(query, memory).positions
    z = torch.cat([out.z for out in outs], -1)
    assert_close(sum(out.log_prob for out in outs), positions.log_prob(z))
    assert_close(torch.cat([out.context for out in outs], -2), positions.gather(values, z))


def test_the_state_is_as_exact_as_float32():
    query, keys, values = (each.bfloat16() for each in examples.inputs())
    out = rg.attend(query, keys, values, over=rg.monotonic())
    assert out.weights.dtype == torch.bfloat16 and out.state.over.dtype == torch.float32
    assert rg.attend(query, keys, values, over=rg.monotonic(), state=out.state).weights.dtype == torch.bfloat16


def test_draws_of_a_score_that_carries_are_those_of_one_alignment():
    query, keys, values = examples.inputs()
    out = rg.attend(query, keys, values, score=examples.Fatigue(), over=rg.monotonic(2), read=rg.sample)
    assert out.log_prob.shape == (examples.B,)
    assert_close(out.log_prob, out.positions.log_prob(out.z))
    assert_close(out.context, out.positions.gather(values, out.z))


def test_chunks_learn_by_their_weights_and_reinforce_together():
    """The gradient of the expected cost is that of the cost plus the estimate, over all events."""
    values, prices = torch.randn(4, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def costs(positions: rg.Positions, z: Tensor) -> Tensor:
        return (positions.gather(values.expand(*z.shape[:-1], 4, 2), z) * prices).sum((-1, -2)).sin()

    positions = rg.Chunkwise(scores, chunk=2)
    z = positions.enumerate_support()
    log_prob, cost = positions.log_prob(z), costs(positions, z)
    probability = log_prob.exp()
    (truth,) = torch.autograd.grad((probability * cost).sum(), scores, retain_graph=True)
    estimate = (probability.detach() * (cost + rg.reinforce(log_prob, cost))).sum()
    assert_close(torch.autograd.grad(estimate, scores)[0], truth)


def test_several_heads_have_alignments_of_their_own():
    attention = rg.MultiHead(8, 2, over=rg.monotonic(2), read=rg.sample)
    words = torch.randn(3, 5, 8)
    memory = attention.prepare(words, words)
    out = attention(words, memory)
    assert out.z.shape == (3, 2, 5) and out.log_prob.shape == (3,)
    assert_close(out.log_prob, out.positions.log_prob(out.z).sum(-1))
    assert attention(words, memory, out.state).context.shape == (3, 5, 8)


def test_draws_stand_in_front():
    query, keys, values = examples.inputs()
    out = rg.attend(query.expand(7, *query.shape), keys, values, over=rg.monotonic(2), read=rg.sample)
    assert out.z.shape == (7, *query.shape[:-1]) and out.log_prob.shape == (7, examples.B)
    assert rg.leave_one_out(out.log_prob, out.context.sum((-1, -2))).shape == (7, examples.B)


def test_noise_is_for_training_alone():
    query, keys, values = examples.inputs()
    attention = rg.Attention(over=rg.monotonic(noise=1.0))
    memory = attention.prepare(keys, values)
    assert (attention(query, memory).weights != attention(query, memory).weights).any()
    attention.eval()
    assert_close(attention(query, memory).weights, attention(query, memory).weights)


def test_the_bias_is_learned_if_it_is_a_parameter():
    over = rg.monotonic(bias=nn.Parameter(torch.tensor(-4.0)))
    assert [name for name, _ in over.named_parameters()] == ["bias"]
    scores = torch.randn(2, 3)
    assert_close(over(scores).mean, rg.Alignment(scores - 4).mean)
    assert not list(rg.monotonic(bias=-4.0).parameters())


class Counted:
    """A tensor (*B, K, D) whose places are read lazily, and counted."""

    def __init__(self, tensor: Tensor):
        self.tensor, self.count = tensor, 0

    def read(self, z: Tensor) -> Tensor:
        self.count += int((z >= 0).sum())
        return torch.take_along_dim(self.tensor, z.clamp(min=0).unsqueeze(-1), -2)


class TestOnline:
    queries, places = 6, 40

    def inputs(self) -> list[Tensor]:
        return [torch.randn(2, n, 5, dtype=torch.float64) for n in (self.queries, self.places, self.places)]

    @pytest.mark.parametrize("own", [False, True])
    @pytest.mark.parametrize("chunk", [1, 4, None])
    def test_it_reads_what_attend_reads(self, chunk: int | None, own: bool):
        score, within = rg.Additive(5, 5, 6).double(), rg.Additive(5, 6, 6).double() if own else None
        over = rg.monotonic(chunk, bias=-0.5, score=within)
        query, keys, values = self.inputs()
        lengths = torch.tensor([self.places, 25])
        wanted = rg.attend(
            query, keys, values, score=score, over=over, read=rg.online, mask=rg.padding(lengths, self.places),
            training=False,
        )  # fmt: skip
        context, z, _ = rg.attend_online(query, keys, values, score=score, over=over, places=lengths)
        assert_close((context, z), (wanted.context, wanted.z))
        first = rg.attend_online(query[:, :2], keys, values, score=score, over=over, places=lengths)
        later = rg.attend_online(query[:, 2:], keys, values, score=score, over=over, places=lengths, state=first.state)
        assert_close(torch.cat((first.context, later.context), 1), context)

    @pytest.mark.parametrize("chunk", [1, 3, None])
    @pytest.mark.parametrize("name", examples.SCORES)
    def test_it_reads_what_attend_reads_by_every_score(self, name: str, chunk: int | None):
        score, over = examples.SCORES[name](), rg.monotonic(chunk, bias=-0.3)
        query, keys, values = (torch.randn(2, n, examples.D).double() for n in (examples.Q, examples.K, examples.K))
        lengths = torch.tensor([examples.K, examples.K - 1])
        mask = rg.padding(lengths, examples.K)
        wanted = rg.attend(query, keys, values, score=score, over=over, read=rg.online, mask=mask, training=False)
        context, z, _ = rg.attend_online(query, keys, values, score=score, over=over, places=lengths)
        assert_close((context, z), (wanted.context, wanted.z))

    @pytest.mark.parametrize("chunk", [1, 4])
    def test_it_goes_on_from_where_location_aware_looks_have_been(self, chunk: int):
        score, over = rg.LocationAware(5, 5, 6, width=7, summed=True).double(), rg.monotonic(chunk, bias=-0.5)
        nn.init.normal_(score.additive.energy.weight, std=3.0)
        nn.init.normal_(score.convolution.weight, std=3.0)
        query, keys, values = self.inputs()
        given = dict(score=score, over=over, places=torch.tensor([self.places, 25]))
        whole = rg.attend_online(query, keys, values, **given)
        state, parts = None, []
        for one in query.split(2, 1):
            parts.append(rg.attend_online(one, keys, values, **given, state=state))
            state = parts[-1].state
        assert_close(torch.cat([part.context for part in parts], 1), whole.context)
        forgetful = rg.State(None, parts[0].state.over)
        other = rg.attend_online(query[:, 2:], keys, values, **given, state=forgetful)
        assert not torch.equal(other.context, whole.context[:, 2:])

    def test_location_aware_looks_read_no_more_keys_than_others(self):
        query, keys, values = self.inputs()
        read = [Counted(each) for each in (keys, values)]
        score = rg.LocationAware(5, 5, 6, width=7).double()
        _, z, _ = rg.attend_online(query, *read, score=score, over=rg.monotonic(bias=1.0), places=self.places)
        assert 0 < read[0].count <= 2 * (int(z.max()) + 1 + self.queries) < 2 * self.places

    def test_it_compares_each_query_with_the_keys_from_the_last_stop_to_the_next_alone(self):
        query, keys, values = self.inputs()
        read = [Counted(each) for each in (keys, values)]
        _, z, _ = rg.attend_online(query, *read, places=self.places)
        ends = z.where(z >= 0, self.places - 1)
        begins = torch.cat((torch.zeros_like(ends[:, :1]), ends[:, :-1]), 1)
        ended = torch.cat((torch.zeros_like(z[:, :1]), z[:, :-1]), 1) < 0
        needed = int((ends - begins + 1).masked_fill(ended, 0).sum())
        assert needed <= read[0].count <= 2 * (self.places + self.queries)  # a row that is done asks for its first key
        assert read[1].count == int((z >= 0).sum())

    def test_a_hard_read_of_chunks_reads_their_places_alone(self):
        query, keys, values = self.inputs()
        read = Counted(values)
        out = rg.attend(query, keys, read, over=rg.monotonic(4), read=rg.sample)
        assert read.count == 4 * out.z.numel()  # where there are fewer, for the first place instead
        read = [Counted(each) for each in (keys, values)]
        _, z, _ = rg.attend_online(query, *read, over=rg.monotonic(4), places=self.places)
        assert read[1].count == 4 * z.numel()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rg.monotonic(0), ValueError, "monotonic expected a chunk of at least 1 place, but got 0"),
        (lambda: rg.monotonic(noise=-1.0), ValueError, "monotonic expected noise of at least 0, but got -1.0"),
        (
            lambda: rg.Chunkwise(torch.zeros(1, 2), chunk=0),
            ValueError,
            "Chunkwise expected a chunk of at least 1 place, but got 0",
        ),
        (
            lambda: rg.Alignment(torch.zeros(0, 2)),
            ValueError,
            r"Alignment expected scores of at least one query, but got \(0, 2\)",
        ),
        (
            lambda: rg.attend_online(torch.ones(1, 2), Counted(torch.ones(3, 2)), torch.ones(3, 2)),
            TypeError,
            "attend_online expected places, how many there are, where keys are read lazily",
        ),
        (
            lambda: rg.Alignment(torch.zeros(20, 20)).enumerate_support(),
            ValueError,
            "enumerate_support expected at most 100000 events",
        ),
    ],
)
def test_errors(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.unchecked
def test_what_cannot_be_read_online_is_refused():
    query, keys = torch.randn(2, 1, 3), torch.randn(2, 5, 3)
    with pytest.raises(TypeError, match="attend_online expected over to be monotonic, but got softmax"):
        rg.attend_online(query, keys, keys, over=rg.softmax)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="with at least one query, but got"):
        rg.attend_online(query[:, :0], keys, keys)
    with pytest.raises(TypeError, match="whose own score is of query and keys alone, but got LocationAware"):
        rg.attend_online(query, keys, keys, over=rg.monotonic(2, score=rg.LocationAware(3, 3, 4)))
    context, z, _ = rg.attend_online(query[:0], keys[:0], keys[:0], over=rg.monotonic(None))
    assert context.shape == (0, 1, 3) and z.shape == (0, 1)


def test_a_bias_of_many_is_printed():
    assert "bias=(2, 1, 1)" in repr(rg.monotonic(bias=nn.Parameter(torch.zeros(2, 1, 1))))
