# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an agent that means harm does, as programs of an ordinary user.

    python3 attacks.py NAME SOCKET [--uid=UID] [--group=GROUP] [--dialect=native] [--count=N] [--to=PATH]

Commands come on standard input, one a line, and each is answered with a line of JSON:

    begin      do it: what follows meets the daemon while it goes on
    end        undo it, so that it can begin anew
    linger, strike     only of "linger-later" and "linger-farewell": see there

It talks to that socket and to itself over loopback, has a bound on everything that it makes, and ends by itself when standard
input ends, or after LIFE seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import grp
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time
from typing import Optional

import lists
from connection import ProtocolError
from lists import encode
from protocol import DESCRIPTORS_MAX, OK, Agent
from slow_file import SlowFile
from stuffed import LINGER, Stuffed

LIFE = 400
TIMEOUT = 2.0

FOREVER = struct.pack("ii", 1, 2**31 - 1)
ALL: dict[str, type[Attack]] = {}


class Attack:
    """One of them. Subclasses say what they do to whom in their first line."""

    name = ""

    def __init_subclass__(cls) -> None:
        if cls.name:
            ALL[cls.name] = cls

    def __init__(self, options: argparse.Namespace):
        self.path: str = options.socket
        self.dialect: str = options.dialect
        self.count: Optional[int] = options.count
        self.to: str = options.to
        self.rounds = 0

    def prepare(self) -> None:
        """What an ordinary user would have to have prepared for it. Called with the rights this program was started with."""

    def begin(self) -> dict:
        """Returns what is to be told."""
        return {}

    def work(self) -> float:
        """Called over and over from begin to end. Returns how many seconds later it has to be called again."""
        return 1.0

    def end(self) -> dict:
        """Likewise."""
        return {}

    def command(self, word: str) -> dict:
        raise ValueError(f"{self.name} has no command {word!r}")

    def agent(self) -> Agent:
        return Agent(self.path, self.dialect, TIMEOUT)

    def label(self) -> str:
        self.rounds += 1
        return f"{self.name} {os.getpid()} {self.rounds}"


def send_into(sender: socket.socket, what: int) -> None:
    """A descriptor into the queue at the other end."""
    socket.send_fds(sender, [b"x"], [what])


def unread(sender: socket.socket) -> int:
    """How much of what was sent here the other end has not yet read, in the kernel's own measure."""
    size = bytearray(4)
    fcntl.ioctl(sender, termios.TIOCOUTQ, size)
    return struct.unpack("i", size)[0]


def stop_it_reading(agent: Agent) -> None:
    """Make the daemon stop reading from this agent: it reads none of its answers, so no further one finds room. What is sent
    now stays in the queue, until all copies of ours are closed."""
    agent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    agent.socket.setblocking(False)
    before, still, request = -1, 0, encode(lists.find_endp("nothing")) * 16
    deadline = time.monotonic() + 5
    while still < 3 and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            while unread(agent.socket) < 16384:
                agent.socket.send(request)
        time.sleep(0.005)
        now = unread(agent.socket)
        before, still = now, still + 1 if now == before and now > 0 else 0
    agent.socket.setblocking(True)  # with the kernel's own timeout


def let_it_read(agent: Agent) -> None:
    """Read what is there until the daemon has read all that we have sent, or does nothing any more."""
    deadline = time.monotonic() + 0.2
    with contextlib.suppress(OSError):
        while unread(agent.socket) and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                while agent.socket.recv(65536, socket.MSG_DONTWAIT):
                    deadline = time.monotonic() + 0.2
            time.sleep(0.001)


