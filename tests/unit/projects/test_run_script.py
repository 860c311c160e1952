"""run_script on any machine: where it works, what it shows, how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import psutil
import pytest

import colabkit
from colabkit.errors import ArgumentError, ScriptError, ScriptNotFoundError
from colabkit.keeping import Kept
from colabkit.projects import finding_scripts
from colabkit.projects.finding_scripts import find_script
from tests import abilities


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project/lib").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/labels.txt").write_text("cat")
    (tmp_path / "project/model.py").write_text("name = 'net'")
    return tmp_path / "project"


def script(project, source, name="train.py"):
    (project / name).write_text(source)
    return project / name


def test_the_script_finds_its_modules_its_data_and_its_arguments(project, capfd):
    path = script(
        project,
        "import sys, model\n"
        "print(model.name, open('../shared/labels.txt').read(), sys.argv[1:], __name__)\n"
        "open('out.txt', 'w').write('done')\n",
    )
    done = colabkit.run_script(path, "--epochs", 3)
    assert "net cat ['--epochs', '3'] __main__\n" in capfd.readouterr().out
    assert (project / "out.txt").read_text() == "done"
    assert done.path == path


def test_a_script_in_a_subfolder_works_in_the_project(project, capfd):
    path = script(project, "import model; print(model.name, open('model.py').read())", "lib/go.py")
    colabkit.run_script(path, project=project)
    assert "net name = 'net'" in capfd.readouterr().out
    with pytest.raises(ArgumentError, match="does not lie in the project"):
        colabkit.run_script(path, project=project.parent / "shared")


def test_a_script_above_the_working_folder_has_a_project_with_a_name(project, monkeypatch):
    path = script(project, "")
    monkeypatch.chdir(project / "lib")
    found = find_script("../train.py", project="..")
    assert (found.path, found.project) == (path, project)
    assert find_script("../train.py") == found


def test_an_interrupt_while_it_saves_says_where_the_output_is(
    project, tmp_path, monkeypatch, capfd
):
    def interrupted(_kept):
        raise KeyboardInterrupt

    path = script(project, "open('out.txt', 'w').write('done')")
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(finding_scripts, "is_slow", lambda _: True)
    with monkeypatch.context() as impatient:
        impatient.setattr(Kept, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            colabkit.run_script(path)
    assert "Stopped before all was kept" in capfd.readouterr().out
    colabkit.run_script(path)  # what was kept by then is not kept once more
    assert (project / "kept/latest/project/out.txt").read_text() == "done"


def test_output_comes_as_it_is_written_each_stream_on_its_own(project, capfd):
    path = script(
        project, "import sys; sys.stderr.write('50%\\r'); print('é' * 3, end=''); sys.exit(0)"
    )
    colabkit.run_script(path)
    shown = capfd.readouterr()
    assert "ééé" in shown.out
    assert shown.err == "50%\r"


def test_a_failure_is_an_error_with_its_status_and_its_last_words(project, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    path = script(
        project,
        "import os\nprint(os.environ['HF_TOKEN'])\nraise ValueError(os.environ['HF_TOKEN'])",
    )
    with pytest.raises(
        ScriptError, match=r"train.py ended with status 1 .*ValueError: \*\*\*"
    ) as e:
        colabkit.run_script(path)
    assert e.value.returncode == 1
    shown = capfd.readouterr()
    assert "hf_verysecret" not in shown.out + shown.err + str(e.value)
    assert "***" in shown.out


def test_a_script_ended_by_a_signal_says_which(project):
    path = script(project, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ScriptError, match=r"was ended by SIGKILL after \d+ s") as error:
        colabkit.run_script(path)
    assert error.value.returncode == -9


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("project/trian.py", "Did you mean 'train.py' in"),
        ("project", r"is a folder\. It holds model\.py, train\.py\."),
        ("projct/train.py", "Did you mean 'project' in"),
    ],
)
def test_a_wrong_name_is_told_the_right_one(project, tmp_path, name, said):
    script(project, "")
    with pytest.raises(ScriptNotFoundError, match=said):
        colabkit.run_script(tmp_path / name)


def test_bad_intervals_are_refused(project):
    with pytest.raises(ArgumentError, match="save_every_s is 0"):
        colabkit.run_script(script(project, ""), save_every_s=0)


def test_arguments_in_a_list_are_refused(project):
    with pytest.raises(ArgumentError, match="is a list") as error:
        colabkit.run_script(script(project, ""), ["--epochs", "3"])
    assert "one by one" in error.value.hint


def test_a_notebook_is_no_script(project):
    with pytest.raises(ArgumentError, match=r"train\.ipynb is a notebook"):
        colabkit.run_script(script(project, "{}", "train.ipynb"))


def test_what_it_leaves_in_the_background_does_not_hold_the_cell(project, capfd):
    path = script(
        project, "import subprocess; subprocess.Popen(['sleep', '600']); print('started')"
    )
    done = colabkit.run_script(path)
    assert done.seconds < 300
    assert "started" in capfd.readouterr().out


INTERRUPTED = """
import sys, threading, _thread
import colabkit

