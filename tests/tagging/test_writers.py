"""Promises of the output formats and the pictures."""

import csv
import io
import itertools
import json
import os
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from predictions import make_prediction

from tagger.base.errors import AudioError, ConfigError
from tagger.tagging.inputs import Input
from tagger.tagging.records import Record, Row, Selection, failed_record, make_record
from tagger.tagging.writers import WRITERS, Header, open_writer
from tagger.tagging.writers._names import output_names
from tagger.tagging.writers.table import clock

TAGS = ("guitar", "no vocals", 'say "hi", twice', "müsik\n二", "drums")
SCORES = (0.25, 0.9, 0.5, 0.75, 0.0)
RANKED = ["no vocals", "müsik\n二", 'say "hi", twice', "guitar", "drums"]
HEADER = Header("scenes", "3f2a", "0.1.0", "2026-01-02T03:04:05Z")
TEXTS = ["csv", "huggingface", "json", "jsonl", "labelstudio", "table"]
PER_FILE = ["audacity", "jams", "npz", "png", "raven"]
FORMATS = sorted([*TEXTS, *PER_FILE, "parquet"])
# What Linux gives for a file name with the byte 0xff.
ODD = "odd \udcff.mp3"


prediction = partial(make_prediction, tags=TAGS, scores=SCORES)


def record(path="a.mp3", rows=(), **more):
    rows = tuple(row if isinstance(row, Row) else Row(*row) for row in rows)
    return Record(path, more.pop("seconds", 3.855), more.pop("padded", False), rows, **more)


SEGMENTS = record(rows=[("drums", 0.75, 0.0, 1.935), ("flute", 0.5, 0.96, 62.25)], seconds=62.25)
FAILED = failed_record("bad.mp3", 'bad.mp3: no "audio", or half of it;\nreplace it')


def written(format_, *records, stream=None):
    stream = stream or io.StringIO()
    writer = WRITERS.get(format_)(stream, HEADER)
    writer.begin()
    for item in records:
        writer.write(item)
    writer.end()
    return stream.getvalue() if isinstance(stream, io.StringIO) else None


def rows_of_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def outputs(format_, folder, *items, inputs=None):
    """Files that a format writes for predictions, by their path inside the folder."""
    inputs = inputs or [Input(Path(item.path)) for item in items]
    with open_writer(format_, folder, HEADER, inputs=inputs) as writer:
        for item in items:
            writer.write(make_record(item, Selection()), item)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# All formats


def test_the_formats_are_these():
    assert WRITERS.names() == FORMATS


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown output format 'xml'; known: audacity, csv"):
        WRITERS.get("xml")
    with (
        pytest.raises(ConfigError, match="unknown output format 'xml'"),
        open_writer("xml", tmp_path / "a", HEADER),
    ):
        pass


def test_formats_say_what_kind_of_output_they_need():
    kinds = {name: WRITERS.get(name) for name in FORMATS}
    assert [name for name in FORMATS if kinds[name].per_file] == PER_FILE
    assert [name for name in FORMATS if kinds[name].binary] == ["npz", "parquet", "png"]
    assert [name for name in FORMATS if kinds[name].needs_prediction] == ["npz", "png"]
    assert kinds["audacity"].default_segments == "merged"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("path", [ODD, "tab\tnew\nline\r.mp3", 'quote " , #.mp3', "\x1b[31m.mp3"])
def test_no_file_name_stops_any_format(tmp_path, format_, path):
    item = prediction(path, tags=("a", "b\t\x85c"), scores=(1, 0.5))
    inputs = [Input(Path(path)), Input(Path("bad.mp3"))]
    with open_writer(format_, tmp_path / "out", HEADER, inputs=inputs) as writer:
        for selection in (Selection(), Selection(segments="merged")):
            writer.write(make_record(item, selection), item)
        writer.write(failed_record("bad.mp3", f"{path}: bad; replace it"))
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize("format_", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_name_stops_a_stream_of_any_encoding(format_, encoding):
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, errors="strict", newline="")
    names = ["é", "二", "\U0001f600", ODD]
    written(format_, *(record(name, [(name, 0.5)]) for name in names), stream=stream)
    text = content.getvalue().decode(encoding)
    if format_ == "jsonl":
        assert [json.loads(line)["path"] for line in text.splitlines()] == names
    if format_ == "json":
        assert [entry["tags"][0]["label"] for entry in json.loads(text)] == names


