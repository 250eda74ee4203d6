"""The README files: what they name exists, and the commands in them are accepted."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args, get_origin

import pytest

import caslie_ray
from caslie_ray.commands import COMMANDS, command_parser
from caslie_ray.monitoring.prometheus import GAUGES, METRICS
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.schemas import SCHEMAS, VOTE

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "caslie_ray"
MAIN = ROOT / "README.md"
READMES = [MAIN, *sorted(PACKAGE.rglob("README.md"))]
DOCUMENTS = [*READMES, ROOT / "CHANGELOG.md"]
# These show commands too.
WITH_COMMANDS = [*DOCUMENTS, ROOT / "cluster.yaml", ROOT / "Makefile", *sorted((PACKAGE / "profiles").glob("*.yaml"))]
TOP = {"caslie_ray", "jobs", "tests"}
PROFILES = {path.stem for path in (PACKAGE / "profiles").glob("*.yaml")}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def section(document: Path, heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text_of(document), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{name_of(document)} has no section {heading}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The cells of the first table in Markdown, without its head."""
    lines = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Shown(NamedTuple):
    """A command line of a job in a text."""

    job: str
    arguments: list[str]


def commands(text: str) -> Iterator[Shown]:
    """The command lines with arguments, in code blocks, comments and code spans."""
    joined = re.sub(r"\\\n[#\s]*", " ", text)
    for found in re.finditer(r"(?:\bcaslie (\w+)|\bjobs/(\w+)\.py)[ \t]+(-[^`\n]*)", joined):
        command, script, rest = found.groups()
        if "…" not in rest and (command or script) != "NAME":
            yield Shown(command or script, shlex.split(rest, comments=True))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_have_existing_targets(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("document", READMES, ids=name_of)
def test_paths_exist(document: Path) -> None:
    for span in code_spans(text_of(document)):
        named = re.fullmatch(r"([\w.-]+/)*([\w-]+\.py|[\w.-]+\.yaml)?", span)
        if named is None or span in ("NAME", "mine.yaml") or not span.strip("/"):
            continue
        if span.partition("/")[0] in TOP or (span.endswith((".py", ".yaml")) and "NAME" not in span):
            assert any((base / span).exists() for base in (ROOT, document.parent)), span


@pytest.mark.parametrize("document", READMES, ids=name_of)
def test_modules_and_names_of_the_package_exist(document: Path) -> None:
    text = text_of(document)
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module
    for span in code_spans(text):
        dotted = re.fullmatch(r"(caslie_ray(?:\.\w+)*)\.(\w+)", span)
        if dotted:
            module = importlib.import_module(dotted[1])
            assert hasattr(module, dotted[2]) or importlib.util.find_spec(span), span


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_targets_of_make_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([\w-]+)", text_of(document), re.MULTILINE):
        assert re.search(rf"^(?:[\w-]+ )*{target}(?: [\w-]+)*:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name_of)
def test_commands_are_accepted(document: Path) -> None:
    text = text_of(document)
    for job in re.findall(r"\bjobs/(\w+)\.py", text):
        assert job in COMMANDS or job == "NAME", job
    for shown in commands(text):
        options = command_parser(shown.job).parse_args(shown.arguments)
        settings = [one for one in options.set if "path/to" not in one]
        if options.profile in PROFILES:
            load_profile(options.profile, settings)
        else:
            assert options.profile == "mine.yaml", options.profile


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_in_the_help_are_accepted(name: str) -> None:
    shown = [one for one in commands(COMMANDS[name].description) if one.job == name]
    assert shown
    for one in shown:
        options = command_parser(name).parse_args(one.arguments)
        load_profile(options.profile, options.set)


def test_commands_are_found() -> None:
    found = list(
        commands("# python jobs/caption.py --run a \\\n#   --plan   # why\n`caslie fuse --run b`, `caslie fuse …`")
    )
    assert found == [("caption", ["--run", "a", "--plan"]), ("fuse", ["--run", "b"])]
    assert len([one for document in READMES for one in commands(text_of(document))]) > 25


def test_the_main_readme_is_short_and_links_to_the_others() -> None:
    text = text_of(MAIN)
    assert len(text.splitlines()) <= 250
    for document in READMES[1:]:
        assert f"({name_of(document)}" in text, name_of(document)


def test_ten_changes_and_where_they_are_made() -> None:
    rows = table(section(MAIN, "Change it"))
    wanted = ("task", "voter", "engine", "metric", "source", "vote rule", "LoRA", "retry", "column", "resized")
    assert len(rows) == len(wanted)
    for (change, where), word in zip(rows, wanted, strict=True):
        assert word in change
        assert "`" in where


def test_the_tree_names_what_exists() -> None:
    block = re.search(r"```\n(.*?)```", section(MAIN, "The code"), re.DOTALL)
    assert block is not None
    named = set()
    for line in block[1].splitlines():
        inside = line.startswith(" ")
        path = line.split()[0]
        assert ((PACKAGE if inside else ROOT) / path).exists(), path
        named.add(path)
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= named


def test_headline_figures_are_those_of_the_measurements() -> None:
    for figure, value, where in table(section(MAIN, "What it does, in figures")):
        link = re.search(r"\]\(([^)#]+)", where)
        sources = [text_of(ROOT / link[1])] if link else [text_of(path) for path in READMES[1:]]
        for number in re.findall(r"\d+(?:\.\d+)+%?|\d{3,}", value):
            assert any(number in source for source in sources), f"{figure}: {number}"


def test_metrics() -> None:
    rows = table(text_of(PACKAGE / "monitoring" / "README.md"))
    assert [row[0].strip("`") for row in rows] == list(METRICS)
    assert [row[0].strip("`") for row in rows if row[1].startswith("gauge")] == list(GAUGES)


def test_tables_and_their_columns() -> None:
    document = PACKAGE / "storage" / "README.md"
    rows = {row[0].strip("`"): re.findall(r"`(\w+)`", row[2]) for row in table(text_of(document))}
    assert set(rows) == set(SCHEMAS)
    assert rows.pop("experiments") == ["instructions"]
    for name, columns in rows.items():
        assert columns == SCHEMAS[name].names, name
    votes = re.search(r"A vote in `captions` has the fields (.*?)\.\n", text_of(document), re.DOTALL)
    assert votes is not None
    assert re.findall(r"`(\w+)`", votes[1]) == [field.name for field in VOTE]


def test_settings_and_their_files() -> None:
    rows = table(section(PACKAGE / "profiles" / "README.md", "Settings"))
    listed = {name: row[1].strip("`") for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(listed) == set(Profile.model_fields) - {"name"}
    for name, path in listed.items():
        annotation = Profile.model_fields[name].annotation
        group = get_args(annotation)[-1] if get_origin(annotation) is dict else annotation
        module = getattr(group, "__module__", "")
        wanted = module if module.startswith("caslie_ray.") else Profile.__module__
        assert path == wanted.replace(".", "/") + ".py", name


def test_every_shipped_profile_is_listed() -> None:
    assert {
        name for row in table(text_of(PACKAGE / "profiles" / "README.md")) for name in code_spans(row[0])
    } == PROFILES


def test_exit_codes() -> None:
    from caslie_ray.cli import COMPLETE, FAILED, UNFINISHED, WRONG_ARGUMENTS

    rows = {int(code): meaning for code, meaning in table(section(MAIN, "Your own data"))}
    for code, word in ((COMPLETE, "complete"), (FAILED, "failed"), (WRONG_ARGUMENTS, "wrong"), (UNFINISHED, "stopped")):
        assert rows.pop(code).startswith(word)
    assert not rows


def test_the_changelog_has_this_version_first() -> None:
    first = re.search(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == caslie_ray.__version__
