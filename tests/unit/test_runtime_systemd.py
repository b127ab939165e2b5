"""The service manager is told what it asked to be told, over a real socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dxad.runtime import systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch) -> Iterator[socket.socket]:
    """What systemd listens on."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@dxad-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        sock.settimeout(60.0)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (lambda: systemd.ready("3 sources"), "READY=1\nSTATUS=3 sources"),
        (systemd.stopping, "STOPPING=1"),
        (systemd.watchdog, "WATCHDOG=1"),
        (lambda: systemd.notify("STATUS=é"), "STATUS=é"),
    ],
)
def test_each_message_is_one_datagram(manager, tell, expected):
    assert tell() is True
    assert manager.recv(4096).decode() == expected


def test_a_reload_is_told_with_the_monotonic_time_in_microseconds(manager):
    before = time.monotonic_ns() // 1000
    assert systemd.reloading() is True
    state, moment = manager.recv(4096).decode().splitlines()
    assert state == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("address", [None, "", "relative/path", "unix:/run/x"])
def test_whoever_did_not_ask_is_not_told(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.ready("x") is False


def test_a_manager_that_is_gone_is_no_error(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert systemd.watchdog() is False


def test_a_manager_that_does_not_read_does_not_hold_us_up(manager):
    assert systemd.watchdog()
    for _ in range(10_000):
        if not systemd.watchdog():
            return  # its queue is full
    pytest.fail("a queue without an end")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_when_it_is_meant_for_us(monkeypatch, environment, seconds):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_s() == seconds