@pytest.mark.parametrize("format_", ["csv", "json", "jsonl", "parquet", "table"])
def test_a_file_is_whole_or_absent(tmp_path, format_):
    path = tmp_path / "new" / "tags"
    with open_writer(format_, path, HEADER) as writer:
        writer.write(SEGMENTS)
        assert not path.exists()
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), open_writer(format_, path, HEADER) as writer:
        writer.write(FAILED)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("format_", TEXTS)
def test_standard_output_gets_the_same_as_a_file(tmp_path, format_, capsysbinary):
    for output in (None, tmp_path / "out"):
        with open_writer(format_, output, HEADER) as writer:
            for item in (SEGMENTS, FAILED, record("b ü.mp3", [("a\r\nb", 0.5)])):
                writer.write(item)
    assert capsysbinary.readouterr().out == (tmp_path / "out").read_bytes()


@pytest.mark.parametrize("format_", ["npz", "parquet", "png", "audacity"])
def test_what_is_no_text_is_not_written_to_standard_output(format_):
    with pytest.raises(ConfigError, match=r"--format .*; give --output F"):
        open_writer(format_, None, HEADER).__enter__()


def test_an_output_of_the_wrong_kind_or_in_an_impossible_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for format_, output in [
        ("csv", tmp_path / "folder"),
        ("parquet", tmp_path / "folder"),
        ("npz", tmp_path / "file"),
        ("csv", tmp_path / "file" / "a.csv"),
        ("npz", tmp_path / "file" / "folder"),
    ]:
        with pytest.raises(ConfigError, match=r"is a folder; |cannot be written \(.*\); check"):
            open_writer(format_, output, HEADER).__enter__()


def test_the_writers_import_nothing_heavy():
    code = (
        "import sys\n"
        "from tagger.tagging import file_tags, inputs, kept, records\n"
        "assert not {'pydantic', 'rich', 'mutagen'} & set(sys.modules)\n"
        "from tagger.tagging.writers import WRITERS, _names\n"
        "for name in WRITERS.names(): WRITERS.get(name)\n"
        "heavy = {'pyarrow', 'matplotlib', 'mutagen', 'tensorflow', 'rich', 'soundfile'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("format_", "package"), [("parquet", "pyarrow"), ("png", "matplotlib")])
def test_a_package_that_a_format_lacks_is_told_before_the_first_file(
    tmp_path, monkeypatch, format_, package
):
    monkeypatch.setitem(sys.modules, package, None)
    # The command line says which extra of the installation brings it.
    with pytest.raises(ModuleNotFoundError) as caught:
        open_writer(format_, tmp_path / "a", HEADER).__enter__()
    assert caught.value.name == package
    assert not (tmp_path / "a").is_file()


# JSON


def test_json_is_one_list_with_an_object_per_file():
    first, second, third = json.loads(
        written("json", record(rows=[("a", 0.9), ("b", 1 / 3)], padded=True), SEGMENTS, FAILED)
    )
    assert first == {
        "path": "a.mp3",
        "seconds": 3.855,
        "padded": True,
        "tags": [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.333333}],
    }
    assert second["tags"][1] == {"label": "flute", "score": 0.5, "start": 0.96, "end": 62.25}
    assert third == {"path": FAILED.path, "error": FAILED.error}


def test_json_of_no_files_is_an_empty_list():
    assert json.loads(written("json")) == []


def test_json_lines_are_the_objects_of_json():
    records = [record("b ü\n.mp3", [("a", 0.9)]), SEGMENTS, FAILED]
    lines = written("jsonl", *records).split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == json.loads(written("json", *records))


class Flushed(io.StringIO):
    """Text that was flushed."""

    flushed = ""

    def flush(self):
        self.flushed = self.getvalue()


