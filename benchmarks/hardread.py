"""A hard read gathers: after the draw, its forward cost does not grow with the number of places K.

For K from 10^2 to 10^6, one row of 32 queries reads values of size 64, by the indices that were drawn (ours) and by the
mean (the peer). `saccade bench hardread` prints the times.
"""

from collections.abc import Iterable

import torch
from harness import Row, compare, main

import saccade as sc

QUERIES, SIZE = 32, 64
LIMIT = "copying as many rows by torch.index_select"


def measure(rounds: int) -> Iterable[Row]:
    """A row for each number of places."""
    for places in (10**2, 10**3, 10**4, 10**5, 10**6):
        yield _row(places, rounds)


def _row(places: int, rounds: int) -> Row:
    torch.manual_seed(0)
    positions = sc.softmax(torch.randn(1, QUERIES, places))
    values = torch.randn(1, places, SIZE)
    weights, z = sc.OneHot(weights=positions.mean), positions.sample()
    if not torch.equal(positions.gather(values, z), values[0, z]):
        raise AssertionError("the read is not what lies at the indices")
    return compare(
        f"K = {places:,}",
        "the soft read of the same weights",
        lambda: positions.gather(values, z),
        lambda: weights.expect(values),
        lambda: values[0].index_select(0, z[0]),
        LIMIT,
        items=QUERIES,
        rounds=rounds,
    )


if __name__ == "__main__":
    main("hardread", measure)
