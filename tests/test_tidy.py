"""The house style that no linter checks: sizes, docstrings, names, banned calls with what to use instead."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).resolve().parent.parent

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 7.5
PARAMETERS_MAX = 8
BANNED_WORDS = {"util", "utils", "common", "manager", "helper", "helpers", "misc"}

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)

# A name, or all names of a module ("random."); what to use instead; and the files of src that may.
Bans: TypeAlias = dict[str, tuple[str, tuple[str, ...]]]
CLOCK = "postline.clock.Clock (injected)"
BANNED_IN_SRC: Bans = {
    "time.": (CLOCK, ("clock.py",)),
    "datetime.datetime.now": (CLOCK, ("clock.py",)),
    "datetime.datetime.utcnow": (CLOCK, ("clock.py",)),
    "datetime.datetime.today": (CLOCK, ("clock.py",)),
    "datetime.date.today": (CLOCK, ("clock.py",)),
    "asyncio.sleep": ("Clock.sleep, or wait for the condition", ("clock.py",)),
    "asyncio.get_event_loop": ("asyncio.get_running_loop", ()),
    "random.": ("an injected random.Random", ("ids.py",)),
    "secrets.": ("postline.ids", ("ids.py",)),
    "uuid.uuid1": ("postline.ids", ("ids.py",)),
    "uuid.uuid4": ("postline.ids", ("ids.py",)),
    "os.urandom": ("postline.ids", ("ids.py",)),
    "print": ("click.echo in cli, a logger elsewhere", ("cli/", "demo/", "demo.py")),
}
BANNED_IN_TESTS: Bans = {
    "time.sleep": ("a wait on the condition", ()),
    "asyncio.sleep": ("a wait on the condition, or the virtual clock", ("simulation/",)),  # there time is virtual
    "random.": ("random.Random(seed)", ()),
    "asyncio.get_event_loop": ("asyncio.get_running_loop", ()),
}
# Taking a wall-clock time apart reads no clock; a Random of one's own is what injecting means.
ALLOWED_CALLS = {"random.Random", "time.strftime", "time.gmtime", "time.localtime", "time.strptime"}

STATEMENT = re.compile(
    r"\s*(SELECT\s.+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|REPLACE\s+INTO\s|UPDATE\s.+\sSET\s|DELETE\s+FROM\s"
    r"|(CREATE|DROP|ALTER)\s+(TEMP\s+|UNIQUE\s+)?(TABLE|INDEX|TRIGGER|VIEW)\s|WITH\s+\w+.*\sAS\s*\()",
    re.DOTALL,
)

# Put together here so that this file doesn't hold what it forbids.
MARKS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
PLACES = re.compile(
    r"(?<![\w.])/(wor" + r"k|far" + r"m|hom" + r"e/\w+|roo" + r"t|tm" + r"p/\w+)(/|\b)"
    r"|\b(pypi\.or" + r"g|pythonhosted\.or" + r"g|npmjs\.or" + r"g|crates\.i" + r"o|proxy\.golang\.or" + r"g"
    r"|repo1?\.maven|maven\.or" + r"g|deb\.debian\.or" + r"g)"
)


def documented(node: ast.AST) -> bool:
    """Whether a module, class or function opens with a docstring."""
    assert isinstance(node, (ast.Module, *DEFINITIONS))
    return bool((ast.get_docstring(node) or "").strip())


def decorated(node: Function, *names: str) -> bool:
    """Whether a decorator of one of these names, dotted before or after, stands on the function."""
    return any(set(ast.unparse(decorator).split(".")) & set(names) for decorator in node.decorator_list)


def length_of(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if documented(function):
        lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return lines


def functions_of(tree: ast.AST) -> list[Function]:
    """Every function with a body of its own; overloads only repeat a signature."""
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and not decorated(node, "overload")]


def sizes(tree: ast.Module, text: str) -> Iterator[str]:
    """Files and functions that are too long, and functions that ask for too much."""
    if (lines := len(text.splitlines())) > FILE_LINES_MAX:
        yield f"1: {lines} lines; a file has at most {FILE_LINES_MAX}"
    for function in functions_of(tree):
        if (lines := length_of(function)) > FUNCTION_LINES_MAX:
            yield f"{function.lineno}: {function.name} has {lines} lines; at most {FUNCTION_LINES_MAX}"
        given = function.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a]
        if (count := len([name for name in names if name not in {"self", "cls"}])) > PARAMETERS_MAX:
            yield f"{function.lineno}: {function.name} takes {count} parameters; at most {PARAMETERS_MAX}"


def docstrings(tree: ast.Module, text: str) -> Iterator[str]:
    """Modules, and public names in public surroundings, that nothing is said about."""
    first = (ast.get_docstring(tree) or "").split("\n\n")[0].strip()
    if not first.endswith((".", ":", "?")):
        yield "1: the module's docstring opens with one sentence on what it owns"
    if len(tree.body) > 1 and "from __future__ import annotations\n" not in text:
        yield "1: `from __future__ import annotations` comes first"
    waiting: list[tuple[str, ast.AST]] = [("", node) for node in tree.body]
    while waiting:
        outer, node = waiting.pop(0)
        if isinstance(node, (ast.If, ast.Try)):
            waiting.extend((outer, child) for child in ast.iter_child_nodes(node))
        if not isinstance(node, DEFINITIONS) or node.name.startswith("_"):
            continue
        repeated = isinstance(node, FUNCTIONS) and decorated(node, "overload", "setter", "deleter")
        if not documented(node) and not repeated:
            yield f"{node.lineno}: {outer}{node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            waiting.extend((f"{outer}{node.name}.", child) for child in node.body)


def names(tree: ast.Module, text: str) -> Iterator[str]:
    """Definitions whose name says nothing."""
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS) and (empty := empty_words(node.name)):
            yield f"{node.lineno}: {node.name}: {empty!r} says nothing; name what it does"


def empty_words(name: str) -> str:
    """The first banned word in a snake_case or CamelCase name, or nothing."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return next((word.lower() for word in words if word.lower() in BANNED_WORDS), "")


