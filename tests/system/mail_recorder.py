# SPDX-License-Identifier: LGPL-2.1-or-later
"""An SMTP server that writes down how each mail came to it: over which connection, in the clear or not, from whom.

    python3 mail_recorder.py PORT FOLDER

It offers STARTTLS with FOLDER/certificate.pem (and its key), AUTH PLAIN with any name and password, and writes to FOLDER/mails a
line of JSON for each mail that it accepts. While there is FOLDER/pause, mails wait.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import socketserver
import ssl
import sys
import threading
import time
from pathlib import Path


class Session(socketserver.StreamRequestHandler):
    numbers = itertools.count(1)
    lock = threading.Lock()

    def setup(self) -> None:
        super().setup()
        self.number = next(self.numbers)
        self.name = self.user = self.to = ""
        self.tls = False

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()

    def handle(self) -> None:
        self.say("220 receiver.example ESMTP")
        try:
            while line := self.rfile.readline().decode(errors="replace").strip():
                verb, _, rest = line.partition(" ")
                answer = getattr(self, f"on_{verb.lower()}", self.on_other)(rest)
                if answer:
                    self.say(answer)
                if verb.upper() == "QUIT":
                    return
        except OSError:
            pass   # it hung up

    def on_other(self, rest: str) -> str:
        return "250 2.0.0 Ok"

    def on_quit(self, rest: str) -> str:
        return "221 2.0.0 Bye"

    def on_ehlo(self, rest: str) -> str:
        self.name = rest
        return "\r\n".join(["250-receiver.example", *([] if self.tls else ["250-STARTTLS"]), "250 AUTH PLAIN"])

    def on_starttls(self, rest: str) -> None:
        self.say("220 2.0.0 Ready")
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")
        self.tls = True

    def on_auth(self, rest: str) -> str:
        _, self.user, _ = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
        return "235 2.7.0 Welcome"

    def on_rcpt(self, rest: str) -> str:
        self.to = re.search("<(.*?)>", rest)[1]
        return "250 2.1.5 Ok"

    def on_data(self, rest: str) -> str:
        self.say("354 Go ahead")
        while self.rfile.readline().rstrip(b"\r\n") != b".":
            pass
        while self.server.pause.exists():
            time.sleep(0.01)
        mail = {"to": self.to, "connection": self.number, "tls": self.tls, "name": self.name, "user": self.user,
                "from": self.client_address[0]}
        with self.lock, self.server.mails.open("a") as mails:
            mails.write(json.dumps(mail) + "\n")
        return "250 2.0.0 Ok"


class Receiver(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, folder: Path):
        super().__init__(("127.0.0.1", port), Session)
        self.mails = folder / "mails"
        self.pause = folder / "pause"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "certificate.pem")


if __name__ == "__main__":
    with Receiver(int(sys.argv[1]), Path(sys.argv[2])) as receiver:
        print("ready", flush=True)
        receiver.serve_forever()
