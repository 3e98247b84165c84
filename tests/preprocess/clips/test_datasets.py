"""Promises of data sets, splits and vocabularies: which clips and tags there are, and where."""

from __future__ import annotations

import ast
import csv
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpus import TINY_CLIPS, TINY_TAGS, clip_path

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.splits import PARTS, SPLITS, split_parts
from preprocess.clips.splits.folder import CORRUPT_CLIP_IDS
from preprocess.clips.vocabulary import (
    Vocabulary,
    most_frequent_tags,
    read_synonyms,
    resolve_vocabulary,
)
from tagger.base.errors import ConfigError


def read_magnatagatune(root, **params):
    return DATASETS.create("magnatagatune", params).index(Path(root))


def read_csv(root, text, **params):
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    (root / "clips.csv").write_bytes(content)
    return DATASETS.create("tag_csv", params).index(root)


def sizes(parts):
    counts = Counter(parts.tolist())
    return tuple(counts[part] for part in PARTS)


def rows_of(parts, part):
    return np.flatnonzero(parts == part).tolist()


def refusal(action, *wanted):
    """Check that the error of `action` holds each of `wanted` and a remedy."""
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    for text in wanted:
        assert text in message
    assert "\n" not in message
    assert len(message.split("; ", 1)[1]) > 3


# MagnaTagATune itself.


@pytest.fixture(scope="module")
def magnatagatune(shared):
    return read_magnatagatune(shared / "magnatagatune")


def test_magnatagatune_has_25863_clips_of_188_tags(magnatagatune):
    assert len(magnatagatune) == 25863
    assert len(magnatagatune.tags) == 188
    assert magnatagatune.labels.shape == (25863, 188)
    assert magnatagatune.labels.dtype == np.uint8


def test_a_clip_of_magnatagatune_is_what_the_reference_says_of_it(magnatagatune):
    row = [clip.id for clip in magnatagatune.clips].index("37386")
    clip = magnatagatune.clips[row]
    assert clip.path == "e/joram-moments_of_clarity-08-solipsism-59-88.mp3"
    assert clip.folder == "e"
    assert clip.track == "e/joram-moments_of_clarity-08-solipsism"
    assert clip.artist.lower() == "joram"
    tags = {magnatagatune.tags[column] for column in np.flatnonzero(magnatagatune.labels[row])}
    assert tags == {"no singer", "techno"}


READING = """
import sys
from pathlib import Path
from preprocess.clips.datasets import DATASETS
DATASETS.create("magnatagatune", {}).index(Path(sys.argv[1]))
print({name.partition(".")[0] for name in sys.modules})
"""


def test_a_process_that_reads_a_data_set_imports_nothing_heavy(tiny_corpus):
    environment = dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-c", READING, str(tiny_corpus)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"tensorflow", "tf_keras", "librosa", "scipy", "matplotlib", "soundfile"}
    assert ast.literal_eval(done.stdout) & heavy == set()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("folder", (18709, 1825, 5329)),
        ("pons2019", (18706, 1825, 5329)),
        ("won2020", (15247, 1529, 4332)),
    ],
)
def test_published_splits_have_their_published_sizes(magnatagatune, name, wanted):
    assert sizes(split_parts(magnatagatune, name)) == wanted


@pytest.mark.parametrize("part", PARTS)
def test_the_won_split_is_the_published_one_row_by_row(magnatagatune, shared, part):
    published = np.loadtxt(shared / "magnatagatune" / "splits" / f"won_{part}.txt", dtype=int)
    assert rows_of(split_parts(magnatagatune, "won2020"), part) == sorted(published.tolist())


def test_the_pons_split_leaves_out_the_corrupt_clips_alone(magnatagatune):
    parts = split_parts(magnatagatune, "pons2019")
    left_out = {magnatagatune.clips[row].id for row in rows_of(parts, "")}
    assert left_out == CORRUPT_CLIP_IDS == {"35644", "55753", "57881"}


