"""BLEU: how many of a translation's sequences of one to four words are in a reference, over a whole set of sentences.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation". What is counted adds up over
sentences, so that a part of a set may be counted at a time; the figure is that of sacrebleu for the same words.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

ORDER = 4


def counts(words: Sequence[str], reference: Sequence[str]) -> dict[str, int]:
    """Of one sentence: its words, those of the reference, and for n from 1 to 4 the n-grams and how many match.

    An n-gram matches as often as it is in the reference at most (section 2.1.1).

    >>> counts("a a dog".split(), "a dog".split())["matches_1"]
    2
    """
    found = {"words": len(words), "reference_words": len(reference)}
    for n in range(1, ORDER + 1):
        ours, theirs = (Counter(zip(*(each[k:] for k in range(n)), strict=False)) for each in (words, reference))
        found |= {f"matches_{n}": (ours & theirs).total(), f"ngrams_{n}": ours.total()}
    return found


def bleu(sums: Mapping[str, float | int]) -> float:
    """BLEU from 0 to 100 of the sums of `counts`, 100 min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4) (section 2.3).

    Where no n-gram of an order matches, half of one does, then a quarter, and so on (Chen and Cherry 2014, "A
    Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", technique 3), as in sacrebleu.

    >>> bleu(counts("there is a dog".split(), "there is a dog here".split()))
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
