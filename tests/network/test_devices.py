"""Promises about the choice of precision."""

import pytest

from tagger.network import devices
from tagger.network.devices import Device, choose_precision, cpu_flags

GPU = Device("GPU", "some GPU")
CPU = Device("CPU", "some CPU")
PLAIN = frozenset({"avx2", "avx512f", "fma"})


@pytest.mark.parametrize(
    ("device", "flags", "expected"),
    [
        (GPU, frozenset(), "mixed_bfloat16"),
        (GPU, PLAIN, "mixed_bfloat16"),
        (CPU, frozenset(), "float32"),
        (CPU, PLAIN, "float32"),
        (CPU, PLAIN | {"amx_bf16"}, "mixed_bfloat16"),
        (CPU, PLAIN | {"avx512_bf16"}, "mixed_bfloat16"),
        (CPU, PLAIN | {"amx_int8", "amx_tile"}, "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_the_device_multiplies_it(device, flags, expected):
    assert choose_precision("auto", device, flags) == expected


@pytest.mark.parametrize("wanted", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("device", [GPU, CPU])
def test_a_precision_that_was_asked_for_by_name_is_kept(wanted, device):
    assert choose_precision(wanted, device, frozenset()) == wanted
    assert choose_precision(wanted, device, frozenset({"amx_bf16"})) == wanted


def test_cpu_flags_are_read_from_the_system(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 amx_bf16\n")
    monkeypatch.setattr(devices, "_CPU_INFO", path)
    assert cpu_flags() == {"fpu", "avx2", "amx_bf16"}


@pytest.mark.parametrize("content", [None, "", "processor\t: 0\n"])
def test_a_system_that_tells_no_flags_has_none(tmp_path, monkeypatch, content):
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(devices, "_CPU_INFO", path)
    assert cpu_flags() == frozenset()
