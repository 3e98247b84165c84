"""Promises of deltas: a file comes back as it was, or is said not to."""

import base64
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagger.tagging.byte_delta import apply_delta, delta_between

PIECES = st.lists(
    st.sampled_from([b"a" * 40, bytes(range(256)), b"xyz", b"\0" * 100]) | st.binary(max_size=80),
    max_size=8,
).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=PIECES, new=PIECES)
def test_a_file_is_made_of_another_one(tmp_path, old, new):
    source, target, made = (tmp_path / name for name in ("source", "target", "made"))
    source.write_bytes(old)
    target.write_bytes(new)
    delta = delta_between(source, target)
    assert delta is not None
    assert apply_delta(source, delta, made) is True
    assert made.read_bytes() == new
    source.write_bytes(old + b"!")
    assert apply_delta(source, delta, made) is (made.read_bytes() == new)


def test_what_only_moves_takes_little_room_and_what_is_new_has_bounds(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    cover = bytes(range(256)) * 4000
    source.write_bytes(b"title" + cover + b"artist" * 20 + b"audio" * 1000)
    target.write_bytes(b"artist" * 20 + cover + b"other" + b"audio" * 1000)
    delta = delta_between(source, target)
    assert delta is not None and len(delta) < 400
    target.write_bytes(bytes(hash(number) * 7919 >> 3 & 255 for number in range(70_000)))
    source.write_bytes(b"")
    assert delta_between(source, target) is None


def packed(content):
    return base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()


@pytest.mark.parametrize(
    "delta",
    [
        "",
        "no base64!",
        base64.b64encode(b"no zlib").decode(),
        packed([]),
        packed({"steps": [[0, 99]], "sha256": ""}),
        packed({"steps": [[-1, 2]], "sha256": ""}),
        packed({"steps": [[0, 4]] * 3, "sha256": ""}),
        packed({"steps": [[0, 1, 2], {}], "sha256": ""}),
        packed({"steps": [[1e400, 1]], "sha256": ""}),
        packed({"steps": ["AAAA"], "sha256": "another"}),
        base64.b64encode(zlib.compress(bytes(10**8))).decode(),
    ],
)
def test_a_delta_that_somebody_has_changed_is_told(tmp_path, delta):
    source, made = tmp_path / "source", tmp_path / "made"
    source.write_bytes(b"abcd")
    assert apply_delta(source, delta, made) is False
