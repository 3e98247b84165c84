"""Promises of the safe reader: data comes back, and nothing that a file asks for is executed."""

from __future__ import annotations

import copyreg
import os
import pickle
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tagger.untrusted import pickles as safe_pickle
from tagger.untrusted.pickles import UnsafePickleError

PROTOCOLS = (2, 3, 4, 5)
DTYPES = ("float16", "float32", "float64", "uint8", "bool", "int64", ">i4")


def assert_same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


def assert_plain(value):
    if isinstance(value, dict):
        for key, item in value.items():
            assert_plain(key)
            assert_plain(item)
    elif isinstance(value, list | tuple):
        for item in value:
            assert_plain(item)
    elif isinstance(value, np.ndarray):
        assert type(value) is np.ndarray
        assert value.dtype.kind in "biuf"
        assert value.dtype.subdtype is None
    else:
        assert value is None or type(value) in (bool, int, float, str, bytes)


# Data.

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=15,
)


@given(value=PLAIN)
def test_what_is_written_is_read_back(value):
    assert_same(safe_pickle.loads(safe_pickle.dumps(value)), value)


@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
def test_ordinary_pickles_of_plain_values_are_read(value, protocol):
    assert_same(safe_pickle.loads(pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_ordinary_pickles_of_arrays_are_read(dtype, order, protocol):
    numbers = np.random.default_rng(0).integers(0, 100, (2, 3, 4)).astype(dtype)
    array = np.asarray(numbers, order=order)
    assert_same(safe_pickle.loads(pickle.dumps(array, protocol)), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array(2.5, np.float32), id="no dimension"),
        pytest.param(np.zeros((0, 96, 64), np.float16), id="no element"),
        pytest.param(np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), id="axes in other order"),
        pytest.param(np.arange(24)[::-2], id="with gaps"),
        pytest.param(np.broadcast_to(np.float32(1), (3, 2)), id="broadcast"),
    ],
)
def test_arrays_of_odd_layouts_are_read(array, protocol):
    assert_same(safe_pickle.loads(pickle.dumps(array, protocol)), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_that_occurs_twice_is_read_once(protocol):
    array = np.arange(5)
    found = safe_pickle.loads(pickle.dumps({"a": array, "b": [array]}, protocol))
    assert found["a"] is found["b"][0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_that_are_read_cannot_be_written_to(protocol):
    found = safe_pickle.loads(pickle.dumps(np.arange(5), protocol))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_the_names_of_numpy_1_are_known():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps(array, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in content
    assert_same(safe_pickle.loads(content), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.array(["a"]),
        np.array([b"a"]),
        np.array([1j]),
        np.array([None]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.ma.masked_array([1, 2]),
        np.float32(1),
        np.dtype("float32"),
        {1, 2},
        1j,
        range(3),
        subprocess.PIPE.__class__,
        UnsafePickleError("a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_refused(value, protocol):
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(pickle.dumps(value, protocol))


# Attacks. Each would write the file `mark` if it were executed.


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.call


def text(value):
    content = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(content)) + content


def attacks(mark):
    command = f"echo executed > '{mark}'"
    code = f"open({str(mark)!r}, 'w').close()"
    line = command.encode("utf-8")
    by_name = {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "Popen": Calls(subprocess.Popen, ("touch", str(mark))),
        "open": Calls(open, str(mark), "w"),
        "__import__": Calls(__import__, "os"),
        "nested pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, command))),
        "in an object array": np.array([Calls(os.system, command)], dtype=object),
        "in a list in a dict": {"windows": [1, {"a": Calls(os.system, command)}]},
        "as a key": {(1, 2): 1, "a": Calls(eval, code)},
        "in a state": Calls(np.dtype, "f4", state=Calls(os.system, command)),
    }
    made = {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in by_name.items()
        for protocol in PROTOCOLS
    }
    stack_global = b"\x80\x04" + text("os") + text("system") + b"\x93"
    dotted = b"\x80\x04" + text("numpy") + text("dtype.__class__.__base__") + b"\x93"
    return made | {
        "STACK_GLOBAL": stack_global + text(command) + b"\x85R.",
        "INST": b"(S'" + line.replace(b"'", b"\\'") + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(command) + b"o.",
        "NEWOBJ": b"\x80\x02cbuiltins\neval\n" + text(code) + b"\x85\x81.",
        "dotted name": dotted + b".",
        "__builtin__.eval": b"c__builtin__\neval\n" + text(code) + b"\x85R.",
        "__builtin__.bytes of a number": b"c__builtin__\nbytes\nM\xff\xff\x85R.",
        "decode": b"c_codecs\ndecode\n" + text(code) + b"\x85R.",
        "encode in another encoding": b"c_codecs\nencode\n" + text(code) + text("idna") + b"\x86R.",
    }


ATTACKS = sorted(attacks("mark"))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_not_executed(tmp_path, name):
    mark = tmp_path / "mark"
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(attacks(mark)[name])
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["os.system, protocol 5", "eval, protocol 2", "exec, protocol 4", "open, protocol 3"]
    + ["nested pickle, protocol 5", "in an object array, protocol 5", "in a state, protocol 4"]
    + ["STACK_GLOBAL", "INST", "OBJ", "__builtin__.eval"],
)
def test_an_ordinary_reader_executes_the_same_attack(tmp_path, name):
    mark = tmp_path / "mark"
    try:
        pickle.loads(attacks(mark)[name])
    except Exception as error:
        # What was executed may well give no value to go on with.
        assert mark.exists(), error
    assert mark.exists()


@pytest.mark.parametrize(
    "name", ["load", "fromfile", "memmap", "loadtxt", "savetxt", "ndarray.tofile"]
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpys_own_functions_are_refused(tmp_path, name, protocol):
    np.save(tmp_path / "a.npy", np.arange(3))
    arguments = text(str(tmp_path / "a.npy")) + b"\x85R."
    if protocol == 2:
        content = b"\x80\x02cnumpy\n" + name.encode("ascii") + b"\n" + arguments
    else:
        content = b"\x80\x04" + text("numpy") + text(name) + b"\x93" + arguments
    with pytest.raises(UnsafePickleError, match=f"it asks for numpy.{name}"):
        safe_pickle.loads(content)


@pytest.mark.parametrize(
    "opcode", [b"\x82\xf0", b"\x83\xf0\0", b"\x84\xf0\0\0\0"], ids=["EXT1", "EXT2", "EXT4"]
)
def test_a_registered_extension_is_refused_even_when_it_is_cached(tmp_path, opcode):
    mark = tmp_path / "mark"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        content = b"\x80\x02" + opcode + text(f"touch '{mark}'") + b"\x85R."
        pickle.loads(content)
        assert mark.exists()
        mark.unlink()
        with pytest.raises(UnsafePickleError):
            safe_pickle.loads(content)
        assert not mark.exists()
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize("opcode", [b"Pname\n", b"K\x01Q"], ids=["PERSID", "BINPERSID"])
def test_a_persistent_id_is_refused(opcode):
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(opcode + b".")


@pytest.mark.parametrize(
    "target",
    [
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"]",
        b"}",
    ],
)
def test_the_state_of_anything_but_a_new_array_is_refused(target):
    # (None, {name: value}) asks for setattr, {name: value} for an entry of __dict__.
    for state in (b"N}" + text("__doc__") + text("changed") + b"s\x86", b"}K\x01K\x02s"):
        with pytest.raises(UnsafePickleError, match="sets the state"):
            safe_pickle.loads(b"\x80\x02" + target + state + b"b.")


def dtype_with_state(state):
    """Pickle an array whose type is float64 with a state of the attacker's."""
    call = b"cnumpy\ndtype\n" + text("f8") + b"\x85R"
    build = pickle.dumps(state, 2)[2:-1] + b"b"
    rest = b"K\x01\x85" + text("C") + b"tR."
    return (
        b"\x80\x04cnumpy._core.numeric\n_frombuffer\n("
        + b"B\x08\0\0\0"
        + bytes(8)
        + call
        + build
        + rest
    )


def test_a_type_cannot_be_turned_into_one_that_reads_beyond_its_buffer():
    float64 = np.dtype("f8")
    state = (3, "<", (float64, (1000,)), None, None, -1, -1, 0)
    content = dtype_with_state(state)
    # NumPy itself believes the state: 8000 bytes out of a buffer of 8.
    trusting = np.dtype("f8", copy=True)
    trusting.__setstate__(state)
    assert np.frombuffer(bytes(8), dtype=trusting).nbytes == 8000
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(content)


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, ("a",), {"a": (1, 0)}, 8, 1, 0),
        (3, "<", None, None, None),
        (3, b"<", None, None, None, -1, -1, 0),
        (3,),
        {"a": 1},
        None,
    ],
)
def test_the_state_of_a_type_is_its_byte_order_alone(state):
    content = dtype_with_state(state)
    if state == (3, "<", None, None, None):
        assert_same(safe_pickle.loads(content), np.zeros(1))
    else:
        with pytest.raises(UnsafePickleError):
            safe_pickle.loads(content)


@pytest.mark.parametrize("flags", [1, 4, 63, -1, 2**40])
def test_the_flags_of_a_type_are_ignored(flags):
    found = safe_pickle.loads(dtype_with_state((3, "<", None, None, None, -1, -1, flags)))
    assert found.dtype.flags == np.dtype("f8").flags


@pytest.mark.parametrize("shape", [(-2, -4), (2**40,), (3,), (2**62, 2**62), "ab"])
def test_an_array_of_another_shape_than_its_content_is_damaged(shape):
    array = np.arange(8.0)
    function, arguments, state = array.__reduce__()
    forged = Calls(function, *arguments, state=(state[0], shape, *state[2:]))
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.loads(pickle.dumps(forged, 4))


# Damage and traps.


HUGE = {
    "LONG_BINPUT of a large index": b"K\x01r\xff\xff\xff\x7f0K\x01.",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "FRAME": b"\x95" + struct.pack("<Q", 2**62) + b"N.",
    "LONG4": b"\x8b\xff\xff\xff\x7fabc.",
    "BINBYTES": b"B\xff\xff\xff\xff" + b"abc.",
}


@pytest.mark.parametrize("name", sorted(HUGE))
def test_a_size_that_is_declared_is_not_believed(name):
    content = b"\x80\x05" + HUGE[name]
    tracemalloc.start()
    try:
        assert safe_pickle.loads(content) in (1, None)
    except pickle.UnpicklingError as error:
        assert not isinstance(error, UnsafePickleError)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", id="lists"),
        pytest.param(b"\x80\x02)" + b"\x85" * 10**6 + b".", id="tuples"),
        pytest.param(b"\x80\x02})" + b"\x85" * 10**6 + b"Ns.", id="tuples as a key"),
        pytest.param(b"\x80\x02}()" + b"\x85" * 10**6 + b"Nu.", id="tuples as one of many keys"),
        pytest.param(b"\x80\x02]q\0h\0a.", id="a list that holds itself"),
    ],
)
def test_nesting_without_end_is_refused_and_does_not_crash(content):
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.loads(content)