def test_the_published_test_labels_are_those_of_the_won_split(magnatagatune, shared):
    folder = shared / "magnatagatune"
    published = np.load(folder / "reference" / "musicnn_mtat_won_test.npz")["gt"]
    rows = np.loadtxt(folder / "splits" / "won_test.txt", dtype=int)
    tags = (folder / "top50_tags.txt").read_text(encoding="utf-8").splitlines()
    labels = resolve_vocabulary(magnatagatune, tags).labels(
        magnatagatune.labels, magnatagatune.tags
    )
    np.testing.assert_array_equal(labels[rows], published)


def test_4752_clips_carry_no_top_50_tag(magnatagatune):
    vocabulary = resolve_vocabulary(magnatagatune, 50)
    labels = vocabulary.labels(magnatagatune.labels, magnatagatune.tags)
    assert (~labels.any(axis=1)).sum() == 4752


def test_the_top_50_is_the_published_one_but_for_the_order_of_a_tie(magnatagatune, shared):
    path = shared / "magnatagatune" / "top50_tags.txt"
    published = path.read_text(encoding="utf-8").splitlines()
    found = most_frequent_tags(magnatagatune, 50)
    assert set(found) == set(published)
    differing = {a for a, b in zip(found, published, strict=True) if a != b}
    assert differing <= {"female voice", "metal"}
    counts = dict(zip(magnatagatune.tags, magnatagatune.labels.sum(axis=0), strict=True))
    assert counts["female voice"] == counts["metal"] == 505


def test_folder_parts_share_no_track_but_artists(magnatagatune):
    parts = split_parts(magnatagatune, "folder")

    def keys(part, name):
        return {getattr(magnatagatune.clips[row], name) for row in rows_of(parts, part)}

    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        # A track lies in one folder, so its name without the folder must not come twice either.
        tracks = [{track.split("/", 1)[1] for track in keys(p, "track")} for p in (one, other)]
        assert not tracks[0] & tracks[1]
    shared_artists = (keys("train", "artist") & keys("test", "artist")) - {""}
    assert len(shared_artists) == 45


@pytest.mark.parametrize("seed", [0, 1])
def test_the_artist_split_shares_no_artist_and_has_the_shares_of_the_folders(magnatagatune, seed):
    parts = split_parts(magnatagatune, "artist", seed=seed)
    assert sum(sizes(parts)) == len(magnatagatune)
    part_of_artist = {}
    for clip, part in zip(magnatagatune.clips, parts, strict=True):
        if clip.artist:
            assert part_of_artist.setdefault(clip.artist, part) == part
    shares = np.array(sizes(parts)) / len(magnatagatune)
    np.testing.assert_allclose(shares, [12 / 16, 1 / 16, 3 / 16], atol=0.01)


def test_the_report_split_has_three_quarters_and_one(magnatagatune):
    train, validation, test = sizes(split_parts(magnatagatune, "random"))
    assert test == pytest.approx(25863 / 4, abs=1)
    assert validation == pytest.approx((train + validation) / 10, abs=1)
    assert train + validation + test == 25863


def test_the_scenes_have_640_clips_and_use_32_tags(shared, magnatagatune):
    index = read_magnatagatune(shared / "scenes")
    assert len(index) == 640
    assert index.tags == magnatagatune.tags
    assert index.labels.any(axis=0).sum() == 32
    assert sizes(split_parts(index, "folder")) == (480, 40, 120)
    missing = [clip.path for clip in index.clips if not (shared / "scenes" / clip.path).exists()]
    assert missing == []


# The layout of MagnaTagATune.


