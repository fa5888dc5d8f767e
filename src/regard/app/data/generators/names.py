"""Sentences with the names of people, places and firms, as labels of spans: enough to see a tagger learn, without any
file. The same word may be a person's name or a place's, and what stands around it says which."""

import random

FIRST = ["Ida", "Paris", "Omar", "Lena", "Florence", "Jack", "Sydney", "Ruth", "Austin", "Mira"]
LAST = ["Holm", "London", "Berg", "Santos", "Lincoln", "Vega", "York", "Ames"]
PLACES = ["Paris", "Florence", "London", "Lincoln", "Sydney", "Austin", "Oslo", "Lima", "New York", "Port Santos"]
FIRMS = ["Holm", "Vega", "York", "Berg", "Delta", "Union", "Norden"]
ENDS = ["Bank", "Motors", "and Sons", "Foods"]
TEMPLATES = [
    "{PER} was born in {LOC} .",
    "{PER} and {PER} work for {ORG} .",
    "the train from {LOC} to {LOC} was late .",
    "{ORG} opened an office in {LOC} in {year} .",
    "in {LOC} , {PER} sold {number} shares of {ORG} .",
    "{PER} said that {ORG} would leave {LOC} .",
    "it rained in {LOC} for {number} days .",
    "nobody at {ORG} knew {PER} .",
    "the meeting was moved to {year} .",
]


def names(count: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """So many sentences, as words and as labels, the same for the same seed.

    >>> names(2, seed=4)[0]
    (['York', 'opened', 'an', 'office', 'in', 'Lima', 'in', '1939', '.'],
     ['B-ORG', 'O', 'O', 'O', 'O', 'B-LOC', 'O', 'O', 'O'])
    """
    chance = random.Random(seed)
    return [_sentence(chance) for _ in range(count)]


def _sentence(chance: random.Random) -> tuple[list[str], list[str]]:
    words, labels = [], []
    for piece in chance.choice(TEMPLATES).split():
        kind = piece.strip("{}")
        found = _said(kind, chance) if piece.startswith("{") else [piece]
        of_name = piece.startswith("{") and kind.isupper()
        words += found
        labels += [f"B-{kind}"] + [f"I-{kind}"] * (len(found) - 1) if of_name else ["O"] * len(found)
    return words, labels


def _said(kind: str, chance: random.Random) -> list[str]:
    """A name of a kind, or a number."""
    if kind == "PER":
        return [chance.choice(FIRST)] + [chance.choice(LAST)] * (chance.random() < 0.7)
    if kind == "LOC":
        return chance.choice(PLACES).split()
    if kind == "ORG":
        return [chance.choice(FIRMS)] + chance.choice(ENDS).split() * (chance.random() < 0.7)
    return [str(chance.randint(1900, 2030) if kind == "year" else chance.randint(2, 99))]
