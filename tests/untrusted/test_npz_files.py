"""Promises of reading NumPy archives that may hold anything."""

import io
import struct
import zipfile

import numpy as np
import pytest

from tagger.base.errors import ModelError
from tagger.metrics.score_files import read_scores
from tagger.scoring.clip_heads import load_clip_head
from tagger.untrusted.npz import read_arrays

MANY = 1 << 20


def header(text, *, version=b"\x01\x00"):
    """Start of an .npy file that says what `text` says."""
    start = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(start)) + start


def described(dtype, shape):
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}")


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", "bc", ""]),
        np.array("one"),
        np.empty((0, 3)),
        np.array([1, 2], dtype=">i4"),
    ],
)
def test_what_numpy_writes_is_read(tmp_path, array):
    np.savez(tmp_path / "a.npz", x=array)
    ((name, found),) = read_arrays(tmp_path / "a.npz", most_bytes=MANY).items()
    np.testing.assert_array_equal(found, array)
    assert (name, found.dtype) == ("x", array.dtype)


DAMAGED = {
    "more values than there are": described("'<f8'", "(300000000000,)") + bytes(8),
    "a long text": described("'<U300000000'", "(3,)"),
    "negative": described("'<f8'", "(-1, 3)"),
    "objects": described("'|O'", "(1,)") + b"cos\nsystem\n(S'touch never'\ntR.",
    "records": described("[('a', '<f4')]", "(1,)") + bytes(4),
    "a record of nothing": described("()", "(1,)"),
    "no dictionary": header("[" * 5000),
    "open brackets": header("("),
    "code": header("__import__('os').system('touch never')"),
    "another version": header("{}", version=b"\x09\x00"),
    "no text": described("'<U1'", "(1,)") + b"\xff\xff\xff\xff",
    "a character beyond Unicode": described("'<U2'", "()") + b"a\0\0\0\x73\0\0\x73",
    "nothing": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_an_array_that_is_none_is_a_value_error(tmp_path, content):
    path = archive(tmp_path / "a.npz", x=content)
    with pytest.raises(ValueError):
        read_arrays(path, most_bytes=MANY)


def test_a_larger_array_than_is_wanted_is_refused_before_it_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(MANY))
    with pytest.raises(ValueError, match="more than 1 MB"):
        read_arrays(tmp_path / "a.npz", most_bytes=MANY)


@pytest.mark.parametrize("name", ["est", "tags", "clip_ids"])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_array_of_scores_is_one_line_that_names_the_file(tmp_path, name, content):
    members = {"gt": npy(np.eye(3)), "est": npy(np.eye(3)), "tags": npy(np.array(["a", "b", "c"]))}
    path = archive(tmp_path / "a.npz", **{**members, name: content})
    with pytest.raises(ModelError) as caught:
        read_scores(path)
    assert str(caught.value).startswith(f"{path}: ") and "; " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_clip_head_is_one_line_that_names_the_file(tmp_path, content):
    texts = {"head": "linear", "params": '{"layers": ["a"]}', "backbone": "x"}
    members = {name: npy(np.array(text)) for name, text in texts.items()}
    members["array_bias"] = npy(np.zeros(1, np.float32))
    path = archive(tmp_path / "a.npz", **members, array_weights=content)
    with pytest.raises(ModelError, match="missing or damaged"):
        load_clip_head(path, sizes={"a": 1}, n_tags=1)
