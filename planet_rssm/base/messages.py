"""Messages between two processes of ours over a pipe: a JSON object, and bytes if there are any."""

import json
import os
from typing import IO, NamedTuple

from planet_rssm.base.json_types import Json

_LENGTH = 8  # bytes of each of the two lengths that come first


class Message(NamedTuple):
    """What is sent at once."""

    header: Json
    body: bytes = b""


def to_bytes(message: Message) -> bytes:
    """Return what is sent."""
    header = json.dumps(message.header).encode()
    lengths = (len(part).to_bytes(_LENGTH, "little") for part in (header, message.body))
    return b"".join([*lengths, header, message.body])


def write_message(descriptor: int, message: Message) -> None:
    """Send a message; a signal that comes meanwhile leaves no half of one.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    rest = memoryview(to_bytes(message))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_message(file: IO[bytes]) -> Message | None:
    """Wait for the next message; None at the end, also where it comes in the middle of one."""
    lengths = file.read(2 * _LENGTH)
    if len(lengths) < 2 * _LENGTH:
        return None
    sizes = [int.from_bytes(part, "little") for part in (lengths[:_LENGTH], lengths[_LENGTH:])]
    parts = [file.read(size) for size in sizes]
    if [len(part) for part in parts] != sizes:
        return None
    return Message(json.loads(parts[0]), parts[1])
