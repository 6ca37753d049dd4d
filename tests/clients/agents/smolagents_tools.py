"""smolagents: a ToolCallingAgent, which has to call a function in each step."""

import json
import os

from smolagents import LogLevel, OpenAIServerModel, ToolCallingAgent, tool


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city.

    Args:
        city: The name of the city.
    """
    return f"21 degrees in {city}"


model = OpenAIServerModel(
    "llama3.1:8b",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    client_kwargs={"max_retries": 0},
)
agent = ToolCallingAgent(tools=[get_weather], model=model, verbosity_level=LogLevel.OFF)
answer = agent.run("How warm is Rome?", max_steps=4)
print(json.dumps({"answer": answer, "steps": len(agent.memory.steps) - 1}))
