"""Sentences that a small grammar makes up, with their trees: enough to see a parser learn, without any file.

What a phrase with "with" belongs to depends on its noun, as in "saw the fox with a telescope" and "with a tail", and a
clause may follow at the end of the sentence the noun that it tells more about: its arc then crosses others.
"""

import random
from typing import NamedTuple

from regard.app.data.trees import Sentence

NOUNS = ["fox", "dog", "child", "woman", "man", "girl", "sailor", "king", "cook", "judge", "bird", "guest"]
TOOLS = ["telescope", "hammer", "lamp", "camera", "ladder", "spoon"]
TRAITS = ["tail", "hat", "beard", "smile", "scar", "coat"]
ADJECTIVES = ["old", "small", "quick", "brown", "quiet", "happy", "strange", "tired"]
STAY = ["slept", "arrived", "smiled", "waited", "left", "danced"]
ACT = ["saw", "met", "followed", "helped", "heard", "painted", "found", "asked"]
ADVERBS = ["yesterday", "quietly", "often", "today", "soon", "slowly"]
DETERMINERS = ["the", "a", "every", "this"]


class Part(NamedTuple):
    """A word of a phrase: its head is a word of the phrase, or None if it is the head of all."""

    form: str
    tag: str
    head: int | None
    relation: str


Phrase = list[Part]


def grammar(count: int, seed: int) -> list[Sentence]:
    """So many sentences, the same for the same seed.

    >>> grammar(1, seed=3)[0].words
    ('a', 'girl', 'saw', 'a', 'quiet', 'woman', 'with', 'this', 'tired', 'coat', '.')
    """
    chance = random.Random(seed)
    return [_sentence(chance) for _ in range(count)]


def _sentence(chance: random.Random) -> Sentence:
    subject = _noun_phrase(chance, NOUNS)
    late = chance.random() < 0.2 and len(subject) == 2
    tail = [_word(chance, ADVERBS, "ADV")] if late or chance.random() < 0.3 else []
    verb = _verb_phrase(chance)
    clause = _join([subject, verb, *tail], 1, ["nsubj", "", "advmod"])
    if late:
        clause = _attach(clause, _relative(chance), head=_head(subject))
    clause = _join([clause, [Part(".", "PUNCT", None, "")]], 0, ["", "punct"])
    words, tags, heads, relations = zip(*clause, strict=True)
    heads = tuple(0 if head is None else head + 1 for head in heads)
    return Sentence(words, tags, heads, tuple(relation or "root" for relation in relations))


def _noun_phrase(chance: random.Random, nouns: list[str]) -> Phrase:
    adjectives = [_word(chance, ADJECTIVES, "ADJ") for _ in range(chance.choice((0, 0, 0, 1, 2)))]
    parts = [_word(chance, DETERMINERS, "DET"), *adjectives, _word(chance, nouns, "NOUN")]
    return _join(parts, len(parts) - 1, ["det", *["amod"] * len(adjectives), ""])


def _verb_phrase(chance: random.Random) -> Phrase:
    """A verb, perhaps with an object, perhaps with a phrase that belongs to the verb or to the object."""
    if chance.random() < 0.3:
        return _word(chance, STAY, "VERB")
    verb, thing, kind = _word(chance, ACT, "VERB"), _noun_phrase(chance, NOUNS), chance.choice("-tr")
    if kind == "-":
        return _join([verb, thing], 0, ["", "obj"])
    phrase = _join(
        [[Part("with", "ADP", None, "")], _noun_phrase(chance, TOOLS if kind == "t" else TRAITS)], 1, ["case", ""]
    )
    if kind == "t":
        return _join([verb, thing, phrase], 0, ["", "obj", "obl"])
    return _join([verb, _join([thing, phrase], 0, ["", "nmod"])], 0, ["", "obj"])


def _relative(chance: random.Random) -> Phrase:
    """Who did what: a clause that tells more about a noun before it."""
    return _join([[Part("who", "PRON", None, "")], _verb_phrase(chance)], 1, ["nsubj", "acl"])


def _word(chance: random.Random, forms: list[str], tag: str) -> Phrase:
    return [Part(chance.choice(forms), tag, None, "")]


def _head(phrase: Phrase) -> int:
    return next(n for n, part in enumerate(phrase) if part.head is None)


def _join(phrases: list[Phrase], head: int, relations: list[str]) -> Phrase:
    """The phrases in a row, the heads of all others below the head of the one with the number `head`."""
    joined: Phrase = []
    starts = [sum(map(len, phrases[:n])) for n in range(len(phrases))]
    above = starts[head] + _head(phrases[head])
    for n, (start, phrase) in enumerate(zip(starts, phrases, strict=True)):
        for part in phrase:
            if part.head is not None:
                joined.append(part._replace(head=part.head + start))
            else:
                joined.append(part._replace(head=None if n == head else above, relation=relations[n]))
    return joined


def _attach(clause: Phrase, phrase: Phrase, head: int) -> Phrase:
    """The clause and after it the phrase, below the word with the number `head`."""
    moved = [part._replace(head=head if part.head is None else part.head + len(clause)) for part in phrase]
    return [*clause, *moved]
