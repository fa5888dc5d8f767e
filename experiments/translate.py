"""What each attention is worth to a translator: BLEU, by sentence length too, and alignments against links by hand.

    regard experiment translate --data DIR                                             every run: many hours
    regard experiment translate --data DIR --pair de-en --attention hard --seed 0      some of them
    regard experiment translate --figure docs/pictures/length.png                      what is finished, and its figure
    regard experiment translate --alignments docs/pictures/alignments.png              where four of these runs look

DIR holds the folders `multi30k` and `word_alignments`. What is trained is `translate/SIZE.yaml` beside this script, and
over it `translate/SIZE-ATTENTION.yaml` if there is one: of comparison size 12 minutes on one core, and more where
several places are drawn; of full size at most 45 on two. Runs are kept in `runs/translate` and are resumed; several of
these commands may run at once, each takes runs that no other has. What is finished is in `results/translate.json`, and
is not trained again: take its run out first. The weights of the full size that are best on validation are kept in half
precision, if then below 20 MB, in `weights/translate-ATTENTION.safetensors`.

The best epoch is that of the highest BLEU on the validation sentences; the test sentences are seen once, by the
finished run. `bleu` is sacrebleu's of a beam of 5, `bleu_greedy` that of the most probable word each time, both of
models that were trained on the files `tok`, lower-cased and cut into words as these are; `bleu_cased` is of models that
were trained on the files `raw`, cased and as one writes. Perplexity is that of subwords, of which all attentions of one
pair have the same. `breadth` is to how many source words a word of the wanted translation spreads its look, exp of the
entropy of its weights.

Alignments are those of the Hansards, by en-fr: each French word is linked to the English one at which it looks most,
when it has to be written, and with none if that is the end of the sentence; `known` is of the pairs whose words are
all in Multi30k. Only sure links are known, and half of the words have none (`regard experiment alignments` says more):
rates are to be compared with each other, not with papers.

What is in the results was trained with `--precision bf16-mixed`, which is faster where the processor has such numbers,
and several times slower where it has not.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import scoring
import torch
import yaml
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from safetensors.torch import save

from regard.app import experiments
from regard.app.report.matrix import Matrix
from regard.app.results import give, machine, mean_and_spread, save_figure, save_json
from regard.app.text import translating
from regard.app.training.config import read_config
from regard.app.training.evaluation import averages
from regard.app.training.fabric import Fit
from regard.app.training.files import write
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.app.training.weights import read_weights
from regard.recipes import translate

HERE = Path(__file__).parent
RESULTS, WEIGHTS = HERE / "results" / "translate.json", HERE.parent / "weights"
FULL = {"additive": 3, "self": 3, "none": 1}
"""How many seeds there are of the full size."""
CLAIMS = ("additive", "none", "hard", "variational")
"""Three seeds of the comparison size; the others have one."""
OTHERS = (
    "local-p", "dot", "scaled-dot", "general", "entmax", "segments", "self", "exact", "sparsemax", "monotonic",
    "concat", "cosine", "location", "local-m",
)  # fmt: skip
PAIRS, THREADS = ("de-en", "en-fr"), {"comparison": 1, "full": 2}
DRAWN = ("none", "additive", "local-p", "self")
LOOKED, SENTENCE = ("additive", "hard", "segments", "self"), 644
"""Whose alignments of which test sentence are drawn."""
WEIGHED, LARGEST = ("additive", "self"), 20_000_000
"""Whose weights are kept, and of how many bytes at most."""
MEASURES = ("bleu", "bleu_greedy", "perplexity", "breadth", "valid_bleu", "seconds")
SHOWN = {"bleu_greedy": 2, "bleu_cased": 2, "perplexity": 2, "breadth": 2, "seconds": 0}
"""What is printed beside BLEU, to how many digits."""
RATES = ("alignment_error_rate", "alignment_error_rate_known")


@dataclass(frozen=True)
class Job:
    """One run, trained on tok or on raw."""

    pair: str
    attention: str
    size: str
    seed: int
    text: str = "tok"

    @property
    def row(self) -> tuple[str, str, str]:
        """The row that it is of."""
        return self.pair, self.size, self.attention

    def __str__(self) -> str:
        return f"{self.pair}-{self.size}-{self.attention}-{self.text}-seed{self.seed}"


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    yield from (Job("de-en", attention, "full", 0) for attention in FULL)
    yield from (Job("de-en", attention, "comparison", 0) for attention in (*CLAIMS, *OTHERS))
    yield from (Job("en-fr", attention, "comparison", 0) for attention in (*CLAIMS, *OTHERS) if attention != "none")
    for seed in (1, 2):
        yield from (Job("de-en", attention, "comparison", seed) for attention in CLAIMS)
        yield from (Job("de-en", attention, "full", seed) for attention, seeds in FULL.items() if seed < seeds)
    yield from (Job("de-en", attention, size, 0, "raw") for size in THREADS for attention in FULL)


def configuration(job: Job, data: Path) -> translate.Config:
    """The configuration of a size, as committed, with what an attention has of its own."""
    file, own = (HERE / "translate" / f"{name}.yaml" for name in (job.size, f"{job.size}-{job.attention}"))
    fields: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    fields |= yaml.safe_load(own.read_text(encoding="utf-8")) if own.exists() else {}
    source, target = job.pair.split("-")
    fields |= {"data": str(data / "multi30k" / job.text), "source": source, "target": target}
    return translate.Config(**fields | {"attention": job.attention, "seed": job.seed})


def do(job: Job, data: Path, folder: Path, fit: Fit) -> None:
    """Trains and tests one run, unless that is done. Raises Failure if another process is at it."""
    torch.set_num_threads(fit.threads or 1)
    run, own = folder / str(job), {**asdict(job), "threads": fit.threads}

    def said(best: Row) -> dict[str, Any]:
        return {**own, **test(run, job, data), "valid_bleu": best["valid_bleu"]}

    result = experiments.once(translate, configuration(job, data), run, fit, said, job in kept())
    if result:
        print(f"{job}: BLEU {result['bleu']:.2f} in {result['seconds']:.0f} s", flush=True)


def test(run: Path, job: Job, data: Path) -> dict[str, Any]:
    """What the test sentences say of a run, and of en-fr the links of the Hansards."""
    opened = open_run(run)
    means, splits, model = averages(opened, opened.splits.test), opened.splits, opened.model
    written = translating.translated(model, splits.test.sources)
    found = {**scoring.bleu(written, splits.test.targets, splits.test.tokenised), "bleu_greedy": means["bleu"]}
    found |= {"bleu_by_length": scoring.by_length(splits.test, written), "perplexity": means["perplexity"]}
    found["breadth"] = scoring.breadth(model, splits.test)
    if job.pair == "en-fr":
        found |= {name: scoring.error_rate(model, pairs) for name, pairs in scoring.hansards(data).items()}
    return found


def kept() -> dict[Job, dict[str, Any]]:
    """The runs of results/translate.json."""
    return {_job(each): each for each in experiments.kept(RESULTS, "runs")}


def _job(result: dict[str, Any]) -> Job:
    return Job(**{name: result[name] for name in ("pair", "attention", "size", "seed", "text")})


def finished(folder: Path) -> list[dict[str, Any]]:
    """What is kept of each run, or what it says itself if it is there."""
    found = kept() | {_job(each): each for each in experiments.finished(folder)}
    return [found[job] for job in jobs() if job in found]


def rows_of(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table from all runs that are finished."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in found:
        groups.setdefault(_job(each).row, []).append(each)
    return [_row(groups[key]) for key in sorted(groups)]


def _row(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table from its runs: a list has one entry for each seed."""
    seeds, cased = ([each for each in found if each["text"] == text] for text in ("tok", "raw"))
    pair, size, attention = _job(found[0]).row
    lengths = seeds[0]["bleu_by_length"] if seeds else ()
    return {
        "pair": pair,
        "attention": attention,
        "size": size,
        "seeds": [each["seed"] for each in seeds],
        **{name: [round(each[name], 2) for each in seeds] for name in MEASURES},
        "bleu_cased": [round(each["bleu"], 2) for each in cased],
        "signatures": list(dict.fromkeys(each["signature"] for each in found)),
        **{name: [round(each[name], 2) for each in seeds if pair == "en-fr"] for name in RATES},
        "bleu_by_length": {name: [round(each["bleu_by_length"][name], 2) for each in seeds] for name in lengths},
        "threads": [each["threads"] for each in seeds],
        "machine": found[-1]["machine"],
        "command": f"regard experiment translate --data DIR --pair {pair} --size {size} --attention {attention}",
    }


