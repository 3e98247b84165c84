"""Promises of training on a store and into a run in a bucket: as on a disk, also after a kill."""

import io
import shutil

import numpy as np
import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from cloud_server import running
from small_store import make_store, small_config

from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import write_bytes
from tagger.cloud.locations import location
from tagger.train.loop import train

STORE, RUN = "gs://bucket/store", "gs://bucket/runs/one"


@pytest.fixture
def cloud(monkeypatch, tmp_path, remembered_conversions):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    with running(monkeypatch) as server:
        make_store(location(STORE), n_clips=32)
        yield server


def config_of(folder, *overrides):
    return small_config(folder, f"store.root={STORE}", f"run.root={RUN}", *overrides)


def weights(content):
    import h5py

    found = {}
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def test_training_in_a_bucket_gives_the_weights_of_training_on_a_disk(cloud, tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    train(small_config(tmp_path))
    result = train(config_of(tmp_path))
    assert str(result.run) == RUN
    there = weights(cloud.objects("runs/one")["last.weights.h5"])
    here = weights((tmp_path / "run" / "last.weights.h5").read_bytes())
    assert there.keys() == here.keys()
    for name, value in here.items():
        np.testing.assert_array_equal(there[name], value, err_msg=name)
    names = {
        path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")
    }
    wanted = {name for name in names if (tmp_path / "run" / name).is_file()}
    wanted = {name for name in wanted if not name.startswith("tensorboard")}
    assert wanted <= set(cloud.objects("runs/one"))


@pytest.mark.campaign
def test_training_that_was_killed_goes_on_on_another_machine(cloud, tmp_path, without_export):
    train(config_of(tmp_path, "run.root=gs://bucket/runs/whole"))
    train(config_of(tmp_path, "train.epochs=1"))
    # Neither the bundle nor the local copy has survived.
    shutil.rmtree(tmp_path / "cache")
    assert train(config_of(tmp_path), resume=True).finished
    whole = weights(cloud.objects("runs/whole")["last.weights.h5"])
    for name, value in weights(cloud.objects("runs/one")["last.weights.h5"]).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_a_run_in_a_bucket_is_not_overwritten(cloud, tmp_path):
    write_bytes(location(RUN) / "run.json", b'{"format_version": 1}')
    with pytest.raises(ConfigError, match=f"^{RUN}: already holds a run; add --resume"):
        train(config_of(tmp_path))


@pytest.mark.campaign
def test_a_network_that_fails_for_a_while_does_not_end_training(cloud, tmp_path, capfd):
    def refused(method, name):
        trained = list((tmp_path / "cache" / "runs").glob("*/bundle/bundle.json"))
        return method == "POST" and name.startswith("runs/") and not trained

    cloud.refused = refused
    assert train(config_of(tmp_path)).finished
    assert "will be sent later" in capfd.readouterr().err
    assert {"run.json", "last.weights.h5", "bundle/bundle.json"} <= set(cloud.objects("runs/one"))


def test_a_run_that_cannot_be_sent_at_its_end_is_an_error(cloud, tmp_path):
    cloud.refused = lambda method, name: method == "POST" and name.startswith("runs/")
    with pytest.raises(ModelError, match="the run cannot be copied"):
        train(config_of(tmp_path))
    cloud.refused = lambda method, name: False
    assert train(config_of(tmp_path), resume=True).finished
    assert "bundle/bundle.json" in cloud.objects("runs/one")


@pytest.mark.campaign
def test_training_ends_when_another_machine_has_taken_the_run_over(cloud, tmp_path):
    saved = []

    def refused(method, name):
        if method == "POST" and name.endswith("progress.json"):
            saved.append(name)
            # After the first saved state, which is whole then.
            if len(saved) == 1:
                cloud.put("runs/one/metrics.csv", b"of another machine")
        return False

    cloud.refused = refused
    with pytest.raises(ModelError, match=r"^gs://bucket/runs/one/.*: another machine has written"):
        train(config_of(tmp_path))
    there = cloud.objects("runs/one")
    assert there["metrics.csv"] == b"of another machine"
    assert "bundle/bundle.json" not in there
    # What was learned here is on the disk.
    copy = next(path for path in (tmp_path / "cache" / "runs").iterdir() if path.is_dir())
    assert list(copy.glob("checkpoints/*/progress.json"))
