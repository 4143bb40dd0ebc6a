# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shipped units: valid, on demand, back after everything, for ever."""

import pytest

SERVICE = "scached.service"
SOCKETS = ("scached.socket", "scached-control.socket")

# Connect to the native socket, and be greeted.
CONNECT = """
import socket
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(10)
    s.connect("/run/scached/scached.sock")
    assert s.recv(100).startswith(b"protocol\\0connection_cache_protocol\\0")
"""

# In each round a volley of connects, one every millisecond, that begins some milliseconds before or after the moment at which
# the daemon leaves, max_idle after the last volley. The first that comes before that moment keeps it from leaving, so
# the beginning moves from round to round.
VOLLEYS = """
import socket, sys, time
rounds, connects, max_idle = int(sys.argv[1]), int(sys.argv[2]), 1.0
end = time.monotonic()
for i in range(rounds):
    time.sleep(max(0, end + max_idle - 0.004 + i * 0.030 / rounds - time.monotonic()))
    agents = []
    for _ in range(connects):
        agent = socket.socket(socket.AF_UNIX)
        agent.settimeout(10)
        agent.connect("/run/scached/scached.sock")
        agents.append(agent)
        time.sleep(0.001)
    for agent in agents:
        greeting = agent.recv(100)
        assert greeting.startswith(b"protocol\\0connection_cache_protocol\\0"), (i, greeting)
    for agent in agents:
        agent.close()
    end = time.monotonic()
print(rounds * connects)
"""


# Save /dev/null, which is refused, and closed by a thread; then a socket, which has to wait until such threads are done.
NO_SOCKETS = """
import os, socket
with socket.socket(socket.AF_UNIX) as s, open(os.devnull) as null, socket.socket() as end:
    s.settimeout(10)
    s.connect("/run/scached/scached.sock")
    s.recv(100)
    def save(fd):
        socket.send_fds(s, [b"request\\0save_endp\\0ttl\\00060\\0label\\0one\\0property\\0\\0\\0"], [fd])
        return s.recv(100)
    for _ in range(100):
        assert save(null.fileno()) == b"status\\0002\\0\\0"
    left, answer = 1000, b""
    while left and answer != b"status\\0000\\0\\0":
        left, answer = left - 1, save(end.fileno())
    assert left, answer
"""


# Everything that an agent can have done: by the dance and in one trip, found and not found, let go at the end of its time and at
# a limit, with a peer that hangs up and one that is told goodbye, malformed, with descriptors of all kinds; and, at the
# end, something parked.
EVERYTHING = """
import os, socket, time
from protocol import Agent

def pair(kind=socket.AF_UNIX):
    if kind == socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]

agent = Agent("/run/scached/scached.sock", "native", timeout=10)
for kind in (socket.AF_UNIX, socket.AF_INET):
    ours, peer = pair(kind)
    assert agent.save_endp(2, "endpoint", "property", ours.fileno()) == 0
    assert agent.save_dest(2, "destination", "property", "endpoint") == 0
    agent.find_dest("destination").close()
    assert agent.save(2, "destination", "", "endpoint", "", ours.fileno(), farewell="QUIT\\r\\n") == 0
    agent.find_dest_inline("destination").close()
    assert agent.find_endp("nothing").status == 2
    assert agent.save_endp_inline(1, "endpoint", "", ours.fileno(), farewell="QUIT\\r\\n") == 0
    ours.close()
    peer.settimeout(10)
    assert peer.recv(100) == b"QUIT\\r\\n", "its end has come"
    peer.close()
    ours, peer = pair(kind)
    assert agent.save_endp_inline(60, "endpoint", "", ours.fileno()) == 0
    peer.close()
for path in ("/dev/null", "/etc/passwd", "/tmp"):
    file = os.open(path, os.O_RDONLY)
    assert agent.save_endp_inline(60, "endpoint", "", file) == 2
    os.close(file)
agent.send(b"request\\0no such request\\0\\0")
agent.read_list()
kept = [pair(socket.AF_INET) for _ in range(200)]
for ours, _ in kept:
    assert agent.save(10, "destination", "", "kept", "", ours.fileno()) == 0
    ours.close()
if os.fork() == 0:
    time.sleep(60)  # the peers live on; the machine ends this
"""


