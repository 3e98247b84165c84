"""Promises of files of spectrograms and of folders of pictures: which clips they hold, and what."""

import os

import numpy as np
import pytest

from preprocess.clips.datasets import DATASETS
from preprocess.clips.gtzan_clips import GENRES, artist_of, known_clips
from preprocess.clips.spectrograms import read_spectrograms
from preprocess.clips.splits import split_parts
from preprocess.signal.features import FRONT_ENDS
from preprocess.signal.features.librosa import TABLE
from preprocess.store.store import Store
from tagger.base.errors import AudioError, ConfigError

NAMES = [f"{genre}.{clip:05d}.{k}" for genre in ("a", "b") for clip in range(2) for k in range(2)]


def write(path, n_rows=8, *, bands=128, frames=130, **arrays):
    """A file of spectrograms in bytes; an array that is None is left out."""
    rng = np.random.default_rng(0)
    content = {
        "mel": rng.integers(0, 256, (n_rows, bands, frames), np.uint8),
        "genre": np.repeat([0, 1], n_rows // 2).astype(np.uint8),
        "genres": np.array(["a", "b"]),
        **arrays,
    }
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return content


def index_of(root, name="spectrogram_file", **params):
    return DATASETS.create(name, params).index(root)


def windows_in(path, clip, name="mel_clip", **params):
    return FRONT_ENDS.create(name, params).windows_in(path, clip)


SHORT = {"seconds": 3.0, "hop": 512, "frames": 130}


def test_bytes_become_decibels_with_time_first(tmp_path):
    content = write(tmp_path / "a.npz")
    found = windows_in(tmp_path / "a.npz", "b.00001", **SHORT)["mel"]
    assert found.shape == (1, 130, 128) and found.dtype == np.float32
    np.testing.assert_allclose(found[0].T, content["mel"][5] / 255 * 80 - 80, atol=1e-4)


def test_without_names_rows_are_counted_within_their_genre(tmp_path):
    write(tmp_path / "a.npz", 4)
    index = index_of(tmp_path, file="a.npz")
    assert [clip.id for clip in index.clips] == ["a.00000", "a.00001", "b.00000", "b.00001"]
    assert {clip.path for clip in index.clips} == {"a.npz"}
    assert index.tags == ("a", "b") and index.labels.argmax(axis=1).tolist() == [0, 0, 1, 1]


def test_segments_are_joined_in_order_cut_and_padded(tmp_path):
    order = [1, 0, 3, 2, 5, 4, 7, 6]
    content = write(tmp_path / "a.npz", name=np.array(NAMES)[order])
    first, second = (content["mel"][row].T / 255 * 80 - 80 for row in (1, 0))
    wide = windows_in(tmp_path / "a.npz", "a.00000", frames=640)["mel"][0]
    np.testing.assert_allclose(wide[:260], np.concatenate([first, second]), atol=1e-4)
    assert (wide[260:] == -80).all()
    narrow = windows_in(tmp_path / "a.npz", "a.00000", frames=200)["mel"][0]
    np.testing.assert_array_equal(narrow, wide[:200])
    one = windows_in(tmp_path / "a.npz", "a.00000.1", **SHORT)["mel"][0]
    np.testing.assert_array_equal(one, wide[130:260])


def test_what_is_normalised_already_stays_as_it_is(tmp_path):
    mel = np.random.default_rng(0).standard_normal((2, 128, 130))
    mel = (mel - mel.mean((1, 2), keepdims=True)) / mel.std((1, 2), keepdims=True)
    write(tmp_path / "a.npz", 2, mel=mel.astype(np.float16))
    found = windows_in(tmp_path / "a.npz", "a.00000", **SHORT, normalise="clip")["mel"][0]
    np.testing.assert_allclose(found.T, mel[0], atol=2e-3)


def test_segments_of_a_clip_are_its_windows_with_55_values_each(tmp_path):
    features = np.random.default_rng(0).standard_normal((8, 57)).astype(np.float32)
    write(tmp_path / "a.npz", name=np.array(NAMES), features=features)
    found = windows_in(tmp_path / "a.npz", "b.00000", "mel_segments")
    assert found["mel"].shape == (2, 130, 128)
    kept = [number for number, name in enumerate(TABLE) if "bandwidth" not in name]
    np.testing.assert_array_equal(found["values"], features[4:6][:, kept])
    assert len(windows_in(tmp_path / "a.npz", "b.00000.1", "mel_segments")["mel"]) == 1


@pytest.mark.parametrize(
    ("front_end", "params", "arrays", "message"),
    [
        ("mel_clip", {"frames": 130, "bands": 64}, {}, r"130 x 128 .* in place of 130 x 64; set"),
        ("mel_clip", {"frames": 131}, {}, r"130 x 128 .* in place of 131 x 128; set"),
        ("mel_segments", {"frames": 100}, {}, r"130 x 128 .* in place of 100 x 128; set"),
        ("mel_segments", {}, {}, "'features' are to be 57 .* holds none; give another"),
        ("mel_segments", {}, {"features": np.ones((8, 3))}, "it holds 3 a row; give another"),
    ],
)
def test_spectrograms_of_another_size_are_refused(tmp_path, front_end, params, arrays, message):
    write(tmp_path / "a.npz", **arrays)
    with pytest.raises(AudioError, match=rf"a\.npz: .*{message}"):
        windows_in(tmp_path / "a.npz", "a.00000", front_end, **params)


def test_a_clip_that_is_not_there_is_named(tmp_path):
    write(tmp_path / "a.npz")
    with pytest.raises(AudioError, match=r"a\.npz: holds no clip 'c', but e\.g\. 'a\.00000'; use"):
        windows_in(tmp_path / "a.npz", "c")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mel": None}, "has no array 'mel'"),
        ({"genres": None}, "has no array 'genres'"),
        ({"mel": np.zeros((8, 128), np.uint8)}, r"mel is uint8\[8, 128\]"),
        ({"mel": np.zeros((8, 128, 130), np.int16)}, r"mel is int16"),
        ({"mel": np.full((8, 2, 2), np.nan)}, "mel holds values that are no finite numbers"),
        ({"genre": np.zeros(7, int)}, r"genre is int64\[7\] for 8 rows"),
        ({"genre": np.full(8, 2)}, "genre holds numbers beyond the 2 names"),
        ({"genre": np.full(8, -1)}, "genre holds numbers beyond the 2 names"),
        ({"genres": np.array(["a", "a"])}, "genres that occur more than once: 'a'"),
        ({"name": np.array(NAMES[:7])}, "not one text for each row"),
        ({"name": np.array(["x"] * 8)}, "names that occur more than once: 'x'"),
        ({"name": np.array([f"a.0.{n}" for n in range(8)])}, r"segments of 'a\.0' have two genres"),
        ({"features": np.zeros((7, 57))}, r"features is float64\[7, 57\]"),
        ({"features": np.full((8, 57), np.inf)}, "features hold values that are no finite"),
    ],
)
def test_what_is_no_file_of_spectrograms_is_refused_in_one_line(tmp_path, arrays, message):
    write(tmp_path / "a.npz", **arrays)
    with pytest.raises(ConfigError, match=rf"a\.npz: no file .*{message}.*; give a \.npz") as error:
        index_of(tmp_path, file="a.npz")
    assert "\n" not in str(error.value)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.npz: cannot be read \(No such file"):
        index_of(tmp_path, file="gone.npz")
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"a\.npz: no file of spectrograms \("):
        index_of(tmp_path, file="a.npz")


