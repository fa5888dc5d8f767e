"""Stories with questions about them, as the tensors of a batch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.splits import padded


class Question(NamedTuple):
    """A question about the facts of a story so far, the oldest first.

    `supporting` are the facts that one must know to answer, in the order of the reasoning, by how many came after each.
    """

    facts: tuple[str, ...]
    text: str
    answer: str
    supporting: tuple[int, ...]


class Stories:
    """Questions about stories as a split: words and answers as numbers.

    `words` are those that the numbers 1, 2, ... stand for, `answers` those of 0, 1, ...
    """

    def __init__(self, questions: Sequence[Question], words: Sequence[str], answers: Sequence[str]):
        self.words = tuple(words)
        numbers = {word: number for number, word in enumerate(words, 1)}
        known = {answer: number for number, answer in enumerate(answers)}
        stories = [[_numbered(fact, numbers) for fact in each.facts] for each in questions]
        widest = max((len(fact) for facts in stories for fact in facts), default=0)
        self.facts = torch.zeros(len(questions), max(map(len, stories), default=0), widest, dtype=torch.long)
        for facts, row in zip(stories, self.facts, strict=True):
            row[len(row) - len(facts) :, : max(map(len, facts))] = pad_sequence(facts, batch_first=True)
        self.questions = padded([_numbered(each.text, numbers) for each in questions])
        supporting = [torch.tensor(each.supporting, dtype=torch.long) for each in questions]
        self.supporting = padded(supporting, -1)
        self.labels = torch.tensor([known.get(each.answer, -1) for each in questions], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The questions at `indices`; nothing in them is random. Of B questions, the longest of V words, about stories
        of at most N facts of at most W words:

            facts (B, N, W)       the number of each word, the latest fact last; 0 where there is none or it is unknown
            question (B, V)       the same of the question
            label (B,)            the number of the answer; -1 if it is unknown
            supporting (B, M)     how many facts came after each that supports the answer; -1 where there is none
        """
        facts = self.facts[indices]
        longest = int((facts > 0).any(-1).any(0).sum())
        return {
            "facts": facts[:, -longest:],
            "question": self.questions[indices],
            "label": self.labels[indices],
            "supporting": self.supporting[indices],
        }


def split(sentence: str) -> list[str]:
    """Its words, without capitals and the mark at the end.

    >>> split("Where is Mary? ")
    ['where', 'is', 'mary']
    """
    return sentence.lower().strip(" .?").split()


def _numbered(sentence: str, numbers: Mapping[str, int]) -> Int[Tensor, " W"]:
    return torch.tensor([numbers.get(word, 0) for word in split(sentence)], dtype=torch.long)