@pytest.fixture
def host(machine):
    machine.install()
    machine.write("/etc/scached/scached.conf", "max_idle = 1s\n")
    machine.run(["systemd-sysusers", "/usr/lib/sysusers.d/scached.conf"])
    machine.systemctl("enable", "--now", *SOCKETS)
    yield machine
    machine.systemctl("disable", "--now", *SOCKETS, SERVICE)


def test_verify(host):
    result = host.run("systemd-analyze verify --man=yes /usr/lib/systemd/system/scached*", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_sandbox(host):
    assert host.exposure(SERVICE) <= 1.0


def test_sockets_belong_to_whom_they_should(host):
    modes = host.run(["stat", "-c", "%a %U %G", "/run/scached/scached.sock", "/run/scached/control.sock"]).stdout
    assert modes.splitlines() == ["660 root scache", "660 root scache-admin"]


def test_connects_around_idle_exits(host):
    """An agent that connects in the very moment of leaving is served by the next start."""
    assert host.python(VOLLEYS, 34, 30, timeout=120).stdout.strip() == "1020"
    starts = [entry for entry in host.journal(unit=SERVICE) if "Serving agents" in entry["MESSAGE"]]
    assert len(starts) >= 10, "it did leave in between"
    for socket in SOCKETS:
        assert host.show(socket, "ActiveState", "Result") == {"ActiveState": "active", "Result": "success"}


def test_descriptors_of_all_kinds(host):
    """The sandbox lets a thread close what is no socket."""
    host.python(NO_SOCKETS)
    pid = host.show(SERVICE, "MainPID")["MainPID"]
    names = host.run(["ls", "-l", f"/proc/{pid}/fd"]).stdout
    host.wait(lambda: host.run(["ls", "-l", f"/proc/{pid}/fd"]).stdout.count("/dev/null") == 1, 10, names)


def test_no_system_call_is_missing_from_the_list(host):
    """A call that the sandbox does not allow is refused, and that could go unnoticed. Here it is fatal."""
    host.write("/etc/systemd/system/scached.service.d/fatal.conf", "[Service]\nSystemCallErrorNumber=\n")
    host.write("/etc/scached/scached.conf", "max_idle = 1s\nconnection_cache_ttl_limit = 60s\n"
                                            "connection_cache_size_limit = 100\n")
    try:
        host.systemctl("daemon-reload")
        host.python(EVERYTHING)
        for command in ("status", "list", "list --bindings", "metrics", "flush nothing"):
            host.run(f"scachectl {command}")
        host.systemctl("reload", SERVICE)
        host.systemctl("restart", SERVICE)
        assert "100 parked" in host.run("scachectl status").stdout
        host.run("scachectl flush")
        host.journal_wait("Exiting: idle", unit=SERVICE, timeout=30)
        assert not [entry for entry in host.journal(unit=SERVICE) if "SYS" in entry["MESSAGE"]]

        # And a call that is missing would have shown.
        host.write("/etc/systemd/system/scached.service.d/fatal.conf",
                   "[Service]\nSystemCallErrorNumber=\nSystemCallFilter=~accept4\n")
        host.systemctl("daemon-reload")
        host.run("scachectl status", check=False)
        host.journal_wait("status=31/SYS", unit=SERVICE)
    finally:
        host.run("rm -r /etc/systemd/system/scached.service.d")
        host.systemctl("daemon-reload")
        host.systemctl("stop", SERVICE)
        host.systemctl("reset-failed", SERVICE, check=False)


def test_back_after_crashes(host):
    """However often it crashes: a socket that closes for it opens again."""
    host.write("/etc/systemd/system/scached-reopen@.service.d/pause.conf", "[Service]\nEnvironment=PAUSE=1\n")
    host.systemctl("daemon-reload")
    for _ in range(25):
        host.wait(lambda: host.python(CONNECT, check=False).returncode == 0, 10, "an answer")
        host.systemctl("kill", "--signal=KILL", SERVICE)
    host.wait(lambda: host.python(CONNECT, check=False).returncode == 0, 10, "an answer")
    assert host.show("scached.socket", "ActiveState")["ActiveState"] == "active"
