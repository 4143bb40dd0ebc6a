#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the seed corpora of fuzz_list and fuzz_agent: the exchanges of scache-protocol(7), as the Python agent speaks them.

The scripts for fuzz_agent are spelled as its first comment says; what a fuzzer found on its own lies beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "agent"))

import lists  # noqa: E402
from lists import encode  # noqa: E402

SEND, SEND_DESCRIPTORS, READ, CLOSE, CONNECT, PEER, SHUTDOWN, LET_GO = range(8)
POSTFIX, LEGACY, NATIVE, CONTROL = range(4)
SOCKET, LISTENING, TCP, COPY, PIPE, EPOLL, DEVICE, OWN = range(8)
DEPTH = 8    # of each queue around a descriptor; added to the kind, and so is
LINGERS = 32  # with n=0: and as many copies as a message takes
LITTLE_ROOM, WORKERS = 0x10, 0x80

ENDPOINT, PROPERTY = "smtp:192.0.2.1:25:", "rfile\t8\nmx.example.org\n"
DESTINATION, BINDING = "smtp:example.org:25:", "mx=mx.example.org"


def command(action: int, *rest: int, agent: int = 0) -> bytes:
    return bytes([agent | action << 2, *rest])


def send(data: bytes, agent: int = 0) -> bytes:
    return b"".join(command(SEND, len(part), agent=agent) + part
                    for part in (data[i:i + 255] for i in range(0, len(data), 255)))


def send_with(data: bytes, n: int = 1, kind: int = SOCKET, agent: int = 0) -> bytes:
    return command(SEND_DESCRIPTORS, n | kind << 2, len(data), agent=agent) + data


def connect(dialect: int, agent: int = 0, user: int = 0) -> bytes:
    return command(CONNECT, dialect | user << 4, agent=agent)


READ_ONE = command(READ)
DUMMY = encode(lists.DUMMY)
SAVE_ENDP = encode(lists.save_endp(10, ENDPOINT, PROPERTY))
SAVE_DEST = encode(lists.save_dest(10, DESTINATION, BINDING, ENDPOINT))
FIND_ENDP = encode(lists.find_endp(ENDPOINT))
FIND_DEST = encode(lists.find_dest(DESTINATION))
SAVE = encode(lists.save(10, DESTINATION, BINDING, ENDPOINT, PROPERTY))
FAREWELL = [("farewell", "QUIT\r\n")]
INLINE = [("handover", "inline")]
PARK = send(SAVE_ENDP) + READ_ONE + send_with(b"\0") + READ_ONE
TAKE = READ_ONE + send(DUMMY) + READ_ONE + send(DUMMY)

FIND_INLINE = encode(lists.find_dest(DESTINATION) + INLINE)
LINGER = TCP + LINGERS


def lingering(script: bytes, setup: int = 0) -> bytes:
    return bytes([setup | WORKERS]) + connect(NATIVE) + script


LISTS = {
    "save_endp": SAVE_ENDP + b"\0",
    "save_endp-farewell": encode(lists.save_endp(10, ENDPOINT, PROPERTY) + FAREWELL),
    "save_dest": SAVE_DEST,
    "find_endp": FIND_ENDP + DUMMY + DUMMY,
    "find_dest": FIND_DEST + DUMMY + DUMMY + SAVE_DEST,
    "find-inline": encode(lists.find_dest(DESTINATION) + INLINE),
    "save": encode(lists.save(18446744073709551615, DESTINATION, BINDING, ENDPOINT, PROPERTY) + FAREWELL),
    "empty": b"\0",
    "many": encode([("request", "save_endp")] * 12),
    "answer": encode([("status", 0), ("property", ""), ("property", PROPERTY)]),
}

