"""Promises of training on several devices and machines; machines are processes on loopback."""

import csv
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from campaigns import quick_some
from free_ports import ports
from small_store import make_store, small_config

from tagger.base.errors import ConfigError
from tagger.config import StreamConfig
from tagger.runs.folder import RunFolder
from tagger.train.augment import mixup_plan, mixup_plans
from tagger.train.distribution import find_distribution, read_cluster
from tagger.train.loop import train
from tagger.train.stream import TrainingStream, prefetched_side_by_side

# Two devices add up in another order than one: that much of the loss may differ, where there is
# no batch normalisation to divide by a small number.
TOLERANCE = 5e-5
# The joint mean and variance of several devices are computed by another formula, and Adam makes
# steps of full size out of the smallest gradients.
TOLERANCE_NORMALISED = 1e-2
# Two logical processors stand for two GPUs.
TWO_DEVICES = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
from tagger.cli.main import main
main([])
"""
SAME_EVERYWHERE = (
    "stream.steps_per_epoch=10",
    "train.mixup_alpha=0.3",
    # Devices drop other units, as each has numbers of its own.
    "model.head.params.dropout=0",
)
# Without what devices compute each for itself, and with what they must do alike.
PLAIN = (
    "model.backbone.params.batch_norm=false",
    "model.head.params.batch_norm=false",
    "augment.gain_db=3",
    "augment.mask_bands=8",
    "train.weight_decay=0.001",
    "train.clip_norm=0.1",
    "train.average_decay=0.9",
)


def overrides(store: Path, run: Path, *more: str) -> list[str]:
    config = small_config(store.parent, *SAME_EVERYWHERE, *more, f"run.root={run}")
    run.parent.mkdir(parents=True, exist_ok=True)
    path = run.parent / f"{run.name}.yaml"
    config.save(path)
    return ["--config", str(path)]


def start_workers(
    arguments: list[str], *others: list[str], n_workers: int = 2
) -> list[subprocess.Popen[str]]:
    """Start workers, the second one with `others` if it is to have other arguments."""
    addresses = [f"127.0.0.1:{port}" for port in ports(n_workers)]
    started = []
    for index in range(n_workers):
        given = others[0] if others and index == 1 else arguments
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tagger.train", *given],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def outcome(workers: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and stderr of each worker; none outlives the test."""
    try:
        # Side by side: one whose pipe is full would wait, and the others for it.
        with ThreadPoolExecutor(len(workers)) as pool:
            said = [pool.submit(worker.communicate, timeout=180) for worker in workers]
            return [
                (worker.wait(), future.result()[1])
                for worker, future in zip(workers, said, strict=True)
            ]
    finally:
        for worker in workers:
            worker.kill()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 150
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.02)


def curve(run: Path, column: str = "train_loss") -> np.ndarray:
    with (run / "metrics.csv").open(newline="") as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("distribution") / "store"
    make_store(root, n_clips=96)
    return root


@pytest.fixture(scope="module")
def joint(store) -> Callable[[tuple[str, ...]], Path]:
    """Gives the run of one process with the joint batch and some settings."""

    @functools.cache
    def run_with(more: tuple[str, ...]) -> Path:
        run = store.parent / f"joint-{len(more)}"
        settings = (*SAME_EVERYWHERE, *more, "stream.shares=2", f"run.root={run}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tagger.bundle.export.export_run", lambda run, **_: [])
            train(small_config(store.parent, *settings))
        return run

    return run_with


# Without batch normalisation the curves are nearest.
PAIRS = [
    (PLAIN, TOLERANCE),
    pytest.param((), TOLERANCE_NORMALISED, marks=pytest.mark.campaign),
]


@pytest.mark.slow
@pytest.mark.parametrize(("more", "tolerance"), PAIRS)
def test_two_machines_learn_what_one_learns_from_the_joint_batch(
    store, joint, more, tolerance, tmp_path
):
    run = tmp_path / "run"
    found = outcome(start_workers(overrides(store, run, *more)))
    assert [status for status, _ in found] == [0, 0], found
    for column in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(
            curve(run, column), curve(joint(more), column), rtol=tolerance, err_msg=column
        )
    assert (run / "bundle" / "bundle.json").exists()
    assert json.loads((run / "run.json").read_text())["n_shares"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("more", "tolerance"), PAIRS)
