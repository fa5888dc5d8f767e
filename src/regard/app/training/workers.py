"""Many runs trained side by side: as many processes as there are cores, one thread each, under one display.

A worker is this module run as a program: it trains the runs whose folders it reads on standard input, and writes how
far it is on standard output, as JSON. It has a process group of its own, so that Ctrl-C in a terminal reaches the first
process alone, which tells its workers to stop; and it ends when the first process does, however that ends.
"""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, cast

from regard.app.training.errors import Failure, Interrupted
from regard.app.training.progress import Tell, in_words, lines

RESULTS = "test.json"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_results(run: Path) -> dict[str, int | float] | None:
    """The averages over the test split of a run that is finished; None of one that is not."""
    file = run / RESULTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def train_all(runs: Mapping[Path, float], processes: int, log: Path, recipe: str) -> None:
    """Trains every run of a recipe, its name or its file, and leaves its test results in its folder, which holds its
    config.yaml; finished ones stay.

    `runs` says how long each will take, in any unit; the longest go first, so that all processes end together. What
    workers complain about goes to the file `log`. Raises Failure if a run fails, and Interrupted on Ctrl-C, both with
    everything saved: the same call then goes on from there.
    """
    waiting = deque(sorted((run for run in runs if read_results(run) is None), key=lambda run: -runs[run]))
    crew = [Worker(log, recipe) for _ in range(min(processes, len(waiting)))]
    try:
        with display(runs) as tell, ThreadPoolExecutor(len(crew) or 1) as threads:
            busy = [threads.submit(_keep_busy, worker, waiting, tell) for worker in crew]
            try:
                for each in as_completed(busy):
                    each.result()
            except BaseException:
                waiting.clear()
                for worker in crew:
                    worker.stop()
                raise
    except KeyboardInterrupt:
        raise Interrupted("stopped, with everything saved: the same command goes on from there.") from None
    finally:
        for worker in crew:
            worker.end()


def _keep_busy(worker: "Worker", waiting: deque[Path], tell: "TellRun") -> None:
    while waiting:
        run = waiting.popleft()
        worker.train(run, partial(tell, run))


class Worker:
    """A process that trains one run after another."""

    def __init__(self, log: Path, recipe: str):
        self.log = log
        program, environment = (
            [sys.executable, "-m", "regard.app.training.workers", recipe],
            os.environ | {"OMP_NUM_THREADS": "1"},
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with open(log, "a", encoding="utf-8") as complaints:
            self.process = subprocess.Popen(program, **pipes, stderr=complaints, env=environment, process_group=0)
        self.orders, self.messages = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)

    def train(self, run: Path, tell: Tell) -> None:
        """Has a run trained, and tells how far it is. Raises Failure with what the worker says, or if it has died."""
        with suppress(BrokenPipeError):
            print(run, file=self.orders, flush=True)
        for line in self.messages:
            word, *rest = json.loads(line)
            if word == "done":
                return
            if word == "failed":
                raise Failure(*rest)
            tell(*rest)
        raise Failure(f"the process that trained {run} has died (status {self.process.wait()}); {self.log} may say why")

    def stop(self) -> None:
        """Asks it to stop in good order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Lets it go, and waits until it has gone."""
        with suppress(BrokenPipeError):
            self.orders.close()
        self.messages.close()
        self.process.wait()


TellRun = Callable[[Path, float, dict[str, int | float]], object]


@contextmanager
def display(runs: Mapping[Path, float]) -> Iterator[TellRun]:
    """A bar for each run that is going or done and one for them all, or off a terminal a line now and then; told with
    tell(run, fraction, logs)."""
    if not sys.stderr.isatty():
        told = {run: lines(run.name) for run in runs}
        yield lambda run, fraction, logs: told[run](fraction, _first(logs))
        return
    from rich import progress as rich
    from rich.console import Console

    left = rich.TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    columns = ("{task.description}", rich.BarColumn(20), rich.TaskProgressColumn(), left)
    logs = rich.TextColumn("{task.fields[logs]}", markup=False)
    with rich.Progress(*columns, logs, console=Console(stderr=True), refresh_per_second=4) as progress:
        done = {run: 0.0 if read_results(run) is None else cost for run, cost in runs.items()}
        everything = progress.add_task("all", total=sum(runs.values()), logs="")
        progress.update(everything, completed=sum(done.values()))
        bars = {}

        def tell(run: Path, fraction: float, logs: dict[str, int | float]) -> None:
            if run not in bars:
                bars[run] = progress.add_task(run.name, total=1.0, logs="")
            done[run] = fraction * runs[run]
            progress.update(bars[run], completed=fraction, logs=in_words(_first(logs)))
            progress.update(everything, completed=sum(done.values()))

        yield tell


def _first(logs: Mapping[str, int | float]) -> dict[str, int | float]:
    """The epoch, and the first of what validation says."""
    first = next((name for name in logs if name.startswith("valid_")), "epoch")
    return {name: logs[name] for name in ("epoch", first) if name in logs}


def work() -> None:
    """What a worker does."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no message

    def say(*message: object) -> None:
        print(json.dumps(message), file=messages, flush=True)

    for line in sys.stdin:
        try:
            _train(sys.argv[1], Path(line.rstrip("\n")), lambda fraction, logs: say("at", fraction, logs))
            say("done")
        except Failure as failure:
            say("failed", str(failure))


def _train(name: str, run: Path, tell: Tell) -> None:
    from regard.app.training.evaluation import evaluate
    from regard.app.training.fabric import Fit
    from regard.app.training.loop import train
    from regard.app.training.run import read_config, write
    from regard.recipes.base import open_recipe

    recipe, config = read_config(run, open_recipe(name))
    fit = Fit(accelerator="cpu", threads=1, progress=tell)
    train(recipe, config, run, fit)
    write(run / RESULTS, json.dumps(evaluate(run, fit=fit, recipe=recipe)).encode())


if __name__ == "__main__":
    work()
