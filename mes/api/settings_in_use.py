"""`GET /v1/settings`: the settings that the service was started with."""

from __future__ import annotations

import os

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.operation_docs import documented
from mes.api.response_fields import ResponseSchema, boolean, json_object, json_response, string
from mes.api.services import get_services
from mes.config.api_keys import ADMIN
from mes.config.settings import setting_texts
from mes.config.settings_schema import DEVELOPMENT_KEY

# Settings of the runtime that `mes check` compares with those of MES.
_RUNTIME_NAMES = ("OLLAMA_MAX_LOADED_MODELS", "OLLAMA_NUM_PARALLEL")

bp = Blueprint("settings", __name__, url_prefix="/v1/settings")


class SettingsAnswer(ResponseSchema):
    """The response to `GET /v1/settings`."""

    settings = json_object(
        "The value of each setting by its name, as text; paths are absolute. Without the API key."
    )
    working_directory = string("The folder in which the service was started.")
    development_key = boolean("Whether the service accepts the development key.")
    runtime_settings = json_object(
        "Settings of Ollama that are set for the service too, by their names."
    )


@bp.get("")
@auth.login_required(role=ADMIN)
@documented(SettingsAnswer)
def show() -> Response:
    """Show the settings that the service uses, for `mes check`."""
    settings = get_services().settings
    return json_response(
        SettingsAnswer.build(
            settings=setting_texts(settings),
            working_directory=os.getcwd(),
            development_key=settings.api_key == DEVELOPMENT_KEY,
            runtime_settings={
                name: os.environ[name] for name in _RUNTIME_NAMES if os.environ.get(name)
            },
        )
    )
