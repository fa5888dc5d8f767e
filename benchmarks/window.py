"""Local attention against a dense mask, a softmax over everything and flex attention.

`regard bench window` first checks that all compute the same, then times one query, whose window moves on from call to
call, and as many queries as keys, forward and with the backward, of one head of 64. The dense mask of all queries is
made beforehand; that of one query is made at each call, for it moves too. Flex attention is compiled, where it
compiles, and has no backward on a CPU.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from harness import Row, compare, main
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

import regard as rg

SIZES = [
    (32, 2),
    (128, 16),
    (512, 2),
    (512, 16),
    (512, 256),
    (2048, 16),
    (2048, 64),
    (2048, 512),
    (8192, 64),
    (16384, 16),
]
"""Keys and radius."""
FLEX = [(2048, 64), (8192, 64)]
"""Those that flex attention is compiled for."""
LARGEST = 8192
"""The most keys of which all queries are asked with a dense mask, which takes a gigabyte beyond."""
HEAD = 64
LIMIT = (
    "the products of the queries with the places of their windows, by torch.bmm, once forward, thrice with the backward"
)

Call = Callable[..., Tensor]


def measure(rounds: int) -> Iterator[Row]:
    """One row for each size, number of queries, direction and peer."""
    for places, radius in SIZES:
        for queries in (1, places) if places <= LARGEST else (1,):
            given = arguments(queries, places)
            for name, call in peers(places, radius, queries).items():
                if name != "everything":
                    assert_close(ours(radius, *given), call(*given))
                for backward in (False, True)[: 1 if name == "flex attention" else 2]:
                    yield row(places, radius, name, call, given, backward, rounds)


def arguments(queries: int, places: int) -> list[Tensor]:
    """Query, keys and values of one head."""
    torch.manual_seed(0)
    return [torch.randn(1, 1, size, HEAD) for size in (queries, places, places)]


def row(places: int, radius: int, name: str, call: Call, given: list[Tensor], backward: bool, rounds: int) -> Row:
    """One peer."""
    queries = given[0].shape[-2]
    mine, theirs = (partial(step, each, given, backward) for each in (partial(ours, radius), call))
    windows = torch.randn(queries, min(places, 2 * radius + 1), HEAD)
    bound = partial(products, given[0][0, 0].unsqueeze(-1), windows, 3 if backward else 1)
    what = f"K {places}, radius {radius}, Q {queries}, {'forward and backward' if backward else 'forward'}"
    return compare(what, name, mine, theirs, bound, LIMIT, queries, rounds)


def step(call: Call, given: list[Tensor], backward: bool) -> None:
    """One call, without gradients or with them."""
    if not backward:
        with torch.no_grad():
            call(*given)
        return
    leaves = [each.detach().requires_grad_() for each in given]
    torch.autograd.grad(call(*leaves).sum(), leaves)


def ours(radius: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Local attention, whose one query stands at the middle of the keys."""
    at = (keys.shape[-2] - query.shape[-2]) // 2
    return rg.attend(query, keys, values, over=rg.local(radius), state=rg.State(over=at)).context


def peers(places: int, radius: int, queries: int) -> dict[str, Call]:
    """Who computes the same, and PyTorch's attention to everything."""
    mask = None if queries == 1 else inside(places, radius, queries)
    found: dict[str, Call] = {"dense mask": partial(masked, radius, mask), "everything": scaled_dot_product_attention}
    if queries > 1 and (places, radius) in FLEX:
        found["flex attention"] = flexed(places, radius)
    return found


def masked(radius: int, mask: Tensor | None, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """PyTorch's attention with a dense mask."""
    mask = inside(keys.shape[-2], radius, query.shape[-2]) if mask is None else mask
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask)


def inside(places: int, radius: int, queries: int) -> Tensor:
    """The mask of the windows."""
    centre = (places - queries) // 2 + torch.arange(queries)
    return (torch.arange(places) - centre.unsqueeze(-1)).abs() <= radius


@cache
def compiled() -> Call:
    """Flex attention as torch compiles it."""
    return torch.compile(flex_attention, dynamic=False)  # pyright: ignore[reportReturnType]


def flexed(places: int, radius: int) -> Call:
    """Flex attention over blocks of the windows."""
    mask = create_block_mask(lambda b, h, q, k: (q - k).abs() <= radius, None, None, places, places, device="cpu")
    return torch.no_grad()(partial(compiled(), block_mask=mask))


@torch.no_grad()
def products(query: Tensor, windows: Tensor, times: int) -> None:
    """The products of each query (Q, D, 1) with its window (Q, w, D), and of weights with it."""
    for _ in range(times):
        torch.bmm(torch.bmm(windows, query).mT, windows)


if __name__ == "__main__":
    main("window", measure)
