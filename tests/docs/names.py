"""The public names of each package with their signatures, read from the source without importing it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

SHOWN_MAGIC = {"__call__", "__iter__", "__len__"}

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def public_names(library: Path) -> str:
    """One section per package that has public names."""
    parts = [_package(init) for init in sorted(library.glob("*/__init__.py"))]
    return "\n\n".join(part for part in parts if part)


def _package(init: Path) -> str:
    tree = ast.parse(init.read_text(encoding="utf-8"))
    sources = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = _exported(tree)
    about = _paragraph(ast.get_docstring(tree))
    title = f"## longvila.{init.parent.name}\n\n{about}"
    if not names:
        return title
    shown = [_entry(*sources[name], init.parents[2]) for name in sorted(names, key=str.lower)]
    return "\n\n".join([title, *shown])


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def _entry(module: str, name: str, root: Path) -> str:
    node, said = _definition(module, name, root)
    if isinstance(node, ast.ClassDef):
        return _class(node)
    if isinstance(node, ast.FunctionDef):
        return f"```python\n{signature(node)}\n```\n\n{_paragraph(ast.get_docstring(node))}"
    return f"```python\n{ast.unparse(node)}\n```\n\n{_paragraph(said)}".rstrip()


def _definition(module: str, name: str, root: Path) -> tuple[Definition, str]:
    """Where a name is made, and the string that stands below it (for constants)."""
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        path = root.joinpath(*module.split("."), "__init__.py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for i, node in enumerate(body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and getattr(targets[0], "id", "") == name:
            below = body[i + 1] if i + 1 < len(body) else None
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            return node, str(below.value.value) if is_text else ""  # type: ignore[union-attr]
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(node.module or "", alias.name, root)
    raise LookupError(f"{module} does not make {name}")


def _class(node: ast.ClassDef) -> str:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    lines = [f"class {node.name}({bases})" if bases else f"class {node.name}"]
    fields = [
        item
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
    ]
    lines += [f"    {ast.unparse(item.target)}: {ast.unparse(item.annotation)}" for item in fields]
    lines += [f"    {_method(item)}" for item in _methods(node)]
    return "```python\n" + "\n".join(lines) + f"\n```\n\n{_paragraph(ast.get_docstring(node))}"


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for item in node.body:
        if not isinstance(item, ast.FunctionDef):
            continue
        if not item.name.startswith("_") or item.name in SHOWN_MAGIC or item.name == "__init__":
            yield item


def _method(node: ast.FunctionDef) -> str:
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    if any(mark in ("property", "cached_property") for mark in marks):
        returns = ast.unparse(node.returns) if node.returns else "Any"
        return f"{node.name}: {returns}"
    return signature(node)


def signature(node: ast.FunctionDef) -> str:
    """The ``def`` line of a function."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({', '.join(_arguments(node.args))}){returns}"


def _arguments(given: ast.arguments) -> Iterator[str]:
    defaults: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    for argument, default in zip(given.args, [*defaults, *given.defaults], strict=True):
        if argument.arg != "self":
            yield _argument(argument, default)
    if given.vararg:
        yield f"*{_argument(given.vararg, None)}"
    elif given.kwonlyargs:
        yield "*"
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _argument(argument, default)


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{kind}{f' = {ast.unparse(default)}' if default else ''}"


def _paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    first = inspect.cleandoc(text or "").split("\n\n")[0]
    return " ".join(first.split())
