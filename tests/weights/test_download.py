"""Downloads from a server on this machine that can misbehave in every way we know of."""

import errno
import hashlib
import http.client
import io
import socket
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import weight_files as wf
from misbehaving_server import CONTENT, DIGITS, NAME, Server

from netdsl.errors import FetchError
from netdsl.graph.ir import WeightsSpec
from netdsl.weights import cache_dir, download, fetch, resolve


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "weights"


def spec(server, sha256=None, name=NAME):
    return WeightsSpec(url=server.url(name), sha256=sha256)


def fails(job, code, words=None):
    with pytest.raises(FetchError, match=words) as caught:
        fetch(job)
    assert caught.value.code == code, str(caught.value)
    assert caught.value.path == job.url
    return caught.value


def left(cache):
    """Files in the cache, without the locks, by suffix."""
    return sorted(p.suffix for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_fresh_with_progress_and_then_cached(server, cache):
    seen = []
    path = fetch(spec(server), lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and path.name == NAME and path.is_relative_to(cache)
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen) and left(cache) == [".pth"]
    assert fetch(spec(server)) == path and len(server.requests) == 1


def test_cache_folder(monkeypatch, cache):
    assert cache_dir() == cache
    monkeypatch.delenv("NETDSL_CACHE")
    assert cache_dir().name == "weights" and "netdsl" in str(cache_dir())


def test_cut_and_resumed(server, cache):
    server.cut = 300_000
    error = fails(spec(server), "fetch-cut", "after 300000 bytes of 700000")
    assert "goes on" in error.hint and left(cache) == [".part"]
    server.cut = None
    seen = []
    assert fetch(spec(server), lambda done, total: seen.append((done, total))).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=300000-"
    assert seen[0] == (300_000, len(CONTENT)) and left(cache) == [".pth"]


def test_resumed_from_a_server_that_ignores_ranges(server):
    server.cut = 300_000
    fails(spec(server), "fetch-cut")
    server.cut, server.ranges = None, False
    assert fetch(spec(server)).read_bytes() == CONTENT
    assert "Range" in server.requests[-1]


def test_server_that_says_no_length(server, cache):
    server.length = False
    seen = []
    assert fetch(spec(server), lambda done, total: seen.append(total)).read_bytes() == CONTENT
    assert set(seen) == {None}


def test_cut_without_a_length_is_found_by_the_hash(server, cache):
    server.length, server.cut = False, 1000
    fails(spec(server), "fetch-wrong-hash")
    assert left(cache) == []


def test_part_that_is_whole_already(server, cache):
    server.cut = 300_000
    fails(spec(server), "fetch-cut")
    (part,) = cache.rglob("*.part")
    part.write_bytes(CONTENT)
    assert fetch(spec(server)).read_bytes() == CONTENT  # the server answers 416: nothing more to send


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 900_000, b"x" * len(CONTENT)])
def test_part_of_another_file_is_thrown_away(server, cache, stale):
    server.cut = 1
    fails(spec(server), "fetch-cut")
    (part,) = cache.rglob("*.part")
    part.write_bytes(stale)
    server.cut = None
    assert fetch(spec(server)).read_bytes() == CONTENT


def test_range_answered_from_elsewhere(server):
    server.cut = 300_000
    fails(spec(server), "fetch-cut")
    server.cut, server.shift = None, 5
    fails(spec(server), "fetch-status", "another part")
    server.shift = 0
    assert fetch(spec(server)).read_bytes() == CONTENT  # begun anew


@pytest.mark.parametrize("digits", [None, DIGITS, DIGITS[:8], DIGITS.upper()])
def test_right_hash(server, digits):
    assert fetch(spec(server, digits)).read_bytes() == CONTENT


@pytest.mark.parametrize("digits", ["0" * 64, DIGITS[:20] + "0" * 44, "f" * 8])
def test_wrong_hash(server, cache, digits):
    error = fails(spec(server, digits), "fetch-wrong-hash", "sha256")
    assert DIGITS[:8] in error.message and left(cache) == []
    assert len(server.requests) == 1  # fresh and wrong: no second try


def test_wrong_hash_from_the_name(server, cache):
    fails(spec(server, name="net-00000000.pth"), "fetch-wrong-hash")
    assert left(cache) == []


@pytest.mark.parametrize("digits", ["", None, "123", "xyz" * 10, "0" * 65])
def test_no_digits(server, digits):
    fails(spec(server, digits, name="net.pth"), "fetch-no-digits")
    assert server.requests == []


def test_equal_names_do_not_clash(server):
    """Who can choose digits and content must not be able to plant a file under another address's name."""
    paths = {fetch(spec(server, digits)) for digits in (None, DIGITS)}
    paths.add(fetch(WeightsSpec(url=server.url().replace("/models/", "/other/"))))
    assert len(paths) == 3


@pytest.mark.parametrize("status", [403, 404, 410, 500, 503])
def test_status(server, cache, status):
    server.status = status
    fails(spec(server), "fetch-status", str(status))
    assert ".pth" not in left(cache)


def test_refused_connection():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    error = fails(WeightsSpec(url=f"http://127.0.0.1:{port}/{NAME}"), "fetch-no-network")
    assert "--weights FILE" in error.hint


