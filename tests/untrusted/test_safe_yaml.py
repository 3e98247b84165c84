"""Promises of reading YAML that may hold anything."""

import datetime

import pytest

from tagger.untrusted import yaml as safe_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)
)
DEEP = 3000


def test_plain_values_are_what_yaml_says():
    assert safe_yaml.loads("a: [1, 0.5, null, yes]\nb: {c: 2001-02-03}") == {
        "a": [1, 0.5, None, True],
        "b": {"c": datetime.date(2001, 2, 3)},
    }


def test_an_anchor_may_be_used_again():
    assert safe_yaml.loads("a: &x {b: 1}\nc: {<<: *x, d: 2}") == {
        "a": {"b": 1},
        "c": {"b": 1, "d": 2},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "stands for more than"),
        ("a: &a [*a]", "inside what it stands for"),
        ("[" * DEEP, "nested too deeply"),
        ("- " * DEEP + "1", "nested too deeply"),
        ("a: " + "9" * 10_000, "limit"),
        ("a: 2" + ":59" * 5000, "too large"),
        ("!!timestamp x", "NoneType"),
        ("!!int x", "invalid literal"),
        ("2001-99-99", "month"),
        ("!!python/object/apply:os.system [touch x]", "could not determine a constructor"),
        ("!!python/name:os.system", "could not determine a constructor"),
        ("a: [", "while parsing"),
        ("? [a]\n: b", "unhashable"),
        ("a\0b", "special characters"),
    ],
)
def test_what_cannot_be_read_is_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        safe_yaml.loads(text)
    assert "\n" not in str(caught.value)
