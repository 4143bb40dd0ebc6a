# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mail server that takes all mail, in a machine: SMTP and LMTP on one port, with STARTTLS and AUTH.

    python3 mail_server.py PORT CERTIFICATES [TLS_VERSION]

CERTIFICATES is a folder of NAME.pem and NAME.key. Each time something happens to a connection, all that is known of it goes
to standard output, a line of JSON. Each line of standard input is a command, as JSON: its name and its arguments. Ends with
standard input. receiver.py is for tests what this program is for Postfix.
"""

from __future__ import annotations

import _ssl
import base64
import contextlib
import ctypes
import json
import re
import select
import socket
import ssl
import sys
import threading

PATIENCE = 60  # seconds, for a handshake
KEY_UPDATE_REQUESTED = 1  # SSL_KEY_UPDATE_REQUESTED: the peer renews its keys, too
COMMAND = re.compile(r"([A-Za-z]+)(?: +(.*))?$")
ADDRESS = re.compile(r"(?i:from|to): ?<([^>]*)>")


class Openssl:
    """Functions of OpenSSL that Python has no name for, on Python's own sockets: messages of TLS 1.3 that carry no data."""

    def __init__(self):
        self.library = ctypes.CDLL(_ssl.__file__)  # knows what it is linked with

    def call(self, name: str, tls: ssl.SSLSocket, *arguments: int) -> None:
        # CPython's PySSLSocket: the head of every object, a reference to the socket, and the SSL *.
        pointer = ctypes.c_void_p.from_address(
            id(tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))
        if self.library.SSL_get_fd(pointer) != tls.fileno():
            raise SystemExit("this Python keeps its SSL * in another place")
        for function, rest in ((getattr(self.library, name), arguments), (self.library.SSL_do_handshake, ())):
            if function(pointer, *rest) != 1:
                raise SystemExit(f"{name} failed")


