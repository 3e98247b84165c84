"""What a config says, section by section, with the defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts, check_split, split_parts
from preprocess.signal.features import FRONT_ENDS, FrontEnd
from tagger.base.errors import ConfigError
from tagger.base.files import write_text
from tagger.base.registry import Registry
from tagger.cloud.locations import location
from tagger.network.backbones import BACKBONES
from tagger.network.heads import HEADS
from tagger.network.task import TASKS
from tagger.scoring.clip_heads import CLIP_HEADS

# Marks settings that may differ when a run is resumed: they change nothing that was learned.
MAY_DIFFER = "may differ when a run is resumed"


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    # Infinity is within many a range, but is nothing to train with and saves as null.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _located(value: Any, validate_local: ValidatorFunctionWrapHandler) -> Path:
    # pathlib would make gs:/bucket of gs://bucket.
    try:
        if isinstance(value, str):
            return location(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if hasattr(value, "fs"):
        # An address already.
        return cast(Path, value)
    path: Path = validate_local(value)
    return path


# A local folder, or an address such as gs://bucket/folder.
Location = Annotated[
    Path, WrapValidator(_located), PlainSerializer(str, return_type=str, when_used="json")
]


class DataConfig(Section):
    """Which clips, which labels, which split."""

    name: Annotated[str, Field(description="data set")] = "magnatagatune"
    params: dict[str, Any] = {}
    root: Annotated[
        Location, MAY_DIFFER, Field(description="folder of the clips and their annotations")
    ] = Path("data/magnatagatune")
    tags: Annotated[
        Literal["all"] | Annotated[int, Field(ge=1, strict=True)] | list[str],
        Field(description="'all', the number of most frequent tags, or a list"),
    ] = "all"
    synonyms: Annotated[Path | None, Field(description="YAML file that merges tags")] = None
    split: Annotated[str, Field(description="how clips are split")] = "folder"
    split_params: Annotated[dict[str, Any], Field(description="parameters of the split")] = {}
    split_seed: Annotated[int, Field(ge=0)] = 0
    split_fold: Annotated[
        int, Field(ge=0, description="which one, of a split that has several")
    ] = 0
    most_missing: Annotated[
        float,
        MAY_DIFFER,
        Field(ge=0, le=1, description="share of a clip that may be cut off or damaged"),
    ] = MOST_MISSING

    @field_validator("tags", mode="before")
    @classmethod
    def _tags_are_all_a_number_or_a_list(cls, value: Any) -> Any:
        # One sentence instead of a problem for each of the three types.
        if isinstance(value, bool | float) or (isinstance(value, str) and value != "all"):
            raise ValueError(f"{value!r} is neither 'all' nor a number nor a [list, of, tags]")
        return value


class EntryConfig(Section):
    """An entry of a registry and its parameters."""

    name: str
    params: dict[str, Any] = {}


class StoreConfig(Section):
    """Where and how patches are stored."""

    root: Annotated[Location, MAY_DIFFER, Field(description="folder of the store")] = Path(
        "stores/magnatagatune"
    )
    dtype: Literal["float16", "float32"] = "float16"
    workers: Annotated[
        int | None, MAY_DIFFER, Field(ge=1, description="null: one per processor")
    ] = None


class StreamConfig(Section):
    """How patches are sampled for training."""

    n_active: Annotated[int, Field(ge=1, description="clips open at a time")] = 20
    patches_per_clip: Annotated[int, Field(ge=1, description="draws each time a clip is open")] = 8
    rate: Annotated[
        float | None,
        Field(gt=0, description="mean of a random number of draws instead of patches_per_clip"),
    ] = None
    balance: Annotated[
        float,
        Field(ge=0, le=1, description="more draws of clips with rare tags; 1: all tags alike"),
    ] = 0.0
    patches_per_bag: Annotated[int, Field(ge=1, description="patches in one training example")] = 1
    batch_size: Annotated[int, Field(ge=1)] = 32
    steps_per_epoch: Annotated[int | None, Field(ge=1, description="null: clips / batch")] = None
    prefetch: Annotated[int, MAY_DIFFER, Field(ge=0, description="batches prepared ahead")] = 4
    mix_batches: Annotated[
        int, Field(ge=1, description="batches whose examples are shuffled among one another")
    ] = 1
    shard: Annotated[
        bool, MAY_DIFFER, Field(description="read from one file built from the pickles: faster")
    ] = False
    # What the run began with holds.
    shares: Annotated[
        int | None,
        MAY_DIFFER,
        Field(ge=1, description="disjoint parts of clips and batch; null: one per device"),
    ] = None
    evaluation_batch_size: Annotated[
        int, MAY_DIFFER, Field(ge=1, description="patches at once, at most")
    ] = 128
    evaluation_batch_mb: Annotated[
        int, MAY_DIFFER, Field(ge=1, description="memory of the largest layer for patches at once")
    ] = 256


class BackboneConfig(EntryConfig):
    """The network from windows to an embedding."""

    name: str = "vggish"
    weights: Annotated[
        str, Field(description="'none', a registered name, or the path of a .ckpt or .h5")
    ] = "none"
    freeze: Annotated[
        str, Field(description="'none', 'all', or the layer up to which nothing trains")
    ] = "none"


class ClipHeadConfig(EntryConfig):
    """What makes clip scores of a clip's windows; fitted once the network has learned."""

    name: Annotated[str, Field(description="'none' for what `aggregate` says, or its name")] = (
        "none"
    )


