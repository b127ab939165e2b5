"""Readings over OPC-UA. Nothing is ever written or called.

Opcua ── Credentials ─▶ Connection ── Watch ── Subscription ── wire ─▶ Inbox
 source   identity,      connection    watching  subscription    value
          trust                          (a session whose life is proved)

namespace = "urn:vendor:machine"      an index would change with the server; a URI does not
channels = { power = { node = "s=Pump.Power" } }
"""

from dxad.plugin import Plugin
from dxad.sources.opcua.section import Config, OpcuaChannel
from dxad.sources.opcua.source import Opcua

__all__ = ["PLUGIN", "Config", "Opcua", "OpcuaChannel"]

PLUGIN = Plugin(Config, Opcua)
