"""Every case in a process of its own: what is deferred is so for all of it."""

import subprocess
import sys
from textwrap import dedent

import pytest

from dxad.runtime.deferral import DEFERRED, defer
from tests.patience import PATIENCE_S

ALL_SOURCES = """
state_dir = "state"

[sources.mqtt]
type = "mqtt"
url = "mqtt://localhost"
period = "1s"
channels = { level = { topic = "tank/level" } }

[sources.plc]
type = "modbus"
url = "tcp://localhost"
period = "1s"
channels = { flow = { register = "input:0", encoding = "uint16" } }

[sources.machine]
type = "opcua"
url = "opc.tcp://localhost:4840"
period = "1s"
namespace = "urn:machine"
channels = { power = { node = "s=Power" } }

[sources.line]
type = "serial"
port = "/dev/ttyS0"
period = "1s"
decode = { kind = "csv", columns = ["a"] }
"""


def said(code, folder, *, path=""):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path[:0] = [{path!r}]\n" + dedent(code)],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def deferred(code, folder):
    return said("from dxad.runtime.deferral import defer\ndefer()\n" + dedent(code), folder)


def test_the_daemon_with_all_protocols_runs_none_of_the_code_that_it_does_not_need(tmp_path):
    (tmp_path / "dxad.toml").write_text(ALL_SOURCES)
    (found,) = deferred(
        """
        import pathlib, dxad.daemon, dxad.config, dxad.control.http
        dxad.config.load(pathlib.Path("dxad.toml"))
        from dxad.runtime.deferral import DEFERRED, Deferred
        run = [name for name in DEFERRED if type(sys.modules.get(name, Deferred(name))) is not Deferred]
        never = ["aiohttp.client", "aiohttp.web", "asyncua.server", "asyncua.pubsub", "numpy.random.mtrand"]
        print(run + [name for name in never if name in sys.modules])
        """,
        tmp_path,
    )
    assert found == "[]"


NUMPY = """
import numpy.fft
print(numpy.random.default_rng(0).integers(9), numpy.fft.rfft([1.0, 0.0]))
print(numpy.arange(3).ctypes.shape[0], numpy.ctypeslib.as_ctypes_type(numpy.int32))
from numpy import ma
print(ma.masked, ma.array([1], mask=[1]).sum() is ma.masked)
from numpy.polynomial import Polynomial
print(Polynomial([1, 2])(3))
"""
AIOHTTP = """
import aiohttp.web_protocol
print(aiohttp.__version__, aiohttp.ClientSession, aiohttp.ClientSSLError)
from aiohttp import web
print(web.Application, web.Server, aiohttp.web is web, sorted(aiohttp.__all__))
"""
ASYNCUA = """
import asyncua
print(asyncua.Node, asyncua.ua.NodeId(85), asyncua.Client, asyncua.Server)
import asyncua.server.server
print(asyncua.server.server.Server is asyncua.Server)
from asyncua.crypto import cert_gen
print(cert_gen.generate_private_key().key_size)
"""


@pytest.mark.parametrize("code", [NUMPY, AIOHTTP, ASYNCUA], ids=["numpy", "aiohttp", "asyncua"])
def test_what_is_asked_for_is_there_all_the_same(code, tmp_path, capsys):
    exec(code, {})
    assert deferred(code, tmp_path) == capsys.readouterr().out.splitlines()


def test_what_is_not_there_is_not_there(tmp_path):
    lines = deferred(
        """
        import aiohttp, numpy
        for module in aiohttp, numpy.random:
            print(hasattr(module, "no_such_thing"), hasattr(module, "__no_such_thing__"))
        """,
        tmp_path,
    )
    assert lines == ["False False", "False False"]


def test_two_threads_that_ask_at_once_both_get_it(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.2)\nanswer = 42\n")
    lines = said(
        """
        from threading import Thread
        from dxad.runtime.deferral import Deferral, defer
        defer({"slow": Deferral()})
        import slow
        found = []
        threads = [Thread(target=lambda: found.append(slow.answer)) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        print(found)
        """,
        tmp_path,
        path=str(tmp_path),
    )
    assert lines == ["[42, 42, 42]"]


def test_code_that_fails_is_told_and_tried_anew(tmp_path):
    (tmp_path / "broken.py").write_text("import pathlib\nanswer = int(pathlib.Path('number').read_text())\n")
    lines = said(
        """
        import pathlib
        from dxad.runtime.deferral import Deferral, defer
        defer({"broken": Deferral()})
        import broken
        try:
            broken.answer
        except FileNotFoundError:
            print("told")
        pathlib.Path("number").write_text("42")
        print(broken.answer)
        """,
        tmp_path,
        path=str(tmp_path),
    )
    assert lines == ["told", "42"]


def test_in_a_program_of_others_nothing_is_deferred():
    before = list(sys.meta_path)
    assert "numpy" in sys.modules
    defer()
    assert sys.meta_path == before
    assert DEFERRED.keys() >= {"numpy.random", "aiohttp", "asyncua"}
