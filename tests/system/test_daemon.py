"""The daemon as its users run it: a process, a socket, signals, and a sink that is not always there."""

import json
import re
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.pace import Watch
from tests.patience import PATIENCE_S
from tests.system.process import Sensor, curl, ended, needs_curl, pump, running, status, until


class Receiver(ThreadingHTTPServer):
    """Takes batches of events and acknowledges them."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.events: list[dict] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.events += body if isinstance(body, list) else [body]
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_args):
                pass

        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


@needs_curl
def test_the_socket_answers_status_metrics_and_the_query_of_the_specification(config, sensor):
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        found = status(config)
        assert found["sources"]["motor"]["connected"]
        assert found["state"] == "running"
        metrics = curl(config, "/metrics")
        assert re.search(r'^dxad_samples_received_total\{source="motor"\} [1-9]', metrics, re.MULTILINE)
        assert re.search(r'^dxad_source_up\{source="motor"\} 1$', metrics, re.MULTILINE)
        assert re.search(r'^dxad_sink_up\{sink="\w+"\} [01]$', metrics, re.MULTILINE)
        request = {"execute": True, "config": {"window_size": 100, "threshold": 0.95}}
        answer = json.loads(curl(config, "/v1/pipelines/pump/query", request))
        assert answer["success"], answer
        assert 0 <= answer["content"]["result"]["anomaly_score"] <= 1
        assert isinstance(answer["content"]["result"]["is_anomaly"], bool)


@needs_curl
def test_every_incident_that_was_stored_arrives_after_a_kill_and_a_sink_that_was_down(
    config, sensor, free_port
):
    log = config.with_name("dxad.log")

    def stored() -> list[str]:
        return re.findall(r"incident\.\w+ \w+: stored as event (\w+)", log.read_text())

    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        for _ in range(3):
            before = len(stored())
            sensor.shift = 50.0
            until(lambda before=before: len(stored()) > before, "an incident opened", daemon)
            sensor.shift = 0.0
            until(lambda before=before: len(stored()) > before + 1, "it closed", daemon)
        sensor.shift = 50.0
        before = len(stored())
        until(lambda: len(stored()) > before, "another", daemon)
        assert status(config)["sinks"]["reasoning"]["pending"] >= len(stored())
        daemon.kill()
        daemon.wait()
    promised = stored()
    assert len(promised) >= 7
    sensor.shift = 0.0
    receiver = Receiver(free_port)
    try:
        with running(config) as daemon:
            until(lambda: set(promised) <= {event["id"] for event in receiver.events}, "delivered", daemon)
            until(lambda: status(config)["sinks"]["reasoning"]["pending"] == 0, "acknowledged", daemon)
    finally:
        receiver.close()
    told = [event["id"] for event in receiver.events if event["type"].startswith("dxad.incident")]
    assert told[: len(promised)] == promised  # in order


def test_sigterm_under_load_ends_well_within_five_seconds(config, sensor):
    with running(config) as daemon, Watch() as machine:
        begun = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=PATIENCE_S) == 0
        assert time.monotonic() - begun - machine.stood_s < 5
    assert not config.with_name("c.sock").exists()
    assert "Traceback" not in config.with_name("dxad.log").read_text()


def test_a_second_daemon_on_the_same_socket_is_refused_before_it_touches_anything(config, sensor):
    with running(config) as daemon:
        second = ended(config)
        assert second.returncode == 2
        assert "c.sock" in second.stderr
        assert "source" not in second.stderr
        assert daemon.poll() is None


def _told(config: Path, name: str) -> list[dict]:
    """Of the plant, not of the gateway itself."""
    path = config.parent / "state" / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["type"].startswith("dxad.incident")]


def _interrupted(config: Path, name: str) -> list[tuple[dict, dict]]:
    """Events that close what was open at a stop, each with the event that had opened something last."""
    found, opened = [], {}
    for event in _told(config, name):
        if event["type"] == "dxad.incident.opened":
            opened = event
        elif event["data"].get("interrupted"):
            found.append((opened, event))
    return found


@needs_curl
def test_an_incident_that_is_open_at_a_stop_is_closed_and_a_sink_that_is_gone_is_forgotten(config, sensor):
    config.write_text(config.read_text() + '[sinks.log]\ntype = "file"\npath = "first.jsonl"\n')
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        sensor.shift = 50.0
        until(lambda: pump(config)["incidents"], "an incident", daemon)
        until(lambda: _told(config, "first.jsonl"), "the first event", daemon)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=PATIENCE_S) == 0
    sensor.shift = 0.0
    with running(config) as daemon:
        until(lambda: _interrupted(config, "first.jsonl"), "closed", daemon)
        ((opened, closed),) = _interrupted(config, "first.jsonl")
        assert closed["subject"] == opened["subject"]
        assert set(status(config)["outbox"]["sinks"]) == {"reasoning", "log"}
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(timeout=PATIENCE_S)
    config.write_text(re.sub(r"\[sinks.reasoning\](.*\n){3}", "", config.read_text()))
    with running(config) as daemon:
        until(lambda: set(status(config)["outbox"]["sinks"]) == {"log"}, "the sink forgotten", daemon)
        assert "sink reasoning is no longer configured" in config.with_name("dxad.log").read_text()


def test_a_second_daemon_on_the_same_state_is_refused(config, sensor, folder):
    other = folder / "other.toml"
    other.write_text(config.read_text().replace("c.sock", "d.sock"))
    with running(config):
        second = ended(other)
    assert second.returncode == 2
    assert "another dxad works there" in second.stderr


def test_systemd_is_told_ready_alive_and_stopping(config, sensor, folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "n"))
        notified.settimeout(PATIENCE_S)
        with running(config, NOTIFY_SOCKET=str(folder / "n"), WATCHDOG_USEC="600000") as daemon:
            told = [notified.recv(4096).decode() for _ in range(3)]
            assert any(line.startswith("READY=1") for line in told)
            assert "WATCHDOG=1" in told
            daemon.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in told:
                told.append(notified.recv(4096).decode())
            assert daemon.wait(timeout=PATIENCE_S) == 0


def test_a_config_with_mistakes_starts_nothing_and_names_each(folder):
    path = folder / "dxad.toml"
    path.write_text('gatway.id = "x"\n[sources.a]\ntype = "mqt"\n')
    done = ended(path)
    assert done.returncode == 2
    assert f"{path}:1: gatway: unknown key, did you mean 'gateway'?" in done.stderr
    assert f"{path}:3: sources.a.type: no source of type 'mqt', did you mean 'mqtt'?" in done.stderr


@needs_curl
def test_a_broker_that_goes_and_comes_back_is_met_again(folder, free_port, config, tmp_path_factory):
    from hw_sim.mqtt.broker import Broker
    from hw_sim.ports import free_port as another_port

    port = another_port()
    config.write_text(re.sub(r"mqtt://127.0.0.1:\d+", f"mqtt://127.0.0.1:{port}", config.read_text()))
    with running(config) as daemon:
        until(lambda: status(config)["conditions"], "the condition source.down", daemon)
        for _ in range(2):
            with Broker(mqtt5_port=port, mqtt311_port=another_port()):
                until(lambda: _listens(port), "the broker", daemon)
                sensor = Sensor(port)
                try:
                    until(lambda: status(config)["sources"]["motor"]["connected"], "connected", daemon)
                    until(lambda: not _down(config), "the condition cleared", daemon)
                finally:
                    sensor.close()
            until(lambda: _down(config), "the condition source.down", daemon)
        broke = re.findall(r"source.down motor: (?!over)", config.with_name("dxad.log").read_text())
        assert len(broke) == 3  # once at the start and once for each loss, however often it tried


def _down(config: Path) -> bool:
    return any(each["code"] == "source.down" for each in status(config)["conditions"])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