@pytest.mark.parametrize("format_", TEXTS)
def test_each_file_is_flushed_as_soon_as_it_is_done(format_):
    stream = Flushed()
    writer = WRITERS.get(format_)(stream, HEADER)
    writer.begin()
    for path in ("first.mp3", "second.mp3"):
        writer.write(record(path, [("a", 0.5)]))
        assert stream.flushed and stream.flushed == stream.getvalue()
        # A list of lists of labels names no files.
        assert path in stream.flushed or format_ == "huggingface"


# CSV


def test_csv_begins_with_its_columns_and_has_its_origin_in_each_row():
    text = written("csv", record(rows=[("a", 0.9), ("b", 0.25)]), SEGMENTS, FAILED)
    origin = "scenes,3f2a,2026-01-02T03:04:05Z"
    assert text.splitlines()[:4] == [
        "path,start,end,tag,score,error,model,version,time",
        f"a.mp3,0.000000,3.855000,a,0.900000,,{origin}",
        f"a.mp3,0.000000,3.855000,b,0.250000,,{origin}",
        f"a.mp3,0.000000,1.935000,drums,0.750000,,{origin}",
    ]
    failed = rows_of_csv(text)[-1]
    assert failed.pop("path") == FAILED.path and failed.pop("error") == FAILED.error
    assert failed.pop("model") == "scenes" and failed.pop("version") == "3f2a"
    assert failed.pop("time") and set(failed.values()) == {""}


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique=True), NAMES)
def test_any_name_survives_csv_and_json(path, tags, error):
    item = record(path, [(tag, 0.5) for tag in tags])
    bad = failed_record(path, error)
    rows = rows_of_csv(written("csv", item, bad))
    assert [(row["path"], row["tag"]) for row in rows[:-1]] == [(path, tag) for tag in tags]
    assert (rows[-1]["path"], rows[-1]["error"]) == (path, error)
    first, second = json.loads(written("json", item, bad))
    assert first["path"] == path and [entry["label"] for entry in first["tags"]] == tags
    assert second == {"path": path, "error": error}


@pytest.mark.parametrize("reader", ["pandas", "duckdb"])
def test_csv_is_read_by_other_programs_as_it_is(tmp_path, reader):
    path = tmp_path / "a.csv"
    path.write_text(written("csv", record("a #1.mp3", [("C#", 0.5)]), SEGMENTS, FAILED))
    if reader == "pandas":
        import pandas as pd

        table = pd.read_csv(path)
    else:
        import duckdb

        table = duckdb.sql(f"SELECT * FROM '{path}'").df()
    assert table["error"].iloc[-1] == FAILED.error
    table = table.iloc[:-1]
    assert list(table["path"]) == ["a #1.mp3", "a.mp3", "a.mp3"]
    assert list(table["tag"]) == ["C#", "drums", "flute"]
    assert list(table["end"]) == [3.855, 1.935, 62.25]


# What other programs of the field read


def test_the_list_of_hugging_face_has_a_list_for_each_file():
    text = written("huggingface", record(rows=[("a", 0.9), ("b", 0.25)]), FAILED, record())
    best = [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.25}]
    assert json.loads(text) == [best, [], []]
    assert json.loads(written("huggingface")) == []


def test_label_studio_gets_choices_of_files_and_labels_of_segments():
    whole = json.loads(written("labelstudio", record(rows=[("a", 0.9), ("b", 0.25)]), FAILED))
    (task,) = whole
    (prediction_,) = task["predictions"]
    assert task["data"] == {"audio": "a.mp3"}
    assert (prediction_["model_version"], prediction_["score"]) == ("scenes 3f2a", 0.9)
    (result,) = prediction_["result"]
    assert result["value"] == {"choices": ["a", "b"]} and result["type"] == "choices"
    stream = io.StringIO()
    writer = WRITERS.get("labelstudio")(stream, replace(HEADER, segments="merged"))
    writer.begin()
    writer.write(SEGMENTS)
    writer.end()
    first, second = json.loads(stream.getvalue())[0]["predictions"][0]["result"]
    assert first["value"] == {"start": 0.0, "end": 1.935, "labels": ["drums"]}
    assert (second["type"], second["score"], second["id"]) == ("labels", 0.5, "segment-1")


