"""Store and forward: a record whose append resolved survives a power cut, and is delivered at least once.

       event loop                                    store thread
    ┌───────────────────────────────┐   commit    ┌────────────────────────────────────┐
    │ append ▶ waiting, by lane ────┼────────────▶│ records   (lane, seq) ▶ CRC, body  │
    │ append_bulk ▶ waiting ────────┼────────────▶│ segments  many to a row            │
    │ future ◀─ durable ────────────┼─────────────│ cursors   sink, lane ▶ seq         │──▶ file + WAL
    │ fetch · ack · refuse ─────────┼────────────▶│ refusals  to be offered again      │
    └───────────────────────────────┘             │ dead letters · boots               │
        front.py, unsaved.py,                     └────────────────────────────────────┘
        report.py                                   store.py, places.py, reading.py, retention.py on
                                                    tables.py, segments.py, boots.py (SQL),
                                                    database.py (the file), schema.py

One row of numbers, the seq, runs over all lanes. Each event is a row; the bulk records of one commit are one
segment, in which each has a seq and an id of its own: whoever reads does not see the difference.

A record leaves when every sink that carries its lane is past it, or by quota: then the oldest of the least
important lane goes first, counted and reported. All SQL of dxad stands in this package.
"""

from dxad.outbox.front import Outbox
from dxad.outbox.limits import LaneLimits, Limits
from dxad.outbox.places import Backlog

__all__ = ["Backlog", "LaneLimits", "Limits", "Outbox"]
