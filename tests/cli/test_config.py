"""Promises of configuration: defaults, files, overrides, and what is refused."""

import csv
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocess.clips.vocabulary import read_synonyms
from tagger.base.errors import ConfigError
from tagger.bundle.models.musicnn import MSD_TAGS
from tagger.config import Config, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = CONFIGS / "base.yaml"
SYNONYMS = sorted((CONFIGS / "synonyms").glob("*.yaml"))
# Of another kind: their own tests read them.
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path not in SYNONYMS + STUDIES)
VARIANTS = [path for path in FILES if path != BASE]


def flat(content, prefix=""):
    """Nested sections as one mapping of dotted keys to values."""
    found = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path=None, overrides=None):
    """Message of the ConfigError that loading raises."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The files of this repository


def test_base_yaml_equals_the_defaults():
    assert load_config(BASE).to_dict() == Config().to_dict()


def test_base_yaml_names_every_key():
    given = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    assert flat(given) == flat(Config().to_dict())


def test_there_are_variants_to_check():
    assert {path.stem for path in VARIANTS} >= {"demo", "magnatagatune", "scenes", "autopool"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_file_loads(path):
    shapes = load_config(path).make_front_end().input_shapes
    assert shapes and all(min(shape) > 0 for shape in shapes.values())
    if path.parent.name == "magnatagatune_vggish":
        assert shapes == {"log_mel": (96, 64)}


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_a_variant_holds_only_what_differs_from_its_parent(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    extends = content.pop("extends", None)
    parent = flat(load_config(path.parent / extends if extends else None).to_dict())
    repeated = {key for key, value in flat(content).items() if parent.get(key) == value}
    # A file that starts from nothing may say where its data are even where that is the default.
    if extends is None:
        repeated -= {"data.root", "store.root", "run.root"}
    assert repeated == set()


@pytest.mark.parametrize("path", SYNONYMS, ids=lambda path: path.stem)
def test_synonyms_name_only_tags_of_the_data_set(path, shared):
    columns = set(MSD_TAGS)
    if path.stem == "magnatagatune":
        with (shared / path.stem / "annotations_final.csv").open(encoding="utf-8") as file:
            columns = set(next(csv.reader(file, delimiter="\t")))
    named = {name for names in read_synonyms(path).values() for name in names}
    assert len(named) > 5
    assert named <= columns


# Defaults and saving


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path):
    empty = write(tmp_path / "empty.yaml", "# nothing\n")
    assert load_config() == load_config(empty) == Config()


def test_the_effective_config_loads_as_the_same(tmp_path):
    path = write(
        tmp_path / "a.yaml",
        "data: {name: tag_csv, root: 'müsik: #1', tags: [a, 'no', '1e5']}\n"
        "model: {backbone: {params: {width: 0.25}}}\ntrain: {learning_rate: 1e-4}\n",
    )
    config = load_config(path, ["stream.rate=2.5"])
    config.save(tmp_path / "run" / "config.yaml")
    again = load_config(tmp_path / "run" / "config.yaml")
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert again.data.tags == ["a", "no", "1e5"]


@given(
    width=st.floats(0.01, 4),
    tags=st.lists(st.text(), min_size=1) | st.integers(1, 10**6) | st.just("all"),
    rate=st.none() | st.floats(1e-300, 1e300),
    root=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
)
def test_any_valid_value_survives_saving(tmp_path_factory, width, tags, rate, root):
    config = Config.model_validate(
        {
            "data": {"tags": tags, "root": root},
            "model": {"backbone": {"params": {"width": width}}},
            "stream": {"rate": rate},
        }
    )
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    config.save(path)
    assert load_config(path) == config


def test_a_config_is_frozen():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.train = None
    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 3


def test_one_config_does_not_change_another():
    changed = load_config(overrides=["model.backbone.params.width=0.5"])
    assert changed.model.backbone.params["width"] == 0.5
    assert Config().model.backbone.params["width"] == 1.0


# What is refused


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trian.epochs=5", "trian: unknown key"),
        ("train.epoch=5", "train.epoch: unknown key"),
        ("train.early_stopping.patients=5", "train.early_stopping.patients: unknown key"),
        ("front_end.params.n_mels=5", "'vggish': n_mels: unknown key"),
        ("model.head.params.size=5", "model.head: parameters of head 'dense_blocks': size"),
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=2.5", "train.epochs"),
        ("train.epochs=many", "train.epochs"),
        ("train.learning_rate=0", "train.learning_rate"),
        ("train.learning_rate=.inf", "train.learning_rate"),
        ("train.learning_rate=.nan", "train.learning_rate"),
        ("train.checkpoint_minutes=inf", "train.checkpoint_minutes"),
        ("train.final_learning_rate=-1", "train.final_learning_rate"),
        ("train.mixup_alpha=.inf", "train.mixup_alpha"),
        ("train.precision=float8", "train.precision"),
        ("train.seed=-1", "train.seed"),
        ("train.monitor=accuracy", "train.monitor"),
        ("train.reduce_on_plateau.factor=1", "train.reduce_on_plateau.factor"),
        ("train=5", "train: "),
        ("stream.batch_size=0", "stream.batch_size"),
        ("stream.rate=0", "stream.rate"),
        ("stream.rate=.inf", "stream.rate"),
        ("store.dtype=int8", "store.dtype"),
        ("store.workers=0", "store.workers"),
        ("data.tags=0", "data.tags"),
        ("data.tags=[1, 2]", "data.tags"),
        ("data.root=5", "data.root"),
        ("data.split=by_chance", "unknown split 'by_chance'"),
        ("model.aggregate=median", "model.aggregate"),
        ("model.backbone.params.width=0", "model.backbone: parameters of backbone 'vggish': width"),
        ("model.backbone.params.width=.nan", "width"),
        ("model.head.params.dropout=1", "dropout"),
        ("task.params.activation=relu", "activation"),
    ],
)
def test_a_key_or_value_that_is_impossible_is_named(override, named):
    assert named in refusal(overrides=[override])


def test_a_refusal_names_the_file_and_where_to_look(tmp_path):
    path = write(tmp_path / "a.yaml", "train: {epoch: 5}\n")
    message = refusal(path)
    assert message.startswith(f"{path}: train.epoch: unknown key")
    assert message.endswith("tagger config show lists every key")


def test_every_problem_is_named_at_once():
    message = refusal(overrides=["train.epochs=0", "store.dtype=int8", "what=1"])
    assert all(key in message for key in ("train.epochs", "store.dtype", "what"))


@pytest.mark.parametrize(
    ("key", "kind", "known"),
    [
        ("data.name", "data set", "magnatagatune, picture_folders"),
        ("front_end.name", "front end", "vggish"),
        ("model.backbone.name", "backbone", "vggish"),
        ("model.head.name", "head", "dense_blocks"),
        ("task.name", "task", "multilabel"),
    ],
)
def test_an_unknown_entry_lists_the_known_ones(key, kind, known):
    message = refusal(overrides=[f"{key}=nonsense"])
    assert f"unknown {kind} 'nonsense'" in message and known in message


@pytest.mark.parametrize("name", ["_private", "__init__", "../config", "vggish.x", ""])
def test_only_modules_of_the_package_are_entries(name):
    assert "unknown backbone" in refusal(overrides=[f"model.backbone.name='{name}'"])


def test_parameters_of_an_unknown_name_are_not_blamed():
    message = refusal(overrides=["model.head.name=nonsense", "model.head.params.units=5"])
    assert "unknown head 'nonsense'" in message and "units" not in message


def test_autopool_over_time_needs_bags():
    message = refusal(overrides=["model.aggregate=autopool"])
    assert "model.aggregate" in message and "stream.patches_per_bag" in message
    both = ["model.aggregate=autopool", "stream.patches_per_bag=4"]
    assert load_config(overrides=both).model.aggregate == "autopool"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"train: [unclosed", "not valid YAML"),
        (b"train:\n\tepochs: 3", "not valid YAML"),
        (b"data: {root: 2024-13-45}", "not valid YAML"),
        (b"- a\n- b", "section: ..."),
        (b"just text", "section: ..."),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "cannot be read"),
        (b"a\x00b: 1", "not valid YAML"),
        (b"extends: [a, b]", "extends"),
        (b"1: 2", "1"),
        (b"train:\n", "train"),
    ],
    ids=lambda value: value.decode("latin-1")[:12] if isinstance(value, bytes) else "",
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, said):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path}: ") and said in message


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    assert refusal(tmp_path / "no.yaml").startswith(f"{tmp_path / 'no.yaml'}: no such config file")
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read")


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=0.5", 0.5),
        ("train.learning_rate=3", 3.0),
        ("train.epochs=5", 5),
        (" train.epochs = 5 ", 5),
        ("store.workers=null", None),
        ("store.workers=2", 2),
        ("stream.rate=1e1", 10.0),
        ("data.tags=all", "all"),
        ("data.tags=50", 50),
        ("data.tags=[guitar, no vocals]", ["guitar", "no vocals"]),
        ("data.root=/some/where", Path("/some/where")),
        ("data.root=a=b", Path("a=b")),
        ("run.root=nan", Path("nan")),
        ("run.root=infinity", Path("infinity")),
        ("data.synonyms=x.yaml", Path("x.yaml")),
        ("model.backbone.weights=none", "none"),
        ("train.precision=auto", "auto"),
        ("train.early_stopping.patience=3", 3),
    ],
)
def test_an_override_is_read_as_what_it_looks_like(override, value):
    found = load_config(overrides=[override])
    for part in override.partition("=")[0].strip().split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


def test_an_override_reaches_a_parameter_of_an_entry():
    config = load_config(overrides=["front_end.params.hop_seconds=0.48", "front_end.name=vggish"])
    assert config.front_end.params["hop_seconds"] == 0.48
    assert config.front_end.params["n_bands"] == 64


def test_overrides_are_applied_in_order_and_after_the_file(tmp_path):
    path = write(tmp_path / "a.yaml", "train: {epochs: 2, seed: 7}\n")
    config = load_config(path, ["train.epochs=3", "train.epochs=4"])
    assert (config.train.epochs, config.train.seed) == (4, 7)


@pytest.mark.parametrize("override", ["train.epochs", "=5", "train.=5", ".epochs=5", "", "a..b=1"])
def test_an_override_without_key_or_value_shows_how_to_write_it(override):
    message = refusal(overrides=[override])
    assert f"--set {override}" in message and "section.key=value" in message


@pytest.mark.parametrize("override", ["data.tags=[a", "data.root=2024-13-45", "a='x"])
def test_an_override_that_is_no_yaml_says_so(override):
    assert f"--set {override}: the value is not valid YAML" in refusal(overrides=[override])


# Extending other files


def test_a_file_holds_what_differs_from_the_one_it_extends(tmp_path):
    write(tmp_path / "a.yaml", "train: {epochs: 2, seed: 7}\nstore: {dtype: float32}\n")
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "b.yaml", "extends: ../a.yaml\ntrain: {epochs: 3}\n")
    path = write(tmp_path / "c.yaml", "extends: sub/b.yaml\ndata: {tags: 50}\n")
    config = load_config(path)
    assert (config.train.epochs, config.train.seed) == (3, 7)
    assert (config.store.dtype, config.data.tags) == ("float32", 50)


def test_files_that_extend_each_other_are_refused(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    path = write(tmp_path / "b.yaml", "extends: a.yaml\n")
    assert "'extends' goes in a circle" in refusal(path)


def test_a_missing_parent_is_named(tmp_path):
    path = write(tmp_path / "a.yaml", "extends: gone.yaml\n")
    assert f"{tmp_path / 'gone.yaml'}: no such config file" in refusal(path)


SECOND_HEAD = """
from typing import Annotated
from pydantic import Field
from tagger.network.heads import Head
from tagger.base.registry import Params

