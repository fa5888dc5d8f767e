"""BLEU is that of sacrebleu."""

import random

import pytest
from sacrebleu.metrics.bleu import BLEU

from regard.app.text.bleu import bleu, counts


def summed(hypotheses: list[list[str]], references: list[list[list[str]]]) -> dict[str, int]:
    each = [counts(*both) for both in zip(hypotheses, references, strict=True)]
    return {name: sum(one[name] for one in each) for name in each[0]}


def noisy(words: list[str], chance: random.Random, share: float) -> list[str]:
    """Some words replaced, some left out, some twice."""
    return (
        [chance.choice(("x", word, word)) for word in words for _ in range(chance.choice((0, 1, 1, 2)))][
            : chance.randint(1, 30)
        ]
        if chance.random() < share
        else words
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("sentences", [1, 3, 100])
def test_it_is_that_of_sacrebleu(share: float, sentences: int):
    chance = random.Random(sentences)
    references = [[chance.choice("abcdefg") for _ in range(chance.randint(1, 20))] for _ in range(sentences)]
    hypotheses = [noisy(words, chance, share) for words in references]
    theirs = BLEU(tokenize="none", force=True).corpus_score(
        [" ".join(words) for words in hypotheses], [[" ".join(words) for words in references]]
    )
    assert bleu(summed(hypotheses, [[words] for words in references])) == pytest.approx(theirs.score, abs=1e-9)


@pytest.mark.parametrize("hypothesis", [[], ["x"], ["a"], ["a", "b"], ["a", "x", "c", "y"], ["x"] * 5])
def test_hardly_any_matches(hypothesis: list[str]):
    reference = ["a", "b", "c", "d", "e"]
    theirs = BLEU(tokenize="none", force=True).corpus_score([" ".join(hypothesis)], [[" ".join(reference)]])
    assert bleu(counts(hypothesis, [reference])) == pytest.approx(theirs.score, abs=1e-9)


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("sentences", [1, 100])
def test_of_several_references_it_is_that_of_sacrebleu(share: float, sentences: int):
    chance = random.Random(sentences)
    references = [
        [[chance.choice("abc") for _ in range(chance.randint(1, 20))] for _ in range(3)] for _ in range(sentences)
    ]
    hypotheses = [noisy(chance.choice(each), chance, share) for each in references]
    streams = [[" ".join(each[n]) for each in references] for n in range(3)]
    theirs = BLEU(tokenize="none", force=True).corpus_score([" ".join(words) for words in hypotheses], streams)
    assert bleu(summed(hypotheses, references)) == pytest.approx(theirs.score, abs=1e-9)
    assert bleu(summed(hypotheses, [each[:1] for each in references])) < theirs.score


def test_the_length_that_counts_is_the_nearest_and_of_two_the_shorter():
    references = [list("abcdef"), list("ab"), list("abcdefghi")]
    assert [counts(list("x" * n), references)["reference_words"] for n in (1, 3, 4, 5, 7, 8)] == [2, 2, 2, 6, 6, 9]


def test_an_n_gram_matches_as_often_as_in_the_reference_that_has_it_most_often():
    assert counts(list("aaaa"), [list("aab"), list("abab")])["matches_1"] == 2, "and not as often as in both together"
