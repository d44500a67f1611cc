"""Adds the optional part in C: without a compiler or Python's headers the client is all Python."""

import sys
import sysconfig

from setuptools import Extension, setup

FAST = Extension(
    "sidelight._fast",
    ["src/call.c", "src/fast.c", "src/handler.c", "src/lane.c", "src/pack.c", "src/place.c"],
    depends=["src/call.h", "src/handler.h", "src/lane.h", "src/pack.h", "src/place.h"],
    py_limited_api=True,
    optional=True,
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"],
)
# One build for every CPython from 3.10 on; its promises are those of the GIL and of Linux.
FITS = (
    sys.platform == "linux"
    and sys.implementation.name == "cpython"
    and sys.version_info >= (3, 10)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)

setup(
    ext_modules=[FAST] if FITS else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if FITS else {},
)
