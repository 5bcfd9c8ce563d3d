"""A signal to stop becomes a question that the loop asks at every step."""

import signal
import threading

import jax
import pytest
from jax.experimental import multihost_utils

from ukbob_jax.training.preemption import Preemption


def test_sigterm_is_noted_inside_and_handled_as_before_outside():
    seen = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        before = signal.getsignal(signal.SIGTERM)
        with Preemption() as preemption:
            assert not preemption.requested(1)
            signal.raise_signal(signal.SIGTERM)
            assert preemption.requested(2) and preemption.requested(3) and not seen
        assert signal.getsignal(signal.SIGTERM) is before
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


@pytest.fixture
def interrupts():
    """Ctrl-C as in a terminal; who runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_is_noted_and_the_second_ends_at_once(interrupts):
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert preemption.requested(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_is_ignored_stays_so(interrupts):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert not preemption.requested(1)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_former_handler_comes_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="broken"), Preemption():
        assert signal.getsignal(signal.SIGTERM) is not before
        raise RuntimeError("broken")
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_leaves_the_handler_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Preemption() as preemption:
            seen.extend([signal.getsignal(signal.SIGTERM), preemption.requested(1)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False] and signal.getsignal(signal.SIGTERM) is before


def test_several_processes_stop_at_the_step_that_jax_agrees_on(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 3)
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert signal.getsignal(signal.SIGTERM) is before  # JAX's own handler must stay
        assert [preemption.requested(step) for step in (2, 3, 4)] == [False, True, False]
