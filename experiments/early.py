"""Stopping when the answer is sure: accuracy and time against the mean number of glimpses.

    regard experiment early --data DIR

Each model looks at every test image until the probability of its best class passes a threshold; images that are done
leave the batch. Beside it the same model with the same number of glimpses for all images. Time is that of whole batches
of 1,000 images on one thread, thresholds in turn, as a share of the time without a threshold.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from regard.app.results import add_rounds, give, machine, parser, save_figure
from regard.app.timing import interleave
from regard.app.training.run import open_run
from regard.app.vision.early import stop_early

HERE = Path(__file__).parent
WEIGHTS = [
    HERE.parent / "weights" / f"ram-{name}.safetensors"
    for name in ("28-6", "60-translated-8", "60-cluttered-8", "100-cluttered-8")
]
THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
BATCH = 1000


@dataclass(frozen=True)
class Row:
    """One threshold of one model."""

    case: str
    threshold: float
    glimpses: float
    """The mean over the test images."""
    error_percent: float
    pixels_read: float
    glimpses_share: float
    """Of the glimpses that there are without a threshold."""
    time_share: float
    """Of the time without a threshold: the median over rounds."""
    ours_ms: float
    """Of a batch."""


@dataclass(frozen=True)
class Fixed:
    """The same number of glimpses for every image."""

    case: str
    glimpses: int
    error_percent: float


def measure(weights: Path, data: str, rounds: int) -> tuple[list[Row], list[Fixed]]:
    """The rows of one model, and what fixed numbers of glimpses give."""
    model: Any
    _, _, splits, model = open_run(weights, data)
    case = weights.stem.removeprefix("ram-")
    parts = [splits.test.batch(indices, None) for indices in torch.arange(len(splits.test)).split(BATCH)]
    labels = torch.cat([part["label"] for part in parts])
    images = parts[0]["image"]
    calls: list[Callable[[], Any]] = [partial(stop_early, model, images, each) for each in THRESHOLDS]
    times = interleave(calls, rounds)
    rows = []
    for threshold, milliseconds in zip(THRESHOLDS, times, strict=True):
        stopped = [stop_early(model, part["image"], threshold) for part in parts]
        answers, glimpses = (torch.cat([getattr(each, name) for each in stopped]) for name in ("answers", "glimpses"))
        rows.append(
            Row(
                case=case,
                threshold=threshold,
                glimpses=glimpses.double().mean().item(),
                error_percent=_error(answers, labels),
                pixels_read=sum(each.pixels for each in stopped) / len(labels),
                glimpses_share=stopped[0].glimpses.double().mean().item() / model.config.glimpses,
                time_share=statistics.median(part / whole for part, whole in zip(milliseconds, times[-1], strict=True)),
                ours_ms=statistics.median(milliseconds),
            )
        )
    return rows, list(fixed(case, model, parts, labels))


@torch.no_grad()
def fixed(case: str, model: Any, parts: list[dict[str, torch.Tensor]], labels: torch.Tensor) -> Iterator[Fixed]:
    """What the same model answers after each glimpse."""
    answers = torch.cat([model(part["image"]).answers[0] for part in parts])  # (N, T, classes)
    for step in range(answers.shape[1]):
        yield Fixed(case, step + 1, _error(answers[:, step], labels))


def _error(answers: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * (answers.argmax(-1) != labels).double().mean().item()


def draw(rows: list[Row], steady: list[Fixed]) -> Figure:
    """The figure: error, and time, against the mean number of glimpses."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    errors, times = figure.subplots(1, 2)
    errors.set_yscale("log")
    colours, cases = ("#0072b2", "#cc79a7", "#d55e00", "#009e73"), dict.fromkeys(row.case for row in rows)
    for colour, case in zip(colours, cases, strict=False):
        ours, theirs = [row for row in rows if row.case == case], [row for row in steady if row.case == case]
        errors.plot([row.glimpses for row in ours], [row.error_percent for row in ours], "o-", c=colour, label=case)
        errors.plot([row.glimpses for row in theirs], [row.error_percent for row in theirs], "x:", c=colour)
        shares = [100 * row.glimpses_share for row in ours], [100 * row.time_share for row in ours]
        times.plot(*shares, "o", c=colour, label=case)
    errors.yaxis.set(ticks=(0.5, 1, 2, 5, 10, 20, 50), major_formatter="{x:g}", minor_formatter="")
    errors.plot([], [], "o-", c="grey", label="until the answer is sure")
    errors.plot([], [], "x:", c="grey", label="as many for every image")
    errors.set(xlabel="glimpses of an image, on average", ylabel="test error, %")
    times.plot([0, 100], [0, 100], "--", c="grey", lw=1, label="in proportion")
    times.set(xlabel="glimpses, % of those without a threshold", ylabel="time, % of that without a threshold")
    times.set(xlim=(0, 105), ylim=(0, 105))
    for axes in (errors, times):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def show(rows: list[Row]) -> None:
    """Prints the table."""
    table = Table("model", "threshold", "glimpses", "error %", "pixels", "glimpses share", "time share", title="early")
    for row in rows:
        numbers = (f"{row.glimpses:.2f}", f"{row.error_percent:.2f}", f"{row.pixels_read:.0f}")
        table.add_row(row.case, str(row.threshold), *numbers, f"{row.glimpses_share:.2f}", f"{row.time_share:.2f}")
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = parser("early", "Stopping when the answer is sure.", figure=True)
    flags.add_argument("--data", default="embedded", metavar="DIR", help="the folder of MNIST's four files")
    add_rounds(flags, usual=15)
    options = flags.parse_args()
    torch.set_num_threads(1)
    measured = [measure(weights, options.data, options.rounds) for weights in WEIGHTS if weights.exists()]
    rows, steady = [row for part, _ in measured for row in part], [row for _, part in measured for row in part]
    found: dict[str, Any] = {"name": "early", "machine": machine()}
    found |= {"rows": [asdict(row) for row in rows], "fixed": [asdict(row) for row in steady]}
    give(found, options, lambda: show(rows))
    if options.figure:
        save_figure(draw(rows, steady), options.figure)


if __name__ == "__main__":
    main()
