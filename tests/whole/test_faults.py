"""Faults in the middle of a run: one clear line, nothing half written, and the rerun makes it good.

Disks that are full, rights that are lost, inputs that change or vanish, clocks that jump, workers
that die, states, pickles and shards that are damaged. Each run of the tests has each fault once; a
campaign has it in all verbs, at other moments each time.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from outcomes import empty, outcome, require_whole
from signals import noise
from small_store import make_store, small_config

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.engines.run import preprocess, run_here
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.store import Store

LONG = pytest.mark.campaign
# Those that need TensorFlow take twenty times as long.
VERBS = [
    pytest.param("preprocess", id="preprocess-once"),
    *(pytest.param(verb, marks=LONG) for verb in ("preprocess", "train", "export", "evaluate")),
]
_MEBIBYTE = 1 << 20


class Bench:
    """A verb, what it starts from, and the folder in which it works."""

    def __init__(self, verb, launcher, *, work, command, start):
        self.verb, self.launcher, self.work = verb, launcher, work
        self.command, self.start = command, start

    def run(self, **options):
        """Run it: exit code, and what it said."""
        log = self.launcher.log
        before = log.stat().st_size if log.exists() else 0
        self.ended = self.launcher.run(*self.command, **options)
        with log.open("rb") as file:
            file.seek(before)
            return self.ended.code, file.read().decode()

    def undisturbed(self):
        """What it makes where nothing is in its way."""
        self.start()
        code, said = self.run()
        assert code == 0, said
        return outcome(self.work)


def used_on(disk):
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def bench(request, launcher, work):
    """Make the bench of a verb."""

    def make(verb):
        if verb == "preprocess":
            corpus = request.getfixturevalue("few_clips")
            return Bench(
                verb,
                launcher,
                work=work,
                command=[
                    *("preprocess", "--config", "configs/demo.yaml", "--set", "store.workers=1"),
                    *("--set", f"data.root={corpus}", "--set", f"store.root={work}/store"),
                ],
                start=lambda: empty(work),
            )
        training = request.getfixturevalue("training")
        run, store = f"{training.folder}/run", f"{training.folder}/store"
        command, start = {
            "train": (training.command, training.lay_out_untrained),
            "export": (["export", run, "--quantize", "float16"], training.lay_out),
            "evaluate": (["evaluate", run, "--store", store, "--draws", "20"], training.lay_out),
        }[verb]
        return Bench(verb, launcher, work=training.folder, command=command, start=start)

    return make


@pytest.fixture
def shares(request, seed):
    """Moments, as shares of the whole: one in the middle, or in a campaign four that are drawn."""
    if not request.config.option.campaign:
        return [0.6]
    rng = np.random.default_rng([seed, zlib.crc32(request.node.name.encode())])
    drawn = sorted(rng.uniform(0.05, 0.9, 4).tolist())
    print(f"moments: {drawn}")
    return drawn


def assert_one_line(code, said):
    """A fault that ends the verb is told in one line; failed clips have one each."""
    assert code in (1, 2), said
    assert "Traceback" not in said
    ends = re.findall(r"^error: .*", said, re.MULTILINE)
    failed = re.findall(r"^failed: .*", said, re.MULTILINE)
    assert len(ends) == (code == 2), said
    assert (len(failed) > 0) == (code == 1), said


# Disks.


@pytest.fixture
def small_disk():
    """Give a folder a disk of its own, whose size can be set."""
    mounted = []

    def size(work, n_bytes=64 * _MEBIBYTE):
        first = work not in mounted
        option = f"size={max(n_bytes, 4096)}"
        how = ["-t", "tmpfs", "-o", option, "none"] if first else ["-o", f"remount,{option}"]
        done = subprocess.run(["mount", *how, str(work)], capture_output=True, check=False)
        if done.returncode and first:
            pytest.skip("only root may mount a small disk")
        assert done.returncode == 0, done.stderr
        mounted.extend([work] * first)

    yield size
    for work in mounted:
        subprocess.run(["umount", "--lazy", str(work)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line_and_with_more_room_it_ends_the_same(
    verb, bench, small_disk, shares
):
    it = bench(verb)
    work = it.work
    small_disk(work)
    it.start()
    at_first = used_on(work)
    wanted = it.undisturbed()
    needed = used_on(work)
    full = 0
    for share in shares:
        it.start()
        small_disk(work, int(at_first + share * (needed - at_first)))
        code, said = it.run()
        if code != 0:
            full += 1
            assert_one_line(code, said)
            assert "No space left on device" in said
            require_whole(work)
        small_disk(work)
        code, said = it.run()
        assert code == 0, said
        assert outcome(work) == wanted
        assert require_whole(work)["store"] == 1
    assert full > len(shares) / 2


# Rights.


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_rights_that_are_lost_are_one_line_and_given_back_it_ends_the_same(verb, bench, shares):
    it = bench(verb)
    wanted = it.undisturbed()
    n_events = it.ended.n_events
    for share in shares:
        it.start()
        code, said = it.run(denied=(max(1, int(share * n_events)), it.work))
        assert_one_line(code, said)
        assert "Permission denied" in said
        require_whole(it.work)
        code, said = it.run()
        assert code == 0, said
        assert outcome(it.work) == wanted
        assert require_whole(it.work)["store"] == 1


# Inputs.


def index_of(root, names):
    clips = [ClipRecord(name, name) for name in names]
    return ClipIndex(("loud",), clips, np.ones((len(names), 1), dtype=np.uint8))


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(4):
        sf.write(folder / f"{number}.wav", noise(2.0, seed=number), 16000)
    return folder


def stored(songs, store, *, engine=run_here):
    index = index_of(songs, [f"{number}.wav" for number in range(4)])
    front_end = FRONT_ENDS.create("vggish", {})
    return preprocess(
        index, front_end, audio_root=songs, store_root=store, n_workers=1, engine=engine
    )


def test_a_clip_that_vanishes_during_the_run_fails_alone_and_is_stored_when_it_is_back(
    songs, tmp_path
):
    aside = tmp_path / "aside.wav"

    def engine(tasks, job, *, n_workers):
        shutil.move(songs / "2.wav", aside)
        yield from run_here(tasks, job, n_workers=n_workers)

    result = stored(songs, tmp_path / "store", engine=engine)
    assert (result.n_clips, list(result.failures)) == (3, ["2.wav"])
    assert str(songs / "2.wav") in result.failures["2.wav"]
    shutil.move(aside, songs / "2.wav")
    result = stored(songs, tmp_path / "store")
    assert (result.n_clips, result.n_written, result.failures) == (4, 1, {})


def test_a_clip_that_changes_while_it_is_read_is_not_stored(songs, tmp_path, monkeypatch):
    from preprocess.engines import run

    decode = run.windows_of_file

    def slowly(path, front_end, **options):
        windows = decode(path, front_end, **options)
        if path.name == "1.wav":
            sf.write(path, noise(4.0, seed=9), 16000)
        return windows

    monkeypatch.setattr(run, "windows_of_file", slowly)
    result = stored(songs, tmp_path / "store")
    assert result.failures == {
        "1.wav": f"{songs / '1.wav'}: has changed while it was read; run the command again"
    }
    monkeypatch.setattr(run, "windows_of_file", decode)
    assert stored(songs, tmp_path / "store").n_written == 1
    by_id = {clip.record.id: clip.n_windows for clip in Store(tmp_path / "store").clips}
    assert by_id == {"0.wav": 2, "1.wav": 4, "2.wav": 2, "3.wav": 2}


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_a_pickle_that_a_power_cut_has_emptied_is_made_again_without_being_asked(
    songs, tmp_path, n_bytes
):
    stored(songs, tmp_path / "store")
    before = outcome(tmp_path / "store")
    pickle = next((tmp_path / "store").rglob("*.pkl"))
    pickle.write_bytes(pickle.read_bytes()[:n_bytes])
    assert stored(songs, tmp_path / "store").n_written == 1
    assert outcome(tmp_path / "store") == before


def test_pickles_that_a_power_cut_has_filled_with_zeros_are_made_again(songs, tmp_path):
    stored(songs, tmp_path / "whole")

    class PowerCutError(Exception):
        pass

    def engine(tasks, job, *, n_workers):
        outcomes = run_here(tasks, job, n_workers=n_workers)
        yield next(outcomes)
        yield next(outcomes)
        raise PowerCutError

    with pytest.raises(PowerCutError):
        stored(songs, tmp_path / "store", engine=engine)
    first, second = sorted((tmp_path / "store").rglob("*.pkl"))
    # Long on the disk, as is seen from its time.
    old = second.stat().st_mtime_ns - 3600 * 10**9
    os.utime(second, ns=(old, old))
    first.write_bytes(bytes(first.stat().st_size))
    assert stored(songs, tmp_path / "store").n_written == 3
    assert outcome(tmp_path / "store") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("verb", "fault", "goes_on"),
    [
        ("train", "flipped", False),
        pytest.param("train", "flipped", True, marks=LONG),
        pytest.param("train", "vanished", True, marks=LONG),
        pytest.param("evaluate", "flipped", True, marks=LONG),
        pytest.param("evaluate", "vanished", True, marks=LONG),
    ],
)
def test_a_pickle_that_vanishes_or_is_damaged_is_named_and_rebuilt(
    verb, fault, goes_on, launcher, few_clips, work
):
    roots = [f"data.root={few_clips}", f"store.root={work}/store", f"run.root={work}/run"]
    settings = [word for root in roots for word in ("--set", root)]
    small = ["train.epochs=1", "model.backbone.params.width=0.05", "stream.steps_per_epoch=2"]
    preprocess_it = ["preprocess", "--config", "configs/demo.yaml", *settings]
    train_it = ["train", "--config", "configs/demo.yaml", *settings, "--resume"]
    train_it += [word for setting in small for word in ("--set", setting)]
    assert launcher.run(*preprocess_it).code == 0
    command = train_it
    if verb == "evaluate":
        assert launcher.run(*train_it).code == 0
        command = ["evaluate", f"{work}/run", "--draws", "0"]
    before = outcome(work / "store")
    # All of them are read then, or some of the test clips alone.
    pickles = sorted((work / "store").rglob("*.pkl"))
    for pickle in pickles:
        content = bytearray(pickle.read_bytes())
        content[len(content) // 2] ^= 1
        pickle.unlink() if fault == "vanished" else pickle.write_bytes(content)
    size = launcher.log.stat().st_size
    assert launcher.run(*command).code == 2
    said = launcher.log.read_bytes()[size:].decode()
    assert "Traceback" not in said
    told = re.search(rf"error: {work}/store/clips/\S+\.pkl: .*run 'tagger (.*)' to rebuild", said)
    assert told[1].split() == ["preprocess", "--verify"]
    assert launcher.run(*preprocess_it, "--verify").code == 0
    assert outcome(work / "store") == before
    assert not goes_on or launcher.run(*command).code == 0


@LONG
def test_training_names_a_shard_that_is_damaged_and_rebuilds_it(bench, training):
    it, work = bench("train"), training.folder
    wanted = training.outcome
    training.lay_out()
    shutil.rmtree(work / "run")
    array = work / "store" / "shard" / "log_mel.bin"
    content = bytearray(array.read_bytes())
    content[len(content) // 2] ^= 1
    array.write_bytes(content)
    code, said = it.run()
    assert code == 0, said
    assert f"{array}: differs from its checksum; the shard is built anew" in said
    assert outcome(work) == wanted


# States.


def damage(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        # In a progress file a digit that becomes another digit.
        digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
        where = digits[3] if path.suffix == ".json" else len(content) // 2
        content[where] ^= 1
        path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        pytest.param("progress.json", "missing", marks=LONG),
        pytest.param("progress.json", "flipped", marks=LONG),
        pytest.param("variables.index", "cut", marks=LONG),
        pytest.param("variables.index", "flipped", marks=LONG),
        pytest.param("variables.data-00000-of-00001", "empty", marks=LONG),
        ("variables.data-00000-of-00001", "flipped"),
    ],
)
@pytest.mark.campaign
def test_training_falls_back_from_a_damaged_state_to_the_one_before_and_says_so(
    file, kind, bench, training
):
    it = bench("train")
    # As if it had been killed before the end.
    training.lay_out("run/bundle")
    *_, newest = sorted((training.folder / "run" / "checkpoints").iterdir())
    damage(newest / file, kind)
    code, said = it.run()
    assert code == 0, said
    assert re.search(f"warning: {newest}: damaged state .*; taking the one before it", said)
    # The last epoch comes again, is the best, and had a clip head already.
    assert "(best)" in said
    assert outcome(training.folder) == training.outcome


def test_what_is_stopped_before_a_state_is_saved_has_the_metrics_that_it_speaks_of(
    tmp_path, monkeypatch
):
    from tagger.train.checkpoint import Checkpoints
    from tagger.train.loop import train

    class StoppedError(Exception):
        pass

    def save(*_):
        raise StoppedError

    make_store(tmp_path / "store", n_clips=32)
    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(StoppedError):
        train(small_config(tmp_path, "train.epochs=1", "stream.steps_per_epoch=2"))
    # After the last epoch nobody would write them again.
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


# Clocks.

JUMPING = """
import itertools, sys, time
real, jumps = time.time, itertools.cycle([0, -86_400, 3_600 * 24 * 365, -5, 3_600])
time.time = lambda: real() + next(jumps)
from tagger.cli import main as cli
sys.argv = ["tagger", *{arguments!r}]
cli.main()
"""


@pytest.mark.parametrize("verb", ["preprocess", pytest.param("train", marks=LONG)])
def test_a_clock_that_jumps_changes_nothing(verb, bench):
    it = bench(verb)
    work = it.work
    wanted = it.undisturbed()
    it.start()
    arguments, it.command = it.command, ["-c", JUMPING.format(arguments=it.command)]
    code, said = it.run()
    assert code == 0, said
    assert outcome(work) == wanted
    # Files from the future are files.
    for path in work.rglob("*"):
        os.utime(path, (4e9, 4e9))
    it.command = arguments
    code, said = it.run()
    assert code == 0, said
    assert outcome(work) == wanted


# Workers.


def test_a_clip_for_which_there_is_no_memory_fails_alone_and_is_stored_later(
    songs, tmp_path, monkeypatch
):
    from preprocess.engines import run

    decode = run.windows_of_file

    def greedy(path, front_end, **options):
        if path.name == "1.wav":
            raise MemoryError
        return decode(path, front_end, **options)

    monkeypatch.setattr(run, "windows_of_file", greedy)
    result = stored(songs, tmp_path / "store")
    assert result.failures == {
        "1.wav": f"{songs / '1.wav'}: not enough memory to decode it; split the file"
    }
    monkeypatch.setattr(run, "windows_of_file", decode)
    assert stored(songs, tmp_path / "store").n_written == 1
    assert len(Store(tmp_path / "store").clips) == 4


@LONG
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_clip_for_which_a_worker_lacks_memory_fails_alone(launcher, songs, work):
    # Four hours: their patches alone are 370 MB, before they are pickled.
    with sf.SoundFile(songs / "long.flac", "w", 16000, 1) as file:
        for _ in range(240):
            file.write(np.zeros(60 * 16000, dtype=np.float32))
    rows = [f"{name},loud" for name in ["0.wav", "1.wav", "2.wav", "3.wav", "long.flac"]]
    (songs / "clips.csv").write_text("\n".join(["path,tags", *rows]) + "\n")
    settings = [f"data.root={songs}", "data.name=tag_csv", f"store.root={work}/store"]
    settings += ["store.workers=2", "data.split=random"]
    command = ["preprocess", *(word for setting in settings for word in ("--set", setting))]
    limited = ["bash", "-c", 'ulimit -v 1000000; exec "$@"', "bash", sys.executable, "-m", "tagger"]
    done = subprocess.run(
        [*limited, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1, done.stderr
    failures = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    (told,) = failures
    assert "long.flac: " in told
    assert "memory" in told
    assert "split the file" in told
    assert "4 clips (4 written" in done.stdout
    assert len(Store(work / "store").clips) == 4
    # Where there is more of it, the clip follows.
    assert launcher.run(*command).code == 0
    assert len(Store(work / "store").clips) == 5


def children(pid):
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(child) for child in done.stdout.split()]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_worker_that_is_killed_once_costs_no_clip(few_clips, work, launcher):
    settings = ["--set", f"data.root={few_clips}", "--set", f"store.root={work}/store"]
    command = ["preprocess", "--config", "configs/demo.yaml", *settings]
    assert launcher.run(*command).code == 0
    wanted = outcome(work)
    shutil.rmtree(work / "store")
    process = subprocess.Popen(
        [sys.executable, "-m", "tagger", *command, "--set", "store.workers=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    killed = False
    while process.poll() is None:
        journal = next((work / "store").glob("*.jsonl"), None)
        busy = [pid for pid in children(process.pid) if b"spawn_main" in command_line(pid)]
        if not killed and busy and journal is not None and journal.stat().st_size:
            os.kill(busy[0], signal.SIGKILL)
            killed = True
        time.sleep(0.01)
    _, said = process.communicate()
    assert killed
    assert process.returncode == 0, said
    assert outcome(work) == wanted


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
