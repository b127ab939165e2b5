"""How the Modbus wire breaks: rows of the catalogue. What each does to an answer stands in breaking.py."""

from typing import Final

from hw_sim.fault import Kind, Parameter

__all__ = ["FAULTS"]

_WIRE: Final = Parameter("the wire; default: all of this kind", "", "wire")
_DEVICE: Final = Parameter("the slave; default: all", "", "device")
_EVERY: Final = Parameter("only each so many-th answer", "1", "count", low=1.0)

_ANSWERS: Final = {"wire": _WIRE, "device": _DEVICE, "every": _EVERY}

FAULTS: Final = (
    Kind(
        name="modbus.silence",
        does="requests are heard and not answered",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.dead_slave",
        does="a slave hears nothing, others on the bus answer: silence; over TCP its gateway's exception 11",
        where="wire",
        parameters={"wire": _WIRE, "device": _DEVICE},
    ),
    Kind(
        name="modbus.disconnect",
        does="each request closes its connection; a terminal hangs up and is there anew under its name",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.refuse",
        does="nothing listens and all connections are gone; a terminal has gone with its link",
        where="wire",
        parameters={"wire": _WIRE},
    ),
    Kind(
        name="modbus.exception",
        does="requests are answered with an exception",
        where="wire",
        parameters={
            **_ANSWERS,
            "code": Parameter(
                "of the exception: 1 illegal function, 2 address, 3 value, 4 failure, 5 acknowledge, 6 busy, "
                "7 refused, 8 parity, 9 (not defined), 10 no gateway path, 11 no answer to the gateway",
                "4",
                "choice",
                tuple(map(str, range(1, 12))),
            ),
        },
    ),
    Kind(
        name="modbus.illegal_address",
        does="an address has gone: a block that covers it is exception 2, all others are as before",
        where="wire",
        parameters={
            **_ANSWERS,
            "address": Parameter(
                "from 0; default: the first of the slave's first register",
                "-1",
                "count",
                low=-1.0,
                high=65_535.0,
            ),
            "table": Parameter(
                "where it has gone", "any", "choice", ("any", "coil", "discrete", "input", "holding")
            ),
        },
    ),
    Kind(
        name="modbus.frozen",
        does="registers keep what they showed at the onset, as of a gateway that has lost its slave",
        where="wire",
        parameters={"wire": _WIRE, "device": _DEVICE},
    ),
    Kind(
        name="modbus.wrong_id",
        does="answers carry the next slave's id",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.wrong_function",
        does="answers carry the function of the other table of their kind: 3 for 4, 1 for 2, and back",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.wrong_length",
        does="answers with values are not as long as they say, or as was asked",
        where="wire",
        parameters={
            **_ANSWERS,
            "what": Parameter(
                "count: the byte count is 2 too high; header: the length in TCP framing's header is (RTU and "
                "ASCII: as count); data: one register or 8 bits fewer than asked, and counted so",
                "count",
                "choice",
                ("count", "header", "data"),
            ),
        },
    ),
    Kind(
        name="modbus.wrong_transaction",
        does="answers carry the transaction before theirs; only of TCP framing, others have none",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.crc",
        does="answers have a wrong checksum: CRC in RTU, LRC in ASCII; TCP framing has none and stays well",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.half_frame",
        does="answers break off in their middle",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.duplicate",
        does="answers come twice",
        where="wire",
        parameters=_ANSWERS,
    ),
    Kind(
        name="modbus.garbage",
        does="random bytes before or behind answers",
        where="wire",
        parameters={
            **_ANSWERS,
            "bytes": Parameter("how many each time", "8", "count", low=1.0, high=1024.0),
            "where": Parameter("in front of answers or behind them", "before", "choice", ("before", "after")),
        },
    ),
    Kind(
        name="modbus.noise",
        does="random bytes now and then, whether somebody asks or not, as on a line without termination",
        where="wire",
        parameters={
            "wire": _WIRE,
            "bytes": Parameter("how many each time", "8", "count", low=1.0, high=1024.0),
            "period": Parameter("from one time to the next", "200ms", "time", low=0.001),
        },
    ),
    Kind(
        name="modbus.echo",
        does="requests come back in front of answers, as an RS-485 adapter hears itself; not in TCP framing",
        where="wire",
        parameters={"wire": _WIRE},
    ),
    Kind(
        name="modbus.split",
        does="answers come in two pieces",
        where="wire",
        parameters={**_ANSWERS, "gap": Parameter("between the two", "20ms", "time")},
    ),
    Kind(
        name="modbus.late",
        does="answers come late, also when nobody waits any more: with their transaction in TCP framing, in "
        "place of the next answer in RTU and ASCII",
        where="wire",
        parameters={**_ANSWERS, "by": Parameter("how late", "1s", "time")},
    ),
)
