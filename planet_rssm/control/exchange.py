"""As much of HTTP/1.1 as a planning service and its clients need.

Python's own parser of heads, made for mail, takes longer than all else in a request.
"""

import http.client
import io
from collections.abc import Iterable, Iterator

MOST_LINE = 1 << 16  # bytes, of one of a head
MOST_FIELDS = 100
MOST_ANSWER = 1 << 26  # bytes that are read of one


def fields(lines: Iterable[str]) -> dict[str, str]:
    """Return the fields of a head by their names in small letters; one that is repeated is joined.

    Raises:
        ValueError: a line that is no field, or too many.
    """
    found: dict[str, str] = {}
    for count, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or count >= MOST_FIELDS:
            raise ValueError(f"Bad header line ({line.strip()[:100]!r})")
        name, value = name.lower(), value.strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


class Client:
    """A connection to one server, opened when it is needed; one thread uses it at a time."""

    def __init__(self, connection: http.client.HTTPConnection, host: str) -> None:
        """Take what opens a connection, and the host as a request names it."""
        self._connection = connection
        self._host = host
        self._answers: io.BufferedReader | None = None

    def exchange(self, method: str, path: str, body: bytes, more: str) -> tuple[int, bytes]:
        """Return status and body of an answer; `more` are fields of the request, whole lines.

        Raises:
            OSError, http.client.HTTPException: it is not reached, or speaks something else.
        """
        if self._answers is None:
            self._connection.connect()
            self._answers = self._connection.sock.makefile("rb")
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept-Encoding: identity\r\n"
            f"Content-Length: {len(body)}\r\n{more}\r\n"
        )
        self._connection.sock.sendall(head.encode() + body)
        status, answer, last = read_answer(self._answers)
        if last:
            self.close()
        return status, answer

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        if self._answers is not None:
            self._answers.close()
            self._answers = None
        self._connection.close()


def read_answer(source: io.BufferedReader) -> tuple[int, bytes, bool]:
    """Return status and body of an answer, and whether it is the connection's last.

    Raises:
        OSError, http.client.HTTPException: there is none.
    """
    status = 100
    while status < 200:  # before the answer itself
        first = source.readline(MOST_LINE)
        if not first:
            raise http.client.RemoteDisconnected("Remote end closed connection without response")
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise http.client.BadStatusLine(first[:100].decode("latin-1"))
        status = int(rest[:3])
        try:
            named = fields(_lines(source))
        except ValueError as error:
            raise http.client.HTTPException(str(error)) from None
    said = named.get("content-length", "")
    last = version == b"HTTP/1.0" or named.get("connection", "").lower() == "close"
    if "transfer-encoding" in named:
        return status, b"".join(_chunks(source)), last
    if status in (204, 304):
        return status, b"", last
    if said.isascii() and said.isdigit():
        return status, _read(source, min(int(said), MOST_ANSWER)), last or int(said) > MOST_ANSWER
    return status, source.read(MOST_ANSWER), True


def _lines(source: io.BufferedReader) -> Iterator[str]:
    while (line := source.readline(MOST_LINE)) not in (b"\r\n", b"\n", b""):
        yield line.decode("latin-1")


def _chunks(source: io.BufferedReader) -> Iterator[bytes]:
    left = MOST_ANSWER
    while size := _size(source.readline(MOST_LINE), left):
        yield _read(source, size)
        source.readline(MOST_LINE)
        left -= size
    for _ in _lines(source):  # fields after the last
        pass


def _size(line: bytes, most: int) -> int:
    try:
        size = int(line.partition(b";")[0], 16)
    except ValueError:
        size = -1
    if not 0 <= size <= most:
        raise http.client.HTTPException(f"no size of a chunk: {line[:100]!r}")
    return size


def _read(source: io.BufferedReader, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise http.client.IncompleteRead(data, size - len(data))
    return data