class Linger(Attack):
    """The last copy of a socket that lingers is left with the daemon, hidden in some way."""
    is_queued = True  # the daemon does not see it before all copies of ours are closed

    def begin(self) -> dict:
        self.kept: list[socket.socket] = []
        self.stuffed = Stuffed()
        self.attacker = self.agent()
        if self.is_queued:
            stop_it_reading(self.attacker)
        self.hide(self.stuffed.end.fileno())
        if self.is_queued and self.attacker.socket.fileno() >= 0:
            let_it_read(self.attacker)
        return {}

    def hide(self, fd: int) -> None:
        """Send it, and be the holder of no copy afterwards."""
        raise NotImplementedError

    def keep(self, *ends: socket.socket) -> None:
        self.kept += ends

    def pair(self) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair()

    def send_unwanted(self, *fds: int) -> None:
        """With a request that takes none."""
        self.attacker.send_list(lists.find_endp("nothing"), fds)

    def end(self) -> dict:
        self.stuffed.close()
        for end in self.kept:
            end.close()
        self.attacker.close()
        return {}


class LingerOverflow(Linger):
    """Behind so many others in one message that there is no room for it."""
    name = "linger-overflow"

    def hide(self, fd: int) -> None:
        one, two = self.pair()
        with one, two:
            self.send_unwanted(*[one.fileno()] * (DESCRIPTORS_MAX - 1), fd)
        self.stuffed.pass_on()


class LingerQueue(Linger):
    """In the queue of a socket that is parked."""
    name = "linger-queue"

    def hide(self, fd: int) -> None:
        one, two = self.pair()
        send_into(one, fd)
        self.stuffed.pass_on()
        self.attacker.send_list(lists.save_endp(60, self.label(), ""), [two.fileno()])
        two.close()
        self.keep(one)


class LingerNestedOnce(Linger):
    """In the queue of a socket in the queue of a socket that is passed where none belongs."""
    name = "linger-nested-once"
    depth = 1

    def hide(self, fd: int) -> None:
        one, inner = self.pair()
        send_into(one, fd)
        self.stuffed.pass_on()
        self.keep(one)
        for _ in range(self.depth):
            one, outer = self.pair()
            send_into(one, inner.fileno())
            inner.close()
            inner = outer
            self.keep(one)
        self.send_unwanted(inner.fileno())
        inner.close()


class LingerNestedTwice(LingerNestedOnce):
    """One level deeper: the kernel's own collector may come to it first."""
    name = "linger-nested-twice"
    depth = 2


class LingerListening(Linger):
    """In the queue of a connection that nobody has accepted, on a listening socket that is passed where none belongs."""
    name = "linger-listening"

    def hide(self, fd: int) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")  # to some abstract address
            listener.listen(1)
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(listener.getsockname())
            send_into(caller, fd)
            self.stuffed.pass_on()
            self.keep(caller)
            self.send_unwanted(listener.fileno())


class LingerEndless(Linger):
    """Behind more bytes of a request than any request may have."""
    name = "linger-endless"

    def hide(self, fd: int) -> None:
        self.attacker.socket.sendall(b"request\0" + b"x" * (128 << 10))
        send_into(self.attacker.socket, fd)
        self.stuffed.pass_on()


class LingerUnread(Linger):
    """Sent and not yet read by the daemon when the agent is gone."""
    name = "linger-unread"

    def hide(self, fd: int) -> None:
        send_into(self.attacker.socket, fd)
        self.stuffed.pass_on()
        self.attacker.close()


class LingerFarewell(Linger):
    """As an answer to a farewell: begin waits for that, "strike" answers. The daemon has to be suspended meanwhile, for it may
    otherwise read the answer before our own copy is closed, and then it is we who wait."""
    name = "linger-farewell"
    is_queued = False

    def hide(self, fd: int) -> None:
        self.one, two = self.pair()
        self.one.settimeout(5)
        if self.dialect == "native":
            self.attacker.save_endp_inline(1, self.label(), "", two.fileno(), farewell="QUIT\r\n")
        else:
            self.attacker.save_endp(1, self.label(), "", two.fileno())
        two.close()
        self.is_asked = bool(self.one.recv(100))
        self.keep(self.one)

    def command(self, word: str) -> dict:
        assert word == "strike"
        if self.is_asked:
            send_into(self.one, self.stuffed.end.fileno())
            self.stuffed.pass_on()
        return {"asked": self.is_asked}


