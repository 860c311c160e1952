"""The double's ``google.colab``: the steps, texts and exceptions of the real one."""

from __future__ import annotations

import time

import pytest

from tests.colab_vm import Answer, Client, MountOutcome, Platform

MOUNT = "from google.colab import drive; drive.mount('/content/drive')"
ALREADY = (
    "Drive already mounted at /content/drive; to attempt to forcibly remount, "
    'call drive.mount("/content/drive", force_remount=True).\n'
)
DENIED = "MessageError: Error: credential propagation was unsuccessful"
ENOTCONN = "OSError: [Errno 107] Transport endpoint is not connected: '/content/drive'"


def mount(arguments: str) -> str:
    return f"from google.colab import drive; drive.mount({arguments})"


@pytest.fixture
def machine(cloud):
    return cloud.machine()


def test_a_mount_says_where_and_a_second_one_that_it_is_there(machine):
    assert machine.run_cell(MOUNT).check().stdout == "Mounted at /content/drive\n"
    second = machine.run_cell(MOUNT).check()
    assert second.stdout == ALREADY
    assert second.result == ""
    assert [r["type"] for r in machine.front_end.requests] == ["request_auth"] * 2
    assert machine.front_end.requests[0]["request"] == {"authType": "dfs_ephemeral"}
    assert machine.front_end.requests[0]["timeout_sec"] == 120


def test_bad_arguments_raise_in_the_order_of_the_real_mount(machine):
    space = machine.run_cell(mount("'/content/my drive'")).error
    assert space == "ValueError: Mountpoint must not contain a space."
    path = machine.run_cell("import pathlib\n" + mount("pathlib.Path('/content/drive')")).error
    assert path.startswith("TypeError: argument of type 'PosixPath' is not ")
    forget = "import os; del os.environ['TBE_EPHEM_CREDS_ADDR']\n"
    assert machine.run_cell(forget + MOUNT).error == "KeyError: 'TBE_EPHEM_CREDS_ADDR'"
    assert machine.front_end.requests == []


@pytest.mark.parametrize("platform", [Platform.LOCAL, Platform.KAGGLE])
def test_without_a_hosted_machine_mounting_is_unsupported(cloud, platform):
    error = cloud.machine(platform).run_cell(mount("'/content/my drive'")).error
    assert error.startswith(
        "NotImplementedError: Mounting drive is unsupported in this environment. Use PyDrive2"
    )


def test_on_enterprise_the_space_is_found_before_the_product(cloud):
    machine = cloud.machine(Platform.ENTERPRISE)
    assert machine.run_cell(mount("'/content/my drive'")).error.startswith("ValueError")
    assert machine.run_cell(MOUNT).error == (
        "NotImplementedError: google.colab.drive.mount is not supported in Colab Enterprise."
    )


def test_authorisation_comes_before_the_look_at_the_mount(machine):
    machine.run_cell(MOUNT).check()
    machine.front_end.answer = Answer.DENIED
    assert machine.run_cell(MOUNT).error == DENIED
    # Refused before anything was unmounted.
    machine.run_cell("import os; os.listdir('/content/drive/MyDrive')").check()
    machine.front_end.answer = Answer.NOBODY
    machine.front_end.clock_rate = 100
    assert machine.run_cell(MOUNT).check().stdout == ALREADY


def test_consent_is_waited_for(machine):
    machine.front_end.answer = Answer.CONSENT
    machine.front_end.consent_s, machine.front_end.clock_rate = 20, 100
    before = time.monotonic()
    assert machine.run_cell(MOUNT).check().stdout == "Mounted at /content/drive\n"
    assert time.monotonic() - before >= 0.2


def test_with_nobody_there_the_request_times_out_and_the_mount_fails(machine):
    machine.front_end.answer, machine.front_end.clock_rate = Answer.NOBODY, 100
    asked = "from google.colab import _message; print(_message.blocking_request('x'))"
    assert machine.run_cell(asked).check().stdout == "None\n"
    assert machine.run_cell(mount("'/content/drive', timeout_ms=30000")).error == (
        "ValueError: mount failed"
    )


