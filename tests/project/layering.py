"""The house's rules, read from source text alone: which room may import which, and how long things may be.

`python -m tests.project.layering` prints what breaks a rule. `test_layering.py` beside it fails for each line of that.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# The layers of the runtime, lowest first. A module imports modules of its own room, and of the layers below it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "_version"),
    ("support",),
    ("images",),
    ("bundle",),
    ("engine",),
    ("methods",),
    ("scoring",),
    ("request", "models", "results", "parity"),
    ("explainer",),
    ("batch",),
    ("benchmarking", "evaluation", "web"),
    ("serve",),
    ("",),  # `import ortcam` itself
    ("cli",),
    ("__main__",),
)

# What the export may import from the runtime; "scoring" stands for the names in `ortcam.scoring.__all__` alone.
EXPORT_IMPORTS = frozenset(
    {"_version", "errors", "support", "images", "bundle", "engine", "methods", "models", "parity", "scoring"}
)
FUSED_IMPORTS = EXPORT_IMPORTS | {"request", "explainer"}

HEAVY = frozenset({"torch", "torchvision", "timm", "transformers", "ortcam_export"})
MAY_IMPORT = frozenset(
    {
        ("ortcam.explainer.loading", "torch"),  # under TYPE_CHECKING: what `load` takes
    }
)
PUBLIC_PROTOCOLS = frozenset({"_repr_html_", "_repr_png_"})  # of notebooks; tests may call these

REACHING = frozenset(
    {"getattr", "setattr", "delattr", "patch", "object"}
)  # what takes a name as text; mock.patch.object

PAGES = ("runtime/ortcam", "runtime/web/src")
PAGE_SUFFIXES = frozenset({".ts", ".js", ".css", ".html", ".j2"})
BUILT = "runtime/ortcam/web/page/"

MOST_ENTRIES = 14  # of a folder, `__init__.py` and its like aside
# The rooms, and the modules that stand above or below all of them; their tests mirror that.
ENTRIES = {"runtime/ortcam": 20, "tests/runtime": 20}
MOST_FUNCTION_LINES = 60  # without the docstring
MOST_PARAMETERS = 12  # outside public signatures
MOST_FILE_LINES = 400
REASON, REASON_WITHIN = re.compile(r"One file because \w+"), 8  # a longer file says this within its first lines


@dataclass(frozen=True)
class Module:
    """One Python file: where it lies, what it is called, and its text."""

    path: Path
    name: str
    place: str

    @cached_property
    def text(self) -> str:
        """Its text."""
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree."""
        return tuple(ast.walk(self.tree))

    @property
    def room(self) -> str:
        """The part of the name below its package: `images` of `ortcam.images.decoding`, and "" of `ortcam`."""
        return ([*self.name.split("."), ""])[1]


def modules_of(root: Path, package: str) -> dict[str, Module]:
    """List the modules of a package or a folder of files, by their dotted names."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(path, name, path.relative_to(root).as_posix())
    return found


def imports_of(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[str, str]]:
    """List (module, name) of all imports, also within functions and under TYPE_CHECKING; name is "" for a module."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield (inner, "") if inner in known else (source, alias.name)


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    """The module that names are imported from, also where dots name it."""
    if not node.level:
        return str(node.module)
    package = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
    return ".".join([*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])])