def write_results(folder: Path, data: Path) -> None:
    """Writes results/translate.json and the weights from what is finished."""
    found, references = finished(folder), experiments.kept(RESULTS, "aligners")
    if not references and any(each["pair"] == "en-fr" for each in found):
        references = scoring.aligners(data)
    table = {"rows": rows_of(found), "aligners": references, "runs": found}
    save_json({"name": "translate", "machine": machine(), **table}, RESULTS)
    keep_weights(folder, found)


def keep_weights(folder: Path, found: Sequence[dict[str, Any]]) -> None:
    """Keeps the weights of some attentions of full size, of the seed that is best on the validation sentences."""
    for attention in WEIGHED:
        row = ("de-en", "full", attention)
        seeds = [each for each in found if _job(each).row == row and each["text"] == "tok"]
        if seeds:
            _copy(folder / str(_job(max(seeds, key=lambda each: each["valid_bleu"]))), f"translate-{attention}")


def _copy(run: Path, name: str) -> None:
    """Keeps the weights of a run if it is here and they are small, in half precision, with a configuration that does
    not say where the data lie."""
    if (run / "model.safetensors").exists():
        weights = {key: each.half() if each.is_floating_point() else each for key, each in read_weights(run).items()}
        data, (recipe, config) = save(weights), read_config(run)
        if len(data) < LARGEST:
            fields = {"recipe": recipe.source, **asdict(replace(config, data="multi30k/tok"))}
            WEIGHTS.mkdir(exist_ok=True)
            write(WEIGHTS / f"{name}.yaml", yaml.safe_dump(fields, sort_keys=False).encode())
            write(WEIGHTS / f"{name}.safetensors", data)


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The figure: BLEU by the length of the source, of the comparison size; with the spread of several seeds."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    drawn = [row for row in rows if (row["pair"], row["size"]) == ("de-en", "comparison")]
    found = {row["attention"]: row["bleu_by_length"] for row in drawn}
    for colour, attention in zip(("#000000", "#0072b2", "#d55e00", "#009e73"), DRAWN, strict=True):
        lengths = found.get(attention)
        if not lengths:
            continue
        means = [statistics.fmean(values) for values in lengths.values()]
        spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in lengths.values()]
        axes.errorbar(list(lengths), means, spreads, fmt="o-", c=colour, capsize=3, label=attention)
    axes.set(xlabel="words of the German sentence", ylabel="BLEU")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_alignments(folder: Path) -> Figure:
    """The other figure: where the words of one test sentence looked, of the runs that are here."""
    folders = {attention: folder / str(Job("de-en", attention, "comparison", 0)) for attention in LOOKED}
    found = {attention: _aligned(run) for attention, run in folders.items() if (run / "model.safetensors").exists()}
    figure = Figure(figsize=(3.1 * len(found) + 0.6, 3.7), layout="constrained")
    for axes, (attention, matrix) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        axes.imshow(matrix.weights.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(matrix.source)), matrix.source, rotation=90, fontsize=8)
        axes.set_yticks(range(len(matrix.target)), matrix.target if not axes.get_subplotspec().colspan.start else "")
        axes.tick_params(length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.set_xlabel(attention)
    return figure


def _aligned(run: Path) -> Matrix:
    _, _, splits, model = open_run(run)
    batch = splits.test.batch(torch.tensor([SENTENCE]))
    return translate.alignments(model, batch["source"], batch["target"])[0]


def show(rows: Sequence[dict[str, Any]], references: Sequence[dict[str, Any]]) -> None:
    """Prints the tables: means over the seeds, and the standard deviation of BLEU; and how well is aligned."""
    for (pair, size), group in groupby(rows, key=lambda row: (row["pair"], row["size"])):
        table = Table("", "seeds", "BLEU", "greedy", "cased", "ppl", "words", "s", title=f"{pair}, {size}")
        for row in group:
            means = (_mean(row[name], digits) for name, digits in SHOWN.items())
            table.add_row(row["attention"], str(len(row["seeds"])), mean_and_spread(row["bleu"]), *means)
        Console().print(table)
    table = Table("", "error rate", "known", title="alignments, en-fr")
    for row in references:
        table.add_row(row["aligner"], *(f"{row[name]:.2f}" for name in RATES))
    for row in rows:
        if row["pair"] == "en-fr":
            cells = (mean_and_spread(row[name]) for name in RATES)
            table.add_row(f"{row['size']} {row['attention']}", *cells)
    if references:
        Console().print(table)


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{statistics.fmean(values):.{digits}f}" if values else ""


def _flags() -> argparse.ArgumentParser:
    about = "What each attention is worth to a translator."
    flags = experiments.parser("translate", about, "holds multi30k and word_alignments", figure=True)
    flags.add_argument("--pair", choices=PAIRS, help="one pair of languages alone")
    flags.add_argument("--size", choices=THREADS, help="one size of model alone")
    flags.add_argument("--attention", choices=(*CLAIMS, *OTHERS), help="one attention alone")
    flags.add_argument("--text", choices=("tok", "raw"), help="one kind of text alone")
    flags.add_argument("--seed", type=int, help="one seed alone")
    flags.add_argument("--threads", type=int, help="of a run; one of comparison size, two of full size if not given")
    flags.add_argument("--alignments", type=Path, metavar="FILE", help="draw where some runs look, as PNG")
    return flags


def main() -> None:
    """The command line."""
    options = _flags().parse_args()
    if options.data:
        data = options.data.resolve()
        experiments.do_all(
            experiments.asked(jobs(), options),
            lambda job: do(job, data, options.runs, experiments.fit(options, options.threads or THREADS[job.size])),
            lambda: write_results(options.runs, data),
        )
    rows, references = rows_of(finished(options.runs)), experiments.kept(RESULTS, "aligners")
    if options.figure:
        save_figure(draw(rows), options.figure)
    if options.alignments:
        save_figure(draw_alignments(options.runs), options.alignments)
    give({"name": "translate", "rows": rows}, options, lambda: show(rows, references))


if __name__ == "__main__":
    main()
