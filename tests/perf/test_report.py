"""The files of a report: data.json, the tables and the plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import report
from workloads import WORKLOADS

META: dict[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00",
    "command": "python perf/benchmark.py",
    "machine": "a processor",
    "cores": 2,
    "pinned": {"server": 0, "client": 1},
    "busy_cores": 0.1,
    "kernel": "Linux 6",
    "python": "3.13.0",
    "gil": True,
    "versions": {"rloop": "0.5.0"},
    "build_profile": "release",
    "commit": "abc",
    "rounds": 3,
    "seconds": 1.0,
}


def figures(rate: float) -> dict[str, Any]:
    return {
        "rps": rate,
        "rps_rounds": [rate, rate],
        "spread": 0.0,
        "latency_p50": 0.000150,
        "cpu_per_message": 0.000005,
        "faults": {},
        "stalls": 0,
    }


def results() -> dict[str, Any]:
    return {
        "proto": {
            "tokioloop": {"32": {"1024": figures(200_000.0)}},
            "rloop": {"32": {"1024": {"failure": "killed by SIGSEGV"}}},
        }
    }


def test_data_json_has_the_documented_path(tmp_path: Path) -> None:
    report.write(tmp_path, META, results(), [WORKLOADS["proto"]])
    data = json.loads((tmp_path / "data.json").read_text())
    assert data["results"]["proto"]["tokioloop"]["32"]["1024"]["rps"] == 200_000.0
    assert data["meta"]["versions"] == {"rloop": "0.5.0"}


def test_a_crashed_peer_is_a_row_with_its_reason(tmp_path: Path) -> None:
    path = report.write(tmp_path, META, results(), [WORKLOADS["proto"]])
    rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
    assert any("rloop" in row and "killed by SIGSEGV" in row for row in rows)
    assert any("tokioloop" in row and "200,000" in row and "5.00" in row for row in rows)


def test_the_report_shows_its_plots(tmp_path: Path) -> None:
    path = report.write(tmp_path, META, results(), [WORKLOADS["proto"]])
    assert "(proto.svg)" in path.read_text()
    root = ElementTree.fromstring((tmp_path / "proto.svg").read_text())
    assert root.tag.endswith("svg")
    assert "tokioloop" in "".join(root.itertext())


def test_a_mode_in_which_all_failed_has_a_table_and_no_plot(tmp_path: Path) -> None:
    failed = {"proto": {"rloop": {"32": {"1024": {"failure": "hangs"}}}}}
    path = report.write(tmp_path, META, failed, [WORKLOADS["proto"]])
    assert "hangs" in path.read_text()
    assert not (tmp_path / "proto.svg").exists()


def test_a_busy_machine_is_named(tmp_path: Path) -> None:
    quiet = report.write(tmp_path, META, results(), [WORKLOADS["proto"]]).read_text()
    busy_meta = {**META, "busy_cores": 3.0}
    busy = report.write(tmp_path, busy_meta, results(), [WORKLOADS["proto"]]).read_text()
    assert "busy" not in quiet
    assert "busy" in busy


def test_what_the_host_does_is_named(tmp_path: Path) -> None:
    distance = {"smallest": 31.0, "largest": 460.0, "least": 46.0, "most": 174.0}
    pace = {"smallest": 13_000.0, "largest": 29_000.0, "least": 18_000.0, "most": 36_000.0}
    meta = {**META, "host": {"distance": distance, "pace": pace}, "repeats": 12, "disturbed": 1}
    disturbed = {**figures(1000.0), "rounds": 5, "disturbed": 1}
    results = {"proto": {"tokioloop": {"32": {"1024": disturbed}}}}
    text = report.write(tmp_path, meta, results, [WORKLOADS["proto"]]).read_text()
    assert "in 31 to 460 ns, a piece of work took 13 to 29 us" in text
    assert "at 18 to 36 us and, where a message costs little, 46 to 174 ns, 12 of them" in text
    assert "1 of 5 rounds disturbed" in text
    assert "host" not in report.write(tmp_path, META, results, []).read_text()


def test_what_is_not_measured_anew_stays_with_its_date(tmp_path: Path) -> None:
    both = {**results(), "udp": results()["proto"]}
    report.write(tmp_path, META, both, [WORKLOADS["proto"], WORKLOADS["udp"]])
    earlier = report.read(tmp_path)
    earlier.forget("proto")
    assert list(earlier.results) == ["udp"]
    meta = {**META, "date": "later", "earlier": earlier.runs}
    merged = {**earlier.results, "proto": both["proto"]}
    text = report.write(tmp_path, meta, merged, [WORKLOADS["proto"], WORKLOADS["udp"]]).read_text()
    proto, udp = text.split("## udp")
    assert "earlier run" not in proto
    assert (
        "Of an earlier run: 2026-01-02T03:04:05+00:00, commit abc, a processor, `python perf" in udp
    )
    assert report.read(tmp_path).runs["udp"].startswith("2026-01-02")
    assert report.read(tmp_path / "none").results == {}


def test_the_ratio_to_the_best_peer_is_shown_with_its_interval() -> None:
    sure = {**figures(1.0), "vs_best": 1.034, "vs_best_interval": (0.991, 1.078)}
    of_few_rounds = {**figures(1.0), "vs_best": 1.034}
    by_loop = {"tokioloop": {"32": {"1024": sure, "10240": of_few_rounds}}}
    lines = report.table(by_loop, WORKLOADS["proto"])
    assert "| 1.03 (0.99 to 1.08) |" in lines[2]
    assert "1.03 |" in lines[3]
    assert "(" not in lines[3]


def test_no_scratch_file_is_left(tmp_path: Path) -> None:
    report.write(tmp_path, META, results(), [WORKLOADS["proto"]])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data.json",
        "proto.svg",
        "report.md",
    ]


def test_all_rows_of_a_table_have_the_same_width() -> None:
    lines = report.table(results()["proto"], WORKLOADS["proto"])
    assert len({len(line) for line in lines}) == 1
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0.00"), (0.0123, "0.0123"), (42.5, "42.50"), (123456.7, "123,457")],
)
def test_numbers_are_as_long_as_they_are_precise(value: float | None, text: str) -> None:
    assert report.number(value) == text
