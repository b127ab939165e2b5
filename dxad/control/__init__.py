"""The daemon's own door: HTTP/1.1 and JSON over a Unix socket.

    client ──▶ Control ──▶ Connection ──▶ Exchange ──▶ route ──▶ Gateway
               the socket   deadlines,     HTTP, JSON,   one of     what the daemon
               file         cap, peer      permission    a table    lets others see

Whoever may open the socket may read; who may change something is in `peer.py`. There is no TCP listener:
`curl --unix-socket` and `ssh -L 8080:/run/dxad/control.sock` do.
"""

from dxad.control.route import Gateway
from dxad.control.server import Control

__all__ = ["Control", "Gateway"]
