"""Promises of the light interpreter, and of what it does to stderr."""

import contextlib
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from small_model import small_run

from tagger.base.errors import ModelError
from tagger.base.files import silent_stderr, without_stderr_lines
from tagger.bundle.runtime import Runtime
from tagger.untrusted.litert import check_structure

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_run(tmp_path_factory) / "bundle" / "model.tflite"


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    return rng.normal(-3, 2, (40, 96, 64)).astype(np.float32)


def test_a_model_gives_scores_and_embeddings_of_each_window(model, windows):
    outputs = Runtime(model)({"log_mel": windows})
    assert set(outputs) == {"scores", "pooled", "penultimate"}
    assert outputs["scores"].shape == (40, 3)
    assert all(len(array) == 40 and array.dtype == np.float32 for array in outputs.values())
    assert outputs["scores"].min() >= 0 and outputs["scores"].max() <= 1


def test_the_outputs_of_a_window_do_not_depend_on_its_company(model, windows):
    runtime = Runtime(model)
    alone = np.concatenate([runtime({"log_mel": windows[n : n + 1]})["scores"] for n in range(40)])
    for start, end in ((0, 40), (3, 5), (7, 24), (0, 31), (39, 40), (8, 16)):
        together = runtime({"log_mel": windows[start:end]})["scores"]
        np.testing.assert_array_equal(together, alone[start:end])


def test_outputs_are_kept_when_the_next_ones_are_computed(model, windows):
    runtime = Runtime(model)
    first = runtime({"log_mel": windows[:4]})["scores"]
    kept = first.copy()
    runtime({"log_mel": windows[4:8]})
    np.testing.assert_array_equal(first, kept)


def test_windows_of_any_type_and_order_in_memory_are_taken(model, windows):
    runtime = Runtime(model)
    wanted = runtime({"log_mel": windows})["scores"]
    other = np.asfortranarray(windows.astype(np.float64))
    np.testing.assert_array_equal(runtime({"log_mel": other})["scores"], wanted)


@pytest.mark.parametrize("content", [b"", b"no model" * 100, "half"])
def test_what_is_no_model_is_one_line_that_names_it(model, tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(model.read_bytes()[:2000] if content == "half" else content)
    with pytest.raises(ModelError) as caught:
        Runtime(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: no LiteRT model that can be run")
    assert message.endswith("export it again") and "\n" not in message


def test_a_missing_model_is_one_line_that_names_it(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.tflite: no LiteRT model"):
        Runtime(tmp_path / "gone.tflite")


def test_the_library_says_nothing_on_stderr(model):
    program = (
        f"from tagger.bundle.runtime import Runtime\nfor _ in range(3): Runtime({str(model)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


# Redirecting stderr


def test_only_lines_of_a_prefix_are_left_out_of_stderr(capfd):
    with without_stderr_lines(b"INFO: "):
        os.write(2, b"INFO: made a delegate\nfailed: song.mp3\n")
        threads = [threading.Thread(target=os.write, args=(2, b"of a thread\n"))]
        threads[0].start()
        threads[0].join()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "failed: song.mp3\nof a thread\nafter\n"


def test_lines_survive_an_exception_in_between(capfd):
    with pytest.raises(ValueError), without_stderr_lines(b"INFO: "):
        os.write(2, b"INFO: x\nWARNING: y\n")
        raise ValueError
    assert capfd.readouterr().err == "WARNING: y\n"


def test_without_a_temporary_folder_nothing_is_left_out(capfd, monkeypatch):
    def refuse():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with without_stderr_lines(b"INFO: "):
        os.write(2, b"INFO: x\n")
    assert capfd.readouterr().err == "INFO: x\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files as Linux does")
def test_threads_that_silence_stderr_at_once_leave_it_as_it_was(capfd):
    def silence():
        for _ in range(100):
            with silent_stderr(), without_stderr_lines(b"x"):
                pass

    before, n_open = os.fstat(2), len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=silence) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
    # Fewer where what other tests have left is collected meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= n_open
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


@pytest.mark.parametrize("shape", [(2, 50, 64), (2, 96, 65), (2,)])
def test_windows_that_do_not_fit_the_model_are_one_line_that_names_it(model, shape):
    runtime = Runtime(model)
    with pytest.raises(ModelError, match="no LiteRT model that can be run") as caught:
        runtime({"log_mel": np.zeros(shape, np.float32)})
    assert str(caught.value).startswith(f"{model}: ") and "\n" not in str(caught.value)


def test_a_model_of_another_input_is_one_line_that_names_it(model, windows, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(model.read_bytes().replace(b"log_mel", b"dog_mel"))
    with pytest.raises(ModelError, match=r"model\.tflite: no LiteRT model"):
        Runtime(path)({"log_mel": windows})


@pytest.mark.parametrize("sizes", [{"scores": 4}, {"scores": 3, "others": 1}])
def test_a_model_of_other_outputs_than_its_bundle_says_is_refused(model, windows, sizes):
    with pytest.raises(ModelError, match="is not of length"):
        Runtime(model, sizes=sizes)({"log_mel": windows})


def without_field(content, number):
    """The model of which a field of the outermost table is missing."""
    data = bytearray(content)
    (table,) = struct.unpack_from("<I", data, 0)
    fields = table - struct.unpack_from("<i", data, table)[0]
    struct.pack_into("<H", data, fields + 4 + 2 * number, 0)
    return bytes(data)


@pytest.mark.parametrize("number", [1, 2, 4], ids=["operators", "graphs", "buffers"])
def test_a_model_that_lacks_a_part_is_refused_and_does_not_end_the_process(model, tmp_path, number):
    path = tmp_path / "model.tflite"
    path.write_bytes(without_field(model.read_bytes(), number))
    program = (
        "import sys\nfrom pathlib import Path\nfrom tagger.bundle.runtime import Runtime\n"
        "Runtime(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert f"ModelError: {path}: no LiteRT model that can be run (it lacks" in done.stderr


@pytest.mark.parametrize("harm", ["another operator", "an input left out", "no output"])
def test_an_operator_that_lacks_inputs_or_outputs_is_refused(model, tmp_path, harm):
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    content = schema.ModelT.InitFromPackedBuf(model.read_bytes())
    numbers = [code.builtinCode for code in content.operatorCodes]
    at = numbers.index(schema.BuiltinOperator.FULLY_CONNECTED)
    (layer, *_) = (op for op in content.subgraphs[0].operators if op.opcodeIndex == at)
    if harm == "another operator":
        # LiteRT reads the last of its four inputs, and only now and then ends the process of it.
        code = content.operatorCodes[at]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.STRIDED_SLICE
    elif harm == "an input left out":
        layer.inputs = [layer.inputs[0], -1, *layer.inputs[2:]]
    else:
        layer.outputs = []
    builder = flatbuffers.Builder()
    builder.Finish(content.Pack(builder), b"TFL3")
    path = tmp_path / "model.tflite"
    path.write_bytes(builder.Output())
    with pytest.raises(ModelError, match="an operator lacks inputs or outputs"):
        Runtime(path)


@pytest.mark.parametrize("at", [*range(0, 400, 7), *range(-400, 0, 7)])
@pytest.mark.parametrize("byte", [0, 255])
def test_the_structure_of_a_damaged_model_is_right_or_wrong_and_nothing_else(
    model, tmp_path, at, byte
):
    data = bytearray(model.read_bytes())
    data[at] = byte
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
        check_structure(path)


def test_whole_models_have_the_structure_of_one(model):
    check_structure(model)
