# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent's side of the connection cache protocol.

Written from the description of the wire alone and sharing nothing with the C code, so that the two
cannot share a misreading. Three levels:

    agent.send(data, fds), read_list(), read_byte(), read_end()     raw: what no sane agent would do
    agent.begin("find_dest", label).until("received")               one exchange, stopped anywhere
    agent.find_dest(label)                                          one exchange, whole

Nothing here waits without a bound: a socket that stays silent raises ProtocolError, which says what
was waited for.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from typing import Generator, Iterable, NamedTuple, Optional, Sequence, Union

import lists
from connection import DEFAULT_TIMEOUT, Connection, ProtocolError, identity
from lists import DUMMY, Attributes, Value, decode, encode, to_bytes

OK, BAD, FAIL = 0, 1, 2

PROTOCOL = b"connection_cache_protocol"

# The kernel passes at most this many descriptors in one message.
DESCRIPTORS_MAX = 253

# The steps at which an exchange can be stopped, in order: each names what has just happened. "half
# a request" and the like mean that the list is on its way, but not its end.
_FIND_STEPS = ("half a request", "request", "answered", "half a dummy", "dummy", "received",
               "half a last dummy")
_ONE_TRIP_STEPS = ("half a request", "request")
STEPS = {
    "save_endp": ("half a request", "request", "invited", "descriptor"),
    "find_endp": _FIND_STEPS,
    "save_dest": ("half a request", "request"),
    "find_dest": _FIND_STEPS,
    "save_endp_inline": _ONE_TRIP_STEPS,
    "find_endp_inline": _ONE_TRIP_STEPS,
    "find_dest_inline": _ONE_TRIP_STEPS,
    "save": _ONE_TRIP_STEPS,
}


class Found:
    """The answer to a find: status, properties, and on status 0 the descriptor, which belongs to
    the caller. Unpacks to (status, properties, identity), by which two answers can be compared."""

    def __init__(self, status: int, properties: Sequence[bytes], fd: Optional[int] = None):
        self.status = status
        self.properties = tuple(properties)
        self.fd = fd
        self.identity = None if fd is None else identity(fd)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def detach(self) -> int:
        """The descriptor, no longer closed with this."""
        fd, self.fd = self.fd, None
        assert fd is not None, "no descriptor was found"
        return fd

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self):
        return iter((self.status, self.properties, self.identity))

    def __repr__(self) -> str:
        return f"Found{tuple(self)}"


class List(NamedTuple):
    """An attribute list as it was read, with the descriptors that came while reading it."""
    attributes: list[tuple[bytes, bytes]]
    fds: list[int]


Result = Union[int, Found]
Steps = Generator[str, None, Result]


class Exchange:
    """One exchange, taken step by step. Dropped half-way, it stays half-way on the wire."""

    def __init__(self, name: str, steps: Steps):
        self.name = name
        self.reached: list[str] = []
        self._steps = steps

    def until(self, step: str) -> Exchange:
        """Go on until this step has been taken."""
        assert step in STEPS[self.name], f"{self.name} has no step {step!r}"
        while self.reached[-1:] != [step]:
            try:
                self.reached.append(next(self._steps))
            except StopIteration as end:
                raise ProtocolError(f"{self.name} came to {end.value!r} before {step!r}, after "
                                    f"{self.reached}") from None
        return self

    def finish(self) -> Result:
        """Take all the steps left and return what the exchange came to."""
        return _run(self._steps)


