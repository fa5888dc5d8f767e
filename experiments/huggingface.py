"""A small BERT whose every layer looks by a distribution of regard, trained from scratch to say what a question asks.

TREC (Li and Roth 2002, "Learning Question Classifiers"): 5,452 questions of six kinds, and 500 to test.

    regard experiment huggingface --data DIR                    every row: a quarter of an hour on one core
    regard experiment huggingface --data DIR --model entmax     one row of the table, with all its seeds
    regard experiment huggingface                               the table, as far as it is finished

DIR holds the folder text_classification, with the archives of NLTK. What is finished is in `results/huggingface.json`,
and is not trained again: take its row out first.

The models differ by a word alone, the name under which `regard.huggingface.register` made their attention known to
transformers; `eager` is transformers' own. `hard` is trained softly in the first half, then by draws, which are
compared with each other (`leave_one_out`); in use each head of each layer reads the one likeliest word.
`words_looked_at` are those of a question that have any weight, for each query and head on average: of `hard`, those
that are read. Sizes, rate and epochs are for speed, and were not tuned; batch and rate were changed once, for speed,
after two runs with others had shown what they make of the test questions.
"""

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

import regard as rg
from regard.app import results
from regard.app.experiments import kept, parser
from regard.app.training.schedules import adam

FILE = Path(__file__).parent / "results" / "huggingface.json"
OVERS: dict[str, dict[str, Any]] = {
    "entmax": {"over": rg.entmax(1.5)},
    "hard": {"read": rg.hard},
    "sparsemax": {"over": rg.sparsemax},
    "softmax": {},
}
MODELS = ("eager", *OVERS)
SEEDS, EPOCHS, BATCH, DRAWS, RATE = 2, 6, 64, 4, 2e-3


class Questions(NamedTuple):
    """Questions as a model reads them."""

    words: Tensor
    """Numbers of words (N, K), 0 behind them."""
    labels: Tensor
    """What is asked for, (N,)."""

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Some of them, as wide as the longest; 1 in the mask where there is a word."""
        mask = (self.words[rows] > 0).long()
        width = int(mask.sum(-1).max())
        return {"input_ids": self.words[rows, :width], "attention_mask": mask[:, :width], "labels": self.labels[rows]}


def questions(data: Path) -> tuple[Questions, Questions, Any]:
    """Those to train on, those to test, and a tokenizer of the words that two questions of the first have."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    with zipfile.ZipFile(data / "text_classification" / "qc.zip") as files:
        texts = [files.read(f"qc/{part}.txt").decode("latin-1").splitlines() for part in ("train", "test")]
    rows = [[line.split(" ", 1) for line in lines] for lines in texts]
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(min_frequency=2, special_tokens=["[PAD]", "[UNK]", "[CLS]"])
    tokenizer.train_from_iterator((text for _, text in rows[0]), trainer)
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.enable_padding()
    kinds = sorted({label.partition(":")[0] for label, _ in rows[0]})
    train, test = (
        Questions(
            torch.tensor([each.ids for each in tokenizer.encode_batch([text for _, text in part])]),
            torch.tensor([kinds.index(label.partition(":")[0]) for label, _ in part]),
        )
        for part in rows
    )
    return train, test, tokenizer


def small_bert(words: int, kinds: int, attention: str) -> Any:
    """Two layers of four heads, with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.0}
    given: dict[str, Any] = {"num_labels": kinds, "attn_implementation": attention}
    return BertForSequenceClassification(BertConfig(vocab_size=words, **sizes, **rates, **given))


def drawn(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a model that draws where it looks, several times for each question."""
    words, mask, labels = (batch[name].repeat(DRAWS, 1) for name in ("input_ids", "attention_mask", "labels"))
    with rg.huggingface.looked(model) as seen:
        logits = model(words, attention_mask=mask).logits
    cost = cross_entropy(logits, labels.flatten(), reduction="none").view(DRAWS, -1)
    chosen = (seen.log_prob * mask).sum(-1).view(DRAWS, -1)  # of what the words looked at, not their padding
    return (cost + rg.leave_one_out(chosen, cost)).mean()


