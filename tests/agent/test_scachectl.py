# SPDX-License-Identifier: LGPL-2.1-or-later
"""scachectl(1): what it prints, at which width, with which exit status, and what it says when something is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest

import launch
from connection import Connection, identity, wait_until
from tool import CONTROL, LABEL, Tool, daemon, manager, one_sentence, tool

pytestmark = pytest.mark.usefixtures("built")

COMPLETIONS = launch.REPOSITORY / "src/scachectl/completion"
SO_PASSRIGHTS = 83  # since Linux 6.16


# For administrators.

def test_status(tool, daemon):
    agent = daemon.agent("native")
    agent.park(LABEL)
    agent.find_endp_inline("nowhere")
    said = tool("status").stdout
    assert re.search(rf"^scached \S+, process {daemon.pid}$", said, re.MULTILINE)
    assert re.search(r"Connections: 1 parked", said) and re.search(r"Endpoints looked up: 1, 0% found", said)
    assert re.search(r"Deliveries: 0$", said, re.MULTILINE)
    numbers = json.loads(tool("status", "--json").stdout)
    assert (numbers["connections"], numbers["endpoint_misses"], numbers["process_id"]) == (1, 1, daemon.pid)


def test_json_has_nothing_that_a_terminal_obeys(tool, daemon):
    """Controls of ISO 6429, of direction, and separators of lines, in UTF-8."""
    characters = [0x1b, 0x7f, 0x80, 0x9b, 0x9f, 0x61c, 0x200e, 0x202a, 0x202e, 0x2028, 0x2066, 0x2069]
    label = "".join(f"{chr(c)}x" for c in characters) + "\u00e9\u20ac\U0001d11e"
    daemon.agent("native").park(label)
    said = tool("list", "--json").stdout
    assert json.loads(said)[0]["endpoint"] == label
    assert not set(said) & {chr(c) for c in characters} and "\u00e9\u20ac\U0001d11e" in said


def test_list(tool, daemon):
    agent = daemon.agent("native")
    labels = [LABEL, "caf\u00e9 \"quoted\" \\", b"\xff\xc3\xa9\x01"]
    for label in labels:
        agent.park(label, "a secret")
        agent.bind("destination", label, "a secret")
    lines = [line.split("\t") for line in tool("list").stdout.splitlines()]
    assert {line[3] for line in lines} == {r"smtp\n192.0.2.1\n25", r'caf\xc3\xa9 "quoted" \\', r"\xff\xc3\xa9\x01"}
    assert all(len(line) == 4 and line[0] == "root" or os.getuid() for line in lines)
    assert all(0 <= float(line[1]) < 60 and 3500 < float(line[2]) <= 3600 for line in lines)

    entries = json.loads(tool("list", "--json").stdout)
    assert {entry["endpoint"] for entry in entries} == {LABEL, labels[1], "\u00ff\u00c3\u00a9\u0001"}
    assert all(set(entry) == {"endpoint", "user", "age_us", "remaining_us"} for entry in entries)
    entries = json.loads(tool("list", "--json", "--destination", "dest*").stdout)
    assert len(entries) == 3 and all(entry["destination"] == "destination" for entry in entries)

    assert tool("list", "--endpoint=*192*").stdout.count("\n") == 1
    assert tool("list", "--user=12345").stdout == ""
    assert json.loads(tool("list", "--json", "--user=12345").stdout) == []
    assert "secret" not in tool("list").stdout + tool("list", "--bindings", "--json").stdout


@pytest.mark.parametrize("columns", [40, 80, 132])
def test_a_table_fits_the_terminal(tool, daemon, columns):
    agent = daemon.agent("native")
    agent.park("smtp\n" + "a very long label " * 10)
    agent.park("short")
    agent.bind("the destination " * 9, "smtp\n" + "a very long label " * 10)
    for arguments in (("list",), ("list", "--bindings"), ("list", "--destination=*")):
        lines = tool.on_terminal(*arguments, columns=columns, env={"NO_COLOR": "1"}).splitlines()
        assert lines[0].split()[:3] == ["USER", "AGE", "LEFT"]
        assert max(map(len, lines)) <= columns, lines
        assert any("..." in line for line in lines)
        assert re.fullmatch(r"\d (connections|bindings?)", lines[-1])


def test_everything_fits_into_80_columns(tool, daemon):
    daemon.agent("native").park(LABEL)
    for arguments in (("status",), ("flush", "nothing"), ("watch", "--count=1"), ("list",)):
        said = tool.on_terminal(*arguments, env={"NO_COLOR": "1"})
        assert max(len(line) for line in re.sub("\033\\[[HJ0-9]*", "", said).splitlines()) <= 80, said
    assert max(map(len, helped("--help").splitlines())) <= 80


def test_colours(tool, daemon):
    """Only on a terminal that knows them, and not where they are unwanted."""
    assert "\033[1m" in tool.on_terminal("status")
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\033" not in tool.on_terminal("status", env=env) + tool.on_terminal("list", env=env)
    assert "\033" not in tool("status").stdout + tool("list").stdout + tool("watch", "--count=1").stdout


def test_flush(tool, daemon):
    agent = daemon.agent("native")
    connections = {}
    for i in range(5):
        connection = connections[i] = Connection()
        assert agent.save_endp_inline(3600, f"host [{i}] *?\\", "", connection.fd, farewell="QUIT\r\n") == 0
        connection.pass_on()
        agent.bind(f"domain{i}", f"host [{i}] *?\\")
    assert tool("flush", "host ?[01]*").stdout == "Flushed 2 connections.\n"
    assert connections[0].wait_let_go() == b"QUIT\r\n"
    assert tool("flush", "--destination=*2", "another").stdout == "Flushed 0 connections.\n"
    assert tool("flush", "--destination=*2").stdout == "Flushed 1 connection.\n"
    assert connections[2].wait_let_go() == b"QUIT\r\n"
    assert json.loads(tool("flush", "--json", "nothing").stdout) == {"flushed": 0}
    assert json.loads(tool("flush", "--json").stdout) == {"flushed": 2}
    for connection in connections.values():
        connection.close()


def test_watch(tool, daemon):
    lines = tool("watch", "--count=3", "--interval=0.05").stdout.splitlines()
    assert len(lines) == 3 and all("lookups_per_second=" in line for line in lines)
    objects = [json.loads(line) for line in tool("watch", "--json", "--count=2", "--interval=0.05").stdout.splitlines()]
    assert [numbers["connections"] for numbers in objects] == [0, 0]
    assert tool.on_terminal("watch", "--count=2", "--interval=0.05").count("lookups/s") == 2


def test_watch_across_a_restart(tool, manager, daemon):
    with subprocess.Popen(tool.command("watch", "--json", "--interval=0.02"), text=True,
                          stdout=subprocess.PIPE) as process:
        try:
            assert json.loads(process.stdout.readline())["process_id"] == daemon.pid
            daemon.stop()
            daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
            wait_until(lambda: json.loads(process.stdout.readline())["process_id"] == daemon.pid, "the new one")
        finally:
            process.terminate()


# For scripts.

def test_save_and_find(tool, daemon):
    peer, end = socket.socketpair()
    with peer, end:
        tool("save-endp", "--ttl=60", "--property=the property", "--farewell=BYE\\r\\n", LABEL, stdin=end)
        tool("save-dest", "--property=of the binding", "domain", LABEL)
        script = 'printf "%s, %s\\n" "$SCACHE_PROPERTY" "$SCACHE_DESTINATION_PROPERTY"; exec readlink /proc/self/fd/0'
        tool("find-dest", "domain", "--", "sh", "-c", script)
        assert peer.recv(1000).decode() == f"the property, of the binding\nsocket:[{identity(end.fileno())}]\n"
        # The command is gone, and so is the connection.
        said = tool("find-endp", LABEL, "--", "true", status=1)
        assert said.stderr == 'scachectl: No connection is parked under "smtp\\n192.0.2.1\\n25".\n'


def test_farewell_and_descriptor(tool, daemon):
    peer, end = socket.socketpair()
    with peer, end:
        tool("save-endp", "--farewell=BYE\\\\\\r\\n", f"--fd={end.fileno()}", "--", "-label", pass_fds=[end.fileno()])
        end.close()
        tool("flush")
        peer.settimeout(10)
        assert peer.recv(100) == b"BYE\\\r\n"


def test_epoch(tool, daemon):
    """What was saved in one is found in no other."""
    peer, end = socket.socketpair()
    with peer, end:
        tool("save-endp", "--epoch=7", "mx1", stdin=end)
        tool("save-dest", "--epoch=7", "domain", "mx1")
        for other in (["--epoch=8"], []):
            tool("find-dest", *other, "domain", "--", "true", status=1)
            tool("find-endp", *other, "mx1", "--", "true", status=1)
        tool("find-dest", "--epoch=7", "domain", "--", "true")


def test_command_parks_it_again(tool, daemon):
    """The example of scachectl(1)."""
    connection = daemon.agent("native").park("mx1")
    again = f'printf "NOOP\\r\\n"; read answer; echo "$answer" >&2; {tool.binary} --native {daemon.path("native")} ' \
            'save-endp --ttl=60 mx1'
    process = subprocess.Popen(tool.command("find-endp", "mx1", "--", "sh", "-c", again), text=True,
                               stderr=subprocess.PIPE)
    assert connection.peer.recv(100) == b"NOOP\r\n"
    connection.peer.sendall(b"250 Ok\n")
    assert process.communicate(timeout=20)[1] == "250 Ok\n" and process.returncode == 0
    assert tool("list").stdout.split("\t")[-1] == "mx1\n"


@pytest.mark.parametrize("arguments, status, says", [
    (("find-endp", "mx1", "--", "false"), 1, None), (("find-endp", "mx1", "--", "sh", "-c", "exit 42"), 42, None),
    (("find-endp", "mx1", "--", "/nonexistent"), 127, "Could not run /nonexistent: No such file"),
    (("find-endp", "mx1", "--", "/etc/passwd"), 126, "Could not run /etc/passwd: Permission denied")])
def test_status_of_the_command(tool, daemon, arguments, status, says):
    daemon.agent("native").park("mx1")
    said = tool(*arguments, status=status).stderr
    assert said == "" if says is None else says in said


# What it says when something is wrong: one sentence, which says what to do.

@pytest.mark.parametrize("arguments", [
    (), ("sing",), ("status", "now"), ("list", "--ttl=3"), ("save-endp",), ("save-dest", "destination"),
    ("find-endp", "label"), ("watch", "--interval=0"), ("watch", "--interval=nan"), ("save-endp", "--ttl=0", "x"),
    ("save-endp", "--ttl=-1", "x"), ("list", "--user=nobody at all"), ("save-endp", "--fd=x", "x"),
    ("--timeout=", "status"), ("flush", "a", "b"), ("--nonsense",)])
def test_usage(arguments):
    binary = str(launch.program("scachectl"))
    said = subprocess.run([binary, *arguments], text=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert said.returncode == 64
    if arguments != ("--nonsense",):  # getopt_long(3) has said it, by its own name
        assert "--help" in one_sentence(said)


@pytest.mark.parametrize("arguments, unit", [
    *[((name,), "scached-control.socket") for name in CONTROL],
    (("save-dest", "a", "b"), "scached.socket"), (("find-endp", "a", "--", "true"), "scached.socket")])
def test_nobody_listens(make_manager, arguments, unit):
    """Neither without a socket, nor with one that nobody serves."""
    tool = Tool(make_manager(sockets=[]))
    tool.manager.path = lambda name: str(tool.manager.folder / name)
    for path in (None, tool.manager.path("control"), tool.manager.path("native")):
        if path:
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(path)
        said = one_sentence(tool(*arguments, status=69))
        assert f"systemctl enable --now {unit}" in said and str(tool.manager.folder) in said


@pytest.mark.plain_start("listens in the place of the service")
def test_no_descriptor_passes(tool, connections):
    """The socket is one with AcceptFileDescriptors=no: what the kernel says of it is EPERM."""
    path = str(tool.manager.folder / "closed")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            pytest.skip("this kernel has no SO_PASSRIGHTS")
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        said = one_sentence(tool("save-endp", "label", "--socket", path, stdin=connections().fd, status=77))
        assert "AcceptFileDescriptors=no" in said and "scached.socket" in said
        thread.join()


def greet(listener: socket.socket) -> None:
    """As the native socket does; and wait until the agent is gone."""
    agent, _ = listener.accept()
    with agent:
        agent.sendall(b"protocol\0connection_cache_protocol\0extensions\0save inline farewell\0\0")
        while agent.recv(1000):
            pass


def test_no_permission(tool, daemon, root):
    os.chmod(daemon.path("control"), 0o600)
    # Another user may not get at what was built here, but the folder with the sockets is open to all.
    tool.binary = shutil.copy(tool.binary, tool.manager.folder / "scachectl")
    said = subprocess.run(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *tool.command("status")],
                          text=True, capture_output=True)
    assert said.returncode == 77 and 'group "scache-admin"' in one_sentence(said)


@pytest.mark.plain_start("changes who may use the sockets")
def test_ones_own_without_permission(tool, daemon, root):
    """An agent's user sees and flushes what is theirs, with a word about it, and nothing on the control socket."""
    uid = 54321
    for owner, label in ((uid, "mine"), (0, "root's")):
        daemon.agent("native", uid=owner).park(label)
    os.chmod(daemon.path("control"), 0o600)
    os.chmod(daemon.path("native"), 0o666)
    binary = shutil.copy(tool.binary, tool.manager.folder / "scachectl")

    def ask(*arguments: str) -> subprocess.CompletedProcess:
        # The default paths of both sockets lead to those of this test, in a mount namespace of its own.
        script = "mount -t tmpfs none /run && mkdir /run/scached && " \
                 'ln -s "$1" /run/scached/control.sock && ln -s "$2" /run/scached/scached.sock && shift 2 && ' \
                 f'exec setpriv --reuid={uid} --regid={uid} --clear-groups "$@"'
        return subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", daemon.path("control"), daemon.path("native"),
                               str(binary), *arguments], text=True, capture_output=True)

    said = ask("list", "--json")
    assert said.returncode == 0, said.stderr
    assert [entry["endpoint"] for entry in json.loads(said.stdout)] == ["mine"]
    assert said.stderr.count("\n") == 1 and "your own connections only" in said.stderr
    assert ask("status").returncode == 77
    assert ask("flush").stdout == "Flushed 1 connection.\n"
    assert [entry["endpoint"] for entry in json.loads(tool("list", "--json").stdout)] == ["root's"]


