"""Names of clips and tags of an evaluation: from an archive, or from the data of a protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.clips.vocabulary import Vocabulary
from tagger.base.errors import ModelError
from tagger.evaluate.leakage import Leakage, find_leakage
from tagger.evaluate.protocols import PROTOCOLS, Published, Selection
from tagger.metrics.score_files import ScoreArchive

if TYPE_CHECKING:
    from preprocess.clips.index import ClipIndex
    from tagger.config import Config


@dataclass(frozen=True)
class Clips:
    """What is known of the clips, row by row; each is empty where it is not known.

    Parameters
    ----------
    ids, paths, artists : sequence of str
        Ids, audio files relative to the data's root, and artists.
    """

    ids: Sequence[str] = ()
    paths: Sequence[str] = ()
    artists: Sequence[str] = ()


@dataclass(frozen=True)
class ProtocolUse:
    """The protocol of an evaluation.

    Parameters
    ----------
    name, summary : str
        Of the protocol.
    published : tuple of Published
        Results of others on the same clips and tags; none where the clips or tags are others.
    """

    name: str
    summary: str
    published: tuple[Published, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "summary": self.summary,
            "published": [item.to_json() for item in self.published],
        }


@dataclass(frozen=True)
class Names:
    """Names of what an archive holds.

    Parameters
    ----------
    tags : tuple of str
        Of the columns.
    clips : Clips
        Of the rows.
    protocol : ProtocolUse
        Whose clips and tags they are.
    leakage : Leakage, optional
        Of the split of the protocol, where the data are at hand.
    notes : tuple of str
        What could not be checked.
    """

    tags: tuple[str, ...]
    clips: Clips
    protocol: ProtocolUse
    leakage: Leakage | None = None
    notes: tuple[str, ...] = ()


def use_of(name: str, *, comparable: bool = True) -> ProtocolUse:
    """Describe a protocol; published results only where ours are comparable.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    entry = PROTOCOLS.get(name)
    return ProtocolUse(name, entry.summary, entry.published if comparable else ())


def archive_names(
    path: Path, archive: ScoreArchive, *, protocol: str, config: "Config | None"
) -> Names:
    """Names of the clips and tags of an archive, checked against its protocol.

    Parameters
    ----------
    path : Path
        Of the archive, for messages.
    archive : ScoreArchive
        Its arrays.
    protocol : str
        Name of the protocol.
    config : Config, optional
        Where the data of the protocol are.

    Raises
    ------
    ModelError
        If these are not the test clips and the tags of the protocol.
    ConfigError
        If there is no such protocol, or its data are not where `config` says.
    """
    entry = PROTOCOLS.get(protocol)
    given = Clips(archive.clip_ids, archive.paths, archive.artists)
    if protocol == "own":
        return Names(archive.tags, given, use_of(protocol))
    shape = archive.columns.shape
    if entry.test_shape not in (None, shape):
        raise ModelError(
            f"{path}: {shape[0]} clips and {shape[1]} tags, but the test part of the protocol "
            f"{protocol!r} has {entry.test_shape}; give its scores, or leave --protocol out"
        )
    if config is None:
        known = "clips and tags have the protocol's number, but their labels were not checked"
        if entry.test_shape is None:
            known = "neither clips and tags nor their labels were checked against the protocol"
        note = f"{known}; give the folder of the annotations with --set data.root=FOLDER"
        return Names(archive.tags, given, use_of(protocol), notes=(note,))
    from preprocess.clips.datasets import DATASETS

    index = DATASETS.create(config.data.name, config.data.params).index(config.data.root)
    wanted = entry({}).select(index, Selection(np.full(len(index), ""), _no_tags()))
    rows: list[int] = np.flatnonzero(wanted.parts == "test").tolist()
    tags = wanted.vocabulary.tags
    ids = [index.clips[row].id for row in rows]
    if shape != (len(rows), len(tags)):
        raise ModelError(
            f"{path}: {shape[0]} clips and {shape[1]} tags, but the protocol {protocol!r} has "
            f"{len(rows)} and {len(tags)} in {config.data.root}; give its scores"
        )
    if archive.clip_ids and list(archive.clip_ids) != ids:
        raise ModelError(f"{path}: clip_ids are not those of the protocol {protocol!r}, in order")
    if archive.has_tags and archive.tags != tags:
        raise ModelError(f"{path}: tags are not those of the protocol {protocol!r}, in order")
    labels = wanted.vocabulary.labels(index.labels[rows], index.tags)
    for number, tag in enumerate(tags):
        if not np.array_equal(archive.columns.column(number)[0], labels[:, number] != 0):
            raise ModelError(
                f"{path}: the labels of column {number} are not those of {tag!r} in "
                f"{config.data.root}; give the clips and tags in the order of the protocol"
            )
    return Names(
        tags,
        clips_of(index, rows),
        use_of(protocol),
        find_leakage(index, wanted.parts),
    )


def clips_of(index: "ClipIndex", rows: Sequence[int]) -> Clips:
    """Names of some clips of the data."""
    clips = [index.clips[row] for row in rows]
    artists = [clip.artist for clip in clips]
    return Clips(
        [clip.id for clip in clips],
        [clip.path for clip in clips],
        artists if any(artists) else (),
    )


def _no_tags() -> Vocabulary:
    return Vocabulary((), ())