def aliases_of(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `{"sleep": "time.sleep", "dt": "datetime"}`."""
    found = {"print": "print"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update({a.asname: a.name for a in node.names if a.asname})
            found.update({a.name.partition(".")[0]: a.name.partition(".")[0] for a in node.names if not a.asname})
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return found


def uses_of(tree: ast.Module) -> Iterator[tuple[ast.expr, str, ast.Call | None]]:
    """Each use of an imported name, in full (`time.sleep`) however it was imported, with the call if it is called."""
    aliases = aliases_of(tree)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            head, dot, rest = ast.unparse(node).partition(".")
            if head in aliases:
                yield node, aliases[head] + dot + rest, calls.get(id(node))


def harmless(full: str, call: ast.Call | None, waits: set[int]) -> bool:
    """What a ban spares: what reads no clock, one turn of the loop, and the pause of a wait for a condition."""
    if full == "asyncio.sleep" and call is not None and call.args:
        delay = call.args[0]
        return id(call) in waits or (isinstance(delay, ast.Constant) and delay.value == 0)
    return full in ALLOWED_CALLS


def waits_of(tree: ast.Module) -> set[int]:
    """The calls inside loops of the form `while not condition: …`, by identity."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.While) and not isinstance(node.test, ast.Constant)]
    return {id(node) for loop in loops for node in ast.walk(loop) if isinstance(node, ast.Call)}


def banned_uses(tree: ast.Module, path: str, bans: Bans) -> Iterator[str]:
    """Uses of what has a better replacement; handing a function on counts like calling it."""
    # A test may poll for its condition; the source has the log's and the clock's own ways to wait.
    waits = waits_of(tree) if bans is BANNED_IN_TESTS else set()
    for node, full, call in uses_of(tree):
        ban = next((ban for ban in bans if full == ban or (ban.endswith(".") and full.startswith(ban))), None)
        if ban is None or harmless(full, call, waits):
            continue
        instead, allowed = bans[ban]
        if not path.startswith(allowed):
            yield f"{node.lineno}: {full} is banned here; use {instead}"


def banned_under(folder: str, bans: Bans) -> list[str]:
    """The banned uses in all files under a folder of the checkout."""
    found: list[str] = []
    for path in python_files(folder):
        inside = path.relative_to(ROOT / folder).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found.extend(f"{folder}/{inside}:{line}" for line in banned_uses(tree, inside, bans))
    return found


def excepts(tree: ast.Module, text: str) -> Iterator[str]:
    """Broad handlers that swallow: each raises again, logs the exception, or says why on its own line."""
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(map(broad, node.args)):
            yield f"{node.lineno}: suppress() of every exception hides faults; name the ones that are expected"
        if not isinstance(node, ast.ExceptHandler) or not broad(node.type):
            continue
        if all(isinstance(step, (ast.Pass, ast.Continue)) or constant(step) for step in node.body):
            yield f"{node.lineno}: a silent broad except; name the exceptions, or do something about them"
        elif not speaks(node) and not re.search(r"# noqa: BLE001 - \w+ \w+", lines[node.lineno - 1]):
            yield f"{node.lineno}: a broad except raises again, logs, or gives its reason: `# noqa: BLE001 - why`"


def broad(kind: ast.expr | None) -> bool:
    """Whether an except clause of this type catches everything."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(one is None or ast.unparse(one) in {"Exception", "BaseException"} for one in kinds)


def constant(step: ast.stmt) -> bool:
    """Whether a statement is a bare constant, such as `...`."""
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant)


def speaks(handler: ast.ExceptHandler) -> bool:
    """Whether a handler raises, or logs the exception with its traceback."""
    return any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".exception"))
        for node in ast.walk(handler)
    )


def statements(tree: ast.Module, text: str) -> Iterator[str]:
    """SQL in Python strings; it lives in named .sql files.

    Transaction words and PRAGMA may stay beside the code, and so does a statement whose shape depends on a number of
    rows: a function under `functools.cache` builds it.
    """
    built = [function for function in functions_of(tree) if decorated(function, "cache", "lru_cache")]
    spared = {id(node) for function in built for node in ast.walk(function)} | {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, *DEFINITIONS)) and documented(node) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in spared:
            continue
        if STATEMENT.match(node.value + " "):
            yield f"{node.lineno}: SQL in Python; move it into a named .sql file"


def marks(text: str) -> Iterator[str]:
    """Marks of unfinished work, and places that only one machine has."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := MARKS.search(line):
            yield f"{number}: {found[0]}: do it, or file an issue"
        if found := PLACES.search(line):
            yield f"{number}: {found[0]!r} is a place of some machine or registry, not of the project"


Check: TypeAlias = Callable[[ast.Module, str], Iterator[str]]
SRC_CHECKS: dict[str, Check] = {
    "sizes": sizes,
    "docstrings": docstrings,
    "names": names,
    "excepts": excepts,
    "statements": statements,
}


def python_files(folder: str) -> list[Path]:
    """The Python files under a folder of the checkout."""
    return sorted((ROOT / folder).rglob("*.py"))


def findings(files: list[Path], check: Check) -> list[str]:
    """What a check says about files, each line with its place."""
    found: list[str] = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        found.extend(f"{path.relative_to(ROOT)}:{line}" for line in check(ast.parse(text), text))
    return found


def none_of(found: list[str]) -> None:
    """Fail with every finding on a line of its own."""
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def texts_of_the_project() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("check", SRC_CHECKS.values(), ids=SRC_CHECKS.keys())
def test_the_source_keeps_the_house_style(check: Check) -> None:
    none_of(findings(python_files("src"), check))


def test_the_median_function_is_short() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in python_files("src")]
    assert statistics.median(length_of(f) for tree in trees for f in functions_of(tree)) <= FUNCTION_LINES_MEDIAN_MAX