@pytest.mark.campaign
def test_two_devices_learn_what_one_learns_from_the_joint_batch(
    store, joint, more, tolerance, tmp_path
):
    run = tmp_path / "run"
    arguments = overrides(store, run, *more, "train.strategy=mirrored")
    subprocess.run([sys.executable, "-c", TWO_DEVICES, "train", *arguments], check=True)
    np.testing.assert_allclose(curve(run), curve(joint(more)), rtol=tolerance)


@pytest.mark.slow
@pytest.mark.campaign
def test_two_machines_learn_from_embeddings_that_one_of_them_makes(store, tmp_path):
    # Batch normalisation of the backbone is what machines read together.
    cached = (
        *PLAIN[1:2],
        "model.backbone.freeze=all",
        "train.cache_embeddings=true",
        "train.epochs=1",
    )
    copy, run, alone = tmp_path / "store", tmp_path / "run", tmp_path / "alone"
    shutil.copytree(store, copy)
    found = outcome(start_workers(overrides(copy, run, *cached)))
    assert [status for status, _ in found] == [0, 0], found
    settings = (*SAME_EVERYWHERE, *cached, "stream.shares=2", f"run.root={alone}")
    train(small_config(tmp_path, *settings))
    np.testing.assert_allclose(curve(run), curve(alone), rtol=TOLERANCE)
    assert len(list((copy / "embeddings").iterdir())) == 1


@pytest.mark.slow
def test_other_shares_are_another_curve(store, joint, tmp_path, without_export):
    # What the two tests above hold equal could differ.
    run = tmp_path / "run"
    train(small_config(store.parent, *SAME_EVERYWHERE, *PLAIN, f"run.root={run}"))
    difference = np.abs(curve(run) / curve(joint(PLAIN)) - 1)
    assert difference.max() > 100 * TOLERANCE