def write_annotations(root, rows, *, header=("clip_id", *TINY_TAGS, "mp3_path"), separator="\t"):
    lines = [separator.join(row) for row in [header, *rows]]
    (root / "annotations_final.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_corpus_in_that_layout_is_read_with_quotes_and_crlf(tiny_corpus):
    assert b'"\r\n' in (tiny_corpus / "annotations_final.csv").read_bytes()
    index = read_magnatagatune(tiny_corpus)
    assert index.tags == TINY_TAGS
    assert [clip.id for clip in index.clips] == [clip[0] for clip in TINY_CLIPS]
    assert [clip.path for clip in index.clips] == [clip_path(clip) for clip in TINY_CLIPS]
    assert [clip.artist for clip in index.clips] == [clip[3] for clip in TINY_CLIPS]
    assert ["".join(map(str, row)) for row in index.labels] == [clip[4] for clip in TINY_CLIPS]


def test_clips_of_one_track_share_its_key(tiny_corpus):
    tracks = [clip.track for clip in read_magnatagatune(tiny_corpus).clips]
    assert tracks[0] == tracks[1] == "0/ann-first-01-river"
    assert len(set(tracks)) == 7


def test_a_corpus_without_clip_info_has_no_artists(tiny_corpus):
    (tiny_corpus / "clip_info_final.csv").unlink()
    index = read_magnatagatune(tiny_corpus)
    assert len(index) == 8
    assert {clip.artist for clip in index.clips} == {""}


def test_a_name_without_times_is_a_track_of_its_own(tmp_path):
    write_annotations(tmp_path, [("1", "1", "0", "0", "a/song.mp3")])
    assert read_magnatagatune(tmp_path).clips[0].track == "a/song.mp3"


def test_the_tables_may_have_other_names(tiny_corpus):
    (tiny_corpus / "annotations_final.csv").rename(tiny_corpus / "labels.tsv")
    assert len(read_magnatagatune(tiny_corpus, annotations="labels.tsv")) == 8


def test_missing_annotations_are_refused_by_their_path(tmp_path):
    refusal(lambda: read_magnatagatune(tmp_path), "annotations_final.csv", "no such file")


def test_a_wrong_separator_is_refused(tmp_path):
    write_annotations(tmp_path, [("1", "1", "0", "0", "a/x.mp3")], separator=",")
    refusal(lambda: read_magnatagatune(tmp_path), "lacks the columns", "tab-separated")


@pytest.mark.parametrize("value", ["2", "", "yes", "1.0", " 1", "-1"])
def test_a_label_that_is_neither_0_nor_1_is_refused_by_clip_and_tag(tmp_path, value):
    write_annotations(
        tmp_path, [("7", "1", "0", "0", "a/x.mp3"), ("8", "0", value, "0", "a/y.mp3")]
    )
    refusal(lambda: read_magnatagatune(tmp_path), "'slow'", "clip 8", repr(value), "0 or 1")


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        pytest.param([("1", "0/x.mp3"), ("1", "0/y.mp3")], ("clip ids", "'1'"), id="id"),
        pytest.param([("1", "0/x.mp3"), ("2", "0/x.mp3")], ("paths", "'0/x.mp3'"), id="path"),
        pytest.param([("1", "../x.mp3")], ("'../x.mp3'", "data root"), id="out of the root"),
        pytest.param([("1", r"..\x.mp3")], ("data root",), id="out of the root on Windows"),
        pytest.param([("1", r"0\..\..\x.mp3")], ("data root",), id="hidden, on Windows"),
        pytest.param([("1", r"C:\x.mp3")], ("data root",), id="another drive"),
        pytest.param([("1", "C:/x.mp3")], ("data root",), id="another drive, with slashes"),
        pytest.param([("1", "gs://bucket/x.mp3")], ("data root",), id="another address"),
        pytest.param([("1", "0/../../x.mp3")], ("data root",), id="out of the root, hidden"),
        pytest.param([("1", "/etc/x.mp3")], ("data root",), id="absolute"),
        pytest.param([("1", "")], ("no path", "'1'"), id="no path"),
        pytest.param([("1", ".")], ("no path",), id="the root itself"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, rows, wanted):
    write_annotations(tmp_path, [(clip, "1", "0", "0", path) for clip, path in rows])
    refusal(lambda: read_magnatagatune(tmp_path), "annotations_final.csv", *wanted)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (("clip_id", "mp3_path"), "no tag columns"),
        (("clip_id", "rock", "rock", "mp3_path"), "columns that occur more than once: 'rock'"),
        (("clip_id", "rock", "path"), "lacks the column 'mp3_path'"),
        (("", "", ""), "columns that occur more than once"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, header, wanted):
    row = ["1", *["0"] * (len(header) - 2), "a/x.mp3"]
    write_annotations(tmp_path, [row], header=header)
    refusal(lambda: read_magnatagatune(tmp_path), wanted)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe\x00", id="no UTF-8"),
        pytest.param(b'clip_id\tmp3_path\n"1\ta/x.mp3\n', id="open quote"),
        pytest.param(b"clip_id\trock\tmp3_path\n1\t0\ta/x.mp3\t5\n", id="one field too many"),
        pytest.param(b"clip_id\trock\tmp3_path\n1\t0\n", id="one field too few"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "annotations_final.csv").write_bytes(content)
    refusal(lambda: read_magnatagatune(tmp_path), "annotations_final.csv")


# One's own data.


def test_a_row_of_path_and_tags_is_a_clip(tmp_path):
    index = read_csv(tmp_path, "path,tags\na/song.mp3,rock; fast\nb.wav,slow\nc.wav,\n")
    assert index.tags == ("fast", "rock", "slow")
    assert [clip.path for clip in index.clips] == ["a/song.mp3", "b.wav", "c.wav"]
    assert index.labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'\xef\xbb\xbfpath,tags\r\n"a, b.wav","rock;fast"\r\n', id="bom and crlf"),
        pytest.param(b'"path","tags"\n"a, b.wav",";rock;;fast;rock; "\n', id="empty tags"),
        pytest.param(b'tags,path\nfast;rock,"a, b.wav"\n', id="columns in other order"),
        pytest.param(b'path,tags\n"./a, b.wav",rock;fast\n', id="dot in the path"),
    ],
)
def test_the_ways_of_writing_a_csv_file_come_to_the_same(tmp_path, text):
    index = read_csv(tmp_path, text)
    assert index.tags == ("fast", "rock")
    assert index.clips[0].path == index.clips[0].id == "a, b.wav"
    assert index.labels.tolist() == [[1, 1]]


