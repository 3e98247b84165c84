"""The verb ``embed``: inputs -> embeddings in one NumPy or Parquet file."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError, TaggerError
from tagger.base.files import atomic_write
from tagger.base.log import failed
from tagger.tagging.inputs import Input, open_spool
from tagger.tagging.writers import encodable

if TYPE_CHECKING:
    from tagger.tagging.tagger import Tagger


class _Table(ABC):
    """A file with a row per window, or per clip."""

    @abstractmethod
    def add(
        self, path: str, values: npt.NDArray[np.float32], times: npt.NDArray[np.float64]
    ) -> None:
        """Add the rows of a clip."""

    @abstractmethod
    def fail(self, path: str, error: str) -> None:
        """Add a clip that failed."""

    @abstractmethod
    def end(self) -> None:
        """Write what is left."""

    def abandon(self) -> None:  # noqa: B027 (most have nothing to let go of)
        """Let go of what is held: the file is thrown away, `end` is not called."""


class _NpzTable(_Table):
    """Arrays ``embeddings`` (n_rows, n_dimensions), ``paths``, ``start_seconds``; all in memory.

    Clips that failed are in ``failed_paths`` and ``errors``.
    """

    def __init__(self, file: BinaryIO, layer: str, n_dimensions: int, model: str) -> None:
        self.file = file
        self.layer, self.n_dimensions, self.model = layer, n_dimensions, model
        self.paths: list[str] = []
        self.values: list[npt.NDArray[np.float32]] = []
        self.times: list[npt.NDArray[np.float64]] = []
        self.failures: list[tuple[str, str]] = []

    def add(
        self, path: str, values: npt.NDArray[np.float32], times: npt.NDArray[np.float64]
    ) -> None:
        self.paths += [path] * len(values)
        self.values.append(values)
        self.times.append(times)

    def fail(self, path: str, error: str) -> None:
        self.failures.append((path, error))

    def end(self) -> None:
        empty = np.zeros((0, self.n_dimensions), dtype=np.float32)
        np.savez_compressed(
            self.file,
            embeddings=np.concatenate([empty, *self.values]),
            paths=np.array([encodable(path) for path in self.paths], dtype=np.str_),
            start_seconds=np.concatenate([np.zeros(0), *self.times]),
            layer=np.array(self.layer),
            model=np.array(self.model),
            failed_paths=np.array([encodable(path) for path, _ in self.failures], dtype=np.str_),
            errors=np.array([encodable(error) for _, error in self.failures], dtype=np.str_),
        )


class _ParquetTable(_Table):
    """Columns path, start_seconds, embedding, error; written clip by clip."""

    # Rows that are written together: small row groups are slow to read.
    _GROUP = 4096

    def __init__(self, file: BinaryIO, layer: str, n_dimensions: int, model: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.pa: Any = pa
        schema = pa.schema(
            [
                ("path", pa.string()),
                ("start_seconds", pa.float64()),
                # Of n_dimensions each, which is not said: then a missing one could not be read by
                # pyarrow before version 26.
                ("embedding", pa.list_(pa.float32())),
                ("error", pa.string()),
            ],
            metadata={"layer": layer, "model": model},
        )
        self.schema = schema
        self.writer: Any = pq.ParquetWriter(file, schema)
        self.rows: list[tuple[str, float | None, npt.NDArray[np.float32] | None, str | None]] = []

    def add(
        self, path: str, values: npt.NDArray[np.float32], times: npt.NDArray[np.float64]
    ) -> None:
        for vector, start in zip(values, times, strict=True):
            self.rows.append((encodable(path), float(start), vector, None))
        self._flush(self._GROUP)

    def fail(self, path: str, error: str) -> None:
        self.rows.append((encodable(path), None, None, encodable(error)))
        self._flush(self._GROUP)

    def _flush(self, at_least: int) -> None:
        if len(self.rows) < at_least:
            return
        columns = [
            self.pa.array(list(column), type=field.type)
            for column, field in zip(zip(*self.rows, strict=True), self.schema, strict=True)
        ]
        self.writer.write_table(self.pa.Table.from_arrays(columns, schema=self.schema))
        self.rows = []

    def end(self) -> None:
        self._flush(1)
        self.writer.close()

    def abandon(self) -> None:
        # Else it would try to finish the file when it is collected, which is closed by then.
        with contextlib.suppress(Exception):
            self.writer.close()


_TABLES: dict[str, type[_NpzTable] | type[_ParquetTable]] = {
    ".npz": _NpzTable,
    ".parquet": _ParquetTable,
}


def embed_files(
    tagger: "Tagger",
    inputs: Sequence[Input],
    *,
    output: Path,
    layer: str | None = None,
    mean: bool = False,
    middle_seconds: float | None = None,
) -> int:
    """Write embeddings of files.

    Parameters
    ----------
    tagger : Tagger
        The model.
    inputs : sequence of Input
        The files.
    output : Path
        ``.npz`` or ``.parquet`` file, whole or absent.
    layer : str, optional
        One of the model's embeddings; default its `default_layer`.
    mean : bool
        One row per file, the mean over its windows, instead of one per window.
    middle_seconds : float, optional
        Only so much of the middle of each file.

    Returns
    -------
    int
        How many files failed; the output names them.

    Raises
    ------
    ConfigError
        If the output's suffix is none of these.
    ModelError
        If the model has no such layer.
    """
    refuse_suffix(output)
    layer = layer or tagger.default_layer
    tagger.require_layer(layer)
    n_failed = 0
    with (
        atomic_write(output) as file,
        _open_table(output, file, tagger, layer) as table,
        open_spool(inputs) as spool,
        contextlib.closing(
            tagger.attempt_embed_many(
                [spool.path_of(item) for item in inputs],
                layer=layer,
                middle_seconds=middle_seconds,
            )
        ) as results,
        _bar(len(inputs)) as advance,
    ):
        for item, (_, result) in zip(inputs, results, strict=True):
            path = str(item.path)
            if isinstance(result, TaggerError):
                n_failed += 1
                message = " ".join(str(spool.named(item, result)).split())
                table.fail(path, message)
                failed(message)
            elif mean:
                table.add(path, result.mean()[np.newaxis], result.times[:1])
            else:
                table.add(path, result.values, result.times)
            advance(1, f"{n_failed} failed" if n_failed else "")
    return n_failed


def refuse_suffix(output: Path) -> None:
    """Refuse an output of an unknown format.

    Raises
    ------
    ConfigError
        If the suffix is none that `embed_files` writes.
    """
    if output.suffix.lower() not in _TABLES:
        raise ConfigError(f"--output {output}: name a file that ends in {' or '.join(_TABLES)}")


@contextlib.contextmanager
def _open_table(output: Path, file: BinaryIO, tagger: "Tagger", layer: str) -> Iterator[_Table]:
    model = f"{tagger.model.name} {tagger.model.version}"
    table = _TABLES[output.suffix.lower()](file, layer, tagger.model.output_sizes[layer], model)
    try:
        yield table
        table.end()
    except BaseException:
        table.abandon()
        raise


@contextlib.contextmanager
def _bar(n_inputs: int) -> Iterator[Any]:
    if n_inputs < 2:
        yield lambda n_steps, note: None
        return
    from tagger.base.log import progress_bar

    with progress_bar("embed", n_inputs) as advance:
        yield advance
