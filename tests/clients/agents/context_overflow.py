"""LiteLLM and LangChain: a prompt that is too long for the model raises the library's own error."""

import json
import os

import litellm
from langchain_openai import ChatOpenAI

LONG = "many words " * 8000
MODEL = "smollm2:135m"


def ask_litellm(stream):
    litellm.completion(
        model=f"openai/{MODEL}",
        api_base=os.environ["OPENAI_BASE_URL"],
        messages=[{"role": "user", "content": LONG}],
        stream=stream,
        num_retries=0,
    )


def ask_langchain(stream):
    model = ChatOpenAI(model=MODEL, max_retries=0)
    list(model.stream(LONG)) if stream else model.invoke(LONG)


printed = {}
for ask in (ask_litellm, ask_langchain):
    for stream in (False, True):
        try:
            ask(stream)
        except Exception as error:
            bases = [base.__name__ for base in type(error).__mro__]
            printed.setdefault(ask.__name__, []).append(bases)
print(json.dumps(printed))
