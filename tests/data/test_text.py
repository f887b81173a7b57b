"""Words as the Penn Treebank separates them, and characters."""

import numpy as np
import pytest

from mmvm_jax.data import text


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A small bird, with a Red head.", "A small bird , with a Red head ."),
        ("it isn't big. its beak's short.", "it is n't big . its beak 's short ."),
        ("the birds' wings can't be seen", "the birds ' wings ca n't be seen"),
        ('a "bold" bird (gray; white) & black', "a `` bold '' bird ( gray ; white ) & black"),
        ("about 3.5 inches, or 1,000 mm: 3:4", "about 3.5 inches , or 1,000 mm : 3:4"),
        ("seen at 9 a.m. by day", "seen at 9 a.m. by day"),
        ("yellow-green wings -- very bright...", "yellow-green wings -- very bright ..."),
        ("they'll say we've seen it, I'd say I'm", "they 'll say we 've seen it , I 'd say I 'm"),
        ("I cannot see; gonna look! 'tis fine?", "I can not see ; gon na look ! 't is fine ?"),
        ("it is 100% black/white,", "it is 100 % black/white ,"),
        ("  spaces \t everywhere .\n", "spaces everywhere ."),
        ("", ""),
    ],
)
def test_split_words(sentence, words):
    assert text.split_words(sentence) == words.split()


def test_vocabulary_in_order_of_first_use():
    sentences = [["b", "a", "b"], ["a", "c", "b"], ["<pad>"] * 5]
    assert text.build_vocabulary(sentences, 2) == ("<exc>", "<pad>", "<eos>", "b", "a")


def test_word_ids():
    ids = {"a": 3, "b": 4}
    np.testing.assert_array_equal(text.word_ids(["a", "x", "b"], ids, 6), [3, 0, 4, 2, 1, 1])
    np.testing.assert_array_equal(text.word_ids(["a"] * 9, ids, 4), [3, 3, 3, 2])
    np.testing.assert_array_equal(text.word_ids(["a"] * 3, ids, 4), [3, 3, 3, 2])
    np.testing.assert_array_equal(text.word_ids([], ids, 3), [2, 1, 1])


def test_character_ids():
    assert len(text.ALPHABET) == len(set(text.ALPHABET)) == 41

    def line(*arguments):
        return "".join(text.ALPHABET[place] for place in text.character_ids(*arguments))

    assert line("big, 5", 2, 10) == "**big, 5**"
    assert line("Big_5", 0, 5) == "ig5**"
    assert line("abcdef", 3, 5) == "***ab"
