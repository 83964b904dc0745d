"""Signs of progress for the supervisor that started this program, if one did."""

import os
from pathlib import Path

VARIABLE = "PROGRESS_FILE"
"""Names a file that grows by a line for each complete checkpoint and each finished stage."""


def note(text: str) -> None:
    """Adds a line to the supervisor's file; restarts after which none was added are given up."""
    path = os.environ.get(VARIABLE)
    if path:
        with Path(path).open("a") as file:
            file.write(f"{text}\n")
