"""docker-compose.yml as Docker Compose reads it."""

from __future__ import annotations

import re
from typing import Any

import compose_spec
import yaml

from tests.support.process import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text()
GPU = (ROOT / "docker-compose.gpu.yml").read_text()


def composed(text: str = COMPOSE, **environ: str) -> dict[str, Any]:
    """Return the services with variables replaced, after a check by Compose's specification."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: environ.get(m[1]) or m[2], text)
    assert "${" not in text
    document = yaml.safe_load(text)
    _check(yaml.safe_dump(document))
    return dict(document["services"])


def _check(text: str) -> None:
    """Check a document without merge keys (`<<`), which the specification does not have."""
    # Compose accepts a tag with a digest.
    text = re.sub("@sha256:[0-9a-f]{64}$", "", text, flags=re.MULTILINE)
    compose_spec.PyCompose.from_yaml(text).validate()


def environment_of_mes(**environ: str) -> dict[str, str]:
    """Return the variables that Compose sets in the container of MES.

    Args:
        environ: the variables of the shell and of `.env`.
    """
    variables = composed(**environ)["mes"]["environment"]
    passed_on = {name: environ[name] for name in variables.keys() & environ.keys()}
    texts = {name: str(value) for name, value in variables.items() if value is not None}
    return {**texts, **passed_on}