def test_unknown_host(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fails(WeightsSpec(url=f"http://host.invalid/{NAME}"), "fetch-no-network")
    fails(WeightsSpec(url=f"http://{'a' * 70}.invalid/{NAME}"), "fetch-no-network")


def test_server_that_talks_nonsense_or_hangs_up():
    for greeting in (b"", b"hello\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000):
        with talker(greeting) as port:
            fails(WeightsSpec(url=f"http://127.0.0.1:{port}/{NAME}"), "fetch-no-network")


def test_server_that_falls_silent(monkeypatch):
    read = http.client.HTTPResponse.read

    def impatient(reply, amount):
        connection = reply.fp.raw._sock
        assert connection.gettimeout() == download.TIMEOUT
        connection.settimeout(0.1)  # the server has said all that it will, so a short wait tells as much as a long one
        return read(reply, amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", impatient)
    with talker(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", hang=True) as port:
        fails(WeightsSpec(url=f"http://127.0.0.1:{port}/{NAME}"), "fetch-cut")


@contextmanager
def talker(greeting, hang=False):
    """A server that answers one connection with these bytes, whatever is asked."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(greeting)
                if hang:
                    done.wait(60)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join(60)


def test_redirects(server):
    server.location = f"/moved/{NAME}"
    assert fetch(spec(server)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,hello", "gopher://x/", "\x1b[2J:x"]
)
def test_redirects_elsewhere_are_refused(server, location):
    server.location = location
    fails(spec(server), "fetch-redirect")


def test_redirects_without_end(server):
    server.location = "/round"
    fails(spec(server), "fetch-redirect", "without end")


def test_redirect_from_https_to_http_is_refused():
    job = download._job(WeightsSpec(url=f"https://host.invalid/{NAME}"))
    (handler,) = [h for h in download._opener(job).handlers if type(h).__name__ == "Redirects"]
    request = download.urllib.request.Request(job.url)
    with pytest.raises(FetchError, match="redirects"):
        handler.redirect_request(request, io.BytesIO(), 302, "", {}, "http://host.invalid/x")
    assert handler.redirect_request(request, io.BytesIO(), 302, "", {}, "https://other.invalid/x").full_url.startswith(
        "https"
    )


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://h/a-01234567.pth", "http:///a-01234567.pth", "http://h/", "http://h/..",
        "http://h/.hidden", "http://h/a%2Fb", "http://h/%00", "http://h:0/a-01234567.pth", "http://h:x/a", "http://[/a",
        "http://h/a b", "http://h/a\r\nX: y", "http://h/ä-01234567.pth", "javascript:x", "",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url):
    fails(WeightsSpec(url=url, sha256="01234567"), "fetch-url")


def test_nothing_to_fetch():
    for given in (WeightsSpec(), WeightsSpec(path="/x"), wf.network({})):
        with pytest.raises(FetchError) as caught:
            fetch(given)
        assert caught.value.code == "fetch-nothing"


def test_size_cap(server, monkeypatch, cache):
    monkeypatch.setattr(download, "MAX_BYTES", 500_000)
    fails(spec(server), "fetch-too-large", "700000")
    server.length = False
    fails(spec(server), "fetch-too-large")


def test_disk_too_small(server, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    error = fails(spec(server), "fetch-disk-full", "700000 bytes are needed")
    assert "NETDSL_CACHE" in error.hint


def test_disk_that_fills_up(server, monkeypatch, cache):
    """The device that is always full stands in for the part; then there is room again."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    server.cut = 1
    fails(spec(server), "fetch-cut")
    server.cut = None
    (part,) = cache.rglob("*.part")
    part.unlink()
    part.symlink_to("/dev/full")
    fails(spec(server), "fetch-disk-full")
    part.unlink()
    assert fetch(spec(server)).read_bytes() == CONTENT


def test_disk_that_fills_up_keeps_the_part(server, monkeypatch, cache):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, block):
            if self.file.tell() > 400_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(block)

    copy = download._copy
    with monkeypatch.context() as patched:
        patched.setattr(download, "_copy", lambda job, reply, file, *rest: copy(job, reply, Full(file), *rest))
        fails(spec(server), "fetch-disk-full")
    assert left(cache) == [".part"]
    assert fetch(spec(server)).read_bytes() == CONTENT
    assert server.requests[-1]["Range"].startswith("bytes=5")


def test_cache_that_cannot_be_used(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path / "file"))
    fails(spec(server), "fetch-cache")


def test_several_at_once_download_once(server):
    server.gate = threading.Event()
    results, faults = [], []

    def one():
        try:
            results.append(fetch(spec(server)))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.gate.set()
    for thread in threads:
        thread.join(60)
    assert not faults and len(set(results)) == 1 and len(results) == 4
    assert results[0].read_bytes() == CONTENT and len(server.requests) == 1


def test_one_that_fails_lets_the_next_one_try(server):
    server.status = 503
    fails(spec(server), "fetch-status")
    server.status = None
    assert fetch(spec(server)).read_bytes() == CONTENT


def test_interrupted_by_the_user(server, cache):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(spec(server), stop)
    assert left(cache) == [".part"]
    assert fetch(spec(server)).read_bytes() == CONTENT
    assert "Range" in server.requests[-1]


def test_pretrained_downloads_and_reads(server):
    tensors = wf.sample()
    server.content = wf.zip_checkpoint(wf.described(tensors), wf.storages(tensors))
    digits = hashlib.sha256(server.content).hexdigest()
    graph = wf.fitting(tensors, spec(server, digits))
    seen = []
    found = resolve(graph, "pretrained", progress=lambda done, total: seen.append(done))
    assert not found.is_random and seen[-1] == len(server.content)
    np.testing.assert_array_equal(found.tensors["fc.weight"], tensors["fc.weight"])
    assert len(fetch(graph).read_bytes()) == len(server.content) and len(server.requests) == 1
