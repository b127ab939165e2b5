"""Topics as a configuration writes them: filters, and templates whose levels name devices and channels.

plant/{device}/{channel} ──▶ per channel plant/{device}/current ──▶ the filter plant/+/current
                                         plant/pump-7/current ◀── a topic of the device pump-7

What stands for a channel is replaced when the configuration is read, what stands for a device by what comes.
"""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

__all__ = ["CHANNEL", "DEVICE", "TopicFilter", "TopicTemplate", "device_in", "filter_of", "matches"]

DEVICE: Final = "{device}"
CHANNEL: Final = "{channel}"
_LEVELS: Final = re.compile(r"(?:[^#+/]*|\+)(?:/(?:[^#+/]*|\+))*(?:/#)?|#")
_PLACE: Final = re.compile(r"\{[^{}/]*\}")


def _topic_filter(text: str) -> str:
    if not text or "\0" in text or not _LEVELS.fullmatch(text):
        raise ValueError(f"{text!r} is no topic filter: + stands for one whole level, # ends it")
    return text


def _topic_template(text: str) -> str:
    if text.startswith("$share/"):
        raise ValueError(f'{text!r}: leave out its first two levels, and say share = "…"')
    for place in _PLACE.findall(text):
        if place not in (DEVICE, CHANNEL):
            raise ValueError(f"{text!r}: {place} is no place; there are {DEVICE} and {CHANNEL}")
    levels = text.split("/")
    if DEVICE in text and (levels.count(DEVICE) != 1 or text.count(DEVICE) != 1):
        raise ValueError(f"{text!r}: {DEVICE} stands for one whole level, and stands there once")
    _topic_filter(filter_of(text))
    return text


TopicFilter = Annotated[str, AfterValidator(_topic_filter)]
"""What a broker is asked for."""

TopicTemplate = Annotated[str, AfterValidator(_topic_template)]
"""The same, in which {device} may stand for a level and {channel} for a channel's name."""


def filter_of(template: str, device: str = "+") -> str:
    """What to ask a broker for: the topics of one device, or of all."""
    return template.replace(DEVICE, device)


def device_in(template: str, topic: str) -> str:
    """The level of a topic that stands where the template has its device."""
    return topic.split("/")[template.split("/").index(DEVICE)]


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter with wildcards takes a topic (MQTT 5, 4.7)."""
    if topic.startswith("$") and not pattern.startswith("$"):
        return False
    wanted, found = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(found) or level not in ("+", found[place]):
            return False
    return len(wanted) == len(found)
