"""A reader of pickles that runs no code: containers, numbers, text, and the calls it is told about.

The standard unpickler imports and calls whatever a file names, and one flipped byte can make it ask for tens of
gigabytes. This one walks the opcodes itself: a file can only build the values below, in memory in proportion to its
size.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

Key = tuple[str, str]  # module, name


class Named(NamedTuple):
    """A class or function a pickle may name, and what stands in for calling it."""

    name: str
    call: Callable[..., Any]


class Refused(ValueError):
    """The pickle names something outside the given table, or an opcode that plain data does not need."""


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bytes, type(None))  # no tuples: hashing a deep one overflows the stack


def load(file: IO[bytes], names: Mapping[Key, Named], persistent: Callable[[Any], Any]) -> Any:
    """The value of the pickle at `file`'s position, which moves to just behind it.

    Args:
        file: open for reading bytes.
        names: every class or function it may name.
        persistent: turns a persistent id into a value.
    Raises:
        Refused: the pickle names something else; the message says what.
        ValueError, IndexError, KeyError, TypeError and their like: it is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of odd escapes in a damaged text
        return _Machine(names, persistent).run(file)


class _Machine:
    """The stack, marks and memo of one pickle."""

    def __init__(self, names: Mapping[Key, Named], persistent: Callable[[Any], Any]) -> None:
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _TUPLES:
                self.stack.append(tuple(self._pop(_TUPLES[name])))
            elif name not in ("PROTO", "FRAME"):
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise Refused(f"opcode {name}")
                step(argument)
        raise EOFError("no end of pickle")

    def _pop(self, count: int) -> list[Any]:
        items = self.stack[len(self.stack) - count :] if count <= len(self.stack) else []
        if len(items) != count:
            raise IndexError("pickle takes more than it put")
        del self.stack[len(self.stack) - count :]
        return items

    def _pop_to_mark(self) -> list[Any]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _append(self, _: None) -> None:
        self._extend(self._pop(1))

    def _appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("pickle appends to something that is no list")
        self.stack[-1].extend(items)

    def _setitem(self, _: None) -> None:
        self._update(self._pop(2))

    def _setitems(self, _: None) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: list[Any]) -> None:
        keys, target = items[::2], self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, _KEYS) for key in keys):
            raise TypeError("pickle sets an item of something that is no dictionary")
        target.update(zip(keys, items[1::2]))

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: None) -> None:
        self._name(*self._pop(2))

    def _name(self, module: Any, name: Any) -> None:
        if (module, name) not in self.names:
            raise Refused(f"{module}.{name}")
        self.stack.append(self.names[module, name])

    def _reduce(self, _: None) -> None:
        function, arguments = self._pop(2)
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise TypeError("pickle calls something that is no function")
        self.stack.append(function.call(*arguments))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        self._pop(1)  # attributes of an object: no value here has any

    def _binpersid(self, _: None) -> None:
        self.stack.append(self.persistent(self._pop(1)[0]))

    def _binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _long_binput = _binput

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _long_binget = _binget

    def _pop_mark(self, _: None) -> None:
        self._pop_to_mark()
