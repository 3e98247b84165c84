"""VGGish with the weights that its authors trained on AudioSet: embeddings, no tags."""

from dataclasses import dataclass
from pathlib import Path

from tagger.base.errors import ModelError
from tagger.bundle.models import RegisteredModel
from tagger.bundle.models._source import file_from
from tagger.bundle.read import Bundle
from tagger.cloud.download import RemoteFile, cached_download

# As published by its authors. They give no checksum; the smoke test tells whether the right weights
# arrived.
CHECKPOINT = RemoteFile(
    url="https://storage.googleapis.com/audioset/vggish_model.ckpt",
    name="vggish_model.ckpt",
    sha256=None,
)


@dataclass(frozen=True)
class VggishModel(RegisteredModel):
    """VGGish as published."""

    def pull(self, root: Path, *, source: str = "") -> Bundle:  # noqa: D102
        from tagger.base.log import notice
        from tagger.bundle.write import Source, parity_windows, write_bundle
        from tagger.config import load_config
        from tagger.network.model import build_model

        config = load_config(
            None, ["model.backbone.name=vggish", "model.backbone.params.embedding=true"]
        )
        front_end = config.make_front_end()
        model = build_model(config, front_end, ())
        path = file_from(source, CHECKPOINT.name, sha256=None) if source else None
        model.backbone.load_weights(model.embedding_model, path or cached_download(CHECKPOINT))
        test = model.backbone.smoke_test(model.embedding_model)
        if test is not None:
            # The authors give no checksum: this tells whether the right weights arrived.
            if not test.passed:
                raise ModelError(
                    f"{self.name}: the weights do not pass the published smoke test ({test}); "
                    "delete them from the cache and pull again"
                )
            notice(f"{self.name}: published smoke test: {test}")
        about = Source(
            name=self.name,
            config=config,
            tags=(),
            card=self.card(),
        )
        windows = parity_windows(front_end)
        return write_bundle(root, model, source=about, windows=windows)


ENTRIES = (
    VggishModel(
        name="vggish",
        summary="VGGish trained on AudioSet: embeddings of 128 and 512 values, no tags",
        n_tags=0,
        good_for="learning on sounds of all kinds",
        megabytes=560.0,
        source="storage.googleapis.com/audioset, Hershey et al., ICASSP 2017",
        licence="Apache-2.0",
        rights="The TensorFlow Authors",
    ),
)
