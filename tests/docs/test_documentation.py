"""What the documentation says is run: its files are written as they stand, its figures are compared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

import reactor
from reactor import errors
from reactor.engine.engine import RERUNS as MUTATION_RERUNS
from reactor.engine.live_query import Cause
from reactor.engine.transaction import Usage
from reactor.functions.outcome import ErrorReport, RunRecord
from reactor.limits import DEFAULT_LIMITS
from reactor.server.logs import _json_run
from reactor.server.metrics import FAMILIES
from reactor.server.settings import Settings
from reactor.stores.postgres_head import STEPS as HEAD_STEPS
from reactor.stores.postgres_snapshots import STEPS as READ_STEPS
from reactor.stores.sqlite import STEPS as SQLITE_STEPS
from tests.support.checking import type_check
from tests.support.server import REACTOR, ROOT, Server

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
NODE_MODULES = ROOT / "tests" / "clients" / "node_modules"


def write_files(page: Path, folder: Path) -> None:
    """Each code block that begins with a file's name becomes that file."""
    for name, text in re.findall(r"```\w*\n(?:#|//) ([\w/.]+\.\w+)[^\n]*\n(.*?)```", page.read_text(), re.DOTALL):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def command(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readmes_app_is_short_runs_and_type_checks(tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_files(ROOT / "README.md", app)
    lines = [line for file in app.rglob("*.*") for line in file.read_text().splitlines() if line.strip()]
    assert 20 <= len(lines) <= 30
    with Server(tmp_path, app=app) as server:
        script = (app / "client.mjs").read_text().replace("http://127.0.0.1:3210", server.url)
        # It goes on watching: ended here once it has shown what it sent.
        (app / "client.mjs").write_text(script + "setTimeout(() => process.exit(0), 500);\n")
        (app / "node_modules").symlink_to(NODE_MODULES)
        assert "body: 'hello'" in command(app, "node", "client.mjs")
    type_check(app, "schema.py", "app_functions")


def test_the_tutorials_app_passes_the_test_that_it_ends_with(tmp_path: Path) -> None:
    command(tmp_path, str(REACTOR), "init", "todo")
    app = tmp_path / "todo"
    write_files(ROOT / "docs" / "tutorial.md", app)
    assert "Pushed 1 table and 6 functions" in command(app, str(REACTOR), "dev", "--once")
    assert "3 passed" in command(app, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_the_benchmarks_that_are_named_can_be_run_so() -> None:
    commands = re.findall(r'make benchmark-(\w+)(?: ARGS="([^"]*)")?', (ROOT / "docs" / "benchmarks.md").read_text())
    assert {name for name, _ in commands} >= {"transfer", "store", "fanout", "meetings"}
    for name, options in commands:
        told = command(ROOT, sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help")
        assert set(re.findall(r"--[a-z]+", options)) <= set(re.findall(r"--[a-z]+", told))


@pytest.mark.parametrize("page", ["identity.md", "permissions.md"])
def test_a_pages_app_passes_its_own_test_and_type_checks(page: str, tmp_path: Path) -> None:
    write_files(ROOT / "docs" / page, tmp_path)
    assert " passed" in command(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    type_check(tmp_path, ".")


def test_the_how_tos_examples_pass_their_tests_and_type_check(tmp_path: Path) -> None:
    (tmp_path / "schema.py").write_text('from reactor import Document\n\n\nclass Note(Document, table="notes"):\n    text: str\n')
    (tmp_path / "conftest.py").write_text('import pytest\n\n\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n')
    write_files(ROOT / "docs" / "how-to.md", tmp_path)
    assert re.search(r"\d passed", command(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"))
    type_check(tmp_path, "schema.py", "app_functions")


@pytest.mark.parametrize("page", ["http-actions.md", "webhooks.md", "contrib.md"])
def test_a_guides_app_type_checks_and_passes_its_test(page: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_files(ROOT / "docs" / page, app)
    assert "passed" in command(app, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    type_check(app, "schema.py", "app_functions")


def test_the_app_that_declares_its_environment_passes_its_test_and_is_served(tmp_path: Path) -> None:
    write_files(ROOT / "docs" / "environment.md", tmp_path)
    type_check(tmp_path, "deployment.py", "app_functions")
    assert "1 passed" in command(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    command(tmp_path, str(REACTOR), "dev", "--once")
    assert command(tmp_path, str(REACTOR), "run", "mail:sender") == '"no-reply@example.com"\n'
    assert "with 9 characters" in command(tmp_path, str(REACTOR), "run", "mail:send", '{"to": "bob"}')


def test_the_app_of_files_takes_keeps_and_serves_them(tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_files(ROOT / "docs" / "files.md", app)
    type_check(app, "schema.py", "app_functions")
    with Server(tmp_path, app=app) as server:
        (app / "upload.mjs").write_text((app / "upload.mjs").read_text().replace("http://127.0.0.1:3210", server.url))
        (app / "cat.png").write_bytes(bytes(12_345))
        (app / "node_modules").symlink_to(NODE_MODULES)
        assert command(app, "node", "upload.mjs") == "cat 12345\n"
        run = (str(REACTOR), "run", "--db", str(tmp_path / "test.db"))
        made = command(app, *run, "reports:squares", '{"count": 1000}').strip()
        assert command(app, *run, "reports:count_lines", f'{{"file": {made}}}') == "1000.0\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def in_reference(pattern: str) -> list[tuple[str, str]]:
    return re.findall(pattern, (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)


def test_the_reference_has_every_limit_with_its_value() -> None:
    units = {"": 1, "s": 1, "MB": 10**6, "KiB": 2**10, "MiB": 2**20, "days": 86_400}
    shown = {}
    for name, text in in_reference(r"^\| `([a-z_]+)` \| ([\d,]+ ?(?:[A-Za-z]*)(?: \+ \d+)?) \|"):
        number, _, rest = text.replace(",", "").partition(" ")
        unit, _, more = rest.partition(" + ")
        shown[name] = int(number) * units[unit] + int(more or 0)
    assert shown == {field.name: getattr(DEFAULT_LIMITS, field.name) for field in fields(DEFAULT_LIMITS)}


def test_the_reference_has_every_setting() -> None:
    shown = {name for name, _ in in_reference(r"^\| `(REACTOR_[A-Z_]+)` \| ([^|]+) \|")}
    assert shown == {f"REACTOR_{name.upper()}" for name in Settings.model_fields}


def test_the_page_of_metrics_has_every_one_with_its_type_and_labels() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    shown = re.findall(r"^\| `((?:reactor|process)_[a-z_]+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    assert [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in shown] == [
        (name, family.kind, family.labels or (("worker",) if name == "reactor_worker_up" else ())) for name, family in FAMILIES.items()
    ]
    for expression in re.findall(r"`([^`]*reactor_[^`]*)`", page):
        for name in re.findall(r"reactor_[a-z_]+", expression):
            assert re.sub("_bucket$", "", name) in FAMILIES, expression


def test_the_page_of_metrics_has_every_cause_and_every_step() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    causes = re.findall(r"^\| `(query|mutation)` \| `(\w+)` \|", page, re.MULTILINE)
    assert set(causes) == {*(("query", cause) for cause in get_args(Cause)), *(("mutation", cause) for cause in MUTATION_RERUNS)}
    steps = re.findall(r"^\| (SQLite|Postgres) \| `(\w+)` \|", page, re.MULTILINE)
    assert set(steps) == {*(("SQLite", step) for step in SQLITE_STEPS), *(("Postgres", step) for step in (*HEAD_STEPS, *READ_STEPS))}


def test_the_page_of_logs_has_every_field() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    error = ErrorReport("", "", None, "X", ValueError("x"))
    usage = Usage(documents_read=1)
    line = _json_run(RunRecord(0, "0" * 16, "a:b", "query", False, 0.1, error, ("[LOG] 'x'",), usage, 1, "sync"))
    documented = {name for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.MULTILINE) for name in re.findall(r"\w+", row)}
    assert json.loads(line).keys() <= documented
    example = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0])
    assert example.keys() == json.loads(line).keys() - {"error"} and example["usage"].keys() == json.loads(line)["usage"].keys()


def test_the_reference_names_every_error_that_a_user_can_meet() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    for name in set(errors.__all__) & set(reactor.__all__) - {"ReactorError", "ValueFormatError"}:
        assert f"`{name}" in text, name
