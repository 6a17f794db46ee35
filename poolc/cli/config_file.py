"""A command's options in a YAML file: what the command line and the environment do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from poolc.errors import InputError, InvalidOption, MissingDependency, nearest


def take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of ``context``'s command: the callback of ``--config``.

    Keys are options without their dashes, or ``models``. Raises InputError for a file that cannot
    be read, InvalidOption for a key that is no option, or a list of what is no text.
    """
    if path is not None:
        options = {str(parameter.name): parameter for parameter in context.command.params}
        names = list(options)
        found = {str(key).replace("-", "_"): value for key, value in _read(path).items()}
        for name in found:
            if name not in names or name == "config":
                known = [n.replace("_", "-") for n in names if n not in ("config", "help")]
                raise InvalidOption(
                    f"{path}: no option {name!r}; {nearest(name, known)}", param=name
                )
        context.default_map = {n: _plain(path, value, options[n]) for n, value in found.items()}
    return path


def _plain(path: Path, value: Any, option: Any) -> Any:
    """Return a value as the command line would have it: objects are JSON there.

    What can be given several times may be given once: one text is a list of one.
    """
    if value is not None and (getattr(option, "multiple", False) or option.nargs != 1):
        values = value if isinstance(value, list) else [value]
        # Of numbers and dates YAML keeps the value, not what was written; a key may be one.
        if not all(isinstance(one, str) for one in values):
            key = str(option.name).replace("_", "-")
            raise InvalidOption(
                f"{path}: {key} holds what is no text; put quotes around it", param=option.name
            )
        return values
    return json.dumps(value) if isinstance(value, dict) else value


def _read(path: Path) -> dict[Any, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingDependency(
            '--config needs yaml, which is not installed: pip install "poolc[serve]"'
        ) from error
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {path}: {error}", param="config") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no options: name: value, one a line", param="config")
    return found
