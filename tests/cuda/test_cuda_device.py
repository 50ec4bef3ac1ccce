"""Why a GPU cannot be used is said with its remedy; what needs no GPU of the device module."""

from __future__ import annotations

import enum
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from netdsl.backends.cuda import device
from netdsl.errors import DeviceError

CODES = (
    "CUDA_SUCCESS", "CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "CUDA_ERROR_UNKNOWN",
)  # fmt: skip
Result = enum.Enum("Result", CODES)  # type: ignore[misc]


ATTRIBUTES = ("COMPUTE_CAPABILITY_MAJOR", "COMPUTE_CAPABILITY_MINOR", "MULTIPROCESSOR_COUNT")
Attribute = enum.Enum("Attribute", [f"CU_DEVICE_ATTRIBUTE_{name}" for name in ATTRIBUTES])  # type: ignore[misc]


def driver(
    status: str = "CUDA_SUCCESS", version: int = 13000, built: int = 13000, count: int = 1, capability: Any = (9, 0)
) -> Any:
    """A driver that answers so; `built` is the version that the packages are made for."""
    fine, facts = Result.CUDA_SUCCESS, dict(zip(Attribute, (*capability, 132), strict=True))
    return SimpleNamespace(
        CUresult=Result, CUDA_VERSION=built, CUdevice_attribute=Attribute, cuInit=lambda flags: (Result[status],),
        cuDriverGetVersion=lambda: (fine, version), cuDeviceGetCount=lambda: (fine, count),
        cuDeviceGetAttribute=lambda attribute, card: (fine, facts[attribute]),
        cuDeviceGetName=lambda size, card: (fine, b"Test Card\0\0"), cuDeviceTotalMem=lambda card: (fine, 2**37),
    )  # fmt: skip


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Any:
    """answering(driver) puts a driver in the real one's place."""
    monkeypatch.setattr(device, "_opened", None)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(device, "_need_packages", lambda: None)

    def place(fake: Any) -> None:
        package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
        bindings.driver = fake  # type: ignore[attr-defined]
        package.bindings = bindings  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cuda", package)
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)

    return place


@pytest.mark.parametrize(
    ("fake", "code", "remedy"),
    [
        (driver("CUDA_ERROR_NO_DEVICE"), "cuda-no-device", "nvidia-smi"),
        (driver(count=0), "cuda-no-device", "CUDA_VISIBLE_DEVICES"),
        (driver("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), "cuda-old-driver", "update the driver"),
        (driver("CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"), "cuda-old-driver", "update the driver"),
        (driver("CUDA_ERROR_UNKNOWN"), "cuda-driver", "nvidia-smi"),
        (driver(version=12040), "cuda-old-driver", "pip install 'netdsl[cuda12]'"),
        (driver(version=11080, built=12000), "cuda-old-driver", "update the driver"),
    ],
)
def test_each_reason_has_its_remedy(answering: Any, fake: Any, code: str, remedy: str) -> None:
    answering(fake)
    with pytest.raises(DeviceError) as caught:
        device.find()
    assert caught.value.code == code
    assert remedy in str(caught.value.hint)
    assert device.usable() is None


def test_a_library_that_is_not_there_is_no_driver(answering: Any) -> None:
    def missing(flags: int) -> None:
        raise RuntimeError("libcuda.so cannot be loaded\nmore")

    fake = driver()
    fake.cuInit = missing
    answering(fake)
    with pytest.raises(DeviceError, match=r"libcuda\.so cannot be loaded\)") as caught:
        device.find()
    assert caught.value.code == "cuda-no-driver"


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_opened", None)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError) as caught:
        device.find()
    assert caught.value.code == "cuda-packages"
    assert "pip install -U 'netdsl[cuda13]'" in str(caught.value.hint)


def test_a_fork_cannot_use_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_opened", (-1, device.Device("a card", (9, 0), 132, 2**37)))
    with pytest.raises(DeviceError, match="before a fork") as caught:
        device.find()
    assert "spawn" in str(caught.value.hint)


def test_an_old_card_is_refused(answering: Any) -> None:
    answering(driver(capability=(6, 1)))
    with pytest.raises(DeviceError, match=r"Test Card has compute capability 6\.1, and 7\.5 is needed"):
        device.find()


def test_a_card_is_found(answering: Any) -> None:
    answering(driver(version=13020))
    found = device.find()
    assert found == device.usable() == device.Device("Test Card", (9, 0), 132, 2**37)
    assert str(found) == "Test Card (compute capability 9.0, 128 GiB)"


def test_the_simulator_is_never_chosen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr(device, "_opened", None)
    assert device.usable() is None
    assert device.find().simulated


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  Sun Jul 27",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:27:29 UTC 2025",
    ],
)
def test_the_record_names_card_driver_and_packages(
    answering: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    answering(driver())
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.3.0\n")
    monkeypatch.setattr(device, "DRIVER_FACTS", tmp_path / "version")
    told = device.facts()
    assert (told["card"], told["compute_capability"], told["driver"]) == ("Test Card", "9.0", "580.65.06")
    assert told["versions"]["numba"]
    monkeypatch.setattr(device, "DRIVER_FACTS", tmp_path / "nowhere")
    assert device.facts()["driver"] is None