class Watching:
    def write(self, text):
        if "ready" in text:
            _thread.interrupt_main()
        return sys.__stdout__.write(text)
    def flush(self): sys.__stdout__.flush()

sys.stdout = Watching()
try:
    colabkit.run_script(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_lets_the_script_end_gently(project):
    path = script(
        project,
        "import time\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('saved a checkpoint')\n",
    )
    command = [sys.executable, "-c", INTERRUPTED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert "saved a checkpoint" in done.stdout
    assert re.search(r"train.py was interrupted after \d+ s\.", done.stdout)
    assert done.stdout.endswith("interrupted\n")


@pytest.mark.parametrize(
    "command",
    [
        ("train.py", "--epochs", 3),
        ("-m", "train", "--epochs", 3),
        ("python", "-X", "utf8", "train.py", "--epochs", 3),
        (sys.executable, "train.py", "--epochs", 3),
    ],
)
def test_any_command_runs_in_its_project(project, capfd, monkeypatch, command):
    script(project, "import sys, model; print(model.name, sys.argv[1:])")
    monkeypatch.chdir(project)
    done = colabkit.run(*command)
    assert "net ['--epochs', '3']" in capfd.readouterr().out
    assert done.saved == ()


def test_a_program_that_is_not_there_is_named(project, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(ScriptNotFoundError, match="There is no program 'torchrn'"):
        colabkit.run("torchrn", "train.py")
    with pytest.raises(ArgumentError, match="nothing to run"):
        colabkit.run()


def test_a_local_project_is_kept_where_it_is_told_to(project, tmp_path, monkeypatch, capfd):
    path = script(project, "import os; os.makedirs('out', exist_ok=True); open('out/a', 'w')")
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    done = colabkit.run_script(path, keep=tmp_path / "safe")
    assert done.saved == ("out/a",)
    said = capfd.readouterr().out
    assert f"Kept in {tmp_path / 'safe'}: what it writes into {project}, and nothing" in said
    assert (tmp_path / "safe/latest/out/a").exists()


def test_an_input_edited_since_a_script_changed_it_wins(project, tmp_path, monkeypatch):
    path = script(project, "open('model.py', 'a').write('\\nchanged = 1')")
    monkeypatch.setattr(finding_scripts, "is_slow", lambda _: True)
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "one"))
    colabkit.run_script(path)
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "two"))
    script(project, "print(open('model.py').read()); open('more.txt', 'w')")
    colabkit.run_script(path)
    copied = next((tmp_path / "two").rglob("project/model.py"))
    assert "changed" in copied.read_text()
    (project / "model.py").write_text("name = 'edited'")
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "three"))
    colabkit.run_script(path)
    copied = next((tmp_path / "three").rglob("project/model.py"))
    assert copied.read_text() == "name = 'edited'"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("python", 'colabkit.run("python", "train.py")'),
        ("python train.py --epochs 3", 'colabkit.run("python", "train.py", "--epochs", "3")'),
        ("-m train", 'colabkit.run("-m", "train")'),
        ("train.py --epochs 3", 'colabkit.run_script("train.py", "--epochs", "3")'),
    ],
)
def test_a_command_passed_for_a_script_is_told_how(project, monkeypatch, path, hint):
    script(project, "")
    monkeypatch.chdir(project)
    with pytest.raises(ScriptNotFoundError, match="is a command, and no script") as error:
        colabkit.run_script(path)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "python -X utf8 train.py --name 'two words'",
        "!python train.py --name 'two words'",
        "  train.py --name 'two words' ",
        ["python3", "train.py", "--name", "two words"],
        "WIDTH=3 python -m train --name 'two words'",
        "WIDTH=3 DEPTH=2 train.py --name 'two words'",
        "bash start.sh --name 'two words'",
        "./start.sh --name 'two words'",
    ],
)
def test_a_line_is_run_as_a_terminal_does(project, monkeypatch, capfd, line):
    script(project, "import sys, os; print(sys.argv[1:], os.environ.get('WIDTH'))")
    script(project, f'{sys.executable} train.py "$@"\n', "start.sh")
    monkeypatch.chdir(project)
    colabkit.run(line)
    width = "3" if "WIDTH" in line else None
    assert f"['--name', 'two words'] {width}" in capfd.readouterr().out