def test_jams_is_read_by_its_own_library(tmp_path):
    jams = pytest.importorskip("jams")
    item = prediction()
    selection = Selection(segments="merged", threshold=0.5)
    with open_writer("jams", tmp_path, HEADER, inputs=[Input(Path("a.mp3"))]) as writer:
        writer.write(make_record(item, selection), item)
    found = jams.load(str(tmp_path / "a.jams"), validate=True, strict=True)
    (annotation,) = found.annotations
    assert annotation.namespace == "tag_open"
    assert annotation.annotation_metadata.annotation_tools == "tagger 0.1.0"
    wanted = make_record(item, selection).rows
    assert [observation.value for observation in annotation.data] == [row.label for row in wanted]
    assert [observation.time for observation in annotation.data] == pytest.approx(
        [row.start for row in wanted], abs=1e-6
    )
    assert found.file_metadata.duration == pytest.approx(item.seconds)


def test_raven_gets_the_columns_that_it_asks_for(tmp_path):
    with open_writer("raven", tmp_path, HEADER, inputs=[Input(Path("a.mp3"))]) as writer:
        writer.write(SEGMENTS)
    rows = list(csv.DictReader((tmp_path / "a.selections.txt").open(), delimiter="\t"))
    assert [row["Selection"] for row in rows] == ["1", "2"]
    assert rows[0]["Begin Time (s)"] == "0.000000" and rows[1]["End Time (s)"] == "62.250000"
    assert {"View", "Channel", "Low Freq (Hz)", "High Freq (Hz)"} <= set(rows[0])
    assert (rows[0]["Tag"], rows[0]["Score"]) == ("drums", "0.750000")


# Parquet


def read_parquet(path):
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path)


def write_parquet(path, *records):
    with open_writer("parquet", path, HEADER) as writer:
        for item in records:
            writer.write(item)
    return read_parquet(path)


def test_parquet_has_the_columns_of_csv_with_their_types(tmp_path):
    records = [record("ü.mp3", [("a", 1 / 3), ("b\n", 0.25)]), SEGMENTS, FAILED]
    file = write_parquet(tmp_path / "a.parquet", *records)
    table = file.read()
    types = {field.name: str(field.type) for field in table.schema}
    # Where it comes from is in the metadata of the file.
    origin = ["model", "version", "time"]
    assert [*types, *origin] == list(rows_of_csv(written("csv", *records))[0])
    assert list(types.values()) == ["string", "double", "double", "string", "double", "string"]
    assert table.to_pylist()[0] == {
        "path": "ü.mp3",
        "start": 0.0,
        "end": 3.855,
        "tag": "a",
        "score": 0.333333,
        "error": None,
    }
    assert table.num_rows == 5
    nothing = dict.fromkeys(["start", "end", "tag", "score"])
    assert table.to_pylist()[-1] == {"path": FAILED.path, "error": FAILED.error} | nothing


def test_parquet_has_its_origin_in_the_metadata_of_the_file(tmp_path):
    metadata = write_parquet(tmp_path / "a.parquet").metadata.metadata
    assert metadata[b"model"] == b"scenes"
    assert metadata[b"version"] == b"3f2a"
    assert metadata[b"time"] == b"2026-01-02T03:04:05Z"


def test_parquet_of_no_files_has_its_columns(tmp_path):
    assert write_parquet(tmp_path / "a.parquet").read().num_rows == 0


def test_parquet_is_written_in_groups_of_rows_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tagger.tagging.writers.parquet._GROUP_ROWS", 10)
    records = [record(f"{number}.mp3", [("a", 0.5)] * 4) for number in range(8)]
    file = write_parquet(tmp_path / "a.parquet", *records)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [12, 12, 8]
    assert file.read().column("path").to_pylist()[::4] == [item.path for item in records]


