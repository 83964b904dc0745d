"""How an error ends a process."""

import asyncio
import errno

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.exit_codes import NonFinite, Preempted, ending_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("no such file"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
        (NonFinite("5 steps"), 3),
        (Preempted("saved"), 42),
        (KeyboardInterrupt(), 130),
    ],
)
def test_ends_that_are_no_bugs(error: BaseException, code: int) -> None:
    end = ending_of(error)
    assert end is not None
    assert end.code == code
    assert str(error) in end.message


def test_bugs_keep_their_traceback() -> None:
    assert ending_of(OSError(errno.EPIPE, "Broken pipe")) is None
    assert ending_of(ValueError("shapes differ")) is None


def test_an_interrupt_that_a_library_reports_as_its_own_error() -> None:
    async def read() -> None:
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError as error:
            raise RuntimeError("Encountered error while reading") from error

    with pytest.raises(RuntimeError, match="reading") as caught:
        asyncio.run(read())
    end = ending_of(caught.value)
    assert end is not None
    assert end.code == 130


def test_a_message_cannot_steer_a_terminal() -> None:
    end = ending_of(InputError("tensor \x1b[2Jname\u202e is unknown\nin file"))
    assert end is not None
    assert end.message == "error: tensor \\x1b[2Jname\\u202e is unknown\nin file"
