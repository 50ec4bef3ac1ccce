"""`netdsl check`."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Netdsl

WRONG = """\
netdsl 1
block part(c) {
  conv c 3x3 padd=1
}
net wrong() {
  input image 1x8x8
  part 4
  convv 3 3x3
}
"""


def test_a_right_network_is_one_line(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("check", tiny)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"{tiny}: OK, tiny, 55 parameters, 2,316 multiply-accumulates\n"


def test_every_error_is_shown_with_place_carets_chain_and_hint(netdsl: Netdsl, tmp_path: Path) -> None:
    path = tmp_path / "wrong.net"
    path.write_text(WRONG)
    done = netdsl("check", path)
    assert done.status == 1
    assert f"{path}:3:14: error[" in done.out
    assert f"in block part, called at {path}:7:3" in done.out
    assert f"{path}:8:3: error[" in done.out
    assert "did you mean" in done.out
    assert done.out.endswith("2 errors in 1 of 1 file\n")


def test_json_lists_the_same(netdsl: Netdsl, tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "wrong.net"
    path.write_text(WRONG)
    done = netdsl("check", "--json", path, tiny)
    assert done.status == 1
    wrong, right = done.json
    assert right == {"file": str(tiny), "ok": True, "errors": []}
    assert [(e["line"], e["column"]) for e in wrong["errors"]] == [(3, 14), (8, 3)]
    assert wrong["errors"][0]["chain"] == [{"block": "part", "file": str(path), "line": 7, "column": 3}]
    assert all(e["code"] and e["message"] for e in wrong["errors"])


def test_a_folder_stands_for_its_networks(netdsl: Netdsl, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "wrong.net").write_text(WRONG)
    done = netdsl("check", tmp_path)
    assert done.status == 1
    assert "tiny.net: OK" in done.out
    assert "2 errors in 1 of 2 files" in done.out


def test_a_folder_without_networks_is_an_error(netdsl: Netdsl, tmp_path: Path) -> None:
    done = netdsl("check", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert "no .net file" in done.err


def test_a_file_that_is_missing_does_not_hide_the_others(netdsl: Netdsl, tmp_path: Path, tiny: Path) -> None:
    done = netdsl("check", tmp_path / "none.net", tiny)
    assert done.status == 1
    assert "none.net" in done.out
    assert "tiny.net: OK" in done.out


def test_a_file_of_blocks_is_right_too(netdsl: Netdsl, tmp_path: Path) -> None:
    path = tmp_path / "part.net"
    path.write_text("netdsl 1\nblock part(c) {\n  conv c 3x3\n}\n")
    done = netdsl("check", path)
    assert (done.status, done.out) == (0, f"{path}: OK, blocks only\n")


def test_everything_that_ships_is_right(netdsl: Netdsl) -> None:
    done = netdsl("check", Path(__file__).parents[2] / "networks")
    assert done.status == 0, done.out


def test_no_name_is_no_folder(netdsl: Netdsl) -> None:
    done = netdsl("check", "")
    assert done.status == 1
    assert "error[no-source]" in done.out