def test_tags_may_be_separated_otherwise_and_the_file_called_otherwise(tmp_path):
    (tmp_path / "mine.csv").write_text("path,tags\na.wav,rock|r;b\n", encoding="utf-8")
    made = DATASETS.create("tag_csv", {"file": "mine.csv", "tag_separator": "|"})
    assert made.index(tmp_path).tags == ("r;b", "rock")


def test_words_that_pandas_takes_for_missing_values_are_tags(tmp_path):
    assert read_csv(tmp_path, "path,tags\na.wav,NA;None\nb.wav,1\n").tags == ("1", "NA", "None")


def test_a_csv_file_gives_the_same_index_as_magnatagatunes_layout(tiny_corpus):
    wanted = read_magnatagatune(tiny_corpus)
    with (tiny_corpus / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "tags", "track", "artist", "album"])
        for clip, label in zip(wanted.clips, wanted.labels, strict=True):
            tags = ";".join(wanted.tags[column] for column in np.flatnonzero(label))
            writer.writerow([clip.path, tags, clip.track, clip.artist, clip.album])
    found = DATASETS.create("tag_csv", {}).index(tiny_corpus)
    assert found.tags == wanted.tags
    np.testing.assert_array_equal(found.labels, wanted.labels)
    assert found.clips == [replace(clip, id=clip.path) for clip in wanted.clips]
    for name in ("folder", "random", "artist"):
        np.testing.assert_array_equal(split_parts(found, name), split_parts(wanted, name))


def test_the_column_part_is_a_split(tmp_path):
    text = "path,tags,part\na.wav,x,train\nb.wav,x,test\nc.wav,x,\nd.wav,x,validation\n"
    parts = split_parts(read_csv(tmp_path, text), "column")
    assert parts.tolist() == ["train", "test", "", "validation"]


