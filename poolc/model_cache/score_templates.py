"""What ``score_template`` may be given as, and the template's text that it stands for.

The text is what a compile request is looked up by and what its manifest records: a file may change
or be elsewhere, and a shipped template may change with a release.
"""

from __future__ import annotations

from pathlib import Path

from poolc.errors import InvalidOption, nearest

_SUFFIX = ".jinja"
# The compiler's data, read without importing it.
_SHIPPED = Path(__file__).resolve().parent.parent / "compiler" / "templates"


def shipped() -> list[str]:
    """Return the names of the templates that come with poolc."""
    names = [entry.name for entry in _SHIPPED.iterdir()]
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def shipped_text(name: str) -> str:
    """Return the text of a template that comes with poolc."""
    return (_SHIPPED / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def is_name(given: str) -> bool:
    """Say whether this names a template, and is none itself."""
    return "{{" not in given and "{%" not in given


def template_text(given: str | Path, param: str = "score_template") -> str:
    """Return the template that ``given`` is, or is the name or the file of.

    What has ``{{`` or ``{%`` in it is a template. Raises InvalidOption.
    """
    if not isinstance(given, (str, Path)):
        raise InvalidOption(
            f"{param} is {type(given).__name__}; allowed: a template's name, file or text",
            param=param,
        )
    text = str(given)
    if not is_name(text):
        return text
    if text in shipped():
        return shipped_text(text)
    path = Path(text).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidOption(f"{param}: {text} is not UTF-8: {error}", param=param) from None
    except (OSError, ValueError):
        raise InvalidOption(
            f"{param} is {text!r}, which is neither a file that can be read, nor a template that "
            f"comes with poolc, nor Jinja source; {nearest(text, shipped())}",
            param=param,
        ) from None
