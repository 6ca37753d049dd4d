"""pydantic-ai: a function and a typed answer, which is called for again after a mistake."""

import json

from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput


class Report(BaseModel):
    city: str
    degrees: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"21 degrees in {city}"


def check(report: Report) -> Report:
    if report.degrees > 60:
        raise ModelRetry("No city is that warm.")
    return report


def run(output_type):
    agent = Agent("openai-chat:llama3.1:8b", output_type=output_type, tools=[get_weather])
    agent.output_validator(check)
    done = agent.run_sync("How warm is Rome?")
    return {
        "output": done.output.model_dump(),
        "parts": [part.part_kind for message in done.new_messages() for part in message.parts],
    }


print(json.dumps({"called": run(Report), "native": run(NativeOutput(Report))}))
