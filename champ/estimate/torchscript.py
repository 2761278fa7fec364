"""Reads networks in TorchScript archives as data: the calls in a traced network's code become the steps of a graph; the
code itself never runs.

Traced code calls torch's operators and parts of the network, one after the other. Only a fixed list of operators is
accepted. Constructs that traced code does not have, such as loops and conditions, are refused.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..files.errors import DamagedError
from ..files.pickles import Node, Unpickler
from ..files.tensors import mapped
from ..files.torch_files import NAMES, TorchArchive, is_tensor, to_tensor
from .aten import OPERATORS
from .graph import MAX_STEPS, Graph, Ref, Step, same

MAX_CODE = 1 << 22  # characters, of all files of code and of all lines that are followed; YOLOX-L has 300,000
MAX_DEPTH = 60  # nested parts, or nested brackets
TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?))|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<text>\"[^\"\\]*\"|'[^'\\]*')|(?P<sign>[()\[\],.=:-]))"
)
CONSTANTS = {"True": True, "False": False, "None": None, "inf": math.inf, "nan": math.nan}


def read_torchscript(file: Path) -> tuple[Graph, int]:
    """Reads the network, and the batch size that it was traced with."""
    archive = TorchArchive(mapped(file))
    network = archive.load(names=rf"{NAMES}|__torch__\.[\w.]+")
    if not isinstance(network, Node):
        raise DamagedError("it contains no network")
    constants = archive.load("constants.pkl") if "constants.pkl" in archive else ()
    batch = _traced_with(archive, file.name)
    return _Tracer(archive, constants, batch).graph(network), batch


def _traced_with(archive: TorchArchive, name: str) -> int:
    """Returns the batch size that a network was traced with. Newer versions of torch store the pictures; the
    community's dw-ll_ucoco_384_bs5.torchscript.pt has the number in its name."""
    if "traced_inputs.pkl" in archive:
        for node in _nodes(_Outlines(archive.read("traced_inputs.pkl"), NAMES).load(), set()):
            return node.args[2][0]
    found = re.search(r"_bs(\d{1,3})", name)
    return int(found[1]) if found else 1


class _Outlines(Unpickler):
    """Reads shapes and types of tensors; their numbers may be missing."""

    def persistent(self, pid: Any) -> Any:
        return None


def _nodes(value: Any, seen: set[int]) -> Iterator[Node]:
    """Yields the tensors in a value. What is contained many times, as a list in lists in lists, is looked at once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if is_tensor(value):
        yield value
    elif isinstance(value, Node):
        yield from _nodes(value.args, seen)
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _nodes(part, seen)


class Identifier(str):
    """A name in the code."""


class Attribute(NamedTuple):
    of: Any
    name: str


class Item(NamedTuple):
    of: Any
    index: Any


class Call(NamedTuple):
    function: Any
    args: list[Any]
    kwargs: dict[str, Any]


class ScriptMethod(NamedTuple):
    parameters: list[str]
    lines: list[str]


class _Code:
    """The classes in the archive's files of code, and the lines of their methods."""

    def __init__(self, archive: TorchArchive):
        self.archive, self.left = archive, MAX_CODE
        self.files: dict[str, dict[tuple[str, str], ScriptMethod]] = {}

    def method(self, kind: str, name: str) -> ScriptMethod:
        """Returns a method of a class that a pickle mentions, such as __torch__.yolox.models.YOLOX."""
        place, _, short = kind.rpartition(".")
        file = f"code/{place.replace('.', '/')}.py"
        if file not in self.files:
            self.files[file] = dict(self._methods(bytes(self.archive.read(file)).decode()))
        if (short, name) not in self.files[file]:
            raise DamagedError(f"it has no code for {kind[:80]}.{name[:20]}")
        return self.files[file][short, name]

    def _methods(self, text: str) -> Iterator[tuple[tuple[str, str], ScriptMethod]]:
        self.left -= len(text)
        if self.left < 0:
            raise DamagedError("it has more code than any such network")
        kind, method = "", None
        for line in _joined(text):
            if found := re.fullmatch(r"class (\w+)\(.*\):", line):
                kind, method = found[1], None
            elif found := re.match(r"  def (\w+)\(", line):
                parameters, arrow, _ = line[found.end() :].rpartition(") -> ")
                if not arrow or not line.endswith(":"):
                    raise DamagedError("its code is damaged")
                method = ScriptMethod(re.findall(r"(?:^|, *)(\w+):", parameters), [])
                yield (kind, found[1]), method
            elif line.startswith("    ") and method:
                method.lines.append(line.strip())
            else:
                method = None