def test_a_time_out_below_a_second_waits_for_ever(machine):
    machine.front_end.answer, machine.front_end.clock_rate = Answer.NOBODY, 1000
    cell = machine.kernel.begin("print('begun')\n" + mount("'/content/drive', timeout_ms=999"))
    machine.kernel.wait_for_text(cell, "begun")
    with pytest.raises(TimeoutError):
        machine.kernel.finish(cell, timeout_s=0.5)
    machine.interrupt()
    assert machine.kernel.finish(cell).error.startswith("KeyboardInterrupt")


def test_off_the_main_thread_a_request_fails_loudly(machine):
    cell = f"""
import concurrent.futures
with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="worker") as pool:
    pool.submit(exec, {MOUNT!r}, {{}}).result()
"""
    error = machine.run_cell(cell).error
    assert error.startswith("RuntimeError: blocking_request('request_auth') off the main thread")
    assert machine.front_end.requests[0]["thread"] == "worker_0"


def test_without_a_kernel_there_is_the_attribute_error(machine):
    script = machine.run_script(MOUNT)
    assert script.returncode == 1
    assert script.stderr.endswith("AttributeError: 'NoneType' object has no attribute 'kernel'\n")


@pytest.mark.parametrize(
    ("spoil", "arguments", "text"),
    [
        (
            "os.symlink('/tmp', '/content/link')",
            "'/content/link'",
            "Mountpoint must not be a symlink",
        ),
        ("", "'/content/sample_data'", "Mountpoint must not already contain files"),
        (
            "",
            "'/content/sample_data/README.md'",
            "Mountpoint must either be a directory or not exist",
        ),
        ("", "'/content/no/drive'", "Mountpoint must be in a directory that exists"),
    ],
)
def test_a_rejected_mount_has_already_killed_the_live_one(machine, spoil, arguments, text):
    machine.run_cell(f"{MOUNT}\nimport os\n{spoil}").check()
    assert machine.run_cell(mount(arguments)).error == f"ValueError: {text}"
    assert machine.run_cell("os.listdir('/content/drive')").error == ENOTCONN
    assert machine.run_cell("os.path.exists('/content/drive/MyDrive')").result == "False"
    assert machine.run_cell(MOUNT).check().stdout == "Mounted at /content/drive\n"


def test_a_second_mountpoint_kills_the_first(machine):
    machine.run_cell(MOUNT).check()
    assert machine.run_cell(mount("'/content/gdrive'")).check().stdout == (
        "Mounted at /content/gdrive\n"
    )
    assert machine.run_cell("import os; os.listdir('/content/drive')").error == ENOTCONN
    machine.run_cell("os.listdir('/content/gdrive/MyDrive')").check()


def test_a_mount_fails_once_and_then_succeeds(machine):
    machine.drive.will_mount(MountOutcome.FAILED)
    assert machine.run_cell(MOUNT).error == "ValueError: mount failed"
    machine.run_cell(MOUNT).check()


def test_a_mount_fails_for_ever(machine):
    machine.drive.will_mount(then=MountOutcome.FAILED)
    assert {machine.run_cell(MOUNT).error for _ in range(5)} == {"ValueError: mount failed"}


def test_the_other_failures_have_their_own_texts(machine):
    machine.drive.will_mount(
        MountOutcome.ROOT_TIMEOUT, MountOutcome.DOMAIN_POLICY, MountOutcome.PEXPECT_TIMEOUT
    )
    machine.front_end.clock_rate = 1000
    errors = [machine.run_cell(MOUNT).error for _ in range(3)]
    assert errors[0].startswith(
        "ValueError: mount failed: timeout during initial read of root folder; "
    )
    assert errors[1].startswith("ValueError: The domain policy has disabled Drive File Stream: ")
    # It lists all that it has waited for, and leaves its shell and its program behind.
    assert errors[2].startswith("TIMEOUT: ")
    assert "The domain policy has disabled Drive File Stream" in errors[2]
    left = machine.run_cell("import subprocess; subprocess.getoutput('cat /proc/*/comm')").result
    assert left.count("drive") == 1
    machine.drive.will_mount(MountOutcome.FAILED)
    again = machine.run_cell(MOUNT).error
    assert "timeout during initial read of root folder" in again


