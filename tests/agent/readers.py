# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs of others that read what we write, as packaging/deps has unpacked them, or as they are installed."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

import launch
from connection import wait_until
from daemon import die_with_parent


def folder() -> Path:
    return launch.build_folder() / "readers"


def reader(name: str) -> str:
    """Where this program is. The test is skipped if it is nowhere."""
    places = [str(folder() / "usr/bin"), str(folder() / "usr/sbin"), "/usr/bin", "/usr/sbin"]
    found = shutil.which(name, path=":".join(places))
    if not found:
        pytest.skip(f"needs {name}: sh packaging/deps check")
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


@contextmanager
def serving(command: list[str], url: str) -> Iterator[None]:
    """This program runs, and answers at this address."""
    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
        try:
            get(url)
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    try:
        wait_until(answers, f"{command[0]} answers", 30.0)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def web_server(path: str, kind: str, text: str) -> Iterator[int]:
    """A web server with this page. Gives its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
