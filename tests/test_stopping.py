"""A signal to stop ends the work within seconds, whatever the work is."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import ROOT
from ukbob_jax import stopping


def test_sigterm_becomes_an_exception_and_all_is_as_before_afterwards():
    before, fd = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    with pytest.raises(stopping.Terminated), stopping.ending_soon():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(fd) == fd
    assert not [thread for thread in threading.enumerate() if thread.name == "stopping"]


def test_no_loop_takes_it_for_a_failure_and_a_second_signal_does_not_disturb_what_cleans_up():
    cleaned = []
    with pytest.raises(stopping.Terminated), stopping.ending_soon():
        try:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            except Exception:
                cleaned.append("wrong")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append("right")
    assert cleaned == ["right"]


def test_a_handler_that_is_set_within_counts_for_itself():
    seen = []
    with stopping.ending_soon(seconds=0.2):
        former = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)  # the process is still there
        signal.signal(signal.SIGTERM, former)
    assert seen == [signal.SIGTERM]


def test_ignored_signals_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.ending_soon((signal.SIGINT,)):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def work():
        with stopping.ending_soon():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


LONG = """
import hashlib, sys
from ukbob_jax import stopping
with stopping.last(lambda: open(sys.argv[1], "w").write("unlocked")), stopping.ending_soon(seconds=1.0):
    print("begins", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # one call outside of Python, for many minutes
"""


def test_a_call_that_does_not_come_back_is_ended_from_beside_it(tmp_path):
    words = [sys.executable, "-c", LONG, str(tmp_path / "last")]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begins\n"
        time.sleep(1)  # it is in the call by then
        start = time.monotonic()
        process.terminate()
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and time.monotonic() - start < 10
    assert told == stopping.NOTE.decode() and (tmp_path / "last").read_text() == "unlocked"
