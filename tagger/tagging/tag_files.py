"""The verb ``predict-tags``: inputs -> predictions -> an output format, resumably."""

import contextlib
import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tagger.base.addresses import is_remote
from tagger.base.errors import AudioError, ConfigError, TaggerError
from tagger.base.log import failed, notice, warn
from tagger.base.version import VERSION
from tagger.tagging.file_tags import Change, Writing
from tagger.tagging.inputs import STDIN, Input, Spool, open_spool
from tagger.tagging.kept import Kept
from tagger.tagging.prediction import Prediction
from tagger.tagging.records import Record, Selection, failed_record, make_record
from tagger.tagging.tag_map import TagMap
from tagger.tagging.writers import (
    FileWriter,
    Header,
    TextWriter,
    Writer,
    open_writer,
    refuse_output,
)

if TYPE_CHECKING:
    from tagger.base.log import Advance
    from tagger.tagging.tagger import Tagger

_PICTURE = ".png"
# So many files on the screen are worth keeping what is said of them.
_MANY = 20


@dataclass(frozen=True)
class Options:
    """What is done with the predictions.

    Parameters
    ----------
    format : str
        Output format.
    output : Path, optional
        File, or folder of a format that writes a file for each input; None for stdout.
    selection : Selection
        Which tags are shown.
    middle_seconds : float, optional
        Only so much of the middle of each file.
    taggram : Path, optional
        Pictures besides: a ``.png`` file, or a folder.
    synonyms : mapping of str to list of str, optional
        Tags that are put together: name -> tags.
    write_tags : bool
        Write the tags into the audio files as well.
    writing : Writing
        Where to and how.
    tag_map : TagMap, optional
        What is written for each tag.
    dry_run : bool
        Say what would be written into the files, and write nothing into them.
    overwrite : bool
        Tag again what an earlier run has tagged.
    """

    format: str = "table"
    output: Path | None = None
    selection: Selection = field(default_factory=Selection)
    middle_seconds: float | None = None
    taggram: Path | None = None
    synonyms: Mapping[str, Sequence[str]] | None = None
    write_tags: bool = False
    writing: Writing = field(default_factory=Writing)
    tag_map: TagMap | None = None
    dry_run: bool = False
    overwrite: bool = False


def refuse_impossible(inputs: Sequence[Input], options: Options) -> None:
    """Refuse what cannot be done, before a model is fetched and loaded for it.

    Raises
    ------
    ConfigError
        If options do not fit the inputs or one another.
    """
    refuse_output(options.format, options.output)
    if options.taggram is not None and _is_picture(options.taggram) and len(inputs) > 1:
        raise ConfigError(f"--taggram {options.taggram} is one picture; give a folder for several")
    if options.write_tags and any(item.path == STDIN for item in inputs):
        raise ConfigError("--write-tags cannot write into standard input; name the file")
    if options.write_tags and any(is_remote(item.path) for item in inputs):
        raise ConfigError("--write-tags cannot write into a bucket; copy the files and name these")


def _is_picture(target: Path) -> bool:
    return target.suffix.lower() == _PICTURE and not target.is_dir()


def tag_files(tagger: "Tagger", inputs: Sequence[Input], options: Options) -> int:
    """Tag files and write what is found.

    Parameters
    ----------
    tagger : Tagger
        The model.
    inputs : sequence of Input
        The files; ``-`` is audio on standard input.
    options : Options
        The rest.

    Returns
    -------
    int
        How many failed; each is a row with an error in the output, and stops no other.

    Raises
    ------
    ConfigError
        If the output cannot be written or does not fit the format.
    ModelError
        If the model has no tags.
    """
    refuse_impossible(inputs, options)
    tagger.require_tags()
    if options.tag_map is not None:
        options.tag_map.require_known([*tagger.tags, *(options.synonyms or ())])
    header = Header(
        model=tagger.model.name,
        model_version=tagger.model.version,
        tagger_version=VERSION,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        segments=options.selection.segments,
    )
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(_writer(options, header, inputs))
        pictures = stack.enter_context(_pictures(options.taggram, header, inputs))
        spool = stack.enter_context(open_spool(inputs))
        kept = stack.enter_context(_kept(tagger, inputs, options))
        run = _Run(tagger, options, writer=writer, pictures=pictures, kept=kept)
        with _bar(len(inputs), options.output) as advance:
            n_failed = run.all(inputs, spool, advance)
    if options.output is not None:
        what = f"{run.n_rows} rows" if not isinstance(writer, FileWriter) else "a file each"
        notice(f"wrote {what} of {run.n_tagged} files to {options.output}")
    if options.write_tags:
        would = "would change" if options.dry_run else "changed"
        notice(f"{would} the {options.writing.field} of {run.n_changed} of {run.n_tagged} files")
    return n_failed


