"""What all benchmarks share: they time us and a peer in turn, on one thread, and print ratios with their spread.

A benchmark is a script `benchmarks/NAME.py` that first checks that both sides compute the same and then calls `main`.
"""

import os

os.environ.update(KINETO_LOG_LEVEL="99", TORCH_CPP_LOG_LEVEL="ERROR")  # or profiling the memory talks on stderr

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from regard.app.training.run import write

Call = Callable[[], object]


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


def interleave(calls: list[Call], rounds: int, round_ms: float = 50) -> list[list[float]]:
    """Milliseconds of one call of each, for every round. In a round each runs for about `round_ms`, one after another,
    beginning with another one each time, so that whatever else the machine does falls on all alike."""
    counts = [max(1, int(round_ms / max(_milliseconds(call, 1) for _ in range(2)))) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for first in range(rounds):
        for i in ((first + i) % len(calls) for i in range(len(calls))):
            times[i].append(_milliseconds(calls[i], counts[i]))
    return times


def _milliseconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) * 1e3 / count


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
    options = parse(parser(name, rounds=25, figure=draw is not None))
    rows = list(measure(options.rounds))
    found = {"name": name, "machine": machine(), "rows": [_rounded(row) for row in rows]}
    give(found, options, lambda: _print_table(name, rows))
    if draw and options.figure:
        save(draw(found["rows"]), options.figure)


def parser(name: str, rounds: int, figure: bool = False) -> argparse.ArgumentParser:
    """The flags of a benchmark that times in rounds and perhaps draws."""
    flags = argparse.ArgumentParser(name, allow_abbrev=False)
    flags.add_argument("--json", action="store_true", help="print JSON")
    flags.add_argument("--out", type=Path, metavar="FILE", help="write the JSON to a file, such as results/NAME.json")
    flags.add_argument("--rounds", type=int, default=rounds, help="how often everything is timed")
    if figure:
        flags.add_argument("--figure", type=Path, metavar="FILE", help="draw it, as PNG, such as docs/NAME.png")
    return flags


def parse(flags: argparse.ArgumentParser, least: int = 1) -> argparse.Namespace:
    """What was asked for, with at least so many rounds; from here on torch uses one thread."""
    options = flags.parse_args()
    if options.rounds < least:
        flags.error(f"--rounds expected at least {least}, but got {options.rounds}.")
    torch.set_num_threads(1)
    return options


def give(found: dict[str, Any], options: argparse.Namespace, show: Callable[[], None]) -> None:
    """Prints what was found as JSON or as `show` does, and writes the JSON if asked to."""
    text = json.dumps(found, indent=2)
    print(text) if options.json else show()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write(options.out, text.encode() + b"\n")


def save(figure: Figure, file: Path) -> None:
    """Writes a figure as a small PNG."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=130)
    Image.open(drawn).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, small.getvalue())


def machine() -> str:
    """The processor, the number of threads and the versions that were measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    python, threads = platform.python_version(), torch.get_num_threads()
    return f"{processor}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}, Python {python}"


def _rounded(row: Row) -> dict:
    def short(value: object) -> object:
        if isinstance(value, tuple):
            return [short(each) for each in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {key: short(value) for key, value in asdict(row).items()}


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
        f"{machine()}; medians over rounds in turn, the ratio with its quartiles; peak memory, ours and peer's"
    )


def _speed(row: Row, ms: float) -> str:
    return f"{ms:.3g} ms\n{row.items / ms * 1e3:,.0f}/s"