@pytest.mark.filterwarnings("error")
def test_parquet_that_is_broken_off_says_nothing(tmp_path):
    import gc

    with pytest.raises(KeyboardInterrupt), open_writer("parquet", tmp_path / "a", HEADER) as writer:
        writer.write(SEGMENTS)
        raise KeyboardInterrupt
    del writer
    gc.collect()
    assert list(tmp_path.iterdir()) == []


# Table


def test_the_table_has_a_line_per_tag_with_its_score_and_bar():
    assert written("table", record(rows=[("b b", 1.0), ("a", 0.5)])).splitlines() == [
        "a.mp3 (3.9 s)",
        "  1.000 #################### b b",
        "  0.500 ##########           a",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def table_of(item, stream):
    writer = WRITERS.get("table")(stream, HEADER)
    writer.begin()
    writer.write(make_record(item, Selection(top_k=2)), item)
    return stream.getvalue()


def test_the_table_has_a_mark_where_a_tag_begins_to_apply():
    item = prediction(tags=("a", "b"), scores=(0.5, 0.25), thresholds=np.float32([0.3, np.nan]))
    assert table_of(item, io.StringIO()).splitlines()[1:] == [
        "  0.500 ######|###           a",
        "  0.250 #####                b",
    ]


def test_on_a_terminal_there_are_colours_unless_nobody_wants_them(monkeypatch):
    item = prediction(tags=("a", "b"), scores=(0.5, 0.25), thresholds=np.float32([0.3, 0.9]))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    first, second = table_of(item, Terminal()).splitlines()[1:]
    assert "█" in first and first.endswith("\x1b[1ma\x1b[0m") and second.endswith(" b")
    plain = re.sub("\x1b\\[\\d+m", "", first)
    assert plain == "  0.500 ██████|███           a"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in table_of(item, Terminal())


def test_the_table_has_the_times_of_segments():
    assert written("table", SEGMENTS).splitlines() == [
        "a.mp3 (62.2 s)",
        "  0:00.0-0:01.9 0.750 ###############      drums",
        "  0:01.0-1:02.2 0.500 ##########           flute",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00.0"),
        (59.96, "1:00.0"),
        (61.54, "1:01.5"),
        (3599.99, "1:00:00.0"),
        (7325, "2:02:05.0"),
    ],
)
def test_times_are_in_minutes_and_from_an_hour_on_in_hours(seconds, text):
    assert clock(seconds) == text


def test_the_table_says_that_a_file_was_padded_failed_or_has_no_tag():
    assert written("table", record(seconds=0.5, padded=True)).splitlines() == [
        "a.mp3 (0.5 s, padded)",
        "  no tag reaches the threshold",
    ]
    assert written("table", failed_record("a", "a: empty file; copy it")).splitlines() == [
        "a (failed)",
        "  a: empty file; copy it",
    ]


def test_the_table_shows_control_characters_instead_of_obeying_them():
    text = written("table", record("\x1b[31m\n.mp3", [("a\rb", 0.5)]))
    assert text.splitlines()[0] == r"\x1b[31m\x0a.mp3 (3.9 s)"
    assert text.splitlines()[1].endswith(r"a\x0db")


# A file for each input


def test_audacity_labels_are_times_and_tags_with_tabs_between(tmp_path):
    inputs = [Input(Path(name)) for name in ("a.mp3", "b.mp3", "bad.mp3")]
    with open_writer("audacity", tmp_path, HEADER, inputs=inputs) as writer:
        writer.write(SEGMENTS)
        writer.write(record("b.mp3", [("a\tb\nc\u2028d", 0.5)]))
        writer.write(FAILED)
    first = (tmp_path / "a.txt").read_text(encoding="utf-8")
    assert first == "0.000000\t1.935000\tdrums\n0.960000\t62.250000\tflute\n"
    assert (tmp_path / "b.txt").read_text() == "0.000000\t3.855000\ta b c d\n"
    assert not (tmp_path / "bad.txt").exists()


