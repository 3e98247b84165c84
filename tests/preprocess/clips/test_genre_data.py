"""Promises of GTZAN and FMA: which clips, which labels, and their published splits."""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from preprocess.clips.datasets import DATASETS
from preprocess.clips.gtzan_clips import GENRES, known_clips
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.splits import PARTS, split_parts
from tagger.base.errors import ConfigError


def read(name, root, **params):
    return DATASETS.create(name, params).index(Path(root))


def by_id(index, parts):
    return {clip.id: part for clip, part in zip(index.clips, parts.tolist(), strict=True)}


def sizes(parts):
    counts = Counter(parts.tolist())
    return tuple(counts[part] for part in PARTS)


# GTZAN.


def write_gtzan(root, *, folder="", suffix=".wav", genres=GENRES):
    """One file of each genre: what an index goes by."""
    for genre in genres:
        (root / folder / genre).mkdir(parents=True)
        (root / folder / genre / f"{genre}.00000{suffix}").write_bytes(b"")
    return root


@pytest.mark.parametrize("folder", ["", "genres", "genres_original", "Data/genres_original"])
@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_gtzan_is_read_from_the_layouts_that_are_around(tmp_path, folder, suffix):
    index = read("gtzan", write_gtzan(tmp_path, folder=folder, suffix=suffix))
    path = index.clips[200].path
    assert path == f"{folder}/country/country.00000{suffix}".lstrip("/")
    assert (tmp_path / path).exists()


def test_gtzan_has_a_thousand_clips_of_ten_genres_and_leaves_a_damaged_one_out(tmp_path, capsys):
    index = read("gtzan", write_gtzan(tmp_path))
    assert index.tags == GENRES
    assert index.labels.sum(axis=0).tolist() == [100] * 5 + [99] + [100] * 4
    assert all(
        index.tags[row.argmax()] == c.id.split(".")[0]
        for row, c in zip(index.labels, index.clips, strict=True)
    )
    assert "jazz.00054 is damaged in most copies and left out" in capsys.readouterr().err
    kept = read("gtzan", tmp_path, keep_unreadable=True)
    assert {clip.id for clip in kept.clips} - {clip.id for clip in index.clips} == {"jazz.00054"}
    assert capsys.readouterr().err == ""


def test_clips_of_gtzan_have_their_artists_as_far_as_they_are_known(tmp_path):
    index = read("gtzan", write_gtzan(tmp_path), keep_unreadable=True)
    artists = [clip.artist for clip in index.clips]
    assert len(set(artists) - {""}) == 412
    assert artists.count("") == 52


@pytest.mark.parametrize(("clips", "n_clips"), [("fault_filtered", 930), ("artist_folds", 948)])
def test_clips_with_known_faults_are_left_out_on_demand(tmp_path, clips, n_clips):
    index = read("gtzan", write_gtzan(tmp_path), clips=clips, keep_unreadable=True)
    assert len(index) == n_clips
    assert (split_parts(index, clips) != "").all()


def test_the_names_of_gtzan_are_read_without_audio_if_the_suffix_is_given(tmp_path):
    (tmp_path / "blues").mkdir()
    assert len(read("gtzan", tmp_path, suffix=".au")) == 999
    with pytest.raises(ConfigError, match=r"holds no clip GENRE/GENRE\.NNNNN .*; unpack"):
        read("gtzan", tmp_path)


def test_a_folder_that_is_not_gtzan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no folder of a genre of GTZAN .*; set data\.root"):
        read("gtzan", tmp_path)


@pytest.fixture
def gtzan(tmp_path):
    return read("gtzan", write_gtzan(tmp_path), keep_unreadable=True)


def test_the_fault_filtered_split_is_the_published_one(gtzan, shared):
    parts = split_parts(gtzan, "fault_filtered")
    assert sizes(parts) == (443, 197, 290)
    found = by_id(gtzan, parts)
    for part, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
        path = shared / "gtzan" / "splits" / f"{file}_filtered.txt"
        names = {Path(line).stem for line in path.read_text().split()}
        assert {name for name, its in found.items() if its == part} == names


