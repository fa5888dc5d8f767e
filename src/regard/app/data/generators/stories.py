"""Stories that are generated: people walk about a house, take things and drop them, and one asks where they are.

Of the kind of the first two tasks of Weston et al. 2015, "Towards AI-Complete Question Answering".
"""

import random

from regard.app.data.stories import Question

PEOPLE = ("Anna", "Ben", "Carla", "David")
ROOMS = ("attic", "bathroom", "bedroom", "cellar", "garden", "kitchen")
THINGS = ("apple", "book", "lamp")
WALKS = ("went to", "moved to", "walked to")
QUESTIONS = 5  # about a story
BETWEEN = {1: 2, 2: 3}  # facts from one question of a task to the next


class House:
    """Who is where and what, as far as the facts of a story say: a place is a room and the fact that says so."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self.facts: list[str] = []
        self.people: dict[str, tuple[str, int]] = {}
        self.holders: dict[str, tuple[str, int]] = {}
        self.things: dict[str, tuple[str, tuple[int, int]]] = {}

    def walk(self) -> None:
        """Somebody goes to another room."""
        person = self.chance.choice(PEOPLE)
        room = self.chance.choice([room for room in ROOMS if room != self.people.get(person, ("",))[0]])
        self.people[person] = room, len(self.facts)
        self.facts.append(f"{person} {self.chance.choice(WALKS)} the {room}.")

    def handle(self) -> None:
        """Somebody whose room is known drops what they hold or takes what is free there; else somebody walks."""
        thing = self.chance.choice(THINGS)
        if thing in self.holders:
            self.drop(thing)
            return
        room = self.things[thing][0] if thing in self.things else None
        near = [person for person, (place, _) in self.people.items() if room in (None, place)]
        if not near:
            self.walk()
            return
        person = self.chance.choice(near)
        self.holders[thing] = person, len(self.facts)
        self.facts.append(f"{person} took the {thing}.")

    def drop(self, thing: str) -> None:
        """The holder of a thing leaves it in the room."""
        person, _ = self.holders.pop(thing)
        room, walked = self.people[person]
        self.things[thing] = room, (len(self.facts), walked)
        self.facts.append(f"{person} dropped the {thing}.")

    def where(self, thing: str) -> tuple[str, tuple[int, int]] | None:
        """The room of a thing and the facts that say so; None if nobody has touched it."""
        if thing not in self.holders:
            return self.things.get(thing)
        person, took = self.holders[thing]
        room, walked = self.people[person]
        return room, (took, walked)

    def question(self, task: int) -> Question | None:
        """About a person (task 1) or a thing (task 2); None as long as nothing can be asked."""
        known = {person: (room, (walked,)) for person, (room, walked) in self.people.items()}
        if task == 2:
            known = {thing: place for thing in THINGS if (place := self.where(thing))}
        if not known:
            return None
        what = self.chance.choice(list(known))
        room, lines = known[what]
        text = f"Where is {what if task == 1 else f'the {what}'}?"
        return Question(tuple(self.facts), text, room, tuple(len(self.facts) - 1 - line for line in lines))


def generated(task: int, count: int, seed: int) -> list[Question]:
    """So many questions about generated stories, five a story: task 1 needs one supporting fact, task 2 needs two.

    Raises ValueError for other tasks.

    >>> generated(task=2, count=1, seed=0)[0].text
    'Where is the book?'
    """
    if task not in BETWEEN:
        raise ValueError(f"--task expected 1 or 2 for generated stories, but got {task}; --data DIR names bAbI's files")
    chance = random.Random(seed)
    questions: list[Question] = []
    while len(questions) < count:
        questions += story(task, chance)
    return questions[:count]


def story(task: int, chance: random.Random) -> list[Question]:
    """The questions about one story."""
    house, questions = House(chance), []
    while len(questions) < QUESTIONS:
        for _ in range(BETWEEN[task]):
            house.handle() if task == 2 and chance.random() < 0.4 else house.walk()
        if question := house.question(task):
            questions.append(question)
    return questions
