# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rig itself: whatever else fails, it must not be the machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kernel
import rig
from rig import REPO, CommandFailed, Machine, MachineError, readable

# It takes about 0.15 s on two free cores. One that takes this long is not a rig to work with.
BOOT_SECONDS = 10


def mount_table() -> list[str]:
    """The mounts that look like a machine's: others may come and go on a busy host."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in table if re.search(r"/tmp/(0|root)\b|/run/host\b", line)]


def inhabitants(pid_namespace: str) -> list[str]:
    """The processes in a pid namespace, except the dead that only their parent can bury."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status = (process / "status").read_text()
            if os.readlink(process / "ns/pid") == pid_namespace and "\nState:\tZ" not in status:
                found.append(status.splitlines()[0])
        except OSError:
            pass
    return found


def wait_gone(pid: int, timeout: float = 30) -> None:
    """Wait until a process that need not be a child has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert readable(pidfd, timeout), f"process {pid} still runs after {timeout} s"
    finally:
        os.close(pidfd)


def test_boots_quickly_and_completely(fresh_machine):
    print(f"booted in {fresh_machine.boot_seconds:.2f} s")
    assert fresh_machine.boot_seconds < BOOT_SECONDS
    state = fresh_machine.systemctl("is-system-running", check=False).stdout.strip()
    print(state, fresh_machine.systemctl("--failed").stdout)   # a unit of this host's may well fail
    assert state in ("running", "degraded")


def test_starts_nothing_of_the_host(fresh_machine):
    assert fresh_machine.run("ls -d /etc/systemd/system/*.wants", check=False).stdout == ""
    assert fresh_machine.run("ls -A /run/systemd/generator*", check=False).stdout == ""


def test_own_network_names_and_processes(machine):
    assert re.search(r"\blo:.*\bUP\b", machine.run("ip link show lo").stdout)
    assert machine.run("hostname").stdout == "machine\n"
    assert machine.run("cat /proc/1/comm").stdout == "systemd\n"
    assert machine.run("getent hosts localhost").stdout
    assert machine.read("/etc/machine-id") != Path("/etc/machine-id").read_text()


def test_changes_stay_inside(machine):
    machine.write("/usr/share/scached-test/file", "inside\n", mode=0o640)
    assert machine.read("/usr/share/scached-test/file") == "inside\n"
    assert machine.run("stat -c %a /usr/share/scached-test/file").stdout == "640\n"
    assert not os.path.exists("/usr/share/scached-test")
    with pytest.raises(CommandFailed, match="[Rr]ead-only"):
        machine.run("touch /run/host/repo/file")
    with pytest.raises(CommandFailed, match="[Rr]ead-only"):
        machine.run("cd /proc/sys/kernel; cat threads-max > threads-max")


def test_cannot_reach_the_clock_or_the_modules_of_the_host(machine):
    status = "grep CapBnd /proc/self/status"
    for command in (status, f"systemd-run --pipe --wait --quiet {status}"):
        bounding = int(machine.run(command).stdout.split()[1], 16)
        assert not bounding & (1 << 25 | 1 << 16), "CAP_SYS_TIME or CAP_SYS_MODULE"


def test_run_reports_what_happened(machine):
    result = machine.run("read line; echo out $line; echo err >&2; exit 3", input="in\n",
                         check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out in\n", "err\n", 3)
    with pytest.raises(CommandFailed, match="status 3"):
        machine.run("exit 3")
    with pytest.raises(CommandFailed, match=r"(?s)did not end within \S+ s.*so far"):
        machine.run("echo so far; sleep 60; true", timeout=0.2)
    machine.wait(lambda: "sleep" not in machine.run("cat /proc/[0-9]*/comm", check=False).stdout,
                 what="what took too long is dead, with its children")
    assert machine.run("kill -TERM $$", check=False).returncode == -signal.SIGTERM
    assert machine.run(["id", "-un"], user="nobody").stdout == "nobody\n"
    assert machine.run("pwd; echo $WORD", cwd="/var", env={"WORD": "word"}).stdout == "/var\nword\n"
    with pytest.raises(FileNotFoundError):
        machine.run(["no-such-command"])


def test_run_does_not_wait_for_what_it_leaves_behind(machine):
    pid = machine.run("sleep 600 & echo $!", timeout=5).stdout
    machine.run(f"kill {pid}")


def test_popen_is_a_child_inside(machine):
    process = machine.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate("text") == ("text", None)
    process = machine.popen(["sleep", "600"])
    assert os.readlink(f"/proc/{process.pid}/ns/pid") == os.readlink(f"/proc/{machine.pid}/ns/pid")
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM


def test_python_inside(machine):
    code = "import sys, rig; print(rig.__file__, *sys.argv[1:])"
    assert machine.python(code, "a", 1).stdout == "/run/host/repo/tests/system/rig.py a 1\n"
    machine.python(Path(rig.__file__))
    with pytest.raises(ValueError):
        machine.inside(Path("/usr"))


def test_sockets_in_the_machines_network(machine):
    with machine.network():
        listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        machine.python(f"import socket; socket.create_connection(('127.0.0.1', {port}))")


def test_journal(machine):
    machine.run(["systemd-run", "--wait", "--unit=first", "echo", "one"])
    end = machine.journal_end()
    machine.run(["systemd-run", "--wait", "--unit=second", "sh", "-c", "printf 'two \\377\\n'"])

    assert [e["MESSAGE"] for e in machine.journal("first.service", _TRANSPORT="stdout")] == ["one"]
    assert [e["MESSAGE"] for e in machine.journal(after=end, _TRANSPORT="stdout")] == ["two \ufffd"]
    assert machine.journal("first.service", after=end) == []
    # The first entry after the position, though the one at it belongs to another unit.
    started = "39f53479d3a045ac8e11786248231fbf"   # SD_MESSAGE_UNIT_STARTED
    assert len(machine.journal("second.service", after=end, MESSAGE_ID=started)) == 1


def test_journal_wait(machine):
    machine.run(["systemd-run", "--wait", "--unit=early", "echo", "before"])
    assert machine.journal_wait("^before$", "early.service")["_SYSTEMD_UNIT"] == "early.service"

    late = machine.popen("read line; logger -t late later", stdin=subprocess.PIPE)
    following = machine.journal_follow(SYSLOG_IDENTIFIER="late")
    late.communicate("go\n")
    assert next(following)["MESSAGE"] == "later"
    following.close()

    with pytest.raises(AssertionError, match="(?s)nothing like 'never'.*late.*later"):
        machine.journal_wait("never", timeout=3)


def test_journal_of_earlier_tests_is_hidden(machine):
    assert machine.journal(SYSLOG_IDENTIFIER="late") == []
    assert machine.journal(after=0, _PID="1")


def test_wait(machine):
    answers = iter([0, None, "yes"])
    assert machine.wait(lambda: next(answers)) == "yes"
    with pytest.raises(AssertionError, match=r"not within \S+ s: the moon; last answer: 0"):
        machine.wait(lambda: 0, timeout=0.05, what="the moon")


def test_dynamic_user(machine):
    command = "id -u; cd /var/lib/scached-test; touch file && stat -c %u file"
    result = machine.run(["systemd-run", "--pipe", "--wait", "--quiet",
                          "--property=DynamicUser=yes", "--property=StateDirectory=scached-test",
                          "sh", "-c", command])
    user, owner = map(int, result.stdout.split())
    assert 61184 <= user <= 65519 and owner == user


def test_system_call_filter(machine):
    result = machine.run(["systemd-run", "--pipe", "--wait", "--quiet", "--collect",
                          "--property=SystemCallFilter=~uname",
                          "--property=SystemCallErrorNumber=EXDEV",
                          "/usr/bin/python3", "-c", "import os; os.uname()"], check=False)
    assert result.returncode == 1 and "Invalid cross-device link" in result.stderr


def test_socket_activation_and_descriptor_store(machine):
    """A descriptor that a service stores is there again after it has been killed."""
    machine.write("/usr/lib/scached-test/keeper", textwrap.dedent("""\
        import os, socket, sys
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.connect(os.environ["NOTIFY_SOCKET"])
        names = os.environ.get("LISTEN_FDNAMES", "").split(":")
        fds = dict(zip(names, range(3, 3 + len(names))))
        listener = socket.socket(fileno=fds["door"])
        if "kept" in fds:
            kept = fds["kept"]
        else:
            kept = os.memfd_create("kept")
            os.write(kept, b"from the first")
            socket.send_fds(notify, [b"FDSTORE=1\\nFDNAME=kept"], [kept])
        notify.send(b"READY=1")
        while True:
            agent = listener.accept()[0]
            agent.send(os.pread(kept, 100, 0) + b" %d" % os.getpid())
            agent.close()
        """))
    machine.write("/etc/systemd/system/keeper.socket", textwrap.dedent("""\
        [Socket]
        ListenStream=/run/keeper.sock
        FileDescriptorName=door
        """))
    machine.write("/etc/systemd/system/keeper.service", textwrap.dedent("""\
        [Service]
        Type=notify
        ExecStart=/usr/bin/python3 /usr/lib/scached-test/keeper
        FileDescriptorStoreMax=8
        """))
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "keeper.socket")
    assert machine.show("keeper.service", "ActiveState") == {"ActiveState": "inactive"}

    ask = ("import socket; agent = socket.socket(socket.AF_UNIX); "
           "agent.connect('/run/keeper.sock'); print(agent.recv(99))")
    first = machine.python(ask).stdout
    assert "from the first" in first
    assert machine.show("keeper.service", "NFileDescriptorStore")["NFileDescriptorStore"] == "1"
    machine.systemctl("restart", "keeper.service")
    second = machine.python(ask).stdout
    assert "from the first" in second and second != first
    machine.systemctl("stop", "keeper.socket", "keeper.service")


def test_machines_side_by_side_and_one_after_another(boot_machine):
    one, two = boot_machine(), boot_machine()
    for machine in (one, two):
        machine.write("/etc/who", str(machine.pid))
    assert (one.read("/etc/who"), two.read("/etc/who")) == (str(one.pid), str(two.pid))
    one.stop()
    assert not one.alive and two.alive
    with pytest.raises(MachineError, match="not running"):
        one.run("true")
    three = boot_machine()
    assert three.run("test -e /etc/who", check=False).returncode == 1


def test_stop_leaves_nothing(boot_machine):
    mounts_before = mount_table()
    machine = boot_machine()
    namespace = os.readlink(f"/proc/{machine.pid}/ns/pid")
    machine.popen("trap '' TERM; sleep 600 & wait")
    machine.run(["systemd-run", "sleep", "600"])
    machine.run("setsid sleep 600 >/dev/null 2>&1 &")
    assert len(inhabitants(namespace)) >= 4
    assert machine.cgroup.is_dir()

    machine.stop()
    assert inhabitants(namespace) == []
    assert not machine.cgroup.exists()
    assert mount_table() == mounts_before
    machine.stop()   # once more does no harm


def test_power_off_inside_leaves_nothing(boot_machine):
    machine = boot_machine()
    supervisor = machine._supervisor.pid
    machine.systemctl("poweroff")
    wait_gone(supervisor)
    assert not machine.alive
    assert not machine.cgroup.exists()
    machine.stop()


CHILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background jobs ignore it
sys.path.insert(0, {folder!r})
from rig import Machine
machine = Machine()
machine.start()
orphan = machine.popen(["sleep", "600"])
print(machine.pid, machine._supervisor.pid, orphan.pid, machine.cgroup, flush=True)
try:
    time.sleep(600)
finally:
    machine.stop()
"""