def _joined(text: str) -> Iterator[str]:
    """Yields the lines; a line with open brackets is joined with the next ones."""
    line: list[str] = []
    depth = 0
    for part in text.splitlines():
        line.append(part.strip() if line else part)
        depth += sum(map(part.count, "([")) - sum(map(part.count, ")]"))
        if depth <= 0:
            yield " ".join(line)
            line, depth = [], 0


class _Expression:
    """Parses one expression into constants, Names, Attributes, Items, Calls, and lists and tuples of them."""

    def __init__(self, text: str):
        self.text, self.at, self.depth = text, 0, 0
        self.kind, self.token = "", ""
        self.advance()

    def advance(self) -> str:
        """Advances to the next token and returns the one before."""
        token = self.token
        found = TOKEN.match(self.text, self.at)
        if not found and self.text[self.at :].strip():
            raise DamagedError(f"its code contains something that traced code does not: {self.text[:60]!r}")
        self.kind, self.token = (found.lastgroup or "", found[found.lastgroup or 0]) if found else ("", "")
        self.at = found.end() if found else len(self.text)
        return token

    def whole(self) -> Any:
        value = self.value()
        if self.token:
            raise DamagedError(f"its code contains something that traced code does not: {self.text[:60]!r}")
        return value

    def value(self) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise DamagedError("its code has more nested brackets than any such network")
        value = self.start()
        while self.token in (".", "(", "["):
            sign = self.advance()
            if sign == ".":
                value = Attribute(value, self.advance())
            elif sign == "(":
                value = Call(value, *self.arguments(")"))
            else:
                value = Item(value, self.arguments("]")[0])
        self.depth -= 1
        return value

    def start(self) -> Any:
        kind, token = self.kind, self.advance()
        if kind == "number":
            return int(token) if re.fullmatch(r"-?\d{1,20}", token) else float(token)
        if kind == "text":
            return token[1:-1]
        if kind == "name":
            return CONSTANTS[token] if token in CONSTANTS else Identifier(token)
        if token == "[":
            return self.arguments("]")[0]
        if token == "(":
            before = self.at
            values, _ = self.arguments(")")
            single = len(values) == 1 and not self.text[before : self.at].rstrip(") ").endswith(",")
            return values[0] if single else tuple(values)
        raise DamagedError(f"its code contains something that traced code does not: {self.text[:60]!r}")

    def arguments(self, end: str) -> tuple[list[Any], dict[str, Any]]:
        """Parses arguments up to a closing bracket."""
        values, named = [], {}
        while self.token != end:
            value = self.value()
            if self.token == "=" and isinstance(value, Identifier):
                self.advance()
                named[str(value)] = self.value()
            else:
                values.append(value)
            if self.token == ",":
                self.advance()
            elif self.token != end:
                raise DamagedError(f"its code contains something that traced code does not: {self.text[:60]!r}")
        self.advance()
        return values, named


