"""What all benchmarks share: they time us and a peer in turn, on one thread, and print ratios with their spread.

A benchmark is a script `benchmarks/NAME.py` that first checks that both sides compute the same and then calls `main`.
"""

import os

os.environ.update(KINETO_LOG_LEVEL="99", TORCH_CPP_LOG_LEVEL="ERROR")  # or profiling the memory talks on stderr

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from regard.app import results
from regard.app.timing import Call, interleave


@dataclass(frozen=True)
class Row:
    """One comparison. Times are medians over rounds, the ratio is peer / ours, memory is what torch allocates."""

    case: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    ours_peak_mb: float
    peer_peak_mb: float
    limit_ms: float
    limit: str
    """What bounds the time physically, and how limit_ms was measured in the same run."""
    limit_gflop: float | None
    """The arithmetic of the limit, where that is what it consists of."""
    items: int
    """How many images, queries or words one call deals with."""


@dataclass(frozen=True)
class Accurate(Row):
    """A comparison, with the largest errors against float64: of the values, relative to them, and of the gradients."""

    ours_error: tuple[float, float] | None
    peer_error: tuple[float, float] | None


def training(model: nn.Module, loss: Callable[[], torch.Tensor], by: Any, norm: float, **how: Any) -> Call:
    """A step of training: the optimiser `by`, with gradients that are clipped to a norm."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimiser = by(parameters, 1e-4, **how)

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, norm)
        optimiser.step()

    return step


def compare(
    case: str, peer: str, ours: Call, theirs: Call, bound: Call, limit: str, items: int, rounds: int,
    gflop: float | None = None,
) -> Row:  # fmt: skip
    """Times our call, the peer's, and what bounds both from below, in turn."""
    times = interleave([ours, theirs, bound], rounds)
    ours_ms, peer_ms, limit_ms = (statistics.median(each) for each in times)
    ratios = [slow / fast for fast, slow, _ in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
    memory = peak_mb(ours), peak_mb(theirs)
    return Row(case, peer, ours_ms, peer_ms, middle, (low, high), *memory, limit_ms, limit, gflop, items)


def peak_mb(call: Call) -> float:
    """The most memory that torch holds at once of what it allocates on the CPU during a call, in MB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        call()
    results: Any = seen.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes), default=0) / 1e6


def main(
    name: str, measure: Callable[[int], Iterable[Row]], draw: Callable[[list[dict]], Figure] | None = None
) -> None:
    """The command line of a benchmark: measures, prints a table or JSON, and writes the JSON, and the figure that is
    drawn of its rows, if asked to."""
    flags = results.parser(name, "How fast, beside others that compute the same.", figure=draw is not None)
    results.add_rounds(flags, usual=25)
    options = flags.parse_args()
    torch.set_num_threads(1)
    rows = list(measure(options.rounds))
    found = {"name": name, "machine": results.machine(), "rows": [results.rounded(asdict(row)) for row in rows]}
    results.give(found, options, lambda: _print_table(name, rows))
    if draw and options.figure:
        results.save_figure(draw(found["rows"]), options.figure)


def _print_table(name: str, rows: list[Row]) -> None:
    table = Table(title=name, show_lines=True)
    for column in ("case", "ours", "peer", "limit", "peer/ours", "MB"):
        table.add_column(column, no_wrap=column != "case", min_width=15 if column == "case" else None)
    for row in rows:
        times = [_speed(row, each) for each in (row.ours_ms, row.peer_ms, row.limit_ms)]
        if row.limit_gflop:
            times[-1] += f"\n{row.limit_gflop / row.limit_ms * 1e3:.0f} GFLOP/s"
        low, high = row.ratio_quartiles
        ratio = f"{row.ratio:.3g}\n{low:.3g}-{high:.3g}"
        table.add_row(row.case, *times, ratio, f"{row.ours_peak_mb:.1f}\n{row.peer_peak_mb:.1f}")
    console = Console()
    console.print(table)
    for peer, limit in dict.fromkeys((row.peer, row.limit) for row in rows):
        console.print(f"peer: {peer}; limit: {limit}")
    console.print(
        f"{results.machine()}; medians over rounds in turn, the ratio with its quartiles; peak memory, ours and peer's"
    )


def _speed(row: Row, ms: float) -> str:
    return f"{ms:.3g} ms\n{row.items / ms * 1e3:,.0f}/s"
