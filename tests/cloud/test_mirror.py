"""Promises of runs in a bucket: worked on in a local copy, valid in the bucket at every moment."""

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from campaigns import quick_some
from cloud_server import running
from small_bundle import files_of, make_bundle
from small_model import small_run

from preprocess.store.store import Store
from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import write_bytes
from tagger.bundle.export import export_model
from tagger.bundle.find import find_bundle
from tagger.cloud.locations import location
from tagger.cloud.mirror import Mirror, RunChangedError
from tagger.evaluate.evaluate import evaluate_run
from tagger.runs.folder import RunFolder
from tagger.tagging.tagger import Tagger

# What a report shows is tested elsewhere.
pytestmark = pytest.mark.usefixtures("without_pictures")

ADDRESS = "gs://bucket/runs/one"


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    with running(monkeypatch) as server:
        yield server


def put(folder, files):
    """Write files as commands do: whole, under new inodes."""
    for name, content in files.items():
        write_bytes(folder / name, content.encode(), durable=False)


def state(step):
    """A saved state, as training writes it."""
    folder = f"checkpoints/{step:08d}"
    return {
        f"{folder}/variables.index": f"index {step}",
        f"{folder}/variables.data": f"data {step}",
        f"{folder}/progress.json": f"progress {step}",
    }


def in_bucket(cloud):
    return {name: content.decode() for name, content in cloud.objects("runs/one").items()}


def local(folder):
    return {name: content.decode() for name, content in files_of(folder).items()}


def mirror(folder):
    return Mirror(location(ADDRESS), folder)


RUN = {"run.json": "run", "config.yaml": "config", "last.weights.h5": "weights 1", **state(1)}


@pytest.fixture
def here(cloud, tmp_path):
    """A run that has been pushed, and its folder."""
    folder = tmp_path / "here" / "run"
    put(folder, RUN)
    mirror(folder).push()
    return folder


def go_on(folder):
    """Train to another state; the first is removed."""
    put(folder, {"last.weights.h5": "weights 2", **state(2)})
    shutil.rmtree(folder / "checkpoints" / "00000001")


# Both ways


def test_a_run_that_was_pushed_is_pulled_elsewhere(cloud, here, tmp_path):
    assert in_bucket(cloud) == RUN
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    assert local(there) == RUN


def test_only_what_has_changed_is_sent_and_fetched(cloud, here, tmp_path):
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    put(here, {"last.weights.h5": "weights 2"})
    cloud.sent()
    mirror(here).push()
    assert cloud.sent() == ["runs/one/last.weights.h5"]
    mirror(there).pull()
    assert cloud.fetched() == ["runs/one/last.weights.h5"]
    assert local(there) == {**RUN, "last.weights.h5": "weights 2"}


def test_a_state_that_has_gone_here_goes_there(cloud, here, tmp_path):
    go_on(here)
    mirror(here).push()
    expected = {**RUN, **state(2), "last.weights.h5": "weights 2"}
    for name in state(1):
        del expected[name]
    assert in_bucket(cloud) == expected
    there = tmp_path / "there" / "run"
    put(there, RUN)
    mirror(there).pull()
    assert local(there) == expected


def test_unfinished_local_files_are_not_sent(cloud, here):
    put(here, {".tmp-abc": "half", "checkpoints/.tmp-x/variables.data": "half"})
    mirror(here).push()
    assert in_bucket(cloud) == RUN


# Killed half way


def writes_until(n_writes):
    """Let so many writes pass, then none."""
    left = [n_writes]

    def refused(method, name):
        if method not in ("POST", "DELETE", "PUT"):
            return False
        left[0] -= 1
        return left[0] < 0

    return refused


def states_of(files):
    """States that are whole: all of what was saved, and sealed."""
    steps = {name.split("/")[1] for name in files if name.endswith("progress.json")}
    for step in steps:
        assert {n: c for n, c in files.items() if step in n} == state(int(step))
    return sorted(int(step) for step in steps)


