#!/usr/bin/env python3
"""A real LangGraph agent with two tools, seen by Sidelight: what `tools/demo` runs.

It asks the same questions of two models, and one more in a process of its own that is killed
in mid-call. The agent's own code knows nothing of Sidelight: the two lines below are all.

OPENAI_BASE_URL names the service (tools/demo: scripted_openai.py). Without it and with an
OPENAI_API_KEY the real one answers; it can't be told to fail, so those questions are left out.

    demo_agent.py                                        everything
    demo_agent.py --ask QUESTION [--model MODEL]         one question
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
import urllib.request

import sidelight

sidelight.install()

from langchain.agents import create_agent  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402

MODELS = ("gpt-4o", "gpt-4o-mini")
PROMPT = "You are a travel assistant. Use the tools, and answer briefly."
NEW_YEAR = f"{datetime.date.today().year + 1}-01-01"

# What is shown, and what is asked for it.
TWO_TOOLS = ("two tools, one slow", f"What is the weather in Oslo, and how many days until {NEW_YEAR}?")
TOOL_RAISES = ("a tool that raises", "What is the weather in Atlantis?")
RATE_LIMITED = ("429, then well", "It is rush hour, but what is the weather in Lisbon?")
FAILS = ("500 for good", "Which trains does the outage stop?")
STREAMED = ("streamed", "Tell me a story of two sentences.")
KILLED = "Plan the best journey there can be; think about it forever."


@tool
def weather(city: str) -> str:
    """The weather in a city now."""
    if city == "Atlantis":
        raise LookupError("no weather station in Atlantis")
    time.sleep({"Oslo": 1.2}.get(city, 0.05))  # the slow one, to be found from its trace alone
    return f"{city}: 3 °C, light snow."


@tool
def days_until(date: str) -> str:
    """The number of days from today until a date, given as YYYY-MM-DD."""
    time.sleep(0.08)
    return f"{(datetime.date.fromisoformat(date) - datetime.date.today()).days} days until {date}."


def ask(model, question, stream=False):
    """One request; the text of its answer."""
    llm = ChatOpenAI(model=model, stream_usage=True, timeout=60)
    agent = create_agent(llm, [weather, days_until], system_prompt=PROMPT, name="travel-agent")
    messages = {"messages": [{"role": "user", "content": question}]}
    about = {"user_id": "ada", "thread_id": f"trip-{model}", "prompt_key": "travel", "prompt_version": "3"}
    if not stream:
        return agent.invoke(messages, {"metadata": about})["messages"][-1].text
    chunks = agent.stream(messages, {"metadata": about}, stream_mode="messages")
    return "".join(chunk.text for chunk, _ in chunks)


def show(model, what, began, answer):
    line = f"  {model:<11}  {what:<19}  {time.monotonic() - began:4.2f} s  {' '.join(answer.split())}"
    print(line if len(line) <= 100 else line[:99] + "…", flush=True)


def scene(model, what, question):
    began = time.monotonic()
    try:
        answer = ask(model, question, stream=what == "streamed")
    except Exception as error:  # the demo goes on, as a server would
        answer = f"{type(error).__name__}: {error}"
    show(model, what, began, answer)


def inside_the_call():
    """Waits until the scripted service holds the request, and a moment; the moment must do with the real one."""
    url = os.environ.get("OPENAI_BASE_URL")
    deadline = time.monotonic() + 30
    held = not url
    while not held and time.monotonic() < deadline:
        time.sleep(0.02)
        with urllib.request.urlopen(url.removesuffix("/v1") + "/hanging", timeout=5) as answer:
            held = json.load(answer)["count"] > 0
    time.sleep(0.7)


def start_doomed():
    """The agent in a process of its own, its modules loaded, waiting for a line to begin."""
    command = [sys.executable, __file__, "--wait", "--ask", KILLED]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


def kill_in_mid_call(child):
    began = time.monotonic()
    child.stdin.write("\n")
    child.stdin.flush()
    inside_the_call()
    child.kill()
    child.wait()
    show(MODELS[0], "killed in mid-call", began, f"SIGKILL to process {child.pid} while it waits for the model")


def everything():
    scenes = [TWO_TOOLS, TOOL_RAISES, STREAMED]
    if "OPENAI_BASE_URL" in os.environ:
        scenes[2:2] = [RATE_LIMITED, FAILS]
    doomed = start_doomed()
    try:
        for model in MODELS:
            for what, question in scenes:
                scene(model, what, question)
        kill_in_mid_call(doomed)
    finally:
        doomed.kill()


def main():
    parser = argparse.ArgumentParser(description="A LangGraph agent, seen by Sidelight.")
    parser.add_argument("--ask", metavar="QUESTION")
    parser.add_argument("--model", default=MODELS[0])
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when a line comes on stdin")
    options = parser.parse_args()
    if options.wait and not sys.stdin.readline():
        return
    if options.ask:
        print(ask(options.model, options.ask, options.stream))
    else:
        everything()
    sidelight.flush(5)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
