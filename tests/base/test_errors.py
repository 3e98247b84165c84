"""Promises of every message that a user reads."""

import pytest

from tagger.base.errors import AudioError, TaggerError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\nb.wav: no such file", r"a\nb.wav: no such file"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\0b\r\x85c\u2028d", r"a\x00b\r\x85c\u2028d"),
        ("é – 音.mp3\udcff: fine", "é – 音.mp3\udcff: fine"),
    ],
)
def test_a_message_is_one_line_whatever_names_it_holds(given, shown):
    assert str(TaggerError(given)) == shown


def test_a_long_message_keeps_the_file_and_the_remedy():
    error = AudioError(f"file.wav: holds {'x' * 100_000}; convert it")
    assert len(str(error)) < 2100
    assert str(error).startswith("file.wav: holds x") and str(error).endswith("x; convert it")


def test_an_error_stays_one_line_when_it_is_made_of_another():
    assert str(AudioError(str(AudioError("a\nb")))) == r"a\nb"