class OtherParams(Params):
    depth: int = 3

class Other(Head):
    name = "other"
    Params = OtherParams
    def build(self, embedding, n_outputs):
        raise NotImplementedError

ENTRY = Other
"""


@pytest.fixture
def other_head(tmp_path, monkeypatch):
    """A second head, as a file in a folder that the package also looks in."""
    import tagger.network.heads

    folder = tmp_path / "more_heads"
    folder.mkdir()
    write(folder / "other.py", SECOND_HEAD)
    monkeypatch.setattr(
        tagger.network.heads, "__path__", [*tagger.network.heads.__path__, str(folder)]
    )


def test_changing_an_entrys_name_drops_the_other_entrys_parameters(tmp_path, other_head):
    write(tmp_path / "a.yaml", "model: {head: {params: {units: 64}}}\n")
    path = write(tmp_path / "b.yaml", "extends: a.yaml\nmodel: {head: {name: other}}\n")
    assert load_config(path).model.head.params == {"depth": 3}
    assert load_config(overrides=["model.head.name=other"]).model.head.params == {"depth": 3}
    back = load_config(path, ["model.head.name=dense_blocks"])
    assert back.model.head.params["units"] == 512


def test_repeating_an_entrys_name_keeps_the_parameters_of_the_parent(tmp_path):
    # The parent does not name the head, which is then the default one.
    write(tmp_path / "a.yaml", "model: {head: {params: {units: 64}}}\n")
    path = write(
        tmp_path / "b.yaml",
        "extends: a.yaml\nmodel: {head: {name: dense_blocks, params: {dropout: 0.1}}}\n",
    )
    params = load_config(path).model.head.params
    assert (params["units"], params["dropout"]) == (64, 0.1)


DEEP = "[" * 3000


@pytest.mark.parametrize("text", [DEEP, "a: &a [*a]", "extends: 'a\\0b'", "!!timestamp x"])
def test_a_file_that_means_no_config_is_refused_by_its_name(tmp_path, text):
    assert str(tmp_path) in refusal(write(tmp_path / "a.yaml", text))


def test_a_number_of_too_many_digits_is_refused(tmp_path):
    path = write(tmp_path / "a.yaml", "train: {seed: 2" + ":59" * 5000 + "}")
    assert str(path) in refusal(path)


@pytest.mark.parametrize("value", [DEEP, "&a [*a]", "!!timestamp x", "2001-99-99"])
def test_an_override_that_means_no_value_is_refused(value):
    assert "not valid YAML" in refusal(overrides=[f"train.epochs={value}"])


def test_a_value_that_is_refused_is_shown_in_short():
    assert len(refusal(overrides=[f"train.epochs=[{'a, ' * 5000}]"])) < 500


def test_lists_in_lists_are_no_synonyms(tmp_path):
    with pytest.raises(ConfigError, match=r"synonyms\.yaml: not valid YAML"):
        read_synonyms(write(tmp_path / "synonyms.yaml", DEEP))