@pytest.mark.timeout(20)
def test_lists_that_share_their_members_take_no_exponential_time():
    value = []
    for _ in range(100):
        value = [value, value]
    found = safe_pickle.loads(pickle.dumps(value, 4))
    assert found[0] is found[1]


EXAMPLE = {
    "id": "a clip",
    "label": np.array([0, 1, 1], np.uint8),
    "windows": {"log_mel": np.arange(12, dtype=np.float16).reshape(2, 3, 2)},
}
VALID = {protocol: pickle.dumps(EXAMPLE, protocol) for protocol in PROTOCOLS}


def test_every_cut_of_a_pickle_is_refused_as_damaged():
    content = safe_pickle.dumps(EXAMPLE)
    for length in range(len(content)):
        with pytest.raises(pickle.UnpicklingError):
            safe_pickle.loads(content[:length])


@settings(max_examples=1500, deadline=None)
@given(
    protocol=st.sampled_from(PROTOCOLS),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 8)),
        min_size=1,
        max_size=5,
    ),
)
def test_a_damaged_pickle_is_refused_or_gives_plain_data(protocol, changes):
    content = VALID[protocol]
    for place, new, n_removed in changes:
        at = int(place * len(content))
        content = content[:at] + new + content[at + n_removed :]
    try:
        value = safe_pickle.loads(content)
    except pickle.UnpicklingError:
        return
    assert_plain(value)


@settings(max_examples=500, deadline=None)
@given(content=st.binary(max_size=60))
@example(content=b"")
@example(content=b".")
@example(content=b"N")
def test_random_bytes_are_refused_or_give_plain_data(content):
    try:
        value = safe_pickle.loads(content)
    except pickle.UnpicklingError:
        return
    assert_plain(value)


@pytest.mark.parametrize("length", [1 << 40, 3 << 30, (1 << 64) - 1])
def test_a_byte_array_that_is_longer_than_its_file_takes_no_memory(length):
    tracemalloc.start()
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.loads(b"\x80\x05\x96" + struct.pack("<Q", length) + b"x.")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
