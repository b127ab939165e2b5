"""How the OPC-UA wire breaks: rows of the catalogue."""

from collections.abc import Mapping
from typing import Final

from hw_sim.fault import Kind, Parameter

__all__ = ["FAULTS"]

_WIRE: Final[Mapping[str, Parameter]] = {"wire": Parameter("the server", "", "wire")}
_DEVICE: Final[Mapping[str, Parameter]] = {
    **_WIRE,
    "device": Parameter("the device whose variables it concerns", "", "device"),
}
_CHANNEL: Final[Mapping[str, Parameter]] = {
    **_DEVICE,
    "channel": Parameter("the plant's channel whose variable it concerns; or all", "", "channel"),
}

_BAD: Final = (
    "BadSensorFailure",
    "BadDeviceFailure",
    "BadNotConnected",
    "BadNoCommunication",
    "BadCommunicationError",
    "BadConfigurationError",
    "BadOutOfService",
    "BadWaitingForInitialData",
    "BadOutOfRange",
    "BadUserAccessDenied",
    "BadInternalError",
)
_UNCERTAIN: Final = (
    "UncertainLastUsableValue",
    "UncertainNoCommunicationLastUsableValue",
    "UncertainSensorNotAccurate",
    "UncertainEngineeringUnitsExceeded",
    "UncertainSubNormal",
    "UncertainSubstituteValue",
    "UncertainInitialValue",
)
_KINDS: Final = (
    "String", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float",
    "Double",
)  # fmt: skip

FAULTS: Final[tuple[Kind, ...]] = (
    Kind(
        name="opcua.stop",
        does="the server is killed: nothing listens, connections and sessions are gone; then it starts anew",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.half_open",
        does="connections stay, and new ones are taken, but not a byte comes; then all that was held comes",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.slow",
        does="every answer and notification comes late",
        where="wire",
        parameters={**_WIRE, "delay": Parameter("by so much", "2s", "time")},
    ),
    Kind(
        name="opcua.frozen",
        does="the server answers and keeps its sessions, but values and their timestamps no longer change",
        where="wire",
        parameters=_DEVICE,
    ),
    Kind(
        name="opcua.bad_status",
        does="variables have a bad status and no value",
        where="wire",
        parameters={
            **_CHANNEL,
            "code": Parameter("the status", "BadSensorFailure", "choice", _BAD),
        },
    ),
    Kind(
        name="opcua.uncertain_status",
        does="variables have an uncertain status; where it says last usable, the value stays as it was",
        where="wire",
        parameters={
            **_CHANNEL,
            "code": Parameter("the status", "UncertainLastUsableValue", "choice", _UNCERTAIN),
        },
    ),
    Kind(
        name="opcua.wrong_type",
        does="variables come back with another data type, as after a new program of the controller",
        where="wire",
        parameters={**_CHANNEL, "kind": Parameter("the type", "String", "choice", _KINDS)},
    ),
    Kind(
        name="opcua.node_removed",
        does="variables are deleted: BadNodeIdUnknown; then they are back, but must be subscribed to anew",
        where="wire",
        parameters=_CHANNEL,
    ),
    Kind(
        name="opcua.namespace",
        does="the server comes back with each namespace's index shifted by one, the URIs as they were",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.certificate",
        does="the server comes back with another certificate and key, if it has one; then with the first",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.wrong_timestamps",
        does="the source timestamps of values are wrong",
        where="wire",
        parameters={
            **_DEVICE,
            "by": Parameter("seconds ahead of the time; below zero, behind", "-3600", low=-1e9, high=1e9),
        },
    ),
    Kind(
        name="opcua.no_timestamps",
        does="values come without a source timestamp",
        where="wire",
        parameters=_DEVICE,
    ),
    Kind(
        name="opcua.stopped_clock",
        does="the server's clock stands: its CurrentTime and all timestamps, while values go on",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.no_subscriptions",
        does="subscriptions end without a word, new ones are refused: BadTooManySubscriptions; reads go on",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.no_sessions",
        does="sessions that are there stay, new ones are refused: BadTooManySessions",
        where="wire",
        parameters=_WIRE,
    ),
    Kind(
        name="opcua.no_login",
        does="sessions that are there stay, every login is refused: BadUserAccessDenied",
        where="wire",
        parameters=_WIRE,
    ),
)