@pytest.mark.parametrize("n_writes", quick_some(range(7), [3]))
def test_a_push_that_was_killed_leaves_a_valid_run(cloud, here, tmp_path, n_writes):
    go_on(here)
    cloud.refused = writes_until(n_writes)
    with pytest.raises(ModelError, match="the run cannot be copied"):
        mirror(here).push()
    cloud.refused = lambda method, name: False
    assert in_bucket(cloud)["run.json"] == "run"
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    assert states_of(local(there)) in ([1], [1, 2], [2])
    # And the machine that was killed goes on from what it has.
    mirror(here).pull()
    assert states_of(local(here)) == [2]
    mirror(here).push()
    assert states_of(in_bucket(cloud)) == [2]


@pytest.mark.parametrize("n_writes", quick_some(range(6), [5]))
def test_a_first_push_that_was_killed_leaves_no_run(cloud, tmp_path, n_writes):
    put(tmp_path / "run", RUN)
    cloud.refused = writes_until(n_writes)
    with pytest.raises(ModelError):
        mirror(tmp_path / "run").push()
    assert "run.json" not in in_bucket(cloud)


def test_a_bundle_is_unsealed_while_its_files_are_exchanged(cloud, here):
    bundle = {"bundle/weights.h5": "one", "bundle/saved/x": "one", "bundle/bundle.json": "one"}
    put(here, bundle)
    mirror(here).push()
    put(here, dict.fromkeys(bundle, "two"))
    cloud.refused = lambda method, name: method == "POST" and name.endswith("saved/x")
    with pytest.raises(ModelError):
        mirror(here).push()
    assert "bundle/bundle.json" not in in_bucket(cloud)
    cloud.refused = lambda method, name: False
    mirror(here).push()
    found = {n: c for n, c in in_bucket(cloud).items() if n.startswith("bundle")}
    assert found == dict.fromkeys(bundle, "two")


@pytest.mark.parametrize("n_files", quick_some(range(6), [3]))
def test_a_pull_that_was_killed_is_gone_on_with(cloud, here, tmp_path, n_files):
    left = [n_files]

    def refused(method, name):
        if method == "GET" and name:
            left[0] -= 1
        return left[0] < 0

    there = tmp_path / "there" / "run"
    put(there, {"run.json": "old", **state(7)})
    cloud.refused = refused
    with pytest.raises(ModelError):
        mirror(there).pull()
    assert "old" not in local(there).values()
    cloud.refused = lambda method, name: False
    mirror(there).pull()
    assert local(there) == RUN


# A copy that is no longer what it was


def test_a_copy_that_has_gone_is_fetched_again_and_removes_nothing(cloud, here):
    (here / "run.json").unlink()
    mirror(here).push()
    mirror(here).pull()
    assert local(here) == in_bucket(cloud) == RUN
    shutil.rmtree(here)
    with pytest.raises(ModelError, match=r"has been removed, .* so nothing was sent; run the co"):
        mirror(here).push()
    mirror(here).pull()
    assert local(here) == in_bucket(cloud) == RUN


def test_who_finds_a_damaged_description_in_the_bucket_is_not_told_to_delete(cloud):
    run = RunFolder.at(ADDRESS)
    write_bytes(location(ADDRESS) / "run.json", b"{")
    run.pull()
    with pytest.raises(
        ModelError, match=f"^{ADDRESS}/run.json: damaged .*; restore it .*{run.root}"
    ):
        run.require()