SCRIPTS = {
    "postfix": b"\0" + connect(POSTFIX) + READ_ONE + PARK + send(SAVE_DEST) + READ_ONE + send(FIND_DEST) + TAKE,
    "find_endp": b"\0" + connect(LEGACY) + PARK + send(FIND_ENDP) + TAKE,
    "glued": b"\0" + connect(LEGACY) + PARK + PARK + send(FIND_ENDP) + READ_ONE + send(DUMMY) + READ_ONE
             + send(DUMMY + FIND_ENDP) + TAKE,
    "no-last-dummy": b"\0" + connect(LEGACY) + PARK + PARK + send(FIND_ENDP) + READ_ONE + send(DUMMY)
                     + READ_ONE + send(FIND_ENDP) + TAKE,
    "miss": b"\0" + connect(POSTFIX) + send(FIND_ENDP) + READ_ONE + READ_ONE + send(FIND_DEST) + READ_ONE,
    "one-trip": b"\0" + connect(NATIVE) + READ_ONE + send_with(SAVE) + READ_ONE
                + send(encode(lists.find_dest(DESTINATION) + INLINE)) + READ_ONE + send_with(SAVE_ENDP) + READ_ONE
                + send(encode(lists.find_endp(ENDPOINT) + INLINE)) + READ_ONE,
    "farewell": b"\0" + connect(NATIVE)
                + send_with(encode(lists.save(10, DESTINATION, BINDING, ENDPOINT, PROPERTY) + FAREWELL))
                + command(LET_GO) + command(PEER, 1) + command(PEER, 0),
    "no-descriptor": b"\0" + connect(POSTFIX) + send(SAVE_ENDP) + READ_ONE + send(b"\0") + READ_ONE + READ_ONE,
    "not-a-socket": b"\0" + connect(POSTFIX) + b"".join(send(SAVE_ENDP) + send_with(b"\0", kind=kind)
                                                        for kind in (PIPE, EPOLL, DEVICE, OWN)),
    "two-descriptors": b"\0" + connect(POSTFIX) + send(SAVE_ENDP) + send_with(b"\0", n=2) + READ_ONE,
    "253-descriptors": b"\0" + connect(POSTFIX) + send_with(SAVE_DEST, n=0, kind=SOCKET + LINGERS) + READ_ONE,
    "misplaced-descriptor": b"\0" + connect(NATIVE) + send_with(FIND_ENDP) + send_with(DUMMY) + READ_ONE,
    "peer-hangs-up": b"\0" + connect(POSTFIX) + PARK + command(PEER, 0) + send(FIND_ENDP) + READ_ONE,
    "peer-speaks": b"\0" + connect(POSTFIX) + PARK + send(FIND_ENDP) + command(PEER, 1) + READ_ONE,
    "vanishes": b"\0" + connect(POSTFIX) + PARK + send(FIND_ENDP) + READ_ONE + command(CLOSE)
                + connect(POSTFIX) + send(FIND_ENDP) + READ_ONE + send(DUMMY) + command(CLOSE)
                + connect(POSTFIX) + send(FIND_ENDP) + READ_ONE + send(DUMMY) + READ_ONE + command(CLOSE),
    "changes-its-mind": b"\0" + connect(POSTFIX) + PARK + send(FIND_ENDP) + send(FIND_ENDP) + send(DUMMY),
    "half-closed": b"\0" + connect(POSTFIX) + send(FIND_ENDP + SAVE_DEST) + command(SHUTDOWN) + READ_ONE + READ_ONE,
    "limits": b"\x0e" + connect(POSTFIX) + PARK * 4 + send(SAVE_DEST * 2)
              + connect(NATIVE, agent=1) + connect(POSTFIX, agent=2) + send(FIND_DEST, agent=2),
    "reads-nothing": b"\x10" + connect(POSTFIX) + send(FIND_DEST * 6) * 20 + READ_ONE * 60,
    "pipelined": b"\0" + connect(NATIVE) + send_with(SAVE) + send_with(SAVE)
                 + send(encode(lists.find_endp(ENDPOINT) + INLINE) * 3 + SAVE_DEST) + READ_ONE * 4,
    "control": b"\0" + connect(CONTROL) + send(encode([("request", "status")])) + READ_ONE
               + send(encode([("request", "list")])) + send(encode([("request", "flush")])) + READ_ONE,
    "users": b"\0" + connect(NATIVE) + connect(NATIVE, agent=1, user=1) + send_with(SAVE) + send_with(SAVE, agent=1)
             + send(FIND_ENDP, agent=1) + TAKE + send(encode(lists.find_dest(DESTINATION) + INLINE), agent=1)
             + command(READ, agent=1) + send(FIND_DEST) + TAKE,
    "socket-twice": b"\0" + connect(NATIVE) + connect(NATIVE, agent=1, user=1) + send_with(SAVE)
                    + send_with(SAVE, kind=COPY) + send_with(SAVE, kind=COPY, agent=1) + send(FIND_ENDP) + READ_ONE
                    + send_with(SAVE, kind=COPY) + command(CLOSE) + connect(NATIVE) + send(FIND_ENDP) + TAKE,
    "never-reads": b"\0" + connect(NATIVE) + connect(NATIVE, agent=1, user=1)
                   + (send_with(SAVE) + send(encode(lists.find_endp(ENDPOINT) + INLINE))) * 4 + connect(NATIVE)
                   + send_with(SAVE, agent=1) + send(encode(lists.find_endp(ENDPOINT) + INLINE), agent=1)
                   + command(READ, agent=1) * 3,
    "two-users": b"\0" + connect(NATIVE) + send_with(SAVE) + connect(NATIVE, agent=2, user=1) + send_with(SAVE, agent=2)
                 + send(FIND_INLINE, agent=2) + send(SAVE_DEST) + connect(NATIVE, agent=3, user=1)
                 + send(FIND_INLINE, agent=3) + connect(NATIVE, agent=1) + send(FIND_INLINE, agent=1)
                 + command(READ, agent=1) * 2 + command(READ, agent=2) * 3 + command(READ, agent=3) * 2,
    "two-users-limits": b"\x0e" + connect(NATIVE) + send_with(SAVE) * 4 + connect(NATIVE, agent=2, user=1)
                        + send_with(SAVE, agent=2) * 3 + send(FIND_INLINE, agent=2),
    "tcp": b"\0" + connect(NATIVE) + send_with(SAVE, kind=TCP) + send(FIND_INLINE) + READ_ONE * 3,
    "nested": b"\0" + connect(NATIVE) + send_with(SAVE, kind=DEPTH) + send_with(FIND_ENDP, kind=3 * DEPTH)
              + send_with(SAVE, kind=LISTENING) + send(FIND_INLINE) + READ_ONE * 4,
    "linger": lingering(send_with(SAVE, kind=LINGER) + command(LET_GO) + send_with(FIND_ENDP, kind=LINGER)
                        + send_with(FIND_ENDP, n=3, kind=LINGER)),
    "linger-found": lingering(send_with(SAVE, kind=LINGER) + send(FIND_INLINE) + READ_ONE * 4),
    "linger-overflow": lingering(send_with(FIND_ENDP, n=0, kind=LINGER) + READ_ONE * 2),
    "linger-queue": lingering(send_with(SAVE, kind=LINGER + DEPTH) + command(LET_GO)),
    "linger-nested": lingering(send_with(FIND_ENDP, kind=LINGER + 2 * DEPTH) + send_with(FIND_ENDP, kind=LINGER + 3 * DEPTH)),
    "linger-listening": lingering(send_with(FIND_ENDP, kind=LISTENING + LINGERS)
                                  + send_with(SAVE, kind=LISTENING + LINGERS + DEPTH) + command(LET_GO)),
    "linger-endless": lingering(send(b"x" * 255) + send_with(b"x" * 255, kind=LINGER) + send(b"x" * 255)
                                + send_with(b"x", kind=LINGER)),
    "linger-unread": lingering(send(FIND_DEST * 6) * 20 + send_with(b"x", kind=LINGER) + command(CLOSE), LITTLE_ROOM),
    "linger-others": lingering(connect(NATIVE, agent=1, user=1) + send_with(FIND_ENDP, kind=LINGER) * 3
                               + send_with(SAVE, agent=1) + send(FIND_INLINE, agent=1) + command(READ, agent=1) * 3),
    "half-requests": b"\x04" + b"".join(connect(POSTFIX, agent=i, user=i % 3) + send(b"x" * 250, agent=i) for i in range(4)),
    "endless": b"\0" + connect(POSTFIX) + send(b"x" * 255) * 4,
    "malformed": b"\0" + connect(POSTFIX) + send(encode([("request", "steal")]) + encode([("ttl", 1)]) + b"\0")
                 + send(encode(lists.save_endp("-1", ENDPOINT, PROPERTY))) + READ_ONE * 4,
}


def main() -> None:
    for name, inputs in (("list", LISTS), ("agent", SCRIPTS)):
        folder = Path(__file__).parent / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for title, data in inputs.items():
            (folder / title).write_bytes(data)


if __name__ == "__main__":
    main()
