"""Which device computes, and in which precision."""

from dataclasses import dataclass
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that multiply bfloat16 matrices. Without them bfloat16 is emulated: several
# times slower than float32, and on some processors without AVX-512 convolutions abort.
_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True)
class Device:
    """The device that TensorFlow will use.

    Parameters
    ----------
    kind : str
        ``"GPU"`` or ``"CPU"``.
    description : str
        Its name, for people.
    """

    kind: str
    description: str


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this processor; empty where the system does not tell."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpu_name() -> str:
    import os
    import platform

    name = platform.processor() or platform.machine()
    try:
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def find_device() -> Device:
    """Device that TensorFlow will use: the first GPU, else the CPU."""
    from tagger.network.keras import tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return Device("GPU", str(details.get("device_name", "GPU")))
    return Device("CPU", _cpu_name())


def choose_precision(wanted: str, device: Device, flags: frozenset[str]) -> str:
    """Name of the Keras policy for a wanted precision.

    Parameters
    ----------
    wanted : str
        ``"auto"`` or the name of a policy, which is returned as is.
    device : Device
        Where it will compute.
    flags : frozenset of str
        Instruction sets of the CPU.

    Returns
    -------
    str
        ``"mixed_bfloat16"`` where bfloat16 is fast (GPUs, and CPUs that have it in their
        instruction set), else ``"float32"``.
    """
    if wanted != "auto":
        return wanted
    if device.kind == "GPU" or flags & _BFLOAT16_FLAGS:
        return "mixed_bfloat16"
    return "float32"
