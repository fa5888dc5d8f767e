"""Which road is taken, said in words, and the plain one where it is asked for."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import regard as rg
from regard.kernels.registry import known_roads

SCORES = torch.linspace(-2, 2, 600).view(2, 300)


def choice(*given, **parts) -> tuple[str | None, str | None]:
    """The first that was asked for."""
    first = rg.road(rg.attend, *given, **parts)[0]
    return first.road, first.reason


def arguments(queries: int = 1, places: int = 64, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, size, 32, dtype=dtype) for size in (queries, places, places))


def test_the_road_that_is_taken_has_its_kernel_s_name():
    additive = rg.Additive(32, 32, 32)
    assert choice(*arguments()) == ("dot.cpu_cuda", None)
    assert choice(*arguments(), score=additive) == ("additive.look_cpu", None)
    assert rg.road(rg.sparsemax_weights, SCORES) == (("entmax_weights", "sparse.cpu", None),)
    attention = rg.MultiHead(32, 4)
    words = torch.randn(2, 9, 32)
    assert [each.road for each in rg.road(attention, words, attention.prepare(words, words))] == ["dot.cpu_cuda"]


class Lazy:
    def read(self, z: Tensor) -> Tensor:
        return torch.zeros(*z.shape, 3)


def test_why_it_is_the_plain_one():
    query, keys, values = arguments()
    additive = rg.Additive(32, 32, 32)
    wide = tuple(each.double() for each in (query, keys, values))
    reasons = {
        "no fast road is known for it": choice(query, keys, values, score=rg.Location(32, 64)),
        "the values are no tensor": choice(query, keys, Lazy()),
        "it takes one query for each row of keys": choice(*arguments(queries=2), score=additive),
        "it takes float32, without autocast": choice(*wide, score=rg.Additive(32, 32, 32).double()),
        "below 2048 hyperbolic tangents the plain road is as fast": choice(*arguments(places=2), score=additive),
        "below 256 scores the plain road is as fast": choice(query, keys, values, read=rg.sample),
    }
    additive.energy = torch.nn.Sequential(torch.nn.Linear(32, 1))
    reasons["the energy is more than a matrix"] = choice(query, keys, values, score=additive)
    for wanted, (road, reason) in reasons.items():
        assert (road, reason) == (None, wanted)


def test_what_sets_every_road_aside():
    with rg.plain_road():
        assert choice(*arguments()) == (None, "plain_road() is on")
    with torch.autograd.set_detect_anomaly(True):
        assert choice(*arguments()) == (None, "torch.autograd.set_detect_anomaly is on")
    seen = rg.road(torch.func.vmap(rg.sparsemax_weights), SCORES)
    assert seen[0].reason == "torch.func and forward derivatives have no rule for it"


def test_every_refusal_is_a_sentence_or_none():
    """That a road says True where it would be taken, as of old, would never be noticed otherwise."""
    seen = [each for call in (rg.attend,) for each in rg.road(call, *arguments(), over=rg.sparsemax)]
    assert seen and all(isinstance(each.reason, str) != isinstance(each.road, str) for each in seen)
    assert all(road.refuses.__annotations__["return"] in (str | None, None) for road in known_roads().values())


def test_contexts_may_be_nested_and_end_where_one_raises():
    context = rg.plain_road()
    with context:
        with context, rg.plain_road():
            pass
        assert choice(*arguments())[0] is None
    with pytest.raises(ZeroDivisionError), rg.plain_road():
        _ = 1 / 0
    assert choice(*arguments())[0] == "dot.cpu_cuda"


def test_another_thread_is_left_alone():
    found = []

    def ask() -> None:
        found.append(choice(*arguments())[0])

    with rg.plain_road():
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        ask()
    assert found == ["dot.cpu_cuda", None]


def test_a_call_within_a_call_is_seen_by_both():
    inner = []

    def call() -> None:
        inner.extend(rg.road(rg.sparsemax_weights, SCORES))
        rg.sparsemax_weights(SCORES)

    assert len(rg.road(call)) == len(inner) == 1


@pytest.mark.unchecked
def test_a_compiled_function_heeds_the_context_round_it_and_in_it():
    torch._dynamo.reset()
    kernels = []

    def backend(module: torch.fx.GraphModule, _) -> Callable[..., Any]:
        count = sum("regard" in str(node.target) for node in module.graph.nodes)
        return lambda *given: kernels.append(count) or module(*given)

    def both(scores: Tensor) -> Tensor:
        with rg.plain_road():
            plain = rg.sparsemax_weights(scores)
        return plain + rg.sparsemax_weights(scores)

    fast = torch.compile(lambda scores: rg.sparsemax_weights(scores), fullgraph=True, backend=backend)
    for _ in range(2):
        fast(SCORES)
        with rg.plain_road():
            fast(SCORES)
    assert_close(torch.compile(both, fullgraph=True, backend=backend)(SCORES), 2 * rg.sparsemax_weights(SCORES))
    assert kernels == [1, 0, 1, 0, 1]


FIRST = """
import torch
import regard as rg
scores = torch.linspace(-2, 2, 600).view(2, 300)
found = torch.compile(rg.sparsemax_weights, fullgraph=True, backend="aot_eager")(scores)
torch.testing.assert_close(found, rg.sparsemax_weights(scores))
import sys
assert "regard.kernels.roads" in sys.modules
print(len(rg.road(rg.sparsemax_weights, scores)), rg.road(rg.sparsemax_weights, scores)[0].road)
"""


@pytest.mark.unchecked
def test_the_first_call_of_a_process_may_be_a_compiled_one():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 sparse.cpu\n"


@pytest.mark.parametrize("read", [rg.sample, rg.mode])
def test_a_hard_read_takes_one_log_softmax(read):
    seen = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    positions = rg.softmax(torch.randn(2, 3, 4))
    with Seen():
        _, z, log_prob = read(positions, torch.randn(2, 4, 5))
    assert sum("softmax" in op for op in seen) == 1
    assert_close(log_prob, positions.log_prob(z))
