"""Semantic Kernel: a ChatCompletionAgent with a function, over two turns, and a typed answer."""

import asyncio
import json

from openai import AsyncOpenAI
from pydantic import BaseModel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
)
from semantic_kernel.functions import KernelArguments, kernel_function


class Report(BaseModel):
    city: str
    degrees: int


class Weather:
    @kernel_function
    def get_weather(self, city: str) -> str:
        """Return the weather of a city."""
        return f"21 degrees in {city}"


async def main():
    client = AsyncOpenAI(max_retries=0)
    service = OpenAIChatCompletion(ai_model_id="llama3.1:8b", async_client=client)
    agent = ChatCompletionAgent(
        service=service, name="Weatherman", instructions="Be brief.", plugins=[Weather()]
    )
    first = await agent.get_response("How warm is Rome?")
    second = await agent.get_response("Thank you.", thread=first.thread)
    pieces = [
        str(piece.content) async for piece in agent.invoke_stream("And Oslo?", thread=second.thread)
    ]
    settings = OpenAIChatPromptExecutionSettings(response_format=Report)
    reporter = ChatCompletionAgent(
        service=service, name="Reporter", arguments=KernelArguments(settings)
    )
    report = await reporter.get_response("How warm is Rome?")
    await client.close()
    printed = {
        "answers": [str(first), str(second)],
        "streamed": "".join(pieces),
        "report": json.loads(str(report)),
    }
    print(json.dumps(printed))


asyncio.run(main())
