"""Sentences that a small grammar of phrases makes up, with their trees: enough to see a parser learn, without any file.

What a phrase with "with" belongs to depends on its noun, as in "saw the fox with a telescope" and "with a tail".
"""

import random

from regard.app.data.generators.grammar import ACT, ADJECTIVES, ADVERBS, DETERMINERS, NOUNS, STAY, TOOLS, TRAITS
from regard.app.text.brackets import Bracketing, read_brackets


def phrases(count: int, seed: int) -> list[Bracketing]:
    """So many sentences, the same for the same seed.

    >>> " ".join(phrases(1, seed=3)[0].words)
    'a girl asked a brown guest .'
    """
    chance = random.Random(seed)
    return list(read_brackets(_sentence(chance) for _ in range(count)))


def _sentence(chance: random.Random) -> str:
    return f"(S {_clause(chance)} (. .))"


def _clause(chance: random.Random) -> str:
    return f"{_noun_phrase(chance, NOUNS)} {_verb_phrase(chance)}"


def _noun_phrase(chance: random.Random, nouns: list[str], depth: int = 0) -> str:
    adjectives = "".join(f"(JJ {chance.choice(ADJECTIVES)}) " for _ in range(chance.choice((0, 0, 1, 2))))
    simple = f"(NP (DT {chance.choice(DETERMINERS)}) {adjectives}(NN {chance.choice(nouns)}))"
    kind = chance.random() if depth == 0 and nouns is NOUNS else 1
    if kind < 0.15:
        return f"(NP {simple} {_with(chance, TRAITS)})"
    if kind < 0.25:
        return f"(NP {simple} (SBAR (WHNP (WDT that)) (S {_verb_phrase(chance, depth + 1)})))"
    if kind < 0.35:
        return f"(NP {simple} (CC and) {_noun_phrase(chance, nouns, depth + 1)})"
    return simple


def _with(chance: random.Random, nouns: list[str]) -> str:
    return f"(PP (IN with) {_noun_phrase(chance, nouns, 1)})"


def _verb_phrase(chance: random.Random, depth: int = 0) -> str:
    adverb = f" (ADVP (RB {chance.choice(ADVERBS)}))" if chance.random() < 0.3 else ""
    if chance.random() < 0.3:
        return f"(VP (VBD {chance.choice(STAY)}){adverb})"
    tool = f" {_with(chance, TOOLS)}" if chance.random() < 0.3 else ""
    return f"(VP (VBD {chance.choice(ACT)}) {_noun_phrase(chance, NOUNS, depth)}{tool}{adverb})"
