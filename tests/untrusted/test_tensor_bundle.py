"""Promises of TensorFlow's checkpoints read without TensorFlow, and of their checksums."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.untrusted.crc32c import crc32c
from tagger.untrusted.tensor_bundle import DATA_SUFFIX, INDEX_SUFFIX, read_tensor_bundle

# As RFC 3720, B.4 lists them.
KNOWN = {
    b"": 0,
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Prefix of a checkpoint as TensorFlow writes it, and its tensors."""
    from tagger.network.keras import tf

    rng = np.random.default_rng(0)
    tensors = {f"layer_{n}/kernel": rng.normal(size=(n, 3)).astype("float32") for n in range(1, 60)}
    tensors |= {
        "scalar": np.float32(3.5),
        "counter": np.int64(7),
        "doubles": rng.normal(size=5),
        "whole": np.arange(6, dtype=np.int32).reshape(1, 2, 3),
        "large": rng.normal(size=(300, 700)).astype("float32"),
        "none": np.zeros((0, 4), dtype="float32"),
    }
    prefix = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    names = [*tensors, "text"]
    values = [*map(tf.constant, tensors.values()), tf.constant(["a text"])]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    return prefix, tensors


@pytest.mark.parametrize(("data", "checksum"), KNOWN.items(), ids=lambda v: str(v)[:12])
def test_checksums_are_the_published_ones(data, checksum):
    assert crc32c(data) == checksum


@given(st.binary(max_size=70), st.integers(0, 20_000))
def test_checksums_are_those_of_a_library(data, n_more):
    google_crc32c = pytest.importorskip("google_crc32c")
    data += random.Random(n_more).randbytes(n_more)
    assert crc32c(data) == google_crc32c.value(data)


def test_every_tensor_is_read_as_it_was_written(checkpoint):
    prefix, tensors = checkpoint
    found = read_tensor_bundle(prefix)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == np.asarray(tensor).dtype
        np.testing.assert_array_equal(found[name], tensor, strict=True)


@pytest.mark.parametrize("suffix", [INDEX_SUFFIX, DATA_SUFFIX])
def test_whatever_is_damaged_is_refused_or_unharmed(checkpoint, tmp_path, suffix):
    prefix, tensors = checkpoint
    files = {
        s: (prefix.parent / (prefix.name + s)).read_bytes() for s in (INDEX_SUFFIX, DATA_SUFFIX)
    }
    draw = random.Random(0)
    refused = 0
    for number in range(100):
        content = bytearray(files[suffix])
        if number % 4 == 0:
            del content[draw.randrange(len(content)) :]
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        for name, own in files.items():
            (tmp_path / f"model.ckpt{name}").write_bytes(content if name == suffix else own)
        try:
            found = read_tensor_bundle(tmp_path / "model.ckpt")
        except ValueError as error:
            refused += 1
            assert str(error) and "\n" not in str(error)
        else:
            for name in found:
                np.testing.assert_array_equal(found[name], tensors[name])
    assert refused > 80


def test_several_data_files_are_refused(tmp_path, checkpoint):
    from tagger.network.keras import tf

    shards = [str(tmp_path / f"part{number}") for number in range(2)]
    for shard in shards:
        tf.raw_ops.SaveV2(
            prefix=shard,
            tensor_names=[shard[-5:]],
            shape_and_slices=[""],
            tensors=[tf.constant([1.0])],
        )
    merged = str(tmp_path / "merged")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=shards, destination_prefix=merged)
    with pytest.raises((ValueError, OSError)):
        read_tensor_bundle(tmp_path / "merged")
