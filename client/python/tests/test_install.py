"""install() attaches to what the process imports, whenever it does, and imports nothing itself."""

import os
import subprocess
import sys
import textwrap

import pytest

import sidelight
from sidelight import _install

FAKE = {
    "fakelib/__init__.py": "",
    "fakelib/core.py": "import fakelib.deep\nready = True\n",
    "fakelib/deep.py": "",
    "fakelib/broken.py": "raise RuntimeError('broken')\n",
    "otherlib.py": "ready = True\n",
}


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Two libraries to wait for, and what was attached to them."""
    for name, text in FAKE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    attached = []

    class Ours:
        def __init__(self, theirs):
            self.theirs = theirs

        def install(self):
            attached.append((self.theirs, getattr(sys.modules[self.theirs], "ready", None)))

    table = {}
    for name, theirs in (("fake", "fakelib.core"), ("other", "otherlib"), ("absent", "no_such_library")):
        monkeypatch.setitem(sys.modules, f"sidelight.fake_{name}", Ours(theirs))
        table[name] = (theirs, f"sidelight.fake_{name}")
    monkeypatch.setattr(_install, "INTEGRATIONS", table)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(_install, "_finder", _install._Finder())
    yield attached
    for name in [n for n in sys.modules if n.startswith(("fakelib", "otherlib"))]:
        del sys.modules[name]


def test_a_library_is_attached_to_when_it_is_imported(libraries):
    assert sidelight.install() == ["fake", "other"]
    assert "fakelib" not in sys.modules
    import fakelib

    assert libraries == []
    import fakelib.core

    assert libraries == [("fakelib.core", True)]
    loader = fakelib.core.__spec__.loader
    assert "exec_module" not in vars(loader)
    assert fakelib.core.__loader__ is loader
    assert fakelib.deep.__spec__.origin == fakelib.__path__[0] + "/deep.py"


def test_a_library_that_is_there_is_attached_to_at_once(libraries):
    import otherlib  # noqa: F401

    assert sidelight.install(only=["other"]) == ["other"]
    assert libraries == [("otherlib", True)]
    assert _install._finder not in sys.meta_path


def test_the_finder_goes_when_all_have_come(libraries):
    before = list(sys.meta_path)
    assert sidelight.install(only=("other", "fake")) == ["fake", "other"]
    assert sys.meta_path == [_install._finder, *before]
    import fakelib.core  # noqa: F401
    import otherlib  # noqa: F401

    assert sys.meta_path == before
    assert len(libraries) == 2


class AsksTheOthers:
    """A finder like ours: it asks all finders but itself."""

    depth = deepest = 0

    def find_spec(self, name, path=None, target=None):
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        try:
            specs = (f.find_spec(name, path, target) for f in list(sys.meta_path) if f is not self)
            return next(filter(None, specs), None)
        finally:
            self.depth -= 1


@pytest.mark.parametrize("first", [True, False])
def test_beside_a_finder_that_asks_the_others_too(libraries, first):
    other = AsksTheOthers()
    sys.meta_path.insert(0, other)
    assert sidelight.install() == ["fake", "other"]
    if first:
        sys.meta_path.insert(0, sys.meta_path.pop(sys.meta_path.index(other)))
    import otherlib  # noqa: F401

    assert libraries == [("otherlib", True)]
    assert other.deepest <= 2


def test_a_library_that_is_on_its_way_already(libraries, tmp_path):
    (tmp_path / "fakelib" / "core.py").write_text("import sidelight\nsidelight.install()\nready = True\n")
    import fakelib.core  # noqa: F401

    assert libraries == []
    import otherlib  # noqa: F401

    assert libraries == [("fakelib.core", True), ("otherlib", True)]


def test_an_import_that_fails_is_waited_for_again(libraries, monkeypatch):
    monkeypatch.setattr(
        _install, "INTEGRATIONS", {"broken": ("fakelib.broken", "sidelight.fake_fake")}
    )
    assert sidelight.install() == ["broken"]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            import fakelib.broken  # noqa: F401
    assert libraries == []
    assert _install._finder.waits


def test_threads_that_import_at_once_attach_once(libraries):
    import threading

    sidelight.install()
    gate = threading.Barrier(8)

    def work():
        gate.wait()
        sidelight.install()
        import fakelib.core  # noqa: F401
        import otherlib  # noqa: F401

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(libraries) == {("fakelib.core", True), ("otherlib", True)}


def test_what_does_not_fit_is_left_out(libraries, monkeypatch):
    class Breaks:
        def install(self):
            raise SystemExit(1)

    monkeypatch.setitem(sys.modules, "sidelight.fake_other", Breaks())
    import otherlib  # noqa: F401

    assert sidelight.install() == ["fake"]


@pytest.mark.parametrize(
    "only", [[], "other", ["other"], ["nothing"], "nothing", 5, [None, 5, []], object(), {"other": 1}], ids=repr
)
def test_only_these(libraries, only):
    import otherlib  # noqa: F401

    found = sidelight.install(only=only)
    assert found == (["other"] if "other" in str(only) else [])
    assert len(libraries) == len(found)


def test_every_integration_has_its_module_and_an_install():
    assert set(sidelight.install.__annotations__) == {"only", "return"}
    for theirs, ours in _install.INTEGRATIONS.values():
        path = os.path.join(os.path.dirname(sidelight.__file__), *ours.split(".")[1:]) + ".py"
        with open(path) as source:
            assert "\ndef install() -> None:" in source.read(), theirs


def run(code, **more):
    code = textwrap.dedent(code)
    env = {**os.environ, "PYTHONWARNINGS": "error", "SIDELIGHT_SOCKET": "/nonexistent/s.sock", **more}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_install_imports_no_library():
    loaded = run(
        """
        import sys, sidelight
        sidelight.install()
        print(*sys.modules)
        """
    ).split()
    roots = {name.partition(".")[0] for name in loaded}
    assert roots.isdisjoint({"langchain_core", "langchain", "openai", "anthropic", "agents", "asyncio", "http"})
    assert "sidelight.langchain" not in loaded


def test_the_host_stays_as_it_was():
    """No thread, no handler, no hook but the one that waits."""
    out = run(
        """
        import builtins, signal, sys, threading
        hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, builtins.__import__
        signals = [signal.getsignal(n) for n in range(1, 32)]
        finders = list(sys.meta_path)
        import sidelight
        sidelight.install()
        @sidelight.agent
        def work(): return sidelight.trace("0" * 32, 0.1)
        assert work() is None
        assert hooks == (sys.excepthook, sys.unraisablehook, threading.excepthook, builtins.__import__)
        assert signals == [signal.getsignal(n) for n in range(1, 32)]
        assert sys.meta_path[1:] == finders or sys.meta_path == finders
        assert threading.active_count() == 1
        assert "logging" not in sys.modules
        """
    )
    assert out == ""


@pytest.mark.skipif(not _install._is_here("langchain_core"), reason="there is no LangChain here")
def test_langchain_is_attached_to_before_its_first_run():
    out = run(
        """
        import sys, sidelight
        sidelight.install()
        from langchain_core.runnables import RunnableLambda
        print("sidelight.langchain" in sys.modules)
        run = RunnableLambda(lambda x: sidelight.traceparent())
        print(run.invoke(1))
        print(type(sys.meta_path[0]).__module__ != "sidelight._install")
        """,
        LANGSMITH_TRACING="false",
    ).split()
    assert out[0] == "False"
    assert out[1].startswith("00-")


@pytest.mark.skipif(not _install._is_here("langchain_core"), reason="there is no LangChain here")
def test_a_handler_for_one_run():
    assert type(sidelight.handler()).__name__ == "SidelightCallbackHandler"


def test_a_handler_that_cannot_be_made_is_one_that_does_nothing(monkeypatch):
    base = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler
    monkeypatch.setitem(sys.modules, "sidelight.langchain", None)
    assert type(sidelight.handler()) is base
