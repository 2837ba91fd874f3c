"""The shape of the source: which way dependencies point, how large files are, where unsafe is."""

from __future__ import annotations

import ast
import re
import sys

from tests.support.programs import REPOSITORY

MOST_LINES = 600  # the style guide: past this a file has to be justified or split
RUST = sorted(
    path
    for root in ("src", "reactor/src", "reactor/tests", "perf/load")
    for path in (REPOSITORY / root).rglob("*.rs")
    if "target" not in path.parts
)
# Imported when the user has it and asks for it; the package itself depends on nothing.
OPTIONAL_IMPORTS = {
    "opentelemetry.py": {"opentelemetry"},
    "prometheus.py": {"prometheus_client"},
}
LIBRARY = [path for path in RUST if {"tests", "perf"}.isdisjoint(path.parts)]
PYTHON = sorted(
    path
    for root in ("python", "tests", "perf")
    for path in (REPOSITORY / root).rglob("*.py")
    if ".venv" not in path.parts and "target" not in path.parts
)
UNSAFE_KEYWORD = re.compile(r"\bunsafe\s*(?:\{|fn\b|impl\b|extern\b)")
# Raw calls of the kernel and of CPython. Everywhere else the crates deny unsafe code, and a new
# file is added here only together with its reason.
UNSAFE_FILES = re.compile(
    r"reactor/src/(sys|sys/datagram|sys/watch|read_ring|address|raw_address|datagram)\.rs"  # system calls and the buffers they fill
    r"|src/loop_cell\.rs"  # the loop's memory, opened by its own thread only
    r"|src/guarded\.rs"  # the versions of classes
    # CPython's C API behind safe types
    r"|src/py/(args|buffer|bytes|call|context|detached|gil_cell|handled|interpreter|live|message|native|own_methods|owned|shared_count|stop_iteration|thread_exit|trashcan)\.rs"
    r"|src/handle/(mod|cancel|class|free_list|object|shared_list|timer)\.rs"  # handles as heap types over asyncio's own
    # fast calls, futures, what the collector visits
    r"|src/event_loop/(access|blank_future|class|futures|io|native)\.rs"
    r"|src/transports/(read|records|shape|descriptor|stream|datagram|datagram/queue)\.rs"  # buffers of protocols
    # attributes as slots, the session of ssl, the buffers that it fills
    r"|src/tls/(slots|app_transport|openssl|plaintext|bio|writing)\.rs"
    # the slots of asyncio's stream objects
    r"|src/streams/(adopt|attributes|buffer|classes|feed|fields|operation|read|reader|serve|slots|state|transport)\.rs"
    r"|src/coroutine/(class|inspection|method|step)\.rs"  # coroutines and their methods, as heap types
    r"|src/sockets/(attempt|call|fields|kept|methods|stock)\.rs"  # sockets' fields and buffers
)


def name(path):
    return path.relative_to(REPOSITORY).as_posix()


def code_of(path):
    """Rust source without comments and string literals."""
    text = path.read_text()
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)


def test_the_reactor_knows_nothing_of_python():
    for path in RUST:
        if name(path).startswith("reactor/"):
            code = code_of(path)
            assert not re.search(r"\b(pyo3|Python|Py[A-Z]\w+)\b", code), name(path)
            assert not re.search(r"\btokioloop\b(?!_reactor)", code), name(path)


def test_the_reactor_does_not_depend_on_the_binding():
    manifest = (REPOSITORY / "reactor/Cargo.toml").read_text()
    assert "pyo3" not in manifest
    assert not re.search(r'path = "\.\."', manifest)


def test_there_is_no_tokio_in_the_lock_file():
    packages = re.findall(r'^name = "(.+)"$', (REPOSITORY / "Cargo.lock").read_text(), re.MULTILINE)
    assert "mio" in packages
    runtimes = {"tokio", "async-std", "smol", "futures-executor", "pyo3-async-runtimes"}
    assert not runtimes & set(packages)


def test_no_file_is_too_large():
    sizes = {name(path): len(path.read_text().splitlines()) for path in RUST + PYTHON}
    assert {file: lines for file, lines in sizes.items() if lines > MOST_LINES} == {}


def test_every_rust_file_opens_by_saying_what_it_owns():
    firsts = {name(path): path.read_text().partition("\n")[0] for path in RUST}
    assert {
        file: first
        for file, first in firsts.items()
        if not first.startswith("//! ") or len(first) < 15
    } == {}


def test_every_python_file_opens_by_saying_what_it_owns():
    sources = {name(path): path.read_text() for path in PYTHON}
    docstrings = {
        file: ast.get_docstring(ast.parse(text))
        for file, text in sources.items()
        if text or not file.endswith("__init__.py")  # an empty one owns nothing
    }
    assert [file for file, text in docstrings.items() if not text or len(text) < 10] == []


def test_unsafe_is_only_where_it_may_be():
    assert [
        name(path)
        for path in LIBRARY
        if not UNSAFE_FILES.fullmatch(name(path)) and UNSAFE_KEYWORD.search(code_of(path))
    ] == []


def test_no_file_may_have_unsafe_code_that_has_none():
    assert [
        name(path)
        for path in LIBRARY
        if "allow(unsafe_code)" in path.read_text() and not UNSAFE_KEYWORD.search(code_of(path))
    ] == []


def test_both_crates_deny_unsafe_code_by_default():
    for crate in ("src/lib.rs", "reactor/src/lib.rs"):
        assert "#![deny(unsafe_code)]" in (REPOSITORY / crate).read_text()


def test_nothing_of_the_package_imports_the_tests_or_the_benchmarks():
    for path in (REPOSITORY / "python").rglob("*.py"):
        allowed = {"tokioloop", *sys.stdlib_module_names, *OPTIONAL_IMPORTS.get(path.name, ())}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or "tokioloop"]
            else:
                continue
            assert {module.partition(".")[0] for module in modules} <= allowed, name(path)


def test_the_package_says_that_it_is_typed():
    assert (REPOSITORY / "python/tokioloop/py.typed").exists()
    assert (REPOSITORY / "python/tokioloop/_core.pyi").exists()
