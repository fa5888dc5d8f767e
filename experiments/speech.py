"""Strings of spoken digits, written down by decoders that look in different ways, and by CTC.

The Free Spoken Digit Dataset: 3,000 takes of ten digits by six speakers. Strings are made of one speaker's takes, with
gaps and noise; models learn from strings of 1 to 10 digits, made afresh, and are tested on 10, 20 and 40.

    regard experiment speech --data DIR                             every row: an hour on one core
    regard experiment speech --data DIR --model chunkwise           one row of the table, with all its seeds
    regard experiment speech                                        the table, as far as it is finished

DIR holds the folder speech_digits. Runs are kept in `runs/speech` and are resumed; several of these commands may run at
once, each takes runs that no other has. What is finished is in `results/speech.json`, and is not trained again: take
its row out first. The authors' 300 test takes (0 to 4 of each digit and speaker) are only in the test strings, takes 45
to 49 only in those of validation, by which the epoch is chosen. `chunkwise` and `hard` begin with the weights of
location-aware attention, and their seconds are beside those.

`digit_error_percent_40` are the insertions, deletions and substitutions by the digits said, of 100 strings of 40, and
beside it these three apart. `location-aware` looks, in use, no further on from its last look than the longest training
take and gap; `location-aware-free` is the same model without that. `chunkwise` reads the mean, after the sound is over;
`chunkwise-online` is the same model by `regard.attend_online`: `compared_percent_40` of the places were compared with
a query, `read_percent_40` were read, and a digit was written `latency_frames_40` of 10 ms after its end, on average,
those of the encoder's neighbourhood among them. In the data `held-out` one speaker is tested of whom nothing was
learned, `theo`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import regard as rg
from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.results import give, mean_and_spread
from regard.app.speech import online
from regard.app.speech.strings import Strings
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import speech

HERE = Path(__file__).parent
LENGTHS, COUNT = (10, 20, 40), 100
"""Digits of the test strings, and how many strings there are of each length."""
HELD_OUT = "theo"
MODELS: dict[str, dict[str, Any]] = {
    "location-aware": {"epochs": 8},
    "chunkwise": {"epochs": 2, "learning_rate": 1.5e-3},
    "ctc": {"epochs": 5},
    "rnnt": {"epochs": 5},
    "additive": {"epochs": 5},
    "none": {"epochs": 5},
    "hard": {"epochs": 2, "learning_rate": 1e-3},
}
"""By what each differs from what is usual."""
LATER = "chunkwise", "hard"
"""Models that begin with the weights of location-aware attention."""
CHANGES: dict[str, dict[str, Any]] = {
    "location-aware-recurrent": {"encoder": "recurrent"},
    "location-aware-remembering": {"memory": True},
    "location-aware-narrow": {"width": 15},
    "location-aware-no-ctc": {"ctc": 0.0},
}
"""Location-aware attention, each with one thing changed."""
SEEDS = 3


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job("digits", model, 0) for model in MODELS)
    yield from (Job("held-out", model, 0) for model in ("location-aware", "chunkwise"))
    yield from (Job("digits", model, 0) for model in CHANGES)
    yield from (Job("digits", model, seed) for seed in range(1, SEEDS) for model in ("location-aware", "chunkwise"))


def configuration(job: Job, data: Path) -> speech.Config:
    """The configuration of a model."""
    fields = {"each": 2400, **MODELS["location-aware"], **CHANGES.get(job.model, {}), **MODELS.get(job.model, {})}
    attention: Any = "location-aware" if job.model in CHANGES else job.model
    held_out = HELD_OUT if job.data == "held-out" else ""
    return speech.Config(
        seed=job.seed, data=str(data / "speech_digits"), attention=attention, held_out=held_out, **fields
    )


def begins(job: Job) -> Job | None:
    """The run whose weights a model has at first."""
    return Job(job.data, "location-aware", job.seed) if job.model in LATER else None


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The digits that are wrong in strings of each length, of all uses of the model."""
    opened = open_run(run)
    model, takes = opened.model, opened.splits.test.takes
    splits = {length: Strings(takes, COUNT, length, length, seed=length) for length in LENGTHS}
    found: dict[str, Metrics] = {}

    def tested(name: str, evaluate: Any = None) -> None:
        of = {length: averages(opened, split, evaluate) for length, split in splits.items()}
        found[name] = {f"{kind}_{n}": value for n, each in of.items() for kind, value in named(each).items()}
        found[name] |= {"valid_digit_error_percent": 100 * best["valid_symbol_error"]}

    if job.model == "chunkwise":
        tested("chunkwise-online", partial(online.values, model))
        model.speller.attention.read = rg.mean
    tested(job.model)
    if job.model == "location-aware":
        model.speller.window = None
        tested("location-aware-free")
    return {name if job.data == "digits" else f"{job.data}/{name}": each for name, each in found.items()}


def named(found: dict[str, float]) -> dict[str, float]:
    """The figures of strings of one length, by their names in the table."""
    shares = ("insertions", "deletions", "substitutions", "compared", "read")
    percent = {f"{name}_percent": 100 * found[name] for name in shares if name in found}
    latency = {"latency_frames": found["latency"]} if "latency" in found else {}
    return {"digit_error_percent": 100 * found["symbol_error"], **percent, **latency}


TABLE = Trained("speech", HERE / "results" / "speech.json", speech, tuple(jobs()), configuration, test, begins=begins)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    wrong = [f"wrong of {length}, %" for length in LENGTHS]
    table = Table("data", "model", "seeds", *wrong, "read of 40, %", "late, frames", "seconds", title="speech")
    names = [*(f"digit_error_percent_{length}" for length in LENGTHS), "compared_percent_40", "latency_frames_40"]
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name, []), 1) for name in names]
        seconds = mean_and_spread(row["seconds"], 0)
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells, seconds)
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = table_parser(TABLE, "Strings of spoken digits, written down.", "holds speech_digits", figure=True)
    flags.add_argument("--run", type=Path, help="whose first test string --figure draws")
    options = flags.parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    if options.figure and options.run:
        draw(options.run, options.figure)
    give({"name": "speech", "rows": rows}, options, lambda: show(rows))


def draw(run: Path, file: Path) -> None:
    """Writes where a run looked in its first test string."""
    opened = open_run(run)
    with torch.no_grad():
        (picture,) = speech.look(opened.model, opened.splits.test.batch(torch.tensor([0])))
    file.write_bytes(picture.png)


if __name__ == "__main__":
    main()
