"""Settings: the values that the environment may have, and the errors for invalid ones."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mes.config.settings import SettingsError, load, setting_texts, settings_table

ROOT = Path(__file__).parent.parents[1]
OWN_KEY = {"MES_API_KEY": "s3cret-of-our-own"}


def mistakes(environ, dotenv=None):
    with pytest.raises(SettingsError) as caught:
        load(environ, dotenv=dotenv)
    return str(caught.value).splitlines()


def test_every_setting_has_its_documented_default():
    settings = load({}, dotenv=None)
    assert settings.api_key == "mes-dev-key-123"
    assert settings.ollama_host == "http://ollama:11434"
    assert (settings.max_loaded_models, settings.default_timeout_seconds) == (2, 600)
    assert (settings.log_level, settings.port) == ("INFO", 8001)
    assert settings.models_config_path == Path("config/models.json")


def test_all_mistakes_are_reported_at_once_with_name_problem_and_remedy():
    lines = mistakes({"PORT": "eighty", "MAX_LOADED_MODELS": "0", "LOG_LEVEL": "chatty"})
    assert lines == [
        "PORT: 'eighty' is invalid; "
        "set a whole number from 1 to 65535, or remove it for the default 8001",
        "LOG_LEVEL: 'chatty' is invalid; "
        "set one of DEBUG, INFO, WARNING, ERROR, or remove it for the default INFO",
        "MAX_LOADED_MODELS: '0' is invalid; "
        "set a whole number from 1 to 64, or remove it for the default 2",
    ]


def test_a_name_of_the_command_line_is_accepted():
    assert load({"MES_URL": "http://mes:8001"}, dotenv=None).port == 8001


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("QUEUE_TIMEOUT", "0"),
        ("QUEUE_TIMEOUT", "nan"),
        ("QUEUE_TIMEOUT", "inf"),
        ("LOAD_TIMEOUT", "30s"),
        ("WEB_CONCURRENCY", "65"),
        ("THREADS", "-1"),
        ("MAX_BODY_BYTES", "9" * 400),
        ("MES_ALLOW_DEV_KEY", "perhaps"),
        ("MES_API_KEY", "two words"),
        ("OLLAMA_HOST", "ftp://ollama"),
        ("OLLAMA_HOST", "http://ollama:99999"),
        ("OLLAMA_HOST", "http://user:word@ollama"),
    ],
)
def test_a_value_out_of_bounds_stops_the_start(name, value):
    (line,) = mistakes({name: value})
    assert line.startswith(f"{name}: ")
    assert len(line) < 250


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://ollama:11434/", "http://ollama:11434"),
        ("ollama", "http://ollama:11434"),
        ("box:1234", "http://box:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
    ],
)
def test_the_runtime_may_be_named_in_ollamas_own_forms(written, url):
    assert load({"OLLAMA_HOST": written}, dotenv=None).ollama_host == url


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_the_development_key_is_accepted_on_loopback(host):
    assert load({"HOST": host}, dotenv=None).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "mes.example"])
def test_the_development_key_is_refused_where_others_can_reach_us(host):
    (line,) = mistakes({"HOST": host})
    assert line.startswith("MES_API_KEY: ")
    for remedy in ("MES_API_KEY to a key of your own", "HOST to 127.0.0.1", "MES_ALLOW_DEV_KEY"):
        assert remedy in line


@pytest.mark.parametrize("more", [OWN_KEY, {"MES_ALLOW_DEV_KEY": "true"}])
def test_others_may_reach_us_with_another_key_or_if_it_is_allowed(more):
    assert load({"HOST": "0.0.0.0", **more}, dotenv=None).bind == "0.0.0.0:8001"


def test_with_a_keys_file_the_development_key_is_valid_only_if_it_was_set():
    file = {"MES_API_KEYS_FILE": "~/keys.json"}
    assert load({**file, "HOST": "0.0.0.0"}, dotenv=None).api_key is None
    assert load(file, dotenv=None).api_keys_file == Path.home() / "keys.json"
    assert load({**file, **OWN_KEY}, dotenv=None).api_key == OWN_KEY["MES_API_KEY"]
    (line,) = mistakes({**file, "HOST": "0.0.0.0", "MES_API_KEY": "mes-dev-key-123"})
    assert "the development key is public" in line


def test_allowed_hosts_are_separated_by_commas_or_spaces():
    settings = load({"ALLOWED_HOSTS": "MES.example, .example.org  box"}, dotenv=None)
    assert settings.allowed_hosts == ("mes.example", ".example.org", "box")
    assert load({}, dotenv=None).allowed_hosts == ()
    for wrong in ("mes.example:8001", "http://mes.example", "*", "a..b"):
        assert mistakes({"ALLOWED_HOSTS": wrong})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("0.0.0.0", "http://127.0.0.1:8001"),
        ("::", "http://[::1]:8001"),
        ("10.0.0.1", "http://10.0.0.1:8001"),
    ],
)
def test_clients_of_this_machine_connect_to_loopback_where_the_service_listens(host, url):
    assert load({"HOST": host, **OWN_KEY}, dotenv=None).local_url == url


@pytest.mark.parametrize("host", ["x86_64-conda-linux-gnu", "arm64-apple-darwin20.0.0"])
def test_the_host_that_conda_exports_is_explained(host):
    assert mistakes({"HOST": host}) == [
        f"HOST: {host} is a platform, which conda's compilers export as HOST; "
        "run `unset HOST`, or set HOST to 127.0.0.1"
    ]


def test_an_ipv6_address_is_bound_in_brackets():
    assert load({"HOST": "::1"}, dotenv=None).bind == "[::1]:8001"


def test_a_default_above_its_maximum_is_reported():
    lines = mistakes({"MAX_TIMEOUT": "20", "DEFAULT_TIMEOUT": "21", "COOLDOWN": "400"})
    assert [line.partition(":")[0] for line in lines] == ["DEFAULT_TIMEOUT", "COOLDOWN"]


def test_a_timeout_that_is_not_set_is_at_most_the_maximum():
    assert load({"MAX_TIMEOUT": "20"}, dotenv=None).default_timeout_seconds == 20
    assert load({"MAX_TIMEOUT": "900"}, dotenv=None).default_timeout_seconds == 600


def test_rules_between_settings_are_checked_beside_other_mistakes():
    lines = mistakes({"PORT": "x", "HOST": "0.0.0.0", "MAX_TIMEOUT": "1", "DEFAULT_TIMEOUT": "2"})
    names = {line.partition(":")[0] for line in lines}
    assert names == {"PORT", "MES_API_KEY", "DEFAULT_TIMEOUT"}


def test_a_misspelt_name_is_reported_with_the_nearest_one():
    lines = mistakes({"MES_API_KYE": "x", "MES_QUEUE_TIMEOUT": "3", "MES_COLOUR": "blue"})
    assert lines == [
        "MES_API_KYE: there is no such setting; did you mean MES_API_KEY?",
        "MES_COLOUR: there is no such setting; remove it",
        "MES_QUEUE_TIMEOUT: there is no such setting; did you mean QUEUE_TIMEOUT?",
    ]


def test_the_names_that_kubernetes_sets_for_a_service_called_mes_are_accepted():
    load({"MES_SERVICE_HOST": "10.0.0.1", "MES_PORT": "tcp://10.0.0.1:8001"}, dotenv=None)


def test_an_empty_value_counts_as_not_set():
    assert load({"PORT": "", "OLLAMA_HOST": "  "}, dotenv=None) == load({}, dotenv=None)


def test_the_environment_wins_over_the_env_file(tmp_path):
    (tmp_path / ".env").write_text("# ours\nPORT=9000\nexport LOG_LEVEL='debug' # loud\n")
    settings = load({"PORT": "9001"}, dotenv=str(tmp_path / ".env"))
    assert (settings.port, settings.log_level) == (9001, "DEBUG")


def test_a_byte_order_mark_before_the_env_file_is_skipped(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfPORT=9000\n")
    assert load({}, dotenv=str(tmp_path / ".env")).port == 9000


def test_the_env_file_is_looked_for_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("PORT=9000\n")
    monkeypatch.chdir(tmp_path)
    assert load({}).port == 9000


def test_an_invalid_env_file_is_a_mistake(tmp_path):
    (tmp_path / "bad").write_bytes(b"PORT=\xff\n")
    (tmp_path / "odd").write_text("PORT=9000\n=what\n")
    assert "cannot be read" in mistakes({}, dotenv=str(tmp_path / "bad"))[0]
    assert "line 2 is not NAME=value" in mistakes({}, dotenv=str(tmp_path / "odd"))[0]


def test_mistakes_and_settings_never_show_the_key():
    assert "two words" not in mistakes({"MES_API_KEY": "two words"})[0]
    assert OWN_KEY["MES_API_KEY"] not in repr(load(OWN_KEY, dotenv=None))


def test_the_state_is_kept_in_the_users_runtime_folder_where_there_is_one(tmp_path):
    settings = load({"XDG_RUNTIME_DIR": str(tmp_path), "PORT": "8123"}, dotenv=None)
    assert settings.state_dir == tmp_path / "mes-8123"
    elsewhere = load({"XDG_RUNTIME_DIR": str(tmp_path / "absent")}, dotenv=None)
    assert re.fullmatch(r"/\S+/mes-\d+-8001", str(elsewhere.state_dir))


def test_a_relative_state_folder_is_made_absolute(monkeypatch):
    monkeypatch.chdir("/tmp")
    assert load({"STATE_DIR": "here"}, dotenv=None).state_dir == Path("/tmp/here")


def test_threads_are_computed_from_the_catalog_unless_they_are_set():
    assert load({}, dotenv=None).threads_for(130) == 146
    assert load({}, dotenv=None).threads_for(5000) == 4096
    assert load({"THREADS": "7"}, dotenv=None).threads_for(130) == 7


def test_the_example_file_names_every_setting_with_its_default():
    lines = (ROOT / ".env.example").read_text().splitlines()
    for name, default, _help in settings_table():
        assert f"# {name}={default}" in lines


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        (
            "https://App.Example, http://localhost:3000",
            ("https://app.example", "http://localhost:3000"),
        ),
        ("https://app.example:443 http://a:80", ("https://app.example", "http://a")),
        ("http://[::1]:5173,app://obsidian.md", ("http://[::1]:5173", "app://obsidian.md")),
        ("", ()),
    ],
)
def test_origins_are_read_as_browsers_send_them(written, origins):
    assert (
        load({"CORS_ORIGINS": written, "MES_API_KEY": "own"}, dotenv=None).cors_origins == origins
    )


@pytest.mark.parametrize(
    "written",
    ["*", "null", "app.example", "https://a/", "https://a/b", "https://*.a", "https://a@b"],
)
def test_an_origin_that_browsers_do_not_send_stops_the_start(written):
    with pytest.raises(
        SettingsError, match=r"CORS_ORIGINS: .* is invalid; set origins with scheme"
    ):
        load({"CORS_ORIGINS": written, "MES_API_KEY": "own"}, dotenv=None)


@pytest.mark.parametrize(
    "more", [{}, {"MES_ALLOW_DEV_KEY": "true"}, {"MES_API_KEY": "mes-dev-key-123"}]
)
def test_origins_are_refused_with_the_development_key(more):
    with pytest.raises(SettingsError, match="CORS_ORIGINS: the development key is public"):
        load({"CORS_ORIGINS": "https://app.example", **more}, dotenv=None)


def test_origins_are_accepted_with_a_keys_file(tmp_path):
    more = {"CORS_ORIGINS": "https://app.example", "MES_API_KEYS_FILE": str(tmp_path / "keys.json")}
    assert load(more, dotenv=None).cors_origins == ("https://app.example",)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SWAP_PATIENCE": "3.5", "METRICS_OPEN": "true", "MES_API_KEYS_FILE": "/etc/keys.json"},
        {"ALLOWED_HOSTS": "a.test .b.test", "MES_API_KEY": "own", "CORS_ORIGINS": "http://a.test"},
    ],
)
def test_the_texts_of_settings_load_as_the_same_settings(environ):
    settings = load(environ, dotenv=None)
    texts = setting_texts(settings)
    assert "MES_API_KEY" not in texts
    key = {"MES_API_KEY": settings.api_key} if settings.api_key else {}
    again = load({**texts, **key}, dotenv=None)
    assert replace(again, models_config_path=settings.models_config_path) == settings
    assert again.models_config_path == settings.models_config_path.absolute()
