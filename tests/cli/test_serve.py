"""``poolc serve``: options become settings and compile options; nothing is served here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import poolc.serve
from poolc.cli.serve import ServeArguments
from poolc.serve.settings import Settings
from tests.cli.conftest import Cli

NAMES = {
    "served_model_name": "served_model_names",
    "drain_timeout": "drain_timeout_s",
    "request_timeout": "request_timeout_s",
    "max_queue": "max_queue_s",
    "api_key": "api_keys",
    "api_key_file": "api_keys",
    "allowed_origin": "allowed_origins",
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the server was called with."""
    given: dict[str, Any] = {}

    def serve(models: Sequence[str], settings: Settings, **options: Any) -> None:
        given.update(options, models=list(models), settings=settings)

    monkeypatch.setattr("poolc.serve.server.serve", serve)
    return given


def test_defaults_are_those_of_the_settings(cli: Cli, served: dict[str, Any]) -> None:
    ran = cli("serve", "someone/model")
    assert ran.code == 0, ran.err
    assert served["models"] == ["someone/model"]
    assert served["settings"] == Settings()
    assert set(served) == {"models", "settings", "on_event"}


def test_every_setting_has_an_option() -> None:
    options = {NAMES.get(field.name, field.name) for field in fields(ServeArguments)}
    assert options == {field.name for field in fields(Settings)}


def test_options(cli: Cli, served: dict[str, Any]) -> None:
    ran = cli(
        *("serve", "one", "--host", "0.0.0.0", "--port", "81", "--strict-model-name"),
        *("--served-model-name", "a", "--served-model-name", "b", "--drain-timeout", "2"),
        *("--max-queued-tokens", "9", "--max-items", "7", "--max-body-bytes", "8"),
        *("--log-level", "debug", "--no-access-log", "--defaults", "vllm", "--trust-remote-code"),
        *("--hf-overrides", '{"matryoshka_dimensions":[256]}', "--memory-limit", "2GB"),
        *("--api-key", "k1", "--api-key", "k2", "--allowed-origin", "*", "--log-format", "json"),
        *("--token-ids", "refuse", "--cl100k-file", "f"),
        *(
            "--request-timeout",
            "1.5",
            "--uds",
            "/s",
            "--root-path",
            "/p",
            "--ssl-certfile",
            "c",
            "--ssl-keyfile",
            "k",
        ),
    )
    assert ran.code == 0, ran.err
    assert served["settings"] == Settings(
        host="0.0.0.0",
        port=81,
        served_model_names=("a", "b"),
        strict_model_name=True,
        drain_timeout_s=2.0,
        max_queued_tokens=9,
        max_items=7,
        max_body_bytes=8,
        log_level="debug",
        access_log=False,
        api_keys=("k1", "k2"),
        allowed_origins=("*",),
        log_format="json",
        token_ids="refuse",
        cl100k_file="f",
        request_timeout_s=1.5,
        uds="/s",
        root_path="/p",
        ssl_certfile="c",
        ssl_keyfile="k",
    )
    assert served["defaults"] == "vllm"
    assert served["memory_limit"] == "2GB"
    assert served["trust_remote_code"] is True
    assert served["hf_overrides"] == {"matryoshka_dimensions": [256]}


