"""Promises for what goes wrong around files: rights, streams, signals, names, processes, disks."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise
from small_bundle import make_bundle

from preprocess.clips import audio_files
from preprocess.clips.audio_files import find_audio_files, where_it_may_be
from preprocess.signal.audio import load_audio, stream_audio
from tagger.base.cache import cache_folder
from tagger.base.errors import ConfigError
from tagger.base.files import atomic_write, require_writable
from tagger.tagging.inputs import Input
from tagger.tagging.tagger import Tagger
from tagger.tagging.writers._names import output_names

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tagger", "predict-tags"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "bundle"
    make_bundle(root)
    return root


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(3):
        sf.write(folder / f"{number}.wav", noise(2, seed=number), RATE)
    return folder


@pytest.fixture
def predict(bundle, command):
    return partial(command, "predict-tags", "--model", bundle)


def program(bundle, *arguments, prefix=(), **options):
    words = [*prefix, *PROGRAM, "--model", bundle, *arguments]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


@pytest.fixture(scope="session")
def as_others():
    """What runs a program without the rights of the superuser; nothing for others."""
    if os.geteuid():
        return []
    prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if not shutil.which("setpriv") or subprocess.run([*prefix, "true"]).returncode:
        pytest.skip("the superuser may read everything, and setpriv is not there")
    return prefix


# Rights


@pytest.mark.parametrize("rights", [0o000, 0o311, 0o444])
def test_a_folder_that_may_not_be_looked_into_fails_by_its_name_and_stops_no_other(
    bundle, songs, as_others, rights
):
    closed = songs / "closed"
    closed.mkdir()
    shutil.copy(songs / "0.wav", closed / "0.wav")
    closed.chmod(rights)
    try:
        done = program(bundle, songs, "--format=jsonl", prefix=as_others)
    finally:
        closed.chmod(0o755)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and len(found) == 4
    (failure,) = [one for one in found if one.get("error")]
    assert failure["path"].startswith(str(closed)) and "no permission" in failure["error"]


def test_a_folder_that_may_not_be_written_into_is_told_before_anything_is_done(tmp_path):
    require_writable(tmp_path / "new" / "deeper")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written; check the rights of"):
        require_writable(tmp_path / "file" / "below")


def test_a_path_that_is_too_long_hides_no_other_file(tmp_path):
    sf.write(tmp_path / "top.wav", noise(1), RATE)
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(25):
            name = "x" * 200
            Path(name).mkdir()
            os.chdir(name)
    finally:
        os.chdir(before)
    found = find_audio_files(tmp_path)
    assert tmp_path / "top.wav" in found and len(found) == 2
    shutil.rmtree(tmp_path / ("x" * 200), ignore_errors=True)


# Outputs


def test_an_output_that_is_a_link_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/there.txt")
    for content in (b"one", b"two"):
        with atomic_write(tmp_path / "link") as file:
            file.write(content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "there.txt").read_bytes() == content


def test_an_output_that_is_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with atomic_write(tmp_path / "pipe") as file:
        file.write(b"content")
    reader.join(10)
    assert heard == [b"content"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_full_disk_names_what_was_written(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, atomic_write(tmp_path / "a.csv"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.csv")


def test_an_output_that_cannot_be_written_stops_no_other(predict, songs, tmp_path):
    out = tmp_path / "out"
    (out / "1.txt" / "in the way").mkdir(parents=True)
    code, _, err = predict(songs, "--format=audacity", "-o", out)
    assert code == 1 and f"failed: {out / '1.txt'}: cannot be written" in err
    assert (out / "0.txt").is_file() and (out / "2.txt").is_file()


def test_outputs_have_names_that_no_other_and_no_folder_has(tmp_path):
    names = ["x.mp3", "x.jams/y.mp3", "CON.wav", "aux.b.mp3", "A.wav", "a.wav", "plain.wav"]
    inputs = [Input(tmp_path / name, tmp_path) for name in names]
    found = [str(name) for name in output_names(inputs, ".jams").values()]
    assert len({name.casefold() for name in found}) == len(names)
    assert "plain.jams" in found and "x.jams/y.jams" in found
    for reserved in ("x.jams", "CON.jams", "aux.b.jams"):
        assert reserved not in found


# Streams of the shell


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_the_shell_has_closed_changes_nothing_else(bundle, songs, tmp_path, number):
    output = tmp_path / "tags.jsonl"
    for arguments in ([songs, "-o", output, "--format=jsonl"], ["-"], [songs / "0.wav"]):
        with subprocess.Popen(
            [*PROGRAM, "--model", bundle, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: os.close(number),
            cwd=ROOT,
        ) as process:
            said = b"".join(process.communicate(timeout=60))
        assert b"Traceback" not in said
        assert process.returncode == (1 if arguments == ["-"] else 0)
        assert number != 2 or b"model:" not in said
    assert [json.loads(line).get("error") for line in output.read_text().splitlines()] == [None] * 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_with_one_line_and_leaves_no_temporary_file(
    bundle, songs, tmp_path, number, status
):
    for copy in range(800):
        shutil.copy(songs / "0.wav", songs / f"copy{copy}.wav")
    output = tmp_path / "out"
    output.mkdir()
    words = [*PROGRAM, "--model", bundle, songs, "--format=csv", "-o", output / "tags.csv"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        while not any(output.iterdir()):
            time.sleep(0.01)
        # Well within the work, and not in the instant in which the file is made.
        time.sleep(0.2)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == status and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: ")
    assert list(output.iterdir()) == []


# Names and surroundings


def test_many_missing_names_cost_one_look_into_their_folder(tmp_path, monkeypatch):
    (tmp_path / "Café.mp3").write_bytes(b"")
    looks = []
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: looks.append(folder) or listing(folder))
    audio_files._names_in.cache_clear()
    hints = [where_it_may_be(tmp_path / f"{number}.mp3") for number in range(50)]
    assert set(hints) == {""} and looks == [tmp_path]
    assert "Café.mp3" in where_it_may_be(tmp_path / "CAFE\u0301.mp3")
    (tmp_path / "New.mp3").write_bytes(b"")
    os.utime(tmp_path, ns=(1, 1))
    assert "New.mp3" in where_it_may_be(tmp_path / "new.mp3")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("TAGGER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="set TAGGER_CACHE to a folder"):
        cache_folder()


def test_a_folder_of_labels_whose_name_is_no_text_is_one_line(command, songs, tmp_path):
    music = os.fsencode(tmp_path) + b"/music"
    for name in (b"guitar", b"gui\xe9"):
        shutil.copytree(songs, os.fsdecode(music + b"/" + name))
    code, _, err = command("train", os.fsdecode(music), "--output", tmp_path / "run")
    assert code == 2 and "is no text that can be a label; rename it" in err


@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "tr_TR.UTF-8"},
        {"PYTHONIOENCODING": "ascii"},
        {"TERM": "dumb", "COLUMNS": "40"},
    ],
)
def test_names_and_tags_survive_every_locale(bundle, songs, tmp_path, surroundings):
    song = songs / "ığİ ü 二.wav"
    (songs / "0.wav").rename(song)
    output = tmp_path / "ç.jsonl"
    environment = {**os.environ, **surroundings}
    shown = program(bundle, song, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    done = program(bundle, song, "-o", output, "--format=jsonl", env=environment)
    assert done.returncode == 0, done.stderr
    assert "error" not in json.loads(output.read_bytes())


# Files that are not as they were, or too large


def test_a_file_that_grows_while_it_is_read_is_one_result(tmp_path):
    path = tmp_path / "grows.wav"
    sf.write(path, noise(20), RATE)
    blocks = iter(stream_audio(path, target_rate=RATE, block_seconds=1))
    n_samples = len(next(blocks))
    with path.open("ab") as file:
        file.write(bytes(100_000))
    assert n_samples + sum(map(len, blocks)) == 20 * RATE


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 5 * 2**30 % 2**32])
def test_a_wav_larger_than_its_lengths_can_say_is_read_to_its_end(tmp_path, length):
    path = tmp_path / "long.wav"
    header = struct.pack("<HHIIHH", 1, 2, 44100, 4 * 44100, 4, 16)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", length) + b"WAVEfmt " + struct.pack("<I", 16))
        file.write(header + b"data" + struct.pack("<I", length))
        # It takes no room on a disk that has files with holes.
        file.truncate(44 + 5 * 2**30)
        file.seek(44 + 5 * 2**29)
        file.write(b"\x40" * 44100 * 4)
    stream = stream_audio(path, target_rate=44100, middle_seconds=4)
    assert stream.offset_seconds == pytest.approx(5 * 2**30 / 4 / 44100 / 2 - 2, abs=0.01)
    samples = np.concatenate(list(stream))
    assert np.abs(samples[: 44100 // 2]).max() == 0 and samples[3 * 44100 - 100] > 0.3


def test_what_is_no_regular_file_in_a_folder_is_left_out_and_never_waited_for(songs):
    os.mkfifo(songs / "pipe.wav")
    (songs / "nowhere.wav").symlink_to("no such file")
    (songs / "loop").symlink_to(songs)
    assert [path.name for path in find_audio_files(songs)] == ["0.wav", "1.wav", "2.wav"]


# Processes and threads


def scores_of(tagger, path):
    return tagger.predict(path).scores


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_tagger_goes_to_processes_of_a_pool(bundle, songs, method):
    tagger, paths = Tagger.load(bundle, jobs=1), sorted(songs.iterdir())
    wanted = [scores_of(tagger, path) for path in paths]
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(partial(scores_of, tagger), paths, timeout=60))
    np.testing.assert_array_equal(found, wanted)


def test_a_tagger_is_the_same_out_of_a_pickle(bundle, songs):
    tagger = Tagger.load(bundle, jobs=1, most_missing=0.7)
    again = pickle.loads(pickle.dumps(tagger))
    assert (again.jobs, again.most_missing, again.tags) == (1, 0.7, tagger.tags)
    np.testing.assert_array_equal(
        scores_of(again, songs / "0.wav"), scores_of(tagger, songs / "0.wav")
    )


def test_threads_may_share_a_tagger(bundle, songs):
    tagger, paths = Tagger.load(bundle), sorted(songs.iterdir()) * 4
    wanted = [scores_of(tagger, path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(partial(scores_of, tagger), paths, timeout=60))
    np.testing.assert_array_equal(found, wanted)


def test_a_folder_of_many_other_files_takes_no_more_than_one_look(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number}.txt").touch()
    sf.write(tmp_path / "song.wav", noise(1), RATE)
    assert find_audio_files(tmp_path) == [tmp_path / "song.wav"]
    assert len(load_audio(tmp_path / "song.wav", target_rate=RATE)) == RATE
