"""Workers of every sort, for test_processes.py: what each does is a task of three runs.

    workers.py ROLE ENDING COUNT

runs COUNT tasks the way ROLE says, in this process or in its children, and ends the process that
ran the last of them by ENDING: exit, or kill (SIGKILL right after the last event). gunicorn and
celery load this file as a module.
"""

import asyncio
import contextvars
import multiprocessing
import os
import signal
import sys
import threading
import time

ROLE = sys.argv[1] if __name__ == "__main__" else ""
if ROLE == "gevent":
    from gevent import monkey

    monkey.patch_all()

import sidelight  # noqa: E402


def begin(name):
    return sidelight.run(name, kind="agent", input="question")


def call_model():
    with sidelight.run("chat", kind="llm", model="m", provider="p", input="x" * 2000) as call:
        call.set(output="y" * 1000, usage={"prompt_tokens": 10, "completion_tokens": 5})


def call_tool():
    with sidelight.run("tool", kind="tool", input={"a": 1}) as run:
        run.output = "z"


def task(name):
    with begin(name) as run:
        call_model()
        call_tool()
        run.output = "answer"


def leave(ending):
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def one(name, ending):
    task(name)
    leave(ending)


# Servers


def app(environ, respond):
    """WSGI: GET /NAME/ENDING."""
    name, ending = environ["PATH_INFO"].strip("/").split("/")
    one(name, ending)
    respond("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def celery_app():
    from celery import Celery

    folder = os.environ["WORKERS_QUEUE"]
    queue = Celery("workers", broker="filesystem://")
    queue.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": folder + ".control",
    }
    queue.task(one, name="one")
    return queue


if "WORKERS_QUEUE" in os.environ:
    celery = celery_app()
if "WORKERS_AT_LOAD" in os.environ:  # under gunicorn --preload that is in the master
    task("load")


# Processes


def children(method, ending, count):
    task("parent")
    context = multiprocessing.get_context(method)
    names = [f"task{n}" for n in range(count)]
    processes = [context.Process(target=one, args=(name, ending)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    wanted = -signal.SIGKILL if ending == "kill" else 0
    assert [process.exitcode for process in processes] == [wanted] * count


def forks_in_threads(ending, count):
    """Each of the threads forks, while the others emit."""
    done = []

    def work(n):
        task(f"parent{n}")
        pid = os.fork()
        if pid == 0:
            one(f"task{n}", ending)
            os._exit(0)
        done.append(os.waitpid(pid, 0)[1])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [signal.SIGKILL if ending == "kill" else 0] * count


async def interleaved(n):
    """The model in a thread, the tool in a task of its own; the others' steps come between."""
    with begin(f"task{n}") as run:
        await asyncio.sleep(0.001 * (n % 3))
        await asyncio.to_thread(call_model)
        await asyncio.sleep(0)
        await asyncio.ensure_future(in_a_task())
        run.output = "answer"


async def in_a_task():
    call_tool()


async def all_at_once(count):
    await asyncio.gather(*(interleaved(n) for n in range(count)))


def in_an_executor(count):
    """A thread pool, given the context by hand."""
    from concurrent.futures import ThreadPoolExecutor

    def whole(n):
        with begin(f"task{n}") as run:
            with ThreadPoolExecutor(1) as inner:
                for step in (call_model, call_tool):
                    inner.submit(contextvars.copy_context().run, step).result()
            run.output = "answer"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(whole, range(count)))


def in_greenlets(count):
    import gevent

    def work(n):
        with begin(f"task{n}") as run:
            gevent.sleep(0.001 * (n % 3))
            call_model()
            time.sleep(0.001)  # gevent's, by now
            call_tool()
            run.output = "answer"

    gevent.joinall([gevent.spawn(work, n) for n in range(count)], raise_error=True)


def main(ending, count):
    if ROLE in ("fork", "spawn"):
        return children(ROLE, ending, count)
    if ROLE == "forks_in_threads":
        return forks_in_threads(ending, count)
    if ROLE == "asyncio":
        asyncio.run(all_at_once(count))
    elif ROLE == "uvloop":
        import uvloop

        uvloop.run(all_at_once(count))
    elif ROLE == "threads":
        in_an_executor(count)
    elif ROLE == "gevent":
        in_greenlets(count)
    else:
        raise SystemExit(f"no such role: {ROLE}")
    return leave(ending)


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]))