def _run(steps: Steps) -> Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class Agent:
    """One connected agent.

    address: a socket's path, or a socket that is connected already.
    dialect: "postfix" (greeting), "postfix-legacy" (none) or "native" (greeting with extensions).
    greet: read the greeting, if there is one.
    """

    def __init__(self, address: Union[str, socket.socket], dialect: str = "postfix",
                 timeout: float = DEFAULT_TIMEOUT, greet: bool = True):
        self.dialect = dialect
        self.timeout = timeout
        self.extensions: tuple[bytes, ...] = ()
        self.received: Optional[int] = None  # of a find that was stopped after "received"
        self.parked: list[Connection] = []   # a peer that is forgotten would hang up
        self._in = bytearray()
        self._fds: list[int] = []
        self._ahead = b""
        if isinstance(address, socket.socket):
            self.socket = address
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel's own timeouts: Python's would cost a poll(2) for each message.
        bound = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        try:
            if isinstance(address, str):
                self._connect(address)
            if greet and dialect != "postfix-legacy":
                self.read_greeting()
        except BaseException:
            self.close()
            raise

    def _connect(self, path: str) -> None:
        try:
            self.socket.connect(path)
        except BlockingIOError:
            raise ProtocolError(f"{path}: no room in its queue for {self.timeout:g} s") from None

    # Raw.

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send all of data. The descriptors travel with its first byte."""
        if self._ahead:
            assert not fds, "the descriptors would not travel with the first byte of data"
            data, self._ahead = self._ahead + data, b""
        try:
            if fds:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                data = data[self.socket.sendmsg([data], rights, socket.MSG_NOSIGNAL):]
            if data:
                self.socket.sendall(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise ProtocolError(f"the server has not read what was sent for {self.timeout:g} s; "
                                f"left over: {short(data)}") from None

    def send_list(self, attributes: Iterable[tuple[Value, Value]] = (),
                  fds: Sequence[int] = ()) -> None:
        self.send(encode(attributes), fds)

    def put_ahead(self, data: bytes) -> None:
        """Do not send this now, but in one piece with whatever is sent next."""
        self._ahead += data

    def _receive(self, size: int, what: str) -> bool:
        """Read something into the buffer. False at the end of the stream."""
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(
                size, socket.CMSG_SPACE(DESCRIPTORS_MAX * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise ProtocolError(f"no answer within {self.timeout:g} s while waiting for {what}; "
                                f"so far: {short(self._in)}") from None
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[:len(content) - len(content) % fds.itemsize])
                self._fds += fds
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError(f"descriptors were lost on the way, waiting for {what}")
        self._in += data
        return bool(data)

    def _receive_more(self, size: int, what: str) -> None:
        if not self._receive(size, what):
            raise ProtocolError(f"the server hung up on an agent that was waiting for {what}; "
                                f"so far: {short(self._in)}")

    def _take_fds(self) -> list[int]:
        fds, self._fds = self._fds, []
        return fds

    def read_list(self, what: str = "a list") -> List:
        """The next list. If nothing but it was read, the descriptors are its own."""
        while (attributes := decode(self._in)) is None:
            self._receive_more(65536, what)
        return List(attributes, [] if self._in else self._take_fds())

    def read_list_with_descriptor(self, what: str = "a list") -> List:
        """The next list and the descriptors that came with its very first byte. With any other
        byte there may be none."""
        if not self._in:
            self._receive_more(1, what)
        fds = self._take_fds()
        late = self.read_list(what).attributes, self._take_fds()
        self._refuse_fds(late[1], f"a later byte than the first of {what}")
        return List(late[0], fds)

    def read_byte(self, what: str = "a byte") -> tuple[bytes, list[int]]:
        """One byte and the descriptors that came with it."""
        if not self._in:
            self._receive_more(1, what)
        byte = bytes(self._in[:1])
        del self._in[:1]
        return byte, self._take_fds()

    def read_end(self, what: str = "the server to hang up") -> None:
        """The server hangs up, and says nothing more before it does."""
        try:
            while self._receive(65536, what):
                pass
        except ConnectionResetError:
            pass  # it hung up on bytes of ours that it had not read
        if self._in or self._fds:
            raise ProtocolError(f"expected {what}, got {short(self._in)} and {len(self._fds)} "
                                "descriptors")

    def _refuse_fds(self, fds: list[int], what: str) -> None:
        for fd in fds:
            os.close(fd)
        if fds:
            raise ProtocolError(f"{len(fds)} descriptors came with {what}")

    def read_plain_list(self, what: str = "a list") -> list[tuple[bytes, bytes]]:
        """The next list, with which no descriptor may come: read(2) would lose it."""
        attributes, fds = self.read_list(what)
        self._refuse_fds(fds, what)
        return attributes

    def expect_list(self, attributes: Iterable[tuple[Value, Value]], what: str = "a list") -> None:
        """The next list is exactly this one."""
        wanted = [(to_bytes(name), to_bytes(value)) for name, value in attributes]
        got = self.read_plain_list(what)
        if got != wanted:
            raise ProtocolError(f"{what} should be {wanted}, got {short(got)}")

    def read_answer(self, n_properties: int, what: str = "the answer",
                    ) -> tuple[int, tuple[bytes, ...]]:
        """A status and this many properties."""
        return _parse_answer(self.read_plain_list(what), n_properties, what)

    def read_status(self, what: str = "the status") -> int:
        """A status and nothing else."""
        return self.read_answer(0, what)[0]

    def request(self, attributes: Iterable[tuple[Value, Value]], fds: Sequence[int] = (),
                n_properties: int = 0) -> int:
        """Send a list and read its answer, whose properties must be empty. Returns the status."""
        self.send_list(attributes, fds)
        status, properties = self.read_answer(n_properties)
        if any(properties):
            raise ProtocolError(f"status {status} with properties {properties}")
        return status

    def in_step(self) -> None:
        """Nothing unread is on its way, and the server listens: a find that cannot hit is answered,
        and only that."""
        status = self.request(lists.find_endp("in step, never saved"), n_properties=1)
        if status != FAIL:
            raise ProtocolError(f"out of step: status {status} for what was never saved")

    def read_greeting(self) -> None:
        got = self.read_plain_list("the greeting")
        rest = got[1:]
        if got[:1] != [(b"protocol", PROTOCOL)]:
            raise ProtocolError(f"a greeting that says {got}")
        if self.dialect == "native":
            if [name for name, _ in rest] != [b"extensions"]:
                raise ProtocolError(f"a native greeting that says {got}")
            self.extensions = tuple(rest[0][1].replace(b",", b" ").split())
        elif rest:
            raise ProtocolError(f"Postfix rejects a greeting that says more than that: {got}")

    # Exchanges, as generators of their steps.

    def begin(self, name: str, *args, **how) -> Exchange:
        """Begin an exchange to take it step by step: begin("find_endp", label).until("dummy")."""
        assert name in STEPS
        return Exchange(name, getattr(self, "_" + name)(*args, halves=True, **how))

    def _send_steps(self, data: bytes, what: str, halves: bool,
                    fds: Sequence[int] = ()) -> Generator[str, None, None]:
        if halves:
            half = len(data) // 2
            self.send(data[:half], fds)
            yield f"half a {what}"
            data, fds = data[half:], ()
        self.send(data, fds)

    def _save_endp(self, ttl: Value, label: Value, prop: Value, fd: Optional[int],
                   halves: bool = False) -> Steps:
        yield from self._send_steps(encode(lists.save_endp(ttl, label, prop)), "request", halves)
        yield "request"
        what = "the invitation to send a descriptor"
        got = self.read_plain_list(what)
        if got != [(b"dummy", b"")]:
            return _parse_answer(got, 0, what)[0]
        yield "invited"
        self.send(b"\0", [] if fd is None else [fd])
        yield "descriptor"
        return self.read_status("the status of save_endp")

    def _save_dest(self, ttl: Value, dest: Value, prop: Value, endp: Value,
                   halves: bool = False) -> Steps:
        request = encode(lists.save_dest(ttl, dest, prop, endp))
        yield from self._send_steps(request, "request", halves)
        yield "request"
        return self.read_status("the status of save_dest")

    def _find_endp(self, label: Value, **how) -> Steps:
        return self._find(lists.find_endp(label), 1, **how)

    def _find_dest(self, label: Value, **how) -> Steps:
        return self._find(lists.find_dest(label), 2, **how)

    def _find(self, attributes: Attributes, n_properties: int, halves: bool = False,
              last_dummy: str = "send", eager: int = 0) -> Steps:
        """last_dummy: "send" it, "glue" it to whatever is sent next, or "never". eager: how many of
        the two dummies go out in one piece with the request, before any answer calls for them."""
        what = f"the answer to {attributes[0][1]}"
        request = encode(attributes) + eager * encode(DUMMY)
        yield from self._send_steps(request, "request", halves)
        yield "request"
        status, properties = self.read_answer(n_properties, what)
        yield "answered"
        if status != OK:
            return _not_found(status, properties, what)
        if eager < 1:
            yield from self._send_steps(encode(DUMMY), "dummy", halves)
        yield "dummy"
        byte, fds = self.read_byte("the descriptor")
        if byte != b"\0" or len(fds) != 1:
            self._fds = fds  # closed with the agent
            raise ProtocolError(f"expected a NUL with a descriptor, got {byte!r} with {len(fds)}")
        self.received = fds[0]
        yield "received"
        if last_dummy == "glue":
            self.put_ahead(encode(DUMMY))
        elif last_dummy == "send" and eager < 2:
            yield from self._send_steps(encode(DUMMY), "last dummy", halves)
        fd, self.received = self.received, None
        return Found(status, properties, fd)

    def _save_endp_inline(self, ttl: Value, label: Value, prop: Value, fd: Optional[int],
                          farewell: Optional[Value] = None, halves: bool = False) -> Steps:
        return self._save_in_one_trip(lists.save_endp(ttl, label, prop), fd, farewell, halves)

    def _save(self, ttl: Value, dest: Value, dest_prop: Value, endp: Value, endp_prop: Value,
              fd: Optional[int], farewell: Optional[Value] = None, halves: bool = False) -> Steps:
        attributes = lists.save(ttl, dest, dest_prop, endp, endp_prop)
        return self._save_in_one_trip(attributes, fd, farewell, halves)

    def _save_in_one_trip(self, attributes: Attributes, fd: Optional[int],
                          farewell: Optional[Value], halves: bool) -> Steps:
        what = f"the status of {attributes[0][1]} in one trip"
        if farewell is not None:
            attributes = attributes + [("farewell", farewell)]
        fds = [] if fd is None else [fd]
        yield from self._send_steps(encode(attributes), "request", halves, fds)
        yield "request"
        return self.read_status(what)

    def _find_endp_inline(self, label: Value, halves: bool = False) -> Steps:
        return self._find_in_one_trip(lists.find_endp(label), 1, halves)

    def _find_dest_inline(self, label: Value, halves: bool = False) -> Steps:
        return self._find_in_one_trip(lists.find_dest(label), 2, halves)

    def _find_in_one_trip(self, attributes: Attributes, n_properties: int, halves: bool) -> Steps:
        what = f"the answer to {attributes[0][1]} in one trip"
        request = encode(attributes + [("handover", "inline")])
        yield from self._send_steps(request, "request", halves)
        yield "request"
        got = self.read_list_with_descriptor(what)
        status, properties = _parse_answer(got.attributes, n_properties, what)
        if len(got.fds) != (status == OK):
            self._fds = got.fds
            raise ProtocolError(f"{what}: status {status} with {len(got.fds)} descriptors")
        if status != OK:
            return _not_found(status, properties, what)
        return Found(status, properties, got.fds[0])

    # Exchanges, whole. Descriptors that are saved stay the caller's; with None, the byte or list
    # that should carry one carries none.

    def save_endp(self, ttl: Value, label: Value, prop: Value, fd: Optional[int]) -> int:
        return _run(self._save_endp(ttl, label, prop, fd))

    def save_dest(self, ttl: Value, dest: Value, prop: Value, endp: Value) -> int:
        return _run(self._save_dest(ttl, dest, prop, endp))

    def find_endp(self, label: Value, **how) -> Found:
        return _run(self._find_endp(label, **how))

    def find_dest(self, label: Value, **how) -> Found:
        return _run(self._find_dest(label, **how))

    def save_endp_inline(self, *args, **how) -> int:
        """ttl, label, property, descriptor, and maybe a farewell: in one trip."""
        return _run(self._save_endp_inline(*args, **how))

    def save(self, *args, **how) -> int:
        """ttl, destination, its property, endpoint, its property, descriptor, and maybe a farewell:
        binding and connection in one trip."""
        return _run(self._save(*args, **how))

    def find_endp_inline(self, label: Value) -> Found:
        return _run(self._find_endp_inline(label))

    def find_dest_inline(self, label: Value) -> Found:
        return _run(self._find_dest_inline(label))

    # Shorthands for tests.

    def park(self, label: Value, prop: Value = "", ttl: Value = 3600) -> Connection:
        """Save a fresh connection, which must succeed, and return it with its peer."""
        connection = Connection(self.timeout)
        status = self.save_endp(ttl, label, prop, connection.fd)
        connection.pass_on()
        if status != OK:
            raise ProtocolError(f"save_endp of {short(label)}: status {status}")
        self.parked.append(connection)
        return connection

    def bind(self, dest: Value, endp: Value, prop: Value = "", ttl: Value = 3600) -> None:
        """Save a binding, which must succeed."""
        status = self.save_dest(ttl, dest, prop, endp)
        if status != OK:
            raise ProtocolError(f"save_dest of {short(dest)}: status {status}")

    def close(self) -> None:
        for fd in self._take_fds():
            os.close(fd)
        if self.received is not None:
            os.close(self.received)
            self.received = None
        self.socket.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse_answer(attributes: list[tuple[bytes, bytes]], n_properties: int,
                  what: str) -> tuple[int, tuple[bytes, ...]]:
    names = [name for name, _ in attributes]
    if names != [b"status"] + n_properties * [b"property"]:
        raise ProtocolError(f"{what} should be a status and {n_properties} properties, "
                            f"got {short(attributes)}")
    status = attributes[0][1]
    if status not in (b"0", b"1", b"2"):
        raise ProtocolError(f"{what} has status {short(status)}")
    return int(status), tuple(value for _, value in attributes[1:])


def _not_found(status: int, properties: tuple[bytes, ...], what: str) -> Found:
    if any(properties):
        raise ProtocolError(f"{what}: status {status} with properties {short(properties)}")
    return Found(status, properties)


def short(value: object, limit: int = 200) -> str:
    """How a value looks, cut where that gets long."""
    text = repr(bytes(value) if isinstance(value, bytearray) else value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
