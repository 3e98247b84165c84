"""Promises of tables of features: rows, values, and segments of one clip on one side alone."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.clips.datasets import DATASETS
from preprocess.clips.datasets.feature_table import feature_values
from preprocess.clips.splits import SPLITS, split_parts
from tagger.base.errors import ConfigError

GROUP = r"^(\w+\.\d+)"
ROWS = (
    "blues.00000.0.wav,66149,1.5,-2e3,blues",
    "blues.00000.1.wav,66149,2.5,0,blues",
    "rock.00007.0.wav,66149,3,7,rock",
)
HEADER = "filename,length,tempo,rms,label"


def read(root, *, header=HEADER, rows=ROWS, **params):
    (root / "t.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return feature_values(root, {"files": ["t.csv"], "group": GROUP, **params})


def refusal(action, message):
    with pytest.raises(ConfigError, match=message) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said
    assert len(said.split("; ", 1)[1]) > 3


def test_a_row_is_a_segment_of_the_clip_that_the_pattern_finds(tmp_path):
    table = read(tmp_path)
    assert table.columns == ("tempo", "rms")
    assert table.values.dtype == np.float32
    assert table.values.tolist() == [[1.5, -2000], [2.5, 0], [3, 7]]
    assert table.index.tags == ("blues", "rock")
    assert table.index.labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert [clip.id for clip in table.index.clips] == [row.split(",")[0] for row in ROWS]
    assert [clip.track for clip in table.index.clips] == ["blues.00000"] * 2 + ["rock.00007"]
    alone = DATASETS.create("feature_table", {"files": ["t.csv"], "group": GROUP}).index(tmp_path)
    assert alone.clips == table.index.clips


def test_columns_come_in_the_order_that_is_asked_for_whatever_the_file_has(tmp_path):
    assert read(tmp_path, columns=["rms", "tempo"]).values[0].tolist() == [-2000, 1.5]
    assert read(tmp_path, columns=["length"]).values[0].tolist() == [66149]
    assert read(tmp_path, ignore=["length", "rms"]).columns == ("tempo",)


def test_several_files_are_one_table_by_the_names_of_their_columns(tmp_path):
    (tmp_path / "more.csv").write_text("label,rms,filename,tempo\npop,8,pop.00001.0.wav,9\n")
    table = read(tmp_path, files=["t.csv", "more.csv"])
    assert table.values[3].tolist() == [9, 8]
    assert table.index.tags == ("blues", "pop", "rock")
    (tmp_path / "more.csv").write_text("label,rms,filename,pitch\npop,8,pop.00001.0.wav,9\n")
    refusal(
        lambda: read(tmp_path, files=["t.csv", "more.csv"]),
        r"more\.csv: .*t\.csv and this file do not both have the column 'pitch'; name",
    )


# Replaced text, what takes its place, and what is said.
FAULTS = {
    "missing": (",2.5,", ",,", "column 'tempo' of row 'blues.00000.1.wav' has no value; fill it"),
    "nan": (",2.5,", ",NaN,", "row 'blues.00000.1.wav' has no value; fill it"),
    "text": (",2.5,", ",fast,", "'blues.00000.1.wav' holds 'fast', which is no finite number; "),
    "infinite": (",2.5,", ",inf,", "holds 'inf', which is no finite number; correct"),
    "too large": (",2.5,", ",1e39,", "holds '1e39', which is no finite number; correct"),
    "all text": ("66149", "sad", "'length_s' .* 'sad', .* in 2 more rows; correct it, or add"),
    "no label": ("0,blues", "0,", "row 'blues.00000.1.wav' has no label; fill it"),
    "no name": ("rock.00007.0.wav", "", "row 3 has no file name; fill it"),
    "no clip": ("rock.00007.0.wav", "rock", "finds no clip in 'rock'; change the pattern"),
    "repeated": ("0.1.wav", "0.0.wav", "occur more than once: 'blues.00000.0.wav'; keep one"),
    "two labels": ("0,blues", "0,rock", "'blues.00000' have the labels 'blues' and 'rock'; corr"),
    "row numbers": ("tempo", "", "column 3 has no name and may number the rows; name it"),
    "other names": ("label", "genre", "lacks the column 'label' .*; set data.params.name"),
    "twice": ("tempo", "rms", "columns that occur more than once: 'rms'; keep one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_with_a_fault_is_refused_by_file_row_and_remedy(tmp_path, fault):
    old, new, wanted = FAULTS[fault]
    header = HEADER.replace("length", "length_s") if fault == "all text" else HEADER
    header, *rows = "\n".join([header, *ROWS]).replace(old, new).splitlines()
    refusal(lambda: read(tmp_path, header=header, rows=rows), rf"t\.csv: .*{wanted}")


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        (
            {"columns": ["tempo", "pitch"]},
            r"has no column 'pitch'; it has filename, .*; check data",
        ),
        ({"ignore": ["pitch"]}, "has no column 'pitch'; it has"),
        ({"columns": ["tempo", "label"]}, "'label' says which row it is, not how it sounds; rem"),
        ({"columns": ["tempo", "tempo"]}, "more than once: 'tempo'; keep"),
        ({"ignore": ["tempo", "rms", "length"]}, "has no columns of values; check"),
        ({"part": "part"}, "lacks the column 'part'"),
        ({"part": "tempo"}, "has the part '1.5'; use train"),
        (
            {"label": "rms", "ignore": ["label"], "label_names": ["a"]},
            "has the label '-2e3', .*; give a name",
        ),
    ],
)
def test_columns_that_are_not_there_or_no_values_are_refused(tmp_path, params, wanted):
    refusal(lambda: read(tmp_path, **params), wanted)


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"group": "("}, "is no regular expression"),
        ({"files": []}, "files"),
        ({"files": ["t.csv"], "group": None}, "group"),
    ],
)
def test_parameters_that_are_none_are_refused(tmp_path, params, wanted):
    with pytest.raises(ConfigError, match=f"parameters of data set 'feature_table': .*{wanted}"):
        read(tmp_path, **params)


# Archives of arrays.


def write_npz(root, **arrays):
    content = {
        "X": np.arange(8, dtype=np.float64).reshape(4, 2),
        "Y": np.array([0, 0, 1, 1]),
        "IDS": np.array(["blues/blues.00001.au"] * 2 + ["rock/rock.00002.au"] * 2),
        **arrays,
    }
    np.savez(root / "t.npz", **content)
    return {"files": ["t.npz"], "name": "IDS", "label": "Y", "group": r"/(\w+\.\d+)"}


def test_windows_in_a_npz_file_are_told_apart_and_labels_get_names(tmp_path):
    table = feature_values(tmp_path, {**write_npz(tmp_path), "label_names": ["blues", "rock"]})
    assert table.columns == ("X_0", "X_1")
    assert table.values.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert table.index.tags == ("blues", "rock")
    assert table.index.clips[1].id == "blues/blues.00001.au#1"
    assert [clip.track for clip in table.index.clips] == ["blues.00001"] * 2 + ["rock.00002"] * 2
    chosen = feature_values(tmp_path, {**write_npz(tmp_path), "columns": ["X_1"]})
    assert chosen.values.tolist() == [[1], [3], [5], [7]]


@pytest.mark.parametrize(
    ("arrays", "params", "wanted"),
    [
        ({}, {"files": ["gone.npz"]}, r"gone\.npz: no such file; set data\.root"),
        ({}, {"array": "Z"}, r"t\.npz: has no array 'Z'; it has IDS, X, Y; set data"),
        ({"X": np.zeros((3, 2))}, {}, r"X is float64\[3, 2\]; data\.params\.array"),
        ({"X": np.zeros(4)}, {}, r"X is float64\[4\]; data\.params\.array"),
        ({"X": np.full((4, 2), "a")}, {}, "X is <U1.*; data"),
        ({"X": np.full((4, 2), np.nan)}, {}, "column 0 of row 'blues/blues.00001.au' holds nan; "),
        ({"X": np.array([[None] * 2] * 4)}, {}, r"t\.npz: cannot be read .*; give"),
    ],
)
def test_a_npz_file_with_a_fault_is_refused(tmp_path, arrays, params, wanted):
    given = write_npz(tmp_path, **arrays)
    refusal(lambda: feature_values(tmp_path, {**given, **params}), wanted)


# Segments and splits.


@pytest.fixture
def segments(tmp_path):
    """Forty clips of ten segments each, in their own order."""
    order = np.random.default_rng(0).permutation(400)
    rows = [f"x.{n // 10:05d}.{n % 10}.wav,1,{n},{n},{'ab'[n // 200]}" for n in order]
    return read(tmp_path, rows=rows).index


@pytest.mark.parametrize(
    ("split", "params"),
    [
        ("random", {}),
        ("k_fold", {}),
        ("k_fold", {"group": "none"}),
        ("k_fold", {"group": "track"}),
    ],
)
def test_segments_of_one_clip_are_never_parted(segments, split, params):
    parts = split_parts(segments, split, params=params)
    assert set(parts) == {"train", "validation", "test"}
    part_of = {}
    for clip, part in zip(segments.clips, parts, strict=True):
        assert part_of.setdefault(clip.track, part) == part


def test_a_split_that_parts_segments_is_refused_unless_its_name_says_so(tmp_path, capsys):
    header = f"{HEADER},part"
    rows = [f"{row},{part}" for row, part in zip(ROWS, ("train", "test", "test"), strict=True)]
    index = read(tmp_path, header=header, rows=rows, part="part").index
    refusal(
        lambda: split_parts(index, "column"),
        r"t\.csv: split 'column' puts segments of 'blues\.00000' into train and test; give",
    )
    split_parts(index, "leaky_segments", params={"folds": 2})
    assert "tests segments of clips that it also trains on" in capsys.readouterr().err
    leaking = [name for name in SPLITS.names() if SPLITS.get(name).leaks_segments]
    assert leaking == ["leaky_segments"]


def test_parts_of_a_column_are_those_of_its_rows(tmp_path):
    rows = [f"{row},{part}" for row, part in zip(ROWS, ("train", "train", ""), strict=True)]
    index = read(tmp_path, header=f"{HEADER},part", rows=rows, part="part").index
    assert split_parts(index, "column").tolist() == ["train", "train", ""]


def test_a_table_of_one_row_per_clip_has_nothing_to_leak(tmp_path, capsys):
    index = read(tmp_path, rows=ROWS[1:]).index
    split_parts(index, "leaky_segments", params={"folds": 2})
    assert "tests segments" not in capsys.readouterr().err


# The tables of GTZAN.


@pytest.mark.parametrize(
    ("file", "n_rows"),
    [("features_30_sec", 1000), ("features_3_sec_part", 8584), ("features_10_sec", 2991)],
)
def test_the_tables_of_gtzan_are_data_sets(shared, file, n_rows):
    table = feature_values(shared / "gtzan", {"files": [f"{file}.csv"], "group": GROUP})
    assert table.values.shape == (n_rows, 57)
    assert len({clip.track for clip in table.index.clips}) == 1000
    parts = split_parts(table.index, "fault_filtered")
    tracks = np.array([clip.track for clip in table.index.clips])
    found = [len(set(tracks[parts == part])) for part in ("train", "validation", "test")]
    assert found == [443, 197, 290]


def test_the_taggrams_of_gtzan_are_a_data_set(shared):
    params = {
        "files": ["musicnn_taggrams_train.npz", "musicnn_taggrams_test.npz"],
        "name": "IDS", "label": "Y", "group": GROUP.replace("^", "/"),
    }  # fmt: skip
    table = feature_values(shared / "gtzan", params)
    assert table.values.shape == (20542, 50)
    parts = split_parts(table.index, "fault_filtered", params={"incomplete": True})
    assert [(parts == part).sum() for part in ("train", "test")] == [12415, 8127]


def test_segments_on_both_sides_are_worth_twenty_points_of_accuracy(shared):
    """Of the nearest neighbour; figures of all folds are in docs/genres.md."""
    params = {"files": ["features_3_sec_part.csv"], "group": GROUP}
    table = feature_values(shared / "gtzan", params)
    genre = table.index.labels.argmax(axis=1)
    accuracy = {}
    for split in ("leaky_segments", "k_fold"):
        parts = split_parts(table.index, split, params={"validation": False})
        train, test = parts == "train", parts == "test"
        values = (table.values - table.values[train].mean(0)) / table.values[train].std(0)
        distances = (values[train] ** 2).sum(1) - 2 * values[test] @ values[train].T
        accuracy[split] = (genre[train][distances.argmin(1)] == genre[test]).mean()
    assert accuracy["leaky_segments"] > 0.88
    assert accuracy["leaky_segments"] - accuracy["k_fold"] > 0.2
