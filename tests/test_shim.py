"""The names that `import tokioloop` gives, and asyncio's own ways to use them."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from tests.support.programs import output_of

pytestmark = pytest.mark.flavours("tokioloop", reason="the package's own names")

NAMES = {
    "EventLoopPolicy",
    "TokioEventLoopPolicy",
    "TokioLoop",
    "__version__",
    "dump_tasks",
    "instrument",
    "metrics_text",
    "install",
    "new_event_loop",
    "new_tokio_event_loop",
    "run",
}


def test_the_public_names_are_there_and_documented(tokioloop):
    assert set(tokioloop.__all__) >= NAMES
    for name in set(tokioloop.__all__) - {"__version__"}:
        assert getattr(tokioloop, name).__doc__, name


def test_the_version_is_the_packages(tokioloop):
    from importlib.metadata import PackageNotFoundError, version

    assert re.fullmatch(r"\d+\.\d+\.\d+", tokioloop.__version__)
    try:
        assert tokioloop.__version__ == version("tokioloop")
    except PackageNotFoundError:
        pytest.skip("imported from the source tree, not installed")


@pytest.mark.parametrize("name", ["new_event_loop", "new_tokio_event_loop", "TokioLoop"])
def test_each_way_to_make_a_loop_makes_a_new_tokio_loop(tokioloop, no_leaks, name):
    one, other = getattr(tokioloop, name)(), getattr(tokioloop, name)()
    try:
        assert type(one) is type(other) is tokioloop.TokioLoop
        assert one is not other
    finally:
        one.close()
        other.close()


def test_run_returns_the_result_and_closes_the_loop(tokioloop, no_leaks):
    async def main():
        assert type(asyncio.get_running_loop()) is tokioloop.TokioLoop
        loops.append(asyncio.get_running_loop())
        return "result"

    loops = []
    assert tokioloop.run(main()) == "result"
    assert tokioloop.run(main(), loop_factory=None) == "result"
    assert loops[0].is_closed()


def test_run_takes_debug(tokioloop, no_leaks):
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert tokioloop.run(main(), debug=True) is True
    assert tokioloop.run(main(), debug=False) is False


def test_run_raises_what_main_raises(tokioloop, no_leaks):
    async def main():
        raise LookupError("from main")

    with pytest.raises(LookupError, match="from main"):
        tokioloop.run(main())


def test_run_cancels_what_is_left_and_ends_the_threads(tokioloop, no_leaks):
    async def forever():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def main():
        tasks.append(asyncio.ensure_future(forever()))
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, int, "5")

    tasks, ended = [], []
    tokioloop.run(main())
    assert ended == [True]
    assert tasks[0].cancelled()


def test_run_is_refused_inside_a_running_loop(tokioloop, no_leaks):
    async def inner():
        pass

    async def main():
        coroutine = inner()
        try:
            with pytest.raises(RuntimeError, match="running event loop"):
                tokioloop.run(coroutine)
        finally:
            coroutine.close()

    tokioloop.run(main())


def test_run_refuses_what_is_no_coroutine(tokioloop, no_leaks):
    with pytest.raises((TypeError, ValueError)):
        tokioloop.run(5)


@pytest.mark.min_python(3, 12)
def test_asyncio_run_takes_the_factory(tokioloop, no_leaks):
    async def main():
        return type(asyncio.get_running_loop())

    assert asyncio.run(main(), loop_factory=tokioloop.new_event_loop) is tokioloop.TokioLoop


def test_importing_changes_nothing_and_warns_of_nothing(flavour):
    printed = output_of(
        flavour,
        """
        import warnings
        warnings.simplefilter("error")
        import sys, signal, threading
        before = (signal.getsignal(signal.SIGINT), threading.active_count())
        import tokioloop
        assert before == (signal.getsignal(signal.SIGINT), threading.active_count())
        assert asyncio.events._event_loop_policy is None
        print("clean")
        """,
    )
    assert printed == "clean\n"


def test_install_makes_it_the_loop_of_asyncio(flavour):
    printed = output_of(
        flavour,
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import tokioloop
        tokioloop.install()
        async def main():
            return type(asyncio.get_running_loop())
        assert asyncio.run(main()) is tokioloop.TokioLoop
        loop = asyncio.new_event_loop()
        assert type(loop) is tokioloop.TokioLoop
        loop.close()
        print("installed")
        """,
    )
    assert printed == "installed\n"


def test_a_policy_can_be_set_by_hand(flavour):
    printed = output_of(
        flavour,
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import tokioloop
        for policy in (tokioloop.EventLoopPolicy, tokioloop.TokioEventLoopPolicy):
            asyncio.set_event_loop_policy(policy())
            loop = asyncio.new_event_loop()
            assert type(loop) is tokioloop.TokioLoop
            asyncio.set_event_loop(loop)
            assert asyncio.get_event_loop_policy().get_event_loop() is loop
            loop.close()
        print("set")
        """,
    )
    assert printed == "set\n"


def test_policies_warn_from_the_version_on_in_which_asyncio_deprecates_them(flavour):
    printed = output_of(
        flavour,
        """
        import warnings, tokioloop
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tokioloop.EventLoopPolicy()
        print(sorted({warning.category.__name__ for warning in caught}))
        """,
    )
    assert printed == ("['DeprecationWarning']\n" if sys.version_info >= (3, 14) else "[]\n")