def test_time_and_chance_reach_the_source_by_injection_only() -> None:
    none_of(banned_under("src/postline", BANNED_IN_SRC))


def test_nothing_calls_what_ends_a_process_while_a_coordinator_moves() -> None:
    call = ".list_" + "consumer_group_offsets("  # log/kafka/lookers.py says how, and does without
    paths = [path for folder in ("src", "tests", "benchmarks") for path in python_files(folder)]
    none_of([f"{path.relative_to(ROOT)}" for path in paths if call in path.read_text("utf-8")])


def test_no_test_sleeps_or_rolls_unseeded_dice() -> None:
    none_of(banned_under("tests", BANNED_IN_TESTS))


def test_nothing_is_left_for_later_and_no_machine_is_named() -> None:
    found: list[str] = []
    for path in texts_of_the_project():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found.extend(f"{path.relative_to(ROOT)}:{line}" for line in marks(text))
    none_of(found)


# The checks themselves, each on a planted fault and on the harmless neighbour of it.

HEAD = '"""A module."""\n\nfrom __future__ import annotations\n\n'


def said(check: Check, body: str, head: str = HEAD) -> str:
    """Everything a check says about a module with this body."""
    return "\n".join(check(ast.parse(head + body), head + body))


def test_sizes_are_bounded() -> None:
    assert "at most 70" in said(sizes, "def f():\n" + "    x = 1\n" * 70)
    assert said(sizes, "def f():\n    '''One.\n\n    Two.\n    '''\n" + "    x = 1\n" * 69) == ""
    assert "501 lines" in said(sizes, "x = 1\n" * 497)
    assert said(sizes, "x = 1\n" * 496) == ""
    assert "9 parameters" in said(sizes, "def f(a, b, c, /, d, e, *f, g, h, **i): ...")
    assert said(sizes, "class C:\n    def f(self, a, b, c, d, e, f, g, *, h): ...") == ""


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("def f(): ...", "f has no docstring"),
        ("async def f(): ...", "f has no docstring"),
        ("class C:\n    '''C.'''\n    def m(self): ...", "C.m has no docstring"),
        ("class C:\n    x = 1", "C has no docstring"),
        ("try:\n    def f(): ...\nexcept ImportError:\n    x = 1", "f has no docstring"),
        ("if x:\n    def f(): ...", "f has no docstring"),
        ("class _C:\n    def m(self): ...", ""),
        ("def _f(): ...", ""),
        ("def f():\n    '''F.'''\n    def inner(): ...", ""),
        ("class C:\n    '''C.'''\n    def __len__(self): ...\n    @x.setter\n    def x(self, v): ...", ""),
    ],
)
def test_public_names_are_documented(body: str, complaint: str) -> None:
    found = said(docstrings, body)
    assert complaint in found if complaint else found == ""


