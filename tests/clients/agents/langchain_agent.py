"""LangChain: an agent of `create_agent` whose answer is a call of one of two functions."""

import json

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Report(BaseModel):
    city: str
    degrees: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"21 degrees in {city}"


agent = create_agent(
    ChatOpenAI(model="llama3.1:8b", max_retries=0),
    [get_weather],
    response_format=ToolStrategy(Report),
    name="weatherman",
)
done = agent.invoke({"messages": [("user", "How warm is Rome?")]})
printed = {
    "report": done["structured_response"].model_dump(),
    "roles": [message.type for message in done["messages"]],
}
print(json.dumps(printed))
