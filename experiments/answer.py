"""Question answering on bAbI by simple and by structured attention, and which facts they look at: trained and tested.

Kim et al. 2017, "Structured Attention Networks", section 4.3 and table 4, has the same for softmax and the chain, each
the best of 20 models. Three seeds vary as much as theirs: of task 2 one chain in three never finds the facts, of task
15 one softmax. On tasks 14 and 15 the chain answers better on average and finds more of the marked facts, as in the
paper; on task 2 that holds for the better seeds alone; on task 3 it answers worse, as in the paper; task 16, which the
paper's models learn, none of ours does.

    regard experiment answer --data DIR                        every task and over with three seeds: an hour on one core
    regard experiment answer --data DIR --task 2 --over chain  one row of the table, with all its seeds
    regard experiment answer                                   the table, as far as it is finished

Runs are kept in `runs/answer` and are resumed; several of these commands may run at once, each takes runs that no other
has. What is finished is in `results/answer.json`. The epoch is chosen by the validation questions; the test questions
are seen once, by the finished run. A seed that is in the results is not trained again: take its row out first.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from regard.app import experiments
from regard.app.results import give, machine, mean_and_spread, save_json
from regard.app.training.evaluation import averages
from regard.app.training.fabric import Fit
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import answer

RESULTS = Path(__file__).parent / "results" / "answer.json"
TASKS = (2, 15, 14, 1, 16, 3)
"""What matters most first."""
OVERS = ("softmax", "chain", "sigmoid", "segments")
SEEDS = 3
PAPER = {
    (2, "softmax"): (87.3, 46.8),
    (2, "chain"): (84.7, 81.8),
    (3, "softmax"): (52.6, 1.4),
    (3, "chain"): (40.5, 0.1),
    (14, "softmax"): (99.9, 77.6),
    (14, "chain"): (99.7, 98.2),
    (15, "softmax"): (100.0, 59.3),
    (15, "chain"): (100.0, 89.5),
    (16, "softmax"): (97.1, 91.0),
    (16, "chain"): (97.9, 85.6),
}
"""Its right answers and sequences of facts in percent, of the best of 20 models on the validation questions."""
MEASURES = ("accuracy", "facts", "sequence", "recall")
TITLE = "answer: % of the test questions, 3 seeds; right / sequence of the best seed and of the paper's"
KEPT = (*MEASURES, "valid_error", "seconds")


@dataclass(frozen=True)
class Job:
    """One run: a row of the table and a seed."""

    task: int
    over: str
    seed: int

    def __str__(self) -> str:
        return f"task{self.task}-{self.over}-seed{self.seed}"


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    return (Job(task, over, seed) for task in TASKS for over in OVERS for seed in range(SEEDS))


def do(job: Job, data: str, folder: Path, fit: Fit) -> None:
    """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
    run = folder / str(job)
    known = any(_key(row) == (job.task, job.over) and job.seed in row["seeds"] for row in experiments.kept(RESULTS))

    def said(chosen: Row) -> dict[str, Any]:
        return {**asdict(job), **test(run), "valid_error": chosen["valid_error"]}

    result = experiments.once(answer, answer.Config(data=data, **asdict(job)), run, fit, said, known)
    if result:
        print(f"{job}: {result['accuracy']:.1f} % right, {result['facts']:.1f} % by the marked facts", flush=True)


def test(run: Path) -> dict[str, float]:
    """What the test questions say of a run, in percent."""
    opened = open_run(run)
    means = averages(opened, opened.splits.test)
    return {name: 100 * value for name, value in {"accuracy": 1 - means.pop("error"), **means}.items()}


def collect(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table: what is kept of each seed, or what its run says if there is one."""
    found = {
        (*_key(row), seed): _seed(row, n) for row in experiments.kept(RESULTS) for n, seed in enumerate(row["seeds"])
    }
    found |= {(*_key(each), each["seed"]): each for each in experiments.finished(folder)}
    keys = dict.fromkeys(sorted((job.task, job.over) for job in jobs()))
    rows = {key: [found[*key, seed] for seed in range(SEEDS) if (*key, seed) in found] for key in keys}
    return [_row(seeds) for seeds in rows.values() if seeds]


def _key(row: dict[str, Any]) -> tuple[int, str]:
    return row["task"], row["over"]


def _seed(row: dict[str, Any], n: int) -> dict[str, Any]:
    """What a row says of one of its seeds."""
    return {"task": row["task"], "over": row["over"], "seed": row["seeds"][n], **{name: row[name][n] for name in KEPT}}


def _row(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table from the results of its seeds."""
    task, over = _key(seeds[0])
    return {
        "task": task,
        "over": over,
        "seeds": [each["seed"] for each in seeds],
        **{name: [round(each[name], 2) for each in seeds] for name in KEPT},
        "paper": PAPER.get((task, over), ()),
        "command": f"regard experiment answer --data DIR --task {task} --over {over}",
    }


def best(row: dict[str, Any]) -> tuple[float, float]:
    """The right answers and the sequences of facts of the seed that is best on the validation questions."""
    seed = row["valid_error"].index(min(row["valid_error"]))
    return row["accuracy"][seed], row["sequence"][seed]


def write_results(folder: Path) -> None:
    """Writes results/answer.json from what is finished."""
    save_json({"name": "answer", "machine": machine(), "rows": collect(folder)}, RESULTS)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds; then right answers and sequences of facts of the
    seed that is best on the validation questions, and of the paper's model that is the best of 20."""
    table = Table("task", "over", "right", "facts", "sequence", "recall", "best", "paper", title=TITLE)
    for row in rows:
        singles = [" / ".join(f"{value:.1f}" for value in pair) for pair in (best(row), row["paper"])]
        table.add_row(str(row["task"]), row["over"], *(mean_and_spread(row[name], 1) for name in MEASURES), *singles)
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = experiments.parser("answer", "Question answering on bAbI.", "the folder of bAbI")
    flags.add_argument("--task", type=int, choices=TASKS, help="one task alone")
    flags.add_argument("--over", choices=OVERS, help="one over alone")
    flags.add_argument("--seed", type=int, help="one seed alone")
    options = flags.parse_args()
    torch.set_num_threads(1)
    if options.data:
        data, fit = str(options.data.resolve()), experiments.fit(options)
        experiments.do_all(
            experiments.asked(jobs(), options),
            lambda job: do(job, data, options.runs, fit),
            lambda: write_results(options.runs),
        )
    rows = collect(options.runs)
    give({"name": "answer", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
