"""Promises of the synthesised demo corpus."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy import signal

from preprocess.clips.demo_corpus import TAGS, plan, render, write_demo_corpus
from preprocess.clips.demo_corpus import corpus as corpus_module
from preprocess.clips.demo_corpus.instruments import (
    FORMANTS_HZ,
    bass_note,
    blow_wind,
    flute_note,
    organ_chord,
    pluck_string,
    sing,
    strike_bar,
)
from preprocess.clips.demo_corpus.parts import play
from preprocess.clips.demo_corpus.recipes import FOLDERS, SOURCES

RATE = 16000
SPLIT_PARTS = {"training": "0123456789ab", "validation": "c", "test": "def"}


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_demo_corpus(root, n_clips=32, clip_seconds=1.0, seed=3, n_workers=1)
    return root


def read_rows(path):
    with path.open(newline="", encoding="ascii") as f:
        return list(csv.DictReader(f, delimiter="\t"))


def snapshot(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def power_spectrum(wave):
    return signal.welch(wave, RATE, nperseg=2048)


def power_between(wave, low_hz, high_hz):
    f, power = power_spectrum(wave)
    return power[(f >= low_hz) & (f < high_hz)].sum()


def strongest_hz(wave, low_hz, high_hz):
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size), 8 * wave.size))
    f = np.fft.rfftfreq(8 * wave.size, 1 / RATE)
    spectrum[(f < low_hz) | (f > high_hz)] = 0.0
    return f[spectrum.argmax()]


def cents(a_hz, b_hz):
    return 1200 * np.log2(a_hz / b_hz)


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


def test_clips_have_a_few_tags_each_on_average():
    assert 2 <= np.mean([len(c.tags) for c in plan(256, 0)]) <= 7


def test_no_source_is_buried_in_the_mix():
    for clip in plan(256, 0):
        levels = [s.level_db for s in clip.sources]
        assert max(levels) == 0.0 and min(levels) >= -12.0


def test_tags_agree_with_the_sources():
    for clip in plan(256, 0):
        names = {s.name for s in clip.sources}
        assert names == clip.tags & set(SOURCES)
        assert ("no vocals" in clip.tags) == ("singing" not in names)
        assert ("no drums" in clip.tags) == ("drums" not in names)
        assert ("solo" in clip.tags) == (len(clip.sources) == 1)
        assert clip.tags <= set(TAGS)


def test_no_clip_is_both_fast_and_slow_or_both_male_and_female():
    for clip in plan(256, 0):
        assert not {"fast", "slow"} <= clip.tags
        assert not {"male vocal", "female vocal"} <= clip.tags


def test_an_artist_stays_within_one_folder():
    folders: dict[str, set[str]] = {}
    for clip in plan(256, 0):
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


def test_the_same_seed_gives_the_same_waveforms():
    for clip in plan(16, 5)[:6]:
        np.testing.assert_array_equal(render(clip, 1.0, seed=5), render(clip, 1.0, seed=5))


def test_another_seed_gives_another_waveform():
    clip = plan(16, 0)[0]
    assert not np.array_equal(render(clip, 1.0, seed=0), render(clip, 1.0, seed=1))


def test_waveforms_are_finite_within_range_and_not_silent():
    for clip in plan(32, 0):
        wave = render(clip, 1.0, seed=0)
        assert wave.dtype == np.float32 and wave.shape == (RATE,)
        assert np.isfinite(wave).all()
        assert 0.4 < np.abs(wave).max() <= 0.81


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_sounds_throughout_the_clip(name):
    clip, source = next((c, s) for c in plan(64, 0) for s in c.sources if s.name == name)
    wave = play(np.random.default_rng(0), source, plan=clip, sample_rate=RATE, duration_s=4.0)
    # Windows of one second and a half, because the slowest pulse is one note in 1.3 s.
    rms = [np.sqrt(np.mean(wave[i : i + 24000] ** 2)) for i in range(0, 40001, 8000)]
    assert min(rms) > 0.05 * max(rms)


@pytest.mark.parametrize("midi", [40, 47, 55, 62, 69, 75])
def test_a_plucked_string_is_in_tune(midi):
    f = 440 * 2 ** ((midi - 69) / 12)
    wave = pluck_string(
        np.random.default_rng(0), RATE, frequency_hz=f, duration_s=1.0, brightness=0.6
    )
    assert abs(cents(strongest_hz(wave, 0.8 * f, 1.25 * f), f)) < 10


def test_a_plucked_string_dies_away():
    wave = pluck_string(np.random.default_rng(0), RATE, frequency_hz=200.0, duration_s=1.5)
    assert np.std(wave[16000:20000]) < 0.3 * np.std(wave[:4000])


def test_a_struck_bar_has_its_second_mode_out_of_tune():
    wave = strike_bar(np.random.default_rng(0), RATE, frequency_hz=800.0, duration_s=1.0)
    assert strongest_hz(wave, 1500, 3000) == pytest.approx(2.756 * 800, rel=0.02)


def test_an_organ_chord_holds_its_level():
    wave = organ_chord(
        np.random.default_rng(0), RATE, frequencies_hz=[220.0, 330.0], duration_s=2.0
    )
    assert np.std(wave[24000:30000]) == pytest.approx(np.std(wave[2000:8000]), rel=0.1)


def test_a_flute_note_is_in_tune_and_breathy():
    kwargs = {"frequency_hz": 700.0, "duration_s": 1.0}
    soft = flute_note(np.random.default_rng(0), RATE, breath=0.0, **kwargs)
    breathy = flute_note(np.random.default_rng(0), RATE, breath=0.2, **kwargs)
    assert abs(cents(strongest_hz(soft, 500, 1000), 700.0)) < 30
    # Between the second and the third harmonic there is nothing but breath.
    assert power_between(breathy, 1650, 1850) > 10 * power_between(soft, 1650, 1850)


def test_bass_notes_keep_to_the_low_end():
    wave = bass_note(np.random.default_rng(0), RATE, frequency_hz=55.0, duration_s=1.0)
    assert power_between(wave, 0, 600) > 0.9 * power_between(wave, 0, 8000)


@pytest.mark.parametrize("register", ["male", "female"])
@pytest.mark.parametrize("vowel", ["ah", "eh", "ee", "aw"])
def test_a_vowel_has_its_energy_at_its_second_formant(vowel, register):
    wave = sing(
        np.random.default_rng(0),
        RATE,
        frequencies_hz=[110.0 if register == "male" else 220.0],
        durations_s=[1.0],
        register=register,
        vowels=[vowel],
    )
    f1, f2, f3, _ = FORMANTS_HZ[register][vowel]
    at_f2 = power_between(wave, f2 - 130, f2 + 130)
    # The valley below F2, or above it where F1 and F2 are close together.
    middle = (f1 + f2) / 2 if f2 - f1 > 700 else (f2 + f3) / 2
    assert at_f2 > 3 * power_between(wave, middle - 130, middle + 130)


def test_a_singer_sings_the_notes_of_the_phrase():
    wave = sing(
        np.random.default_rng(0),
        RATE,
        frequencies_hz=[220.0, 330.0],
        durations_s=[0.8, 0.8],
        vowels=["oo", "oo"],
        vibrato_cents=10.0,
    )
    assert abs(cents(strongest_hz(wave[3000:12000], 180, 400), 220.0)) < 30
    assert abs(cents(strongest_hz(wave[16000:25000], 180, 400), 330.0)) < 30


def test_drums_have_strong_onsets_on_the_beat():
    clip, source = next((c, s) for c in plan(64, 0) for s in c.sources if s.name == "drums")
    wave = play(np.random.default_rng(0), source, plan=clip, sample_rate=RATE, duration_s=4.0)
    beat = int(60 / clip.tempo_bpm * RATE)
    for start in range(0, wave.size - beat, beat):
        after = np.sqrt(np.mean(wave[start : start + 1200] ** 2))
        before = np.sqrt(np.mean(wave[max(start - 400, 0) : max(start, 1)] ** 2))
        assert after > 3 * before


def test_wind_is_flat_within_its_band_and_absent_outside():
    wave = blow_wind(np.random.default_rng(0), RATE, duration_s=4.0, low_hz=400.0, high_hz=4000.0)
    f, power = power_spectrum(wave)
    inside = power[(f > 600) & (f < 3400)]
    flatness = np.exp(np.mean(np.log(inside))) / np.mean(inside)
    assert flatness > 0.9
    assert power[f > 6000].mean() < 0.01 * inside.mean()


# Files


def test_the_folders_hold_the_planned_files_and_nothing_else(small_corpus):
    found = {p.relative_to(small_corpus).as_posix() for p in small_corpus.rglob("*.*")}
    tables = {"annotations_final.csv", "clip_info_final.csv", "demo_corpus.json"}
    assert found == {c.mp3_path for c in plan(32, 3)} | tables


@pytest.mark.parametrize("name", ["annotations_final.csv", "clip_info_final.csv"])
def test_tables_are_tab_separated_with_every_field_quoted_and_crlf(small_corpus, name):
    data = (small_corpus / name).read_bytes()
    assert data.endswith(b"\r\n") and data.count(b"\n") == data.count(b"\r\n") == 33
    for line in data.decode("ascii").split("\r\n")[:-1]:
        for field in line.split("\t"):
            assert field[0] == field[-1] == '"' and '"' not in field[1:-1]


def test_the_annotations_start_with_the_header_of_the_data_set(small_corpus):
    header = (small_corpus / "annotations_final.csv").read_bytes().split(b"\r\n")[0]
    fields = ["clip_id", *TAGS, "mp3_path"]
    assert header.decode("ascii") == "\t".join(f'"{f}"' for f in fields)


def test_the_annotations_hold_the_planned_tags(small_corpus):
    rows = read_rows(small_corpus / "annotations_final.csv")
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
        assert rate == RATE and wave.ndim == 1
        assert abs(wave.size / rate - 1.0) <= 0.1
        assert np.isfinite(wave).all() and 0.05 < np.abs(wave).max() <= 1.0


def test_a_second_call_does_no_work(small_corpus, monkeypatch):
    before = snapshot(small_corpus)
    monkeypatch.setattr(corpus_module, "_write_clip", lambda *_, **__: pytest.fail("wrote"))
    monkeypatch.setattr(corpus_module, "_replace_bytes", lambda *_: pytest.fail("wrote"))
    path = write_demo_corpus(small_corpus, n_clips=32, clip_seconds=1.0, seed=3)
    assert path == small_corpus / "annotations_final.csv"
    assert snapshot(small_corpus) == before


def test_an_interrupted_call_leaves_no_annotations_and_can_be_repeated(tmp_path, small_corpus):
    def interrupt(n_done):
        if n_done == 5:
            raise KeyboardInterrupt

    parameters = {"n_clips": 32, "clip_seconds": 1.0, "seed": 3, "n_workers": 1}
    with pytest.raises(KeyboardInterrupt):
        write_demo_corpus(tmp_path, on_clip=interrupt, **parameters)
    assert not (tmp_path / "annotations_final.csv").exists()
    counts: list[int] = []
    write_demo_corpus(tmp_path, on_clip=counts.append, **parameters)
    assert counts == list(range(6, 33))
    assert snapshot(tmp_path) == snapshot(small_corpus)


def test_missing_files_are_rewritten_and_the_others_left_alone(tmp_path):
    parameters = {"n_clips": 16, "clip_seconds": 1.0, "n_workers": 1}
    write_demo_corpus(tmp_path, **parameters)
    before = snapshot(tmp_path)
    lost, kept = sorted(tmp_path.glob("*/*.mp3"))[:2]
    lost.unlink()
    os.utime(kept, ns=(0, 0))
    write_demo_corpus(tmp_path, **parameters)
    assert snapshot(tmp_path) == before
    assert kept.stat().st_mtime_ns == 0


def test_other_parameters_replace_the_corpus(tmp_path):
    write_demo_corpus(tmp_path, n_clips=32, clip_seconds=0.5, n_workers=1)
    write_demo_corpus(tmp_path, n_clips=16, clip_seconds=0.5, seed=1, n_workers=1)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*")}
    assert found == {c.mp3_path for c in plan(16, 1)}
    assert len(read_rows(tmp_path / "annotations_final.csv")) == 16


def test_several_processes_write_the_same_corpus_as_one(tmp_path, small_corpus):
    counts: list[int] = []
    write_demo_corpus(
        tmp_path, n_clips=32, clip_seconds=1.0, seed=3, n_workers=2, on_clip=counts.append
    )
    assert counts == list(range(1, 33))
    assert snapshot(tmp_path) == snapshot(small_corpus)


def test_annotations_of_another_data_set_are_not_overwritten(tmp_path):
    table = Path(tmp_path) / "annotations_final.csv"
    table.write_text("precious")
    with pytest.raises(FileExistsError):
        write_demo_corpus(tmp_path, n_clips=16, clip_seconds=0.5, n_workers=1)
    assert table.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [table]