def offered(module: Module) -> set[str]:
    """Read `__all__` of a module."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def wrong_arrows(runtime: Mapping[str, Module], layers: Sequence[Sequence[str]] = LAYERS) -> Iterator[str]:
    """Name the imports of the runtime that point up or sideways, or at what it must do without."""
    level = {room: height for height, rooms in enumerate(layers) for room in rooms}
    for module in runtime.values():
        for name, _ in imports_of(module, runtime):
            if (package := name.split(".")[0]) in HEAVY and (module.name, package) not in MAY_IMPORT:
                yield f"heavy: {module.name} imports {name}"
            if name not in runtime:
                continue
            room, other = module.room, runtime[name].room
            if room not in level or other not in level:
                yield f"layers: {module.name} imports {name}, and one of them is in no layer"
            elif room != other and level[room] <= level[other]:
                yield f"layers: {module.name} imports {name}"


def circles(modules: Mapping[str, Module]) -> Iterator[str]:
    """Name one circle of imports after the other."""
    arrows = {
        name: {other for other, _ in imports_of(module, modules) if other in modules and other != name}
        for name, module in modules.items()
    }
    while True:
        try:
            TopologicalSorter(arrows).prepare()
        except CycleError as error:
            ring = error.args[1][::-1]
            first = ring.index(min(ring))
            yield "circle: " + " -> ".join([*ring[first:-1], *ring[:first], ring[first]])
            arrows[ring[0]].discard(ring[1])
        else:
            return


def strange_imports(export: Mapping[str, Module], runtime: Mapping[str, Module]) -> Iterator[str]:
    """Name what the export imports from the runtime although EXPORT_IMPORTS does not name it."""
    for module in export.values():
        allowed = FUSED_IMPORTS if module.room == "fused" else EXPORT_IMPORTS
        for name, attribute in imports_of(module, runtime):
            if name not in runtime:
                continue
            room = runtime[name].room
            if room not in allowed:
                yield f"export: {module.name} imports {name}"
            elif room == "scoring" and attribute not in offered(runtime["ortcam.scoring"]):
                yield f"export: {module.name} imports {attribute or name}, which ortcam.scoring does not offer"


def wide_folders(root: Path, tree: str) -> Iterator[str]:
    """Name the folders of Python files that show too many entries."""
    for folder in sorted({path.parent for path in (root / tree).rglob("*.py")}):
        entries = (entry for entry in folder.iterdir() if not entry.name.startswith((".", "__")))
        shown = [entry for entry in entries if entry.is_file() or _holds_files(entry)]
        place = folder.relative_to(root).as_posix()
        if len(shown) > ENTRIES.get(place, MOST_ENTRIES):
            yield f"entries: {place} shows too many"


def _holds_files(folder: Path) -> bool:
    """Whether a folder holds more than what Python compiled, which a move leaves behind."""
    return any(path.is_file() and "__pycache__" not in path.parts for path in folder.rglob("*"))


def long_files(paths: Mapping[str, str]) -> Iterator[str]:
    """Name the files, by place and text, that are too long and give no reason."""
    for place, text in paths.items():
        lines = text.splitlines()
        if len(lines) > MOST_FILE_LINES and not any(REASON.search(line) for line in lines[:REASON_WITHIN]):
            yield f"file: {place} is long"


def untitled(modules: Mapping[str, Module]) -> Iterator[str]:
    """Name the modules whose first line is not a docstring."""
    for module in modules.values():
        if not module.text.startswith(('"""', 'r"""')) or not ast.get_docstring(module.tree):
            yield f"first line: {module.place} does not say what it is for"


def large_functions(modules: Mapping[str, Module]) -> Iterator[str]:
    """Name the functions that are too long, or have too many parameters outside a public signature."""
    for module in modules.values():
        for qualified, function in _functions(module.tree, ""):
            first = function.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            document = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
            lines = (function.end_lineno or 0) - function.lineno + 1 - document
            if lines > MOST_FUNCTION_LINES:
                yield f"function: {module.name}.{qualified} is long"
            given = function.args
            parameters = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
            if parameters > MOST_PARAMETERS and not _is_public(qualified, module):
                yield f"parameters: {module.name}.{qualified} has too many"


def _functions(node: ast.AST, above: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        inner = above
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{above}.{child.name}".lstrip(".")
            if not isinstance(child, ast.ClassDef):
                yield inner, child
        yield from _functions(child, inner)


def _is_public(qualified: str, module: Module) -> bool:
    """Whether users call it: a name of `__all__`, or a method of one without underscore."""
    first, _, rest = qualified.partition(".")
    return first in offered(module) and (rest == "__init__" or not rest.startswith("_"))


def private_names(modules: Mapping[str, Module]) -> set[str]:
    """List the names with one underscore that some modules define: functions, classes, constants, attributes."""
    found: set[str] = set()
    for module in modules.values():
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__") and name != "_"}


def uses_of_private_names(users: Mapping[str, Module], private: set[str]) -> Iterator[str]:
    """Name what tests and benchmarks read, import or patch although the code under test keeps it to itself."""
    for module in users.values():
        for node in module.nodes:
            names: list[str] = []
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Call) and _called(node) in REACHING:
                names = [
                    a.value.split(".")[-1]
                    for a in node.args
                    if isinstance(a, ast.Constant) and isinstance(a.value, str)
                ]
            for name in names:
                if name in private:
                    yield f"private: {module.place} uses {name}"


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def page_sources(root: Path) -> dict[str, str]:
    """Read what pages are made of by place: scripts, styles and templates, without what `make page` has built."""
    paths = [path for tree in PAGES for path in sorted((root / tree).rglob("*")) if path.suffix in PAGE_SUFFIXES]
    places = {path.relative_to(root).as_posix(): path for path in paths}
    return {place: path.read_text("utf-8") for place, path in places.items() if not place.startswith(BUILT)}


def broken_rules(root: Path) -> list[str]:
    """Name everything that breaks a rule, one line each."""
    runtime, export = modules_of(root / "runtime", "ortcam"), modules_of(root / "export", "ortcam_export")
    others = [modules_of(root, tree) for tree in ("benchmarks", "tests", "models")]
    found = [*wrong_arrows(runtime), *strange_imports(export, runtime)]
    for tree in ("runtime/ortcam", "export/ortcam_export", "benchmarks", "tests"):
        found += wide_folders(root, tree)
    private = private_names({**runtime, **export}) - PUBLIC_PROTOCOLS
    for modules in others:
        found += uses_of_private_names(modules, private)
    found += uses_of_private_names(others[1], private_names(others[0]))
    for modules in (runtime, export, *others):
        found += [*circles(modules), *untitled(modules), *large_functions(modules)]
        found += long_files({module.place: module.text for module in modules.values()})
    found += long_files(page_sources(root))
    return sorted(set(found))


if __name__ == "__main__":
    print(*broken_rules(Path(__file__).parents[2]), sep="\n")