def test_a_file_is_read_once_until_it_changes(tmp_path):
    write(tmp_path / "a.npz")
    first = read_spectrograms(tmp_path / "a.npz")
    assert read_spectrograms(tmp_path / "a.npz") is first
    write(tmp_path / "a.npz", 2)
    os.utime(tmp_path / "a.npz", ns=(1, 1))
    assert len(read_spectrograms(tmp_path / "a.npz").names) == 2


def gtzan(root, kind):
    """Index of all clips of GTZAN, as spectrograms of two segments each or as pictures."""
    names = [f"{genre}.{number:05d}" for genre in GENRES for number in range(100)]
    if kind == "pictures":
        for name in names:
            (root / name.partition(".")[0]).mkdir(exist_ok=True)
            (root / name.partition(".")[0] / f"{name}.png").write_bytes(name.encode())
        return index_of(root, "picture_folders")
    segments = np.array([f"{name}.{k}" for name in names for k in range(2)])
    write(
        root / "a.npz",
        2000,
        bands=1,
        frames=1,
        name=segments,
        genre=np.repeat(np.arange(10), 200),
        genres=np.array(GENRES),
    )
    return index_of(root, file="a.npz", by=kind, artists="gtzan")


@pytest.mark.parametrize("kind", ["pictures", "clip", "segment"])
def test_published_and_other_splits_work_by_the_names_of_clips(tmp_path, kind):
    index = gtzan(tmp_path, kind)
    times = 2 if kind == "segment" else 1
    assert len(index) == 1000 * times and index.tags == GENRES
    row = [clip.id for clip in index.clips].index("rock.00007" + ".1" * (times - 1))
    assert index.clips[row].artist == artist_of("rock.00007") != ""
    parts = split_parts(index, "fault_filtered")
    counts = {part: int((parts == part).sum()) for part in ("train", "validation", "test")}
    assert counts == {"train": 443 * times, "validation": 197 * times, "test": 290 * times}
    parts = split_parts(index, "artist_folds", fold=1)
    assert (parts != "").sum() == times * sum(
        clip.fold is not None for clip in known_clips().values()
    )
    for split in ("k_fold", "random"):
        parts = split_parts(index, split)
        assert {"train", "test"} <= set(parts)


