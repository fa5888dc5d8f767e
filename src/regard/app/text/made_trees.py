"""What is said of the trees that a model made of sentences: beside the true ones, as a picture, and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regard.app.data.brackets import LONGEST, Known
from regard.app.report.matrix import Matrix
from regard.app.report.report import Picture
from regard.app.report.text_figures import png
from regard.app.report.tree_figures import nested
from regard.app.text.brackets import Bracketing, Spans, counted, escaped, scores, without_marks, written
from regard.app.text.reading import clean


def compared(trees: Sequence[Spans | None], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each sentence, (B,): how many brackets are right, found, and true, the same without punctuation, and whether
    the tree is not the true one (`error`), or malformed, which counts as no brackets."""
    rows = []
    for found, gold, marks in zip(trees, batch["spans"].tolist(), batch["marks"].tolist(), strict=True):
        true, made = [tuple(span) for span in gold if span[0] >= 0], found or []
        both = (without_marks(each, marks) for each in (made, true))
        evalb = {f"{name}_evalb": count for name, count in counted(*both).items()}
        wrong = sorted(made) != sorted(true)
        rows.append(counted(made, true) | evalb | {"error": wrong, "malformed": found is None})
    return {name: torch.tensor([float(row[name]) for row in rows]) for name in rows[0]}


def conclude(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """F1, precision and recall of all brackets together, F1 without punctuation, and the shares of what else there is:
    the hook of `regard.recipes.base`."""
    total = {name: each[0] for name, each in sums.items()}
    evalb = scores({name: total[f"{name}_evalb"] for name in ("right", "found", "gold")})
    shares = {name: sums[name][0] / sums[name][1] for name in ("error", "malformed", "tags") if sums[name][1]}
    return scores(total) | {"f1_evalb": evalb["f1"]} | shares


def badness(values: Mapping[str, Tensor]) -> list[float]:
    """How bad each tree is: the share of the brackets that are wrong or missing; the hook of `regard.recipes.base`."""
    found, gold, right = (values[name] for name in ("found", "gold", "right"))
    return (1 - 2 * right / (found + gold).clamp(min=1)).tolist()


def pictured(tree: Spans | None, batch: Mapping[str, Tensor], n: int, known: Known, looked: Matrix | None) -> Picture:
    """The tree of one sentence of a batch, beside the true one if that is known, and where its writer looked."""
    words, labels = spelled(batch["text"][n]), [*known.labels, "another label"]
    gold = [span for span in batch["spans"][n].tolist() if span[0] >= 0]
    found, true = ([(first, last, labels[label]) for first, last, label in each] for each in (tree or [], gold))
    count = counted(found, true)
    verdict = f"{count['right']} of {count['found']} brackets are right, of {count['gold']} in the data."
    verdict = verdict if true else f"{count['found']} brackets."
    figure = nested(words, found, true if true else None)
    return Picture(" ".join(words), verdict if tree is not None else "The brackets are malformed.", png(figure), looked)


def spelled(text: Tensor) -> list[str]:
    """The words of a sentence of a batch."""
    return bytes(text[text > 0].tolist()).decode().split(" ")


def spoken(steps: Tensor, known: Known) -> list[str]:
    """What steps (T,) write, in words."""
    names = ("", "", "end", "word", ")", *(f"({label}" for label in known.labels), "(another label")
    return [names[step] for step in steps[steps > 0].tolist()]


def prepare(model: Any, given: str) -> Bracketing:
    """The words of a line, which spaces part: the hook of `regard.recipes.base`. Raises ValueError where there are
    none, or too many."""
    words = tuple(map(escaped, clean(given).split())) if isinstance(given, str) else ()
    if not 0 < len(words) <= LONGEST:
        raise ValueError(f"expected a text of 1 to {LONGEST} words, with spaces between them, but got {len(words)}")
    return Bracketing(words, ("",) * len(words), ())


def lines_of(sentences: Sequence[Bracketing], trees: Sequence[Spans | None], tags: Tensor, known: Known) -> list[str]:
    """The trees as text, one on a line; a malformed one has no brackets but those of its words."""
    return [
        written(
            given.words,
            [str(known.tags[tag]) for tag in each[: len(given.words)]],
            [(first, last, known.labels[label]) for first, last, label in spans or []],
        )
        for given, spans, each in zip(sentences, trees, tags.tolist(), strict=True)
    ]
