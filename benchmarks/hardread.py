"""A hard read gathers: after the draw, its forward cost does not grow with the number of places K; and the draw itself
streams the keys, so that no weights are formed.

For K from 10^2 to 10^6, one row of 32 queries reads values of size 64, by the indices that were drawn (ours) and by
the mean (the peer). From 10^3 on, a query draws and reads by its fast road (ours) and by the plain one (the peer),
which forms all the weights. Last, where all of a text looks at all of it, as in a Transformer: beside the plain road,
and beside the soft read by PyTorch's fused op. `regard bench hardread` prints the times.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from harness import Row, compare, main

import regard as rg

QUERIES, SIZE = 32, 64
COPY = "copying as many rows by torch.index_select"
PRODUCT = "the scores alone, by the plain road"
TEXTS = [(4, 8, 512, 64), (4, 8, 128, 64), (16, 4, 64, 32)]
"""Texts, heads, words, and numbers of a head."""


def measure(rounds: int) -> Iterable[Row]:
    """A row for each number of places, and for each score and read."""
    for places in (10**2, 10**3, 10**4, 10**5, 10**6):
        yield _gathered(places, rounds)
    for score in (rg.dot, rg.Additive(SIZE, SIZE, SIZE)):
        for places in (10**3, 10**4, 10**5, 10**6):
            for read in (rg.sample, rg.mode):
                yield _streamed(score, read, places, rounds)
    for shape in TEXTS:
        for read, backward in ((rg.mode, False), (rg.sample, False), (rg.sample, True)):
            yield from _texts(shape, read, backward, rounds)


def _gathered(places: int, rounds: int) -> Row:
    torch.manual_seed(0)
    positions = rg.softmax(torch.randn(1, QUERIES, places))
    values = torch.randn(1, places, SIZE)
    weights, z = rg.OneHot(weights=positions.mean), positions.sample()
    if not torch.equal(positions.gather(values, z), values[0, z]):
        raise AssertionError("the read is not what lies at the indices")
    return compare(
        f"reading, K = {places:,}",
        "the soft read of the same weights",
        lambda: positions.gather(values, z),
        lambda: weights.expect(values),
        lambda: values[0].index_select(0, z[0]),
        COPY,
        items=QUERIES,
        rounds=rounds,
    )


@torch.no_grad()
def _streamed(score: Any, read: Any, places: int, rounds: int) -> Row:
    torch.manual_seed(0)
    query, keys = torch.randn(1, 1, SIZE), torch.randn(1, places, SIZE)
    memory = rg.Attention(score).prepare(keys, keys)
    ours = partial(torch.no_grad()(rg.Attention(score, read=read).forward), query, memory)
    if read is rg.mode and not torch.equal(ours().z, _plainly(ours).z):
        raise AssertionError("the modes differ")
    name = getattr(score, "__name__", "additive")
    case = f"{name}, {read.__name__}, K = {places:,}"
    scores = partial(torch.no_grad()(rg.attend), query, keys, keys, score=score, over=rg.sigmoid)
    return compare(case, "plain road", ours, partial(_plainly, ours), scores, PRODUCT, items=1, rounds=rounds)


def _texts(shape: tuple[int, ...], read: Any, backward: bool, rounds: int) -> Iterable[Row]:
    torch.manual_seed(0)
    given = [torch.randn(shape).requires_grad_(backward) for _ in range(3)]
    hard, soft = partial(_read, given, read), partial(_read, given, rg.mean)
    if not torch.equal(_seeded(hard).z, _seeded(partial(_plainly, hard)).z):
        raise AssertionError("the places differ")
    texts, heads, words, size = shape
    what = f"{read.__name__}, {texts} texts of {words} words, {heads} heads of {size}"
    case = f"{what}, {'forward and backward' if backward else 'forward'}"
    scores = partial(torch.matmul, given[0].detach(), given[1].detach().mT)
    for name, peer in (("the soft read", soft), ("plain road", partial(_plainly, hard))):
        yield compare(case, name, hard, peer, scores, PRODUCT, items=texts * words, rounds=rounds)


def _read(given: list[Any], read: Any) -> rg.Attended:
    with torch.set_grad_enabled(given[0].requires_grad):
        out = rg.attend(*given, read=read)
        if given[0].requires_grad:
            total = out.context.sum() if out.log_prob is None else out.context.sum() + out.log_prob.sum()
            torch.autograd.grad(total, given)
    return out


def _seeded(call: Any) -> rg.Attended:
    """The call with the same random numbers each time."""
    torch.manual_seed(0)
    return call()


def _plainly(call: Any) -> rg.Attended:
    with rg.plain_road():
        return call()


if __name__ == "__main__":
    main("hardread", measure)
