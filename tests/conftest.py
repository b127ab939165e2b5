"""Nothing outlives a test: no task, thread, socket or file."""

import asyncio
import functools
import inspect
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _leaving_no_task(item.obj)


def _leaving_no_task(test):
    @functools.wraps(test)
    async def checked(*args, **kwargs):
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        for _ in range(3):  # what was cancelled or closed may need a turn of the loop to be gone
            await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        assert not left, f"tasks outlive the test: {left}"

    return checked


def _open_descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue  # the descriptor of the listing itself
    return {number: target for number, target in found.items() if target.startswith(("socket:", "/dev/pt"))}


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), _open_descriptors()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=2.0)
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert not left, f"threads outlive the test: {left}"
    opened = {number: target for number, target in _open_descriptors().items() if number not in descriptors}
    assert not opened, f"descriptors outlive the test: {opened}"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
