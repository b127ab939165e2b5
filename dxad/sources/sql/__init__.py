"""Readings from a table that somebody else fills: a query of a SQLite file or of PostgreSQL.

A column that only grows, the cursor, tells which rows are new; where it was is kept over a restart. Nothing
is ever written: a SQLite file is opened for reading alone, a session of PostgreSQL is read-only.

section.py    what a configuration says of it
source.py     asks once per period for what is new
cursor.py     the cursor, in a file
sqlite.py, postgres.py   the tables: blocking, called on a thread
"""

from dxad.plugin import Plugin
from dxad.sources.sql.section import Config, SqlChannel
from dxad.sources.sql.source import Sql

__all__ = ["PLUGIN", "Config", "Sql", "SqlChannel"]

PLUGIN = Plugin(Config, Sql)
