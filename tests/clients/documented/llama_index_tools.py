"""LlamaIndex: `chat_with_tools`, its answer and the function's result sent back, and an agent."""

import asyncio
import json
import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model="llama3.1:8b",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=4096,
    max_retries=0,
)


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"21 degrees in {city}"


tools = [FunctionTool.from_defaults(get_weather)]
first = model.chat_with_tools(tools, user_msg="How warm is Rome?")
(call,) = model.get_tool_calls_from_response(first)
result = ChatMessage(
    role="tool",
    content=get_weather(**call.tool_kwargs),
    additional_kwargs={"tool_call_id": call.tool_id},
)
question = ChatMessage(role="user", content="How warm is Rome?")
second = model.chat_with_tools(tools, chat_history=[question, first.message, result])


async def run_agent():
    agent = FunctionAgent(name="weatherman", llm=model, tools=tools, system_prompt="Be brief.")
    return str(await agent.run("How warm is Rome?"))


printed = {
    "call": [call.tool_name, call.tool_kwargs],
    "answer": second.message.content,
    "agent": asyncio.run(run_agent()),
}
print(json.dumps(printed))