def test_where_options_come_from(
    cli: Cli, served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line goes before the environment, and that before the file."""
    file = tmp_path / "serve.yaml"
    file.write_text(
        "models: [one, two]\nport: 1\nmax-items: 2\nmax_queued_tokens: 3\n"
        "served-model-name: [a, b]\nhf_overrides: {is_matryoshka: true}\n"
    )
    monkeypatch.setenv("POOLC_PORT", "11")
    monkeypatch.setenv("POOLC_MAX_ITEMS", "12")
    ran = cli("serve", "--config", file, "--port", "21")
    assert ran.code == 0, ran.err
    settings = served["settings"]
    assert (settings.port, settings.max_items, settings.max_queued_tokens) == (21, 12, 3)
    assert (served["models"], settings.served_model_names) == (["one", "two"], ("a", "b"))
    assert served["hf_overrides"] == {"is_matryoshka": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-item: 2", "no option 'max_item'; did you mean max-items?"),
        ("[1]", "holds no options"),
        ("a: [", "cannot read"),
        ("api-key: 0123", "api-key holds what is no text; put quotes around it"),
        ("api-key: [null]", "api-key holds what is no text; put quotes around it"),
    ],
)
def test_config_file_refused(
    text: str, message: str, cli: Cli, served: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "serve.yaml").write_text(text)
    ran = cli("serve", "model", "--config", tmp_path / "serve.yaml")
    assert ran.code != 0
    assert message in ran.err


def test_config_file_with_one_of_several(cli: Cli, served: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("models: one\napi-key: k\nserved-model-name:\n")
    ran = cli("serve", "--config", tmp_path / "serve.yaml")
    assert ran.code == 0, ran.err
    assert (served["models"], served["settings"].api_keys) == (["one"], ("k",))


@pytest.mark.parametrize(
    ("variable", "text", "options", "said"),
    [
        ("POOLC_PORT=tcp://10.0.0.1:8000", "", [], "not 'tcp://10.0.0.1:8000' (from the variable "
         "POOLC_PORT, which Kubernetes sets for a Service of that name"),
        ("POOLC_MAX_ITEMS=few", "", [], "not 'few' (from the variable POOLC_MAX_ITEMS)"),
        ("POOLC_MAX_ITEMS=few", "", ["--max-items", "2", "--max-queue", "long"], "not 'long'\n"),
        ("", "max-items: [1, 2]", [], "not [1, 2] (from max-items in {file})"),
        ("POOLC_WORKERS=0", "", [], "workers is 0; allowed: 1 or more (from the variable POOLC_W"),
        ("", "drain-timeout: -1", [], "(from drain-timeout in {file})"),
        ("POOLC_WORKERS=7", "", ["--workers", "0"], "allowed: 1 or more\n"),
        ("", "", [], ""),
    ],
)  # fmt: skip
def test_refusals_name_the_value_and_where_it_came_from(
    cli: Cli, served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    variable: str, text: str, options: list[str], said: str,
) -> None:  # fmt: skip
    file = tmp_path / "serve.yaml"
    file.write_text(text or "port: 1\n")
    name, _, value = variable.partition("=")
    if name:
        monkeypatch.setenv(name, value)
    ran = cli("serve", "one", "--config", file, *options)
    assert ran.code == (2 if said else 0), ran.err
    assert said.format(file=file) in ran.err


def test_keys_from_a_file(cli: Cli, served: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("alpha\n\n beta \n")
    assert cli("serve", "model", "--api-key-file", file, "--api-key", "zero").code == 0
    assert served["settings"].api_keys == ("zero", "alpha", "beta")
    assert "alpha" not in repr(served["settings"])
    file.write_text("\n")
    assert "holds no key" in cli("serve", "model", "--api-key-file", file).err


def test_several_models(cli: Cli, served: dict[str, Any]) -> None:
    cli("serve", "one", "two")
    assert served["models"] == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", "65536"), "port is 65536"),
        (("--log-level", "loud"), "--log-level is 'loud'; allowed: critical"),
        (("--pooler-config", "{"), "--pooler-config is not JSON"),
    ],
)
def test_options_refused(
    cli: Cli, served: dict[str, Any], options: tuple[str, ...], message: str
) -> None:
    ran = cli("serve", "one", *options)
    assert ran.code == 2
    assert message in ran.err
    assert served == {}


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_missing_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    class Missing:
        """Finds nothing, as where the extra was not installed."""

        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> None:
            if name == missing:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    # The package is imported anew below: without this, poolc.serve would stay that new module.
    monkeypatch.setattr(poolc, "serve", poolc.serve)
    for name in [n for n in sys.modules if n.split(".")[0] == missing or "poolc.serve" in n]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    ran = cli("serve", "one")
    assert ran.code == 8
    assert ran.err == (
        f'error: serving needs {missing}, which is not installed: pip install "poolc[serve]"\n'
    )
