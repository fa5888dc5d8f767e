"""Law 5 for windows that compute only their band: the same distribution, reads and gradients as by all the scores."""

import examples
import pytest
import torch
from roads import check_road, replaced
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels.window import cpu
from regard.kernels.window import cpu_cuda as banded
from regard.over.local import MovingWindow
from regard.positions.algorithms.windows import window_means, window_scores

D = examples.D
SCORES = {
    "dot": lambda: rg.dot,
    "scaled_dot": lambda: rg.scaled_dot,
    "cosine": lambda: rg.Cosine(2.0),
    "bilinear": lambda: rg.Bilinear(D, D),
    "additive": lambda: rg.Additive(D, D, 6),
}
WINDOWS = {
    "local-m": lambda: rg.local(1),
    "local-p": lambda: rg.local(2, centre=rg.Predicted(D, 6)),
}
scores, windows = pytest.mark.parametrize("score", SCORES), pytest.mark.parametrize("window", WINDOWS)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the roads for small sizes too, with tiles of two queries."""
    for module, name, value in ((banded, "SAVED", -1e9), (banded, "FEW", -1e9), (cpu, "SMALLEST", 0)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(banded, "TILES", (2, 2))


class Contexts(nn.Module):
    def __init__(self, score: str, window: str, mask: Tensor | None = None, read=rg.mean, state=None):
        super().__init__()
        self.attention, self.mask, self.state = rg.Attention(SCORES[score](), WINDOWS[window](), read), mask, state

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.attend(query, keys, values).context

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> rg.Attended:
        return self.attention(query, self.attention.prepare(keys, values, self.mask), self.state)


def arguments(places: int, queries: int = 3, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, *shape).to(dtype) for shape in ((queries, D), (places, D), (places, 2))]


@windows
@scores
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_contexts_and_gradients(score: str, window: str, dtype: torch.dtype):
    for places in (1, 4, 17):
        model = Contexts(score, window)
        check_road(lambda dtype, model=model: model.to(dtype), *arguments(places, dtype=dtype))


@windows
@pytest.mark.parametrize("mask", examples.MASKS)
def test_masks(mask: str, window: str):
    model = Contexts("additive", window, examples.MASKS[mask]())
    check_road(lambda dtype: model.to(dtype), *arguments(examples.K, examples.Q))


@windows
def test_the_distribution_is_that_of_the_dense_scores(window: str):
    model, given = Contexts("dot", window).double(), arguments(9, dtype=torch.float64)
    band = model.attend(*given).positions
    with rg.plain_road():
        dense = model.attend(*given).positions
    assert isinstance(band, rg.Band) and not isinstance(dense, rg.Band)
    events = dense.enumerate_support()
    assert_close(band.enumerate_support(), events)
    for name in ("mean", "log_weights", "mode"):
        assert_close(getattr(band, name), getattr(dense, name))
    assert_close((band.log_prob(events), band.entropy()), (dense.log_prob(events), dense.entropy()))
    assert_close((band.indicator(band.mode), band.kl(dense)), (dense.indicator(dense.mode), dense.kl(dense)))
    drawn = band.sample((2000,))
    frequencies = torch.stack([(drawn == place).double().mean(0) for place in range(9)], -1)
    assert_close(frequencies, dense.mean, rtol=0, atol=5 * 0.5 / 2000**0.5)


def test_hard_reads_look_into_the_window_alone():
    query, keys, values = arguments(40)

    class Reader:
        seen: list[int] = []  # noqa: RUF012

        def read(self, z: Tensor) -> Tensor:
            self.seen.extend(z.flatten().tolist())
            return values.gather(1, z.unsqueeze(-1).expand(-1, -1, 2))

    for read in (rg.mean, rg.sample, rg.mode):
        out = rg.attend(query, keys, Reader(), score=rg.dot, over=rg.local(1), read=read)
        assert_close(out.context, out.positions.gather(values, out.z) if out.z is not None else out.weights @ values)
    assert set(Reader.seen) <= {0, 1, 2, 3}


def test_the_window_moves_on_with_the_state():
    query, keys, values = arguments(30, queries=6)
    attention = rg.Attention(rg.dot, rg.local(2))
    memory, state, contexts = attention.prepare(keys, values), None, []
    for part in query.split((1, 3, 2), 1):
        out = attention(part, memory, state)
        contexts.append(out.context)
        state = out.state
    assert_close(torch.cat(contexts, 1), attention(query, memory).context)


def test_draws_stand_in_front():
    query, keys, values = arguments(20)
    check_road(lambda dtype: Contexts("dot", "local-m"), query.expand(3, *query.shape), keys, values)


def test_second_gradients():
    model, given = Contexts("additive", "local-p").double(), arguments(7, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(model, [each.requires_grad_() for each in given])


def test_where_there_are_few_places_all_are_scored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(banded, "FEW", 126)
    attention = rg.Attention(rg.dot, rg.local(1), rg.mode)
    for places, kind in ((47, rg.OneHot), (48, rg.Band)):
        query, keys, values = arguments(places)
        assert type(attention(query, attention.prepare(keys, values)).positions) is kind


@pytest.mark.parametrize("saved", [-1e9, 1e9])
@pytest.mark.parametrize("mask", ["none", "padding", "each query its own"])
@pytest.mark.parametrize(("queries", "places", "radius"), [(1, 9, 2), (7, 9, 2), (9, 9, 1), (5, 3, 4), (8, 30, 3)])
def test_the_mean_by_tiles_or_from_all_places(queries, places, radius, mask: str, saved, monkeypatch):
    monkeypatch.setattr(banded, "SAVED", saved)
    allowed = {
        "none": None,
        "padding": rg.padding(torch.tensor([places // 2, places]), places),
        "each query its own": torch.rand(2, queries, places) < 0.7,
    }[mask]
    for start in (None, 2, torch.tensor([1, places + radius + 3])):
        for score in ("scaled_dot", "cosine", "bilinear"):
            model = Contexts(score, "local-m", allowed, state=rg.State(over=start))
            model.attention.over = rg.local(radius)
            check_road(model.to, *arguments(places, queries, torch.float64))


def test_the_context_of_a_mean_forms_no_scores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(banded, "run", None)
    out = Contexts("dot", "local-m").attend(*arguments(9))
    assert out.formed is None and out.state.over.tolist() == [3, 3]


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_a_state_that_is_a_number_is_where_the_first_query_is(score: str):
    query, keys, values = arguments(30, queries=6)
    attention = rg.Attention(SCORES[score](), rg.local(2))
    memory = attention.prepare(keys, values)
    late = attention(query[:, 4:5], memory, rg.State(over=4))
    assert_close(late.context, attention(query, memory).context[:, 4:5])
    assert late.state.over.tolist() == [5, 5]


@pytest.mark.unchecked
@windows
@pytest.mark.parametrize("read", ["mean", "mode"])
@pytest.mark.parametrize("score", ["scaled_dot", "additive"])
def test_compiles_whole_above_the_thresholds(score: str, read: str, window: str, monkeypatch):
    monkeypatch.undo()
    torch._dynamo.reset()
    model, given = Contexts(score, window, read=examples.READS[read]()).eval(), arguments(1200, 130)
    with torch.no_grad():
        wanted = model(*given)
        assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(*given), wanted)


@pytest.mark.unchecked
@windows
def test_transforms(window: str):
    torch._dynamo.reset()
    model, given = Contexts("dot", window), arguments(20)
    wanted = model(*given)
    assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(*given), wanted)
    assert_close(torch.export.export(model, tuple(given)).module()(*given), wanted)
    assert_close(torch.func.vmap(model)(*given), wanted)


class TestMutants:
    @pytest.mark.parametrize("wrong", ["window", "mask"])
    def test_a_wrong_band(self, wrong: str):
        def run(score, over, query: Tensor, keys: Tensor, mask: Tensor | None) -> rg.Band:
            band = banded.run(score, over, query, keys, None if wrong == "mask" else mask)
            return rg.Band(scores=band.scores, first=band.first + (wrong == "window"), count=band.count)

        with replaced((rg.Additive, MovingWindow), run):
            self.check_fails("additive")

    @pytest.mark.parametrize("wrong", ["window", "mask"])
    def test_a_wrong_tile(self, wrong: str, monkeypatch: pytest.MonkeyPatch):
        right = banded._allowed
        moved = lambda index, size, places, mask: right(index + 1, size, places, mask)  # noqa: E731
        blind = lambda index, size, places, mask: right(index, size, places, None)  # noqa: E731
        monkeypatch.setattr(banded, "_allowed", moved if wrong == "window" else blind)
        self.check_fails("dot")

    def test_a_wrong_product(self, monkeypatch: pytest.MonkeyPatch):
        moved = lambda *given: cpu.run_means(*given[:3], given[3] + 1, *given[4:])  # noqa: E731
        with replaced((window_means,), moved):
            self.check_fails("additive")

    def check_fails(self, score: str) -> None:
        model = Contexts(score, "local-m", torch.ones(3, 9).tril().bool())
        with pytest.raises(AssertionError):
            check_road(lambda dtype: model.to(dtype), *arguments(9))


def test_nan_shows():
    query, keys, values = arguments(20)
    query[0, 1] = torch.nan
    for window in WINDOWS:
        out = Contexts("dot", window).attend(query, keys, values)
        assert out.context[0, 1].isnan().all() and out.weights[0, 1].isnan().any()
        assert out.context[1].isfinite().all() and out.context[0, ::2].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "width"), [((), 3), ((2,), 5), ((2, 3), 1)])
def test_the_products_of_windows(batch: tuple[int, ...], width: int, dtype: torch.dtype):
    first = torch.randint(-width - 1, 8, (*batch, 6))
    query, keys = torch.randn(*batch, 6, 4).to(dtype), torch.randn(*batch, 7, 4).to(dtype)
    check_road(lambda dtype: lambda *given: window_scores(*given, first, width), query, keys)
    check_road(lambda dtype: lambda *given: window_means(*given, first), torch.randn(*batch, 6, width).to(dtype), keys)


def test_what_has_no_weight_is_not_read():
    values = torch.full((5, 2), torch.nan)
    values[1] = 3.0
    weights = torch.tensor([[0.0, 0.5, 0.0]], requires_grad=True)
    assert_close(window_means(weights, values, torch.tensor([0])), torch.tensor([[1.5, 1.5]]))
