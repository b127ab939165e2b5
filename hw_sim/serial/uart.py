"""What a receiver makes of bytes that were sent at another baud rate than its own, with 8N1.

A byte is a start bit of 0, eight data bits from the lowest up, and a stop bit of 1. A receiver waits for an
edge from 1 to 0 and then looks at the middle of each bit as long as it thinks that bits are. A stop bit
of 0 is a framing error, which a terminal shows as a zero byte (termios(3), without IGNPAR and PARMRK).
"""

import math

__all__ = ["misread"]


def misread(data: bytes, ratio: float) -> bytes:
    """The bytes that a receiver sees whose rate is so many times the sender's; it is the same at 1."""
    line = "1" + "".join(f"0{f'{byte:08b}'[::-1]}1" for byte in data)
    got = bytearray()
    at = line.find("0")
    while at >= 0:
        bits = [_level(line, at + (bit + 0.5) / ratio) for bit in range(10)]
        end = at + 9.5 / ratio
        if bits[0] == "0":
            got.append(int("".join(bits[8:0:-1]), 2) if bits[9] == "1" else 0)
        else:
            end = at + 0.5 / ratio  # too short for a start bit
        at = _falling(line, end)
    return bytes(got)


def _level(line: str, at: float) -> str:
    """The level at a time in the sender's bits; the line idles at 1."""
    return line[int(at)] if at < len(line) else "1"


def _falling(line: str, after: float) -> int:
    """When the level falls next, or -1."""
    high = line.find("1", math.floor(after))
    return line.find("0", high) if high >= 0 else -1