def test_modules_say_what_they_own() -> None:
    future = "from __future__ import annotations\n"
    assert "opens with one sentence" in said(docstrings, "x = 1", head="")
    assert "opens with one sentence" in said(docstrings, "x = 1", head=f'"""no sentence"""\n{future}')
    assert "comes first" in said(docstrings, "x = 1", head='"""A module."""\n')
    assert said(docstrings, "x = 1") == ""


@pytest.mark.parametrize("name", ["TopicManager", "HTTPHelper", "log_utils", "Util", "common_parts"])
def test_empty_names_are_refused(name: str) -> None:
    assert "says nothing" in said(names, f"class {name}: ...")
    assert "says nothing" in said(names, f"def {name}(): ...")


@pytest.mark.parametrize("name", ["utilisation", "commonplace", "CommandManagement", "manage", "HelpText"])
def test_names_that_only_contain_an_empty_word_pass(name: str) -> None:
    assert said(names, f"class {name}: ...") == ""


@pytest.mark.parametrize(
    ("body", "banned"),
    [
        ("import time\ntime.time()", "time.time"),
        ("import time as t\nt.monotonic()", "time.monotonic"),
        ("from time import sleep as nap\nnap(1)", "time.sleep"),
        ("import time\nclock = time.time", "time.time"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("import datetime as dt\ndt.date.today()", "datetime.date.today"),
        ("import random\nrandom.shuffle(x)", "random.shuffle"),
        ("from random import choice\nchoice(x)", "random.choice"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
        ("import asyncio\nasyncio.sleep(0.1)", "asyncio.sleep"),
        ("import asyncio\nasyncio.sleep(delay)", "asyncio.sleep"),
        ("print('x')", "print"),
        ("import random\ndef f(r: random.Random): r.random(); random.Random(1)", ""),
        ("import asyncio\nasyncio.sleep(0)", ""),
        ("def f(time): return time.time()", ""),
        ("from datetime import datetime\ndatetime.fromtimestamp(1)", ""),
    ],
)
def test_banned_uses_are_found_however_they_are_imported(body: str, banned: str) -> None:
    found = list(banned_uses(ast.parse(body), "runtime/consumer.py", BANNED_IN_SRC))
    assert [line.split()[1] for line in found] == ([banned] if banned else [])
    assert all("; use " in line for line in found)


def test_the_clock_may_read_the_clock_and_nobody_else() -> None:
    tree = ast.parse("import time\ntime.time()")
    assert not list(banned_uses(tree, "clock.py", BANNED_IN_SRC))
    assert list(banned_uses(tree, "runtime/clock.py", BANNED_IN_SRC))


@pytest.mark.parametrize(
    ("body", "path", "found"),
    [
        ("asyncio.sleep(0.01)", "unit/test_x.py", 1),
        ("asyncio.sleep(seconds)", "unit/test_x.py", 1),
        ("while True: asyncio.sleep(0.01)", "unit/test_x.py", 1),
        ("while not done(): asyncio.sleep(0.01)", "unit/test_x.py", 0),
        ("asyncio.sleep(0)", "unit/test_x.py", 0),
        ("asyncio.sleep(5)", "simulation/test_x.py", 0),
    ],
)
def test_fixed_sleeps_in_tests_are_found(body: str, path: str, found: int) -> None:
    assert len(list(banned_uses(ast.parse(f"import asyncio\n{body}"), path, BANNED_IN_TESTS))) == found


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        ("except Exception:\n    pass", "silent"),
        ("except:\n    ...", "silent"),
        ("except (ValueError, BaseException):\n    pass  # noqa: BLE001 - because of it", "silent"),
        ("except Exception as e:\n    y = e", "gives its reason"),
        ("except Exception as e:  # noqa: BLE001\n    y = e", "gives its reason"),
        ("except Exception as e:  # noqa: BLE001 - becomes a retry decision\n    y = e", ""),
        ("except Exception:\n    undo()\n    raise", ""),
        ("except Exception:\n    log.exception('x')", ""),
        ("except ValueError:\n    pass", ""),
    ],
)
def test_swallowed_exceptions_are_found(handler: str, complaint: str) -> None:
    found = said(excepts, f"try:\n    x = 1\n{handler}")
    assert complaint in found if complaint else found == ""


