"""Where texts come from, what they use, and paths that are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from graph.texts import net
from netdsl.errors import InputError, SourceError
from netdsl.graph import library
from netdsl.graph.build import build

PAIR = "netdsl 1\nblock pair(c) {\n  conv c 1x1\n  conv c 1x1\n}\n"


def using(path: str, names: str = "pair", call: str = "pair 4") -> str:
    return f'netdsl 1\nuse "{path}" ({names})\nnet n {{\n  input image 3x8x8\n  {call}\n}}\n'


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / (name.replace("__", "/") + ".net")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refused(source: str | Path) -> str:
    with pytest.raises(SourceError) as caught:
        build(source)
    return caught.value.code


# ---- sources


def test_a_path_a_name_and_a_text(tmp_path: Path) -> None:
    write(tmp_path, n=net("relu"))
    assert build(tmp_path / "n.net").source.name == str(tmp_path / "n.net")
    assert build(str(tmp_path / "n.net")).name == "n"
    assert build("resnet18").name == "resnet18"
    assert build("filters/sobel").inputs
    assert build(net("relu")).source.name == "<text>"


def test_a_file_comes_before_a_shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet18").write_text(net("relu"))
    monkeypatch.chdir(tmp_path)
    assert build("resnet18").name == "n"


@pytest.mark.parametrize("source", ["resnet81", "no/such/file.net", "\0", "a" * 5000, "../resnet18", "/"])
def test_no_such_source(source: str) -> None:
    with pytest.raises(InputError) as caught:
        build(source)
    assert caught.value.code in ("no-such-network", "unreadable")


@pytest.mark.parametrize("source", ["", None, 3, b"netdsl 1\n", []])
def test_what_is_no_source_at_all(source: Any) -> None:
    with pytest.raises(InputError) as caught:
        build(source)
    assert caught.value.code == "no-source"


def test_near_name_of_a_shipped_network() -> None:
    with pytest.raises(InputError) as caught:
        build("resnet81")
    assert "resnet18" in str(caught.value.hint) or "resnet" in str(caught.value.hint)


def test_a_folder_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build(tmp_path)
    assert caught.value.code == "unreadable" and "a folder" in caught.value.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.net")
    with pytest.raises(InputError):
        build(tmp_path / "pipe.net")


@pytest.mark.parametrize("encode", [
    lambda t: b"\xef\xbb\xbf" + t.encode(),
    lambda t: t.replace("\n", "\r\n").encode(),
    lambda t: t.replace("\n", "\r").encode(),
    lambda t: t.rstrip("\n").encode(),
])  # fmt: skip
def test_marks_and_line_ends(tmp_path: Path, encode: object) -> None:
    assert callable(encode)
    (tmp_path / "n.net").write_bytes(encode(net("relu # naïve\nconv 4 3x3")))
    assert build(tmp_path / "n.net").parameters == 112


def test_other_encodings_are_told_by_place(tmp_path: Path) -> None:
    (tmp_path / "n.net").write_bytes(b"netdsl 1\n# caf\xe9\n")
    with pytest.raises(SourceError) as caught:
        build(tmp_path / "n.net")
    assert (caught.value.code, caught.value.line, caught.value.column) == ("encoding", 2, 6)


def test_names_of_the_library() -> None:
    names = library.names()
    assert "resnet18" in names and "filters/sobel" in names
    assert not any(n.startswith("blocks") for n in names)


# ---- use


def test_use_beside_the_text(tmp_path: Path) -> None:
    write(tmp_path, n=using("parts/pair.net"), parts__pair=PAIR)
    assert [n.path for n in build(tmp_path / "n.net")][1:] == ["0.0", "0.1"]


def test_used_files_use_files_beside_themselves(tmp_path: Path) -> None:
    twice = 'netdsl 1\nuse "pair.net" (pair)\nblock twice(c) { pair c | pair c }\n'
    write(tmp_path, n=using("parts/twice.net", "twice", "twice 4"), parts__twice=twice, parts__pair=PAIR)
    assert len(build(tmp_path / "n.net").nodes) == 5


def test_a_text_without_a_file_sees_the_library_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, pair=PAIR)
    monkeypatch.chdir(tmp_path)
    assert refused(using("pair.net")) == "use-missing"
    assert build(using("blocks/resnet.net", "basic", "basic 3")).nodes


def test_a_file_beside_hides_the_library(tmp_path: Path) -> None:
    write(tmp_path, n=using("blocks/resnet.net", "basic", "basic 4"), blocks__resnet=PAIR.replace("pair", "basic"))
    assert [n.path for n in build(tmp_path / "n.net")][1:] == ["0.0", "0.1"]


def test_a_file_is_used_many_times_but_read_once(tmp_path: Path) -> None:
    text = using("pair.net").replace("net n", 'use "./pair.net" (other)\nnet n')
    write(tmp_path, n=text, pair=PAIR + "block other { relu }\n")
    assert build(tmp_path / "n.net").nodes


@pytest.mark.parametrize(
    "path",
    [
        "../pair.net", "parts/../../pair.net", "parts/../pair.net", "/pair.net", "//pair.net", "C:/pair.net",
        "~/pair.net",
        "parts\\pair.net", "https://example.com/pair.net", "file:///pair.net", "pair.txt", "pair", "", ".", "pair.net/",
        "a" * 2000 + ".net",
    ],
)  # fmt: skip
def test_paths_that_are_refused(tmp_path: Path, path: str) -> None:
    write(tmp_path, n=using(path), pair=PAIR)
    (tmp_path / "sub").mkdir()
    write(tmp_path, sub__n=using(path))
    assert refused(tmp_path / "sub" / "n.net") in ("use-path", "use-missing")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, secret=PAIR, inside__n=using("pair.net"), inside__m=using("parts/secret.net"))
    (tmp_path / "inside" / "pair.net").symlink_to(tmp_path / "secret.net")
    (tmp_path / "inside" / "parts").symlink_to(tmp_path)
    assert refused(tmp_path / "inside" / "n.net") == "use-path"
    assert refused(tmp_path / "inside" / "m.net") == "use-path"


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    write(tmp_path, n=using("link.net"), parts__pair=PAIR)
    (tmp_path / "link.net").symlink_to(tmp_path / "parts" / "pair.net")
    assert build(tmp_path / "n.net").nodes


@pytest.mark.parametrize("option", ["labels", "weights"])
@pytest.mark.parametrize("path", ["../names.txt", "/etc/hostname", "link.txt", "https://example.com/names.txt", "a\\b"])
def test_other_paths_that_are_refused(tmp_path: Path, option: str, path: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "names.txt").write_text("a\nb\n")
    (folder / "link.txt").symlink_to(tmp_path / "names.txt")
    line = f'weights "{path}"' if option == "weights" else ""
    labels = f' labels="{path}"' if option == "labels" else ""
    (folder / "n.net").write_text(net(f"{line}\nrelu", size=f"3x8x8{labels}"))
    assert refused(folder / "n.net") in (f"{option}-path", "weights")


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "n.net").write_text(net("relu", size='3x8x8 labels="names.txt"'))
    assert build(tmp_path / "n.net").labels == str((tmp_path / "names.txt").resolve())
    assert str(build("resnet18").labels).endswith("imagenet.txt")


def test_circles_are_refused(tmp_path: Path) -> None:
    ring = 'netdsl 1\nuse "{}.net" (b)\nblock a {{ relu }}\n'
    write(tmp_path, n=using("a.net", "a", "a"), a=ring.format("b"), b=ring.format("c"), c=ring.format("a"))
    with pytest.raises(SourceError) as caught:
        build(tmp_path / "n.net")
    assert "use-cycle" in [d.code for d in caught.value.diagnostics]
    write(tmp_path, m=using("m.net"))
    assert refused(tmp_path / "m.net") == "use-cycle"


def test_faults_of_used_files_stand_behind_those_of_the_text(tmp_path: Path) -> None:
    write(tmp_path, n=using("a.net", "a", "a | reluu"), a="netdsl 1\nblock a { conv stride= }\n")
    with pytest.raises(SourceError) as caught:
        build(tmp_path / "n.net")
    assert [(d.code, Path(d.span.source.name).name) for d in caught.value.diagnostics] == [
        ("unknown-layer", "n.net"), ("syntax", "a.net"),
    ]  # fmt: skip


def test_a_block_that_could_not_be_read_is_not_missed(tmp_path: Path) -> None:
    write(tmp_path, n=using("a.net", "a, b", "a | b"), a="netdsl 1\nblock a( { relu }\nblock b { relu }\n")
    with pytest.raises(SourceError) as caught:
        build(tmp_path / "n.net")
    assert [d.code for d in caught.value.diagnostics] == ["syntax"]


def test_too_many_files(tmp_path: Path) -> None:
    uses = "".join(f'use "f{i}.net" (b{i})\n' for i in range(library.MAX_FILES + 1))
    write(tmp_path, n=f"netdsl 1\n{uses}net n {{\n input x 3x8x8\n relu\n}}\n")
    write(tmp_path, **{f"f{i}": f"netdsl 1\nblock b{i} {{ relu }}\n" for i in range(library.MAX_FILES + 1)})
    assert refused(tmp_path / "n.net") == "too-long"


def test_used_files_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path, n=using("bad.net"))
    (tmp_path / "bad.net").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError) as caught:
        build(tmp_path / "n.net")
    assert [d.code for d in caught.value.diagnostics] == ["use-missing", "encoding"]
