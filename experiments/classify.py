"""Sentences classified by self-, soft and hard attention, and by none.

TREC (Li and Roth 2002, "Learning Question Classifiers"; 5,452 questions and 500 to test, what they ask for, of six
kinds), MR (Pang and Lee 2005; 10,662 sentences of film reviews, for or against) and Subj (Pang and Lee 2004; 10,000
sentences, of a review or of a plot).

    regard experiment classify --data DIR                             every row: an hour on one core
    regard experiment classify --data DIR --of mr --model hard        one row of the table, with all its seeds
    regard experiment classify                                        the table, as far as it is finished

DIR holds the folders text_classification, with the archives of NLTK, and glove_6b_50d. The configuration of a row is
`classify/DATA-ATTENTION.yaml` beside this script, over `classify/DATA.yaml`. Runs are kept in `runs/classify` and are
resumed; several of these commands may run at once, each takes runs that no other has. What is finished is in
`results/classify.json`, and is not trained again: take its row out first.

TREC has a test part; of MR and Subj a tenth is tested, which is the same for all seeds, drawn once with the labels in
their shares: not the tenfold cross-validation of the papers. A tenth of what is left is for validation, by which the
epoch is chosen and everything else was; the test part is seen once, by the finished run. `words_read` are those of a
test sentence, of all heads together. The models that end in `-words` have no encoder: what a head reads is a word's
vector and nothing of the others.
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from regard.app.experiments import Job, Metrics, Trained, table_parser
from regard.app.results import give, mean_and_spread
from regard.app.training.evaluation import averages
from regard.app.training.metrics import Row
from regard.app.training.run import open_run
from regard.recipes import classify

HERE = Path(__file__).parent
TEXTS = Path("runs", "classify", "texts")
"""Where the texts lie as the recipe reads them."""
TABLES = {"trec": ("qc.zip", {"train": "qc/train.txt", "test": "qc/test.txt"})}
LISTS = {
    "mr": ("sentence_polarity.zip", {"for": "rt-polarity.pos", "against": "rt-polarity.neg"}),
    "subj": ("subjectivity.zip", {"plot": "plot.tok.gt9.5000", "review": "quote.tok.gt9.5000"}),
}
MODELS = ("soft", "hard", "self", "mean", "last")
CHANGES: dict[str, dict[str, Any]] = {
    "self-words": {"attention": "self", "encoder": "none"},
    "hard-words": {"attention": "hard", "encoder": "none"},
    "soft-transformer": {"attention": "soft", "encoder": "transformer", "learning_rate": 1e-3},
    "hard-cold": {"attention": "hard", "soft": 0.0},
    "hard-together": {"attention": "hard", "penalty": 0.0},
}
"""Other models, by what they have of their own."""
SEEDS = 3


def jobs() -> Iterator[Job]:
    """All that is to be done, what matters most first."""
    datas = (*TABLES, *LISTS)
    yield from (Job(data, model, seed) for seed in range(SEEDS) for model in MODELS[:2] for data in datas)
    yield from (Job(data, model, seed) for seed in range(SEEDS) for model in MODELS[2:] for data in datas)
    yield from (Job(data, model, seed) for model in CHANGES for data in datas for seed in range(SEEDS))


def configuration(job: Job, data: Path) -> classify.Config:
    """The configuration of a model on some texts, as committed; the texts are unpacked where they are not yet."""
    if not (TEXTS / job.data).is_dir():
        unpack(job.data, data / "text_classification", TEXTS / job.data)
    changes = CHANGES.get(job.model, {"attention": job.model})
    fields: dict[str, Any] = {}
    for name in (job.data, f"{job.data}-{changes['attention']}"):
        if (file := HERE / "classify" / f"{name}.yaml").exists():
            fields |= yaml.safe_load(file.read_text(encoding="utf-8"))
    fields |= {"data": str(TEXTS / job.data), "vectors": str(data / "glove_6b_50d" / "glove_6b_50d.npz")}
    fields |= {"seed": job.seed} | changes
    return classify.Config(**fields)


def unpack(name: str, archives: Path, folder: Path) -> None:
    """Writes the texts of an archive, which are in Latin-1, as the recipe reads them: tables, or a list a label."""
    archive, parts = (TABLES | LISTS)[name]
    with zipfile.ZipFile(archives / archive) as files:
        members = {Path(member).name: member for member in files.namelist()}
        found = {part: files.read(members[Path(file).name]).decode("latin-1") for part, file in parts.items()}
    folder.mkdir(parents=True)
    for part, text in found.items():
        if name in LISTS:
            (folder / f"{part}.txt").write_text(text, encoding="utf-8")
        else:
            rows = (line.split(" ", 1) for line in text.splitlines())
            table = "".join(f"{label.partition(':')[0]}\t{question}\n" for label, question in rows)
            (folder / f"{part}.tsv").write_text(f"label\ttext\n{table}", encoding="utf-8")


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """The test sentences that are labelled rightly, and the words that were read of them."""
    opened = open_run(run)
    found = averages(opened, opened.splits.test)
    metrics = {
        "accuracy_percent": 100 - 100 * found["error"],
        "valid_accuracy_percent": 100 - 100 * best["valid_error"],
    }
    return {job.model: metrics | ({"words_read": found["words_read"]} if "words_read" in found else {})}


TABLE = Trained("classify", HERE / "results" / "classify.json", classify, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    table = Table("texts", "model", "seeds", "right, %", "in validation, %", "words read", "seconds", title="classify")
    for row in rows:
        metrics = row["metrics"]
        shown = (metrics.get(name, []) for name in ("accuracy_percent", "valid_accuracy_percent", "words_read"))
        cells = [mean_and_spread(values, 1) for values in (*shown, row["seconds"])]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells)
    Console().print(table)


def main() -> None:
    """The command line."""
    about = "holds text_classification and glove_6b_50d"
    options = table_parser(TABLE, "Sentences classified by attention.", about).parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "classify", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
