"""How good a translator is: BLEU, by the length of the sentences too, and its alignments beside those made by hand."""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import alignments
import torch

from regard.app.text.vocabulary import END
from regard.recipes import translate

LENGTHS = (0, 8, 10, 12, 14, 17, 1000)
"""Words of a source sentence: where a bucket ends and the next begins."""
ESCAPED = {"'": "&apos;", '"': "&quot;", "[": "&#91;", "]": "&#93;", "|": "&#124;"}
"""How the files `tok` write what XML needs, beside &, < and >."""


def bleu(written: Sequence[str], wanted: Sequence[str], tokenised: bool) -> dict[str, Any]:
    """BLEU of translations by sacrebleu, which cuts them into words unless that is done, and its signature.

    >>> bleu(["there is a dog here ."], ["there is a dog here ."], tokenised=True)
    {'bleu': 100.0, 'signature': 'nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:...'}
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(tokenize="none" if tokenised else "13a", force=True)
    score = scorer.corpus_score(written, [wanted]).score
    return {"bleu": score, "signature": str(scorer.get_signature())}


def by_length(split: Any, written: Sequence[str]) -> dict[str, float]:
    """BLEU of the sentences whose source has some number of words, for each bucket, by its name."""
    found = {}
    for low, high in pairwise(LENGTHS):
        rows = [n for n, source in enumerate(split.sources) if low < len(source.split()) <= high]
        if rows:
            texts = ([texts[n] for n in rows] for texts in (written, split.targets))
            found[bucket(low, high)] = bleu(*texts, tokenised=split.tokenised)["bleu"]
    return found


def bucket(low: int, high: int) -> str:
    """The name of a bucket.

    >>> bucket(0, 8), bucket(8, 10), bucket(17, 1000)
    ('1-8', '9-10', '18-')
    """
    return f"{low + 1}-{'' if high == LENGTHS[-1] else high}"


def breadth(model: translate.Model, split: Any) -> float:
    """To how many source words a word of the translations of a split spreads its look, exp of the entropy of its
    weights, subwords merged: the mean over the words of a sentence, and over these."""
    found = []
    for numbers in torch.arange(len(split)).split(64):
        batch = split.batch(numbers)
        found += [each.breadth for each in translate.alignments(model, batch["source"], batch["target"])]
    return statistics.fmean(found)


def hansards(data: Path) -> dict[str, list[alignments.Pair]]:
    """By what their error rate is called, all pairs of the Hansards, and those whose words are all in Multi30k."""
    pairs = alignments.read_pairs(data / "word_alignments", "en-fr.hansards")
    return {"alignment_error_rate": pairs, "alignment_error_rate_known": alignments.known(pairs, *multi30k(data))}


def multi30k(data: Path) -> list[list[list[str]]]:
    """The words of the training sentences in English, and of those in French."""
    return [alignments.read_multi30k(data / "multi30k", language) for language in ("en", "fr")]


def error_rate(model: translate.Model, pairs: Sequence[alignments.Pair]) -> float:
    """The alignment error rate of where a model looks, in per cent; all of it where it looks at no word."""
    found = [links(model, pair) for pair in pairs]
    return 100 * alignments.score(found, pairs).error_rate if any(found) else 100.0


def links(model: translate.Model, pair: alignments.Pair) -> alignments.Links:
    """A link from each target word to the source word at which it looks most, none if that is the end."""
    texts = [" ".join(escape(word, ESCAPED) for word in words) for words in (pair.source, pair.target)]
    source, target = (torch.tensor([[*numbers, END]]) for numbers in model.vocabulary.encode(texts))
    (aligned,) = translate.alignments(model, source, target)
    return alignments.argmax(aligned.weights[:-1, :-1])


def aligners(data: Path) -> list[dict[str, Any]]:
    """What attention is to be compared with on the Hansards."""
    corpus, found = list(zip(*multi30k(data), strict=True)), {}
    for name, pairs in hansards(data).items():
        for row in alignments.measure("Hansards", pairs, corpus):
            found.setdefault(row.aligner, {"aligner": row.aligner})[name] = round(100 * row.error_rate, 2)
    return list(found.values())
