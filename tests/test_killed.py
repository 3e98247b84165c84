"""Killed at any moment (SIGKILL) and started again, every verb ends as if nothing had been.

20 moments in each of five verbs, drawn from a seed: a third before a change of the disk or a
message to the bucket, a third at a time with all processes, a third at a time with its workers
outliving it. After each of them nothing half written may pass for whole. ``--kills`` and
``--seed`` ask for others.
"""

import hashlib
import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from killable import Kill, Launcher
from outcomes import outcome, require_whole, restored, training_config
from small_store import make_store

from preprocess.clips.demo_corpus import write_demo_corpus

# Of several kills in a row, how many come before it may end.
_LONGEST_CHAIN = 4


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    with Launcher(folder / "log") as started:
        yield started


@pytest.fixture(scope="module")
def trained(tmp_path_factory, launcher):
    """Folder with a store and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    make_store(folder / "store", n_clips=48)
    config = training_config(folder)
    assert launcher.run("train", "--config", str(config)).code == 0
    return folder


def kill_again_and_again(
    launcher: Launcher,
    command: list[str],
    *,
    start: Callable[[], None],
    look: Callable[[], None],
    result: Callable[[], dict[str, str]],
    n_kills: int,
    seed: list[int],
    environment: dict[str, str] | None = None,
) -> None:
    """Kill a command at `n_kills` moments and compare what it ends with.

    Parameters
    ----------
    start : callable
        Makes what the command starts from.
    look : callable
        Called after each kill: raises if something half done passes for whole.
    result : callable
        What there is in the end.
    """
    environment = environment or {}

    def run(kill: Kill | None = None) -> int:
        return launcher.run(*command, kill=kill, **environment)

    start()
    undisturbed = run()
    assert undisturbed.code == 0, launcher.log.read_text()[-2000:]
    wanted = result()
    assert wanted
    rng = np.random.default_rng(seed)
    done, chain, kinds, story = 0, 0, [], []
    start()
    while done < n_kills:
        kind = ("event", "all", "alone")[done % 3]
        if kind == "event":
            kill = Kill(event=int(rng.integers(1, undisturbed.n_events + 1)))
        else:
            seconds = float(rng.uniform(0, undisturbed.seconds))
            kill = Kill(seconds=seconds, alone=kind == "alone")
        ended = run(kill)
        story.append(f"{kill} -> {ended.code}")
        if ended.code == -9:
            done, chain = done + 1, chain + 1
            kinds.append(kind)
            look()
            if chain < _LONGEST_CHAIN and rng.random() < 0.5 and done < n_kills:
                continue
            ended = run()
        assert ended.code == 0, f"{story}\n{launcher.log.read_text()[-2000:]}"
        found = result()
        different = sorted(
            name for name in {*wanted, *found} if wanted.get(name) != found.get(name)
        )
        assert not different, f"{different} after {story}"
        chain, story = 0, []
        start()
    assert len(kinds) == n_kills
    # Nothing that was found then was half of something.
    assert "damaged" not in launcher.log.read_text()


@pytest.fixture
def kills(request):
    return {
        "n_kills": request.config.getoption("--kills"),
        "seed": [request.config.option.seed, len(request.node.name)],
    }


@pytest.mark.slow
def test_preprocess_killed_at_any_moment_makes_the_same_store(launcher, kills, tmp_path):
    corpus, work = tmp_path / "corpus", tmp_path / "work"
    write_demo_corpus(corpus, n_clips=48, clip_seconds=3.0, seed=0)
    roots = [f"data.root={corpus}", f"store.root={work}/store", "store.workers=2"]
    settings = [word for root in roots for word in ("--set", root)]

    def start():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()

    kill_again_and_again(
        launcher,
        ["preprocess", "--config", "configs/demo.yaml", *settings],
        start=start,
        look=lambda: require_whole(work),
        result=lambda: outcome(work),
        **kills,
    )


@pytest.mark.slow
def test_train_killed_at_any_moment_gives_the_same_weights_and_bundle(launcher, kills, tmp_path):
    begin, work = tmp_path / "begin", tmp_path / "work"
    make_store(begin / "store", n_clips=48)
    work.mkdir()
    training_config(work).rename(begin / "config.yaml")
    kill_again_and_again(
        launcher,
        ["train", "--config", str(work / "config.yaml"), "--resume"],
        start=lambda: restored(begin, work),
        look=lambda: require_whole(work),
        result=lambda: outcome(work),
        **kills,
    )


@pytest.mark.slow
def test_export_killed_at_any_moment_makes_the_same_bundle(launcher, kills, trained, tmp_path):
    work = tmp_path / "work"

    def start():
        restored(trained, work)
        training_config(work)
        shutil.copy(work / "config.yaml", work / "run")

    kill_again_and_again(
        launcher,
        ["export", str(work / "run"), "--quantize", "float16"],
        start=start,
        look=lambda: require_whole(work),
        result=lambda: outcome(work),
        **kills,
    )


@pytest.mark.slow
def test_evaluate_killed_at_any_moment_writes_the_same_report(launcher, kills, trained, tmp_path):
    work = tmp_path / "work"
    kill_again_and_again(
        launcher,
        ["evaluate", str(work / "run"), "--store", str(work / "store"), "--draws", "20"],
        start=lambda: restored(trained, work),
        look=lambda: require_whole(work),
        result=lambda: outcome(work),
        **kills,
    )


@pytest.mark.slow
def test_an_upload_killed_at_any_moment_leaves_a_valid_run_and_ends_the_same(
    launcher, kills, trained, tmp_path, monkeypatch
):
    for package in ("google.cloud.storage", "gcp_storage_emulator", "upath"):
        pytest.importorskip(package)
    from cloud_server import running

    from tagger.cloud.locations import location
    from tagger.cloud.mirror import Mirror, local_copy

    cache = tmp_path / "cache"
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
            shutil.copytree(trained / "store", local / "evaluation" / "many")

        def look():
            """Another machine fetches the run just then."""
            shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
            fetched = tmp_path / "elsewhere" / "run"
            Mirror(run, fetched).pull()
            require_whole(fetched)
            assert (fetched / "run.json").exists()
            # A state to go on from, the old one or the new one.
            assert list(fetched.glob("checkpoints/*/progress.json"))

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
            environment={
                name: os.environ[name] for name in ("TAGGER_CACHE", "STORAGE_EMULATOR_HOST")
            },
            **kills,
        )
