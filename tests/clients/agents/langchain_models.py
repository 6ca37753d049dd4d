"""LangChain: completions in a batch, and a call of any of two functions."""

import json
from typing import Literal

from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

EXACT = {"model": "smollm2:135m", "temperature": 0, "seed": 7, "max_retries": 0}


class GetWeather(BaseModel):
    """Return the weather of a city"""

    city: Literal["Rome", "Oslo"]


class GetTime(BaseModel):
    """Return the time in a city"""

    city: Literal["Rome", "Oslo"]


completions = OpenAI(max_tokens=24, **EXACT)
questions = ["What is the capital of France?", "What is the capital of Italy?"]
chat = ChatOpenAI(**EXACT).bind_tools([GetWeather, GetTime], tool_choice="any")
answer = chat.invoke("How warm is Rome?")
printed = {
    "alone": [completions.invoke(question) for question in questions],
    "batch": completions.batch(questions),
    "calls": [{"name": call["name"], "args": call["args"]} for call in answer.tool_calls],
}
print(json.dumps(printed))