@pytest.mark.slow
@pytest.mark.campaign
def test_a_signal_to_one_machine_stops_all_and_they_go_on_as_if_never_stopped(store, tmp_path):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    # Long enough for the signal to come in the middle; with dropout, whose state is kept as well.
    more = (
        *PLAIN,
        "model.head.params.dropout=0.5",
        "stream.steps_per_epoch=150",
        "train.epochs=1",
        "train.checkpoint_minutes=0.005",
    )
    found = outcome(start_workers(overrides(store, whole, *more)))
    assert [status for status, _ in found] == [0, 0], found
    arguments = overrides(store, halved, *more)
    workers = start_workers(arguments)
    # A saved state proves that both are at it.
    wait_for(halved / "checkpoints")
    workers[1].send_signal(signal.SIGTERM)
    found = outcome(workers)
    assert [status for status, _ in found] == [130, 130], found
    for _, stderr in found:
        assert re.search(rf"stopped after \d+ steps; go on with: .*{halved}/config.yaml", stderr)
        assert "crashed" not in stderr
    assert not (halved / "metrics.csv").exists()
    found = outcome(start_workers([*arguments, "--resume"]))
    assert [status for status, _ in found] == [0, 0], found
    assert "resuming after epoch 0, step" in found[1][1]
    np.testing.assert_allclose(curve(halved), curve(whole), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.campaign
def test_a_run_of_two_machines_goes_on_with_one_device(store, joint, tmp_path):
    run = tmp_path / "run"
    found = outcome(start_workers(overrides(store, run, *PLAIN, "train.epochs=1")))
    assert [status for status, _ in found] == [0, 0], found
    settings = (*SAME_EVERYWHERE, *PLAIN, f"run.root={run}")
    train(small_config(store.parent, *settings), resume=True)
    np.testing.assert_allclose(curve(run), curve(joint(PLAIN)), rtol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("when", quick_some(["in the loop", "in the validation"], ["in the loop"]))
@pytest.mark.campaign
def test_a_machine_that_is_lost_is_one_line_of_the_others(store, tmp_path, when):
    run = tmp_path / "run"
    if when == "in the loop":
        workers = start_workers(
            overrides(
                store,
                run,
                *PLAIN,
                "stream.steps_per_epoch=100000",
                "train.checkpoint_minutes=0.005",
            )
        )
        wait_for(run / "checkpoints")
        workers[1].kill()
    else:
        # The second validation clip is the second machine's.
        copy = tmp_path / "store"
        shutil.copytree(store, copy)
        from preprocess.store.store import Store

        opened = Store(copy)
        clips = [clip for clip in opened.clips if clip.record.folder == "c"]
        (copy / clips[1].file).write_bytes(b"damaged")
        workers = start_workers(overrides(copy, run, *PLAIN))
    (status, stderr), (other_status, _) = outcome(workers)
    assert (status, other_status) == ((2, -9) if when == "in the loop" else (2, 2))
    assert "start all of them again with --resume" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
@pytest.mark.parametrize("difference", quick_some(["step", "settings", "resumed"], ["settings"]))
@pytest.mark.campaign
def test_machines_that_would_train_something_else_refuse_together(store, tmp_path, difference):
    one, other = tmp_path / "one", tmp_path / "other"
    if difference == "settings":
        arguments = overrides(store, one, *PLAIN)
        others = overrides(store, other, *PLAIN, "train.mixup_alpha=0.1")
    else:
        short = (*SAME_EVERYWHERE, *PLAIN, "stream.shares=2", "train.epochs=1")
        train(small_config(store.parent, *short, f"run.root={one}"))
        arguments = [*overrides(store, one, *PLAIN), "--resume"]
        others = [*overrides(store, other, *PLAIN), "--resume"]
        if difference == "step":
            train(small_config(store.parent, *short, f"run.root={other}"))
            shutil.rmtree(other / "checkpoints")
    found = outcome(start_workers(arguments, others))
    assert [status for status, _ in found] == [2, 2], found
    for _, stderr in found:
        assert re.search(rf"do not begin with the same .*{difference}", stderr), stderr
        assert "Traceback" not in stderr


@pytest.mark.slow
@pytest.mark.campaign
def test_a_machine_that_waits_for_others_says_so_and_can_be_stopped(store, tmp_path):
    waiting, absent = start_workers(overrides(store, tmp_path / "run"))
    absent.kill()
    absent.communicate()
    for line in waiting.stderr:
        if "worker 0 of 2: waiting for the others" in line:
            break
    time.sleep(1)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=10) != 0
    waiting.communicate()


@pytest.mark.slow
@pytest.mark.campaign
def test_a_port_that_is_taken_is_one_clear_error(store, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cluster = {
            "cluster": {"worker": [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"]},
            "task": {"type": "worker", "index": 0},
        }
        done = subprocess.run(
            [sys.executable, "-m", "tagger.train", *overrides(store, tmp_path / "run")],
            env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert "cannot be joined" in done.stderr and "Traceback" not in done.stderr


def clips_of(stream: TrainingStream, n_batches: int) -> np.ndarray:
    """Clips [shape=(n_batches, batch_size)]: the first value of a window tells."""
    batches = stream.batches()
    return np.stack(
        [next(batches).inputs["log_mel"][:, 0, 0, 0].astype(int) for _ in range(n_batches)]
    )


def streams_of(store, n_shares: int, **settings: object) -> list[TrainingStream]:
    from preprocess.store.store import Store

    opened = Store(store)
    config = StreamConfig.model_validate({"batch_size": 8, "n_active": 4, **settings})
    return [
        TrainingStream(
            opened,
            range(len(opened)),
            labels=opened.index.labels,
            config=config,
            seed=3,
            share=share,
            n_shares=n_shares,
        )
        for share in range(n_shares)
    ]


def test_shares_have_no_clip_in_common_and_all_clips_together(store):
    seen = [set(clips_of(stream, 400).ravel().tolist()) for stream in streams_of(store, 4)]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 96


def test_a_share_is_an_equal_part_of_the_batch_and_of_the_epoch(store):
    whole, shares = streams_of(store, 1)[0], streams_of(store, 4)
    assert [stream.batch_size for stream in shares] == [2] * 4
    assert {stream.steps_per_epoch for stream in shares} == {whole.steps_per_epoch}


def test_shares_draw_other_windows_in_other_orders(store):
    # The same draws in each share would make the parts of a batch resemble one another.
    first, second = (clips_of(stream, 24) for stream in streams_of(store, 2))
    assert not np.array_equal(first // 2, second // 2)


@pytest.mark.parametrize("settings", [{}, {"shard": True}, {"shard": True, "mix_batches": 4}])
def test_shares_side_by_side_are_the_batches_that_each_would_give(store, settings):
    streams = streams_of(store, 2, **settings)
    joined = prefetched_side_by_side(streams, 5)
    parts = [stream.batches(5) for stream in streams]
    for _ in range(3):
        batch = next(joined)
        expected = [next(part) for part in parts]
        np.testing.assert_array_equal(
            batch.inputs["log_mel"], np.concatenate([part.inputs["log_mel"] for part in expected])
        )
        np.testing.assert_array_equal(
            batch.labels, np.concatenate([part.labels for part in expected])
        )


def test_a_single_share_draws_what_a_stream_without_shares_draws(store):
    from preprocess.store.store import Store

    opened = Store(store)
    config = StreamConfig(batch_size=8, n_active=4)
    plain = TrainingStream(
        opened, range(len(opened)), labels=opened.index.labels, config=config, seed=3
    )
    np.testing.assert_array_equal(clips_of(plain, 5), clips_of(streams_of(store, 1)[0], 5))


def test_mixup_stays_within_a_share(store):
    streams = streams_of(store, 2)
    partners, own_part = mixup_plans(streams, 7, alpha=0.4)
    for share, stream in enumerate(streams):
        part = slice(4 * share, 4 * share + 4)
        plan, expected = mixup_plan(stream.seed, 7, batch_size=4, alpha=0.4)
        np.testing.assert_array_equal(partners[part], plan + 4 * share)
        np.testing.assert_array_equal(own_part[part], np.float32(expected))


@pytest.mark.parametrize("n_shares", [3, 16])
def test_a_batch_that_cannot_be_dealt_is_refused(store, n_shares):
    with pytest.raises(ConfigError, match=r"cannot be dealt to \d+ shares; make stream\.batch"):
        streams_of(store, n_shares)


@pytest.mark.campaign
def test_a_resumed_run_keeps_its_shares(store, tmp_path, without_export):
    settings = [*SAME_EVERYWHERE, "train.epochs=1", f"run.root={tmp_path / 'run'}"]
    train(small_config(store.parent, *settings, "stream.shares=2"))
    assert RunFolder(tmp_path / "run").require()["n_shares"] == 2
    # The number is not asked for again; the epoch is that of two shares.
    settings[-2] = "train.epochs=2"
    train(small_config(store.parent, *settings), resume=True)
    train(
        small_config(store.parent, *settings[:-1], "stream.shares=2", f"run.root={tmp_path / 'o'}")
    )
    np.testing.assert_array_equal(curve(tmp_path / "run"), curve(tmp_path / "o"))


def test_the_cluster_numbers_a_chief_before_the_workers():
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for task, number in (("chief", 0), ("worker", 0), ("worker", 1)):
        text = json.dumps({"cluster": cluster, "task": {"type": task, "index": number}})
        assert read_cluster(text) == (number + (task == "worker"), 3)
    assert read_cluster(None) == read_cluster("") == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused(text):
    with pytest.raises(ConfigError, match="TF_CONFIG makes no sense"):
        read_cluster(text)


def test_several_machines_need_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="lists no other worker"):
        find_distribution("multi_worker")


def test_one_device_trains_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    distribution = find_distribution("auto")
    assert (distribution.n_replicas, distribution.n_workers, distribution.is_chief) == (1, 1, True)
    array = np.arange(3.0)
    np.testing.assert_array_equal(distribution.sum_over_workers(array), array)