def test_the_artist_folds_are_the_published_ones_and_share_no_artist(gtzan, shared):
    with (shared / "gtzan" / "splits" / "artist_folds.csv").open() as file:
        published = {row["name"]: int(row["fold"]) for row in csv.DictReader(file)}
    artist_of = {clip.id: clip.artist for clip in gtzan.clips}
    for fold in range(3):
        parts = by_id(gtzan, split_parts(gtzan, "artist_folds", fold=fold))
        sides = {part: {n for n, its in parts.items() if its == part} for part in PARTS}
        assert sides["test"] == {name for name, its in published.items() if its == fold + 1}
        artists = [{artist_of[name] for name in sides[part]} for part in PARTS]
        assert not (artists[0] & artists[1] or artists[0] & artists[2] or artists[1] & artists[2])


def test_two_artist_folds_train_where_none_validates(gtzan):
    parts = split_parts(gtzan, "artist_folds", params={"validation": False}, fold=2)
    assert sizes(parts) == (631, 0, 317)
    with pytest.raises(ConfigError, match="give 0 to 2"):
        split_parts(gtzan, "artist_folds", fold=3)


@pytest.mark.parametrize("name", ["blues/{}.au", "{}.wav", "{}.3.wav", "{}.0"])
def test_published_splits_know_the_clip_of_any_file_name(name):
    clips = [ClipRecord(name.format(n), name.format(n), track=n) for n in known_clips()]
    index = ClipIndex(("a",), clips, np.ones((len(clips), 1), np.uint8), segments=True)
    assert sizes(split_parts(index, "fault_filtered")) == (443, 197, 290)


def test_a_split_that_names_clips_which_are_not_there_is_refused(gtzan):
    part = gtzan.subset([n for n, clip in enumerate(gtzan.clips) if clip.id != "blues.00012"])
    with pytest.raises(
        ConfigError,
        match=r"lacks 1 of the 930 clips that split 'fault_filtered' \(gtzan\.csv\) names, e\.g\. "
        r"'blues\.00012'; add them, or set data\.split_params\.incomplete",
    ):
        split_parts(part, "fault_filtered")
    parts = split_parts(part, "fault_filtered", params={"incomplete": True})
    assert sizes(parts) == (443, 197, 289)


def test_the_clip_that_is_damaged_may_be_missing(tmp_path):
    index = read("gtzan", write_gtzan(tmp_path))
    assert sizes(split_parts(index, "fault_filtered")) == (442, 197, 290)


@pytest.mark.parametrize("split", ["fault_filtered", "artist_folds"])
def test_a_split_of_gtzan_is_refused_for_other_data(split):
    index = ClipIndex(("a",), [ClipRecord("1", "1.wav")], np.ones((1, 1), np.uint8))
    with pytest.raises(ConfigError, match=r"has no clip that split .*; use it with GTZAN alone"):
        split_parts(index, split, params={"incomplete": True})


def test_the_file_of_published_splits_is_installed_with_the_package():
    assert resources.files("preprocess.clips").joinpath("gtzan.csv").is_file()
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["preprocess.clips"] == ["*.csv"]


# FMA.

FMA_HEADER = (
    ",set,set,album,artist,track,track",
    ",split,subset,id,id,genre_top,title",
    "track_id,,,,,,",
)
FMA_ROWS = (
    '2,training,small,1,10,Rock,"a\nb, c"',
    "5,test,small,1,10,Hip-Hop,",
    "98565,training,small,2,20,Rock,x",
    "140,validation,medium,3,,Folk,x",
    "200,training,medium,3,30,,x",
    "155320,training,large,4,40,Rock,x",
)


def write_fma(root, rows=FMA_ROWS, header=FMA_HEADER):
    (root / "fma_metadata").mkdir()
    text = "\n".join([*header, *rows]) + "\n"
    (root / "fma_metadata" / "tracks.csv").write_text(text, encoding="utf-8")
    return root


