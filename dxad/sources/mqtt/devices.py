"""Devices that topics name: each has a group of columns, and keeps it.

plant/{device}/values ◀── plant/pump-7/values ── Places ──▶ device2 ──▶ its columns
                                                   │
                                   state_dir/sources/NAME.state

A place that was taken stays so, over restarts too: what is learned of a channel is learned of one device.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from dxad import statefile
from dxad.sources import Intake
from dxad.sources.mqtt.section import LEVEL_MAX, Subscription
from dxad.sources.mqtt.topic import device_in, filter_of, matches

__all__ = ["Fleet", "Places"]

log = logging.getLogger(__name__)

_REFUSED_MOST: Final = 50
"""Devices without a place that are told by name."""
"""Topics whose way is remembered."""


class Places:
    """Which device has which place: known from the configuration, or taken at first sight."""

    def __init__(self, groups: Mapping[str, str | None], path: Path | None) -> None:
        """Give places to devices.

        Args:
            groups: by the name of each place, in their order, its device; None is whoever comes.
            path: where it is kept who came; None keeps it in memory alone.
        """
        self._names = list(groups)
        self._named = {device: place for place, device in enumerate(groups.values()) if device is not None}
        self._free = [place for place, device in enumerate(groups.values()) if device is None]
        self._place: dict[str, int] = {}
        self._shown = [""] * len(self._names)
        for device, place in self._named.items():
            self._take(device, place)
        self._path = path
        self._loaded = path is None or not self._free
        self.unsaved = False
        """Whether a device has come since the last `save`."""
        self.refused: dict[str, int] = {}
        """Messages of devices that found no place, by what is told of them."""

    @property
    def count(self) -> int:
        """How many places there are."""
        return len(self._names)

    @property
    def devices(self) -> Sequence[str]:
        """Of each place the device, with the name of the place where that is another; empty if it is free."""
        return self._shown

    def known(self, device: str) -> int | None:
        """Its place, if it has one."""
        return self._place.get(device)

    def of(self, device: str) -> int | None:
        """Its place; None where all are taken, or where it has no name that one could tell."""
        place = self._place.get(device)
        if place is None and self._free and 0 < len(device) <= LEVEL_MAX and device.isprintable():
            place = self._free.pop(0)
            self._take(device, place)
            self.unsaved = True
            log.info("the device %r takes the place %s", device, self._names[place])
        if place is None:
            self._refuse(f"no place for {device[:LEVEL_MAX]!r}")
        return place

    def _take(self, device: str, place: int) -> None:
        name = self._names[place]
        self._place[device] = place
        self._shown[place] = name if name == device else f"{name} ({device})"

    def _refuse(self, told: str) -> None:
        if told not in self.refused and len(self.refused) >= _REFUSED_MOST:
            told = "no place for others"
        self.refused[told] = self.refused.get(told, 0) + 1

    def load(self) -> None:
        """Let those who came before the start have their places again; blocking.

        Raises:
            StateError: the file is damaged, and was set aside.
        """
        if self._loaded or self._path is None:
            return
        self._loaded = True
        try:
            document = statefile.read(self._path) or {}
        except statefile.StateError:
            statefile.set_aside(self._path)
            raise
        kept = document.get("devices")
        for name, device in kept.items() if isinstance(kept, dict) else ():
            place = self._names.index(name) if name in self._names else -1
            if place in self._free and isinstance(device, str) and device not in self._place:
                self._free.remove(place)
                self._take(device, place)

    def save(self) -> None:
        """Keep who has which place; blocking.

        Raises:
            OSError: the disk does not take it.
        """
        self.unsaved = False
        if self._path is not None:
            came = {
                self._names[at]: device for device, at in self._place.items() if device not in self._named
            }
            statefile.write(self._path, statefile.encode({"devices": came}))


class Fleet:
    """Takes messages to the columns of their devices."""

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        places: Places,
        intake: Callable[[Subscription, int], Intake],
        reject: Callable[[str], None],
    ) -> None:
        """Take in the messages of `subscriptions`, whose topics have a {device}.

        Args:
            subscriptions: what the messages are made of.
            places: of the devices.
            intake: makes what decodes those of the device at a place.
            reject: is told of messages that have no place.
        """
        self.places = places
        self._subscriptions = subscriptions
        self._intake = intake
        self._reject = reject
        self._intakes: dict[tuple[str, int], Intake] = {}
        """By template and place."""

    def taking(self, topic: str) -> Sequence[Intake]:
        """What takes in a message of this topic; a device that comes for the first time gets its place."""
        found: list[Intake] = []
        for each in self._subscriptions:
            if not matches(filter_of(each.topic), topic):
                continue
            device = device_in(each.topic, topic)
            place = self.places.of(device)
            if place is None:
                most = self.places.count
                self._reject(f"no place for the device {device[:LEVEL_MAX]!r}: it would be more than {most}")
                continue
            key = each.topic, place
            if key not in self._intakes:
                self._intakes[key] = self._intake(each, place)
            found.append(self._intakes[key])
        return found

    async def load(self) -> None:
        """Read who came before the start."""
        try:
            await asyncio.to_thread(self.places.load)
        except (statefile.StateError, OSError) as error:
            self._reject(f"which device has which place is not known any more: its file {error}")

    async def save(self) -> None:
        """Keep who came."""
        try:
            await asyncio.to_thread(self.places.save)
        except OSError as error:
            self._reject(f"which device has which place cannot be kept: {error.strerror}")
