# SPDX-License-Identifier: LGPL-2.1-or-later
"""scachectl fleet: the transport tables of several hosts. How Postfix uses them: tests/system/test_fleet.py."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

import launch

pytestmark = pytest.mark.usefixtures("built")

HOSTS = ("mx1.example", "mx2.example", "mx3.example")
WORD = (1 << 64) - 1


def fleet(*words: str, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess:
    said = subprocess.run([str(launch.program("scachectl")), "fleet", *words], input=stdin, text=True, capture_output=True,
                          timeout=20 * launch.patience())
    assert said.returncode == status, said
    return said


def table(*words: str, stdin: str) -> dict[str, str]:
    lines = fleet(*words, stdin=stdin).stdout.splitlines()
    return dict(line.split(" ") for line in lines if not line.startswith("#"))


def refusal(*words: str, stdin: str = "", status: int = 64) -> str:
    said = fleet(*words, stdin=stdin, status=status)
    assert said.stdout == "" and said.stderr.startswith("scachectl: ") and said.stderr.endswith(".\n")
    assert said.stderr.count("\n") == 1
    return said.stderr


def siphash13(key: tuple[int, int], data: bytes) -> int:
    """Written from the paper, beside the one in C."""
    v = [half ^ word for half, word in zip(key * 2, (0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261,
                                                     0x7465646279746573))]

    def rotate(x: int, bits: int) -> int:
        return (x << bits | x >> 64 - bits) & WORD

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, left, half in ((0, 1, 13, True), (2, 3, 16, False), (0, 3, 21, False), (2, 1, 17, True)):
                v[a] = (v[a] + v[b]) & WORD
                v[b] = rotate(v[b], left) ^ v[a]
                if half:
                    v[a] = rotate(v[a], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at:at + 8], "little")
        v[3] ^= word
        rounds(1)
        v[0] ^= word
    v[2] ^= 255
    rounds(3)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def owner(destination: str, hosts: dict[str, int]) -> str:
    """As rendezvous.h has it."""
    key = (int.from_bytes(b"scached ", "big"), int.from_bytes(b"fleet ke", "big"))
    return max((siphash13(key, f"{destination} {host} {number}".encode()), host)
               for host, weight in hosts.items() for number in range(weight))[1]


DOMAINS = [f"{name}.example" for name in "abcdefghijklmnopqrstuvwxyz"] + ["bücher.example", "x" * 60 + ".org"]


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 3), (0, 1, 5)])
def test_all_hosts_agree_with_what_is_documented(weights):
    hosts = dict(zip(HOSTS, weights))
    words = [f"{host}={weight}" if weight != 1 else host for host, weight in hosts.items()]
    belongs = {domain: owner(domain, hosts) for domain in DOMAINS}
    for self in HOSTS:
        assert table(*words, f"--self={self}", stdin="\n".join(DOMAINS)) == {
            domain: f"fleet:[{host}]:10625" for domain, host in belongs.items() if host != self}
    assert set(belongs.values()) == {host for host, weight in hosts.items() if weight > 0}


def test_a_line_stays_together():
    lines = [f"{domain} .{domain} also-{domain}" for domain in DOMAINS]
    all_of_a_line = table("a", "b", "--self=a", stdin="\n".join(lines))
    assert 0 < len(all_of_a_line) < 3 * len(DOMAINS)
    firsts = {domain for domain in DOMAINS if domain in all_of_a_line}
    assert set(all_of_a_line) == {word for line in lines for word in line.split() if line.split()[0] in firsts}
    assert table("a", "b", "--self=a", stdin="\n".join(f".{domain}" for domain in DOMAINS)).keys() == {
        f".{domain}" for domain in firsts}


def test_letters_and_lines():
    """As in Postfix's own files: case, comments, blank lines, and a last line without an end."""
    expected = table("a", "b", "--self=b", stdin="\n".join(DOMAINS))
    assert table("B", "A", "--self=B", stdin="# all\n\n  # of them\n\t" + "\r\n ".join(DOMAINS).swapcase()
                 .replace("BÜCHER", "BüCHER").replace("bÜcher", "bücher")) == expected
    assert table("b", "a", "--self=b", stdin="") == {}


def test_this_host_is_known_by_its_name():
    name = socket.gethostname()
    assert table(name, "other.example", stdin="\n".join(DOMAINS)) == table(
        name, "other.example", f"--self={name}", stdin="\n".join(DOMAINS))
    assert f'This host, "{name}", is not among the hosts' in refusal("other.example")


def test_transport_and_port():
    said = table("a", "2001:db8::1", "--self=a", "--transport=elsewhere", "--port=26", stdin="\n".join(DOMAINS))
    assert said and set(said.values()) == {"elsewhere:[2001:db8::1]:26"}


def test_files(tmp_path: Path):
    destinations, output = tmp_path / "destinations", tmp_path / "fleet"
    destinations.write_text("\n".join(DOMAINS))
    words = ("a", "b", "--self=a", f"--destinations={destinations}", f"--output={output}")
    assert fleet(*words).stdout == ""
    written = output.read_text()
    assert written == fleet("a", "b", "--self=a", stdin="\n".join(DOMAINS)).stdout

    # Half of a table would send mail another way: the one before stays.
    destinations.write_text("\n".join([*DOMAINS, "two words.example", "user@example.org", ""]))
    assert f'{destinations}:{len(DOMAINS) + 2}: "user@example.org" is no domain' in refusal(*words, status=65)
    assert output.read_text() == written
    destinations.unlink()
    assert f"Could not read {destinations}: No such file" in refusal(*words, status=66)
    assert f"Could not read {tmp_path}: Is a directory" in refusal(*words[:3], f"--destinations={tmp_path}", status=66)
    assert f"Could not write {tmp_path}/no/file: No such file" in refusal(*words[:3], f"--output={tmp_path}/no/file", status=74)


@pytest.mark.parametrize("words, says", [
    (["a", "b=101"], 'The weight of b is "101", but must be a number from 0 to 100'),
    (["a", "b="], 'The weight of b is ""'), (["a", "b=-1"], 'The weight of b is "-1"'),
    (["a", "b= 1"], 'The weight of b is " 1"'), (["a", "b=1.5"], 'The weight of b is "1.5"'),
    (["a=0", "b=0"], "At least one host must have a weight above 0"), (["a", "b", "A=2"], "Name a only once"),
    (["a", "[b]"], '"[b]" is no name or address'), (["a", ""], '"" is no name or address'),
    (["a", "=1"], '"" is no name or address'), (["a", "b" * 255], "is no name or address"),
    (["a", "b", "--self=c"], 'This host, "c", is not among the hosts: name it with --self'),
    (["a", "--port=0"], "--port"), (["a", "--port=65536"], "--port"), (["a", "--transport=a:b"], "--transport"),
    (["a", "--transport="], "--transport"), ([], "Usage: scachectl fleet")])
def test_what_makes_no_fleet(words, says):
    assert says in refusal(*words)


@pytest.mark.parametrize("line", ["user@example.org", "[192.0.2.1]", "a:b", "*", "..example.org", ".", "\x1b[1m"])
def test_what_is_no_domain(line):
    said = refusal("a", "b", "--self=a", stdin=f"example.org\n{line}\n", status=65)
    assert "standard input:2: " in said and "\x1b" not in said
