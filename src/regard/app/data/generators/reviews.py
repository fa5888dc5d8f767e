"""Reviews that a small grammar makes up, for or against a film, in which the words of opinion are marked: enough to see
a rationale learned, without any file.

Most of a review tells what happens in the film, and says nothing of whether it is liked. One opinion in five is of the
other side.
"""

import random

from regard.app.data.generators.questions import ADJECTIVES, PAST, PEOPLE, PLACES, THINGS, TIMES

OPINIONS = {
    "for": ["a joy to watch", "truly moving", "funny and warm", "a great cast", "never dull", "worth every minute"],
    "against": [
        "a waste of time",
        "painfully slow",
        "dull and loud",
        "a weak cast",
        "never funny",
        "hard to sit through",
    ],
}
"""The labels, and what is said by whom."""
SPOKEN = ["it is {opinion}", "i found it {opinion}", "for me this was {opinion}", "on the whole {opinion}"]
PLOT = [
    "the {adjective} {person} {past} a {thing} in the {place}",
    "in that {time} the {person} and the {other} lost the {thing}",
    "a {person} lives near the {adjective} {place}",
    "then the {other} {past} what the {person} {past}",
]
SENTENCES, SAID, OTHER_SIDE = (6, 10), (2, 3), 0.2


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    """So many reviews with their labels, the same for the same seed; what was said of the film is `[[marked]]`.

    >>> text, label = reviews(1, seed=3)[0]
    >>> text[:62], label
    ('a farmer lives near the old village . it is [[a joy to watch]]', 'for')
    """
    chance = random.Random(seed)
    return [_review(chance, chance.choice(list(OPINIONS))) for _ in range(count)]


def _review(chance: random.Random, label: str) -> tuple[str, str]:
    sentences = [_plot(chance) for _ in range(chance.randint(*SENTENCES))]
    sides = [label, label] + [label if chance.random() > OTHER_SIDE else _other(label)] * (chance.randint(*SAID) - 2)
    for side in sides:
        opinion = f"[[{chance.choice(OPINIONS[side])}]]"
        sentences.insert(chance.randint(0, len(sentences)), chance.choice(SPOKEN).format(opinion=opinion))
    return "".join(f"{sentence} . " for sentence in sentences).rstrip(), label


def _other(label: str) -> str:
    return next(each for each in OPINIONS if each != label)


def _plot(chance: random.Random) -> str:
    """What happens in the film."""
    person, other = chance.sample(PEOPLE, 2)
    return chance.choice(PLOT).format(
        person=person,
        other=other,
        past=chance.choice(PAST),
        thing=chance.choice(THINGS),
        place=chance.choice(PLACES),
        time=chance.choice(TIMES),
        adjective=chance.choice(ADJECTIVES),
    )
