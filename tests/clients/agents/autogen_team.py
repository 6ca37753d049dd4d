"""AutoGen: an assistant with a function and a typed answer, and a reviewer, in one team."""

import asyncio
import json

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import StructuredMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

CAPABILITIES = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "family": "unknown",
    "multiple_system_messages": True,
}


class Report(BaseModel):
    city: str
    degrees: int


async def get_weather(city: str) -> str:
    return f"21 degrees in {city}"


async def main():
    client = OpenAIChatCompletionClient(model="llama3.1:8b", model_info=CAPABILITIES)
    weatherman = AssistantAgent(
        "weatherman",
        model_client=client,
        tools=[FunctionTool(get_weather, "Return the weather of a city.", strict=True)],
        reflect_on_tool_use=True,
        output_content_type=Report,
    )
    reviewer = AssistantAgent("reviewer", model_client=client, system_message="Review it.")
    team = RoundRobinGroupChat(
        [weatherman, reviewer],
        max_turns=2,
        custom_message_types=[StructuredMessage[Report]],
    )
    done = await team.run(task="How warm is Rome?")
    await client.close()
    report, review = done.messages[-2:]
    printed = {
        "report": report.content.model_dump(),
        "review": review.content,
        "types": [each.type for each in done.messages],
    }
    print(json.dumps(printed))


asyncio.run(main())
