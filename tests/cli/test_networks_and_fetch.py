"""`netdsl networks` and `netdsl fetch`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cli.conftest import TINY, Netdsl

CONTENT = b"weights" * 1000
DIGITS = hashlib.sha256(CONTENT).hexdigest()


def test_networks_are_listed_with_their_figures(netdsl: Netdsl) -> None:
    done = netdsl("networks")
    assert (done.status, done.err) == (0, "")
    by_name = {line.split()[0]: line.split() for line in done.out.splitlines()}
    assert by_name["resnet18"][1:5] == ["11,689,512", "1,814,073,344", "69.8", "89.1"]
    assert by_name["resnet18"][-1] == "download"
    assert by_name["lenet5"][1:3] == ["61,706", "416,520"] and by_name["lenet5"][-1] == "ships"
    assert "filters/sobel" in by_name


def test_networks_as_json(netdsl: Netdsl) -> None:
    by_name = {record["name"]: record for record in netdsl("networks", "--json").json}
    assert by_name["resnet18"]["parameters"] == 11_689_512
    assert by_name["resnet18"]["top1"] == pytest.approx(69.758)
    assert by_name["unet"]["top1"] is None and by_name["unet"]["weights"] is None


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/w.npz"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path / "cache"))
    with HTTPServer(("127.0.0.1", 0), Server) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def network(folder: Path, url: str, digits: str = DIGITS) -> Path:
    path = folder / "tiny.net"
    path.write_text(TINY.replace("  conv", f'  weights "{url}" sha256="{digits}"\n  conv', 1))
    return path


def test_fetch_prints_where_the_file_is(netdsl: Netdsl, server: str, tmp_path: Path) -> None:
    net = network(tmp_path, f"{server}/w.npz")
    done = netdsl("fetch", net)
    assert (done.status, done.err) == (0, "downloading weights …\n")
    path = Path(done.out.strip())
    assert path.is_relative_to(tmp_path / "cache") and path.read_bytes() == CONTENT
    again = netdsl("fetch", net, "--json")
    assert again.json == {"network": "tiny", "path": str(path), "bytes": len(CONTENT)}
    assert again.err == ""  # nothing left to do


def test_a_download_that_fails_ends_with_1(netdsl: Netdsl, server: str, tmp_path: Path) -> None:
    for url, digits in ((f"{server}/none.npz", DIGITS), (f"{server}/w.npz", "0" * 16)):
        done = netdsl("fetch", network(tmp_path, url, digits))
        assert (done.status, done.out) == (1, "")
        assert url in done.err


def test_weights_that_ship_need_no_download(netdsl: Netdsl) -> None:
    done = netdsl("fetch", "lenet5")
    assert done.status == 0
    assert Path(done.out.strip()).name == "lenet5.safetensors"


def test_a_network_without_published_weights(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("fetch", tiny)
    assert done.status == 1
    assert "no published weights" in done.err