def test_wrong_socket(tool, daemon):
    said = one_sentence(tool("status", "--socket", daemon.path("native"), status=76))
    assert "scached-control.socket" in said
    said = one_sentence(tool("save-dest", "--socket", daemon.path("control"), "a", "b", status=76))
    assert "scached.socket" in said


def test_no_answer(make_manager):
    """There is a socket, and the service behind it does not come."""
    tool = Tool(make_manager(sockets=["native", "control"]))
    for arguments in (("status",), ("save-dest", "a", "b")):
        said = one_sentence(tool("--timeout=0.1", *arguments, status=75) if arguments[0] not in CONTROL
                            else tool(*arguments, "--timeout=0.1", status=75))
        assert "systemctl status scached.service" in said


def test_not_a_socket(tool, daemon):
    assert "not a socket" in one_sentence(tool("save-endp", "label", status=64))


def test_output_goes_nowhere(tool, daemon):
    with open("/dev/full", "w") as full:
        said = subprocess.run(tool.command("status"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert said.returncode == 74 and "No space left" in said.stderr


# Its help.

COMMANDS = (*CONTROL, "save-endp", "save-dest", "find-endp", "find-dest", "postfix", "fleet")


def helped(*arguments: str) -> str:
    return subprocess.run([str(launch.program("scachectl")), *arguments], text=True, check=True,
                          stdout=subprocess.PIPE).stdout


def section(text: str, heading: str) -> list[str]:
    """The lines below a heading of a help text, up to the next blank line."""
    return text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0].splitlines()


def options_of(command: str) -> set[str]:
    return set(re.findall(r"(?m)^  --([a-z-]+)", "\n".join(section(helped(command, "--help"), "Options"))))


def test_help_names_every_command():
    said = helped("--help")
    assert [line.split()[0] for line in section(said, "Commands")] == list(COMMANDS)
    assert helped("help") == said and len(said.splitlines()) <= 24


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_own_help(command):
    said = helped(command, "--help")
    assert helped("--help", command) == helped("help", command) == helped(command, "-h") == said
    assert said.startswith(f"Usage: scachectl {command} ")
    assert max(map(len, said.splitlines())) <= 80 and len(said.splitlines()) <= 36
    assert len(options_of(command)) >= 2
    examples = section(said, "Examples")
    assert examples and f"scachectl {command}" in examples[0]
    assert set(re.findall(r" --([a-z-]+)", "\n".join(examples))) <= options_of(command)
    assert ("\nExit status:\n" in said) == (command in ("find-endp", "find-dest", "postfix"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_all_options_that_a_command_takes(command):
    """And no other is taken."""
    taken = options_of(command)
    for other in set().union(*map(options_of, COMMANDS)) - taken:
        value = "" if other in ("json", "legacy", "bindings") else "=1"
        said = subprocess.run([str(launch.program("scachectl")), command, f"--{other}{value}"], text=True,
                              capture_output=True)
        assert said.returncode == 64
        assert one_sentence(said) == f'scachectl: {command} has no option --{other}; see "scachectl {command} --help".\n'


@pytest.mark.parametrize("arguments, says", [
    ((), 'No command given; see "scachectl --help".'), (("sing",), 'Unknown command "sing"; see "scachectl --help".'),
    (("--help", "sing"), 'Unknown command "sing"; see "scachectl --help".'),
    (("--ttl", "soon", "save-endp", "x"), 'Invalid value "soon" for --ttl; see "scachectl save-endp --help".'),
    (("find-endp", "label"), 'Usage: scachectl find-endp [OPTIONS] LABEL -- COMMAND...; see "scachectl find-endp --help".'),
    (("postfix", "on"), 'Usage: scachectl postfix [OPTIONS] enable|disable; see "scachectl postfix --help".'),
])
def test_bad_usage_names_the_help_that_helps(arguments, says):
    said = subprocess.run([str(launch.program("scachectl")), *arguments], text=True, capture_output=True)
    assert said.returncode == 64 and one_sentence(said) == f"scachectl: {says}\n"


# Its surroundings.

def test_manual_page_and_completions_know_every_option():
    options = set().union(*map(options_of, COMMANDS)) | {"help", "version"}
    assert len(options) > 15
    page = (launch.REPOSITORY / "man/scachectl.1").read_text()
    assert not [name for name in options if f"Fl -{name}" not in page]
    assert not [name for name in COMMANDS if not re.search(rf"^\.(Cm|It Cm) .*\b{name}\b", page, re.MULTILINE)]
    for file in ("scachectl.bash", "_scachectl"):
        text = (COMPLETIONS / file).read_text()
        assert not [name for name in options if f"--{name}" not in text], file
        assert not [name for name in (*COMMANDS, "help") if name not in text], file


def complete(*words: str) -> set[str]:
    script = f'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() {{ :; }}; _scachectl; ' \
             'printf "%s\n" "${COMPREPLY[@]}"'
    said = subprocess.run(["bash", "-c", script, "bash", str(COMPLETIONS / "scachectl.bash"), *words], text=True,
                          capture_output=True, check=True)
    assert said.stderr == ""
    return set(said.stdout.split())


needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")


@needs_bash
@pytest.mark.parametrize("words, expected", [
    (["scachectl", "st"], {"status"}), (["scachectl", "save-"], {"save-endp", "save-dest"}),
    (["scachectl", "list", "--bi"], {"--bindings"}), (["scachectl", "status", "--json", "--us"], set()),
    (["scachectl", "--json", "flu"], {"flush"}), (["scachectl", "find-endp", "x", ""], {"--"}),
    (["scachectl", "he"], {"help"}), (["scachectl", "help", "st"], {"status"})])
def test_bash_completion(words, expected):
    assert complete(*words) == expected


@needs_bash
@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes_the_options_that_a_command_takes(command):
    assert {word.strip("-=") for word in complete("scachectl", command, "--")} == options_of(command) | {"help"}