class Connection(threading.Thread):
    """One connection, until its end."""

    def __init__(self, server: "Server", number: int, end: socket.socket, peer: str):
        super().__init__(daemon=True)
        self.server, self.socket, self.number = server, end, number
        self.lock = threading.Lock()  # of the socket: OpenSSL wants one caller at a time
        self.received = b""
        self.has_hung_up = False
        self.known = {"number": number, "peer": peer, "protocol": None, "tls": None, "certificate": None, "user": None, "mails": [],
                      "quit": False, "end": None}

    def note(self, **news) -> None:
        self.known.update(news)
        self.server.tell(self.known)

    def run(self) -> None:
        self.note()
        self.socket.setblocking(False)
        self.recipients: list[str] = []
        try:
            self.answer("220 receiver.test ESMTP")
            while not self.known["quit"]:
                self.obey(self.line())
            while self.receive():
                pass
        except EOFError:
            pass
        except OSError as error:
            self.note(end=self.verdict(error))
        with self.lock:
            self.socket.close()
        self.server.connections.discard(self)

    def verdict(self, error: OSError) -> str:
        if self.has_hung_up:
            return "closed"  # the peer owes us nothing, and need not have waited
        if isinstance(error, ssl.SSLEOFError) or getattr(error, "reason", "") == "UNEXPECTED_EOF_WHILE_READING":
            return "cut"
        return f"failed: {error}"

    # Bytes

    def receive(self) -> bytes:
        """What comes next, or nothing at a proper end, which is noted. Waits without the lock."""
        readable = select.poll()
        readable.register(self.socket, select.POLLIN)
        while True:
            with self.lock:
                try:
                    data = self.socket.recv(1 << 16)
                except (ssl.SSLWantReadError, BlockingIOError):
                    data = None
                except ssl.SSLZeroReturnError:  # the peer's notification, after our own
                    data = b""
            if data is not None:
                if not data:
                    self.note(end="closed")
                return data
            readable.poll()

    def line(self) -> str:
        while b"\n" not in self.received:
            data = self.receive()
            if not data:
                raise EOFError
            self.received += data
        line, self.received = self.received.split(b"\n", 1)
        return line.rstrip(b"\r").decode(errors="replace")

    def send(self, data: bytes) -> None:
        with self.lock:
            self.socket.sendall(data)

    def answer(self, *lines: str) -> None:
        """A reply of one line or more; the code is that of the first."""
        code = lines[0][:3]
        texts = [lines[0][4:], *lines[1:]]
        ends = ["-"] * (len(texts) - 1) + [" "]
        self.send("".join(f"{code}{end}{text}\r\n" for end, text in zip(ends, texts)).encode())

    # Commands of the peer

    def obey(self, line: str) -> None:
        found = COMMAND.match(line)
        action = getattr(self, f"do_{found[1].lower()}", None) if found else None
        if action is None:
            self.answer("500 5.5.2 what?")
        else:
            action(found[2] or "")

    def do_ehlo(self, _, protocol: str = "smtp") -> None:
        self.note(protocol=protocol)
        features = ["PIPELINING", "ENHANCEDSTATUSCODES"]
        features.append("AUTH PLAIN" if self.known["tls"] else "STARTTLS")
        self.answer("250 receiver.test", *features)

    def do_lhlo(self, argument: str) -> None:
        self.do_ehlo(argument, "lmtp")

    def do_starttls(self, _) -> None:
        self.answer("220 2.0.0 go ahead")
        self.received = b""
        certificate, context = self.server.certificate, self.server.context
        with self.lock:
            self.socket.settimeout(PATIENCE)
            self.socket = context.wrap_socket(self.socket, server_side=True, suppress_ragged_eofs=False)
            self.socket.setblocking(False)
        self.note(tls=self.socket.version(), certificate=certificate)

    def do_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() != "PLAIN" or not initial:
            self.answer("504 5.5.4 PLAIN, with an initial response")
            return
        self.note(user=base64.b64decode(initial).split(b"\0")[1].decode())
        self.answer("235 2.7.0 welcome")

    def do_mail(self, _) -> None:
        self.recipients = []
        self.answer("250 2.1.0 ok")

    def do_rcpt(self, argument: str) -> None:
        self.recipients.append(ADDRESS.match(argument)[1])
        self.answer("250 2.1.5 ok")

    def do_data(self, _) -> None:
        self.answer("354 end with a dot")
        while self.line() != ".":
            pass
        self.note(mails=self.known["mails"] + self.recipients)
        for _ in self.recipients if self.known["protocol"] == "lmtp" else self.recipients[:1]:
            self.answer("250 2.0.0 taken")

    def do_rset(self, _) -> None:
        self.answer("250 2.0.0 ok")

    do_noop = do_rset

    def do_quit(self, _) -> None:
        self.note(quit=True)
        with contextlib.suppress(OSError):  # who says QUIT need not wait for the answer
            self.answer("221 2.0.0 bye")
        self.hang_up()

    # Commands of the test, and of the peer's QUIT

    def renew_keys(self) -> None:
        """TLS 1.3: other keys in both directions."""
        with self.lock:
            self.server.openssl.call("SSL_key_update", self.socket, KEY_UPDATE_REQUESTED)

    def send_ticket(self) -> None:
        """TLS 1.3, OpenSSL 3: one more ticket for a later session."""
        with self.lock:
            self.server.openssl.call("SSL_new_session_ticket", self.socket)

    def speak(self) -> None:
        """As servers do when they have waited long enough."""
        self.answer("421 4.4.2 too slow")

    def hang_up(self) -> None:
        """Say that no more will be sent, to TLS and to TCP."""
        with self.lock, contextlib.suppress(OSError):  # the peer may have been faster
            self.has_hung_up = True
            if self.known["tls"]:
                with contextlib.suppress(ssl.SSLError):  # not to have the peer's answer yet is one
                    self.socket.unwrap()
            self.socket.shutdown(socket.SHUT_WR)


class Server:
    """Listens, and keeps the account."""

    def __init__(self, port: int, certificates: str, version: str | None):
        self.certificates, self.version = certificates, version
        self.openssl = Openssl()
        self.connections: set[Connection] = set()
        self.out = threading.Lock()
        self.listener = socket.create_server(("", port), backlog=512)

    def tell(self, message) -> None:
        with self.out:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def use(self, name: str) -> None:
        """Show this certificate from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{self.certificates}/{name}.pem", f"{self.certificates}/{name}.key")
        # Not from Python 3.10 on: take an end of TCP for one of TLS.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        if self.version:
            context.minimum_version = context.maximum_version = ssl.TLSVersion[self.version]
        self.certificate, self.context = name, context

    def accept(self) -> None:
        number = 0
        while True:
            end, (peer, _) = self.listener.accept()
            number += 1
            connection = Connection(self, number, end, peer)
            self.connections.add(connection)
            connection.start()

    def run(self) -> None:
        """Each command is confirmed when it is done."""
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            if name == "use":
                self.use(*arguments)
            else:
                for connection in list(self.connections):
                    getattr(connection, name)()
            self.tell({"done": name})


def main() -> None:
    port, certificates, *version = sys.argv[1:]
    server = Server(int(port), certificates, version[0] if version else None)
    server.use("trusted")
    threading.Thread(target=server.accept, daemon=True).start()
    server.tell({"done": "listen"})
    server.run()


if __name__ == "__main__":
    main()
