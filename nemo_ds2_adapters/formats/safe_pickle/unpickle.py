"""A reader of the pickles that `torch.save` writes which cannot execute anything.

A pickle is a program. This interprets the instructions that plain values, tensors and OmegaConf containers need,
and keeps every class it meets as a name, never importing or calling it. What else a pickle may hold is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from mmap import mmap
from typing import Any

from nemo_ds2_adapters.adapters.stored import ITEM_SIZES, Storage, StoredTensor
from nemo_ds2_adapters.errors import AdapterFileError

REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
DICTS = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
STORAGES = {  # names of the classes, and of the types of their numbers
    "torch.BFloat16Storage": "bfloat16",
    "torch.BoolStorage": "bool",
    "torch.ByteStorage": "uint8",
    "torch.CharStorage": "int8",
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.IntStorage": "int32",
    "torch.LongStorage": "int64",
    "torch.ShortStorage": "int16",
}
# Types that a config's metadata refers to.
TYPES = (
    *(f"__builtin__.{name}" for name in ("bool", "dict", "float", "list", "long", "int", "unicode")),
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Union")),
)
MAX_DIMENSIONS = 8
MAX_NUMBER = 2**31  # of a key: larger ones can be made to collide, and a dictionary of them takes hours

_MARK = object()


@dataclass(frozen=True)
class Names:
    """What files of one kind may name besides tensors; patterns as of `fnmatch`."""

    kind: str  # of file, for messages
    types: tuple[str, ...]  # may be referred to
    containers: tuple[str, ...]  # may be the class of an object, which becomes a `Container`
    calls: tuple[str, ...] = ()  # may be called, which becomes a `Container` with the arguments as its state

    def allow(self, path: str) -> bool:
        """Whether the name may occur at all."""
        return _matches(path, (*self.types, *self.containers, *self.calls))


@dataclass(frozen=True)
class ClassName:
    """A class or function that the pickle names."""

    path: str


@dataclass
class Container:
    """An object of a class of which nothing but the name is known, and what would be its attributes."""

    path: str
    state: dict[str, Any]


def unpickle(program: bytes | mmap, load_storage: Callable[[str, int], bytearray], names: Names) -> Any:
    """What the pickle of a `torch.save` file holds: plain values, `StoredTensor`s, `Container`s and `ClassName`s.

    `program` is the pickle, or a mapped file that is read to the pickle's end; a plain file makes room for any number
    of bytes that a pickle says it has. `load_storage` gives the bytes of a storage, by key and size in bytes. Raises
    AdapterFileError: the pickle is damaged, or holds what files of this kind do not.
    """
    machine = _Machine(load_storage, names)
    try:
        for opcode, argument, _ in pickletools.genops(program):  # type: ignore[arg-type]  # a mapped file reads as any
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        (result,) = machine.stack
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise AdapterFileError(f"its structure is damaged ({error})") from error
    return result


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(self, load_storage: Callable[[str, int], bytearray], names: Names) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._load_storage = load_storage
        self._names = names
        self._storages: dict[str, Storage] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        match opcode:  # the frequent ones first
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":  # text of Python 2
                stack.append(argument)
            case "PROTO":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode]())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if opcode == "APPEND" else self._above_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(-2), stack.pop()] if opcode == "SETITEM" else self._above_mark()
                _check_keys(items[::2])
                _expect(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(self._class_name(argument))
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "NEWOBJ":
                stack.pop()  # no container takes arguments
                stack.append(self._container(stack.pop()))
            case "REDUCE":
                arguments = _expect(stack.pop(), tuple)
                stack.append(self._call(_expect(stack.pop(), ClassName).path, arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Container) and "arguments" not in stack[-1].state:
                    stack[-1].state = _expect(state, dict)
                elif not isinstance(stack[-1], dict | Container):  # whose attributes, versions mostly, nobody needs
                    raise AdapterFileError("sets attributes of something that has none")
            case _:
                raise AdapterFileError(f"uses the pickle instruction {opcode}, which torch.save does not")

    def _above_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise AdapterFileError("its structure is damaged (no mark)")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _persistent(self, identity: Any) -> Storage | ClassName:
        """What stands beside the pickle: numbers, or the source text of a module's class (torch before 1.6)."""
        if _expect(identity, tuple)[0] == "module":
            return _expect(identity[1], ClassName)
        return self._storage(identity)

    def _storage(self, identity: tuple[Any, ...]) -> Storage:
        kind, storage_class, key, _, count, *view = identity
        dtype = STORAGES.get(_expect(storage_class, ClassName).path, "")
        if kind != "storage" or not dtype or not _is_count(count) or not isinstance(key, str) or any(view):
            raise AdapterFileError(f"declares weights of an unknown kind, {storage_class.path}")
        if key not in self._storages:
            self._storages[key] = Storage(self._load_storage(key, count * ITEM_SIZES[dtype]), dtype)
        storage = self._storages[key]
        if storage.dtype != dtype or storage.count != count:
            raise AdapterFileError(f"declares weights {key!r} twice, differently")
        return storage

    def _class_name(self, argument: str) -> ClassName:
        path = argument.replace(" ", ".", 1)
        if path not in (*REBUILD_TENSOR, REBUILD_PARAMETER, *DICTS, *STORAGES, *TYPES) and not self._names.allow(path):
            raise self._refusal("names", path)
        return ClassName(path)

    def _container(self, class_name: Any) -> Any:
        path = _expect(class_name, ClassName).path
        if path in DICTS:
            return {}
        if not _matches(path, self._names.containers):
            raise self._refusal("holds an object of", path)
        return Container(path, {})

    def _call(self, path: str, arguments: tuple[Any, ...]) -> Any:
        if path in DICTS:
            return {}  # an OrderedDict is empty at first, a defaultdict's factory is of no use here
        if path == REBUILD_PARAMETER:
            return _expect(arguments[0], StoredTensor)
        if path in REBUILD_TENSOR:
            return _tensor(*arguments[:4])
        if not _matches(path, self._names.calls):
            raise self._refusal("calls", path)
        return Container(path, {"arguments": arguments})

    def _refusal(self, does: str, path: str) -> AdapterFileError:
        return AdapterFileError(f"{does} {path}, which no {self._names.kind} needs; nothing was executed")


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys before a dictionary is made: hashing a tuple that holds itself twice, and so on, never ends."""
    for key in keys:
        # The states of an optimiser are numbered, and old versions of Lightning keep callbacks by their class.
        if type(key) is not str and not isinstance(key, ClassName) and not (_is_count(key) and key < MAX_NUMBER):
            raise AdapterFileError(f"has a {type(key).__name__} as a key, where text is expected")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> StoredTensor:
    count = _expect(storage, Storage).count
    dimensions = len(_expect(size, tuple))
    if dimensions > MAX_DIMENSIONS or len(_expect(stride, tuple)) != dimensions:
        raise AdapterFileError(f"holds a tensor of {dimensions} dimensions and {len(stride)} strides")
    if not all(map(_is_count, (offset, *size, *stride))):
        raise AdapterFileError("holds a tensor with sizes that are not numbers")
    elements = prod(size)
    end = offset + sum((n - 1) * step for n, step in zip(size, stride)) + 1 if elements else offset
    if elements > count or end > count:
        raise AdapterFileError(f"declares a tensor of {list(size)} with {count} numbers behind it")
    return StoredTensor(storage, offset, size, stride)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise AdapterFileError(f"its structure is damaged ({kind.__name__} expected)")
    return value
