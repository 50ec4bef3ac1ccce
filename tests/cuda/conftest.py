"""What the tests of the CUDA lowering share: a simulator without a GPU, and the reason to skip what needs one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from simulated import Simulator, simulator

from netdsl.backends.cuda import device
from netdsl.errors import DeviceError


@pytest.fixture(scope="session")
def simulate() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanting = [item for item in items if "cuda" in item.keywords and item.get_closest_marker("cuda")]
    if not wanting:
        return
    try:
        device.find()
    except DeviceError as error:
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason=error.message))
