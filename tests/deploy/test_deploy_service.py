"""Promises of the container of the service, as far as they can be checked without docker."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/service"
INSTRUCTIONS = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ARG", "ENV", "USER", "EXPOSE", "HEALTHCHECK"),
    "ENTRYPOINT",
}


def instructions():
    text = re.sub(r"\\\n", " ", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line.split(None, 1) for line in lines]


def serve_options():
    from tagger.cli.main import app

    command = typer.main.get_command(app).commands["serve"]
    return {name for parameter in command.params for name in parameter.opts}


def test_the_image_is_made_of_files_that_are_there():
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    for name, rest in found:
        if name == "COPY" and "--from" not in rest:
            *sources, _ = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists() and f"!{source}" in allowed, source


def test_it_runs_for_a_user_without_rights_and_says_whether_it_lives():
    found = instructions()
    names = [name for name, _ in found]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    (user,) = [rest for name, rest in found if name == "USER"]
    assert user.isdigit() and int(user) > 1000
    assert "/healthz" in next(rest for name, rest in found if name == "HEALTHCHECK")


def test_what_it_starts_is_a_command_of_the_program():
    (entry,) = [yaml.safe_load(rest) for name, rest in instructions() if name == "ENTRYPOINT"]
    assert entry[:2] == ["tagger", "serve"]
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["tagger"]
    options = {word for word in [*entry, *service["command"]] if word.startswith("--")}
    assert options <= serve_options()


def test_the_composed_service_has_bounds_and_writes_nothing():
    content = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    service = content["services"]["tagger"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["mem_limit"] and service["cpus"] and service["pids_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["secrets"]) == set(content["secrets"])
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).exists()


@pytest.mark.parametrize("extra", ["serve", "m4a"])
def test_the_extras_of_the_image_are_those_of_the_project(extra):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    install = next(rest for name, rest in instructions() if name == "RUN" and "pip" in rest)
    assert extra in re.search(r"\.\[([\w,]+)\]", install)[1].split(",")