def test_a_dead_mount_that_is_in_use_is_mounted_over_in_vain(machine):
    machine.run_cell(f"{MOUNT}\nimport os; os.chdir('/content/drive/MyDrive')").check()
    machine.drive.kill_mount()
    assert machine.run_cell(MOUNT).error == "ValueError: mount failed"
    # The shell that waits for the mount was started here, and stays: the kernel's leaving is late.
    machine.run_cell("os.chdir('/')").check()
    assert machine.run_cell(MOUNT).error == "ValueError: mount failed"
    machine.run_cell("os.system('umount -l /content/drive')").check()
    assert machine.run_cell(MOUNT).check().stdout == "Mounted at /content/drive\n"


def test_a_mount_takes_away_what_any_other_client_than_the_page_has_shown(machine):
    cell = f"print('before')\n{MOUNT}"
    assert machine.run_cell(cell).check().stdout == "before\nMounted at /content/drive\n"
    machine.front_end.kind = Client.EDITOR
    cell = cell.replace("drive')", "drive', force_remount=True)")
    assert machine.run_cell(cell).check().stdout == "Mounted at /content/drive\n"


def test_a_mount_to_read_from_takes_nothing(machine):
    machine.run_cell(mount("'/content/drive', readonly=True")).check()
    error = machine.run_cell("open('/content/drive/MyDrive/x', 'w')").error
    assert error.startswith("OSError: [Errno 30]")


def test_a_program_of_a_cell_has_a_terminal_of_no_width(machine):
    look = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns)"
    shown = machine.run_cell(f'!python -c "{look}"').check()
    assert shown.stdout == "True 0\n"


def test_both_names_of_the_root_hold_until_an_empty_folder_is_left(machine):
    flush = "from google.colab import drive; drive.flush_and_unmount()"
    assert machine.run_cell(flush).check().stdout == (
        "Drive not mounted, so nothing to flush and unmount.\n"
    )
    machine.run_cell(MOUNT).check()
    cell = """
import os
open('/content/drive/MyDrive/x', 'w').write('one')
print(open('/content/drive/My Drive/x').read(), os.listdir('/content/drive'))
"""
    shown = machine.run_cell(cell).check().stdout
    assert shown.startswith("one ['MyDrive', ")
    assert machine.run_cell(flush).check().stdout == ""
    assert machine.run_cell("os.listdir('/content/drive')").result == "[]"
    machine.run_cell("open('/content/drive/stray', 'w').close()").check()
    assert machine.run_cell(MOUNT).error == "ValueError: Mountpoint must not already contain files"


def test_secrets_signing_in_and_the_page_answer_or_fail_as_on_colab(machine):
    machine.front_end.add_secret("open", "sesame")
    machine.front_end.add_secret("shut", "sesame", access=False)
    get = "from google.colab import userdata; userdata.get({!r})"
    assert machine.run_cell(get.format("open")).result == "'sesame'"
    assert machine.run_cell(get.format("shut")).error.startswith("NotebookAccessError: ")
    assert machine.run_cell(get.format("none")).error == (
        "SecretNotFoundError: Secret none does not exist."
    )
    machine.run_cell("from google.colab import auth; auth.authenticate_user()").check()
    machine.front_end.answer, machine.front_end.clock_rate = Answer.NOBODY, 100
    assert machine.run_cell(get.format("open")).error.startswith("TimeoutException: ")
    machine.run_cell("auth.authenticate_user()").check()
    cell = machine.kernel.begin("from google.colab import output; output.eval_js('1 + 1')")
    with pytest.raises(TimeoutError):
        machine.kernel.finish(cell, timeout_s=0.5)
