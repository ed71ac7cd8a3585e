"""A client's connection: its requests are taken and answered one after another."""

import http
import logging
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import NamedTuple

from planet_rssm.base.errors import PlanetError
from planet_rssm.control.exchange import fields
from planet_rssm.serve.service import RefusedError

TEXT = "text/plain; charset=utf-8"
METHODS = ("GET", "POST", "DELETE")
MOST_HEAD = 1 << 16  # bytes
READ = 1 << 16  # bytes at once
_HEAD_END = re.compile(rb"\r?\n\r?\n")

_log = logging.getLogger("planet_rssm")


class Answer(NamedTuple):
    """What comes back."""

    kind: str
    body: bytes
    status: int = 200


class Place(NamedTuple):
    """What a method and a path name."""

    most: int  # bytes of a request's body
    kind: str  # of the body; "": any
    answer: Callable[[bytes], Answer | None]  # None: `Connection.answer` is called later


class _Asked(NamedTuple):
    """A request whose body is still to come."""

    place: Place
    length: int  # of the body
    last: bool  # of this connection


class Connection:
    """One thread uses it: `ready` is called where its selector says so."""

    def __init__(
        self,
        client: socket.socket,
        selector: selectors.BaseSelector,
        counts: Counter[str],
        find: Callable[["Connection", str, str, Mapping[str, str]], Place],
        closed: Callable[["Connection"], None],
    ) -> None:
        """Begin to read.

        Args:
            client: its socket.
            selector: has `ready` as the data of its key.
            counts: of refusals by reason.
            find: says what a method, a path and the fields of a head ask for, or raises
                RefusedError.
            closed: is told when this is closed.
        """
        self._client = client
        self._selector = selector
        self._counts = counts
        self._find = find
        self._closed = closed
        self._open = True
        self._heard = time.monotonic()  # when it was last read, written, or answered
        self._came = bytearray()  # and was not taken yet
        self._ended = False  # nothing more comes
        self._asked: _Asked | None = None
        self._waits = False  # for an answer that comes later
        self._unsent = b""
        self._last = False  # nothing is read after what is unsent
        self._watched = 0
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(selectors.EVENT_READ)

    def ready(self) -> None:
        """Read and write what can be without waiting, and take up what has come."""
        try:
            if self._waits:
                self._watch(0)  # what comes meanwhile is kept by the system
            elif not self._unsent:
                self._read()
            self._go_on()
        except Exception:  # the client has gone, or a fault: the others go on
            _log.debug("a connection ended", exc_info=True)
            self.close()

    def answer(self, answer: Answer) -> None:
        """Send what a request has waited for, and go on."""
        if self._open:
            self._put(answer)
            self.ready()

    def refusal(self, error: PlanetError) -> Answer:
        """Return the status and the line of an error."""
        if isinstance(error, RefusedError):
            return Answer(TEXT, str(error).encode(), error.status)
        self._counts["refused_wrong"] += 1
        return Answer(TEXT, str(error).encode(), 400)

    def leave(self, before: float) -> None:
        """Close it if its client was silent, or did not read, since before a time."""
        if self._heard < before and not self._waits:
            self.close()

    def close(self) -> None:
        """Close it."""
        if self._open:
            self._open = False
            self._watch(0)
            self._client.close()
            self._closed(self)

    def _read(self) -> None:
        try:
            data = self._client.recv(READ)
        except BlockingIOError:
            return
        self._heard = time.monotonic()
        self._came += data
        self._ended = not data

    def _write(self) -> None:
        try:
            sent = self._client.send(self._unsent)
        except BlockingIOError:
            sent = 0
        if sent:
            self._heard = time.monotonic()
        self._unsent = self._unsent[sent:]
        self._watch(selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ)

    def _watch(self, events: int) -> None:
        if events == self._watched:
            return
        if not self._watched:
            self._selector.register(self._client, events, self.ready)
        elif events:
            self._selector.modify(self._client, events, self.ready)
        else:
            self._selector.unregister(self._client)
        self._watched = events

    def _go_on(self) -> None:
        while self._open and not self._waits:
            if self._unsent:
                self._write()
                if self._unsent:
                    return
            elif self._last:
                self.close()
            elif not self._take():
                return

    def _take(self) -> bool:
        """Take up a request and answer it; return whether there was anything to do."""
        try:
            self._asked = self._asked or self._head()
            asked = self._asked
            if asked is None or len(self._came) < asked.length:
                self._last = self._ended
                if self._ended and asked:
                    raise self._refused(
                        400, "length", f"{len(self._came)} bytes of {asked.length} came"
                    )
                return self._ended or bool(self._unsent)
            body = bytes(self._came[: asked.length])
            del self._came[: asked.length]
            self._asked, self._last = None, asked.last
            answer = asked.place.answer(body)
            self._waits = answer is None
        except PlanetError as error:
            answer = self.refusal(error)
        if answer is not None:
            self._put(answer)
        return True

    def _head(self) -> _Asked | None:
        """Return what is asked, once the head has come and says that its body may be read."""
        end = _HEAD_END.search(self._came)
        if end is None and len(self._came) <= MOST_HEAD:
            return None
        self._last = True  # unless it is found to be right
        if end is None or end.start() > MOST_HEAD:
            status = 431 if b"\n" in self._came[:MOST_HEAD] else 414
            raise _unread(status, http.HTTPStatus(status).phrase)
        first, *lines = self._came[: end.start()].decode("latin-1").split("\n")
        del self._came[: end.end()]
        words = first.split()
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            raise _unread(400, f"Bad request syntax ({first.strip()[:100]!r})")
        method, path, version = words
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise _unread(505, f"Invalid HTTP version ({version[5:][:100]})")
        try:
            named = fields(lines)
        except ValueError as error:
            raise _unread(400, str(error)) from None
        if method not in METHODS:
            raise _unread(501, f"Unsupported method ({method[:100]!r})")
        _log.debug("%s %s", method, path)
        place = self._find(self, method, path, named)
        length = self._length(place, named)
        wanted = named.get("connection", "").lower()
        self._last = False
        if named.get("expect", "").lower() == "100-continue":
            self._unsent = b"HTTP/1.1 100 Continue\r\n\r\n"
        last = wanted == "close" or (version == "HTTP/1.0" and wanted != "keep-alive")
        return _Asked(place, length, last)

    def _length(self, place: Place, named: Mapping[str, str]) -> int:
        """Return the length of a body, which may be read."""
        said = named.get("content-length", "0")
        length = int(said) if said.isascii() and said.isdigit() and len(said) < 16 else -1
        if length < 0 or "transfer-encoding" in named:
            raise self._refused(411, "length", "the request must say its Content-Length")
        if length > place.most:
            line = f"{length} bytes: at most {place.most} are taken here"
            raise self._refused(413, "length", line)
        # a page in a browser on this machine cannot send these without being asked
        if place.kind and named.get("content-type", "").partition(";")[0].strip() != place.kind:
            raise self._refused(415, "kind", f"Content-Type must be {place.kind}")
        return length

    def _refused(self, status: int, reason: str, line: str) -> RefusedError:
        self._counts[f"refused_{reason}"] += 1
        return RefusedError(status, reason, line)

    def _put(self, answer: Answer) -> None:
        self._heard = time.monotonic()
        self._waits = False
        end = "Connection: close\r\n" if self._last else ""
        head = (
            f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}\r\n"
            f"Server: planet\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: {answer.kind}\r\n"
            f"Content-Length: {len(answer.body)}\r\n{end}\r\n"
        )
        self._unsent += head.encode() + answer.body


def _unread(status: int, line: str) -> RefusedError:
    return RefusedError(status, "head", f"{status}: {line}")