def test_a_split_by_column_without_one_is_refused(tmp_path):
    index = read_csv(tmp_path, "path,tags\na.wav,x\n")
    refusal(lambda: split_parts(index, "column"), "column part", "clips.csv")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("path;tags\na.wav;x\n", ("lacks the columns 'path', 'tags'", "comma-separated")),
        ("path,tags,genre\na.wav,x,y\n", ("unknown columns genre",)),
        ("path,tags\na.wav,\nb.wav,\n", ("no clip has a tag",)),
        ("path,tags\n", ("no clip has a tag",)),
        ("path,tags\na.wav,x\na.wav,y\n", ("'a.wav'", "more than once")),
        ("path,tags\na.wav,x\n./a.wav,y\n", ("'a.wav'", "more than once")),
        ("path,tags\n../a.wav,x\n", ("'../a.wav'", "data root")),
        ("path,tags\n/a.wav,x\n", ("'/a.wav'", "data root")),
        ("path,tags\n,x\n", ("no path",)),
        ("path,tags,part\na.wav,x,dev\n", ("a.wav", "'dev'", "train, validation or test")),
        ("path,tags\na.wav,x,train\n", ("not readable as a table",)),
        ("path,tags,tags\na.wav,x,y\n", ("'tags'", "more than once")),
        ("", ("not readable as a table",)),
        (b"path,tags\n\xff.wav,x\n", ("is no UTF-8",)),
    ],
)
def test_a_csv_file_that_is_none_is_refused(tmp_path, text, wanted):
    refusal(lambda: read_csv(tmp_path, text), "clips.csv", *wanted)


def test_a_missing_csv_file_is_refused_by_its_path(tmp_path):
    made = DATASETS.create("tag_csv", {})
    refusal(lambda: made.index(tmp_path), str(tmp_path / "clips.csv"), "no such file")


def test_an_unknown_data_set_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'gtzam' \(did you mean gtzan\?\); known: .*gtzan, "):
        DATASETS.create("gtzam", {})


# Splits in general.


