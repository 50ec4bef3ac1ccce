"""A libcuda made of Python under NVIDIA's own bindings, so that calls cross them as they do on a machine with a card.

Kernels are compiled and linked as for a card; when the machine code is loaded, its PTX is run in its place. Without a
card:

    PYTHONPATH=tests/cuda:bench python -m libcuda run lenet5 --device cuda
    PYTHONPATH=tests/cuda:bench python -m pytest -p libcuda -m cuda tests/cuda/test_cuda_first.py
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from emulated import LACK
from virtual_driver import FINE, WRONG, Emulated, VirtualDriver

from netdsl import helpers
from netdsl.backends.cuda import jit
from ptx.text import parse

LACKING = LACK or (None if shutil.which("cc") else "no C compiler (cc)")
BYTES = 1 << 31  # of the card; the system gives what is touched
NAME = b"a card made of Python"
CAPABILITY, MULTIPROCESSORS, VERSION = (9, 0), 132, 13000
ATTRIBUTES = {75: CAPABILITY[0], 76: CAPABILITY[1], 16: MULTIPROCESSORS}  # CUdevice_attribute: what it is on this card
BROKEN = 999  # CUDA_ERROR_UNKNOWN
COMPARE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_size_t)(("memcmp", ctypes.CDLL(None)))

IN, TEXT, BITS, INT, OUT, OUT_INT, OUT_FLOAT = (
    c_uint64, c_char_p, c_uint, c_int, POINTER(c_uint64), POINTER(c_int), POINTER(c_float)
)  # fmt: skip
OUTS = (OUT, OUT_INT, OUT_FLOAT)
PARAMETERS: dict[str, tuple[Any, ...]] = {  # of the driver's functions (cuda.h)
    "cuInit": (BITS,),
    "cuDriverGetVersion": (OUT_INT,),
    "cuDeviceGetCount": (OUT_INT,),
    "cuDeviceGetAttribute": (OUT_INT, INT, INT),
    "cuDeviceGetName": (IN, INT, INT),
    "cuDeviceTotalMem": (OUT, INT),
    "cuDevicePrimaryCtxRetain": (OUT, INT),
    "cuCtxSetCurrent": (IN,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo": (OUT, OUT),
    "cuMemAlloc": (OUT, IN),
    "cuMemFree": (IN,),
    "cuMemHostAlloc": (OUT, IN, BITS),
    "cuMemFreeHost": (IN,),
    "cuMemcpyHtoD": (IN, IN, IN),
    "cuMemcpyHtoDAsync": (IN, IN, IN, IN),
    "cuMemcpyDtoHAsync": (IN, IN, IN, IN),
    "cuEventCreate": (OUT, BITS),
    "cuEventRecord": (IN, IN),
    "cuEventSynchronize": (IN,),
    "cuEventElapsedTime": (OUT_FLOAT, IN, IN),
    "cuEventDestroy": (IN,),
    "cuStreamCreate": (OUT, BITS),
    "cuStreamWaitEvent": (IN, IN, BITS),
    "cuStreamSynchronize": (IN,),
    "cuStreamDestroy": (IN,),
    "cuStreamBeginCapture": (IN, INT),
    "cuStreamEndCapture": (IN, OUT),
    "cuGraphInstantiateWithFlags": (OUT, IN, IN),
    "cuGraphLaunch": (IN, IN),
    "cuGraphExecDestroy": (IN,),
    "cuGraphDestroy": (IN,),
    "cuModuleLoadData": (OUT, IN),
    "cuModuleGetFunction": (OUT, IN, TEXT),
    "cuFuncGetAttribute": (OUT_INT, INT, IN),
    "cuLaunchKernel": (IN, *[BITS] * 7, IN, IN, IN),
}


class LibCuda(VirtualDriver):
    """The driver's functions by the names that its library has. failing: the status that a function is to give."""

    def __init__(self) -> None:
        super().__init__(BYTES, watch=False)
        self.texts: dict[bytes, str] = {}  # PTX by machine code
        self.functions: dict[int, Emulated] = {}
        self.failing: dict[str, int] = {}
        self.turn = threading.Lock()  # for calls of several threads
        self.version = VERSION

    def cuDriverGetVersion(self) -> tuple[Any, ...]:
        return FINE, self.version

    def cuDeviceGetCount(self) -> tuple[Any, ...]:
        return FINE, 1

    def cuDeviceGetAttribute(self, attribute: int, card: int) -> tuple[Any, ...]:
        return FINE, ATTRIBUTES[attribute]

    def cuDeviceGetName(self, to: int, count: int, card: int) -> tuple[Any, ...]:
        ctypes.memmove(to, NAME + b"\0", min(count, len(NAME) + 1))
        return (FINE,)

    def cuDeviceTotalMem(self, card: int) -> tuple[Any, ...]:
        return FINE, BYTES

    def cuModuleLoadData(self, image: int) -> tuple[Any, ...]:
        for code, text in self.texts.items():
            if COMPARE(image, code, len(code)) == 0:  # reads no further than to a difference
                number = self._number()
                self.modules[number] = text
                return FINE, number
        return WRONG, None

    def cuModuleGetFunction(self, module: int, symbol: bytes) -> tuple[Any, ...]:
        text, number = self.modules[module], self._number()
        if re.findall(r"\.entry\s+(\w+)", text) != [symbol.decode()]:
            return WRONG, None
        self.functions[number] = Emulated(symbol.decode(), parse(text), self.machine)
        return FINE, number

    def cuFuncGetAttribute(self, attribute: int, function: int) -> tuple[Any, ...]:
        return super().cuFuncGetAttribute(attribute, self.functions[function])

    def cuLaunchKernel(self, function: int, *rest: Any) -> tuple[Any, ...]:
        return super().cuLaunchKernel(self.functions[function], *rest)

    def cuGraphInstantiateWithFlags(self, graph: int, flags: int) -> tuple[Any, ...]:
        return super().cuGraphInstantiate(graph, flags)