class _Tracer:
    """Follows the code from a network's `forward` and records the operators that it calls."""

    def __init__(self, archive: TorchArchive, constants: Any, batch: int):
        self.code, self.constants, self.batch = _Code(archive), constants, batch
        self.picture = Ref("pictures")
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[int, Ref] = {}  # of the tensors, by their nodes
        self.lines = 0
        self.left = MAX_CODE
        self.depth = 0

    def graph(self, network: Node) -> Graph:
        result = self.run(network, "forward", [self.picture])
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        if not all(isinstance(output, Ref) for output in outputs):
            raise DamagedError("its output is not a tensor")
        return Graph(self.steps, self.picture, outputs, self.tensors)

    def run(self, module: Node, name: str, args: list[Any]) -> Any:
        method = self.code.method(module.name, name)
        self.depth += 1
        if self.depth > MAX_DEPTH or len(args) != len(method.parameters) - 1:
            raise DamagedError("its code is damaged")
        scope = dict(zip(method.parameters, [module, *args]))
        result = None
        for line in method.lines:
            self.lines += 1
            self.left -= len(line)
            if self.lines > MAX_STEPS or self.left < 0:
                raise DamagedError("it has more steps than any such network")
            found = re.match(r"(return) |((?:\w+, )*\w+,?) = ", line)
            value = self.value(_Expression(line[found.end() :] if found else line).whole(), scope)
            if found and found[1]:
                result = value
            elif found:
                self.assign(found[2], value, scope)
        self.depth -= 1
        return result

    def assign(self, targets: str, value: Any, scope: dict[str, Any]) -> None:
        """Assigns to `x`, or the parts of a list to `x, y, `."""
        names = re.findall(r"\w+", targets)
        if "," not in targets:
            scope[names[0]] = value
            return
        if isinstance(value, Ref):
            value = self.step("parts", same, [value], {}, len(names)) if names[1:] else [self.item(value, 0)]
        if len(value) != len(names):
            raise DamagedError("its code is damaged")
        scope.update(zip(names, value))

    def step(self, operator: str, function: Any, args: list[Any], kwargs: dict[str, Any], parts: int = 0) -> Any:
        """Records a step, and returns the name of its result or the names of its parts."""
        names = [Ref(f"{len(self.steps)}.{i}") for i in range(max(parts, 1))]
        self.steps.append(Step(operator, function, args, kwargs, names))
        if len(self.steps) > MAX_STEPS:
            raise DamagedError("it has more steps than any such network")
        return names if parts else names[0]

    def value(self, expression: Any, scope: dict[str, Any]) -> Any:
        """Evaluates an expression to a constant, a part of the network, or the name of a value."""
        if isinstance(expression, Identifier):
            if expression not in scope:
                raise DamagedError(f"its code mentions {str(expression)[:40]!r}, which no network has")
            return scope[expression]
        if isinstance(expression, Attribute):
            if expression.of == Identifier("CONSTANTS"):
                return self.known(self.constants[int(expression.name[1:])])
            return self.member(self.value(expression.of, scope), expression.name)
        if isinstance(expression, Item):
            of, index = self.value(expression.of, scope), self.value(expression.index, scope)[0]
            return self.item(of, index) if isinstance(of, Ref) else of[index]
        if isinstance(expression, Call):
            return self.call(expression, scope)
        if type(expression) in (list, tuple):
            return type(expression)(self.value(part, scope) for part in expression)
        return expression

    def item(self, values: Ref, index: Any) -> Ref:
        return self.step("item", OPERATORS["__getitem__"], [values, index], {})

    def member(self, module: Any, name: str) -> Any:
        if not isinstance(module, Node) or not isinstance(module.state, dict) or name not in module.state:
            raise DamagedError(f"its code mentions {name[:40]!r}, which the network does not have")
        return self.known(module.state[name])

    def known(self, value: Any) -> Any:
        """Returns a part of the network as it is, and a tensor by its name."""
        if not is_tensor(value):
            return value
        if id(value) not in self.names:
            self.names[id(value)] = Ref(f"tensor {len(self.names)}")
            self.tensors[self.names[id(value)]] = to_tensor(value)
        return self.names[id(value)]

    def call(self, call: Call, scope: dict[str, Any]) -> Any:
        function = call.function
        if function == Identifier("getattr"):
            of, name = call.args
            return self.member(self.value(of, scope), name)
        if function in (Identifier("annotate"), Identifier("unchecked_cast")):
            return self.value(call.args[1], scope)
        if function == Attribute(Identifier("torch"), "device"):
            return None  # ComfyUI decides about devices
        args = [self.value(arg, scope) for arg in call.args]
        kwargs = {name: self.value(arg, scope) for name, arg in call.kwargs.items()}
        if function in (Identifier("int"), Identifier("float")):
            return self.operator(str(function), args, kwargs)
        if isinstance(function, Attribute) and function.of in (
            Identifier("torch"),
            Attribute(Identifier("ops"), "prim"),
        ):
            return self.operator(function.name, args, kwargs)
        if isinstance(function, Attribute):
            module = self.value(function.of, scope)
            if isinstance(module, Node) and not kwargs:
                return self.run(module, function.name, args)
        raise DamagedError("its code calls something that is neither an operator of torch nor a part of the network")

    def operator(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name not in OPERATORS:
            raise DamagedError(f"it uses the operator {name[:40]!r}, which YOLOX and DWPose do not need")
        if name in ("reshape", "view"):
            args = [*args, self.picture, self.batch]
        return self.step(name, OPERATORS[name], args, kwargs)
