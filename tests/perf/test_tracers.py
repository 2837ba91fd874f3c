"""Reading what strace and callgrind write."""

from __future__ import annotations

from tracers import parse_callgrind, parse_strace

TABLE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100           sendto
 40.00    0.000400           4       101         1 recvfrom
  0.00    0.000000           0         3           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           4       204         1 total
"""


def test_calls_are_counted_by_name_with_and_without_errors() -> None:
    assert parse_strace(TABLE) == {"sendto": 100, "recvfrom": 101, "epoll_wait": 3}


def test_no_calls_are_no_table() -> None:
    assert parse_strace("") == {}


def test_the_total_of_a_profile() -> None:
    assert parse_callgrind("# callgrind format\nevents: Ir\nsummary: 233815\n\n") == 233815
    assert parse_callgrind("fn=(1) main\n10 5\n\ntotals: 42\n") == 42


def test_a_profile_that_was_cut_off_has_no_total() -> None:
    assert parse_callgrind("# callgrind format\nevents: Ir\n") is None
