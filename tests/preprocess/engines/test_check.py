"""Promises of the check: each kind of trouble is found and its consequence is told."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise
from tiny_corpus import TINY_CLIPS

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.engines.check import CONSEQUENCES, FATAL, check
from preprocess.engines.run import preprocess
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.store import Store

FRONT_END = FRONT_ENDS.create("vggish", {})


@pytest.fixture
def index(tiny_corpus):
    """The tiny corpus without the clip that is too short and the one that carries no tag."""
    return DATASETS.create("magnatagatune", {}).index(tiny_corpus).subset(range(6))


def found(index, root, n_workers=1, front_end=FRONT_END):
    findings = check(index, front_end, audio_root=root, n_workers=n_workers)
    return [(finding.kind, finding.path) for finding in findings], findings


def test_a_clean_corpus_gives_no_finding(index, tiny_corpus):
    assert found(index, tiny_corpus)[1] == []


def damage(kind, index, root):
    """Do to the third clip what `kind` says, and return the index to check."""
    path = root / index.clips[2].path
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "unreadable":
        path.write_bytes(b"no music" * 50)
    elif kind == "too short":
        sf.write(path, noise(0.9), RATE)
    elif kind == "duplicate":
        shutil.copyfile(root / index.clips[0].path, path)
    else:
        index.labels[2] = 0
    return index


@pytest.mark.parametrize("kind", list(CONSEQUENCES))
def test_each_kind_of_trouble_is_found_and_what_preprocessing_does_is_true(
    index, tiny_corpus, tmp_path, kind
):
    index = damage(kind, index, tiny_corpus)
    kinds, findings = found(index, tiny_corpus)
    assert kinds == [(kind, index.clips[2].path)]
    assert findings[0].detail
    consequence = findings[0].consequence
    result = preprocess(
        index, FRONT_END, audio_root=tiny_corpus, store_root=tmp_path / "store", n_workers=1
    )
    stored = {clip.record.id for clip in Store(tmp_path / "store").clips}
    left_out = index.clips[2].id not in stored
    assert left_out == (kind in FATAL) == ("left out" in consequence)
    assert (result.padded == [index.clips[2].path]) == ("padded" in consequence)


def test_all_findings_come_in_the_order_of_their_kinds(tiny_corpus):
    index = DATASETS.create("magnatagatune", {}).index(tiny_corpus)
    (tiny_corpus / index.clips[5].path).unlink()
    (tiny_corpus / index.clips[4].path).write_bytes(b"")
    (tiny_corpus / index.clips[0].path).unlink()
    shutil.copyfile(tiny_corpus / index.clips[2].path, tiny_corpus / index.clips[3].path)
    for n_workers in (1, 2):
        kinds, _ = found(index, tiny_corpus, n_workers)
        assert kinds == [
            ("missing", index.clips[0].path),
            ("missing", index.clips[5].path),
            ("empty", index.clips[4].path),
            ("too short", index.clips[6].path),
            ("duplicate", index.clips[3].path),
            ("unlabelled", index.clips[7].path),
        ]


def test_a_duplicate_names_the_clip_that_it_repeats(index, tiny_corpus):
    _, findings = found(damage("duplicate", index, tiny_corpus), tiny_corpus)
    assert index.clips[0].path in findings[0].detail


def test_a_clip_may_have_two_troubles(index, tiny_corpus):
    index = damage("unlabelled", damage("too short", index, tiny_corpus), tiny_corpus)
    kinds, _ = found(index, tiny_corpus)
    assert kinds == [("too short", index.clips[2].path), ("unlabelled", index.clips[2].path)]


@pytest.mark.parametrize(
    ("n_samples", "wanted"),
    # The last frame reaches 15 ms beyond the 0.96 s: 15360 samples do not fill a patch.
    [(15359, True), (15360, True), (15599, True), (15600, False), (16000, False)],
)
def test_too_short_is_what_the_front_end_pads(tmp_path, n_samples, wanted):
    sf.write(tmp_path / "a.wav", noise(2)[:n_samples], RATE)
    index = ClipIndex(("a",), [ClipRecord("1", "a.wav")], np.ones((1, 1), np.uint8))
    kinds, _ = found(index, tmp_path)
    assert (("too short", "a.wav") in kinds) == wanted
    result = preprocess(index, FRONT_END, audio_root=tmp_path, store_root=tmp_path / "s")
    assert (result.padded == ["a.wav"]) == wanted


def test_what_is_too_short_depends_on_the_front_end(index, tiny_corpus):
    longer = FRONT_ENDS.create("vggish", {"patch_frames": 240})
    kinds, _ = found(index, tiny_corpus, front_end=longer)
    assert kinds == [
        ("too short", clip.path)
        for clip, (*_, seconds) in zip(index.clips, TINY_CLIPS, strict=False)
        if seconds < 2.4
    ]


def test_the_check_leaves_the_data_as_it_was(index, tiny_corpus):
    before = {path: path.read_bytes() for path in tiny_corpus.rglob("*") if path.is_file()}
    found(index, tiny_corpus)
    assert {path: path.read_bytes() for path in tiny_corpus.rglob("*") if path.is_file()} == before
