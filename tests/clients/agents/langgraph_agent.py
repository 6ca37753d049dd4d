"""LangGraph: a named agent with a function and a typed answer, over two turns with a memory."""

import json

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel


class Report(BaseModel):
    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"21 degrees in {city}"


agent = create_react_agent(
    ChatOpenAI(model="llama3.1:8b", max_retries=0),
    [get_weather],
    prompt="You are a weatherman.",
    response_format=Report,
    name="weatherman",
    checkpointer=InMemorySaver(),
)
thread = {"configurable": {"thread_id": "1"}}
turns = [
    agent.invoke({"messages": [("user", question)]}, thread)
    for question in ("How warm is Rome?", "Thank you.")
]
printed = {
    "reports": [turn["structured_response"].model_dump() for turn in turns],
    "roles": [message.type for message in turns[-1]["messages"]],
    "names": sorted({message.name or "" for message in turns[-1]["messages"]}),
}
print(json.dumps(printed))
