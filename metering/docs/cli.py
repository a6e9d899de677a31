"""docs/cli.md: every command with its arguments, options and examples, and the exit codes of the error tree."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, TypeAlias, get_args, get_origin

import msgspec
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from metering.cli import build_app
from metering.docs.markdown import linked, table
from schemas import errors
from schemas.errors import MeteringError

Parameter: TypeAlias = TyperArgument | TyperOption

_EXAMPLES: Final = "Examples:\n"
_MARKUP: Final = re.compile(r"\[/?[a-z ]*\]")

_HEAD: Final = """\
# Commands

Generated from the commands themselves by `make docs`; a test compares. `metering COMMAND --help` says the same.

"""

_EXITS: Final = """\
## Exit codes

An error is one message on standard error that says what happened, where, and what to do next. Results go to standard
output, progress and logs to standard error, so `--json` can be piped.

"""

_MEANINGS: Final = {
    0: "Done; for what runs until it is stopped: stopped in order.",
    1: "It could not be done, or what was checked is not as it must be: `verify`, `rebuild --check`, rows of `ingest`.",
    2: "It was asked wrongly: a setting, an option, a catalog. Nothing was changed.",
    3: "A service did not answer: Kafka, ClickHouse or the gateway. Trying again may help.",
    70: "A fact the pipeline stands on does not hold; the process stopped before anything could be billed on it.",
    75: "A worker had to end itself, because it did not stop within 20 seconds of being asked to.",
    130: "Interrupted, or killed by a second Ctrl-C.",
}


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """An argument or option: as it is written, what it says, and its default or `required`."""

    written: str
    help: str
    default: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command as `--help` describes it. `about` are paragraphs, `examples` one line each."""

    name: str
    usage: str
    about: tuple[str, ...]
    examples: tuple[str, ...]
    options: tuple[Option, ...]


def commands() -> tuple[str, list[Command]]:
    """(what `metering --help` says, every command in its order)."""
    group = get_command(build_app())
    if not isinstance(group, TyperGroup):
        raise TypeError(f"the command line is a {type(group).__name__}")
    return _MARKUP.sub("", group.help or ""), list(_commands_of(group, ""))


def _commands_of(group: TyperGroup, before: str) -> Iterator[Command]:
    """The commands of a group and of the groups in it, named as they are called: `keys create`."""
    for name, one in group.commands.items():
        if isinstance(one, TyperCommand):
            yield _command(f"{before}{name}", one)
        elif isinstance(one, TyperGroup):
            yield from _commands_of(one, f"{before}{name} ")


def cli_markdown() -> str:
    """The document. Pure."""
    about, listed = commands()
    parts = [
        _HEAD,
        "".join(f"{paragraph}\n\n" for paragraph in _paragraphs(about)),
        table(
            ("command", "what it does"),
            [(f"[`{one.name}`](#{one.name.replace(' ', '-')})", one.about[0]) for one in listed],
        ),
        *(_section(one) for one in listed),
        "\n",
        _EXITS,
        table(("code", "what happened"), exit_codes()),
    ]
    return linked("".join(parts))


def exit_codes() -> list[tuple[str, str]]:
    """(exit code, what it means). Raises LookupError for a code of the error tree that has no words."""
    silent = {error.exit_code for error in _errors(MeteringError)} - set(_MEANINGS)
    if silent:
        raise LookupError(f"exit codes {silent} have no words in metering/docs/cli.py")
    return [(str(code), meaning) for code, meaning in _MEANINGS.items()]


def _section(command: Command) -> str:
    lines = [f"\n## {command.name}\n", f"`{command.usage}`\n"]
    lines += [f"{paragraph}\n" for paragraph in command.about]
    lines.append("```sh\n" + "".join(f"{example}\n" for example in command.examples) + "```\n")
    if command.options:
        rows = [(one.written, one.help, one.default) for one in command.options]
        lines.append(table(("argument or option", "what it says", "default"), rows))
    return "\n".join(lines)


def _command(name: str, command: TyperCommand) -> Command:
    about, _, examples = (command.help or "").partition(_EXAMPLES)
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    options = [one for one in command.params if isinstance(one, TyperOption) and one.name != "help"]
    parameters: list[Parameter] = [*arguments, *options]
    needed = [_written(one) for one in arguments] + [_written(one).rstrip("…") for one in options if one.required]
    usage = ["metering", name, *needed, *(["[OPTIONS]"] if any(not one.required for one in options) else [])]
    return Command(
        name=name,
        usage=" ".join(usage),
        about=tuple(_MARKUP.sub("", one) for one in _paragraphs(about)),
        examples=tuple(_paragraphs(textwrap.dedent(examples))),
        options=tuple(
            Option(written=f"`{_written(one)}`", help=one.help or "", default=_default(one)) for one in parameters
        ),
    )


def _written(one: Parameter) -> str:
    annotation: Any = one.type_descriptor.annotation
    many = "…" if get_origin(annotation) is list else ""
    if isinstance(one, TyperArgument):
        name = (one.name or "").upper().removesuffix("S" if many else "")
        return f"{name}{many}" if one.required else f"[{name}{many}]"
    flags = ", ".join([*one.opts, *one.secondary_opts])
    return flags if one.is_flag else f"{flags} {_takes(annotation)}{many}"


def _takes(annotation: Any) -> str:
    """What stands for an option's value: its choices, or a word for its type."""
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(one.value) for one in annotation)
    return {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}.get(annotation.__name__, "TEXT")


def _default(one: Parameter) -> str:
    if one.required:
        return "required"
    if isinstance(one, TyperOption) and one.is_flag:
        return f"`{one.opts[0]}`" if one.default else ""
    value = one.default.value if isinstance(one.default, Enum) else one.default
    return f"`{value}`" if value not in (None, "", []) else ""


def _paragraphs(text: str) -> list[str]:
    """Paragraphs of a docstring, each on one line."""
    return [" ".join(one.split()) for one in text.strip().split("\n\n") if one.strip()]


def _errors(base: type[MeteringError]) -> Iterator[type[MeteringError]]:
    """The error and everything below it, as far as schemas/errors.py has it."""
    if base.__module__ == errors.__name__:
        yield base
        for one in base.__subclasses__():
            yield from _errors(one)
