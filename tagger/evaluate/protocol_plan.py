"""What a model is measured on: clips and tags of a protocol that data and model have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts
from preprocess.clips.vocabulary import Vocabulary
from tagger.base.errors import ModelError
from tagger.evaluate.protocol_names import ProtocolUse, use_of
from tagger.evaluate.protocols import PROTOCOLS, Selection

_SHOWN = 5


@dataclass(frozen=True)
class Plan:
    """What a model is measured on.

    Parameters
    ----------
    rows : list of int
        Clips, as rows of the index.
    tags : tuple of str
        In the order of the protocol.
    columns : np.ndarray [shape=(n_tags,), dtype=intp]
        Which of the model's scores they are.
    labels : np.ndarray [shape=(len(rows), n_tags), dtype=uint8]
        Of these clips.
    parts : np.ndarray [dtype=str]
        Split of all clips of the index.
    protocol : ProtocolUse
        With published results only where clips and tags are all there.
    notes : tuple of str
        What a reader should know.
    """

    rows: list[int]
    tags: tuple[str, ...]
    columns: npt.NDArray[np.intp]
    labels: npt.NDArray[np.uint8]
    parts: Parts
    protocol: ProtocolUse
    notes: tuple[str, ...]


def plan_of(
    index: ClipIndex,
    own: Selection,
    *,
    model: str,
    model_tags: Sequence[str],
    protocol: str,
    part: str,
    recorded: bool = True,
) -> Plan:
    """Choose clips and tags.

    Parameters
    ----------
    index : ClipIndex
        The data.
    own : Selection
        Split and tags that the model was made with.
    model : str
        What the model is called, for messages.
    model_tags : sequence of str
        Names of its scores.
    protocol : str
        Name of the protocol.
    part : str
        Part of the split.
    recorded : bool
        Whether `own` was recorded when the model was made, and is not only what a config says.

    Raises
    ------
    ConfigError
        If there is no such protocol, or the data are not those that it needs.
    ModelError
        If no clip or no tag is left.
    """
    chosen = PROTOCOLS.create(protocol, {}).select(index, own)
    column_of = {tag: column for column, tag in enumerate(model_tags)}
    present = set(index.tags)
    known = [
        tag in column_of and present.issuperset(members)
        for tag, members in zip(chosen.vocabulary.tags, chosen.vocabulary.members, strict=True)
    ]
    vocabulary = Vocabulary(
        tuple(tag for tag, is_known in zip(chosen.vocabulary.tags, known, strict=True) if is_known),
        tuple(m for m, is_known in zip(chosen.vocabulary.members, known, strict=True) if is_known),
    )
    if not vocabulary.tags:
        raise ModelError(
            f"{model}: none of its tags is among those of protocol {protocol!r} in {index.source}; "
            "choose another --protocol or other data"
        )
    rows: list[int] = np.flatnonzero(chosen.parts == part).tolist()
    notes = []
    missing = [t for t, is_known in zip(chosen.vocabulary.tags, known, strict=True) if not is_known]
    lacking = [tag for tag in missing if tag in column_of]
    if lacking:
        notes.append(f"{_list(lacking)} of the model's tags not in the data: left out")
    unknown = [tag for tag in missing if tag not in column_of]
    if unknown:
        notes.append(f"{_list(unknown)} of the protocol's tags not of the model: left out")
    complete = not missing
    shape = PROTOCOLS.get(protocol).test_shape
    if shape is not None and part == "test" and len(rows) != shape[0]:
        complete = False
        notes.append(f"{len(rows)} of the protocol's {shape[0]} test clips are here")
    may_be_seen = protocol != "own" and part != "train"
    notes += _notes_on_seen_clips(own.parts[rows], may_be_seen=may_be_seen, recorded=recorded)
    use = use_of(protocol, comparable=complete and part == "test")
    if PROTOCOLS.get(protocol).published and not use.published:
        notes.append("published results are not comparable with these figures, and not shown")
    return Plan(
        rows=rows,
        tags=vocabulary.tags,
        columns=np.array([column_of[tag] for tag in vocabulary.tags], dtype=np.intp),
        labels=vocabulary.labels(index.labels[rows], index.tags),
        parts=chosen.parts,
        protocol=use,
        notes=tuple(notes),
    )


def _notes_on_seen_clips(own_parts: Parts, *, may_be_seen: bool, recorded: bool) -> list[str]:
    """Say which clips the model has learned from or was chosen by."""
    by_config = "" if recorded else " (by the split of the config)"
    notes = []
    n_seen = int(np.count_nonzero(own_parts == "train"))
    if n_seen and may_be_seen:
        notes.append(
            f"{n_seen} of these clips are among those that the model was trained on{by_config}"
        )
    n_chose = int(np.count_nonzero(own_parts == "validation"))
    if n_chose:
        notes.append(
            f"{n_chose} of these clips chose the weights, thresholds and calibration: "
            f"figures of them are optimistic{by_config}"
        )
    return notes


def _list(tags: Sequence[str]) -> str:
    more = f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else ""
    return f"{len(tags)} ({', '.join(tags[:_SHOWN])}{more})"
