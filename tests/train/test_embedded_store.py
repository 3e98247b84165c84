"""Promises of training a head on embeddings that were computed once."""

import numpy as np
import pytest
from small_store import make_store, small_config

from tagger.base.errors import ConfigError, StoreError
from tagger.config import load_config
from tagger.network.model import build_model
from tagger.runs.folder import RunFolder
from tagger.train.embedded_store import EMBEDDING, EmbeddedStore
from tagger.train.loop import train

FROZEN = ("model.backbone.freeze=all", "model.head.params.dropout=0.3", "stream.steps_per_epoch=6")
CACHED = (*FROZEN, "train.cache_embeddings=true")


@pytest.fixture
def folder(tmp_path):
    make_store(tmp_path / "store", n_clips=32, n_windows=4)
    return tmp_path


def built(folder, *overrides):
    config = small_config(folder, *overrides)
    return build_model(config, config.make_front_end(), ["a", "b"]), config


def read_weights(run):
    config = RunFolder(run).load_config()
    model = build_model(config, config.make_front_end(), RunFolder(run).load_vocabulary().tags)
    model.load_weights(run / "last.weights.h5")
    return {name: variable.numpy() for name, variable in model.weights.items()}


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(
            ("stream.patches_per_bag=3", "model.aggregate=autopool"), marks=pytest.mark.campaign
        ),
    ],
)
def test_the_head_learns_what_it_learns_from_patches(folder, more, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tagger.bundle.export.export_run", lambda run, **_: [])
        train(small_config(folder, *FROZEN, *more, f"run.root={folder / 'patches'}"))
    train(small_config(folder, *CACHED, *more, f"run.root={folder / 'embeddings'}"))
    one, other = (read_weights(folder / name) for name in ("patches", "embeddings"))
    for name in one:
        np.testing.assert_allclose(other[name], one[name], atol=2e-4, err_msg=name)
    for name in ("metrics.csv", "thresholds.json", "bundle/bundle.json"):
        assert (folder / "embeddings" / name).exists()


def test_embeddings_are_those_of_the_network_and_are_computed_once(folder, monkeypatch):
    from preprocess.store.store import Store

    model, config = built(folder)
    store = Store(folder / "store")
    EmbeddedStore(store, model, config).prepare()
    again = EmbeddedStore(store, model, config)
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("a pickle was read again"))
    again.prepare()
    found = again.read(5)
    monkeypatch.undo()
    assert list(found) == [EMBEDDING]
    expected = model.embedding_model(
        {"log_mel": store.read(5)["log_mel"].astype(np.float32)}, training=False
    )
    np.testing.assert_allclose(found[EMBEDDING], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_long_clip_goes_through_the_backbone_a_few_windows_at_a_time(folder):
    from preprocess.store.store import Store

    store = Store(folder / "store")
    model, config = built(folder)
    at_once = EmbeddedStore(store, model, config).read(0)[EMBEDDING]
    _, config = built(folder, "stream.evaluation_batch_size=3")
    sizes = []
    embed = model.embed_windows
    model.embed_windows = lambda windows: (sizes.append(len(windows["log_mel"])), embed(windows))[1]
    in_slices = EmbeddedStore(store, model, config).read(0)[EMBEDDING]
    assert sizes == [3, 1]
    np.testing.assert_allclose(in_slices, at_once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((), id="weights"),
        pytest.param(("model.backbone.params.pooling=max",), id="parameters"),
    ],
)
def test_other_backbones_have_embeddings_of_their_own(folder, other):
    from preprocess.store.store import Store

    store = Store(folder / "store")
    model, config = built(folder)
    theirs, their_config = built(folder, *other)
    if other:
        for mine, their in zip(
            model.embedding_model.weights, theirs.embedding_model.weights, strict=True
        ):
            their.assign(mine)
    one, two = EmbeddedStore(store, model, config), EmbeddedStore(store, theirs, their_config)
    assert one.root != two.root
    assert EmbeddedStore(store, model, config).root == one.root


def test_embeddings_of_a_store_that_has_changed_are_computed_anew(folder):
    from preprocess.store.store import Store

    model, config = built(folder)
    before = EmbeddedStore(Store(folder / "store"), model, config)
    before.prepare()
    old = before.read(3)[EMBEDDING].copy()
    make_store(folder / "store", n_clips=32, n_windows=4, seed=1)
    after = EmbeddedStore(Store(folder / "store"), model, config)
    after.prepare()
    assert (after.read(3)[EMBEDDING] != old).any()


def test_a_damaged_pickle_is_named_and_leaves_no_half_cache(folder):
    from preprocess.store.store import Store

    model, config = built(folder)
    store = Store(folder / "store")
    path = next(iter(sorted((folder / "store").glob("clips/*/*.pkl"))))
    path.write_bytes(b"damaged")
    embedded = EmbeddedStore(store, model, config)
    with pytest.raises(StoreError, match=path.name):
        embedded.prepare()
    assert not list(embedded.root.glob("shard/*.bin"))


@pytest.mark.campaign
def test_a_resumed_run_learns_from_the_same_embeddings(folder, without_export):
    straight = small_config(folder, *CACHED, f"run.root={folder / 'straight'}")
    train(straight)
    train(small_config(folder, *CACHED, f"run.root={folder / 'run'}", "train.epochs=1"))
    train(small_config(folder, *CACHED, f"run.root={folder / 'run'}"), resume=True)
    one, other = (read_weights(folder / name) for name in ("straight", "run"))
    for name in one:
        np.testing.assert_array_equal(other[name], one[name], err_msg=name)
    assert len(list((folder / "store" / "embeddings").iterdir())) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.cache_embeddings=true"], "set model.backbone.freeze to all"),
        ([*CACHED, "augment.gain_db=3"], "set all keys of augment to 0"),
    ],
)
def test_what_cannot_be_cached_is_refused_with_the_remedy(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)
