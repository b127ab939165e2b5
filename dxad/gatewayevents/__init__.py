"""What the gateway tells of itself, so that a dead one looks different from a quiet plant.

    dxad.gateway.started     how the last run ended, and for how long it was off      ◀─ runmark.py
    dxad.gateway.heartbeat   every `[gateway] heartbeat`, void at its `expiresat`     ◀─ service.py
    dxad.gateway.condition   something is wrong with it, or is not any more           ◀─ holdoff.py
    dxad.gateway.stopped     it was told to

Whoever has heard a heartbeat, or that it started, and hears nothing until `expiresat` knows that the gateway
is dead or cut off. Of heartbeats only the newest waits for a sink: those before it are void, and that they go
is no loss. A start ends all conditions that were told before: what still holds is told anew.
"""

from dxad.gatewayevents.runmark import RunMark
from dxad.gatewayevents.service import GatewayEvents

__all__ = ["GatewayEvents", "RunMark"]