def test_segments_of_a_clip_stay_together_unless_the_leak_is_asked_for(tmp_path):
    index = gtzan(tmp_path, "segment")
    tracks = np.array([clip.track for clip in index.clips])
    for split, leaks in (("k_fold", False), ("random", False), ("leaky_segments", True)):
        parts = split_parts(index, split)
        assert bool(set(tracks[parts == "train"]) & set(tracks[parts == "test"])) == leaks


def test_a_store_of_segments_still_knows_that_they_are_some(tmp_path, command):
    write(tmp_path / "a.npz", name=np.array(NAMES))
    settings = ["data.name=spectrogram_file", f"data.root={tmp_path}", "data.params.file=a.npz"]
    settings += ["data.params.by=segment", "front_end.name=mel_clip", "front_end.params.frames=130"]
    settings += [f"store.root={tmp_path / 'store'}", "store.workers=1"]
    options = [part for one in settings for part in ("--set", one)]
    code, out, _ = command("preprocess", "--check", *options)
    assert code == 0 and "0 unreadable" in out and "0 duplicate" in out
    assert command("preprocess", *options)[0] == 0
    store = Store(tmp_path / "store")
    assert store.index.segments and [clip.record.id for clip in store.clips] == NAMES
    assert "(0 written, 0 relabelled, 8 kept)" in command("preprocess", *options)[1]
    parts = split_parts(store.index, "k_fold", params={"folds": 2})
    assert all(len(set(pair)) == 1 for pair in zip(parts[::2], parts[1::2], strict=True))


def pictures(root):
    Image = pytest.importorskip("PIL.Image")
    for number, name in enumerate(("rock/a.png", "rock/b.JPG", "jazz/a.png", "jazz/x/c.jpeg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (335, 217), (number, 0, 0)).save(root / name)
    return root


def test_pictures_are_named_by_their_files_as_far_as_these_differ(tmp_path):
    index = index_of(pictures(tmp_path), "picture_folders")
    assert [clip.id for clip in index.clips] == ["jazz/a.png", "c", "rock/a.png", "b"]
    assert [clip.album for clip in index.clips] == ["", "jazz/x", "", ""]
    with pytest.raises(ConfigError, match="hold the pictures, and at least two are needed; found"):
        index_of(tmp_path / "jazz", "picture_folders")


def test_the_same_picture_under_two_labels_is_told(tmp_path, capsys):
    root = pictures(tmp_path)
    (root / "rock/a.png").write_bytes((root / "jazz/a.png").read_bytes())
    assert len(index_of(root, "picture_folders")) == 4
    said = capsys.readouterr().err
    assert "jazz/a.png and rock/a.png, perhaps among others, are the same picture" in said


def test_pictures_named_as_on_kaggle_are_clips_of_gtzan(tmp_path):
    for name in ("blues/blues00000.png", "blues/blues00001.png", "jazz/a.png", "jazz/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    index = index_of(tmp_path, "picture_folders")
    assert index.clips[0].artist == known_clips()["blues.00000"].artist != ""


def test_pictures_are_checked_and_stored(tmp_path, command):
    root = pictures(tmp_path / "pictures")
    (root / "rock/d.png").write_bytes(b"no picture")
    settings = ["data.name=picture_folders", f"data.root={root}", "front_end.name=mel_picture"]
    settings += ["front_end.params.height=108", "front_end.params.width=167"]
    settings += [f"store.root={tmp_path / 'store'}", "store.workers=1"]
    options = [part for one in settings for part in ("--set", one)]
    said = " ".join(map(str, command("preprocess", "--check", *options)))
    assert "rock/d.png" in said and "neither PNG nor JPEG" in said
    command("preprocess", *options)
    store = Store(tmp_path / "store")
    assert [clip.record.id for clip in store.clips] == ["jazz/a.png", "c", "rock/a.png", "b"]
    (picture,) = store.read(3)["picture"]
    assert picture.shape == (108, 167, 3) and picture.dtype == np.float16


@pytest.mark.parametrize("suffix", [".png", ".npz"])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, suffix, seed):
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        Image = pytest.importorskip("PIL.Image")
        Image.linear_gradient("L").resize((335, 217)).convert("P").save(path)
        made = FRONT_ENDS.create("mel_picture", {})
    else:
        write(path, 4, bands=8, frames=4, name=np.array(NAMES[:2] + NAMES[4:6]))
        made = FRONT_ENDS.create("mel_clip", {"bands": 8, "frames": 4})
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(
            damaged[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.2 else damaged
        )
        try:
            windows = made.windows_in(path, "a.00000")
        except AudioError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert {name: array.shape[1:] for name, array in windows.items()} == made.input_shapes