def index_of(n_clips, *, artists=0, folders="0123456789abcdef"):
    clips = [
        ClipRecord(
            str(row), f"{folders[row % len(folders)]}/{row}.mp3",
            artist=f"artist {row % artists}" if artists else "",
        )
        for row in range(n_clips)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    return ClipIndex(("a", "b"), clips, rng.integers(0, 2, (n_clips, 2)).astype(np.uint8))


OF_GTZAN = {"fault_filtered", "artist_folds"}


@pytest.mark.parametrize("name", sorted(set(SPLITS.names()) - {"column", *OF_GTZAN}))
def test_a_split_is_the_same_for_the_same_seed(name):
    index = index_of(200, artists=40)
    first = split_parts(index, name, seed=5)
    np.testing.assert_array_equal(first, split_parts(index, name, seed=5))
    assert set(first) <= {*PARTS, ""}


@pytest.mark.parametrize("name", ["random", "artist"])
def test_a_split_that_draws_depends_on_the_seed(name):
    index = index_of(200, artists=40)
    drawn = {split_parts(index, name, seed=seed).tobytes() for seed in range(5)}
    assert len(drawn) == 5


@settings(max_examples=30, deadline=None)
@given(n_clips=st.integers(20, 200), artists=st.integers(3, 60), seed=st.integers(0, 10**6))
def test_the_artist_split_does_not_depend_on_the_order_of_the_clips(n_clips, artists, seed):
    index = index_of(n_clips, artists=artists)
    shuffled = np.random.default_rng(seed).permutation(n_clips)
    parts = split_parts(index, "artist", seed=seed)
    np.testing.assert_array_equal(
        split_parts(index.subset(shuffled), "artist", seed=seed), parts[shuffled]
    )


def test_clips_without_an_artist_are_kept_together_by_track():
    clips = [ClipRecord(str(n), f"{n}.wav", track=f"track {n // 4}") for n in range(80)]
    clips[0] = replace(clips[0], artist="someone")
    index = ClipIndex(("a",), clips, np.ones((80, 1), np.uint8))
    parts = split_parts(index, "artist")
    for first in range(4, 80, 4):
        assert len(set(parts[first : first + 4])) == 1


@pytest.mark.parametrize(
    ("index", "name", "wanted"),
    [
        (index_of(4), "artist", "needs artists"),
        (index_of(4, folders="xyz"), "folder", "'x', 'y', 'z'"),
        (index_of(4, folders="xyz"), "won2020", "folders 0..f"),
        (index_of(4), "by_chance", "unknown split 'by_chance'"),
        (index_of(4), "report", "is called 'random' here"),
        (index_of(4), "column", "column part"),
    ],
)
def test_a_split_that_the_data_do_not_allow_is_refused(index, name, wanted):
    refusal(lambda: split_parts(index, name), wanted)


# Vocabularies.


@pytest.fixture
def index():
    """Twelve clips: 'metal' and 'loud' tie in frequency, 'rare' comes once."""
    labels = np.zeros((12, 4), np.uint8)
    labels[:5, 0] = labels[4:9, 1] = labels[:8, 2] = labels[11:, 3] = 1
    clips = [ClipRecord(str(row), f"{row}.wav") for row in range(12)]
    return ClipIndex(("metal", "loud", "guitar", "rare"), clips, labels, "test.csv")


def test_all_tags_are_those_of_the_columns(index):
    vocabulary = resolve_vocabulary(index, "all")
    assert vocabulary.tags == index.tags
    assert len(vocabulary) == 4
    np.testing.assert_array_equal(vocabulary.labels(index.labels, index.tags), index.labels)


def test_a_number_of_tags_is_the_most_frequent_with_ties_by_column(index):
    assert resolve_vocabulary(index, 3).tags == ("guitar", "metal", "loud")
    assert resolve_vocabulary(index, 2).tags == ("guitar", "metal")


def test_a_list_of_tags_keeps_its_order(index):
    vocabulary = resolve_vocabulary(index, ["rare", "metal"])
    assert vocabulary.tags == ("rare", "metal")
    labels = vocabulary.labels(index.labels, index.tags)
    np.testing.assert_array_equal(labels, index.labels[:, [3, 0]])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (0, "give 1 to 4"),
        (-1, "give 1 to 4"),
        (5, "give 1 to 4"),
        (["metal", "jazz", "soul"], "has no tag 'jazz', 'soul'"),
        (["metal", "metal"], "'metal'"),
        ([], "empty list"),
        ("top50", "'top50'"),
    ],
)
def test_an_impossible_vocabulary_is_refused(index, wanted, message):
    refusal(lambda: resolve_vocabulary(index, wanted), "data.tags", message)


def test_synonyms_are_not_merged_unless_they_are_given(index):
    assert resolve_vocabulary(index, "all").members == (
        ("metal",),
        ("loud",),
        ("guitar",),
        ("rare",),
    )


def test_synonyms_merge_columns_where_a_clip_carries_either(index):
    synonyms = {"heavy": ["metal", "loud"]}
    vocabulary = resolve_vocabulary(index, "all", synonyms=synonyms)
    assert vocabulary.tags == ("heavy", "guitar", "rare")
    labels = vocabulary.labels(index.labels, index.tags)
    np.testing.assert_array_equal(labels[:, 0], index.labels[:, 0] | index.labels[:, 1])
    assert labels.dtype == np.uint8


def test_merged_tags_are_counted_as_one(index):
    # 5 + 5 clips, one of them with both: 9 against guitar's 8.
    vocabulary = resolve_vocabulary(index, 1, synonyms={"heavy": ["metal", "loud"]})
    assert vocabulary.tags == ("heavy",)


def test_a_merged_column_is_no_tag_of_its_own_any_more(index):
    synonyms = {"heavy": ["metal", "loud"]}
    refusal(lambda: resolve_vocabulary(index, ["metal"], synonyms=synonyms), "no tag 'metal'")


