"""How the MQTT wire breaks: rows of the catalogue."""

from typing import Final

from hw_sim.fault import Kind

__all__ = ["FAULTS"]

FAULTS: Final[tuple[Kind, ...]] = ()
