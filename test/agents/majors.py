"""What an older major of LangChain has under another name or not at all; test/older/requirements.in names it."""

from __future__ import annotations

from importlib.metadata import version

OLDER = version("langchain").startswith("0.")

if OLDER:
    from langgraph.prebuilt import ToolNode, create_react_agent
    from pydantic import ValidationError

    def create_agent(model, tools, *, system_prompt=None, **options):
        """The newer one, which tells the model of wrong arguments alone and leaves a tool's own exceptions to the caller."""
        known = ToolNode(tools, handle_tool_errors=(ValidationError,)) if tools else tools
        return create_react_agent(model, known, prompt=system_prompt, **options)

    # The runs in which an agent asks its model, as paths below the agent's: the last one is the model's.
    MODEL_RUNS = [
        ("agent",),
        ("agent", "call_model"),
        ("agent", "should_continue"),
        ("agent", "RunnableSequence"),
        ("agent", "RunnableSequence", "Prompt"),
        ("agent", "RunnableSequence", "ChatOpenAI"),
    ]
    SERVER_ERROR = "InternalServerError"
else:
    from langchain.agents import create_agent

    MODEL_RUNS = [("model",), ("model", "ChatOpenAI")]
    SERVER_ERROR = "OpenAIAPIError"

NODE = MODEL_RUNS[0][0]

# The older majors' part of the tests. What has nothing to do with a library's version runs once:
IGNORED = ["test_processes.py", "test_scripted_openai.py"] if OLDER else []
# … and so do the programs that are written for create_agent: the example and the demo's agent.
IGNORED += ["test_chat_app.py", "test_demo_agent.py"] if OLDER else []

ABSENT = {
    "test_events_of_a_v3_stream_count_as_chunks": "stream_events(version='v3') is of langchain-core 1",
    "test_interrupts_and_resumes_are_events": "LangGraph 0 has no callbacks for them",
    "test_a_graph_s_handler_has_every_callback": "LangGraph 0 has no callbacks of graphs",
    "test_a_graph_in_a_tool_is_an_agent[expert]": "nothing of LangGraph 0 says that a run with a name is a graph's",
    "test_a_limit_of_recursion[agent]": "create_react_agent answers that it needs more steps",
    "test_a_stream_that_is_dropped_needs_no_collector": "anthropic's own streams did before anthropic 2",
}


def is_absent(test: str) -> bool:
    return OLDER and test in ABSENT


__all__ = ["IGNORED", "MODEL_RUNS", "NODE", "OLDER", "SERVER_ERROR", "create_agent", "is_absent"]
