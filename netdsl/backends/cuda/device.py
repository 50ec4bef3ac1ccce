"""The GPU: finding it, or saying why there is none that can be used. Importing this imports no CUDA package."""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from netdsl.errors import DeviceError
from netdsl.frozen import frozen

SMALLEST_CAPABILITY = (7, 5)  # the oldest that CUDA 13 compiles for
INSTALL = "pip install -U 'netdsl[cuda13]' (or 'netdsl[cuda12]' for a driver older than 580)"

PACKAGES = ("numba", "numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvcc")
DRIVER_FACTS = Path("/proc/driver/nvidia/version")

_opened: tuple[int, Device] | None = None  # the process that opened the device: a fork cannot use it


@frozen
class Device:
    """A usable GPU. name: as its maker calls it; memory_bytes: all of it."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    simulated: bool = False

    def __str__(self) -> str:
        if self.simulated:
            return self.name
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, {self.memory_bytes / 2**30:.0f} GiB)"


def simulated() -> bool:
    """Whether numba.cuda's simulator stands in for a GPU (NUMBA_ENABLE_CUDASIM=1): slow, for tests of small shapes."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def find() -> Device:
    """The GPU that networks run on: the first that the driver shows. Raises DeviceError: why there is none."""
    global _opened
    if _opened is not None:
        process, device = _opened
        if process == os.getpid() or device.simulated:
            return device
        hint = "start processes by spawn instead of fork: multiprocessing.get_context('spawn')"
        raise DeviceError("a GPU opened before a fork cannot be used after it", code="cuda-fork", hint=hint)
    device = _simulator() if simulated() else _first_device()
    _opened = os.getpid(), device
    return device


def usable() -> Device | None:
    """The GPU, or None when there is none that networks can run on; a simulator does not count."""
    if simulated():
        return None
    with suppress(DeviceError):
        return find()
    return None


def facts() -> dict[str, Any]:
    """The GPU for the record: the card, its driver, the packages that compile for it. Raises DeviceError."""
    card = find()
    return {
        "card": card.name, "compute_capability": ".".join(map(str, card.capability)),
        "multiprocessors": card.multiprocessors, "memory_bytes": card.memory_bytes, "driver": _driver_version(),
        "versions": versions(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """The versions of the packages that compile for a GPU, as far as they are installed."""
    from importlib import metadata  # takes a hundredth of a second, on machines without a GPU too

    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _driver_version() -> str | None:
    """The driver's version as nvidia-smi shows it, where the system tells."""
    with suppress(OSError):
        found = re.search(r"Kernel Module.*?(\d+(\.\d+)+)", DRIVER_FACTS.read_text(encoding="utf-8"))
        return found and found[1]
    return None


def _simulator() -> Device:
    return Device("the simulator of numba.cuda", (9, 0), 132, 2**30, simulated=True)


def _first_device() -> Device:
    _need_packages()
    driver = _need_driver()
    names = ("COMPUTE_CAPABILITY_MAJOR", "COMPUTE_CAPABILITY_MINOR", "MULTIPROCESSOR_COUNT")
    wanted = (getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}") for name in names)
    major, minor, multiprocessors = (int(_told(driver, driver.cuDeviceGetAttribute(a, 0))) for a in wanted)
    name = bytes(_told(driver, driver.cuDeviceGetName(128, 0))).split(b"\0")[0].decode()
    memory = int(_told(driver, driver.cuDeviceTotalMem(0)))
    if (major, minor) < SMALLEST_CAPABILITY:
        need = ".".join(map(str, SMALLEST_CAPABILITY))
        message = f"{name} has compute capability {major}.{minor}, and {need} is needed"
        raise DeviceError(message, code="cuda-old-device", hint='use device="cpu"')
    return Device(name, (major, minor), multiprocessors, memory)


def _told(driver: Any, answer: tuple[Any, Any]) -> Any:
    _need_success(driver, answer[0])
    return answer[1]


def _need_packages() -> None:
    missing = [name for name in ("numba_cuda", "cuda") if importlib.util.find_spec(name) is None]
    if missing:
        message = "the packages for NVIDIA GPUs are not installed"
        raise DeviceError(message, code="cuda-packages", hint=f'{INSTALL}, or use device="cpu"')


def _need_driver() -> Any:
    """The driver's functions, once it has said that there is a GPU and that it is new enough."""
    try:
        from cuda.bindings import driver

        (status,) = driver.cuInit(0)
    except Exception as error:  # a library that is not there is reported in several ways
        message = f"no NVIDIA driver was found ({_first_line(error)})"
        hint = 'install the driver of your GPU (nvidia-smi shows it), or use device="cpu"'
        raise DeviceError(message, code="cuda-no-driver", hint=hint) from None
    _need_success(driver, status)
    _need_version(int(_told(driver, driver.cuDriverGetVersion())), int(driver.CUDA_VERSION))
    if not _told(driver, driver.cuDeviceGetCount()):
        raise _no_device()
    return driver


def _need_success(driver: Any, status: Any) -> None:
    """Raise the DeviceError of a driver call that failed."""
    codes = driver.CUresult
    if status == codes.CUDA_SUCCESS:
        return
    if status == codes.CUDA_ERROR_NO_DEVICE:
        raise _no_device()
    too_old = (codes.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, codes.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)
    if status in too_old:
        message = "the NVIDIA driver does not fit the rest of the system"
        hint = 'update the driver and restart the machine, or use device="cpu"'
        raise DeviceError(message, code="cuda-old-driver", hint=hint)
    raise DeviceError(f"the NVIDIA driver refuses: {status.name}", code="cuda-driver", hint="see what nvidia-smi says")


def _need_version(version: int, wanted: int) -> None:
    """Raise DeviceError when a driver supports only an earlier major version of CUDA than the packages are made for.

    Versions are 1000 major + 10 minor, as the driver gives them.
    """
    if version // 1000 < wanted // 1000:
        supports, needs = f"{version // 1000}.{version % 1000 // 10}", wanted // 1000
        message = f"the NVIDIA driver supports CUDA {supports} and the installed packages need CUDA {needs}"
        older = version // 1000
        hint = f"update the driver, or: pip install 'netdsl[cuda{older}]'" if older == 12 else "update the driver"
        raise DeviceError(message, code="cuda-old-driver", hint=hint)


def _no_device() -> DeviceError:
    hint = 'see what nvidia-smi and CUDA_VISIBLE_DEVICES say, or use device="cpu"'
    return DeviceError("the NVIDIA driver shows no GPU", code="cuda-no-device", hint=hint)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def runtime() -> Any:
    """The module that runs things here: `driver` on a GPU, `simulator` under numba.cuda's simulator. Same words."""
    if find().simulated:
        from netdsl.backends.cuda import simulator

        return simulator
    from netdsl.backends.cuda import driver

    return driver
