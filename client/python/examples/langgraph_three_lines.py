"""A LangGraph agent that Sidelight sees. The three lines are those with `sidelight` in them."""

import sidelight

sidelight.configure(service="weather-agent")
sidelight.install()

from langchain.agents import create_agent  # noqa: E402
from langchain_core.tools import tool  # noqa: E402


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


agent = create_agent("openai:gpt-4o-mini", tools=[weather])  # needs OPENAI_API_KEY
result = agent.invoke({"messages": [("user", "What is the weather in Oslo?")]})
print(result["messages"][-1].content)