class _Silent(TextWriter):
    """Writes nothing: what would become of the files is what somebody wants to read."""

    suffix = ""

    def write(self, record: Record, prediction: "Prediction | None" = None) -> None:
        """Write nothing."""


@contextlib.contextmanager
def _writer(options: Options, header: Header, inputs: Sequence[Input]) -> Iterator[Writer]:
    if options.dry_run and options.output is None:
        yield _Silent(sys.stdout, header)
        return
    with open_writer(options.format, options.output, header, inputs=inputs) as writer:
        yield writer


def _said_of(path: str, change: Change, field: str) -> str:
    """Line about what would become of a file."""
    old, new = ("; ".join(values) or "(empty)" for values in (change.old, change.new))
    shown = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"{shown}: {field}: {old}" + (" (stays)" if old == new else f" -> {new}")


class _Run:
    """One call of `tag_files`."""

    def __init__(
        self,
        tagger: "Tagger",
        options: Options,
        *,
        writer: Writer,
        pictures: Writer | None,
        kept: Kept | None,
    ) -> None:
        self.tagger = tagger
        self.options = options
        self.writer = writer
        self.pictures = pictures
        self.kept = kept
        self.n_rows = self.n_tagged = self.n_changed = 0
        # A table on a terminal shows errors itself.
        self.tells_errors = options.output is not None or options.format != "table"

    def all(self, inputs: Sequence[Input], spool: Spool, advance: "Advance") -> int:
        known = [self._known(item.path) is not None for item in inputs]
        waiting = [
            spool.path_of(item) for item, there in zip(inputs, known, strict=True) if not there
        ]
        n_failed = 0
        with contextlib.closing(
            self.tagger.attempt_many(waiting, middle_seconds=self.options.middle_seconds)
        ) as results:
            for item, there in zip(inputs, known, strict=True):
                result: Prediction | TaggerError
                if there:
                    # Read again rather than held: all predictions might not fit into memory.
                    result = self._known(item.path) or AudioError(
                        f"{item.path}: has changed just now; run the command again"
                    )
                else:
                    _, result = next(results)
                    if isinstance(result, TaggerError):
                        result = spool.named(item, result)
                n_failed += not self._one(str(item.path), result)
                advance(1, f"{n_failed} failed" if n_failed else "")
        return n_failed

    def _known(self, path: Path) -> "Prediction | None":
        """Find what the model said of a file before, if that is kept and the file is the same."""
        arrays = None if self.kept is None else self.kept.get(path)
        if arrays is None:
            return None
        scores, taggram = arrays.get("scores"), arrays.get("taggram")
        if scores is None or taggram is None or len(scores) != len(self.tagger.tags):
            return None
        window_seconds, seconds, padded, missing = arrays["lengths"].tolist()
        return Prediction(
            path=str(path),
            tags=self.tagger.tags,
            scores=scores,
            taggram=taggram,
            times=arrays["times"],
            window_seconds=window_seconds,
            seconds=seconds,
            padded=bool(padded),
            missing=missing,
            thresholds=self.tagger.thresholds,
            decides_one=self.tagger.model.decides_one,
        )

    def _keep(self, path: str, prediction: Prediction) -> None:
        if self.kept is None:
            return
        lengths = [prediction.window_seconds, prediction.seconds, float(prediction.padded)]
        lengths.append(prediction.missing)
        arrays: dict[str, npt.NDArray[Any]] = {
            "scores": prediction.scores,
            "taggram": prediction.taggram,
            "times": prediction.times,
            "lengths": np.array(lengths, dtype=np.float64),
        }
        self.kept.put(Path(path), arrays)

    def _one(self, path: str, result: "Prediction | TaggerError") -> bool:
        """Write one result; tells whether all went well."""
        if isinstance(result, TaggerError):
            self._failed(path, str(result))
            return False
        said = prediction = replace(result, path=path)
        if self.options.synonyms:
            prediction = prediction.merged(self.options.synonyms)
        record = make_record(prediction, self.options.selection)
        if prediction.padded:
            warn(f"{path}: shorter than a window ({prediction.window_seconds:.2f} s), padded")
        try:
            self.writer.write(record, prediction)
            if self.pictures is not None:
                self.pictures.write(record, prediction)
        except AudioError as error:
            # Of an output that is this file's alone.
            failed(str(error))
            return False
        self.n_rows += len(record.rows)
        self.n_tagged += 1
        written = not self.options.write_tags or self._write_tags(path, prediction)
        # After the tags are in it: it is another file then.
        self._keep(path, said)
        return written

    def _failed(self, path: str, message: str) -> None:
        line = " ".join(message.split())
        self.writer.write(failed_record(path, line))
        if self.tells_errors:
            failed(line)

    def _write_tags(self, path: str, prediction: "Prediction") -> bool:
        from tagger.tagging.file_tags import planned_change, write_tags

        chosen = self.options.selection
        # Of the whole file, and only those that apply: the best ten of a file need not.
        selection = replace(
            chosen,
            segments="none",
            model_thresholds=chosen.model_thresholds or chosen.threshold is None,
        )
        labels = [row.label for row in make_record(prediction, selection).rows]
        if self.options.tag_map is not None:
            labels = self.options.tag_map(labels)
        make = planned_change if self.options.dry_run else write_tags
        try:
            change = make(Path(path), labels, self.options.writing)
        except TaggerError as error:
            failed(str(error))
            return False
        self.n_changed += change.new != change.old
        if self.options.dry_run:
            print(_said_of(path, change, self.options.writing.field))
        return True