def trained(train: Questions, words: int, attention: str, seed: int, epochs: int) -> Any:
    """A model of one seed."""
    torch.manual_seed(seed)
    draws = attention == "hard"
    model = small_bert(words, int(train.labels.max()) + 1, "softmax" if draws else attention)
    steps = epochs * -(-len(train.labels) // BATCH)
    optimiser, schedule = adam(model.parameters(), RATE, steps)
    for epoch in range(epochs):
        if draws and 2 * epoch >= epochs:
            model.set_attn_implementation("hard")
        for rows in torch.randperm(len(train.labels)).split(BATCH):
            batch = train.batch(rows)
            loss = drawn(model, batch) if model.config._attn_implementation == "hard" else model(**batch).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def judged(model: Any, test: Questions) -> dict[str, float]:
    """The questions whose kind it names, and how many words a head looked at for a query."""
    right, looked_at, asked = 0, 0.0, 0
    for rows in torch.arange(len(test.labels)).split(BATCH):
        batch = test.batch(rows)
        with rg.huggingface.looked(model) as seen:
            logits = model(**batch).logits
        right += int((logits.argmax(-1) == batch["labels"]).sum())
        queries = batch["attention_mask"][:, None].bool()
        for (out,) in seen.values():
            events = out.weights if out.z is None else out.positions.indicator(out.z)
            counts = (events > 0).sum(-1)  # (B, H, Q)
            looked_at += float((counts * queries).sum())
            asked += int(queries.expand_as(counts).sum())
    found = {"accuracy_percent": 100 * right / len(test.labels)}
    return found | ({"words_looked_at": looked_at / asked} if asked else {})


def rows_of(options: Any) -> Iterator[list[dict[str, Any]]]:
    """All rows, again after each seed that has been trained."""
    rows = {row["model"]: row for row in kept(FILE)}
    train, test, tokenizer = questions(options.data)
    for name, how in OVERS.items():
        rg.huggingface.register(name, **how)
    for model, seed in ((model, seed) for model in MODELS for seed in range(SEEDS)):
        row = rows.setdefault(model, {"data": "trec", "model": model, "seeds": [], "metrics": {}, "seconds": []})
        if seed in row["seeds"] or options.model not in (None, model):
            continue
        start = time.process_time()
        made = trained(train, tokenizer.get_vocab_size(), model, seed, EPOCHS)
        row["seconds"].append(round(time.process_time() - start, 1))
        row["seeds"].append(seed)
        for name, value in judged(made, test).items():
            row["metrics"].setdefault(name, []).append(round(value, 4))
        row["command"] = f"regard experiment huggingface --data DIR --model {model}"
        print(f"{model}-seed{seed}: {row['metrics']} in {row['seconds'][-1]:.0f} s", flush=True)
        yield [rows[each] for each in MODELS if rows.get(each, {}).get("seeds")]


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table: means and standard deviations over the seeds."""
    table = Table("attention", "right, %", "words looked at", "seconds", title="huggingface")
    for row in rows:
        shown = (row["metrics"].get(name, []) for name in ("accuracy_percent", "words_looked_at"))
        table.add_row(row["model"], *(results.mean_and_spread(each, 1) for each in (*shown, row["seconds"])))
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = parser("huggingface", "A Transformer of Hugging Face that looks otherwise.", "holds text_classification")
    flags.add_argument("--model", choices=MODELS, help="one model alone")
    options = flags.parse_args()
    torch.set_num_threads(1)
    for rows in rows_of(options) if options.data else ():
        results.save_json({"name": "huggingface", "machine": results.machine(), "rows": rows}, FILE)
    rows = kept(FILE)
    results.give({"name": "huggingface", "rows": rows}, options, lambda: show(rows))


if __name__ == "__main__":
    main()