def test_suppressing_everything_is_found() -> None:
    assert "hides faults" in said(excepts, "with contextlib.suppress(Exception): ...")
    assert said(excepts, "with contextlib.suppress(KeyError): ...") == ""


@pytest.mark.parametrize(
    "sql", ["SELECT a FROM b", "\\n  INSERT OR IGNORE INTO t VALUES (1)", "UPDATE t SET a = 1", "CREATE TABLE t (a)"]
)
def test_statements_in_strings_are_found(sql: str) -> None:
    assert "move it" in said(statements, f"x = '{sql}'")
    assert "move it" in said(statements, f"x = f'{sql} {{y}}'")


def test_a_statement_with_as_many_places_as_rows_may_be_built_once() -> None:
    builder = "def f(rows):\n    return f'INSERT INTO t VALUES {rows}'"
    assert said(statements, "@functools.cache\n" + builder) == ""
    assert "move it" in said(statements, builder)


@pytest.mark.parametrize(
    "text", ["PRAGMA user_version", "BEGIN IMMEDIATE", "Select a topic from the list", "UPDATE it"]
)
def test_other_strings_are_not_taken_for_statements(text: str) -> None:
    assert said(statements, f"x = '{text}'") == ""


def test_unfinished_work_and_places_of_one_machine_are_found() -> None:
    planted = ["# TO" + "DO: later", "see /wor" + "k/x", "/tm" + "p/dir/file", "https://pypi.or" + "g/simple"]
    assert [len(list(marks(line))) for line in planted] == [1, 1, 1, 1]
    assert not list(marks("a todo list; src/wor" + "k/x; /workers; https://docs.python.org/3; homework/x"))
