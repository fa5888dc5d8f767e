"""BLEU: how many sequences of one to four words of what is written are in a reference, over a whole set of sentences.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation". What is counted adds up over
sentences, so that a part of a set may be counted at a time; the figure is that of sacrebleu for the same words.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

ORDER = 4


def counts(words: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, int]:
    """Of one sentence: its words, those of the reference, and for n from 1 to 4 the n-grams and how many match.

    An n-gram matches at most as often as it is in the reference that has it most often (section 2.1.1). Of several
    references the words of that count whose length is the nearest, of two as near the shorter (section 2.2.2).

    >>> found = counts("a a dog".split(), ["a dog".split(), "this is a nice dog".split()])
    >>> found["matches_1"], found["reference_words"]
    (2, 2)
    """
    nearest = min(map(len, references), key=lambda length: (abs(length - len(words)), length))
    found = {"words": len(words), "reference_words": nearest}
    for n in range(1, ORDER + 1):
        ours = _ngrams(words, n)
        theirs = reduce(or_, (_ngrams(each, n) for each in references))
        found |= {f"matches_{n}": (ours & theirs).total(), f"ngrams_{n}": ours.total()}
    return found


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[k:] for k in range(n)), strict=False))


def bleu(sums: Mapping[str, float | int]) -> float:
    """BLEU from 0 to 100 of the sums of `counts`, 100 min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4) (section 2.3).

    Where no n-gram of an order matches, half of one does, then a quarter, and so on (Chen and Cherry 2014, "A
    Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", technique 3), as in sacrebleu.

    >>> bleu(counts("there is a dog".split(), ["there is a dog here".split()]))
    77.88
    """
    logs, missed = 0.0, 0
    for n in range(1, ORDER + 1):
        matches, ngrams = sums[f"matches_{n}"], sums[f"ngrams_{n}"]
        if not ngrams or not sums["matches_1"]:
            return 0.0
        missed += not matches
        logs += math.log((matches or 0.5**missed) / ngrams) / ORDER
    brevity = min(0.0, 1 - sums["reference_words"] / sums["words"])
    return 100 * math.exp(logs + brevity)