def _entry(driver: LibCuda, name: str) -> Any:
    """A function of the library: it calls the driver's of that name, and puts the results where it was told to."""
    parameters = PARAMETERS[name]

    def entry(*given: Any) -> int:
        if name in driver.failing:
            return driver.failing[name]
        try:
            values = [a or 0 for a, kind in zip(given, parameters, strict=True) if kind not in OUTS]
            places = [a for a, kind in zip(given, parameters, strict=True) if kind in OUTS]
            with driver.turn:
                status, *results = getattr(driver, name)(*values)
            for place, result in zip(places, results, strict=status == FINE and bool(places)):
                place[0] = result or 0
            return int(status)
        except Exception:
            traceback.print_exc()
            return BROKEN

    return CFUNCTYPE(c_int, *parameters)(entry)


def install() -> LibCuda:
    """Build the library, load it in this process before NVIDIA's packages look for theirs, and return its driver."""
    np.seterr(all="ignore")
    driver = LibCuda()
    source, name = Path(__file__).with_suffix(".c"), "libcuda.so.1"
    with tempfile.TemporaryDirectory() as folder:
        built = str(Path(folder, name))
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{name}", "-o", built, str(source)], check=True
        )
        library = ctypes.CDLL(built, ctypes.RTLD_GLOBAL)
    entries = {name: _entry(driver, name) for name in PARAMETERS}

    def absent() -> int:
        return BROKEN

    def answer(name: bytes, function: Any, version: int, flags: int, status: Any) -> int:
        function[0] = ctypes.cast(entries.get(name.decode(), missing), c_void_p).value
        return 0

    missing = CFUNCTYPE(c_int)(absent)
    asked = CFUNCTYPE(c_int, c_char_p, POINTER(c_void_p), c_int, c_uint64, POINTER(c_int))(answer)
    library.answers(asked)
    driver.kept = library, entries, missing, asked  # type: ignore[attr-defined]
    linked = jit.linked

    def remembered(ptx: str, capability: jit.Capability) -> bytes:
        code = linked(ptx, capability)
        driver.texts[code] = ptx
        return code

    jit.linked, jit._read = remembered, lambda path: None  # code that was kept, or made by a helper, has no PTX
    helpers.MANY = sys.maxsize
    return driver


def shorten() -> None:
    """What a card does in a millisecond to tell how fast it is takes hours here: do little of it."""
    from netdsl.backends.cuda import profile

    few = {"WARM_UP": 0, "REPEATS": 1, "COPIED_FLOATS": 1 << 12, "CHAIN_STEPS": 8, "RUNS": 1, "WAVES": 1}
    for name, value in few.items():
        setattr(profile, name, value)


def pytest_configure() -> None:
    install()
    shorten()


if __name__ == "__main__":
    from netdsl.cli import app

    install()
    shorten()
    sys.exit(app.run(sys.argv[1:]))
