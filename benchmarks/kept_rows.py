"""Measurements that survive the end of the process that made them.

One JSON file holds all rows; it is written anew, in one move, after every row, so that a kill loses
at most what was being measured. A second start asks what is there and measures the rest.
"""

import json
import os
import traceback
from pathlib import Path
from typing import Any

MOST_ATTEMPTS = 2
"""Times that a measurement may end its process before it is given up."""

Row = dict[str, Any]


class KeptRows:
    """The rows of a file, by table and key. One process at a time may hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running: list[str] = []
        self.content: dict[str, Any] = {}
        if path.exists():
            self.content = json.loads(path.read_text())

    def rows(self, table: str) -> dict[str, Row]:
        """Returns the rows of a table by key, in the order of their measurement."""
        found: dict[str, Row] = self.content.get(table, {})
        return found

    def keep(self, table: str, key: str, row: Row) -> None:
        """Adds a row, or replaces the one of that key, and writes the file."""
        self._running = [other for other in self._running if other != key]
        self.content.setdefault(table, {})[key] = row
        self._write()

    def begin(self, keys: list[str]) -> None:
        """Notes that measurements are attempted, before any of them can end the process."""
        self._running = list(keys)
        attempts = self.content.setdefault("attempts", {})
        for key in keys:
            attempts[key] = attempts.get(key, 0) + 1
        self._write()

    def forgive(self) -> None:
        """Takes back the attempts that are under way, which are stopped for want of time."""
        for key in self._running:
            self.content["attempts"][key] -= 1
        self._write()

    def attempts(self, key: str) -> int:
        """Returns how often a measurement was begun, its kept row included."""
        return int(self.content.get("attempts", {}).get(key, 0))

    def is_given_up(self, key: str) -> bool:
        """Whether a measurement was begun as often as it may be."""
        return self.attempts(key) >= MOST_ATTEMPTS

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(partial, self.path)


def why(error: Exception) -> Row:
    """Returns what a row says instead of its figures; prints where an error came from."""
    if "RESOURCE_EXHAUSTED" in str(error):
        return {"out_of_memory": True}
    traceback.print_exception(error)
    first_line = str(error).partition("\n")[0]
    return {"failed": f"{type(error).__name__}: {first_line[:300]}"}
