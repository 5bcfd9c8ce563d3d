"""Tiles of several scans in one batch over all devices, so that every call of a network is full: `TileBatcher`.

A scan is worked on by a thread of its caller: it preprocesses, asks for the merged logits (`planes`) and writes labels.
One more thread takes tiles of all scans that wait and runs the network on `batch` of them per device: at first tiles of
the scans that are at home on the device, whose logits then stay there, then tiles of any other scan, whose logits are
sent to its home. While the devices work on one batch the next is prepared, and threads preprocess and export.

A batch begins when it is full, or when the devices have nothing else to do. At most `ROUNDS` batches wait for a device
or to be added up, and at most `open_scans` scans have sums on a device, so memory is bounded, see `estimate`.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ukbob_jax.errors import ConfigError, InputError, Preempted
from ukbob_jax.inference.nnunet import merge
from ukbob_jax.inference.nnunet.adapting import Leaves
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.nnunet.tile_network import Tile, TileNetwork, told
from ukbob_jax.inference.nnunet.tiles import Tiles
from ukbob_jax.inference.windows import memory
from ukbob_jax.inference.windows.memory import MemoryEstimate
from ukbob_jax.training import sharding

ROUNDS = 2  # batches under way at a time
SPARE_WORKERS = 2  # scans beside one per device: one is preprocessed while another is exported


class Filled(NamedTuple):
    """How full the batches were."""

    tiles: int
    places: int
    batches: int


@dataclasses.dataclass(eq=False)
class _Round:
    """One call of the network on all devices."""

    logits: jax.Array  # b z y x k, split over the devices
    left: int  # tiles that nobody has taken yet
    done: bool = False  # the devices have finished it


class _Logits(NamedTuple):
    """One tile's logits, where they were made."""

    array: jax.Array  # b z y x k, on one device
    number: int  # of the tile in it
    device: int
    round: _Round


@dataclasses.dataclass(eq=False)
class _Scan:
    """A scan that is being worked on."""

    program: TileNetwork
    padded: np.ndarray  # z y x c
    tiles: Tiles
    home: int  # number of the device that has its sums
    own: tuple[Leaves, ...]  # adapted parameters of each fold
    begun: int = 0  # tiles that were given to the network
    closed: bool = False
    arrived: collections.deque[_Logits] = dataclasses.field(default_factory=collections.deque)

    @property
    def left(self) -> int:
        """Tiles that still wait."""
        return len(self.tiles.starts) - self.begun

    def tile(self, number: int) -> Tile:
        """One of its tiles."""
        return Tile(merge.cut(self.padded, self.tiles.starts[number], self.tiles), self.own)


