"""The commands: `dxad NAME` is the function NAME of the module NAME, imported when it is called.

Most ask a running daemon over its control socket; `run`, `check`, `demo`, `doctor`, `replay` and `what-if`
read a configuration; `probe`, `browse` and `sniff` look at devices. What they share stands in `options`
(flags, exit statuses), `view` (the picture of a status) and `cells` (its parts); `backtest` and `outcome` are
of those that replay, `live` and `login` of those that look at devices.
"""
