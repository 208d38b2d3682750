"""The README is true: what it shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import ServerProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], cwd: Path) -> str:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embedding_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    printed = run([sys.executable, "-c", example], tmp_path).splitlines()
    assert [line.split()[0] for line in printed] == [str(offset) for offset in range(1, len(printed) + 1)]
    assert "generation.finished" in printed[-1]
    assert "completed" in printed[-1]
    assert (tmp_path / "poems.db").exists()


def test_curl_lines_show_an_answer_to_its_end(tmp_path: Path, server: ServerProcess) -> None:
    (lines,) = (block for block in blocks("sh") if "curl" in block)
    commands = [
        shlex.split(line.replace("http://127.0.0.1:8420", server.url))
        for line in lines.replace("\\\n", " ").splitlines()
    ]
    put, post, follow = commands
    assert '"cursor"' in run(put, tmp_path)
    assert '"generation_id"' in run(post, tmp_path)
    with subprocess.Popen(follow, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as curl:
        assert curl.stdout is not None
        events = []
        for line in curl.stdout:
            events.append(line)
            if "generation.finished" in line:
                break
        curl.terminate()
    assert any('"text":" finds"' in line for line in events)
    assert '"completed"' in events[-1]


def test_files_that_the_readme_names_are_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
