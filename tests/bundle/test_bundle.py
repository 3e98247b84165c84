"""Promises of model bundles: whole, checked byte by byte, and without code."""

import hashlib
import json
import os
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundle import TAGS, THRESHOLDS, files_of, make_bundle, rewrite, small_model, windows

import tagger.bundle.write
from tagger.base.errors import ModelError, TaggerError
from tagger.base.files import TEMPORARY_PREFIX, json_hash
from tagger.bundle.find import describe_bundle
from tagger.bundle.light_model import LightModel
from tagger.bundle.read import DESCRIPTION, Bundle, Export, seal
from tagger.bundle.write import Source, add_export, load_model, write_bundle

FILES = {
    "bundle.json",
    "weights.h5",
    "model.tflite",
    "config.yaml",
    "vocabulary.json",
    "thresholds.json",
    "metrics.json",
    "MODEL_CARD.md",
    "essentia.json",
}
# Who reads which file.
READERS = {
    "weights.h5": load_model,
    "config.yaml": load_model,
    "vocabulary.json": Bundle.tags,
    "thresholds.json": Bundle.thresholds,
    "metrics.json": Bundle.metrics,
    "model.tflite": LightModel,
    "MODEL_CARD.md": Bundle.verify,
}


# What the conversion itself gives is tested with the exports.
pytestmark = pytest.mark.usefixtures("remembered_conversions")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "bundle"
    make_bundle(root)
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(made, tmp_path / "bundle")


def replace_file(root, name, content):
    """Change a file and its checksum."""
    (root / name).write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    rewrite(root, lambda description: description["files"].update({name: checksum}))


# Content


def test_a_bundle_is_one_folder_with_everything(made):
    assert set(files_of(made)) == FILES
    bundle = Bundle(made)
    bundle.verify()
    assert set(bundle.checksums) == FILES - {"bundle.json"}
    assert bundle.tags() == TAGS
    assert bundle.thresholds() == THRESHOLDS
    assert bundle.metrics() == {"validation": {"epoch": 3.0, "pr_auc_macro": 0.5}}
    assert bundle.outputs == {"pooled": 64, "penultimate": 8, "scores": 3}
    assert bundle.embeddings == ["pooled", "penultimate"]
    assert [(e.format, e.quantize) for e in bundle.exports] == [("litert", "none")]


def test_the_model_card_says_what_the_model_is(made):
    card = (made / "MODEL_CARD.md").read_text()
    for line in (
        "# small",
        "Model: a small one",
        "Tags (3): tag 0, tag 1, tag 2.",
        "| epoch | 3 |",
        "| pr_auc_macro | 0.5000 |",
    ):
        assert line in card.splitlines()
    assert Bundle(made).exports[0].describe() in card


def test_a_bundle_holds_data_alone(made):
    assert {path.suffix for path in made.iterdir()} == {".h5", ".json", ".md", ".tflite", ".yaml"}
    json.loads((made / "bundle.json").read_text())


def test_a_config_that_asks_for_code_is_refused_and_nothing_runs(root, tmp_path):
    evil = f"!!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n"
    replace_file(root, "config.yaml", evil.encode())
    with pytest.raises(TaggerError, match=r"config\.yaml"):
        load_model(Bundle(root))
    assert not (tmp_path / "ran").exists()


def test_thresholds_that_were_not_fitted_are_none_for_every_tag(root):
    replace_file(root, "thresholds.json", b'{"thresholds": null}')
    assert Bundle(root).thresholds() == [None, None, None]


def test_a_missing_export_comes_with_the_command_that_makes_it(made):
    with pytest.raises(ModelError, match=f"tagger export {made} --format onnx --quantize none"):
        Bundle(made).export("onnx")


