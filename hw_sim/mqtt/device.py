"""A device on the MQTT wire: measures and publishes at its beat, as its faults have it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from hw_sim.bench import Bench
from hw_sim.fault import Settings
from hw_sim.mqtt.payload import Sample, encoder
from hw_sim.mqtt.publisher import Publisher
from hw_sim.mqtt.section import DeviceSection
from hw_sim.mqtt.spoil import JUNK, MESSAGES, SAMPLES, padded
from hw_sim.wire import Due

__all__ = ["Device"]

_DIGITS: Final = 3
"""Of the unix time: milliseconds."""


class Device:
    """Takes samples of the bench and hands messages to a publisher."""

    def __init__(
        self, section: DeviceSection, bench: Bench, publisher: Publisher, counts: Counter[str]
    ) -> None:
        self.section = section
        self.publisher = publisher
        self._bench = bench
        self._counts = counts
        self._encode = encoder(section)
        self._fields = tuple(section.fields.items())
        self._alone = section.samples == 1
        self._samples: list[Sample] = []
        self._number = 0
        """Of the messages so far."""
        self._held: list[bytes] = []
        """Messages that come late."""
        self._held_since_s = 0.0
        self._huge: Due | None = None
        self._junk = False

    def step(self, now: float, fault: Callable[[str], Settings | None] | None) -> None:
        """Take a sample and publish, at the plant's unix time; `fault` says what is on."""
        readings = self._bench.readings
        values = {name: readings[channel] for name, channel in self._fields}
        sample = Sample(round(now, _DIGITS), values)
        if fault is None and self._alone:
            self._deliver(self._encode((sample,)))
            self._number += 1
        elif fault is None:
            self._samples.append(sample)
            if len(self._samples) >= self.section.samples:
                self._deliver(self._encode(self._samples))
                self._samples = []
                self._number += 1
        else:
            self._step_broken(sample, fault)

    def _step_broken(self, sample: Sample, fault: Callable[[str], Settings | None]) -> None:
        if (clock := fault("clock")) is not None and self.section.time:
            sample = sample._replace(at=round(sample.at + float(clock["by"]), _DIGITS))
        self._samples.append(sample)
        if len(self._samples) < self.section.samples:
            return
        samples, self._samples = self._samples, []
        if clock is not None and self.section.time:
            self._counts["clock"] += 1
        if (huge := fault("huge")) is not None:
            self._add_huge(samples, huge)
        message = self._spoilt(samples, fault)
        copies = 2 if self._hits("duplicate", fault("duplicate")) else 1
        self._number += 1
        for _ in range(copies):
            self._pass_on(message, fault("burst"), swapped=fault("out_of_order") is not None)

    def _spoilt(self, samples: Sequence[Sample], fault: Callable[[str], Settings | None]) -> bytes:
        payload = self.section.payload
        for name, spoil in SAMPLES.items():
            if self._hits(name, fault(name)):
                samples = [spoil(each, payload) for each in samples]
        message = self._encode(samples)
        for name, garble in MESSAGES.items():
            settings = fault(name)
            if settings is not None and self._hits(name, settings):
                message = garble(message, payload, settings)
        return message

    def _hits(self, name: str, settings: Settings | None) -> bool:
        """Whether a fault that is on, if it is, concerns the message that is made now; counts it."""
        if settings is None or self._number % int(settings["every"]):
            return False
        self._counts[name] += 1
        return True

    def _add_huge(self, samples: Sequence[Sample], settings: Settings) -> None:
        if self._huge is None:
            self._huge = Due(float(settings["every"]))
        if self._huge.passed(self._bench.at_s):
            self._counts["huge"] += 1
            self._deliver(padded(samples, self._encode, self.section.payload, float(settings["size"])))

    def _pass_on(self, message: bytes, burst: Settings | None, *, swapped: bool) -> None:
        """Send a message now, later, or after the next one."""
        if burst is not None:
            if not self._held:
                self._held_since_s = self._bench.at_s
            self._held.append(message)
            self._counts["burst"] += 1
            if self._bench.at_s - self._held_since_s >= float(burst["hold"]):
                self._release()
        elif swapped and not self._held:
            self._held.append(message)
        else:
            if swapped:
                self._counts["out_of_order"] += 1
            self._deliver(message)
            self._release()

    def calm(self) -> None:
        """A fault that holds messages back has come or gone: send what there is, and begin anew."""
        self._release()
        self._huge = None

    def cut(self) -> None:
        """The power is gone: forget what was not sent."""
        self._samples.clear()
        self._held.clear()

    def litter(self, *, on: bool) -> None:
        """Leave a retained message of junk on the topic, or clear it away."""
        self._junk = on
        if on:
            self._counts["retained_junk"] += 1
        self.publisher.send(self.section.topic, JUNK if on else b"", qos=1, retain=True)

    def _release(self) -> None:
        held, self._held = self._held, []
        for message in held:
            self._deliver(message)

    def _deliver(self, message: bytes) -> None:
        section = self.section
        retain = section.retain and not self._junk  # or the junk would be gone with the next message
        self.publisher.send(section.topic, message, qos=section.qos, retain=retain)
