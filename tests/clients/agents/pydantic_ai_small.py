"""pydantic-ai: a typed answer of a model without tools, refused once by a validator."""

import json

from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry


class Person(BaseModel):
    name: str
    age: int


agent = Agent("openai-chat:smollm2:135m", output_type=Person, model_settings={"temperature": 0})
tries = []


@agent.output_validator
def check(person: Person) -> Person:
    tries.append(person.age)
    if len(tries) == 1:
        raise ModelRetry("The name must be in full.")
    return person


done = agent.run_sync("Extract the person: John Smith is 25 years old")
print(json.dumps({"output": done.output.model_dump(), "tries": len(tries)}))
