"""Store and forward: a record whose append resolved survives a power cut, and is delivered at least once.

       event loop                                    store thread
    ┌───────────────────────────────┐   commit    ┌────────────────────────────────────┐
    │ append ▶ waiting, by lane ────┼────────────▶│ records   (lane, seq) ▶ CRC, body  │
    │ future ◀─ durable ────────────┼─────────────│ cursors   sink, lane ▶ seq         │──▶ file + WAL
    │ fetch · ack · refuse ─────────┼────────────▶│ refusals  to be offered again      │
    └───────────────────────────────┘             │ dead letters                       │
        front.py, unsaved.py,                     └────────────────────────────────────┘
        report.py                                   store.py, places.py on tables.py (SQL),
                                                    database.py (the file), schema.py

A record leaves when every sink that carries its lane is past it, or by quota: then the oldest of the least
important lane goes first, counted and reported. All SQL of dxad stands in this package.
"""

from dxad.outbox.front import Outbox
from dxad.outbox.places import Backlog

__all__ = ["Backlog", "Outbox"]
