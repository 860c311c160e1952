"""Every error says what happened, where, and what to do next."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from colabkit.errors import ArgumentError
from tests.abilities import package

# Frames of the user's own stand above, between and below those of colabkit.
CELLS = [
    "import colabkit, traceback\nfrom colabkit.errors import ArgumentError",
    "def mine():\n    return colabkit.dataset('none/cats.zip')",
    "mine()",
    "%tb Plain",
    """
def broken():
    return {}["forward"]
def wrap():
    try:
        broken()
    except KeyError as error:
        raise ArgumentError("No.", argument="x") from error
""",
    "wrap()",
    "import sys; print(repr(sys.last_value.__cause__))",
    "colabkit.fit(None, None, None)",
]
SESSION = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors=sys.argv[1])
for cell in sys.argv[2:]:
    print("####", flush=True)
    shell.run_cell(cell)
"""


def test_words_of_others_at_the_end_of_a_message_get_their_full_stop():
    assert str(ArgumentError("It said: no", argument="x", hint="Go.")) == "It said: no. Go."
    assert str(ArgumentError("It said no.", argument="x", hint="Go.")) == "It said no. Go."
    assert str(ArgumentError("It said: no", argument="x")) == "It said: no"


def said_in_a_notebook() -> list[str]:
    """What each cell shows."""
    package("IPython").require()
    command = [sys.executable, "-c", SESSION, "NoColor", *CELLS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return re.sub(r"\x1b\[[\d;]*m", "", done.stdout).split("####\n")[1:]


def test_a_notebook_shows_the_lines_of_the_users_own_and_all_where_that_is_asked_for():
    _, _, short, whole, _, chained, cause, plain = said_in_a_notebook()
    assert "other_names.py" not in short
    assert "return colabkit.dataset('none/cats.zip')" in short
    assert "There is no none/cats.zip" in short.splitlines()[-1]
    assert "other_names.py" in whole
    assert chained.index('return {}["forward"]') < chained.index("led to this one")
    assert chained.rstrip().endswith("ArgumentError: No.")
    assert cause.strip() == "KeyError('forward')"
    assert [line.split()[0] for line in plain.splitlines() if ".py" in line] == []
    assert "ckpt_dir is of type NoneType" in plain
