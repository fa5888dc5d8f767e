"""The tables of Mnih et al. 2014, "Recurrent Models of Visual Attention", and what each must beat: trained and tested.

    regard experiment ram --data DIR                                        every row: hours
    regard experiment ram --data DIR --task 28 --glimpses 6 --model hard    one row of the table, with all its seeds
    regard experiment ram                                                   the table, as far as it is finished

The configuration of a task is `ram/TASK.yaml` beside this script, and over it `ram/TASK-MODEL.yaml` if there is one.
Runs are kept in `runs/ram` and are resumed; several of these commands may run at once, each takes runs that no other
has. What is finished is in `results/ram.json`, and the weights of each row of hard attention, with their configuration,
in `weights/ram-TASK-GLIMPSES.safetensors`: those of the seed that is best on the validation images. The test images are
seen once, by the finished run. A seed that is in the results is not trained again: take its row out first.

What is in the results was trained with `--precision bf16-mixed`, which is faster where the processor has such numbers,
and several times slower where it has not.
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from regard.app import experiments
from regard.app.results import give, machine, mean_and_spread, save_json
from regard.app.training.config import read_config
from regard.app.training.evaluation import averages
from regard.app.training.fabric import Fit
from regard.app.training.files import write
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import glimpse

HERE = Path(__file__).parent
RESULTS, WEIGHTS = HERE / "results" / "ram.json", HERE.parent / "weights"
TASKS = {"28": (6, 2, 4), "60-translated": (8, 4, 6), "60-cluttered": (8, 4, 6), "100-cluttered": (8, 4, 6)}
"""The numbers of glimpses of each task: the one with three seeds and comparisons, then the others."""
MODELS = ("hard", "random", "fixed", "soft", "grid", "cnn")
SEEDS = 3
PATHS = 10
"""Paths drawn for each test image where the policy is not asked for its mean."""


@dataclass(frozen=True)
class Job:
    """One run: a row of the table and a seed."""

    task: str
    glimpses: int
    model: str
    seed: int

    @property
    def row(self) -> tuple[str, int, str]:
        """The row that it is of."""
        return self.task, self.glimpses, self.model

    def __str__(self) -> str:
        return f"{self.task}-{self.glimpses}-{self.model}-seed{self.seed}"


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    for seed in range(SEEDS):
        for task, (most, *_) in TASKS.items():
            yield Job(task, most, "hard", seed)
    for task, (_, *fewer) in TASKS.items():
        yield from (Job(task, glimpses, "hard", 0) for glimpses in fewer)
    for model in MODELS[1:]:
        for task, (most, *_) in TASKS.items():
            yield Job(task, most, model, 0)


def configuration(job: Job, data: str) -> glimpse.Config:
    """The task's configuration, as committed, with what a model has of its own."""
    fields: dict[str, Any] = {}
    for name in (job.task, f"{job.task}-{job.model}"):
        if (file := HERE / "ram" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    return glimpse.Config(**fields, data=data, attention=job.model, glimpses=job.glimpses, seed=job.seed)  # pyright: ignore[reportArgumentType]


def do(job: Job, data: str, folder: Path, fit: Fit) -> None:
    """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
    run = folder / str(job)
    known = any(_key(row) == job.row and job.seed in row["seeds"] for row in experiments.kept(RESULTS))

    def said(best: Row) -> dict[str, Any]:
        return {**asdict(job), **test(run), "valid_error": best["valid_error"]}

    result = experiments.once(glimpse, configuration(job, data), run, fit, said, known)
    if result:
        print(f"{job}: {result['error_percent']:.2f} % in {result['seconds']:.0f} s", flush=True)


def test(run: Path) -> dict[str, Any]:
    """What the test images say of a run: looking where the policy's mean is, and on average over sampled paths."""
    opened = open_run(run)
    _, config, splits, model = opened
    means = averages(opened, splits.test)
    found = {"error_percent": 100 * means["error"], "pixels_read": means["pixels"]}
    if config.attention == "hard":
        found["on_digit"] = means["on_digit"]
        found["error_percent_sampled"] = 100 * sampled_error(model, splits.test, config.batch)
    return found


@torch.no_grad()
def sampled_error(model: Any, split: Any, batch: int) -> float:
    """The error of one sampled path, averaged over several."""
    torch.manual_seed(0)
    model.train()
    model.draws, errors = PATHS, []
    for indices in torch.arange(len(split)).split(batch):
        images = split.batch(indices, None)
        answers = model(images["image"]).answers[:, :, -1].argmax(-1)  # (PATHS, B)
        errors.append((answers != images["label"]).double().mean(0))
    return torch.cat(errors).mean().item()


def collect(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table: what is kept of each seed, or what its run says if there is one."""
    results = {(_key(each), each["seed"]): each for row in experiments.kept(RESULTS) for each in _seeds(row)}
    results |= {(_key(each), each["seed"]): each for each in experiments.finished(folder)}
    rows = {job.row: [results[job.row, seed] for seed in range(SEEDS) if (job.row, seed) in results] for job in jobs()}
    return [_row(seeds) for seeds in rows.values() if seeds]


def _seeds(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What a row says of each of its seeds: the lists are theirs in turn."""
    single = {name: value for name, value in row.items() if not isinstance(value, list)}
    lists = {name: value for name, value in row.items() if isinstance(value, list) and name != "seeds"}
    return [
        single | {"seed": seed} | {name: values[n] for name, values in lists.items()}
        for n, seed in enumerate(row["seeds"])
    ]


def _key(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["task"], row["glimpses"], row["model"]


def _row(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table from the results of its seeds."""
    task, glimpses, model = _key(seeds[0])
    best = min(seeds, key=lambda each: each["valid_error"])
    lists = {name: [round(each[name], 4) for each in seeds] for name in ("error_percent", "valid_error", "seconds")}
    if model == "hard":
        lists["error_percent_sampled"] = [round(each["error_percent_sampled"], 4) for each in seeds]
        lists["on_digit"] = [round(each["on_digit"], 4) for each in seeds]
    return {
        "task": task,
        "glimpses": glimpses,
        "model": model,
        "seeds": [each["seed"] for each in seeds],
        **lists,
        "pixels_read": seeds[0]["pixels_read"],
        "weights_seed": best["seed"] if model == "hard" else None,
        "machine": seeds[-1]["machine"],
        "command": f"regard experiment ram --data DIR --task {task} --glimpses {glimpses} --model {model}",
    }


def keep_weights(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Copies the weights of the best seed of each row of hard attention, with a configuration that names no folder."""
    WEIGHTS.mkdir(exist_ok=True)
    for row in rows:
        job = Job(row["task"], row["glimpses"], row["model"], row["weights_seed"] or 0)
        run, kept = folder / str(job), WEIGHTS / f"ram-{job.task}-{job.glimpses}"
        if job.model == "hard" and (run / "result.json").exists():
            recipe, config = read_config(run)
            fields = {"recipe": recipe.source, **asdict(replace(config, data="embedded"))}
            write(kept.with_suffix(".yaml"), yaml.safe_dump(fields, sort_keys=False).encode())
            write(kept.with_suffix(".safetensors"), (run / "model.safetensors").read_bytes())


def write_results(folder: Path) -> list[dict[str, Any]]:
    """Writes results/ram.json and the weights from what is finished."""
    rows = collect(folder)
    save_json({"name": "ram", "machine": machine(), "rows": rows}, RESULTS)
    keep_weights(folder, rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table("task", "glimpses", "model", "error %", "by sampled paths %", "pixels", "seconds", title="ram")
    for row in rows:
        cells = [mean_and_spread(row.get(name)) for name in ("error_percent", "error_percent_sampled")]
        seconds = f"{statistics.fmean(row['seconds']):.0f}"
        table.add_row(row["task"], str(row["glimpses"]), row["model"], *cells, f"{row['pixels_read']:.0f}", seconds)
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = experiments.parser("ram", "The tables of Mnih et al. 2014.", "the folder of MNIST's four files")
    flags.add_argument("--task", choices=TASKS, help="one task alone")
    flags.add_argument("--glimpses", type=int, help="one number of glimpses alone")
    flags.add_argument("--model", choices=MODELS, help="one model alone")
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
    give({"name": "ram", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