def test_npz_holds_the_whole_taggram(tmp_path):
    item = prediction("folder/a.mp3")
    assert outputs("npz", tmp_path, item) == ["a.npz"]
    with np.load(tmp_path / "a.npz") as arrays:
        assert set(arrays) == {"taggram", "times", "tags", "scores", "window_seconds"}
        assert arrays["taggram"].dtype == np.float32
        np.testing.assert_array_equal(arrays["taggram"], item.taggram)
        np.testing.assert_array_equal(arrays["times"], item.times)
        np.testing.assert_array_equal(arrays["scores"], item.scores)
        assert tuple(arrays["tags"]) == item.tags
        assert float(arrays["window_seconds"]) == item.window_seconds


def test_png_is_the_picture_of_the_taggram(tmp_path):
    assert outputs("png", tmp_path, prediction()) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("format_", PER_FILE)
def test_an_output_that_cannot_be_written_is_one_clear_error_and_stops_no_other(tmp_path, format_):
    suffix = WRITERS.get(format_).suffix
    (tmp_path / f"a{suffix}" / "in the way").mkdir(parents=True)
    inputs = [Input(Path("a.mp3")), Input(Path("b.mp3"))]
    with open_writer(format_, tmp_path, HEADER, inputs=inputs) as writer:
        with pytest.raises(AudioError, match=rf"a\{suffix}: cannot be written .*; check"):
            writer.write(record(), prediction())
        writer.write(record("b.mp3"), prediction("b.mp3"))
    assert (tmp_path / f"b{suffix}").is_file()


def names(*inputs, suffix=".txt"):
    items = [item if isinstance(item, Input) else Input(Path(item)) for item in inputs]
    found = output_names(items, suffix)
    return [str(found[str(item.path)]) for item in items]


def test_outputs_lie_as_their_inputs_lie_below_the_folder_that_was_given():
    base = Path("/music")
    inputs = [Input(base / "a/b.x/one.two.wav", base), Input(base / "three", base)]
    assert names(*inputs) == ["a/b.x/one.two.txt", "three.txt"]


def test_inputs_given_themselves_are_named_without_their_folders():
    assert names("one.wav", "deep/two.wav", "/three.wav", "-") == [
        "one.txt",
        "two.txt",
        "three.txt",
        "stdin.txt",
    ]


@pytest.mark.parametrize(
    "pair",
    [
        ("a/x.wav", "b/x.wav"),
        ("x.wav", "x.mp3"),
        ("X.wav", "x.mp3"),
        (unicodedata.normalize("NFC", "é.wav"), unicodedata.normalize("NFD", "é.mp3")),
    ],
)
def test_outputs_of_the_same_name_are_told_apart_by_a_digest(pair):
    first, second, third = names(*pair, "y.wav")
    assert first.casefold() != second.casefold()
    assert [len(first), len(second)] == [len(Path(path).name) + 9 for path in pair]
    assert third == "y.txt"
    # Whatever their order.
    assert names(*reversed(pair)) == [second, first]


def test_a_name_that_looks_like_one_with_a_digest_is_told_apart():
    first, _ = names("a/x.wav", "b/x.wav")
    assert len(set(names("a/x.wav", "b/x.wav", f"c/{Path(first).stem}.wav"))) == 3


@given(st.lists(st.text(st.sampled_from("./aA~"), min_size=1, max_size=8), min_size=1, max_size=6))
def test_no_output_leaves_its_folder_and_no_two_are_the_same(paths):
    bases = itertools.cycle([None, Path("a"), Path("/"), Path("..")])
    items = list(
        {
            Path(p).absolute(): Input(Path(p), base) for p, base in zip(paths, bases, strict=False)
        }.values()
    )
    found = names(*items)
    assert len({name.casefold() for name in found}) == len(items)
    for name in found:
        path = Path(os.path.normpath(Path("/out") / name))
        assert path.is_relative_to("/out") and path != Path("/out")
        assert ".." not in Path(name).parts


def test_long_names_are_cut_between_characters_and_stay_distinct():
    first, second = names("二" * 84 + "a.wav", "二" * 84 + "b.wav", suffix=".parquet")
    assert first != second
    assert all(len(name.encode()) <= 255 and name.startswith("二" * 70) for name in (first, second))
