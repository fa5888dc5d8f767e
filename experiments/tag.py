"""Chunks and names by a tagger that ends in a chain, and by the same one that labels every word by itself.

CoNLL 2000 (Tjong Kim Sang and Buchholz 2000; 8,936 sentences of the Wall Street Journal and 2,012 to test, cut into
chunks, their parts of speech given by a tagger) and CoNLL 2002 (Tjong Kim Sang 2002; 8,323 sentences of Spanish news,
1,915 for development and 1,517 to test, with the names of people, places, organisations and others; words are read
alone).

    regard experiment tag --data DIR                               every row
    regard experiment tag --data DIR --of names --model chain      one row of the table, with all its seeds
    regard experiment tag                                          the table, as far as it is finished

DIR holds the folders conll2000_chunks and conll2002_names, with the archives of NLTK. The configuration of a data set
is `tag/DATA.yaml` beside this script, the same for both models. Runs are kept in `runs/tag` and are resumed; several of
these commands may run at once, each takes runs that no other has. What is finished is in `results/tag.json`, and is not
trained again: take its row out first.

F1 is of whole spans with their kinds, as conlleval counts. The chunks have no development part: a tenth of the training
sentences is held out, the same for all seeds, and not learned from. By the development sentences the epoch was chosen,
and everything else; the test part is seen once, by the finished run. No vectors from elsewhere.
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
from regard.app.training.evaluation import evaluate
from regard.app.training.metrics import Row
from regard.recipes import tag

HERE = Path(__file__).parent
COLUMNS = Path("runs", "tag", "columns")
"""Where the columns lie as the recipe reads them."""
DATAS = {
    "chunks": ("conll2000_chunks/conll2000.zip", {"train": "train.txt", "test": "test.txt"}),
    "names": ("conll2002_names/conll2002_esp.zip", {"train": "esp.train", "dev": "esp.testa", "test": "esp.testb"}),
}
MODELS = ("chain", "softmax")
SHARES = ("f1", "precision", "recall", "accuracy")
SEEDS = 3


def jobs() -> Iterator[Job]:
    """All that is to be done, a seed of everything before the next."""
    yield from (Job(data, model, seed) for seed in range(SEEDS) for data in DATAS for model in MODELS)


def configuration(job: Job, data: Path) -> tag.Config:
    """The configuration of a data set, as committed; its columns are unpacked where they are not yet."""
    if not (COLUMNS / job.data).is_dir():
        unpack(job.data, data, COLUMNS / job.data)
    fields = yaml.safe_load((HERE / "tag" / f"{job.data}.yaml").read_text(encoding="utf-8"))
    return tag.Config(**fields, data=str(COLUMNS / job.data), over=job.model, seed=job.seed)  # pyright: ignore[reportArgumentType]


def unpack(name: str, archives: Path, folder: Path) -> None:
    """Writes the parts of an archive as files of columns."""
    archive, parts = DATAS[name]
    with zipfile.ZipFile(archives / archive) as files:
        members = {Path(member).name: member for member in files.namelist()}
        found = {part: files.read(members[file]) for part, file in parts.items()}
    folder.mkdir(parents=True)
    for part, text in found.items():
        (folder / f"{part}.txt").write_bytes(text)


def test(job: Job, run: Path, best: Row) -> dict[str, Metrics]:
    """F1 of the test spans and what it is made of, and F1 of the development part."""
    tested = evaluate(run)
    shares = {name: 100 * tested[f"test_{name}"] for name in SHARES}
    return {job.model: shares | {"valid_f1": 100 * best["valid_f1"]}}


TABLE = Trained("tag", HERE / "results" / "tag.json", tag, tuple(jobs()), configuration, test)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    table = Table("data", "model", "seeds", *SHARES, "F1 in development", "seconds", title="tag")
    for row in rows:
        cells = [mean_and_spread(row["metrics"].get(name, [])) for name in (*SHARES, "valid_f1")]
        table.add_row(row["data"], row["model"], str(len(row["seeds"])), *cells, mean_and_spread(row["seconds"], 0))
    Console().print(table)


def main() -> None:
    """The command line."""
    about = "holds conll2000_chunks and conll2002_names"
    options = table_parser(TABLE, "Spans of words by a chain and by softmax.", about).parse_args()
    torch.set_num_threads(1)
    rows = TABLE.run(options)
    give({"name": "tag", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