# Damage


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_missing_file_is_refused_by_name(root, name):
    (root / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: damaged or changed"):
        READERS[name](Bundle(root))


@pytest.mark.parametrize("name", sorted(READERS))
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_changed_byte_is_refused_by_name(made, tmp_path_factory, name, data):
    root = shutil.copytree(made, tmp_path_factory.mktemp("changed") / "bundle")
    content = bytearray((root / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (root / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: damaged or changed"):
        READERS[name](Bundle(root))


@pytest.mark.parametrize(
    "name",
    [
        "../weights.h5",
        "/etc/passwd",
        "saved_model/../../x",
        "..",
        ".",
        "",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "C:/x",
        "a\0b",
        "a\nb",
        "bundle.json",
        "\ud800",
    ],
)
def test_a_name_that_is_not_within_the_bundle_is_refused(root, name):
    before = json.loads((root / DESCRIPTION).read_text())
    rewrite(root, lambda content: content["files"].update({name: "0" * 64}))
    with pytest.raises(ModelError, match=r"bundle\.json: damaged"):
        Bundle(root)
    before["exports"][0]["file"] = name
    (root / DESCRIPTION).write_text(json.dumps(before))
    with pytest.raises(ModelError, match=r"bundle\.json: damaged"):
        Bundle(root)


@pytest.mark.parametrize("version", [0, 2, None, True, "1", [1]])
def test_another_schema_version_is_refused(root, version):
    rewrite(root, lambda content: content.update(schema_version=version))
    with pytest.raises(ModelError, match=r"schema version .* reads 1; export or pull"):
        Bundle(root)


def test_a_folder_without_a_bundle_says_what_to_give(tmp_path):
    with pytest.raises(ModelError, match="no model bundle here; give the folder of one"):
        Bundle(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocabulary.json", "[]"),
        ("vocabulary.json", '{"tags": ["a", "b"]}'),
        ("vocabulary.json", '{"tags": ["a", "b", 3]}'),
        ("vocabulary.json", '{"tags": "abc"}'),
        ("thresholds.json", '{"thresholds": [0.5]}'),
        ("thresholds.json", '{"thresholds": [0.5, NaN, 0.5]}'),
        ("thresholds.json", '{"thresholds": [0.5, "x", 0.5]}'),
        ("metrics.json", '{"validation": {"loss": "low"}}'),
        ("metrics.json", "{"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_though_its_checksum_is_right(root, name, content):
    replace_file(root, name, content.encode())
    with pytest.raises(ModelError, match=name):
        READERS[name](Bundle(root))


@pytest.mark.parametrize(
    ("aggregate", "alpha"),
    [("mean", [1.0] * 3), ("autopool", None), ("autopool", [1.0] * 2), ("median", None)],
)
def test_an_aggregation_that_does_not_fit_is_refused(root, aggregate, alpha):
    rewrite(root, lambda content: content.update(aggregate=aggregate, alpha=alpha))
    with pytest.raises(ModelError, match=r"bundle\.json: damaged"):
        Bundle(root)


def test_a_front_end_that_has_changed_is_refused(root):
    rewrite(root, lambda content: content["front_end"]["params"].update(n_bands=65))
    with pytest.raises(ModelError, match=r"bundle\.json: damaged .*front_end"):
        Bundle(root)


def test_a_front_end_of_another_release_is_refused_with_the_release_to_use(root):
    def change(content):
        content["front_end"]["version"] += 1
        content["front_end_hash"] = json_hash(content["front_end"])

    rewrite(root, change)
    for read in (load_model, LightModel):
        with pytest.raises(ModelError, match=r"another version of the front end .* use tagger 0"):
            read(Bundle(root))


def test_damage_is_told_in_one_line(root):
    rewrite(root, lambda content: content.update(card={"\r\u2028": None}))
    with pytest.raises(ModelError) as caught:
        Bundle(root)
    assert len(str(caught.value).splitlines()) == 1


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["weights.h5", "mean", "autopool", "litert", "scores", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def places(value, path=()):
    """Path of every value within a JSON document."""
    found = [path]
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            found += places(value[key], (*path, key))
    return found


def use(root):
    """All that is done with a bundle but asking it."""
    bundle = Bundle(root)
    bundle.verify()
    describe_bundle(bundle)
    bundle.metrics()
    for export in bundle.exports:
        bundle.export(export.format, export.quantize)
    LightModel(bundle)


def fuzz(root, text):
    (root / DESCRIPTION).write_text(text)
    try:
        use(root)
    except ModelError as error:
        assert len(str(error).splitlines()) == 1


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_description_with_wrong_or_missing_values_gives_a_model_error(
    made, tmp_path_factory, data
):
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    if not root.exists():
        shutil.copytree(made, root)
    content = json.loads((made / DESCRIPTION).read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(content)[1:]))
        parent = content
        for key in path:
            parent = parent[key]
        if data.draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = data.draw(JSON_VALUES)
        if len(places(content)) == 1:
            break
    fuzz(root, json.dumps(content))


@given(text=JSON_VALUES.map(json.dumps) | st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_a_description_of_anything_gives_a_model_error(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp() / "anything"
    root.mkdir(exist_ok=True)
    (root / DESCRIPTION).write_text(text)
    with pytest.raises(ModelError):
        Bundle(root)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"[" * 100_000, b'{"schema_version": 1' + b"0" * 5000 + b"}"]
)
def test_a_description_that_is_no_json_gives_a_model_error(root, content):
    (root / DESCRIPTION).write_bytes(content)
    with pytest.raises(ModelError):
        Bundle(root)


# Versions


def sealed_version(root):
    """Version of the bundle in `root` when it is sealed anew."""
    bundle = Bundle(root)
    (root / DESCRIPTION).unlink()
    seal(root, bundle.description, list(bundle.exports))
    return Bundle(root).version


@pytest.mark.parametrize("name", ["weights.h5", "config.yaml", "vocabulary.json"])
def test_the_version_changes_with_what_the_model_is(made, root, name):
    assert sealed_version(root) == Bundle(made).version
    (root / name).write_bytes((root / name).read_bytes() + b"\n")
    assert sealed_version(root) != Bundle(made).version


def test_the_version_stays_with_what_the_model_is_not(made, root):
    for name in ("model.tflite", "thresholds.json", "metrics.json", "MODEL_CARD.md"):
        (root / name).write_bytes((root / name).read_bytes() + b"\n")
    assert sealed_version(root) == Bundle(made).version


def test_the_same_model_gets_the_same_version_again(made, tmp_path):
    assert make_bundle(tmp_path / "again").version == Bundle(made).version


# Writing


def test_another_export_changes_neither_version_nor_the_other_files(made, root):
    add_export(Bundle(root), format_="litert", quantize="float16", windows=windows())
    before, after = files_of(made), files_of(root)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"model_float16.tflite", "MODEL_CARD.md", "essentia.json", "bundle.json"}
    bundle = Bundle(root)
    bundle.verify()
    assert bundle.version == Bundle(made).version
    assert [(e.format, e.quantize) for e in bundle.exports] == [
        ("litert", "none"),
        ("litert", "float16"),
    ]
    assert bundle.exports[1].describe() in (root / "MODEL_CARD.md").read_text()


def test_an_export_made_again_takes_the_place_of_the_former(root):
    add_export(Bundle(root), format_="litert", windows=windows(3))
    bundle = Bundle(root)
    bundle.verify()
    assert [(e.file, e.n_windows) for e in bundle.exports] == [("model.tflite", 3)]


@pytest.mark.campaign
def test_an_export_that_was_added_meanwhile_is_kept(root, monkeypatch):
    load = tagger.bundle.write.load_model

    def load_slowly(bundle):
        monkeypatch.setattr(tagger.bundle.write, "load_model", load)
        add_export(Bundle(root), format_="litert", quantize="float16", windows=windows())
        return load(bundle)

    monkeypatch.setattr(tagger.bundle.write, "load_model", load_slowly)
    add_export(Bundle(root), format_="litert", quantize="dynamic", windows=windows())
    assert {e.quantize for e in Bundle(root).exports} == {"none", "float16", "dynamic"}
    Bundle(root).verify()


def test_a_damaged_bundle_gets_no_further_export(root):
    (root / "metrics.json").write_text("{}")
    before = files_of(root)
    with pytest.raises(ModelError, match=r"metrics\.json: damaged"):
        add_export(Bundle(root), format_="litert", quantize="float16", windows=windows())
    assert files_of(root) == before


def fail(error):
    def raise_error(*_, **__):
        raise error

    return raise_error


@pytest.mark.parametrize("step", ["largest_difference", "write_text", "seal"])
def test_an_interrupted_export_leaves_the_bundle_as_it_was(root, monkeypatch, step):
    before = files_of(root)
    monkeypatch.setattr(tagger.bundle.write, step, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        add_export(Bundle(root), format_="litert", windows=windows())
    assert files_of(root) == before
    assert not list(root.glob(f"{TEMPORARY_PREFIX}*"))


@pytest.mark.parametrize("step", ["largest_difference", "seal"])
def test_an_interrupted_write_leaves_the_old_bundle(root, monkeypatch, step):
    before = files_of(root)
    model, config = small_model(seed=1)
    monkeypatch.setattr(tagger.bundle.write, step, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(
            root,
            model,
            source=Source(name="other", config=config, tags=TAGS),
            windows=windows(),
        )
    assert files_of(root) == before
    assert os.listdir(root.parent) == ["bundle"]  # noqa: PTH208


def test_a_write_whose_last_rename_fails_leaves_the_old_bundle(root, monkeypatch):
    before = files_of(root)
    model, config = small_model(seed=1)
    rename = type(root).replace

    def replace(path, target):
        # The new folder is about to take the name.
        if target == root and (path / "model.tflite").exists() and "replaced" not in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(type(root), "replace", replace)
    source = Source(name="other", config=config, tags=TAGS)
    with pytest.raises(OSError, match="Input/output error"):
        write_bundle(root, model, source=source, windows=windows())
    assert files_of(root) == before


def test_a_new_bundle_replaces_the_old_one_whole(root):
    (root / "left over").write_text("x")
    version = make_bundle(root, seed=1).version
    assert set(files_of(root)) == FILES
    assert version == Bundle(root).version
    assert os.listdir(root.parent) == ["bundle"]  # noqa: PTH208


def test_an_export_is_described_in_one_line(made):
    export = Bundle(made).exports[0]
    assert isinstance(export, Export)
    assert re.fullmatch(
        r"model\.tflite: litert, quantize none, largest difference from Keras \S+ "
        r"\(limit 0\.0001\) on 4 windows \(random windows\)",
        export.describe(),
    )


def test_a_bundle_says_what_it_is_in_the_form_of_essentias_models(made, shared):
    about = json.loads((made / "essentia.json").read_text())
    bundle = Bundle(made)
    assert tuple(about["classes"]) == bundle.tags()
    assert {output["name"]: output["shape"][-1] for output in about["schema"]["outputs"]} == (
        bundle.outputs
    )
    theirs = json.loads((shared / "models/msd-musicnn-1.json").read_text())
    assert set(theirs) - {"citation"} <= set(about)
    assert set(theirs["inference"]) <= set(about["inference"])
    (scores,) = [o for o in about["schema"]["outputs"] if o["output_purpose"] == "predictions"]
    assert scores["name"] == "scores"
