"""Do two pieces of a photograph belong together? By the strip where they meet, or by all there is.

Le and Li 2018, "JigsawNet: shredded image reassembly using convolutional neural network and loop-based composition",
move the calculation to the stitching region "to improve the network efficiency and accuracy"; here both are measured.

    regard experiment stitch --data DIR                                   every row: hours on one core
    regard experiment stitch --data DIR --of gap8-near --model oracle     one row of the table, with all its seeds
    regard experiment stitch                                              the table, as far as it is finished
    regard experiment stitch --figure docs/pictures/stitch.png            what the seam is worth

DIR holds the folder `photos_large`: of its six photographs the first two, by their names, are only tested on. Every
model is trained on as many pairs; but `whole-short` on a ninth, so that it has done as many multiply-adds as those that
read a strip. `seam-hard-learned` has to learn all of where to look. Runs are kept in `runs/stitch` and are resumed;
several of these commands may run at once, each takes runs that no other has. What is finished is in
`results/stitch.json`, and is not trained again: take its row out first. The best epoch is that of the fewest wrong on
the validation pairs; the 4,000 test pairs are seen once, by the finished run.

`gap3-elsewhere` and `gap3-near` are the same runs: pairs 3 pixels apart, the wrong pieces from anywhere on the
photograph, or displaced by 8 to 64 pixels. `puzzles-3` and `puzzles-4` are puzzles of 3 x 3 and 4 x 4 pieces, 8 pixels
apart, of the test photographs, put together by the best sum of log-odds over all neighbours. `fragments` are nine that
the authors of JigsawNet cut, irregular and turned (the folder `jigsaw_fragments`): their poses are given, and with them
the borders between them, made straight; which side of a border belongs to which is asked of the models of gap 3, and
fragments are joined by the likeliest first. `rule` learns nothing: how much the colours step over the gap, by how much
they do beside it; its threshold is chosen on the validation pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from regard.app.data.joints import ELSEWHERE, HEIGHT, NEAR, TRUE
from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.report.drawings import COLOURS
from regard.app.results import give, mean_and_spread, save_figure
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.app.vision.assembly import best_board, cut, fits
from regard.app.vision.fragments import fragments, join, matches, sides
from regard.app.vision.seams import steps
from regard.recipes import stitch

HERE = Path(__file__).parent
GAPS, SEEDS = (3, 8), 3
MODELS = ("seam-hard", "seam-soft", "oracle", "smaller", "whole", "whole-short", "random", "seam-hard-learned")
CHANGES: dict[str, dict[str, Any]] = {
    "whole-short": {"attention": "whole", "pairs": stitch.Config.pairs // 9},
    "seam-hard-learned": {"attention": "seam-hard", "prior": "learned"},
}
"""What those have of their own whose name is no attention."""
SIZES = {3: 16, 8: 24}
"""Columns of a strip, by the gap."""
PUZZLES, PUZZLE_GAP = {"puzzles-3": 3, "puzzles-4": 4}, 8
"""Pieces of a puzzle each way, and the pixels between them."""
EACH = 60
"""Puzzles of a kind."""
FRAGMENTS, FRAGMENTS_GAP = Path("jigsaw_fragments", "MIT_ex"), 3
"""Irregular pieces, and how many pixels of their borders are taken away."""

Judge = Callable[[Tensor, Tensor], Tensor]


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job(f"gap{gap}-near", model, seed) for seed in range(SEEDS) for gap in GAPS for model in MODELS)


def gap_of(job: Job) -> int:
    """The pixels between the pieces of a job."""
    return int(job.data.partition("-")[0].removeprefix("gap"))


def configuration(job: Job, data: Path) -> stitch.Config:
    """The configuration of a model: the recipe's, but for the width of strips."""
    gap = gap_of(job)
    fields: dict[str, Any] = {"attention": job.model} | CHANGES.get(job.model, {})
    fields |= {"gap": gap, "size": SIZES[gap], "seed": job.seed}
    return stitch.Config(data=str(data / "photos_large"), **fields)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """What the test pairs say of a run, and puzzles of the test photographs; beside the oracle, of the rule."""
    opened = open_run(run)
    means, model, data = averages(opened, opened.splits.test), opened.model, opened.splits.test
    read = {"pixels_read": 100 * means["share"], "epoch": float(best["epoch"])}
    found = pairs(job, means, read)

    def judge(pair: Tensor, seam: Tensor) -> Tensor:
        return torch.cat([model(*part).logits for part in zip(pair.split(256), seam.split(256), strict=True)])

    if gap_of(job) == PUZZLE_GAP:
        found |= {
            f"{name}/{job.model}": puzzles(judge, data.photographs, rows) | read for name, rows in PUZZLES.items()
        }
    folder = Path(opened.model.config.data).parent / FRAGMENTS
    if gap_of(job) == FRAGMENTS_GAP and folder.is_dir():
        found[f"fragments/{job.model}"] = joined(judge, folder) | read
    if job.model == "oracle":
        found |= rule(job, opened.splits, folder)
    return found