class Child:
    """Another process with a machine of its own, in which a process of its own runs."""

    def __init__(self):
        code = CHILD.format(folder=str(Path(__file__).parent))
        self.process = subprocess.Popen([sys.executable, "-c", code], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        words = self.process.stdout.readline().split()
        self.pid, self.supervisor, self.orphan = map(int, words[:3])
        self.cgroup = Path(words[3])
        self.namespace = os.readlink(f"/proc/{self.pid}/ns/pid")

    def end(self, number: int) -> None:
        """Signal it, and bury what it leaves behind: the init of many a container does not."""
        self.process.send_signal(number)
        self.process.wait(60)
        for pid in (self.orphan, self.supervisor, self.pid):
            wait_gone(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


@pytest.fixture
def child(machine):
    """Asks for a machine, so that it skips where there can be none."""
    kernel.adopt_orphans(True)
    child = Child()
    yield child
    if child.process.returncode is None:
        child.end(signal.SIGKILL)
    child.process.stdout.close()
    kernel.adopt_orphans(False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_death_of_the_tests_leaves_nothing(child, number):
    mounts_before = mount_table()
    child.end(number)
    assert inhabitants(child.namespace) == []
    assert not child.cgroup.exists()
    assert mount_table() == mounts_before


def test_supervisor_killed(child, boot_machine):
    """The worst case: the machine dies with it, and the next boot sweeps up its control group."""
    os.kill(child.supervisor, signal.SIGKILL)
    wait_gone(child.supervisor)
    child.end(signal.SIGKILL)
    assert inhabitants(child.namespace) == []
    # Another process that boots one at the same time may be the one that sweeps.
    boot_machine().wait(lambda: not child.cgroup.exists(), what="its control group is swept up")


def test_host_that_runs_systemd(machine):
    """On such a host (a machine is one) a machine lives in a scope that systemd has delegated."""
    if re.search(r" / / .* - overlay ", Path("/proc/self/mountinfo").read_text()):
        pytest.skip("overlays nest only two deep, and / is one already")
    before = machine.run("cat /proc/self/mountinfo; ls /sys/fs/cgroup/system.slice").stdout
    machine.python(textwrap.dedent("""\
        from rig import Machine
        with Machine() as machine:
            assert "/system.slice/" in str(machine.cgroup), machine.cgroup
            assert machine.run("echo $(hostname)", user="nobody").stdout == "machine\\n"
        assert not machine.cgroup.exists()
        """), timeout=120)
    assert machine.run("cat /proc/self/mountinfo; ls /sys/fs/cgroup/system.slice").stdout == before


def test_unsupported_host_says_why(machine):
    """Without root, and without the right to make namespaces."""
    code = "from rig import Machine; Machine().start()"
    result = machine.python(code, user="nobody", check=False)
    assert "Unsupported: a machine needs root" in result.stderr
    result = machine.run(["setpriv", "--bounding-set=-sys_admin", "/usr/bin/python3", "-c", code],
                         check=False)
    assert "Unsupported: boot: " in result.stderr


def test_boot_that_fails_says_so(machine):
    broken = Machine(repo=REPO / "no-such-folder")
    with pytest.raises(MachineError, match="(?s)boot failed.*no-such-folder"):
        broken.start()
    assert not broken.alive and not broken.cgroup.exists()


@pytest.mark.parametrize("build", ["build", "../build"])
def test_install(boot_machine, tmp_path, build):
    """From a read-only repository, with a build folder in it and outside."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / build).resolve().mkdir()
    (repo / build / "program").write_text("built\n")
    (repo / "Makefile").write_text("install:\n\tcp $(B)/program $(prefix)/bin/scached-test\n")
    machine = boot_machine(repo=repo, build=(repo / build).resolve())
    machine.install()
    assert machine.read("/usr/bin/scached-test") == "built\n"
    assert machine.inside(repo / build / "program") == Path("/run/host/build/program")
