"""Stories of a village that are made up, and what is said of somebody afterwards: enough to see a reader learn, without
any file.

What the name that is left out did is told once in the story, among what others did: who reads which name stands with
that thing knows the answer, and who counts names does not.
"""

import json
import random

NAMES = ["Anna", "Boris", "Clara", "David", "Emma", "Frank", "Greta", "Henry", "Irene", "Jacob", "Karin", "Louis"]
THINGS = ["boat", "bridge", "cow", "cloak", "lamp", "mill", "piano", "roof", "saddle", "well"]
FIRST = [
    "{name} had bought the {thing} long ago",
    "the {thing} belonged to {name}",
    "it was {name} who built the {thing}",
]
LATER = ["{name} looked at the {thing} and smiled", "in the evening {name} went back to the {thing}"]
BETWEEN = [
    "the wind came up from the sea",
    "nobody said a word",
    "the church bell rang",
    "it began to rain",
    "{name} sang",
]
ASKED = [
    "at last XXXXX sold the {thing}",
    "{name} wished that XXXXX had never seen the {thing}",
    "XXXXX wept over the {thing}",
]


def village(count: int, seed: int) -> list[str]:
    """So many stories with their questions as lines of JSON, the same for the same seed.

    >>> json.loads(village(1, seed=0)[0])["question"]
    'Anna wished that XXXXX had never seen the lamp .'
    """
    chance = random.Random(seed)
    return [json.dumps(_story(chance)) for _ in range(count)]


def _story(chance: random.Random) -> dict[str, str | list[str]]:
    names = chance.sample(NAMES, chance.randint(3, 5))
    things = chance.sample(THINGS, len(names))
    owners = list(zip(names, things, strict=True))
    told = [chance.choice(FIRST).format(name=name, thing=thing) for name, thing in owners]
    told += [chance.choice(LATER).format(name=name, thing=thing) for name, thing in chance.sample(owners, 2)]
    for _ in range(3):
        told.insert(chance.randint(1, len(told)), chance.choice(BETWEEN).format(name=chance.choice(names)))
    answer, thing = chance.choice(owners)
    other = chance.choice([name for name in names if name != answer])
    question = chance.choice(ASKED).format(name=other, thing=thing)
    story = " ".join(f"{sentence} ." for sentence in told)
    return {"context": story, "question": f"{question} .", "answer": answer, "candidates": sorted(names)}
