"""Config -> the clip head that is fitted; linear where the config chooses none."""

from collections.abc import Sequence

from tagger.base.errors import ConfigError
from tagger.config import Config
from tagger.network.task import TASKS
from tagger.scoring.clip_heads import CLIP_HEADS, ClipHead


def chosen_head(config: Config, names: Sequence[str], *, source: str) -> ClipHead:
    """Clip head of a config, on outputs that there are.

    Parameters
    ----------
    config : Config
        Its ``model.clip_head`` and ``task`` count.
    names : sequence of str
        Outputs that a clip head may ask for.
    source : str
        What has these outputs, for errors.

    Raises
    ------
    ConfigError
        If the clip head asks for an output that is not there, or cannot be fitted.
    """
    wanted = config.model.clip_head
    decides_one = TASKS.get(config.task.name).decides_one
    name, given = wanted.name, dict(wanted.params)
    if name == "none":
        name = "linear"
        given = {"layers": list(names), "link": "softmax" if decides_one else "sigmoid"}
    params = CLIP_HEADS.get(name).filled_in(given, embeddings=names, decides_one=decides_one)
    head = CLIP_HEADS.create(name, params)
    unknown = [output for output in head.outputs if output not in names]
    if unknown:
        raise ConfigError(
            f"{source}: has no embedding {unknown[0]!r}; set the layers of model.clip_head to some "
            f"of {', '.join(names)}"
        )
    if not head.outputs:
        raise ConfigError(f"{source}: has no embeddings to learn on; choose another model")
    return head
