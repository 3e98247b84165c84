"""Promises of folders named by label, of folds, and of what is said about labels."""

import shutil
import unicodedata

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from signals import RATE, noise

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.label_checks import label_warnings
from preprocess.clips.splits import split_parts
from tagger.base.errors import ConfigError


def write_music(root, **labels):
    """A folder per label with so many clips, or with clips of these names."""
    seed = 0
    for label, clips in labels.items():
        names = [f"{n}.wav" for n in range(clips)] if isinstance(clips, int) else clips
        (root / label).mkdir(parents=True)
        for name in names:
            path = root / label / name
            path.parent.mkdir(exist_ok=True)
            sf.write(path, noise(0.1, seed=seed), RATE)
            seed += 1
    return root


def read(root, **params):
    return DATASETS.create("folders", params).index(root)


def test_a_clip_has_the_label_of_its_folder_and_the_album_of_a_deeper_one(tmp_path):
    write_music(tmp_path, rock=["a.wav", "first album/b.wav", "first album/c.wav"], jazz=2)
    (tmp_path / "rock/cover.jpg").write_bytes(b"no music")
    index = read(tmp_path)
    assert index.tags == ("jazz", "rock")
    assert [clip.path for clip in index.clips if clip.path.startswith("rock")] == [
        "rock/a.wav",
        "rock/first album/b.wav",
        "rock/first album/c.wav",
    ]
    assert [clip.album for clip in index.clips] == ["", "", ""] + ["rock/first album"] * 2
    assert index.labels.sum(axis=1).tolist() == [1] * 5
    assert index.labels[:, 1].tolist() == [0, 0, 1, 1, 1]


def test_only_the_named_folders_are_labels(tmp_path):
    write_music(tmp_path, rock=2, jazz=2, speech=2)
    assert read(tmp_path, labels=["rock", "jazz"]).tags == ("jazz", "rock")
    with pytest.raises(ConfigError, match=r"has no folder 'pop'; check data\.params\.labels"):
        read(tmp_path, labels=["rock", "pop"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "at least two are needed; found none"),
        ({"rock": 3}, "at least two are needed; found only 'rock'"),
        ({"rock": 3, "jazz": 1}, "jazz: holds one clip, .*; add more"),
    ],
)
def test_labels_that_cannot_be_told_apart_or_tested_are_refused(tmp_path, labels, message):
    write_music(tmp_path, **labels)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone: no such folder; give one"):
        read(tmp_path / "gone")


def test_the_same_file_under_two_labels_is_refused(tmp_path):
    write_music(tmp_path, rock=3, jazz=2)
    shutil.copy(tmp_path / "rock/1.wav", tmp_path / "jazz/copy.wav")
    with pytest.raises(
        ConfigError, match=r"jazz/copy\.wav and rock/1\.wav are the same file under"
    ):
        read(tmp_path)


def test_empty_folders_and_files_beside_the_folders_are_left_out_with_a_warning(tmp_path, capsys):
    write_music(tmp_path, rock=2, jazz=2, empty=0)
    sf.write(tmp_path / "lost.wav", noise(0.1), RATE)
    assert read(tmp_path).tags == ("jazz", "rock")
    said = capsys.readouterr().err
    assert "no audio in 'empty'; left out" in said
    assert "1 audio files lie beside the folders and have no label" in said


def made_index(labels, **groups):
    labels = np.asarray(labels, np.uint8)
    clips = [
        ClipRecord(str(n), f"{n}.wav", **{key: values[n] for key, values in groups.items()})
        for n in range(len(labels))
    ]
    return ClipIndex(tuple(f"tag {n}" for n in range(labels.shape[1])), clips, labels)


@given(st.integers(0, 1000), st.integers(2, 6), st.booleans())
def test_each_clip_is_tested_once_and_no_group_lies_on_both_sides(seed, n_folds, grouped):
    rng = np.random.default_rng(seed)
    labels = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 60)]
    artists = [f"artist {number}" for number in rng.integers(0, 20, 60)] if grouped else [""] * 60
    index = made_index(labels, artist=artists)
    tested = np.zeros(60, int)
    for fold in range(n_folds):
        parts = split_parts(index, "k_fold", params={"folds": n_folds}, seed=seed, fold=fold)
        tested += parts == "test"
        if grouped:
            sides = [set(np.array(artists)[parts == part]) for part in ("test", "train")]
            assert not sides[0] & sides[1]
    assert (tested == 1).all()


def test_folds_are_alike_in_size_and_in_what_they_carry():
    labels = np.eye(4, dtype=np.uint8)[np.repeat([0, 1, 2, 3], [100, 50, 20, 10])]
    for fold in range(5):
        parts = split_parts(made_index(labels), "k_fold", params={"folds": 5}, fold=fold)
        assert labels[parts == "test"].sum(axis=0).tolist() == [20, 10, 4, 2]


def test_folds_do_not_depend_on_the_order_of_the_clips():
    rng = np.random.default_rng(0)
    index = made_index(np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 40)])
    order = rng.permutation(40)
    parts = split_parts(index, "k_fold", seed=3)
    np.testing.assert_array_equal(split_parts(index.subset(order), "k_fold", seed=3), parts[order])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"folds": 9}, "9 folds of 6 groups of clips; ask for fewer"),
        ({"group": "artist"}, r"names none; set data\.split_params\.group"),
    ],
)
def test_folds_that_the_clips_do_not_allow_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        split_parts(made_index(np.eye(2, dtype=np.uint8)[[0, 1] * 3]), "k_fold", params=params)


def test_a_label_of_fewer_clips_or_groups_than_folds_is_said(capsys):
    labels = np.eye(3, dtype=np.uint8)[[0] * 10 + [1] * 10]
    index = made_index(labels, artist=[f"artist {n}" for n in range(13)] + ["one"] * 7)
    split_parts(index, "k_fold", params={"folds": 5})
    said = capsys.readouterr().err
    assert "5 folds, but 4 clips or groups of clips carry 'tag 1', so that some folds" in said
    assert "set data.split_params.folds lower, or add clips" in said
    split_parts(index, "k_fold", params={"folds": 4})
    assert capsys.readouterr().err == ""


def test_what_makes_figures_mean_little_is_said():
    names = (
        "Rock",
        "rock ",
        "always",
        "hip-hop",
        "HipHop",
        "caf\u00e9",
        unicodedata.normalize("NFD", "caf\u00e9"),
    )
    labels = np.zeros((30, 7), np.uint8)
    labels[:, 2], labels[:15, 0] = 1, 1
    clips = [ClipRecord(str(n), f"{n}.wav") for n in range(30)]
    said = "\n".join(label_warnings(ClipIndex(names, clips, labels)))
    assert "30 clips: figures are rough" in said
    assert "every clip carries 'always'" in said
    assert "fewer than 10 clips carry 'rock ', 'hip-hop'" in said
    assert said.count("differ only in case") == 3


def test_labels_that_are_fine_are_not_warned_of():
    labels = np.eye(2, dtype=np.uint8)[[0, 1] * 60]
    assert label_warnings(made_index(labels)) == []


def test_a_wrong_separator_between_tags_is_told():
    clips = [ClipRecord(str(n), f"{n}.wav") for n in range(3)]
    labels = np.eye(3, dtype=np.uint8)
    for tags, told in ((("a, b", "c, d", "e"), True), (("rock, indie", "jazz", "folk"), False)):
        lines = label_warnings(ClipIndex(tags, clips, labels, "here"))
        assert any("look like several tags each" in line for line in lines) == told
