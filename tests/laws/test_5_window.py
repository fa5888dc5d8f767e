"""Law 5 for windows that compute only their band: the same distribution, reads and gradients as by all the scores."""

from functools import partial

import examples
import pytest
import torch
from roads import check_road
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.kernels import registry
from regard.kernels.window import cpu_cuda as banded
from regard.over.local import MovingWindow

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
    monkeypatch.setattr(banded, "FEWEST", 0)


class Contexts(nn.Module):
    def __init__(self, score: str, window: str, mask: Tensor | None = None, read=rg.mean):
        super().__init__()
        self.attention, self.mask = rg.Attention(SCORES[score](), WINDOWS[window](), read), mask

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.attend(query, keys, values).context

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> rg.Attended:
        return self.attention(query, self.attention.prepare(keys, values, self.mask))


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_ROADS", {})
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
    monkeypatch.setattr(banded, "FEWEST", 16)
    attention = rg.Attention(rg.dot, rg.local(1))
    for places, kind in ((47, rg.OneHot), (48, rg.Band)):
        query, keys, values = arguments(places)
        assert type(attention(query, attention.prepare(keys, values)).positions) is kind


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
    def test_a_wrong_band(self, wrong: str, monkeypatch: pytest.MonkeyPatch):
        def run(score, over, query: Tensor, keys: Tensor, mask: Tensor | None) -> rg.Band:
            band = banded.run(score, over, query, keys, None if wrong == "mask" else mask)
            return rg.Band(scores=band.scores, first=band.first + (wrong == "window"), count=band.count)

        road = registry.Road(banded.suits, run)
        monkeypatch.setitem(registry._ROADS, (rg.dot, MovingWindow, "cpu"), road)
        model = Contexts("dot", "local-m", torch.ones(3, 9).tril().bool())
        with pytest.raises(AssertionError):
            check_road(lambda dtype: model, *arguments(9))


def test_nan_shows():
    query, keys, values = arguments(20)
    query[0, 1] = torch.nan
    for window in WINDOWS:
        out = Contexts("dot", window).attend(query, keys, values)
        assert out.context[0, 1].isnan().all() and out.weights[0, 1].isnan().any()
        assert out.context[1].isfinite().all() and out.context[0, ::2].isfinite().all()