class LingerLater(Attack):
    """Sockets are parked without it, and get it while nobody asks: begin parks, "linger" sets it and gives up our copies."""
    name = "linger-later"

    def begin(self) -> dict:
        self.stuffed = [Stuffed(struct.pack("ii", 0, 0)) for _ in range(self.count or 3)]
        with self.agent() as agent:
            statuses = [agent.save_endp_inline(600, self.label(), "", each.end.fileno()) for each in self.stuffed]
        return {"statuses": statuses}

    def command(self, word: str) -> dict:
        assert word == "linger"
        for each in self.stuffed:
            each.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            each.pass_on()
        return {}

    def end(self) -> dict:
        for each in self.stuffed:
            each.close()
        return {}


class SlowCloses(Attack):
    """Files on FUSE, whose close(2) does not come back, where none belong."""
    name = "slow-closes"

    def prepare(self) -> None:
        self.file = SlowFile()  # an ordinary user has fusermount(1) for it

    def begin(self) -> dict:
        if self.file.unavailable:
            return {"skip": f"no file system of our own here: {self.file.unavailable}"}
        self.file.hold_all_but(os.getpid())
        self.agents = [self.agent() for _ in range(4)]
        for i in range(self.count or 100):
            agent = self.agents[i % len(self.agents)]
            agent.send_list(lists.save_endp(600, self.label(), ""), [self.file.fd])
        deadline = time.monotonic() + TIMEOUT
        while not self.file.held() and time.monotonic() < deadline:
            time.sleep(0.001)
        return {"held": self.file.held()}

    def end(self) -> dict:
        self.file.release()
        for agent in self.agents:
            agent.close()
        return {}


class Forge(Attack):
    """Parks sockets that are connected to somebody who would take a farewell for the daemon's own word.

    --to is that somebody's address, and FORGED says which words. Begin returns with what the daemon answered, when what it did
    not refuse has been let go."""
    kind = socket.SOCK_DGRAM
    words: tuple[str, ...] = ()

    def opening(self, end: socket.socket) -> None:
        """What has to be said first."""

    def begin(self) -> dict:
        statuses = []
        with self.agent() as agent:
            for word in self.words:
                with socket.socket(socket.AF_UNIX, self.kind) as end:
                    end.connect(self.to)
                    self.opening(end)
                    statuses.append(agent.save_endp_inline(1, self.label(), "", end.fileno(), farewell=word))
            with socket.create_server(("127.0.0.1", 0)) as server:
                last = socket.create_connection(server.getsockname())
                peer, _ = server.accept()
            peer.settimeout(5)
            assert agent.save_endp_inline(1, self.label(), "", last.fileno(), farewell="last") == OK
            last.close()
            peer.recv(100)
            peer.close()
        return {"statuses": statuses}


class ForgeNotify(Forge):
    """The service manager's notify socket."""
    name = "forge-notify"
    words = ("STATUS=forged", "STOPPING=1", "WATCHDOG=trigger", "MAINPID=1", "FDSTOREREMOVE=1\nFDNAME=connections")


class ForgeJournal(Forge):
    """The journal's native socket."""
    name = "forge-journal"
    words = ("MESSAGE=forged\nPRIORITY=0\n",)


class ForgeSyslog(Forge):
    """The journal's socket for syslog(3)."""
    name = "forge-syslog"
    words = ("<0>scached: forged",)


class ForgeStdout(Forge):
    """The journal's socket for standard output, which is a stream: the journal asks for the sender of each message."""
    name = "forge-stdout"
    kind = socket.SOCK_STREAM
    words = ("forged\n",)

    def opening(self, end: socket.socket) -> None:
        end.sendall(b"innocent\n\n6\n0\n0\n0\n0\n")


