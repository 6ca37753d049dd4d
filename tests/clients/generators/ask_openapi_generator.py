"""Ask a chat question with the client that openapi-generator has generated for Python."""

import json
import os

from mes_client import (
    ApiClient,
    ChatApi,
    ChatRequest,
    Configuration,
    Message,
    MessageContent,
)

configuration = Configuration(host=os.environ["MES_URL"], access_token=os.environ["MES_API_KEY"])
content = MessageContent("What is the capital of France?")
question = ChatRequest(
    model="smollm2:135m", messages=[Message(role="user", content=content)], temperature=0
)
with ApiClient(configuration) as api:
    answer = ChatApi(api).chat_create(question)
print(json.dumps(answer.choices[0].message.content))
