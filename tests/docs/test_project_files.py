"""The files of a public project agree with the package and with the Makefile."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def workflow_commands() -> list[str]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


def test_the_workflow_runs_targets_and_scripts_that_exist() -> None:
    for command in workflow_commands():
        program, *arguments = shlex.split(command)
        if program == "make":
            assert set(arguments) <= TARGETS, command
        else:
            assert (ROOT / program).stat().st_mode & 0o100, command


def test_the_workflow_tests_linux_macos_and_arm_and_decodes_the_golden_files() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["runs-on"] == "${{ matrix.machine }}"
    systems = " ".join(job["strategy"]["matrix"]["machine"])
    assert all(word in systems for word in ("ubuntu-latest", "macos", "arm"))
    assert {"make golden", "make test"} <= set(workflow_commands())


def test_hooks_run_the_tools_of_the_makefile() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy"}


def test_the_citation_names_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]["text"]
    assert "Hierarchical Priors" in citation["references"][0]["title"]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_to_files_and_targets_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text):
        assert (ROOT / link).exists(), link
    for targets in re.findall(r"^make ([a-z -]+?)(?:  .*)?$|`make ([a-z-]+)`", text, re.MULTILINE):
        assert set("".join(targets).split()) <= TARGETS, targets
    for path in re.findall(r"\b((?:tests|jahp_pl|checks|docs)/[\w/.]*)", text):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_the_coder_that_writes_the_bits_is_bounded_below_the_release_that_may_change_them() -> None:
    (coder,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "constriction")
    assert coder.specifier.contains("0.5.0")
    assert not coder.specifier.contains("0.6.0")
