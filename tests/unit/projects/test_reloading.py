"""reload() takes up edited modules, and what was imported from them by name."""

from __future__ import annotations

import subprocess
import sys

START = """
import sys
from pathlib import Path
import colabkit
folder = Path(sys.argv[1])
def write(name, text): (folder / name).write_text(text)
write("base.py", "def size(): return 1")
write("model.py", "from base import size\\ndef twice(): return 2 * size()")
write("other.py", "made = []")
session = colabkit.setup(gpu=False, drive=False, workdir=folder)
from model import twice
import base, model, other
other.made.append("kept")
"""


def run(tmp_path, code):
    command = [sys.executable, "-c", START + code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_edited_module_is_reloaded_with_those_that_import_it_and_no_other(tmp_path):
    said = run(
        tmp_path,
        'write("base.py", "def size(): return 5")\n'
        'assert colabkit.reload() == ("base", "model")\n'
        'assert twice() == 10 and model.twice() == 10 and other.made == ["kept"]\n'
        "assert colabkit.reload() == ()\n",
    )
    assert "Reloaded base, model." in said
    assert "No module that was imported from the working folder has changed." in said


def test_an_edit_that_is_no_python_is_the_users_own_error_and_can_be_mended(tmp_path):
    run(
        tmp_path,
        'write("base.py", "def size(: return 5")\n'
        "try:\n    colabkit.reload()\n"
        "except SyntaxError as error:\n    assert 'base.py' in str(error)\n"
        "assert twice() == 2\n"
        'write("base.py", "def size(): return 7")\n'
        "colabkit.reload()\nassert twice() == 14\n",
    )


def test_without_a_working_folder_it_says_what_to_call():
    code = "import colabkit; colabkit.reload()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ArgumentError: No working folder is known" in done.stderr
    assert 'colabkit.setup(workdir="MyDrive/project")' in done.stderr


def test_a_module_is_read_again_where_another_thread_has_confused_the_parser(tmp_path):
    run(
        tmp_path,
        "import ast\n"
        "parse, failures = ast.parse, [SystemError('recursion depth mismatch')] * 2\n"
        "def parse_in_the_end(*given, **named):\n"
        "    if failures: raise failures.pop()\n"
        "    return parse(*given, **named)\n"
        "ast.parse = parse_in_the_end\n"
        'write("base.py", "def size(): return 5")\n'
        'assert colabkit.reload() == ("base", "model") and not failures\n',
    )
