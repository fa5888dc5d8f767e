"""Text as numbers and back: by characters, by words, or by the subwords that sentences to learn from have often.

Text stays text: whatever is written in it, such as <end>, `encode` gives numbers of pieces and never a special one, but
UNKNOWN for characters and words that no sentence had.

A vocabulary is a value that JSON can hold, so that a run keeps its own: `vocabulary(each.json)` is the same again.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

PADDING, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<padding>", "<begin>", "<end>", "<unknown>")
START = "▁"  # how a piece begins that begins a word
_WRITTEN = "\ufdd0"  # that character where it is written in a text: no text has this one, which Unicode keeps free


class Characters:
    """Every character by itself, from 4 on; what was not in the sentences is UNKNOWN.

    >>> characters = Characters(sorted(set("1987-03-02")))
    >>> len(characters), characters.encode(["1-x"]), characters.decode([5, 4, 2])
    (12, [[6, 4, 3]], '0-')
    """

    def __init__(self, letters: Sequence[str]):
        self.letters = list(letters)
        self._numbers = {letter: number for number, letter in enumerate(self.letters, len(SPECIAL))}

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.letters)

    @property
    def json(self) -> str:
        """All that it is."""
        return json.dumps({"characters": self.letters})

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """The numbers of each text."""
        return [[self._numbers.get(letter, UNKNOWN) for letter in text] for text in texts]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers; those below 4 have none."""
        return "".join(self.letters[number - len(SPECIAL)] for number in numbers if number >= len(SPECIAL))

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        """What each number stands for, to be looked at: a character counts as a word."""
        names = [*SPECIAL, *self.letters]
        return [START + names[number] for number in numbers]


class Words:
    """Whole words, which spaces part, from 4 on; others are UNKNOWN. `words` learns them.

    >>> words = Words(["a", "dog"])
    >>> len(words), words.encode(["a red dog"]), words.decode([4, 5, 2])
    (6, [[4, 3, 5]], 'a dog')
    """

    def __init__(self, words: Sequence[str]):
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(self.words, len(SPECIAL))}

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    @property
    def json(self) -> str:
        """All that it is."""
        return json.dumps({"words": self.words})

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """The numbers of each text; a word that is not known is UNKNOWN."""
        return [[self._numbers.get(word, UNKNOWN) for word in text.split()] for text in texts]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers, a space between words; those below 4 have none."""
        return " ".join(self.words[number - len(SPECIAL)] for number in numbers if number >= len(SPECIAL))

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        """What each number stands for, to be looked at."""
        names = [*SPECIAL, *self.words]
        return [START + names[number] for number in numbers]


def words(texts: Iterable[str], least: int = 1) -> Words:
    """The words that occur `least` times or more in these texts, the most frequent first.

    >>> words(["a red car", "a red bus"], least=2).words
    ['a', 'red']
    """
    counted = Counter(word for text in texts for word in text.split())
    return Words([word for word in sorted(counted, key=lambda word: (-counted[word], word)) if counted[word] >= least])


class Subwords:
    """Frequent pieces of words, which byte-pair encoding has put together (Sennrich et al. 2016, "Neural Machine
    Translation of Rare Words with Subword Units", section 3.2), by the package tokenizers.

    A punctuation mark is a piece of its own. Where no piece has a capital letter, these are read as small ones.
    `subwords` learns them.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = True  # as text
        self.uncased = all(piece == piece.lower() for piece in tokenizer.get_vocab())

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def json(self) -> str:
        """All that it is, as tokenizers writes it."""
        return self.tokenizer.to_str()

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """The numbers of each text; a character that no sentence had is UNKNOWN."""
        texts = [_escaped(text.lower() if self.uncased else text) for text in texts]
        return [each.ids for each in self.tokenizer.encode_batch_fast(texts)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers; those below 4 have none."""
        return self.tokenizer.decode(list(numbers)).replace(_WRITTEN, START)

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        """What each number stands for, to be looked at."""
        return [self.tokenizer.id_to_token(number) for number in numbers]


Vocabulary = Characters | Words | Subwords


def _escaped(text: str) -> str:
    return text.replace(START, _WRITTEN)


def subwords(texts: Iterable[str], count: int) -> Subwords:
    """The `count` most useful pieces of these texts, single characters included, by as many merges as that takes.

    Raises ValueError where the extra `text` is not installed.

    >>> pieces = subwords(["a red car", "a red bus", "the reddest bus"], count=30)
    >>> pieces.pieces(pieces.encode(["a red cat"])[0])
    ['▁a', '▁red', '▁', 'c', 'a', 't']
    """
    tokenizers = _tokenizers()
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIAL[UNKNOWN]))
    marks = tokenizers.pre_tokenizers.Punctuation()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.Metaspace(START), marks])
    made.decoder = tokenizers.decoders.Metaspace(START)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=count, special_tokens=list(SPECIAL), show_progress=False)
    made.train_from_iterator(map(_escaped, texts), trainer)
    return Subwords(made)


def whole_words(pieces: Iterable[str]) -> tuple[list[str], list[int]]:
    """The words that pieces make, and for each piece which of them it is a part of; the end is a word.

    >>> whole_words(["▁a", "▁c", "at", "<end>"])
    (['a', 'cat', '<end>'], [0, 1, 1, 2])
    """
    words: list[str] = []
    groups = []
    for piece in pieces:
        if not words or piece.startswith(START) or piece == SPECIAL[END]:
            words.append("")
        words[-1] += piece.removeprefix(START).replace(_WRITTEN, START)
        groups.append(len(words) - 1)
    return words, groups


def vocabulary(text: str) -> Vocabulary:
    """The vocabulary that JSON holds. Raises ValueError where the text is not that, or the extra `text` is missing.

    >>> vocabulary(Characters("abc").json).encode(["cab"])
    [[6, 4, 5]]
    """
    try:
        found = json.loads(text)
        if "characters" in found:
            return Characters(found["characters"])
        if "words" in found:
            return Words(found["words"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"the vocabulary of the run is damaged: {error}") from error
    tokenizers = _tokenizers()
    try:
        return Subwords(tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # tokenizers has no class of its own
        raise ValueError(f"the vocabulary of the run is damaged: {error}") from error


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError("sentences from files need the extra text: pip install 'regard[text]'") from error
    return tokenizers