@contextlib.contextmanager
def _kept(tagger: "Tagger", inputs: Sequence[Input], options: Options) -> Iterator[Kept | None]:
    """Open what was said before; for a file on the screen it is quicker to ask again."""
    if options.output is None and len(inputs) < _MANY:
        yield None
        return
    what = {
        "model": tagger.model.name,
        "model_version": tagger.model.version,
        "runs_on": tagger.model.runs_on,
        "front_end": tagger.front_end.spec_hash(),
        "middle_seconds": options.middle_seconds,
        "most_missing": tagger.most_missing,
        "tagger": VERSION,
    }
    with Kept(what, fresh=options.overwrite) as kept:
        yield kept


@contextlib.contextmanager
def _pictures(
    target: Path | None, header: Header, inputs: Sequence[Input]
) -> Iterator[Writer | None]:
    """Writer of taggram pictures: into a folder, or the one file that was named."""
    if target is None:
        yield None
        return
    if not _is_picture(target):
        with open_writer("png", target, header, inputs=inputs) as writer:
            yield writer
        return
    from tagger.tagging.writers.png import PngWriter

    names = {str(item.path): Path(target.name) for item in inputs}
    writer = PngWriter(target.parent, header, names=names)
    writer.begin()
    yield writer


@contextlib.contextmanager
def _bar(n_inputs: int, output: Path | None) -> "Iterator[Advance]":
    """Progress bar where there is much to do and the results do not go to the same terminal."""
    if n_inputs < 2 or (output is None and sys.stdout.isatty()):
        yield lambda n_steps, note: None
        return
    from tagger.base.log import progress_bar

    with progress_bar("tag", n_inputs) as advance:
        yield advance


def undo_tags(inputs: Sequence[Input]) -> tuple[int, int]:
    """Take tags out of audio files again.

    Returns
    -------
    n_restored, n_failed : int
        Files whose earlier genre is back, and files that could not be changed.
    """
    from tagger.tagging.file_tags import undo_tags as undo

    n_restored = n_failed = 0
    for item in inputs:
        try:
            n_restored += undo(item.path)
        except TaggerError as error:
            n_failed += 1
            failed(str(error))
    return n_restored, n_failed