def test_labels_are_found_by_name_in_whatever_order_the_columns_are(index):
    vocabulary = Vocabulary(("heavy", "rare"), (("metal", "loud"), ("rare",)))
    wanted = vocabulary.labels(index.labels, index.tags)
    order = [2, 3, 1, 0]
    shuffled = [index.tags[column] for column in order]
    np.testing.assert_array_equal(vocabulary.labels(index.labels[:, order], shuffled), wanted)


def test_data_without_a_column_of_the_vocabulary_are_refused(index):
    vocabulary = Vocabulary(("jazz",), (("jazz",),))
    refusal(lambda: vocabulary.labels(index.labels, index.tags), "no tag 'jazz'")


def test_a_synonym_map_is_read_and_holds_the_tag_itself(tmp_path):
    path = tmp_path / "synonyms.yaml"
    path.write_text("classical: [classic, clasical]\nvocal: [vocal, vocals]\n", encoding="utf-8")
    assert read_synonyms(path) == {
        "classical": ["classical", "classic", "clasical"],
        "vocal": ["vocal", "vocals"],
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "synonym map"),
        ("- a\n- b\n", "synonym map"),
        ("a: b\n", "synonym map"),
        ("a: []\n", "synonym map"),
        ("a: [1]\n", "synonym map"),
        ("a: [b\n", "not valid YAML"),
        ("a: [x]\nb: [x]\n", "'x'"),
        ("a: [b]\nb: [c]\n", "'b'"),
    ],
)
def test_a_synonym_map_that_is_none_is_refused(tmp_path, text, wanted):
    path = tmp_path / "synonyms.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_synonyms(path)
    assert str(path) in str(caught.value)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_synonym_map_is_refused(tmp_path):
    refusal(lambda: read_synonyms(tmp_path / "none.yaml"), "none.yaml", "data.synonyms")


# The index itself.


def test_a_subset_keeps_clips_and_labels_together(index):
    part = index.subset([11, 0])
    assert [clip.id for clip in part.clips] == ["11", "0"]
    np.testing.assert_array_equal(part.labels, index.labels[[11, 0]])


def test_labels_of_another_shape_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="shape"):
        ClipIndex(("a",), [ClipRecord("1", "a.wav")], np.zeros((2, 1), np.uint8))


@pytest.mark.parametrize(("path", "folder"), [("a/b/c.mp3", "a"), ("c.mp3", ""), ("0/c.mp3", "0")])
def test_the_folder_of_a_clip_is_the_first_of_its_path(path, folder):
    assert ClipRecord("1", path).folder == folder


def test_ten_repeats_are_named_in_part_and_counted():
    clips = [ClipRecord(str(row // 2), f"{row}.wav") for row in range(20)]
    with pytest.raises(ConfigError, match=r"'0', '1', '2', '3', '4' and 5 more"):
        ClipIndex(("a",), clips, np.zeros((20, 1), np.uint8))


@pytest.mark.parametrize(
    ("tags", "members"),
    [(("a", "b"), (("a",),)), (("a",), ((),)), (("a",), ((1,),)), ((1,), (("a",),))],
)
def test_a_vocabulary_without_names_for_its_columns_is_refused(tags, members):
    with pytest.raises(ValueError):
        Vocabulary(tags, members)


@pytest.mark.parametrize("split", ["folder", "pons2019", "won2020", "random"])
def test_no_clips_at_all_are_in_no_part(split):
    index = ClipIndex(("a",), [], np.zeros((0, 1), np.uint8))
    assert split_parts(index, split).tolist() == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_is_read_in_the_encodings_of_spreadsheets(tmp_path, encoding):
    index = read_csv(tmp_path, "path,tags\nÜ.wav,Fußball;rock\n".encode(encoding))
    assert (index.tags, index.clips[0].path) == (("Fußball", "rock"), "Ü.wav")


def test_a_csv_in_an_encoding_that_does_not_tell_is_refused_with_the_remedy(tmp_path):
    content = "path,tags\na.wav,Fußball\n".encode("cp1252")
    refusal(lambda: read_csv(tmp_path, content), "is no UTF-8", "save it as UTF-8")
