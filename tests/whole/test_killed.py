"""Killed at any moment (SIGKILL) and started again, every verb ends as if nothing had been.

Each run of the tests kills each of five verbs once, before a change of the disk or a message to
the bucket. A campaign kills it 20 times: a third before such a change, a third at a time with all
processes, a third at a time with its workers outliving it. After each kill nothing half written
may pass for whole. ``--kills`` asks for more, ``--seed`` for others; moments in time are shares of
how long the verb takes, and are never exactly the same again.
"""

import hashlib
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from campaigns import FEW_OR_MANY
from killable import Ended, Kill, Launcher
from outcomes import empty, outcome, require_whole

from preprocess.clips.demo_corpus import write_demo_corpus

# Of several kills in a row, how many come before it may end.
_LONGEST_CHAIN = 4
# A single kill comes in the middle of the work; where there are many, they come everywhere.
_MIDDLE, _ALL = (0.25, 0.75), (0.0, 1.0)


def kill_again_and_again(
    launcher: Launcher,
    command: list[str],
    *,
    start: Callable[[], None],
    look: Callable[[], Counter[str]],
    result: Callable[[], dict[str, str]],
    makes: set[str],
    n_kills: int,
    seed: list[int],
    known: tuple[dict[str, str], Ended] | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Kill a command at `n_kills` moments and compare what it ends with.

    Parameters
    ----------
    start : callable
        Makes what the command starts from.
    look : callable
        Called after each kill and at the end: raises if something half done passes for whole.
        Returns what there was.
    result : callable
        What there is in the end.
    makes : set of str
        What `look` must have found at the end.
    known : tuple, optional
        What there is in the end, and about how many changes that takes; otherwise the command runs
        undisturbed first.
    """
    environment = environment or {}
    n_bytes_before = launcher.log.stat().st_size if launcher.log.exists() else 0

    def said() -> str:
        return launcher.log.read_bytes()[n_bytes_before:].decode()

    def run(kill: Kill | None = None) -> Ended:
        return launcher.run(*command, kill=kill, **environment)

    if known is None:
        start()
        undisturbed = run()
        assert undisturbed.code == 0, said()[-2000:]
        wanted = result()
    else:
        wanted, undisturbed = known
    assert wanted
    rng = np.random.default_rng(seed)
    low, high = _MIDDLE if n_kills == 1 else _ALL
    done, chain, n_halfway = 0, 0, 0
    story = [f"seed {seed}, undisturbed {undisturbed}"]
    start()
    while done < n_kills:
        kind = ("event", "all", "alone")[done % 3]
        share = float(rng.uniform(low, high))
        if kind == "event":
            kill = Kill(event=1 + int(share * undisturbed.n_events))
        else:
            kill = Kill(seconds=share * undisturbed.seconds, alone=kind == "alone")
        ended = run(kill)
        story.append(f"{kill} -> {ended}")
        if ended.code == -9:
            done, chain = done + 1, chain + 1
            look()
            n_halfway += result() != wanted
            if chain < _LONGEST_CHAIN and rng.random() < 0.5 and done < n_kills:
                continue
            ended = run()
            story.append(f"{ended}")
        assert ended.code == 0, f"{story}\n{said()[-2000:]}"
        found = result()
        different = sorted(
            name for name in {*wanted, *found} if wanted.get(name) != found.get(name)
        )
        assert not different, f"{different} after {story}"
        assert makes <= set(look()), story
        chain = 0
        start()
    # Else all kills came before it had begun or after it was done.
    assert n_halfway > 0, story
    # Nothing that was found then was half of something.
    assert "damaged" not in said(), f"{story}\n{said()[-2000:]}"


@pytest.fixture(params=FEW_OR_MANY)
def kills(request, seed):
    name = request.node.originalname.encode()
    return {"n_kills": request.config.option.kills, "seed": [seed, zlib.crc32(name)]}


@pytest.mark.slow
def test_preprocess_killed_at_any_moment_makes_the_same_store(
    launcher, kills, request, few_clips, tmp_path
):
    corpus, work = few_clips, tmp_path / "work"
    if request.config.option.campaign:
        corpus = tmp_path / "corpus"
        write_demo_corpus(corpus, n_clips=48, clip_seconds=3.0, seed=0)
    roots = [f"data.root={corpus}", f"store.root={work}/store", "store.workers=2"]
    settings = [word for root in roots for word in ("--set", root)]
    work.mkdir()
    kill_again_and_again(
        launcher,
        ["preprocess", "--config", "configs/demo.yaml", *settings],
        start=lambda: empty(work),
        look=lambda: require_whole(work),
        result=lambda: outcome(work),
        makes={"store"},
        **kills,
    )


@pytest.mark.slow
def test_train_killed_at_any_moment_gives_the_same_weights_and_bundle(launcher, kills, training):
    kill_again_and_again(
        launcher,
        training.command,
        start=training.lay_out_untrained,
        look=lambda: require_whole(training.folder),
        result=lambda: outcome(training.folder),
        makes={"store", "state", "bundle"},
        known=(training.outcome, training.ended),
        **kills,
    )


@pytest.mark.slow
def test_export_killed_at_any_moment_makes_the_same_bundle(launcher, kills, training, request):
    run = training.folder / "run"
    # Training has exported the same bundle; numbers of other precision are exported here alone.
    options, known = [], (training.outcome, Ended(0, n_events=40, seconds=6.0))
    if request.config.option.campaign:
        options, known = ["--quantize", "float16"], None
    kill_again_and_again(
        launcher,
        ["export", str(run), *options],
        start=lambda: training.lay_out("run/bundle"),
        look=lambda: require_whole(training.folder),
        result=lambda: outcome(training.folder),
        makes={"store", "state", "bundle"},
        known=known,
        **kills,
    )


@pytest.mark.slow
def test_evaluate_killed_at_any_moment_writes_the_same_report(launcher, kills, training):
    folder = training.folder
    kill_again_and_again(
        launcher,
        ["evaluate", str(folder / "run"), "--store", str(folder / "store"), "--draws", "20"],
        start=training.lay_out,
        look=lambda: require_whole(folder),
        result=lambda: outcome(folder),
        makes={"store", "state", "bundle"},
        **kills,
    )


@pytest.mark.slow
def test_an_upload_killed_at_any_moment_leaves_a_valid_run_and_ends_the_same(
    launcher, kills, training, tmp_path, monkeypatch
):
    for package in ("google.cloud.storage", "gcp_storage_emulator", "upath"):
        pytest.importorskip(package)
    from cloud_server import running

    from tagger.cloud.locations import location
    from tagger.cloud.mirror import Mirror, local_copy

    trained, cache = training.kept, tmp_path / "cache"
    monkeypatch.setenv("TAGGER_CACHE", str(cache))
    with running(monkeypatch) as server:
        run = location("gs://bucket/run")
        local = local_copy("runs", run)

        def start():
            """Put a run there and change it here, as further training would."""
            for name in server.objects():
                server.storage.delete_file(server.bucket, name)
            shutil.rmtree(cache, ignore_errors=True)
            shutil.copytree(trained / "run", local)
            shutil.rmtree(local / "bundle")
            Mirror(run, local).push()
            shutil.copytree(trained / "run" / "bundle", local / "bundle")
            newest = max((local / "checkpoints").iterdir())
            shutil.copytree(newest, newest.with_name("00000099"))
            shutil.rmtree(min((local / "checkpoints").iterdir()))
            (local / "metrics.csv").write_bytes((local / "metrics.csv").read_bytes() * 2)
            # Many files, of which none tells of others.
            shutil.copytree(trained / "store" / "clips", local / "evaluation" / "many")

        def look():
            """Another machine fetches the run just then."""
            shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
            fetched = tmp_path / "elsewhere" / "run"
            Mirror(run, fetched).pull()
            found = require_whole(fetched)
            assert (fetched / "run.json").exists()
            # A state to go on from, the old one or the new one.
            assert found["state"]
            return found

        kill_again_and_again(
            launcher,
            [
                "-c",
                "from tagger.runs.folder import RunFolder\nRunFolder.at('gs://bucket/run').push()",
            ],
            start=start,
            look=look,
            result=lambda: {
                name: hashlib.sha256(content).hexdigest()
                for name, content in server.objects("run").items()
            },
            makes={"state", "bundle"},
            environment={
                name: os.environ[name] for name in ("TAGGER_CACHE", "STORAGE_EMULATOR_HOST")
            },
            **kills,
        )


# ---- what looks at the rest --------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_what_is_whole_is_found_whole(training):
    training.lay_out()
    assert require_whole(training.folder) == {"store": 1, "bundle": 1, "state": 2}


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("store/manifest.json", cut),
        ("store/clips/*/*.pkl", flip),
        ("store/clips/*/*.pkl", cut),
        ("run/bundle/*.tflite", flip),
        ("run/bundle/bundle.json", cut),
        ("run/checkpoints/*/progress.json", cut),
        ("run/checkpoints/*/variables.data-*", flip),
        ("run/checkpoints/*/variables.index", cut),
    ],
)
def test_what_a_kill_must_not_leave_is_noticed(training, pattern, harm):
    training.lay_out()
    damaged, *_ = sorted(training.folder.glob(pattern))
    harm(damaged)
    with pytest.raises(Exception, match=r".") as told:
        require_whole(training.folder)
    assert not isinstance(told.value, FileNotFoundError)


def test_a_state_of_which_a_file_is_missing_is_noticed(training):
    training.lay_out()
    next(training.folder.glob("run/checkpoints/*/variables.data-*")).unlink()
    with pytest.raises(Exception, match=r"variables\.data"):
        require_whole(training.folder)


def test_a_state_that_has_not_arrived_whole_promises_nothing_without_its_progress(training):
    training.lay_out()
    *_, newest = sorted((training.folder / "run" / "checkpoints").iterdir())
    (newest / "progress.json").unlink()
    assert require_whole(training.folder)["state"] == 1
