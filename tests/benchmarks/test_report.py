"""What the benchmarks share: a server's use of the machine, and the files of figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.ports import reserve_port
from tests.support.server import ROOT
from tests.support.waiting import eventually

BUSY = """
import http.server, subprocess, sys
CHILD = "import os; parent, held = os.getppid(), bytearray(50_000_000)\\nwhile os.getppid() == parent: pass"
subprocess.Popen([sys.executable, "-c", CHILD])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


async def cores_of(load: None) -> set[int]:
    """Of the process that makes a load."""
    return os.sched_getaffinity(0)


@pytest.fixture(autouse=True)
def benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_a_servers_cpu_and_memory_are_those_of_its_descendants_too(tmp_path: Path) -> None:
    from report import serving

    port = reserve_port()
    with serving([sys.executable, "-c", BUSY, str(port)], tmp_path, port) as server:
        began = server.cpu_seconds()
        eventually(lambda: server.cpu_seconds() > began + 0.1 and server.rss_bytes() > 50_000_000, "the child's use to be counted")


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="there is no core for each")
def test_a_server_keeps_off_the_core_of_the_load_and_this_process_does_not(tmp_path: Path) -> None:
    from generator import in_a_process, other_cores
    from report import serving

    cores, port = os.sched_getaffinity(0), reserve_port()
    with serving([sys.executable, "-m", "http.server", str(port)], tmp_path, port, cores=other_cores()) as server:
        servers = os.sched_getaffinity(server.processes[0])
    assert os.sched_getaffinity(0) == cores
    assert in_a_process(cores_of, None, sockets=1) == cores - servers != set()


def test_a_target_is_reached_or_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from report import Column, Report

    report = Report("example", Column("what", "what", "<8"), Column("per s", "per_second", ">10,.0f"))
    report.row(what="fast", per_second=12345.6, p50_ms=0.1)
    report.row(what="none")
    report.target("rate", 12345.6, at_least=10_000)
    report.target("latency", 2.0, at_most=1.0)
    _, head, fast, none, _, _, rate, latency = capsys.readouterr().out.splitlines()
    assert (head.split(), fast.split(), none.split()) == (["what", "per", "s"], ["fast", "12,346"], ["none", "—"])
    assert (rate.split()[-1], latency.split()[-1]) == ("reached", "MISSED")

    report.write_json(tmp_path / "figures.json")
    made = json.loads((tmp_path / "figures.json").read_text())
    assert made["rows"] == [{"what": "fast", "per_second": 12345.6, "p50_ms": 0.1}, {"what": "none"}]
    assert [(target["name"], target["reached"]) for target in made["targets"]] == [("rate", True), ("latency", False)]

    report.write_plot(tmp_path / "plot.svg", "transfers per second", [("a < b", 10.0), ("c", 5.0)])
    plot = ElementTree.parse(tmp_path / "plot.svg")
    widths = [bar.get("width") for bar in plot.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == ["400.0", "200.0"]