class ForgeBus(Forge):
    """The message bus, which answers each line in turn. Begin returns its first answer, too, which is to us unless the daemon has
    spoken."""
    name = "forge-bus"
    kind = socket.SOCK_STREAM
    words = ("AUTH EXTERNAL 30\r\n",)   # 30 is user 0, in the bus's way to write it

    def opening(self, end: socket.socket) -> None:
        end.sendall(b"\0")
        self.kept = end.dup()

    def begin(self) -> dict:
        told = super().begin()
        with self.kept as kept:
            kept.settimeout(5)
            kept.sendall(b"AUTH EXTERNAL %s\r\n" % str(os.getuid()).encode().hex().encode())
            return {**told, "heard": kept.recv(100).decode().split()[0]}


class InFlight(Attack):
    """Connections are saved and found inline by agents that never read: each one found is a descriptor in flight."""
    name = "in-flight"

    def begin(self) -> dict:
        self.agents: list[Agent] = []
        self.pairs = [socket.socketpair() for _ in range(16)]
        for _ in range(self.count or 20):
            agent = self.agent()
            agent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self.agents.append(agent)
        deadline = time.monotonic() + TIMEOUT
        while self.work() == 0 and time.monotonic() < deadline:
            pass
        return {"agents": len(self.agents)}

    def work(self) -> float:
        has_sent = False
        for agent in list(self.agents):
            label = self.label()
            find = encode(lists.find_endp(label) + [("handover", "inline")])
            for _, end in self.pairs[:4]:
                save = encode(lists.save_endp(60, label, ""))
                try:
                    socket.send_fds(agent.socket, [save], [end.fileno()], socket.MSG_DONTWAIT)
                    agent.socket.send(find, socket.MSG_DONTWAIT)
                    has_sent = True
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno == errno.ETOOMANYREFS:  # our own limit
                        return 0.01
                    agent.close()  # cut off: as it should be
                    self.agents.remove(agent)
                    break
        return 0.0 if has_sent else 0.01

    def end(self) -> dict:
        for agent in self.agents:
            agent.close()
        for pair in self.pairs:
            for end in pair:
                end.close()
        return {}


class Flood(Attack):
    """Connects 7,000 times a second, and hangs up after a while, so that there are always many of them."""
    name = "flood"
    rate = 7000
    batch = 70
    held = 1500

    def begin(self) -> dict:
        self.callers: list[socket.socket] = []
        self.turn = time.monotonic()
        self.called = 0
        return {}

    def work(self) -> float:
        for _ in range(self.batch):
            caller = socket.socket(socket.AF_UNIX)
            caller.setblocking(False)
            try:
                caller.connect(self.path)
            except OSError:
                caller.close()
                break
            self.callers.append(caller)
            self.called += 1
        while len(self.callers) > self.held:
            self.callers.pop(0).close()
        self.turn = max(self.turn + self.batch / self.rate, time.monotonic() - 0.1)
        return self.turn - time.monotonic()

    def end(self) -> dict:
        for caller in self.callers:
            caller.close()
        return {"called": self.called}


class Fill(Attack):
    """Parks as many connections as --count says, more than there may be."""
    name = "fill"

    def begin(self) -> dict:
        self.peers = []
        statuses = {}
        with self.agent() as agent:
            for _ in range(self.count or 1500):
                end, peer = socket.socketpair()
                label = self.label()
                status = agent.save(3600, label, "", label, "", end.fileno())
                statuses[status] = statuses.get(status, 0) + 1
                self.peers.append(peer)
                end.close()
        return {"statuses": statuses}

    def end(self) -> dict:
        for peer in self.peers:
            peer.close()
        return {}


class HalfRequests(Attack):
    """As many agents as --count says send the most that a request may have, and not its end."""
    name = "half-requests"
    size = 100000

    def begin(self) -> dict:
        self.agents = []
        data = b"request\0" + b"x" * self.size
        for _ in range(self.count or 1000):
            agent = socket.socket(socket.AF_UNIX)
            agent.settimeout(TIMEOUT)
            agent.connect(self.path)
            # Cut off, or not read any further: as it should be.
            with contextlib.suppress(OSError):
                agent.sendall(data)
            self.agents.append(agent)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any(map(unread, self.agents)):
            time.sleep(0.01)
        return {}

    def end(self) -> dict:
        for agent in self.agents:
            agent.close()
        return {}


