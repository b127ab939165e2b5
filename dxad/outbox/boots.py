"""The boots of the machine, which date the records: what is known of each one's clock."""

import sqlite3

from dxad.types import UNKNOWN_BOOT, Boot

__all__ = ["Boots"]


class Boots(dict[int, Boot]):
    """All boots that the file knows, by number; 0 is what is not known."""

    def __init__(self) -> None:
        super().__init__({0: UNKNOWN_BOOT})
        self._numbers = {"": 0}

    def load(self, connection: sqlite3.Connection) -> None:
        """Learn what the file knows."""
        self.clear()
        self[0] = UNKNOWN_BOOT
        for number, id_, offset_ns, clock_ok in connection.execute(
            "SELECT number, id, offset_ns, clock_ok FROM boots"
        ):
            self[number] = Boot(id_, offset_ns, bool(clock_ok))
        self._numbers = {each.id: number for number, each in self.items()}

    def number(self, boot: Boot) -> int:
        """The number of a boot; 0 if the file does not know it."""
        return self._numbers.get(boot.id, 0)

    def save(self, connection: sqlite3.Connection, boot: Boot) -> int:
        """Note what is known of a boot now; returns its number."""
        (number,) = connection.execute(
            "INSERT INTO boots (number, id, offset_ns, clock_ok)"
            " VALUES ((SELECT max(number) + 1 FROM boots), ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET offset_ns = excluded.offset_ns, clock_ok = excluded.clock_ok"
            " RETURNING number",
            (boot.id, boot.offset_ns, boot.clock_ok),
        ).fetchone()
        self[number] = boot
        self._numbers[boot.id] = number
        return int(number)
