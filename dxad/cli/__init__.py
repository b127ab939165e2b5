"""The commands: a file each, which `dxad.__main__` imports when its command is called.

Most are clients of a running daemon's control socket; `run`, `check` and `demo` read a configuration.
"""
