"""Running text as words and marks: how word vectors are looked up."""

import re

_TOKENS = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|\w+?(?=n't\b)|\w+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """The words and marks of a text, in small letters; the clitics of English are words, as in the Penn Treebank and in
    most word vectors.

    >>> tokens("It’s well-made, isn't it?")
    ['it', "'s", 'well', '-', 'made', ',', 'is', "n't", 'it', '?']
    """
    return cased_tokens(text.lower())


def cased_tokens(text: str) -> list[str]:
    """The same with letters as they are.

    >>> cased_tokens("Ida didn't move.")
    ['Ida', 'did', "n't", 'move', '.']
    """
    return _TOKENS.findall(text.replace("’", "'"))
