"""Give a run the clip head that its config wants, after its network has learned."""

import math

from tagger.base.errors import ConfigError
from tagger.base.files import sha256_of_file
from tagger.base.log import notice
from tagger.config import Config
from tagger.network.model import TaggerModel, build_model
from tagger.runs.folder import RunFolder
from tagger.scoring.clip_heads import CLIP_HEADS, ClipHead, save_clip_head
from tagger.scoring.scorer import SCORES
from tagger.train.data import PreparedData
from tagger.train.decisions import save_decisions
from tagger.train.score_clips import made_of_clips, score_clips


def clip_head_of(config: Config, model: TaggerModel) -> ClipHead | None:
    """Clip head that a config wants, not yet fitted; None for what its network does itself.

    Raises
    ------
    ConfigError
        If the head cannot be fitted after training, or the network has no such outputs: naming
        the first, and those that it has.
    """
    wanted = config.model.clip_head
    if wanted.name == "none":
        return None
    params = CLIP_HEADS.get(wanted.name).filled_in(
        wanted.params,
        embeddings=[name for name in model.output_sizes if name != SCORES],
        decides_one=model.task.decides_one,
    )
    head = CLIP_HEADS.create(wanted.name, params)
    if head.is_learned_by_network:
        raise ConfigError(
            f"model.clip_head.name={head.name}: it is learned with the network; "
            f"set model.aggregate to {head.name}, and model.clip_head.name to none"
        )
    unknown = [name for name in head.outputs if name not in model.output_sizes]
    if unknown:
        raise ConfigError(
            f"model.clip_head: the network has no embedding {unknown[0]!r}; "
            f"it has {', '.join(model.output_sizes)}"
        )
    return head


def settle_clip_head(run: RunFolder, config: Config, data: PreparedData) -> None:
    """Give a run the clip head that its config wants, and decisions that fit; often it has both.

    Parameters
    ----------
    run : RunFolder
        A run with its best weights.
    config : Config
        Its config.
    data : PreparedData
        Its clips and their patches.

    Raises
    ------
    ConfigError
        If the network has no such embedding.
    """
    if config.model.clip_head.name == "none" and not run.clip_head.exists():
        return
    model = build_model(config, config.make_front_end(), data.vocabulary.tags)
    head = clip_head_of(config, model)
    model.load_weights(run.best_weights)
    rows = {part: data.rows(part) for part in ("train", "validation")}
    labels = {part: data.labels[some] for part, some in rows.items()}
    if head is None:
        scores = score_clips(
            model, data.store, rows=rows["validation"], config=config.stream, title="  validate"
        )
        save_decisions(
            run, model.task, config.calibration, labels=labels["validation"], scores=scores
        )
        run.clip_head.unlink()
        return
    known = run.load_clip_head(sizes=model.output_sizes, n_tags=len(model.tags))
    if known is not None and (known.name, known.params) == (head.name, head.params):
        return
    features = {
        part: head.together(
            made_of_clips(
                model,
                data.store,
                rows=rows[part],
                config=config.stream,
                outputs=head.outputs,
                make=head.features,
                title=title,
            )
        )
        for part, title in (("train", "clip head"), ("validation", "  validate"))
    }
    clips = data.store.index.clips
    said = head.fit(
        features["train"],
        labels["train"],
        validation=(features["validation"], labels["validation"]),
        groups=[clips[row].artist or clips[row].track or clips[row].id for row in rows["train"]],
    )
    head.backbone = sha256_of_file(run.best_weights)
    scores = head.scores(features["validation"])
    monitored = model.task.metrics(labels["validation"], scores)[config.train.monitor]
    shown = "cannot be computed" if math.isnan(monitored) else f"{monitored:.4f}"
    notice(
        f"clip head {head.name} on {', '.join(head.outputs)}: validation {config.train.monitor} "
        f"{shown}, {said}"
    )
    # The head comes last and makes it count: stopped in between, the next start fits both anew.
    save_decisions(run, model.task, config.calibration, labels=labels["validation"], scores=scores)
    save_clip_head(head, run.clip_head)