def test_a_script_of_a_shell_works_in_its_own_folder(project, tmp_path, monkeypatch, capfd):
    script(project, "echo in $(pwd)\n", "my start.sh")
    monkeypatch.chdir(tmp_path)
    done = colabkit.run("bash", "project/my start.sh")
    assert done.path == project / "my start.sh"
    colabkit.run("project/my start.sh")
    assert capfd.readouterr().out.count(f"in {project}\n") == 2


@pytest.mark.parametrize("line", ["cd lib && python go.py", "python a.py > log", "ls *.py"])
def test_what_only_a_shell_understands_is_told_how(project, monkeypatch, line):
    monkeypatch.chdir(project)
    with pytest.raises(ArgumentError, match="for a shell") as error:
        colabkit.run(line)
    assert f'run("bash", "-c", {line!r})' in error.value.hint


def test_a_module_is_called_by_its_name_and_its_file(project, monkeypatch, capfd):
    (project / "lib/__init__.py").touch()
    path = script(project, "import sys; sys.exit(len(sys.argv) - 1)", "lib/go.py")
    monkeypatch.chdir(project)
    assert colabkit.run("python", "-u", "-m", "lib.go").path == path
    assert "lib.go ended after" in capfd.readouterr().out
    with pytest.raises(ScriptError, match=r"lib\.go ended with status 1") as error:
        colabkit.run("-m", "lib.go", "x")
    assert error.value.path == str(path)
    assert colabkit.run("python", "-m", "this").path.exists()
    with pytest.raises(ArgumentError, match="names no module"):
        colabkit.run("python", "-m")


def program(folder, name, source):
    """A console script, as pip writes one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source)
    (folder / name).chmod(0o755)


def test_a_console_script_runs_with_its_words_and_its_output_is_kept(
    project, tmp_path, monkeypatch, capfd
):
    yolo = (
        f"#!{sys.executable}\nimport os, sys\nos.makedirs('runs/cats', exist_ok=True)\n"
        "open('runs/cats/last.pt', 'wb').write(b'1' * 1000)\nprint(sys.argv[1:])\n"
    )
    program(tmp_path / "bin", "yolo", yolo)
    program(tmp_path / "bin", "gone", "#!/nowhere/bin/python\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(project)
    words = ("yolo", "train", "data=my cats.yaml", "epochs=3")
    done = colabkit.run(*words, keep=tmp_path / "safe")
    assert "['train', 'data=my cats.yaml', 'epochs=3']" in capfd.readouterr().out
    assert done.saved == ("runs/cats/last.pt",)
    with pytest.raises(ScriptError, match="gone could not be started: No such file"):
        colabkit.run("gone")


@pytest.mark.needs(abilities.package("torch"))
def test_torchrun_runs_its_workers_and_tells_how_they_ended(project, tmp_path, monkeypatch, capfd):
    script(
        project,
        "import os, sys\nrank = os.environ['RANK']\nopen(f'{rank}.txt', 'w').write(rank)\n"
        "print(f'RANK {rank} {sys.argv[1:]}\\n', end='', flush=True)\nsys.exit(int(sys.argv[1]))",
    )
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(project)
    words = ("torchrun", "--standalone", "--nproc-per-node", 2, "train.py")
    done = colabkit.run(*words, 0, "two words", keep=tmp_path / "safe")
    shown = capfd.readouterr().out
    assert "RANK 0 ['0', 'two words']" in shown
    assert "RANK 1 ['0', 'two words']" in shown
    assert done.saved == ("0.txt", "1.txt")


ALIVE = """
import sys, colabkit
colabkit.run(sys.executable, sys.argv[1])
"""


def test_a_program_ends_when_its_notebook_is_killed(project):
    child = "import time; print('CHILD', flush=True); time.sleep(600)"
    path = script(
        project,
        f"import subprocess, sys, os\nprint('ready', os.getpid(), flush=True)\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])",
    )
    command = [sys.executable, "-c", ALIVE, str(path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with parent:
        pid = int(next(line for line in parent.stdout if "ready" in line).split()[1])
        next(line for line in parent.stdout if "CHILD" in line)
        family = [psutil.Process(pid), *psutil.Process(pid).children()]
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=300)
    assert len(family) == 2
    assert not alive
