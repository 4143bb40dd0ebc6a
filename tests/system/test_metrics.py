# SPDX-License-Identifier: LGPL-2.1-or-later
"""scached-metrics.timer: a file of metrics for node_exporter, once a minute, where somebody wants it."""

import re
import shutil

import pytest

from rig import BUILD, BUILD_INSIDE

TIMER = "scached-metrics.timer"
SERVICE = "scached-metrics.service"
FOLDER = "/var/lib/prometheus/node-exporter"
FILE = f"{FOLDER}/scached.prom"
NODE_EXPORTER = "readers/usr/bin/prometheus-node-exporter"


@pytest.fixture
def host(machine):
    """Debian's node_exporter is installed, of which the folder is all that matters here."""
    machine.install()
    machine.run(["systemd-sysusers", "/usr/lib/sysusers.d/scached.conf"])
    machine.systemctl("enable", "--now", "scached-control.socket")
    machine.run(["install", "-d", "-m", "755", FOLDER])
    yield machine
    machine.systemctl("disable", "--now", TIMER, "scached-control.socket", "scached.service")
    machine.run(f"rm -rf {FOLDER} /etc/systemd/system/scached-metrics.*")
    machine.systemctl("daemon-reload")
    machine.systemctl("reset-failed", SERVICE, check=False)


def drop_in(machine, unit: str, text: str) -> None:
    machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
    machine.systemctl("daemon-reload")


def changed(machine, path: str) -> str:
    """When, and which file it is."""
    return machine.run(["stat", "-c", "%y %i", path], check=False).stdout


def systemd_version(machine) -> int:
    return int(machine.run(["systemctl", "--version"]).stdout.split()[1])


def test_disabled_until_somebody_wants_it(host):
    assert host.show(TIMER, "UnitFileState", "ActiveState") == {"UnitFileState": "disabled", "ActiveState": "inactive"}
    host.systemctl("enable", "--now", TIMER)
    assert host.show(TIMER, "UnitFileState", "ActiveState") == {"UnitFileState": "enabled", "ActiveState": "active"}
    assert "OnCalendar=*-*-* *:*:00" in host.show(TIMER, "TimersCalendar")["TimersCalendar"]


def test_the_timer_replaces_the_file_and_fills_no_journal(host):
    drop_in(host, TIMER, "[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nAccuracySec=1us\n")
    host.systemctl("enable", "--now", TIMER)
    first = host.wait(lambda: changed(host, FILE), 10, "the file is there")
    host.wait(lambda: changed(host, FILE) not in ("", first), 10, "the file is replaced")
    assert "\nscached_connections_saved_total 0\n" in host.read(FILE)
    assert host.run(["ls", "-A", FOLDER]).stdout == "scached.prom\n"
    # systemd 262 tells of each control group that its machine has no pids controller, as not every host has it. Systemd before
    # 248 does not apply LogLevelMax= to what it says itself.
    lines = [entry for entry in host.journal(unit=SERVICE) if "pids.max" not in entry["MESSAGE"]]
    if systemd_version(host) < 248:
        lines = [entry for entry in lines if entry["_PID"] != "1"]
    assert lines == []


def test_sandbox(host):
    assert host.exposure(SERVICE) <= 2.0


def test_another_folder_of_another_user(host):
    host.run(["install", "-d", "-m", "700", "-o", "nobody", "/srv/textfiles"])
    drop_in(host, SERVICE, "[Service]\nEnvironment=FILE=/srv/textfiles/scached.prom\nReadWritePaths=/srv/textfiles\n")
    host.systemctl("start", SERVICE)
    assert host.run(["ls", "-A", "/srv/textfiles"]).stdout == "scached.prom\n"
    assert changed(host, FILE) == ""


@pytest.mark.parametrize("trouble, says", [
    ("rm -r " + FOLDER, f"Could not write {FILE}: No such file or directory"),
    ("systemctl stop scached-control.socket scached.service", "systemctl enable --now scached-control.socket")])
def test_what_is_wrong_is_said(host, trouble, says):
    host.run(trouble)
    assert host.systemctl("start", SERVICE, check=False).returncode != 0
    host.journal_wait(says, unit=SERVICE)


@pytest.mark.skipif(not (BUILD / NODE_EXPORTER).exists() and not shutil.which("prometheus-node-exporter"),
                    reason="needs prometheus-node-exporter: sh packaging/deps check")
def test_node_exporter_reads_it_where_debian_has_it(host):
    """As another user, and told nothing about folders."""
    program = BUILD_INSIDE / NODE_EXPORTER if (BUILD / NODE_EXPORTER).exists() else "prometheus-node-exporter"
    host.systemctl("start", SERVICE)
    process = host.popen([program, "--web.listen-address=127.0.0.1:9100", "--log.level=error"], user="nobody")
    get = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9100/metrics').read().decode())"
    try:
        host.wait(lambda: host.python(get, check=False).returncode == 0, 30, "node_exporter answers")
        text = host.python(get).stdout
    finally:
        process.kill()
    assert "\n# TYPE scached_connections_saved_total counter\nscached_connections_saved_total 0\n" in text
    # An older one names the file without its folder.
    assert re.search(rf'(?m)^node_textfile_mtime_seconds{{file="({FILE}|scached.prom)"}} ', text) and "\nnode_textfile_scrape_error 0\n" in text
