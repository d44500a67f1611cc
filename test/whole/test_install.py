"""What is installed, as a stranger uses it: header, library, pkg-config file and manual pages."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import eventually

ROOT = pathlib.Path(__file__).parents[2]
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
CALLS = """
#include <sidelight.h>
int main()
{
	sidelight_options options = sidelight_options();
	sidelight *sl = sidelight_open(&options);
	sidelight_attr usage = sidelight_int("input_tokens", 3);
	sidelight_start_fields start = sidelight_start_fields();
	sidelight_end_fields end = sidelight_end_fields();
	sidelight_run run;
	start.kind = "llm";
	end.usage = &usage;
	end.usage_count = 1;
	int failed = sidelight_start(sl, &run, &start) || sidelight_end(sl, &run, &end);
	sidelight_close(sl);
	return failed;
}
"""


def run(*command, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """A build without sanitizers, installed into a directory of its own."""
    daemon = os.environ.get("SIDELIGHTD_PLAIN")
    if not daemon:
        pytest.skip("SIDELIGHTD_PLAIN does not name a daemon without sanitizers")
    build = pathlib.Path(daemon).parents[1]
    root = tmp_path_factory.mktemp("installed")
    run("meson", "install", "-C", str(build), "--no-rebuild", "--destdir", str(root))
    return root


def one(installed: pathlib.Path, name: str) -> pathlib.Path:
    (path,) = installed.rglob(name)
    return path


@pytest.fixture(scope="module")
def flags(installed):
    """flags("--static") is what pkg-config says of what is installed there."""
    places = {"PKG_CONFIG_LIBDIR": str(one(installed, "sidelight.pc").parent), "PKG_CONFIG_SYSROOT_DIR": str(installed)}

    def ask(*options: str) -> list[str]:
        return run("pkg-config", "--cflags", "--libs", *options, "sidelight", env=os.environ | places).split()

    return ask


def start_and_stop(program: pathlib.Path, installed: pathlib.Path, daemon) -> list:
    running = daemon()
    places = {
        "SIDELIGHT_SOCKET": running.socket,
        "LD_LIBRARY_PATH": str(one(installed, "libsidelight.so.0").parent),
    }
    run(str(program), env=os.environ | places)
    return running


def test_the_example_is_c99_and_works(installed, flags, daemon, tmp_path):
    program = tmp_path / "example"
    source = str(ROOT / "client" / "c" / "example.c")
    run("cc", "-std=c99", *STRICT, source, "-o", str(program), *flags())
    assert "libsidelight.so.0" in run("objdump", "-p", str(program))
    running = start_and_stop(program, installed, daemon)
    (whole,) = running.observations()
    assert whole["name"] == "invoke_agent weather" and whole["total_tokens"] == 17


def test_it_links_statically_too(installed, flags, daemon, tmp_path):
    program = tmp_path / "example"
    source = str(ROOT / "client" / "c" / "example.c")
    library = str(one(installed, "libsidelight.a"))
    static = [library if flag == "-lsidelight" else flag for flag in flags("--static")]
    run("cc", "-std=c99", *STRICT, source, "-o", str(program), *static)
    assert "libsidelight.so" not in run("objdump", "-p", str(program))
    assert len(start_and_stop(program, installed, daemon).observations()) == 1


@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_header_is_cplusplus(installed, flags, daemon, tmp_path, standard):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    program, source = tmp_path / "calls", tmp_path / "calls.cc"
    source.write_text(CALLS)
    run("g++", f"-std={standard}", *STRICT, str(source), "-o", str(program), *flags())
    running = start_and_stop(program, installed, daemon)
    eventually(lambda: running.metrics()("sidelight_runs_started_total") == 1)


def test_the_library_shows_only_its_own_names(installed):
    names = run("nm", "-D", "--defined-only", "--format=posix", str(one(installed, "libsidelight.so.0")))
    shown = {line.split()[0] for line in names.splitlines()}
    header = one(installed, "sidelight.h").read_text()
    assert shown and all(name.startswith("sidelight_") and name in header for name in shown)


@pytest.mark.parametrize("page", ["sidelight.1", "sidelight.3", "sidelightd.8"])
def test_the_manual_pages_are_sound(installed, page):
    text = one(installed, page)
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc")
    run("mandoc", "-T", "lint", "-W", "warning", str(text))


def test_the_manual_names_every_function(installed):
    header, page = one(installed, "sidelight.h").read_text(), one(installed, "sidelight.3").read_text()
    names = {word.split("(")[0].lstrip("*") for word in header.split() if word.lstrip("*").startswith("sidelight_") and "(" in word}
    assert len(names) >= 13
    assert not [name for name in names if f".Fn {name}" not in page]