def test_fma_is_read_from_its_table_of_three_header_rows(tmp_path):
    index = read("fma", write_fma(tmp_path))
    assert index.tags == ("Hip-Hop", "Rock")
    assert index.labels.tolist() == [[0, 1], [1, 0]]
    assert index.clips == [
        ClipRecord("000002", "fma_small/000/000002.mp3", artist="10", album="1", part="train"),
        ClipRecord("000005", "fma_small/000/000005.mp3", artist="10", album="1", part="test"),
    ]


@pytest.mark.parametrize(
    ("subset", "ids"),
    [
        ("small", ["000002", "000005"]),
        ("medium", ["000002", "000005", "000140"]),
        ("large", ["000002", "000005", "000140", "155320"]),
    ],
)
def test_a_subset_of_fma_holds_the_smaller_ones(tmp_path, subset, ids):
    index = read("fma", write_fma(tmp_path), subset=subset, audio="mp3")
    assert [clip.id for clip in index.clips] == ids
    assert index.clips[-1].path == f"mp3/{ids[-1][:3]}/{ids[-1]}.mp3"


def test_the_official_split_of_fma_is_the_split_by_column(tmp_path):
    index = read("fma", write_fma(tmp_path), subset="medium")
    assert split_parts(index, "column").tolist() == ["train", "test", "validation"]
    with pytest.raises(ConfigError, match="'official' is called 'column' here"):
        split_parts(index, "official")


def test_broken_clips_and_those_without_a_genre_are_left_out_with_a_notice(tmp_path, capsys):
    read("fma", write_fma(tmp_path), subset="medium")
    said = capsys.readouterr().err
    assert "tracks.csv: 1 clips are known to be broken and left out" in said
    assert "tracks.csv: 1 clips have no genre_top; left out" in said
    kept = read("fma", tmp_path, keep_broken=True)
    assert [clip.id for clip in kept.clips] == ["000002", "000005", "098565"]


def test_fma_small_has_eight_genres_of_a_thousand_clips(tmp_path, shared):
    with (shared / "fma" / "fma_small.csv").open() as file:
        rows = [
            f"{row['track_id']},{'test' if row['set'] == 'test' else 'training'},small,1,"
            f"{row['artist_id']},{row['genre_top']},x"
            for row in csv.DictReader(file)
        ]
    index = read("fma", write_fma(tmp_path, rows), keep_broken=True)
    assert index.labels.sum(axis=0).tolist() == [1000] * 8
    assert len(read("fma", tmp_path)) == 7994
    assert sum(bool(clip.artist) for clip in index.clips) == 7904
    parts = by_id(index, split_parts(index, "column"))
    assert Counter(parts.values()) == {"train": 7211, "test": 789}


@pytest.mark.parametrize(
    ("rows", "header", "wanted"),
    [
        (["2,test,small"], ["track_id,split,subset"], "lacks the columns .*'set.split'"),
        (FMA_ROWS, FMA_HEADER[:2], "lacks the columns 'track_id', 'set.split', .*"),
        (["2,dev,small,1,1,Rock,x"], FMA_HEADER, "track 2 has the split 'dev'"),
        (["../2,test,small,1,1,Rock,x"], FMA_HEADER, "'../2' for a track_id"),
        (["2,test,large,1,1,Rock,x"], FMA_HEADER, "no track of small has a genre"),
        (["2,test,small,1,1,,x"], FMA_HEADER, "no track of small has a genre"),
    ],
)
def test_a_table_of_fma_that_is_none_is_refused(tmp_path, rows, header, wanted):
    with pytest.raises(ConfigError, match=f"tracks.csv: {wanted}.*; give tracks.csv of fma_meta"):
        read("fma", write_fma(tmp_path, rows, header))


def test_a_missing_table_of_fma_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"fma_metadata/tracks\.csv: no such file; set data\.root"
    ):
        read("fma", tmp_path)