class TileBatcher:
    """Runs networks over the tiles of several scans at once, on all devices of a mesh. Work in a `with` block."""

    def __init__(
        self,
        mesh: Mesh,
        batch: int,
        workers: int = 0,
        announce: Callable[[MemoryEstimate], None] | None = None,
        beside: int = 0,
    ) -> None:
        """Take the devices.

        Args:
            mesh: of `sharding.make_mesh`, split along the batch alone.
            batch: tiles per device in a call of the network.
            workers: scans that are worked on at a time; 0: `SPARE_WORKERS` beside one per device.
            announce: called with each estimate that is larger than those before.
            beside: bytes that other work takes on a device, such as `adapting.gradient_bytes`.
        Raises:
            ConfigError: the mesh splits a case.
        """
        self.batch, self.devices = batch, list(mesh.devices.flat)
        self.workers = workers or len(self.devices) + SPARE_WORKERS
        if sharding.cases_share(mesh):
            raise ConfigError("mesh.space: tiles are not split; leave it 1.")
        self._mesh, self._announce, self._beside = mesh, announce, beside
        self._available = memory.available(self.devices[0])  # before anything of it is taken
        self._changed = threading.Condition()
        self._scans: list[_Scan] = []  # in the order of their coming
        self._programs: dict[Any, TileNetwork] = {}
        self._rounds: collections.deque[_Round] = collections.deque()
        self._error: BaseException | None = None
        self._stopping = False
        self._tiles = self._batches = 0
        self._estimates: dict[Any, MemoryEstimate] = {}
        self._adapting = [threading.Lock() for _ in self.devices]
        self._turns = itertools.count()
        self._thread = threading.Thread(target=self._work, name="tiles", daemon=True)

    def __enter__(self) -> "TileBatcher":
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Stop; scans that still wait for logits get an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def filled(self) -> Filled:
        """How full the batches were so far."""
        return Filled(self._tiles, self._batches * self.places, self._batches)

    @property
    def places(self) -> int:
        """Tiles in a batch over all devices."""
        return self.batch * len(self.devices)

    def planes(
        self, model: NnunetModel, array: np.ndarray, tiles: Tiles, mirror: bool, own: tuple[Leaves, ...] = ()
    ) -> Iterator[jax.Array]:
        """The merged logits of a scan, plane by plane, as `merge.planes` gives them; for `NnunetModel.run_tiles`.

        Threads may call it at the same time, each for a scan of its own.

        Args:
            model: equal members share a program.
            array: c z y x.
            tiles: of the array.
            mirror: as for `NnunetModel.logits`.
            own: of each fold, parameters of this scan that replace the network's.
        Raises:
            InputError: the scan needs more memory than there is.
            Preempted: the batcher was stopped meanwhile.
        """
        self._check_memory(model, array, tiles)
        scan = self._open(model, merge.pad(array, tiles), tiles, mirror, own)
        try:
            ring = None
            for at in tiles.starts:
                logits, number = self._take(scan)
                if ring is None:
                    with jax.default_device(self.devices[scan.home]):
                        ring = merge.Ring(tiles, scan.program.k, scan.program.count, model.importance)
                yield from ring.add(logits, number, at)
                del logits
            assert ring is not None
            yield from ring.rest()
        finally:
            self._close(scan)

    @contextlib.contextmanager
    def device(self) -> Iterator[None]:
        """A device, in turn, for other work of the calling thread, which has it to itself beside the tiles."""
        turn = next(self._turns) % len(self.devices)
        with self._adapting[turn], jax.default_device(self.devices[turn]):
            yield

    def _open(
        self, model: NnunetModel, padded: np.ndarray, tiles: Tiles, mirror: bool, own: tuple[Leaves, ...]
    ) -> _Scan:
        adapts = tuple(sorted(own[0])) if own else ()
        key = (id(model.members), mirror, adapts)
        with self._changed:
            if key not in self._programs:
                self._programs[key] = TileNetwork(model, mirror, adapts, self._mesh, self.places)
            work = [sum(s.left for s in self._scans if s.home == d) for d in range(len(self.devices))]
            scan = _Scan(self._programs[key], padded, tiles, int(np.argmin(work)), own)
            self._scans.append(scan)
            self._changed.notify_all()
        return scan

    def _take(self, scan: _Scan) -> tuple[jax.Array, int]:
        """The logits of the scan's next tile, at its home, and their number in the array."""
        with self._changed:
            while not scan.arrived:
                if self._error is not None:
                    raise self._error
                if self._stopping:
                    raise Preempted("stopped before the scan was labelled; the same command goes on.")
                self._changed.wait()
            found = scan.arrived.popleft()
            found.round.left -= 1
            self._changed.notify_all()
        if found.device == scan.home:
            return found.array, found.number
        one = found.array[found.number : found.number + 1]
        return jax.device_put(one, self.devices[scan.home]), 0

    def _close(self, scan: _Scan) -> None:
        with self._changed:
            scan.closed = True
            self._scans.remove(scan)
            for found in scan.arrived:
                found.round.left -= 1
            scan.arrived.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        """The thread: batch after batch, until the batcher is stopped."""
        try:
            while picks := self._next():
                program = next(pick for pick in picks if pick)[0].program
                tiles = [pick and pick[0].tile(pick[1]) for pick in picks]
                self._deliver(picks, program.run(tiles))
        except BaseException as error:  # every scan that waits must hear of it
            with self._changed:
                self._error = told(error)
                self._changed.notify_all()

    def _next(self) -> list[tuple[_Scan, int] | None] | None:
        """Wait for a batch to begin; None: the batcher was stopped."""
        while True:
            with self._changed:
                if self._stopping:
                    return None
                while self._rounds and self._rounds[0].done and not self._rounds[0].left:
                    self._rounds.popleft()
                unfinished = next((one for one in self._rounds if not one.done), None)
                picks = self._choose() if len(self._rounds) < ROUNDS else []
                if any(picks) and (None not in picks or unfinished is None):
                    for scan, number in filter(None, picks):
                        scan.begun = max(scan.begun, number + 1)
                    return picks
                if unfinished is None:
                    self._changed.wait()
            if unfinished is not None:
                jax.block_until_ready(unfinished.logits)
                unfinished.done = True

    def _choose(self) -> list[tuple[_Scan, int] | None]:
        """A tile or nothing for each place, of scans that share the program of the one that came first."""
        begun = collections.Counter(scan.home for scan in self._scans if scan.begun)
        taken: collections.Counter[_Scan] = collections.Counter()
        program = None
        picks: list[tuple[_Scan, int] | None] = [None] * self.places

        def pick(device: int, scans: Sequence[_Scan]) -> None:
            nonlocal program
            places = [p for p in range(device * self.batch, (device + 1) * self.batch) if picks[p] is None]
            for scan in scans:
                if not places or (program is not None and scan.program is not program):
                    continue
                new = not scan.begun and not taken[scan]
                if new and begun[scan.home] >= open_scans(self.batch, scan.tiles):
                    continue
                begun[scan.home] += new and scan.left > 0
                while places and taken[scan] < scan.left:
                    program = scan.program
                    picks[places.pop(0)] = (scan, scan.begun + taken[scan])
                    taken[scan] += 1

        order = range(len(self.devices))
        first = next((s for s in self._scans if s.left), None)
        if first is None:
            return picks
        for device in sorted(order, key=lambda d: d != first.home):  # its program leads
            pick(device, [scan for scan in self._scans if scan.home == device])
        for device in order:
            pick(device, sorted(self._scans, key=lambda scan: taken[scan] - scan.left))
        return picks

    def _deliver(self, picks: Sequence[tuple[_Scan, int] | None], logits: jax.Array) -> None:
        """Hand the logits to the scans, of each in the order of its tiles."""
        shards = sorted(logits.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        round = _Round(logits, 0)
        chosen = [(number, place, scan) for place, (scan, number) in _given(picks)]
        with self._changed:
            for _, place, scan in sorted(chosen, key=lambda one: one[0]):
                if not scan.closed:
                    device, number = divmod(place, self.batch)
                    scan.arrived.append(_Logits(shards[device].data, number, device, round))
                    round.left += 1
            self._rounds.append(round)
            self._batches += 1
            self._tiles += len(chosen)
            self._changed.notify_all()

    def _check_memory(self, model: NnunetModel, array: np.ndarray, tiles: Tiles) -> None:
        """Estimate the memory for a new bucket, refuse what does not fit, announce what is larger than before."""
        key = (id(model.members), tiles.bucket)
        with self._changed:
            if key in self._estimates:
                return
        estimate = self.estimate(model, array.shape, tiles)
        smaller = {"labeller.batch=1": lambda: self.estimate(model, array.shape, tiles, 1)}
        try:
            memory.check(estimate, smaller if self.batch > 1 else {})
        except ConfigError as error:  # of this scan: others may fit
            raise InputError(str(error)) from error
        with self._changed:
            largest = max((e.total for e in self._estimates.values()), default=0)
            self._estimates[key] = estimate
        if self._announce is not None and estimate.total > largest:
            self._announce(estimate)

    def estimate(
        self, model: NnunetModel, shape: Sequence[int], tiles: Tiles, batch: int = 0
    ) -> MemoryEstimate:
        """Memory of one device while scans like this are labelled; on CPUs that of all devices and the host.

        Args:
            model: whose tiles they are.
            shape: of the preprocessed array, c z y x.
            tiles: of it.
            batch: tiles per device; 0: the batcher's.
        """
        batch = batch or self.batch
        one = model.estimate(tiles, shape, batch)
        logits = 4 * batch * model.plans.out_channels * math.prod(tiles.patch)
        together = len(self.devices) if self.devices[0].platform == "cpu" else 1
        host = one.scan * self.workers if self.devices[0].platform == "cpu" else 0
        with self._changed:
            others = {id(p.source): memory.tree_bytes(p.source) for p in self._programs.values()}
        return one._replace(
            weights=sum((others | {id(model.members): one.weights}).values()) * together,
            scan=host,
            sums=one.sums * open_scans(batch, tiles) * together,
            network=(one.network + (ROUNDS + 1) * logits + self._beside) * together,
            available=self._available,
        )


def open_scans(batch: int, tiles: Tiles) -> int:
    """Scans of this size that may have sums on a device at a time: as many as fill a batch, and the next one."""
    return 1 + -(-batch // len(tiles.starts))


def _given(picks: Sequence[tuple[_Scan, int] | None]) -> Iterator[tuple[int, tuple[_Scan, int]]]:
    """The places that have a tile, with it."""
    return ((place, pick) for place, pick in enumerate(picks) if pick)