class OwnSocket(Attack):
    """Parks the socket over which it talks to the daemon over and over, so that each answer wakes each copy; then talks on, at a
    modest pace. Copies for which an answer is still there when the daemon looks have spoken and are gone, so it reads at once."""
    name = "own-socket"
    pause = 0.002

    def begin(self) -> dict:
        self.talker, parker = self.agent(), self.agent()
        count = self.count or 8000
        statuses = [parker.save_endp_inline(60, self.name, "", self.talker.socket.fileno()) for _ in range(count)]
        parker.close()
        self.answers = 0
        return {"parked": statuses.count(OK)}

    def work(self) -> float:
        self.talker.socket.send(encode(lists.find_endp("nothing")))
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):  # whoever sleeps comes too late
                self.answers += len(self.talker.socket.recv(4096, socket.MSG_DONTWAIT)) > 0
                break
        return self.pause

    def end(self) -> dict:
        self.talker.socket.shutdown(socket.SHUT_RDWR)  # each copy hangs up
        self.talker.close()
        return {"answers": self.answers}


class Noise(Attack):
    """Malformed requests at a modest pace, about each of which there is something to say."""
    name = "noise"
    rate = 2000

    def begin(self) -> dict:
        self.attacker = self.agent()
        return {}

    def work(self) -> float:
        for _ in range(self.rate // 100):
            self.attacker.send(b"request\0no such request\0\0")
        for _ in range(self.rate // 100):
            self.attacker.read_list()
        return 0.01

    def end(self) -> dict:
        self.attacker.close()
        return {}


class FullQueue(Attack):
    """Keeps the queue of a datagram socket full, which --to names: the service manager's, or the journal's."""
    name = "full-queue"

    def begin(self) -> dict:
        # The queue has room for more than a sender's own buffer does.
        self.senders = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(8)]
        for sender in self.senders:
            sender.setblocking(False)
            sender.connect(self.to)
        self.work()
        return {}

    def work(self) -> float:
        for sender in self.senders:
            with contextlib.suppress(BlockingIOError):
                for _ in range(2000):
                    sender.send(b"X_NOTHING=1")
        return 0.002

    def end(self) -> dict:
        for sender in self.senders:
            sender.close()
        return {}


def become(uid: Optional[int], group: Optional[str]) -> None:
    """An ordinary user, in this group alone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if uid is None:
        return
    os.setgroups([grp.getgrnam(group).gr_gid] if group else [])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def tell(**message) -> None:
    print(json.dumps(message), flush=True)


def told(seconds: float) -> Optional[str]:
    """The next command; None if there is none so far. The end of all commands is the end."""
    ready = select.poll()
    ready.register(0, select.POLLIN)
    if not ready.poll(max(0, seconds) * 1000):
        return None
    line = os.read(0, 100).decode()
    if not line:
        sys.exit()
    return line.strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=ALL)
    parser.add_argument("socket")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--group")
    parser.add_argument("--dialect", default="native")
    parser.add_argument("--count", type=int)
    parser.add_argument("--to", default="")
    options = parser.parse_args()
    signal.alarm(LIFE)
    attack = ALL[options.name](options)
    attack.prepare()
    become(options.uid, options.group)
    os.nice(5)  # it is the daemon that is to be measured, not the scheduler
    tell(ready=True)
    is_on, pause = False, 1.0
    while True:
        word = told(pause)
        if word == "begin":
            tell(**attack.begin())
            is_on, pause = True, 0.0
        elif word == "end":
            tell(**attack.end() if is_on else {})
            is_on, pause = False, 1.0
        elif word is not None:
            tell(**attack.command(word))
        elif is_on:
            try:
                pause = attack.work()
            except (ProtocolError, OSError):  # cut off, or left waiting: whatever the daemon does to it is right
                pause = 1.0


if __name__ == "__main__":
    main()