def joined(judge: Judge, folder: Path) -> Metrics:
    """How many fragments hang together rightly, and how many of the joints are wrong."""
    found = sides(fragments(folder), FRAGMENTS_GAP)
    right, _, wrong = join(found, matches(found, FRAGMENTS_GAP, judge))
    return {"fragments_joined": float(right), "wrong_joints": float(wrong)}


def pairs(job: Job, means: dict[str, float], more: Metrics) -> dict[str, Metrics]:
    """The errors of wrong pieces from near by and from elsewhere, as rows."""
    near, far = ({"error_percent": 100 * means[kind]} | more for kind in ("near", "elsewhere"))
    return {job.model: near, f"gap{gap_of(job)}-elsewhere/{job.model}": far}


def rule(job: Job, splits: Any, folder: Path) -> dict[str, Metrics]:
    """The same of the rule that learns nothing, and of the fragments in a folder."""
    gap = gap_of(job)

    def stepped(split: Any) -> tuple[Tensor, Tensor]:
        parts = [split.batch(part) for part in torch.arange(len(split)).split(256)]
        scores = [steps(part["pair"], part["seam"], gap) for part in parts]
        return torch.cat(scores), torch.cat([part["kind"] for part in parts])

    score, kind = stepped(splits.valid)
    candidates = score.sort().values
    errors = ((score < candidates.unsqueeze(1)) != (kind == TRUE)).float().mean(1)
    threshold = candidates[errors.argmin()]
    score, kind = stepped(splits.test)
    taken = (score < threshold).float()
    missed = float(1 - taken[kind == TRUE].mean())
    means = {name: (missed + float(taken[kind == of].mean())) / 2 for name, of in KINDS.items()}
    read: Metrics = {"pixels_read": 100 * 2 * (gap + 4) / splits.shape[2]}  # as far as it looks on either side
    found = pairs(Job(job.data, "rule", job.seed), means, read)

    def judge(pair: Tensor, seam: Tensor) -> Tensor:
        return threshold.log() - steps(pair, seam, gap).log()

    if gap == FRAGMENTS_GAP and folder.is_dir():
        found["fragments/rule"] = joined(judge, folder) | read
    if gap == PUZZLE_GAP:
        found |= {
            f"{name}/rule": puzzles(judge, splits.test.photographs, rows) | read for name, rows in PUZZLES.items()
        }
    return found


KINDS = {"near": NEAR, "elsewhere": ELSEWHERE}


@torch.no_grad()
def puzzles(judge: Judge, photographs: Sequence[Tensor], rows: int) -> Metrics:
    """Puzzles of rows x rows pieces from anywhere on the photographs, as many of each: how many are solved whole, and
    how many pieces lie where they belong."""
    generator, whole, right = torch.Generator().manual_seed(3), 0, 0.0
    side, pieces = rows * (HEIGHT + PUZZLE_GAP), rows**2
    for number in range(EACH):
        photograph = photographs[number % len(photographs)]
        y, x = (int(torch.randint(size - side, (), generator=generator)) for size in photograph.shape[1:])
        order = torch.randperm(pieces, generator=generator)
        given = cut(photograph, y, x, rows, HEIGHT, PUZZLE_GAP)[order]
        placed = order[best_board(fits(given, PUZZLE_GAP, judge), rows, rows).flatten()]
        good = placed == torch.arange(pieces)
        whole, right = whole + bool(good.all()), right + float(good.float().mean())
    return {"solved_percent": 100 * whole / EACH, "placed_percent": 100 * right / EACH}


TABLE = Trained("stitch", HERE / "results" / "stitch.json", stitch, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    names = {"error_percent": 1, "solved_percent": 0, "placed_percent": 0, "fragments_joined": 0, "pixels_read": 1}
    table = Table("pairs", "model", "seeds", *names, "seconds", title="stitch: the test photographs")
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name), digits) for name, digits in names.items()]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Of each gap, the wrong answers about pieces from near by, by the pixels of a pair that are read."""
    page = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, gap in zip(page.subplots(1, 2), GAPS, strict=True):
        for row in (row for row in rows if row["data"] == f"gap{gap}-near"):
            colour = COLOURS[[*MODELS, "rule"].index(row["model"]) % len(COLOURS)][0]
            metrics = {name: fmean(values) for name, values in row["metrics"].items()}
            marker = "x" if row["model"] == "rule" else "o"
            axes.scatter(metrics["pixels_read"], metrics["error_percent"], c=colour, marker=marker, label=row["model"])
        axes.set(title=f"{gap} pixels apart", xlabel="read of the pixels, %", ylabel="wrong, %", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        if axes.collections:
            axes.legend(frameon=False, fontsize="small")
    return page


def main() -> None:
    """The command line."""
    about = "Pieces of photographs, by the strip where they meet."
    options = table_parser(TABLE, about, "the folder of all data", figure=True).parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "stitch", "rows": rows}, options, lambda: show(rows))
    if options.figure:
        save_figure(figure(rows), options.figure)


if __name__ == "__main__":
    main()
