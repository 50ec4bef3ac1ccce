"""Malformed texts, and what to say about each: see `explain`."""

from __future__ import annotations

from netdsl.frozen import frozen


@frozen
class Sample:
    """Malformed statements (or, with `outside`, declarations) that share a message. `{found}` is what was met."""

    message: str
    hint: str | None
    texts: tuple[str, ...]
    outside: bool = False


SAMPLES = (
    Sample("an option needs a value, found {found}", "write name=value", (
        "conv stride=", "conv stride= | relu", "conv stride=)", "conv stride=}", "conv stride= {")),
    Sample("the option before this one has no value", "write name=value", ("conv stride= pad=1",
        "conv 1 stride=pad=1")),
    Sample("an option is written with one =", "write name=value", ("conv stride==2", "conv 64 stride != 2")),
    Sample("{found} in a list of arguments", "arithmetic and signs go in parentheses, as in `conv (2 * c) 3x3`", (
        "conv c * 2", "conv c + 2", "conv c - 2", "conv c / 2", "conv c // 2", "conv c % 2", "conv 2 * c", "conv 2 - c",
        "conv in.c * 2", "conv stride=c * 2", "conv 3x3 - 2", "conv stride=2 * 2", "conv -2", "conv (a) * 2",
        "conv - 2",
        "conv c > 2", "conv c < 2", "conv + 2")),
    Sample("a comma between arguments", "arguments are separated by blanks, as in `conv 64 3x3 stride=2`", (
        "conv 64, 3x3", "conv c, 3x3", "conv 3x3, 64", "conv stride=2, pad=1", "conv stride=c, pad=1", "conv, 64",
        "conv (a), 3", "conv in.c, 3", 'conv "a", 3', "conv 1.5, 3")),
    Sample("a layer has no body in braces", None, (
        "conv {", "conv 64 {", "conv c {", "conv 3x3 {", "conv a=1 {", "conv (a) {", "conv a=c {", "conv in.c {")),
    Sample("two values in a row: {found} follows another",
        "a comma, an operator, a line break or the { of a body is missing", (
        "conv (c d)", "conv (2 c)", "conv pad=(1, 2 3)", "conv pad=(1, c d)", "kernel [1 2]", "kernel [c d]",
        "kernel [1, c d]", "conv (in.c 2)", "let x = max(a b)", "conv (3x3 2)", "kernel [[1, 2] [3, 4]]",
        "when a conv", "repeat 3 conv", "repeat n conv", "repeat i in 1..n conv", "repeat i in 1 3 {",
        "let x = 3 4", "let x = a b", "let x = 3 b", "let x = a 3", "let x = (a) b", "let x = in.c 3")),
    Sample("a bracket is still open here, found {found}", "close it, or put a comma between the values", (
        "conv pad=(1, 2\nrelu", "conv pad=(1, c\nrelu", "conv (c\nrelu", "conv (2\nrelu", "conv (2 * 2\nrelu",
        "conv (1 | relu", "conv (c | relu",
        "conv (c }", "conv (1 }", "conv (1, 2 }", "conv (1, 2 | relu", "conv (in.c\nrelu",
        "let x = max(a\nlet y = 2", "let x = max(a, b\nlet y = 2", "conv (3x3\nrelu",
        "kernel [[1, 2], [3, 4]\nrelu", "kernel [1, 2\nrelu",
        "kernel [1 | relu", "kernel [[1], [2] | relu", "kernel [1 }")),
    Sample("brackets with nothing in them", None, ("conv ()", "kernel []", "kernel [[]]", "let x = max()")),
    Sample("a value is missing here, found {found}", None, (
        "let x = 3 +", "let x = 3 *", "let x = c and", "let x = c or", "let x = not", "let x = -", "let x =",
        "conv (c *)", "conv (*c)", "conv (c + )", "conv (,)", "conv (1, *)", "let x = 3 <", "let x = c ==",
        "let x = a ,", "when a and {", "when a or {", "when a == {", "when not {", "when a + {", "when a * {",
        "when a < {",
        "let x = * 2", "let x = )", "let x = |")),
    Sample("a condition is missing, found {found}", "write `when condition {`", ("when {", "when |", "when\nrelu")),
    Sample("= does not compare", "write == to compare two values", (
        "when a = 3 {", "when in.c = 3 {", "when 3 = a {", "when (a = 3) {", "when (in.c = 3) {", "when a + 1 = 3 {",
        "let x = a = 3", "let x = 3 = 3", "when not a = 3 {", "residual { a } skip when a = 3 {", "when (3 = a) {",
        "when a * 2 = 3 {", "when a == 2 and b = 3 {", "when a.b = 3 {", "when (a) = 3 {")),
    Sample("a body in braces is missing, found {found}", "the opening { stands on the same line", (
        "when a\nrelu", "when a | relu", "when 1\nrelu", "when a == 1\nrelu", "repeat 3\nrelu", "repeat n\nrelu",
        "repeat (n)\nrelu", "repeat i in 1..3\nrelu", "repeat i in 1..n\nrelu", "residual\nrelu", "residual conv",
        "residual { a } skip\nrelu", "residual { a } skip b\nrelu",
        "residual { a } skip when c\nrelu", "residual { a } skip when c == 1\nrelu", "repeat 3 | relu", "residual |",
        "when in.c\nrelu", "repeat in.c\nrelu", "residual { a } skip when in.c != 1\nrelu",
        "when a }", "repeat 3 }", "residual }", "when a { b } else\nrelu",
        "residual { a } skip b c")),
    Sample("a number of repeats is missing, found {found}", "write `repeat n {` or `repeat i in 1..n {`", (
        "repeat {", "repeat |", "repeat\nrelu", "repeat }")),
    Sample("a range is written first..last, found {found}", "for example `repeat i in 1..n {`", (
        "repeat i in 3 {", "repeat i in n {", "repeat i in 1 - 3 {", "repeat i in 1, 3 {", "repeat i in 1\nrelu",
        "repeat i in (1, 3) {", "repeat i in in.c {", "repeat i in n, 3 {", "repeat i in n\nrelu")),
    Sample("an end of the range is missing, found {found}", "for example `repeat i in 1..n {`", (
        "repeat i in {", "repeat i in 1.. {", "repeat i in ..3 {", "repeat i in 1..\nrelu")),
    Sample("`in` is missing, found {found}", "for example `repeat i in 1..n {`", (
        "repeat i 1..3 {", "repeat i from 1", "repeat i = 1..3 {", "repeat n..3 {", "repeat i, 3 {")),
    Sample("let needs a name and a value, found {found}", "write `let name = value`", (
        "let", "let x", "let x 3", "let = 3", "let 3 = x", "let x | relu", "let x, y = 3", "let x.y = 3", "let }",
        "let x }")),
    Sample("an input needs a name, found {found}", "for example `input image 3x224x224`", (
        "input 3x224x224", "input", "input (3, 4, 4)", "input 100", "input | relu")),
    Sample("an output needs a name, found {found}", "write `output name`", ("output", "output 3", "output | relu",
        "output }")),
    Sample("an output has one name, found {found}", "write an `output` line for each", ("output a b", "output a, b",
        "output a=3")),
    Sample("it is not said what to join, found {found}",
        "`concat enc1` joins with an earlier tensor, `branches concat {` joins arms", (
        "concat", "add", "mul", "branches concat\nrelu", "branches concat conv", "branches add |", "branches mul }")),
    Sample("a label is missing, found {found}", "name the earlier tensor, as in `concat enc1`", (
        "from", "from 3", "from | relu", "concat 3", "add 3", "mul 3", "concat | relu",
        "from }", "concat }", "from (a)", "concat (a, b)", 'from "a"', 'concat "a"', "concat {", "from {")),
    Sample("labels are separated by blanks", "for example `concat enc1 enc2`", ("concat a, b", "from a, b",
        "add a.b, c", "concat a + b")),
    Sample("`from` takes one label", "to join several, write `concat`, `add` or `mul`", ("from a b", "from a.b c")),
    Sample("branches are joined by concat, add or mul, found {found}", "write `branches concat {`", (
        "branches {", "branches sum {", "branches\nrelu", "branches 3 {", "branches | relu")),
    Sample("a label is one plain word", "for dotted names open a scope: `a: { b: conv 64 3x3 }`", ("a.b: conv",
        "a.0: conv")),
    Sample("{found} after something that is no label", "a label is one word that does not start with a digit", (
        "3x3: conv", "conv 64: relu", "layer one: conv", "conv a=1: relu", "conv (a): relu", "conv 3x3: relu")),
    Sample("a word of the language cannot be a label", "choose another name", (
        "input: conv", "output: conv", "let: conv", "from: conv", "concat: conv", "add: conv", "mul: conv",
        "skip: conv",
        "when: conv", "repeat: conv", "residual: conv", "branches: conv", "expect: conv", "weights: conv")),
    Sample("= behind the name of a layer", "`let name = value` sets a value, name=value behind a layer an option", (
        "conv = 3", "a: conv = 3")),
    Sample("a label needs something to name, found {found}", "write the layer behind the label", (
        "a:", "a: |", "a: }", "a: 3", "a{i}:")),
    Sample("two labels in a row", "a layer has one label", ("a: b: conv",)),
    Sample("a layer is missing, found {found}", "write one statement a line, or put | between two", (
        "| relu", "conv | | relu", "conv 3 | | relu", "conv | }", "relu |\n}", "conv c | | relu", "conv a=1 | | relu")),
    Sample("a line starts with {found}", "a line starts with a layer, a label or a word of the language", (
        "relu\n3 conv", "relu\n(a)", "relu\n= 3", "relu\n, conv", "relu\n) conv", "relu\n[1]", 'relu\n"a"',
        "relu\n+ conv", "relu\n1.5", "relu\n: conv", "relu\n* conv", "relu\n| relu",
        "3 conv", "(a)", "= 3", ", conv", ") conv", "[1]", '"a"', "+ conv", "1.5", ": conv", "* conv", "/ 3",
        "- conv", "relu\n- conv", "== 3",
        "> 3")),
    Sample("{found} behind the end of a statement", "put | or a line break between two statements", (
        "{ a } b", "residual { a } b", "residual { a } skip { b } c", "branches add { a } b", "when a { b } c",
        "repeat 2 { a } b", "{ a } 3", "repeat 2 { a } 3", "residual { a } 3", "when a { b } 3", "{ a } {", "{ a } = 3",
        "when a { b } else { c } d", "repeat 2 { a } else { b }", "when a { b } { c }",
        "residual { a } else { b }", "when a { b } skip { c }")),
    Sample("`skip` stands alone on a line here, found {found}",
        "behind a residual, `skip` goes on the line of its closing brace", (
        "skip a", "skip {", "skip when c {", "skip a when c {")),
    Sample("expect needs facts, found {found}", "for example `expect out=1000 params=11_689_512`", ("expect",
        "expect |", "expect {")),
    Sample("weights needs a file or an address, found {found}", 'for example `weights "lenet5.safetensors"`', (
        "weights", "weights |", "weights {")),
    # ---- outside of braces
    Sample("only use, block and net stand outside of braces, found {found}", None, (
        "conv 64", "relu", "let x = 3", "3", "{ a }", "}", "input x 3", "(a)", '"a"', "| a"), True),
    Sample("a name is missing, found {found}", "write `net name(parameters) {` or `block name(parameters) {`", (
        "net {", "block {", "net (a) {", "block (a) {", "net 3 {", "block 3x3 {", 'net "a" {', "block\n",
        "net\n"), True),
    Sample("a body in braces is missing, found {found}", "the opening { stands on the same line", (
        "net a\n", "block a\n", "net a()\n", "block a(b)\n", "net a conv", "block a b {", "block a: {",
        "net a = 3"), True),
    Sample("parameters are names with or without =default, separated by commas; found {found}", None, (
        "block a(b c) {", "block a(3) {", "block a(b,, c) {", "block a(b={", "block a(b {", "block a({",
        "block a(b=1 {", "block a(b=) {", "block a(b=, c) {", "block a(b=c {", "block a(b: 1) {",
        "block a(b,, {", "block a(, b) {", 'block a("b") {', "block a(b=1\nblock c", "block a(b\nblock c"),
        True),
    Sample("use needs a quoted path and names in parentheses, found {found}",
        'for example `use "blocks/resnet.net" (basic, stage)`', (
        "use a (b)", "use (b)", "use\n", 'use "a"\n', 'use "a" b', 'use "a" ()', 'use "a" (b c)', 'use "a" (3)',
        'use "a" ("b")', 'use "a" {', "use blocks/a.net (b)", 'use "a" (b, 3)', 'use "a" (b {',
        'use "a" (b\nuse "c" (d)'), True),
    Sample("{found} behind the end of a declaration", "start a new line", (
        "net a { } 3", "net a { } b", "block a { } net b { }", 'use "a" (b) c', "net a { } {",
        'use "a" (b) use "c" (d)'), True),
)  # fmt: skip
