# SPDX-License-Identifier: LGPL-2.1-or-later
"""`scachectl metrics`: both formats, as those read them for whom they are; and the file that is replaced in one go."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from connection import wait_until
from control import Control
from readers import free_port, get, reader, serving, web_server
from tool import LABEL, Tool, one_sentence

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Asking is connecting, which is counted, and leaves a socket to be closed.
COMES_AND_GOES = {"scached_agents", "scached_agents_accepted_total", "scached_descriptors_closing"}


def with_programs_of_others(test):
    """What they make of our metrics does not depend on how the daemon was built or started."""
    return pytest.mark.plain_build(test)


@pytest.fixture
def manager(make_manager):
    return make_manager(sockets=["native", "control"])


@pytest.fixture
def daemon(manager):
    """One that has done as much of everything as can be told apart."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    agent = daemon.agent("native")
    for count, what in ((3, lambda: agent.find_dest_inline("nowhere")), (4, lambda: agent.find_endp_inline("nowhere")),
                        (16, lambda: agent.park(LABEL)), (6, lambda: agent.bind("destination", LABEL)),
                        (5, lambda: agent.find_dest_inline("destination").close()),
                        (8, lambda: agent.find_endp_inline(LABEL).close())):
        for _ in range(count):
            what()
    agent.in_step()  # the last one has arrived
    return daemon


@pytest.fixture
def tool(manager, daemon) -> Tool:
    return Tool(manager)


class Family(NamedTuple):
    kind: str
    help: str
    samples: dict[str, float]


def families(text: str) -> dict[str, Family]:
    """Prometheus' text format, as far as ours goes: by name, samples with their labels."""
    found: dict[str, Family] = {}
    helps = dict(re.findall(r"(?m)^# HELP (\S+) (.+)$", text))
    for name, kind in re.findall(r"(?m)^# TYPE (\S+) (\w+)$", text):
        suffix = "(?:_bucket|_sum|_count)" if kind == "histogram" else ""
        samples = re.findall(rf"(?m)^({name}{suffix}(?:\{{[^}}]*\}})?) (\S+)$", text)
        found[name] = Family(kind, helps.get(name, ""), {sample: float(value) for sample, value in samples})
    return found


# The formats.