class ModelConfig(Section):
    """Backbone, head, and how patch scores become a clip score."""

    backbone: BackboneConfig = BackboneConfig()
    head: EntryConfig = EntryConfig(name="dense_blocks")
    aggregate: Literal["mean", "max", "autopool"] = "mean"
    clip_head: Annotated[ClipHeadConfig, MAY_DIFFER] = ClipHeadConfig()


class EarlyStoppingConfig(Section):
    """Stop when the monitored metric has not improved for some epochs."""

    patience: Annotated[int | None, Field(ge=1, description="epochs; null: never stop early")] = (
        None
    )


class PlateauConfig(Section):
    """Lower the learning rate when the monitored metric has not improved for some epochs."""

    patience: Annotated[int | None, Field(ge=1, description="epochs; null: keep the rate")] = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-6


class PhaseConfig(Section):
    """Epochs that follow those before with another part of the network, or at another rate."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float | None, Field(gt=0, description="null: train.learning_rate")] = (
        None
    )
    freeze: Annotated[
        str, Field(description="as model.backbone.freeze, in its place: 'none', 'all' or a layer")
    ] = "none"


class TrainConfig(Section):
    """The training loop."""

    epochs: Annotated[int, Field(ge=1)] = 12
    phases: Annotated[tuple[PhaseConfig, ...], Field(description="what follows these epochs")] = ()
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    final_learning_rate: Annotated[
        float | None, Field(ge=0, description="cosine decay to it; null: constant rate")
    ] = None
    warmup_epochs: Annotated[
        float, Field(ge=0, description="in which the rate rises from nothing")
    ] = 0.0
    weight_decay: Annotated[float, Field(ge=0, description="of AdamW; 0: Adam")] = 0.0
    l2: Annotated[
        float, Field(ge=0, description="penalty on the squares of all kernels, in the loss")
    ] = 0.0
    clip_norm: Annotated[
        float | None, Field(gt=0, description="longest gradient of all weights; null: any")
    ] = None
    average_decay: Annotated[
        float,
        Field(ge=0, lt=1, description="of a moving average of the weights, which is kept; 0: off"),
    ] = 0.0
    mixup_alpha: Annotated[
        float, Field(ge=0, description="Beta parameter of mixup between examples; 0: off")
    ] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    strategy: Annotated[
        Literal["auto", "single", "mirrored", "multi_worker"],
        MAY_DIFFER,
        Field(description="which devices train together"),
    ] = "auto"
    monitor: Annotated[str, Field(description="validation metric that chooses the best epoch")] = (
        "pr_auc_macro"
    )
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    reduce_on_plateau: PlateauConfig = PlateauConfig()
    cache_embeddings: Annotated[
        bool, Field(description="compute a frozen backbone's embeddings once and for all")
    ] = False
    checkpoint_minutes: Annotated[
        float, MAY_DIFFER, Field(gt=0, description="time between saved states within an epoch")
    ] = 10.0

    @model_validator(mode="after")
    def _rate_is_reached(self) -> "TrainConfig":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs:g} leaves none of epochs={self.epochs} for the "
                "full rate; make it smaller"
            )
        if self.phases and (self.final_learning_rate is not None or self.cache_embeddings):
            raise ValueError(
                "phases have a constant rate each and change what is frozen; leave out "
                "final_learning_rate and cache_embeddings"
            )
        return self

    def phase(self, number: int) -> PhaseConfig | None:
        """Phase of a number; None for 0, which is what comes before the first of `phases`."""
        return self.phases[number - 1] if number else None

    def phase_epochs(self, number: int) -> int:
        """Most epochs of a phase."""
        phase = self.phase(number)
        return self.epochs if phase is None else phase.epochs

    def phase_rate(self, number: int) -> float:
        """Learning rate that a phase begins with."""
        phase = self.phase(number)
        return (None if phase is None else phase.learning_rate) or self.learning_rate

    @property
    def most_epochs(self) -> int:
        """Of all phases together."""
        return self.epochs + sum(phase.epochs for phase in self.phases)


class FitConfig(Section):
    """A clip head fitted to what a pretrained model says, in place of training a network."""

    model: Annotated[
        str,
        Field(description="registered model, bundle or run whose embeddings are taken; none"),
    ] = "musicnn-mtt"
    folds: Annotated[int, Field(ge=2, le=100, description="parts that the clips are dealt to")] = 5
    tested_folds: Annotated[
        int | None,
        Field(ge=1, description="null: all of them where there are fewer than 1,000 clips, else 1"),
    ] = None
    group: Annotated[
        Literal["known", "artist", "album", "track", "none"],
        Field(description="which clips stay together in a fold"),
    ] = "known"
    seed: Annotated[int, Field(ge=0, description="of the folds")] = 0
    rows: Annotated[
        Literal["clips", "segments"],
        Field(description="of a feature table: whole clips, or each segment by itself"),
    ] = "clips"
    middle_windows: Annotated[
        int | None, Field(ge=1, description="only so many windows in the middle of each clip")
    ] = None
    middle_seconds: Annotated[
        float | None,
        Field(gt=0, description="the same in seconds; of a model, which knows their length"),
    ] = None

    @model_validator(mode="after")
    def _middle_is_said_once(self) -> "FitConfig":
        if self.middle_windows is not None and self.middle_seconds is not None:
            raise ValueError("middle_windows and middle_seconds say the same; give one of them")
        return self


class AugmentConfig(Section):
    """What is done to the spectrograms of training patches at random."""

    gain_db: Annotated[float, Field(ge=0, description="level of a patch, up and down")] = 0.0
    equaliser_db: Annotated[
        float, Field(ge=0, description="deviation of the five points of an equaliser's curve")
    ] = 0.0
    mask_frames: Annotated[int, Field(ge=0, description="longest stretch of hidden time")] = 0
    mask_bands: Annotated[int, Field(ge=0, description="widest stretch of hidden bands")] = 0


class CalibrationConfig(Section):
    """How clip scores become probabilities and decisions; fitted on the validation clips."""

    method: Annotated[
        Literal["none", "temperature", "isotonic"], Field(description="what is done to scores")
    ] = "none"
    thresholds: Annotated[
        Literal["f1", "precision"], Field(description="objective of the threshold of each tag")
    ] = "f1"
    precision: Annotated[
        float, Field(gt=0, le=1, description="target precision, for 'precision'")
    ] = 0.9


class RunConfig(Section):
    """Where a training run is kept."""

    root: Annotated[Location, MAY_DIFFER, Field(description="the run folder")] = Path(
        "runs/magnatagatune"
    )


def _expanded(registry: Registry[Any], entry: Any, key: str) -> dict[str, Any]:
    """`entry.params` with the defaults of its entry filled in."""
    try:
        params = registry.params(entry.name, entry.params)
    except ConfigError as error:
        raise ValueError(f"{key}: {error}") from None
    return dict(params.model_dump())


class Config(Section):
    """A whole configuration; the parameters of every entry are filled in and checked."""

    data: DataConfig = DataConfig()
    front_end: EntryConfig = EntryConfig(name="vggish")
    store: StoreConfig = StoreConfig()
    stream: StreamConfig = StreamConfig()
    model: ModelConfig = ModelConfig()
    task: EntryConfig = EntryConfig(name="multilabel")
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    fit: Annotated[
        FitConfig | None, Field(description="given: fit a clip head instead of training")
    ] = None
    calibration: Annotated[CalibrationConfig, MAY_DIFFER] = CalibrationConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _fill_in_params(self) -> "Config":
        filled: dict[str, tuple[Registry[Any], Any]] = {
            "data": (DATASETS, self.data),
            "front_end": (FRONT_ENDS, self.front_end),
            "model.backbone": (BACKBONES, self.model.backbone),
            "model.head": (HEADS, self.model.head),
            "task": (TASKS, self.task),
        }
        if self.model.clip_head.name != "none":
            filled["model.clip_head"] = (CLIP_HEADS, self.model.clip_head)
        elif self.model.clip_head.params:
            raise ValueError("model.clip_head: none has no parameters; give its name")
        data = self.data
        try:
            split = check_split(data.split, data.split_params, fold=data.split_fold)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        object.__setattr__(data, "split_params", dict(split.params.model_dump()))
        for key, (registry, entry) in filled.items():
            # The sections are frozen for their users; the defaults are part of making them.
            object.__setattr__(entry, "params", _expanded(registry, entry, key))
        if self.model.aggregate == "autopool" and self.stream.patches_per_bag == 1:
            raise ValueError(
                "model.aggregate: autopool learns from several patches of a clip at once; "
                "set stream.patches_per_bag to 2 or more"
            )
        if self.store.dtype == "float16" and FRONT_ENDS.get(self.front_end.name).needs_float32:
            raise ValueError(
                f"store.dtype: float16 cannot hold the values of the front end "
                f"{self.front_end.name!r}; set it to float32"
            )
        if self.train.cache_embeddings:
            if self.model.backbone.freeze != "all":
                raise ValueError(
                    "train.cache_embeddings: embeddings change while the backbone learns; set "
                    "model.backbone.freeze to all"
                )
            if any(self.augment.model_dump().values()):
                raise ValueError(
                    "train.cache_embeddings: patches are not augmented where their embeddings are "
                    "computed once; set all keys of augment to 0"
                )
        if TASKS.get(self.task.name).decides_one and self.calibration.method != "none":
            raise ValueError(
                f"calibration.method: {self.calibration.method} is for tags of which each is a "
                "decision of its own; set it to none"
            )
        known = TASKS.get(self.task.name).monitors
        if self.train.monitor not in known:
            raise ValueError(
                f"train.monitor: unknown metric {self.train.monitor!r}; known: {', '.join(known)}"
            )
        return self

    def make_front_end(self) -> FrontEnd:
        """Front end that this config describes."""
        return FRONT_ENDS.create(self.front_end.name, self.front_end.params)

    def parts_of(self, index: ClipIndex) -> Parts:
        """Part of each clip [shape=(n_clips,), dtype=str]; see `preprocess.clips.splits`.

        Raises
        ------
        ConfigError
            If the clips lack what the split goes by.
        """
        data = self.data
        return split_parts(
            index, data.split, params=data.split_params, seed=data.split_seed, fold=data.split_fold
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to YAML."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Effective configuration as text: loading it reruns the same thing."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False)
        return text

    def save(self, path: Path) -> None:
        """Write the effective configuration."""
        write_text(path, self.to_yaml())
