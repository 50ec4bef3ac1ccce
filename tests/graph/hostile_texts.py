"""Texts made to exhaust a compiler, and the code of the error that each must end in. Run as a script, builds one.

python hostile_texts.py NAME FILE    writes the text to FILE, builds it, and prints a JSON record
"""

from __future__ import annotations

import json
import random
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

HEAD = "netdsl 1\nnet n {\n  input x 3x8x8\n"
TAIL = "\n  relu\n}\n"


def _net(body: str) -> str:
    return HEAD + body + TAIL


def _doubling(levels: int, last: str) -> str:
    """Blocks of which each calls the next one twice."""
    calls = "".join(f"block b{i} {{\n b{i + 1}\n b{i + 1}\n}}\n" for i in range(levels))
    return f"netdsl 1\n{calls}block b{levels} {{ {last} }}\nnet n {{\n input x 3x8x8\n b0\n relu\n}}\n"


def _lines(line: str, count: int) -> str:
    return "".join(line.replace("#", str(i)) + "\n" for i in range(count))


CASES: dict[str, tuple[str, Callable[[], str | bytes]]] = {
    # ---- size and nesting
    "ten_megabytes_of_brackets": ("too-long", lambda: "(" * 10_000_000),
    "ten_megabytes_of_braces": ("too-long", lambda: "netdsl 1\n" + "{" * 10_000_000),
    "nested_brackets": ("nesting", lambda: _net("conv " + "(" * 50_000 + "1" + ")" * 200)),
    "nested_braces": ("nesting", lambda: _net("{" * 25_000 + "}" * 25_000)),
    "closing_braces": ("brace", lambda: "netdsl 1\n" + "}" * 55_000),
    "empty_scopes_in_a_row": ("syntax", lambda: _net("{}" * 25_000)),
    "empty_scopes": ("empty-net", lambda: HEAD + "{}\n" * 25_000 + "}\n"),
    "open_brackets_in_lines": ("nesting", lambda: _net("conv (\n" * 10_000)),
    "nested_matrix": ("bad-argument", lambda: _net("kernel " + "[" * 60 + "1" + "]" * 60)),
    "long_matrix": ("bad-argument", lambda: _net("kernel [" + "1," * 25_000 + "1]")),
    "long_sum": ("bad-argument", lambda: _net("let a = 0" + " + 1" * 25_000 + "\n conv a 0x3")),
    "many_minuses": ("syntax", lambda: _net("let a = " + "-" * 50_000 + "1")),
    "many_nots": ("syntax", lambda: _net("when " + "not " * 50_000 + "yes { relu }")),
    "many_elses": ("unknown-layer", lambda: _net("when no { a }" + " else when no { a }" * 8_000 + " else { reluu }")),
    "many_arguments": ("too-many-arguments", lambda: _net("conv " + "1 " * 50_000)),
    "many_options": ("unknown-option", lambda: _net("conv 1 1x1 " + "a=1 " * 18_000)),
    "template_of_many_parts": ("too-long", lambda: _net("a{1}" * 14_000 + ": relu")),
    "many_parameters": ("duplicate-parameter", lambda: f"netdsl 1\nnet n({'a=1,' * 14_000}) {{ input x 3 | relu }}\n"),
    "long_name": ("unknown-layer", lambda: _net("a" * 250_000)),
    "long_label": ("too-long", lambda: _net("a" * 250_000 + ": relu")),
    "long_paths": ("too-long", lambda: _net("a" * 60 + ": { " + ("b" * 60 + ": { ") * 9 + "relu" + " }" * 10)),
    "long_string": ("weights-path", lambda: _net('weights "' + "a" * 250_000 + '"')),
    "long_use": ("use-path", lambda: f'netdsl 1\nuse "{"a/" * 25_000}x.net" (a)\n' + _net("a")[9:]),
    "long_line_of_layers": ("too-large", lambda: _net("relu | " * 25_000 + "relu")),
    "long_digits": ("overflow", lambda: _net("conv " + "9" * 250_000 + " 3x3")),
    "many_labels_to_compare": ("unknown-label", lambda: _net(_lines("l#: relu", 6_000) + _lines("from q#", 6_000))),
    # ---- running
    "billion_repeats": ("too-large", lambda: _net("repeat 1000000000 { relu }")),
    "nested_repeats": ("too-large", lambda: _net("repeat 1000 { repeat 1000 { repeat 1000 { relu } } }")),
    "empty_repeats": ("too-large", lambda: _net("repeat 40_000 { repeat 40_000 { } }")),
    "recursive_block": ("recursive-block", lambda: "netdsl 1\nblock b { b | b }\nnet n {\n input x 3x8x8\n b\n}\n"),
    "mutually_recursive_blocks": (
        "recursive-block", lambda: "netdsl 1\nblock a { b | b }\nblock b { a | a }\nnet n {\n input x 3x8x8\n a\n}\n"),
    "doubling_blocks": ("too-large", lambda: _doubling(40, "relu")),
    "doubling_blocks_without_layers": ("too-large", lambda: _doubling(40, "")),
    "doubling_blocks_with_a_fault": ("unknown-layer", lambda: _doubling(40, "reluu")),
    "deep_blocks": ("nesting", lambda: "netdsl 1\n" + "".join(f"block b{i} {{ b{i + 1} }}\n" for i in range(500))
                    + "block b500 { relu }\nnet n {\n input x 3x8x8\n b0\n}\n"),
    "doubts_in_a_repeat": (
        "unknown-name", lambda: _net(_lines("l#: relu", 9_000) + "repeat 9000 { when wrong + 1 > 2 { relu } }")),
    "long_sums_in_a_repeat": ("too-large", lambda: _net("repeat 40_000 { let a = 0" + " + 1" * 20_000 + " }")),
    "long_conditions_in_a_repeat": ("too-large", lambda: _net("repeat 40_000 { when no { }"
                                    + " else when 1 > 2 { }" * 7_000 + " }")),
    "many_defaults_in_a_repeat": ("too-large", lambda: "netdsl 1\nblock b("
                                  + ", ".join(f"a{i}={i}" for i in range(12_000))
                                  + ") { }\nnet n { input x 3 | repeat 40_000 { b } | relu }\n"),
    "many_arguments_of_a_block": ("unknown-name", lambda: "netdsl 1\nblock b("
                                  + ", ".join(f"a{i}" for i in range(9_000))
                                  + ") { let x = 1 + y }\nnet n { input x 3\n b "
                                  + " ".join(f"a{i}=1" for i in range(9_000)) + " | relu }\n"),
    "many_joins_in_a_repeat": ("too-large", lambda: _net("a: relu\nrepeat 40_000 { add" + " a" * 25_000 + " }")),
    "many_doubts": ("division", lambda: _net("let q = 1 // 0\n" + _lines("let a# = 1", 6_000)
                                             + "when q { relu }\n" * 6_000)),
    # ---- numbers
    "tensor_of_10_to_the_12": ("too-large", lambda: "netdsl 1\nnet n {\n input x 1x1000000x1000000\n relu\n}\n"),
    "weights_of_10_to_the_12": ("shape", lambda: _net("conv 1000000000000 3x3")),
    "growing_maps": ("shape", lambda: _net("repeat 60 { upsample 1000000 }")),
    "growing_numbers": ("overflow", lambda: _net("let a = 10 | repeat 60 { let a = a * a } | conv a 3x3")),
    "largest_numbers": ("overflow", lambda: _net("let a = 9223372036854775807 | let b = -a - a | conv b 3x3")),
    "numbers_that_meet_in_a_layer": ("shape", lambda: _net("pad 9223372036854775807 | conv 9223372036854775807 1x1")),
    "infinite_number": ("overflow", lambda: _net("leaky 1e999")),
    # ---- characters
    "null_bytes": ("head", lambda: b"\0" * 50_000),
    "null_bytes_inside": ("character", lambda: _net("re\0lu | conv 3 \0")),
    "binary_junk": ("encoding", lambda: random.Random(1).randbytes(200_000)),
    "binary_junk_without_high_bytes": ("nesting", lambda: bytes(b & 127 for b in random.Random(2).randbytes(60_000))),
    "latin_1": ("encoding", lambda: _net("# caf\xe9").encode("latin-1")),
    "utf_16": ("encoding", lambda: _net("").encode("utf-16")),
    "cut_utf_8": ("encoding", lambda: _net("# é").encode()[:-1 - len(TAIL)]),
    "strings_without_end": ("character", lambda: _net('weights "a\n' * 12_000)),
    "carriage_returns": ("head", lambda: b"\r" * 200_000),
    "line_breaks": ("no-net", lambda: "netdsl 1" + "\n" * 250_000),
    "comment": ("no-net", lambda: "netdsl 1\n#" + "#" * 250_000),
    "comments_with_blanks": ("head", lambda: ("#" + " " * 50 + "\n") * 4_000 + "# " * 10_000 + "x"),
    "long_name_behind_a_fault": ("syntax", lambda: _net("let a b" + "c" * 250_000)),
    # ---- faults without end
    "a_fault_in_a_repeat": ("bad-argument", lambda: _net(_lines("let a# = 1", 8_000) + "repeat 30_000 { dense ax }")),
    "a_label_in_a_repeat": ("duplicate-label", lambda: _net("a: relu\nrepeat 30_000 { a: relu }" + "\n" * 200_000)),
    "a_reference_in_a_repeat": ("unknown-label", lambda: _net(_lines("l#: relu", 8_000) + "repeat 30_000 { from ll }")),
    "broken_lines_in_a_long_text": ("syntax", lambda: _net(_lines("let", 500) + "\n" * 200_000)),
    "unknown_layers": ("unknown-layer", lambda: _net(_lines("reluu", 25_000))),
    "broken_lines": ("syntax", lambda: _net(_lines("conv 64 stride=", 12_000))),
    "signs": ("character", lambda: _net(_lines("$ $", 12_000))),
    "unknown_options": ("unknown-option", lambda: _net(_lines("conv 64 3x3 strid=2", 9_000))),
    "unused_results": ("unused", lambda: _net(_lines("from x | relu", 9_000))),
    "outputs_of_one_name": ("duplicate-output", lambda: _net("relu\n" + _lines("output a", 18_000))),
    "inputs": ("unused", lambda: "netdsl 1\nnet n {\n" + _lines("input x# 3x8x8", 10_000) + "relu\n}\n"),
    "facts": ("expect", lambda: _net("relu\n" + _lines("expect nothing=#", 12_000))),
}  # fmt: skip


def peak_bytes() -> int:
    """The most memory this process has held. Linux's ru_maxrss would count the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    name, file = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # against a hang; the test judges the figures below
    calls = 0

    def count(*_: object) -> None:  # what is done, not how long it takes: the same on every machine
        nonlocal calls
        calls += 1

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    text = CASES[name][1]()
    Path(file).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    from netdsl.errors import SourceError
    from netdsl.graph.build import build

    build("netdsl 1\nnet n {\n  input x 3x8x8\n  relu\n}\n")  # what the first build of a process costs is startup
    del text
    codes, message = [], ""
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        build(Path(file))
    except SourceError as error:
        codes, message = [d.code for d in error.diagnostics], error.render()
    sys.setprofile(None)
    megabytes = peak_bytes() / 2**20
    print(json.dumps({"codes": codes, "calls": calls, "megabytes": megabytes, "length": len(message)}))


if __name__ == "__main__":
    main()
