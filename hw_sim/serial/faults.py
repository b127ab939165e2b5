"""How the serial wire breaks: rows of the catalogue."""

from typing import Final

from hw_sim.fault import Kind, Parameter

__all__ = ["FAULTS"]

_WIRE: Final = Parameter("the wire; if empty, all of this kind", "", "wire")
_DEVICE: Final = Parameter("only this device's frames; if empty, all on the wire", "", "device")
_EVERY: Final = Parameter("how many frames from one to the next; 1 is each", "1", "count", low=1)


def _share(default: str) -> Parameter:
    return Parameter("how likely it is for each byte", default, high=1.0)


def _row(name: str, does: str, *, device: bool = True, **parameters: Parameter) -> Kind:
    of = {"wire": _WIRE, "device": _DEVICE} if device else {"wire": _WIRE}
    return Kind(name=f"serial.{name}", does=does, where="wire", parameters=of | parameters)


FAULTS: Final[tuple[Kind, ...]] = (
    _row(
        "unplug",
        "the terminal goes away and its readers see a hang-up; off, it is back as a terminal of another name",
        device=False,
        link=Parameter(
            "the name of the link then: the same, as in /dev/serial/by-id, or another, as /tmp/name-1 for "
            "/tmp/name",
            "same",
            "choice",
            ("same", "another"),
        ),
    ),
    _row("stall", "silence, although it is plugged in; questions are not answered either"),
    _row("half_frames", "frames break off at a random place, and the next follows at once", every=_EVERY),
    _row("merged", "frames run into each other: what separates them is missing", every=_EVERY),
    _row("checksum", "a wrong checksum, on frames that have one", every=_EVERY),
    _row("dropped", "single bytes get lost", share=_share("0.02")),
    _row("bit_errors", "single bits are flipped", share=_share("0.02")),
    _row("noise", "random bytes instead of the frames, as many as they had"),
    _row(
        "wrong_baud",
        "what a receiver of another baud rate sees of the frames; framing errors show as zero bytes",
        ratio=Parameter("its rate, as a multiple of the sender's", "0.5", low=0.05, high=20.0),
    ),
    _row(
        "chatter",
        "lines of the firmware's own log between the frames",
        every=_EVERY,
    ),
    _row(
        "overlong",
        "frames with far too many bytes in them",
        every=_EVERY,
        size=Parameter("the bytes too many, all of them the letter x", "4000", "count", low=1, high=65536),
    ),
    _row(
        "repeated",
        "frames come twice",
        every=_EVERY,
    ),
    _row(
        "bursts",
        "frames are held back, as by a busy USB hub, and then come all at once",
        device=False,
        every=Parameter("from one burst to the next, in the plant's time", "1s", "time", low=0.001),
    ),
    _row(
        "flood",
        "frames come many times over, up to 64 KiB a step: more than the line takes, which tears them",
        times=Parameter("how often each comes", "100", "count", low=2, high=10_000),
    ),
)