def test_what_a_note_speaks_of_is_on_the_disk_before_it(cloud, here, tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def watched(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    note = synced.index(there.with_name("run.json").stat().st_ino)
    assert {path.stat().st_ino for path in there.rglob("*")} <= set(synced[:note])


# Two machines


def third_state(folder):
    """Train on to a third state; the second is removed."""
    put(folder, {"last.weights.h5": "weights 3", **state(3)})
    shutil.rmtree(folder / "checkpoints" / "00000002")


@pytest.mark.parametrize("n_writes", quick_some(range(8), [0, 4]))
@pytest.mark.parametrize("is_first", [False, True], ids=["later", "first"])
def test_training_after_a_push_that_was_cut_off_is_not_lost(cloud, tmp_path, is_first, n_writes):
    folder = tmp_path / "run"
    mirror(folder).pull()
    put(folder, RUN)
    if not is_first:
        mirror(folder).push()
        go_on(folder)
    cloud.refused = writes_until(n_writes)
    with contextlib.suppress(ModelError):
        mirror(folder).push()
    go_on(folder) if is_first else third_state(folder)
    trained = local(folder)
    cloud.refused = lambda method, name: False
    mirror(folder).pull()
    assert local(folder) == trained
    mirror(folder).push()
    assert in_bucket(cloud) == trained


@pytest.mark.parametrize("n_writes", quick_some(range(5), [0, 2]))
@pytest.mark.parametrize("is_first", [False, True], ids=["later", "first"])
def test_a_run_gone_on_with_elsewhere_replaces_what_was_half_sent(
    cloud, tmp_path, is_first, n_writes
):
    here, there = tmp_path / "here" / "run", tmp_path / "there" / "run"
    mirror(here).pull()
    put(here, RUN)
    if not is_first:
        mirror(here).push()
        go_on(here)
    cloud.refused = writes_until(n_writes)
    with pytest.raises(ModelError):
        mirror(here).push()
    cloud.refused = lambda method, name: False
    mirror(there).pull()
    put(there, {**RUN, "run.json": "of another", "last.weights.h5": "of another", **state(5)})
    mirror(there).push()
    put(here, {"last.weights.h5": "weights 3", **state(3)})
    mirror(here).pull()
    assert local(here) == local(there) == in_bucket(cloud)
    assert local(here)["last.weights.h5"] == "of another"


def test_from_an_address_without_a_run_nothing_is_fetched(cloud, tmp_path):
    write_bytes(location(ADDRESS) / "music.flac", b"of somebody")
    for _ in range(2):
        mirror(tmp_path / "run").pull()
        assert local(tmp_path / "run") == {}
    assert [name for name in cloud.fetched() if name.endswith(".flac")] == []


def test_a_new_run_takes_nothing_over_from_one_without_a_description(cloud, tmp_path):
    for name, content in {**state(9), "thresholds.json": "old", "music.flac": "kept"}.items():
        write_bytes(location(ADDRESS) / name, content.encode())
    mirror(tmp_path / "run").pull()
    put(tmp_path / "run", RUN)
    mirror(tmp_path / "run").push()
    assert in_bucket(cloud) == {**RUN, "music.flac": "kept"}


def test_results_of_an_evaluation_bring_no_old_weights_back(cloud, here, tmp_path):
    there = tmp_path / "there" / "run"
    mirror(there).pull(leave=("checkpoints",))
    go_on(here)
    mirror(here).push()
    put(there, {"evaluation/test/metrics.json": "good"})
    mirror(there).push()
    assert in_bucket(cloud)["last.weights.h5"] == "weights 2"
    assert states_of(in_bucket(cloud)) == [2]
    mirror(here).pull()
    assert local(here)["evaluation/test/metrics.json"] == "good"


def test_evaluations_at_once_on_one_machine_lose_nothing_while_another_one_trains(
    cloud, here, tmp_path
):
    there = tmp_path / "there" / "run"
    old = {"evaluation/test/metrics.json": "old", "evaluation/other/metrics.json": "old"}
    put(here, old)
    mirror(here).push()
    mirror(there).pull()
    # One writes, and while it does the other one takes over what was trained on.
    new = {"evaluation/test/metrics.json": "new", "evaluation/test/scores.npz": "new"}
    put(there, new)
    go_on(here)
    put(here, {"evaluation/other/metrics.json": "of another machine"})
    mirror(here).push()
    mirror(there).pull()
    expected = {**local(here), **new}
    assert local(there) == expected
    mirror(there).push()
    assert in_bucket(cloud) == expected


def test_evaluations_of_another_run_are_not_taken_for_those_of_this_one(cloud, here, tmp_path):
    put(here, {"evaluation/test/metrics.json": "unsent"})
    cloud.put("runs/one/run.json", b"another run")
    mirror(here).pull()
    assert local(here) == {**RUN, "run.json": "another run"}


def test_what_is_left_out_is_neither_fetched_nor_removed(cloud, here, tmp_path):
    there = tmp_path / "there" / "run"
    mirror(there).pull(leave=("checkpoints",))
    assert not (there / "checkpoints").exists()
    mirror(there).push()
    assert in_bucket(cloud) == RUN
    mirror(there).pull()
    assert local(there) == RUN


def test_a_run_that_was_deleted_in_the_bucket_is_gone(cloud, here):
    root = location(ADDRESS)
    root.fs.rm(root.path, recursive=True)
    mirror(here).pull()
    assert local(here) == {}


def test_what_cannot_be_sent_now_is_sent_later(cloud, capfd):
    run = RunFolder.at(ADDRESS)
    put(run.root, RUN)
    cloud.refused = writes_until(0)
    run.push(patient=True)
    warning = capfd.readouterr().err
    assert warning.startswith(f"warning: {ADDRESS}/") and "no permission for you);" in warning
    assert "{" not in warning
    with pytest.raises(ModelError):
        run.push()
    cloud.refused = lambda method, name: False
    run.push()
    assert in_bucket(cloud) == RUN


# Read while another machine writes

EPOCHS = {
    number: {**RUN, "best.weights.h5": f"best {number}", "thresholds.json": f"fitted {number}"}
    for number in range(9)
}


def written_meanwhile(cloud, name, *, times):
    """Let another machine write the next epoch whenever a file is about to be fetched."""
    written = []

    def refused(method, asked):
        if (method, asked) == ("GET", f"runs/one/{name}") and len(written) < times:
            written.append(asked)
            for changed in ("best.weights.h5", "thresholds.json"):
                content = EPOCHS[len(written)][changed]
                cloud.put(f"runs/one/{changed}", content.encode())
        return False

    cloud.refused = refused


@pytest.mark.parametrize("name", ["best.weights.h5", "thresholds.json"])
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_written_while_it_is_pulled_is_taken_over_as_a_whole(
    cloud, here, tmp_path, name, times
):
    put(here, EPOCHS[0])
    mirror(here).push()
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    unsent = {"evaluation/test/metrics.json": "unsent"}
    put(there, unsent)
    put(here, {"best.weights.h5": "best", "thresholds.json": "fitted"})
    mirror(here).push()
    written_meanwhile(cloud, name, times=times)
    mirror(there).pull()
    assert local(there) == {**EPOCHS[times], **unsent}
    # What was fetched is known, so that the results of an evaluation can be sent.
    cloud.sent()
    mirror(there).push()
    assert cloud.sent() == ["runs/one/evaluation/test/metrics.json"]


def test_a_run_that_is_written_all_the_time_is_given_up_in_one_line(cloud, here, tmp_path):
    put(here, EPOCHS[0])
    mirror(here).push()
    written_meanwhile(cloud, "best.weights.h5", times=8)
    # Whichever of its files is met half written.
    with pytest.raises(ModelError, match=r"runs/one/\S+: the run cannot be copied \(.*No such"):
        mirror(tmp_path / "there" / "run").pull()


# Two machines at once, and no lease


def go_on_differently(folder):
    put(folder, {"last.weights.h5": "other weights", **state(2)})
    put(folder, {"checkpoints/00000002/variables.data": "other data"})
    shutil.rmtree(folder / "checkpoints" / "00000001")


def refused_as_changed(folder):
    """The one line of a push that is refused."""
    with pytest.raises(RunChangedError) as caught:
        mirror(folder).push()
    message = str(caught.value)
    assert message.startswith(f"{ADDRESS}/") and "\n" not in message
    assert "another machine has written it" in message
    assert "start this one again" in message
    return message


def test_a_run_that_another_machine_has_gone_on_with_is_not_overwritten(cloud, here, tmp_path):
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    go_on(here)
    mirror(here).push()
    before = in_bucket(cloud)
    go_on_differently(there)
    trained = local(there)
    refused_as_changed(there)
    assert in_bucket(cloud) == before
    # And nothing is lost before somebody decides.
    assert local(there) == trained


@pytest.mark.parametrize("n_requests", quick_some(range(14), [5, 9]))
def test_of_two_pushes_at_once_none_overwrites_the_other(cloud, here, tmp_path, n_requests):
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    go_on(here)
    go_on_differently(there)
    left, outcomes = [n_requests], {}

    def push(folder):
        try:
            mirror(folder).push()
            outcomes[folder] = "pushed"
        except RunChangedError:
            outcomes[folder] = "refused"

    def refused(method, name):
        # The other machine comes in between: in its whole length, and on its own connection.
        left[0] -= 1
        if left[0] == -1:
            other = threading.Thread(target=push, args=[there])
            other.start()
            cloud.without_lock(other.join)
        return False

    cloud.refused = refused
    push(here)
    if there not in outcomes:
        push(there)
    pushed = [folder for folder in outcomes if outcomes[folder] == "pushed"]
    found = in_bucket(cloud)
    assert len(pushed) <= 1
    if pushed:
        assert found == local(pushed[0])
    # A mixture of both is never taken for whole.
    sealed = {name.rpartition("/")[0] for name in found if name.endswith("progress.json")}
    assert sealed
    for folder in sealed - {"checkpoints/00000001"}:
        versions = [
            {name: content for name, content in files.items() if name.startswith(folder)}
            for files in (found, local(here), local(there))
        ]
        assert versions[0] in versions[1:]


def test_of_two_that_start_a_run_at_once_only_one_does(cloud, tmp_path):
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    mirror(one).pull()
    mirror(two).pull()
    put(one, RUN)
    put(two, {**RUN, "run.json": "another run", "config.yaml": "another"})
    # Killed before it has said that it is a run.
    cloud.refused = lambda method, name: method == "POST" and name.endswith("run.json")
    with pytest.raises(ModelError, match="cannot be copied"):
        mirror(one).push()
    cloud.refused = lambda method, name: False
    refused_as_changed(two)
    mirror(one).push()
    assert in_bucket(cloud) == RUN
    assert "run.json" in refused_as_changed(two) or "config.yaml" in refused_as_changed(two)


def test_results_that_another_machine_has_added_are_replaced_after_a_look(cloud, here, tmp_path):
    there = tmp_path / "there" / "run"
    mirror(there).pull()
    put(there, {"thresholds.json": "theirs"})
    mirror(there).push()
    put(here, {"thresholds.json": "mine"})
    assert "thresholds.json" in refused_as_changed(here)
    mirror(here).pull()
    mirror(here).push()
    assert in_bucket(cloud)["thresholds.json"] == "mine"


def test_a_removal_does_not_hit_what_another_machine_has_written(cloud, here):
    (here / "last.weights.h5").unlink()

    def refused(method, name):
        if method == "DELETE":
            cloud.refused = lambda method, name: False
            cloud.put("runs/one/last.weights.h5", b"of another")
        return False

    cloud.refused = refused
    assert "last.weights.h5" in refused_as_changed(here)
    assert in_bucket(cloud)["last.weights.h5"] == "of another"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_change_whose_answer_was_lost_is_not_another_machines(cloud, here, method):
    go_on(here)
    lost = []

    def lose(asked, name):
        if asked != method or name in lost:
            return False
        lost.append(name)
        return True

    cloud.lost = lose
    mirror(here).push()
    assert len(lost) > 2
    assert in_bucket(cloud) == local(here)


def test_a_run_of_another_machine_is_not_waited_for_patiently(cloud):
    run = RunFolder.at(ADDRESS)
    run.pull()
    put(run.root, RUN)
    write_bytes(location(ADDRESS) / "run.json", b"another run")
    with pytest.raises(RunChangedError, match=r"run\.json"):
        run.push(patient=True)


# Run folders


def test_a_run_in_a_bucket_is_worked_on_in_the_cache(cloud, tmp_path):
    run = RunFolder.at(ADDRESS)
    run.pull()
    assert not run.exists()
    assert str(run.address) == ADDRESS
    assert run.root.is_relative_to(tmp_path / "cache" / "runs")
    assert RunFolder.at(Path(ADDRESS)).root == run.root
    put(run.root, RUN)
    run.push()
    assert in_bucket(cloud) == RUN
    with pytest.raises(ModelError, match="damaged"):
        run.require()


def test_no_run_in_a_bucket_is_named_by_its_address(cloud):
    with pytest.raises(ModelError, match=f"^{ADDRESS}: no training run here"):
        evaluate_run(location(ADDRESS))


@pytest.fixture
def trained(cloud, tmp_path_factory, remembered_conversions):
    """A trained run in the bucket, with its store; the local run is returned."""
    run = small_run(tmp_path_factory)
    for folder, address in ((run, ADDRESS), (run.parent / "store", "gs://bucket/store")):
        for name, content in files_of(folder).items():
            write_bytes(location(address) / name, content)
    text = (run / "config.yaml").read_text()
    text = text.replace(str(run.parent / "store"), "gs://bucket/store")
    write_bytes(location(ADDRESS) / "config.yaml", text.replace(str(run), ADDRESS).encode())
    return run


@pytest.mark.campaign
def test_a_run_in_a_bucket_is_evaluated_there(cloud, trained, command, tmp_path):
    code, out, err = command("evaluate", ADDRESS)
    assert code == 0, err
    assert f"metrics: {ADDRESS}/evaluation/test/metrics.json" in out
    found = json.loads(cloud.objects("runs/one")["evaluation/test/metrics.json"])
    shutil.copytree(trained, tmp_path / "run")
    expected = evaluate_run(tmp_path / "run").to_json()
    assert found == {**expected, "source": ADDRESS}
    # Neither states nor the clips of other parts were needed.
    copy = next(path for path in (tmp_path / "cache" / "runs").iterdir() if path.is_dir())
    assert not (copy / "checkpoints").exists()
    n_pickles = len(list((tmp_path / "cache" / "stores").rglob("*.pkl")))
    assert n_pickles == expected["n_clips"] < len(Store(location("gs://bucket/store")))


@pytest.mark.parametrize("verb", quick_some(["calibrate", "export", "evaluate"], ["export"]))
def test_who_changes_a_run_that_a_vm_works_on_is_warned(cloud, trained, command, verb):
    cloud.put("runs/one.vm/lease.json", b'{"owner": "vm"}')
    code, _, err = command(verb, ADDRESS)
    assert code == 0
    warning = f"warning: {ADDRESS}: a VM works on this run ({ADDRESS}.vm/lease.json);"
    # An evaluation only adds to it.
    assert err.count(warning) == (verb != "evaluate")


def test_a_run_in_a_bucket_is_a_model_and_is_exported_there(cloud, trained):
    assert find_bundle(ADDRESS).version == find_bundle(trained).version
    assert Tagger.load(ADDRESS).tags == Tagger.load(str(trained)).tags
    lines = export_model(ADDRESS, format_="litert", quantize="float16")
    assert lines[0] == f"{ADDRESS}/bundle/model_float16.tflite"
    assert "bundle/model_float16.tflite" in cloud.objects("runs/one")
    bundle = find_bundle(ADDRESS)
    assert bundle.export("litert", "float16")
    bundle.verify()


def test_an_export_into_the_copy_of_a_remote_bundle_is_refused(cloud, tmp_path):
    make_bundle(tmp_path / "bundle")
    for name, content in files_of(tmp_path / "bundle").items():
        write_bytes(location("gs://bucket/model") / name, content)
    with pytest.raises(ConfigError, match=r"gs://bucket/model: .* copy the bundle to a folder"):
        export_model("gs://bucket/model", format_="onnx")
