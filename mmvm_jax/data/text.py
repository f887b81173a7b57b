"""Conversion of text to token ids: words of English captions, and characters of a fixed alphabet."""

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np

# Ids of the special words, which begin every vocabulary.
UNKNOWN, PADDING, END = 0, 1, 2
SPECIAL_WORDS = ("<exc>", "<pad>", "<eos>")

ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789," *\n'  # 41 characters
BLANK = ALPHABET.index("*")

# The conventions of the Penn Treebank, applied in this order to text with a space at both ends.
_SPLITS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r'(?<=[\s(\[{<])"', " `` "),  # a double quote opens after a space or a bracket,
        (r'"', " '' "),  # and closes elsewhere
        (r"\.{3}", " ... "),
        (r"[;@#$%&?!\[\](){}<>]|--", r" \g<0> "),
        (r"[:,](?!\d)", r" \g<0> "),  # except inside 1,000 and 3:4
        # A full stop is a token after a word, except if the word is one letter or contains stops: a. m., U.S.
        (r"(?<=\s)([^\s.]*[^\s.]{2})\.(?=[\s'])", r"\1 ."),
        (r"(?<!\.)\.(?=['\s]*$)", " ."),
        (r"(?<=[^\s'])'(?=\s)", " '"),  # plural possessive, or the end of a quotation
        (r"(?<=\s)'(?=\w{3,})(?!tis\b|twas\b)", "' "),  # the start of a quotation
        (r"(?<=[^\s'])('(?:s|m|d|ll|re|ve))(?=\s)", r" \1"),
        (r"(?<=\w)(n't)(?=\s)", r" \1"),
        (r"\b(can)(not)\b", r"\1 \2"),
        (r"\b(gim|lem)(me)\b", r"\1 \2"),
        (r"\b(gon|wan)(na)\b", r"\1 \2"),
        (r"\b(got)(ta)\b", r"\1 \2"),
        (r"(?<=\s)('t)(is|was)\b", r"\1 \2"),
    )
]


def split_words(text: str) -> list[str]:
    """Split English text into words and punctuation marks as in the Penn Treebank; the case is preserved."""
    text = f" {text} "
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    return text.split()


def build_vocabulary(sentences: Iterable[Sequence[str]], min_count: int) -> tuple[str, ...]:
    """Return the special words, then all words with at least ``min_count`` occurrences, in order of first use."""
    counts = collections.Counter(word for sentence in sentences for word in sentence)
    frequent = (word for word, count in counts.items() if count >= min_count and word not in SPECIAL_WORDS)
    return (*SPECIAL_WORDS, *frequent)


def word_ids(words: Sequence[str], ids: dict[str, int], length: int) -> np.ndarray:
    """Return ids [length] int32: at most length - 1 words, the end, and padding.

    Args:
      words: a sentence.
      ids: ``{word: id}``; other words become ``UNKNOWN``.
      length: of the result.
    """
    known = [ids.get(word, UNKNOWN) for word in words[: length - 1]]
    return np.array([*known, END, *[PADDING] * (length - 1 - len(known))], np.int32)


def character_ids(text: str, start: int, length: int) -> np.ndarray:
    """Return ids [length] int32 of lower-case text, placed at position ``start`` and surrounded by ``BLANK``."""
    ids = np.full(length, BLANK, np.int32)
    characters = [ALPHABET.index(character) for character in text if character in ALPHABET]
    room = ids[start : start + len(characters)]
    room[:] = characters[: len(room)]
    return ids
