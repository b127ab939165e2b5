"""What the benchmark beside other gateways counts, and what it says of those that are not there."""

import subprocess
import sys
import time

import pytest

from tests.bench.peers import _program
from tests.bench.peers_run import _cpu_s, _family, _stats

_BUSY = "import time; end = time.process_time() + 0.1\nwhile time.process_time() < end: pass"


def test_what_a_peers_children_cost_counts_while_they_live_and_after_they_have_ended():
    nested = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_BUSY!r}]); print('.', flush=True)"
    )
    with subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -c "{nested}"; sleep 60; true'], stdout=subprocess.PIPE
    ) as shell:
        try:
            assert shell.stdout is not None
            shell.stdout.readline()
            end = time.monotonic() + 60
            while len(_family(shell.pid, _stats())) != 2 and time.monotonic() < end:
                time.sleep(0.01)
            assert 0.1 <= _cpu_s(shell.pid) < 2
        finally:
            for pid in sorted(_family(shell.pid, _stats()), reverse=True):
                subprocess.run(["kill", str(pid)], check=False)


def test_a_peer_that_is_not_installed_is_skipped_and_told_how_it_would_be_found(
    capsys: pytest.CaptureFixture,
):
    assert _program("Node-RED", "--node-red", "/nowhere/node-red") is None
    assert "--node-red PATH" in capsys.readouterr().err


def test_a_peer_that_is_installed_is_found_by_its_path():
    assert str(_program("Python", "--python", sys.executable)) == sys.executable
