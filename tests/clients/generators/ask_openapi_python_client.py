"""Ask a chat question with the client that openapi-python-client has generated."""

import json
import os

from mes_client import AuthenticatedClient
from mes_client.api.chat import chat_create
from mes_client.models import ChatRequest, Message, MessageRole

client = AuthenticatedClient(base_url=os.environ["MES_URL"], token=os.environ["MES_API_KEY"])
question = Message(role=MessageRole.USER, content="What is the capital of France?")
answer = chat_create.sync(
    client=client,
    body=ChatRequest(model="smollm2:135m", messages=[question], temperature=0.0),
)
print(json.dumps(answer.choices[0].message.content))
