"""The serial wire, from the outside in.

section.py                         what a scenario may say of it
faults.py, breakage.py, uart.py    how it breaks: the rows, and what they make of a frame
wire.py                            the wire itself: devices, requests, plugging in and out
payload.py, checksum.py, framing.py    from readings to the bytes of a frame
outgoing.py, tty.py                from frames to what a reader gets of them
"""
