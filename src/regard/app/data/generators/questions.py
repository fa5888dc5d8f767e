"""Questions that a small grammar makes up, and what they ask for: enough to see a classifier learn, without any file.

What is asked stands in a word or two of the main clause; a clause before it often has the words of another kind.
"""

import random

PEOPLE = ["sailor", "king", "cook", "judge", "painter", "doctor", "singer", "baker", "farmer", "teacher"]
PLACES = ["city", "village", "harbour", "country", "castle", "valley", "street", "island"]
TIMES = ["year", "month", "century", "evening", "winter", "decade"]
THINGS = ["bridge", "boat", "song", "lamp", "book", "bread", "garden", "map", "clock", "letter"]
PAST = ["painted", "built", "found", "sold", "lost", "liked", "described", "bought"]
PLAIN = ["paint", "build", "find", "sell", "lose", "like", "describe", "buy"]
ADJECTIVES = ["old", "small", "famous", "quiet", "red", "strange", "tall", "happy"]

ASKED = {
    "person": ["who {past} {thing}", "what {person} {past} {thing}", "which {person} was it that {past} {thing}"],
    "place": ["where did {someone} {plain} {thing}", "in what {place} did {someone} {plain} {thing}"],
    "time": ["when did {someone} {plain} {thing}", "in which {time} did {someone} {plain} {thing}"],
    "number": ["how many {object}s did {someone} {plain}", "what number of {object}s did {someone} {plain}"],
    "thing": ["what did {someone} {plain}", "which {object} did {someone} {plain}", "name what {someone} {past}"],
    "reason": ["why did {someone} {plain} {thing}", "for what reason did {someone} {plain} {thing}"],
}
"""The labels, and how each is asked for."""
BEFORE = [
    "when {someone} left the {place} , ",
    "in the {time} after {someone} {past} {thing} , ",
    "where many {person}s lived , ",
    "of all that {someone} {past} , ",
    "",
    "",
]


def questions(count: int, seed: int) -> list[tuple[str, str]]:
    """So many questions with their labels, the same for the same seed.

    >>> questions(1, seed=1)
    [('where many kings lived , in what country did the sailor paint this old lamp ?', 'place')]
    """
    chance = random.Random(seed)
    labels = [chance.choice(list(ASKED)) for _ in range(count)]
    return [(f"{_filled(chance, BEFORE)}{_filled(chance, ASKED[label])} ?", label) for label in labels]


def _filled(chance: random.Random, patterns: list[str]) -> str:
    """One of the patterns with words in it."""
    index = chance.randrange(len(PAST))
    return chance.choice(patterns).format(
        past=PAST[index],
        plain=PLAIN[index],
        person=chance.choice(PEOPLE),
        place=chance.choice(PLACES),
        time=chance.choice(TIMES),
        object=chance.choice(THINGS),
        someone=_named(chance, PEOPLE),
        thing=_named(chance, THINGS),
    )


def _named(chance: random.Random, nouns: list[str]) -> str:
    """A noun with what stands before it."""
    adjective = f"{chance.choice(ADJECTIVES)} " if chance.random() < 0.5 else ""
    return f"{chance.choice(('the', 'this', 'that'))} {adjective}{chance.choice(nouns)}"