def test_openmetrics(tool, daemon):
    """A parser of somebody else's takes them, and finds the conventions kept."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    text = tool("metrics").stdout
    found = {family.name: family for family in parser.text_string_to_metric_families(text)}
    samples = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
               for family in found.values() for sample in family.samples}
    assert samples["scached_lookups_total", (("kind", "destination"), ("result", "miss"))] == 3
    reasons = {dict(labels)["reason"]: value for (name, labels), value in samples.items()
               if name == "scached_misses_total" and ("kind", "destination") in labels}
    assert len(reasons) == 9 and sum(reasons.values()) == reasons["unknown"] == 3
    assert samples["scached_lookups_total", (("kind", "endpoint"), ("result", "hit"))] == 8
    assert samples["scached_connections_saved_total", ()] == 16
    assert samples["scached_ttl_limit_seconds", ()] == 3600
    assert samples["scached_reuse_idle_seconds_bucket", (("le", "+Inf"),)] == 13
    assert samples["scached_reuse_idle_seconds_count", ()] == 13 and samples["scached_dead_idle_seconds_count", ()] == 0
    assert found["scached_memory_bytes"].unit == "bytes" and found["scached_ttl_limit_seconds"].unit == "seconds"
    for family in found.values():
        assert family.documentation.endswith(".") and family.type in ("counter", "gauge", "histogram", "info"), family
        assert family.name.startswith("scached_") and re.fullmatch("[a-z_]+", family.name)
    # What the daemon counts is in there, or shown to be a setting.
    with Control(daemon.path("control")) as control:
        status = control.ask("status")
    left_out = {"version", "process_id", "max_idle_us", "request_size_limit", "share_between_users"}
    counts = [name for name, _ in samples if name.endswith("_count")]
    assert len(samples) - len(counts) - 1 == len(status.keys() - left_out), "metrics and status do not agree"


def test_both_formats_say_the_same(tool):
    """The older one has one name for a family and its samples, no unit, no end, and fewer types."""
    text, older = tool("metrics", "--format=openmetrics").stdout, tool("metrics", "--format=prometheus").stdout
    assert "# UNIT" not in older and "# EOF" not in older

    def samples(text: str) -> list[str]:
        return [re.sub(r'(le="\d+)\.0"', r'\1"', line) for line in text.splitlines()
                if line[0] != "#" and line.split()[0] not in COMES_AND_GOES]

    assert samples(older) == samples(text) and len(samples(older)) > 20
    for name, family in families(older).items():
        assert family.samples, f"{name} has no samples of its name"
        assert family.kind == ("counter" if name.endswith("_total") else "histogram" if f"{name}_sum" in family.samples
                               else "gauge") and family.help
    assert sum(len(family.samples) for family in families(older).values()) == len(samples(older)) + len(COMES_AND_GOES)
    assert sorted(re.findall(r"(?m)^# HELP \S+ (.+)$", older)) == sorted(re.findall(r"(?m)^# HELP \S+ (.+)$", text))


@with_programs_of_others
def test_promtool_has_nothing_to_say(tool):
    text = tool("metrics", "--format=prometheus").stdout
    said = subprocess.run([reader("promtool"), "check", "metrics"], input=text, text=True, capture_output=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    # It would have had.
    said = subprocess.run([reader("promtool"), "check", "metrics"], input=tool("metrics").stdout, text=True,
                          capture_output=True)
    assert said.returncode != 0


def node_exporter(folder: Path, address: str) -> list[str]:
    return [reader("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.textfile",
            f"--collector.textfile.directory={folder}", f"--web.listen-address={address}", "--log.level=error"]


@with_programs_of_others
def test_readers_miss_nothing(tool, tmp_path):
    """node_exporter passes everything on; Prometheus has it from there, and from OpenMetrics."""
    older, text = tool("metrics", "--format=prometheus").stdout, tool("metrics").stdout
    (tmp_path / "textfiles").mkdir()
    (tmp_path / "textfiles/scached.prom").write_text(older)
    address = f"127.0.0.1:{free_port()}"
    with serving(node_exporter(tmp_path / "textfiles", address), f"http://{address}/metrics"):
        with web_server("/metrics", OPENMETRICS, text) as port:
            passed_on = get(f"http://{address}/metrics")
            scraped = scrape(tmp_path, {"textfile": address, "openmetrics": f"127.0.0.1:{port}"})
    assert families(passed_on)["node_textfile_scrape_error"].samples == {"node_textfile_scrape_error": 0}
    ours = families(older)
    assert {name: family for name, family in families(passed_on).items() if name.startswith("scached_")} == ours

    def samples(text: str) -> dict[str, float]:
        return {sample: float(value) for sample, value in re.findall(r"(?m)^(scached_.+) (\S+)$", text)}

    assert scraped["textfile"].samples == samples(older)
    assert scraped["openmetrics"].samples == samples(text)
    assert scraped["textfile"].families == {name: (family.kind, family.help, "") for name, family in ours.items()}
    units = dict(re.findall(r"(?m)^# UNIT (\S+) (\w+)$", text))
    assert units == {f"scached_{name}_{unit}": unit
                     for unit, names in (("bytes", ("memory", "agents_memory", "history_memory")),
                                         ("seconds", ("ttl_limit", "reuse_idle", "expired_ago", "dead_idle")))
                     for name in names}
    assert scraped["openmetrics"].families == {
        re.sub("_(total|info)$", "", name):
            ("info" if name.endswith("_info") else family.kind, family.help, units.get(name, ""))
        for name, family in ours.items()}


class Scraped(NamedTuple):
    samples: dict[str, float]
    families: dict[str, tuple[str, str, str]]  # type, help, unit


def scrape(folder: Path, targets: dict[str, str]) -> dict[str, Scraped]:
    """What a Prometheus has of ours after it has read there."""
    address = f"127.0.0.1:{free_port()}"
    config = {"global": {"scrape_interval": "1s"},
              "scrape_configs": [{"job_name": name, "static_configs": [{"targets": [target]}]}
                                 for name, target in targets.items()]}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML

    def ask(what: str, **parameters: str) -> Any:
        return json.loads(get(f"http://{address}/api/v1/{what}?{urlencode(parameters)}"))["data"]

    def has_read_all() -> bool:
        errors = [target["lastError"] for target in ask("targets")["activeTargets"] if target["lastError"]]
        assert not errors, errors
        return len(ask("query", query="scached_agents")["result"]) == len(targets)

    def read(job: str) -> Scraped:
        samples = {}
        for series in ask("query", query=f'{{__name__=~"scached_.+",job="{job}"}}')["result"]:
            labels = {name: value for name, value in series["metric"].items()
                      if name not in ("__name__", "instance", "job")}
            text = ",".join(f'{name}="{value}"' for name, value in labels.items())
            samples[series["metric"]["__name__"] + (f"{{{text}}}" if text else "")] = float(series["value"][1])
        return Scraped(samples, {each["metric"]: (each["type"], each["help"], each["unit"])
                                 for each in ask("targets/metadata", match_target=f'{{job="{job}"}}')
                                 if each["metric"].startswith("scached_")})

    with serving([reader("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                  f"--web.listen-address={address}", "--log.level=error"], f"http://{address}/-/ready"):
        wait_until(has_read_all, "Prometheus has read it", 30.0)
        return {job: read(job) for job in targets}


# The file.

def test_output_is_replaced_in_one_go(tool, tmp_path):
    """Whoever reads it reads all of it, the old or the new; and it is for everybody to read."""
    path = tmp_path / "scached.prom"
    tool("metrics", f"--output={path}", umask=0o077)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    first = path.open()
    read: list[str] = []
    done = threading.Event()

    def keep_reading() -> None:
        while not done.is_set():
            read.append(path.read_text())

    thread = threading.Thread(target=keep_reading)
    thread.start()
    try:
        for _ in range(20):
            assert tool("metrics", f"--output={path}").stdout == ""
    finally:
        done.set()
        thread.join()
    with first:
        assert read and not os.path.samestat(os.fstat(first.fileno()), path.stat())
    assert all(text.startswith("# HELP") and text.endswith("# EOF\n") for text in read)
    assert os.listdir(tmp_path) == ["scached.prom"]


def test_output_in_the_current_folder_and_as_json(tool, tmp_path):
    tool("metrics", "--json", "--output=status", cwd=tmp_path)
    assert json.loads((tmp_path / "status").read_text())["connections_saved"] == 16


def no_room() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_output_stays_if_it_cannot_be_replaced(tool, tmp_path):
    path = tmp_path / "scached.prom"
    path.write_text("as it was")
    said = one_sentence(tool("metrics", f"--output={path}", status=74, preexec_fn=no_room))
    assert f"Could not write {path}: File too large" in said
    tool("metrics", "--socket", str(tmp_path / "nowhere"), f"--output={path}", status=69)
    assert path.read_text() == "as it was" and os.listdir(tmp_path) == ["scached.prom"]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "nowhere"])
def test_output_takes_the_place_of_nothing_else(tool, tmp_path, kind):
    """A pipe, a device or a link is no longer what it was if a file takes its place."""
    path = tmp_path / "scached.prom"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = path / "scached.prom"
    before = os.listdir(tmp_path)
    said = one_sentence(tool("metrics", f"--output={path}", status=74))
    assert str(path) in said and ("No such file" if kind == "nowhere" else "not a regular file") in said
    assert os.listdir(tmp_path) == before and not path.is_file()
