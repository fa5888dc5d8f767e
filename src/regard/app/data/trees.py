"""Sentences with dependency trees, as the tensors of a batch."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from regard.app.data.splits import padded

RELATIONS = (
    "acl", "advcl", "advmod", "amod", "appos", "aux", "case", "cc", "ccomp", "clf", "compound", "conj", "cop",
    "csubj", "dep", "det", "discourse", "dislocated", "expl", "fixed", "flat", "goeswith", "iobj", "list", "mark",
    "nmod", "nsubj", "nummod", "obj", "obl", "orphan", "parataxis", "punct", "reparandum", "root", "vocative",
    "xcomp",
)  # fmt: skip
"""The relations of Universal Dependencies; what a language adds after a colon is left out."""
TAGS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
    "SYM", "VERB", "X", "_",
)  # fmt: skip
"""Its parts of speech, and none."""


class Sentence(NamedTuple):
    """The words of a sentence, and for each its tag, its head (the root is 0, the first word 1), and the relation."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]


def unparsed(words: Sequence[str]) -> Sentence:
    """A sentence of which nothing is known but its words, for a model to parse.

    >>> unparsed(("Time", "flies")).heads
    (0, 0)
    """
    count = len(words)
    return Sentence(tuple(words), ("_",) * count, (0,) * count, ("root",) * count)


class Written:
    """A split of sentences, and numbers of each word; a batch holds nothing that depends on other sentences, no
    vocabulary.

    A batch of B sentences, the longest of K words, with U different forms, the longest of C characters:

        forms (U, C)          the code points of each form, 0 after its end
        names (U,)            64 bits that tell the form, as it is `named`, from any other
        words (B, K)          the form of each word; -1 where there is no word, here and below

    and of each of the `columns` its numbers, (B, K).

    >>> Written([("Go", "on"), ("Go",)], {"tags": [[3, 5], [3]]}).batch(torch.tensor([1, 0]))["tags"]
    tensor([[ 3, -1],
            [ 3,  5]])
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[str]],
        columns: Mapping[str, Iterable[Iterable[int]]],
        named: Callable[[str], int] | None = None,
    ):
        self.lengths = _flat([len(words)] for words in sentences)
        self.starts = self.lengths.cumsum(0) - self.lengths
        forms = {form: n for n, form in enumerate(dict.fromkeys(word for words in sentences for word in words))}
        self.forms = padded([torch.tensor([ord(letter) for letter in form]) for form in forms])
        self.names = _flat([(named or name)(form)] for form in forms)
        self.words = _flat([forms[word] for word in words] for words in sentences)
        self.columns = {each: _flat(rows) for each, rows in columns.items()}

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The sentences at `indices`."""
        lengths = self.lengths[indices].unsqueeze(-1)
        ahead = torch.arange(int(lengths.max()))
        places, absent = self.starts[indices].unsqueeze(-1) + ahead, ahead >= lengths  # (B, K)
        places = places.where(~absent, self.starts[indices[:1]])
        columns = {each: numbers[places].masked_fill(absent, -1) for each, numbers in self.columns.items()}
        known, words = self.words[places].unique(return_inverse=True)
        forms = self.forms[known]
        forms = forms[:, : int((forms > 0).sum(-1).max())]
        return {"forms": forms, "names": self.names[known], "words": words.masked_fill(absent, -1), **columns}


class Trees(Written):
    """A split of sentences with their trees. A batch has beside what is `Written`:

        heads (B, K)          the head of each word, itself where that is the root: an event of `rg.tree`
        relations (B, K)      which of RELATIONS it has to it
        tags (B, K)           which of TAGS it has

    >>> sentence = Sentence(("Time", "flies"), ("NOUN", "VERB"), (2, 0), ("nsubj", "root"))
    >>> Trees([sentence]).batch(torch.tensor([0]))["heads"]
    tensor([[1, 1]])
    """

    def __init__(self, sentences: Sequence[Sentence]):
        columns = {
            "heads": ([head - 1 if head else n for n, head in enumerate(each.heads)] for each in sentences),
            "relations": (map(RELATIONS.index, each.relations) for each in sentences),
            "tags": (map(TAGS.index, each.tags) for each in sentences),
        }
        super().__init__([each.words for each in sentences], columns)


def _flat(rows: Iterable[Iterable[int]]) -> Int[Tensor, " N"]:
    """The numbers of all sentences, one after another."""
    return torch.tensor([number for row in rows for number in row], dtype=torch.long)


def name(form: str) -> int:
    """64 bits that tell a form from any other but for its capitals, everywhere the same.

    >>> name("Time") == name("time"), name("Time") == name("times")
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(form.lower().encode(), digest_size=8).digest(), signed=True)
