"""Every block of Python and of shell on every page runs, in order, as a reader would run it.

Blocks of ``python`` and ``sh`` run; ``console``, ``text`` and files (``json``, ``ini``, ``yaml``, ``nginx``) do not.
What installs is run by the gate from the README; the pages in ``docs/integrations/`` run in ``.ci/run-integrations``.
The working folder has small models by the names that the pages use.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from conftest import BERT_CONFIG, GOLDEN, bert_tensors, write_bert, write_sentence_model

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
PIPELINES = {
    "my-classifier": "text-classification",
    "my-ner": "token-classification",
    "my-qa": "question-answering",
    "my-masked-lm": "fill-mask",
}
RUN = {"python", "sh"}
SHOWN = {"console", "text", "json", "ini", "yaml", "nginx", "dockerfile", "c", "{toctree}", "{include}", "{eval-rst}"}


def blocks(page):
    """``(line, language, code)`` of each fenced block."""
    text = (ROOT / page).read_text("utf-8")
    for found in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.M | re.S):
        yield text[: found.start()].count("\n") + 2, found[1].strip(), found[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model of each task and some texts."""
    for name, golden in PIPELINES.items():
        shutil.copytree(GOLDEN / "pipelines" / golden, tmp_path / name)
    shutil.copytree(GOLDEN / "cross-encoders" / "one-label", tmp_path / "my-reranker")
    shutil.copytree(GOLDEN / "sparse-encoders" / "max-relu", tmp_path / "my-splade")
    shutil.copytree(GOLDEN / "zero-shot", tmp_path / "my-nli")
    shutil.copytree(GOLDEN / "multi-vector" / "native", tmp_path / "my-colbert")
    write_sentence_model(tmp_path / "my-encoder")
    write_bert(tmp_path / "my-bert", bert_tensors(BERT_CONFIG))
    (tmp_path / "texts.txt").write_text("Leaves turn sunlight into sugar.\nTides follow the moon.\n", "utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


@contextlib.contextmanager
def service():
    """``ufbert serve`` with the bundled models; gives its port."""
    from ufbert.server.models import load_models
    from ufbert.server.run import make_server
    from ufbert.server.settings import Settings

    server = make_server(Settings(), load_models(["all-MiniLM-L6-v2-fff-30x7", "sentiment"], "float32"), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    with mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", False):  # the service is on this machine
        yield str(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join()


def runs_here(page):
    """Whether a page's code can run: pages of other libraries run alone, in the environment of their stack."""
    stack = Path(page).stem if page.startswith("docs/integrations/") else None
    return stack == os.environ.get("UFBERT_STACK") and any(kind in RUN for _, kind, _ in blocks(page))


@pytest.mark.parametrize("page", list(filter(runs_here, PAGES)))
def test_blocks_run(page, folder):
    names = {"__name__": "__main__"}
    runnable = [block for block in blocks(page) if block[1] in RUN]
    with service() if any("8080" in code for *_, code in runnable) else contextlib.nullcontext("8080") as port:
        for line, language, code in runnable:
            code = code.replace("8080", port)
            if language == "python":
                exec(compile("\n" * (line - 1) + code, page, "exec"), names)
            elif language == "sh" and not code.startswith("pip install"):
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True)
                assert done.returncode == 0, f"{page}:{line}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_say_what_they_are(page):
    kinds = {kind.split(" ")[0] for _, kind, _ in blocks(page)}
    assert kinds <= RUN | SHOWN | {"{ufbert-help}"}
    for line, kind, code in blocks(page):
        if kind == "json":
            assert json.loads("{" + code + "}" if not code.startswith("{") else code), f"{page}:{line}"
