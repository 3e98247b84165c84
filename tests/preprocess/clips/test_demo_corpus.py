"""Promises of the synthesised demo corpus."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import soundfile as sf
from scipy import signal
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from preprocess.clips.demo_corpus import SAMPLE_RATE, TAGS, plan, render, write_demo_corpus
from preprocess.clips.demo_corpus.corpus import FOLDERS

SPLIT_PARTS = {"training": "0123456789ab", "validation": "c", "test": "def"}
PARAMETERS = {"n_clips": 32, "clip_seconds": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_demo_corpus(root, **PARAMETERS)
    return root


def read_rows(path):
    with path.open(newline="", encoding="ascii") as f:
        return list(csv.DictReader(f, delimiter="\t"))


def snapshot(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# Plan


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("part", SPLIT_PARTS)
def test_every_tag_has_two_positives_and_two_negatives_in_every_part(part, seed):
    clips = [c for c in plan(256, seed) if c.folder in SPLIT_PARTS[part]]
    for tag in TAGS:
        n_positive = sum(tag in c.tags for c in clips)
        assert 2 <= n_positive <= len(clips) - 2, tag


def test_every_folder_has_the_same_number_of_clips():
    folders = [c.folder for c in plan(64, 0)]
    assert {f: folders.count(f) for f in FOLDERS} == dict.fromkeys(FOLDERS, 4)


def test_tags_agree_with_what_plays_and_each_clip_has_several():
    for clip in plan(256, 0):
        playing = set(clip.instruments)
        assert 1 <= len(playing) == len(clip.instruments) <= 3
        expected = {*playing, clip.tempo}
        expected |= set() if "drums" in playing else {"no drums"}
        expected |= {"solo"} if len(playing) == 1 else set()
        assert clip.tags == expected <= set(TAGS)
        assert len(clip.tags) >= 3
        assert len({"fast", "slow"} & clip.tags) == 1


def test_an_artist_stays_within_one_folder():
    for n_clips in (16, 80, 256):
        folders: dict[int, set[str]] = {}
        for clip in plan(n_clips, 0):
            folders.setdefault(clip.artist, set()).add(clip.folder)
        assert all(len(f) == 1 for f in folders.values())


def test_ids_and_paths_are_unique():
    clips = plan(256, 0)
    assert len({c.clip_id for c in clips}) == len({c.mp3_path for c in clips}) == 256


def test_another_seed_gives_another_plan():
    assert plan(32, 0) == plan(32, 0) != plan(32, 1)


@pytest.mark.parametrize("n_clips", [0, -16, 17])
def test_a_number_of_clips_that_does_not_fill_the_folders_is_refused(n_clips):
    with pytest.raises(ValueError, match="multiple of 16"):
        plan(n_clips, 0)


# Audio


def test_a_seed_and_a_clip_give_one_waveform():
    first, second = plan(16, 0)[:2]
    wave = render(first, 1.0, seed=0)
    np.testing.assert_array_equal(wave, render(first, 1.0, seed=0))
    assert not np.array_equal(wave, render(first, 1.0, seed=1))
    assert not np.array_equal(wave, render(second, 1.0, seed=0))


def test_no_clip_is_silent_anywhere_or_clipped():
    for clip in plan(96, 0):
        wave = render(clip, 4.0, seed=0)
        assert wave.dtype == np.float32 and wave.shape == (4 * SAMPLE_RATE,)
        assert 0.49 < np.abs(wave).max() <= 0.81
        # The slowest beat is 1.3 s long.
        parts = wave[: 3 * 21333].reshape(3, 21333)
        assert np.sqrt(np.mean(parts**2, axis=1)).min() > 0.01


def features(wave):
    """Mean level, its spread, and its change from frame to frame, in 64 bands."""
    _, _, power = signal.spectrogram(wave, SAMPLE_RATE, nperseg=512, noverlap=256)
    level_db = 10 * np.log10(power[1:].reshape(64, 4, -1).mean(axis=1) + 1e-8)
    change = np.abs(np.diff(level_db)).mean(axis=1)
    return np.concatenate([level_db.mean(axis=1), level_db.std(axis=1), change])


@pytest.fixture(scope="module")
def heard():
    """What a forest has learned of the tags from some clips, tried on others: labels, scores."""
    clips = plan(256, 0)
    x = np.array([features(render(clip, 2.0, seed=0)) for clip in clips])
    y = np.array([[tag in clip.tags for tag in TAGS] for clip in clips])
    forest = RandomForestClassifier(200, random_state=0).fit(x[:160], y[:160])
    scores = np.stack([p[:, 1] for p in forest.predict_proba(x[160:])], axis=1)
    return y[160:], scores


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_can_be_heard(tag, heard):
    labels, scores = (values[:, TAGS.index(tag)] for values in heard)
    assert roc_auc_score(labels, scores) > 0.7


@pytest.mark.parametrize("tempo", ["fast", "slow"])
def test_notes_begin_on_the_beats_of_the_tempo(tempo):
    (low_bpm, high_bpm) = {"slow": (45, 60), "fast": (150, 180)}[tempo]
    clips = [c for c in plan(256, 0) if c.tempo == tempo and c.tags >= {"solo", "guitar"}]
    for clip in clips:
        wave = render(clip, 8.0, seed=0)
        level = np.sqrt(np.mean(wave.reshape(-1, 160) ** 2, axis=1))
        rises = np.maximum(np.diff(level), 0.0)
        onsets = np.flatnonzero(rises > 0.3 * rises.max())
        gap_s = np.median([d for d in np.diff(onsets) if d > 10]) / 100
        assert 60 / high_bpm - 0.03 <= gap_s <= 60 / low_bpm + 0.03


# Files


def test_the_folders_hold_the_planned_files_and_nothing_else(small_corpus):
    found = {p.relative_to(small_corpus).as_posix() for p in small_corpus.rglob("*.*")}
    tables = {"annotations_final.csv", "clip_info_final.csv", "demo_corpus.json"}
    assert found == {c.mp3_path for c in plan(32, 3)} | tables
    assert {p.name for p in small_corpus.iterdir() if p.is_dir()} == set(FOLDERS)


@pytest.mark.parametrize("name", ["annotations_final.csv", "clip_info_final.csv"])
def test_tables_are_tab_separated_with_every_field_quoted_and_crlf(small_corpus, name):
    data = (small_corpus / name).read_bytes()
    assert data.endswith(b"\r\n") and data.count(b"\n") == data.count(b"\r\n") == 33
    for line in data.decode("ascii").split("\r\n")[:-1]:
        for field in line.split("\t"):
            assert field[0] == field[-1] == '"' and '"' not in field[1:-1]


def test_the_annotations_hold_the_planned_tags(small_corpus):
    rows = read_rows(small_corpus / "annotations_final.csv")
    assert list(rows[0]) == ["clip_id", *TAGS, "mp3_path"]
    for row, clip in zip(rows, plan(32, 3), strict=True):
        assert (int(row["clip_id"]), row["mp3_path"]) == (clip.clip_id, clip.mp3_path)
        assert {row[t] for t in TAGS} <= {"0", "1"}
        assert {t for t in TAGS if row[t] == "1"} == clip.tags


def test_clip_info_describes_every_annotated_clip_once(small_corpus):
    rows = read_rows(small_corpus / "clip_info_final.csv")
    annotated = read_rows(small_corpus / "annotations_final.csv")
    columns = "clip_id track_number title artist album url segmentStart segmentEnd original_url"
    assert list(rows[0]) == [*columns.split(), "mp3_path"]
    assert [(r["clip_id"], r["mp3_path"]) for r in rows] == [
        (r["clip_id"], r["mp3_path"]) for r in annotated
    ]


def test_files_decode_to_mono_16_khz_of_the_right_duration(small_corpus):
    for clip in plan(32, 3):
        wave, rate = sf.read(small_corpus / clip.mp3_path)
        assert rate == SAMPLE_RATE and wave.ndim == 1
        assert abs(wave.size / rate - 1.0) <= 0.1
        assert 0.05 < np.abs(wave).max() <= 1.0


def test_a_corpus_that_was_cut_short_is_completed_and_what_is_there_is_kept(tmp_path, small_corpus):
    counts: list[int] = []
    write_demo_corpus(tmp_path, **PARAMETERS)
    lost, kept = sorted(tmp_path.glob("*/*.mp3"))[:2]
    lost.unlink()
    (tmp_path / "annotations_final.csv").unlink()
    os.utime(kept, ns=(0, 0))
    path = write_demo_corpus(tmp_path, on_clip=counts.append, **PARAMETERS)
    assert path == tmp_path / "annotations_final.csv"
    assert counts == list(range(1, 33))
    assert snapshot(tmp_path) == snapshot(small_corpus)
    assert kept.stat().st_mtime_ns == 0


def test_the_annotations_come_last(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("preprocess.clips.demo_corpus.corpus.render", fail)
    with pytest.raises(OSError, match="no space left"):
        write_demo_corpus(tmp_path, **PARAMETERS)
    assert not (tmp_path / "annotations_final.csv").exists()


def test_other_parameters_replace_the_corpus(tmp_path):
    write_demo_corpus(tmp_path, n_clips=32, clip_seconds=0.5)
    write_demo_corpus(tmp_path, n_clips=16, clip_seconds=0.5, seed=1)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*")}
    assert found == {c.mp3_path for c in plan(16, 1)}
    assert len(read_rows(tmp_path / "annotations_final.csv")) == 16


def test_annotations_of_another_data_set_are_not_overwritten(tmp_path):
    table = tmp_path / "annotations_final.csv"
    table.write_text("precious")
    with pytest.raises(FileExistsError):
        write_demo_corpus(tmp_path, n_clips=16, clip_seconds=0.5)
    assert table.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [table]
