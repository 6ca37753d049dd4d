"""Dialects: which draft of JSON Schema a schema is written in, and whether it keeps to it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from mes.structured.refusals import invalid
from mes.structured.wording import in_words

NEWEST = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS = {
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    NEWEST,
}


def dialect(document: dict[str, Any]) -> str:
    """The dialect's address, without `#`; 2020-12 where none is named. Raises SchemaInvalid."""
    said = document.get("$schema", NEWEST)
    if isinstance(said, str) and said.removesuffix("#") in _DIALECTS:
        return said.removesuffix("#")
    raise invalid(["$schema"], "names a dialect other than draft 4 to 2020-12; leave it out")


def refuse_what_breaks_it(document: dict[str, Any]) -> None:
    """Raises SchemaInvalid where the dialect's own schema does not allow the document."""
    try:
        jsonschema_rs.meta.validate(document)
    except jsonschema_rs.ValidationError as exc:
        violation = in_words(exc)
        raise invalid(exc.instance_path, violation.detail) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise invalid((), str(exc).partition("\n")[0]) from exc
