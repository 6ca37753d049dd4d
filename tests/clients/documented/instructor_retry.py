"""instructor: a validator refuses the first answer, and the model is asked again."""

import json

import instructor
from openai import OpenAI
from pydantic import BaseModel, field_validator

tries = []


class Person(BaseModel):
    name: str
    age: int

    @field_validator("name")
    @classmethod
    def refuse_the_first(cls, name: str) -> str:
        tries.append(name)
        if len(tries) == 1:
            raise ValueError("the name must be in full")
        return name


client = instructor.from_openai(OpenAI(max_retries=0))
person = client.chat.completions.create(
    model="smollm2:135m",
    messages=[{"role": "user", "content": "Extract the person: John Smith is 25 years old"}],
    response_model=Person,
    max_retries=2,
    temperature=0,
    seed=7,
)
print(json.dumps({"person": person.model_dump(), "tries": len(tries)}))
