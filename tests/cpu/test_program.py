"""The bound program: many callers, batches, forks, threads, other vector widths."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fresh import in_fresh_process
from netdsl.backends import cpu, reference
from netdsl.backends.cpu import threads
from netdsl.backends.cpu.program import MAX_IMAGES
from netdsl.backends.cpu.target import WIDTH
from netdsl.graph.build import build
from netdsl.weights import random_weights
from tangles import CONCATS, RESIDUALS, REWRITTEN, SPECIAL, kept_by

TEXT = """netdsl 1
net small {
  input image 3x20x23
  conv 16 3x3 pad=1 | batchnorm | relu | maxpool 2x2
  residual { conv 16 3x3 pad=1 | batchnorm | relu | conv 16 3x3 pad=1 | batchnorm }
  relu
  branches concat { conv 5 1x1 | tanh
    depthwise 3x3 pad=1 }
  flatten | dense 40 | relu | dense 10 | softmax
}
"""


@pytest.fixture(scope="module")
def small():  # type: ignore[no-untyped-def]
    graph = build(TEXT)
    weights = random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((5, 3, 20, 23)).astype(np.float32)
    return graph, weights, x, reference.run(graph, weights, [x])[0]


def test_the_result_does_not_depend_on_threads(small) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, expected = small
    one, two = cpu.lower(graph, weights, 1), cpu.lower(graph, weights, 2)
    (y,) = one([x])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert np.array_equal(y, two([x])[0])
    for i in range(len(x)):  # another batch size may choose other algorithms
        np.testing.assert_allclose(two([x[i : i + 1]])[0][0], y[i], atol=1e-5)


def test_large_batches_go_in_turns(small) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, _ = small
    program = cpu.lower(graph, weights, 2)
    (y,) = program([x])
    many = np.concatenate([x] * 8)[: 2 * MAX_IMAGES + 3]
    (ys,) = program([many])
    for i, row in enumerate(ys):
        np.testing.assert_allclose(row, y[i % len(x)], atol=1e-5)


@pytest.mark.parametrize("images", [2, 3, 5])
def test_a_small_networks_batch_is_cut_by_images(small, images: int) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, _ = small
    one, two = cpu.lower(graph, weights, 1), cpu.lower(graph, weights, 2)
    if two.threads < 2:
        pytest.skip("one processor")
    plans, _ = two._idle(images)
    assert [plan.images for plan in plans] == [images // 2, images - images // 2]
    assert {share for plan in plans for share in plan.shares} == {1}
    (y,) = two([x[:images]])
    assert np.array_equal(y, one([x[:images]])[0])


def test_an_empty_batch_gives_an_empty_answer(small) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, _ = small
    assert cpu.lower(graph, weights)([x[:0]])[0].shape == (0, 10)


def test_eight_callers_at_once(small) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, _ = small
    program = cpu.lower(graph, weights, 2)
    expected = [program([x[k:]])[0] for k in range(5)]

    def call(i: int) -> bool:
        k = i % 5
        return all(np.array_equal(program([x[k:]])[0], expected[k]) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(16)))


@pytest.mark.parametrize(("work_to_share", "is_brief"), [(10**9, True), (0, False)])
def test_a_brief_call_keeps_the_interpreters_lock(small, work_to_share, is_brief, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """So that eight callers of a tiny network do not spend their time on handing the lock round; others give it up."""
    graph, weights, x, _ = small
    kept: list[bool] = []
    monkeypatch.setattr(cpu.program, "WORK_TO_SHARE", work_to_share)
    monkeypatch.setattr(threads.Team, "starter", lambda *given: lambda: kept.append(given[-1]))
    cpu.lower(graph, weights, 1)([x[:1]])
    assert kept == [is_brief]


def test_eight_callers_of_a_brief_network() -> None:
    graph = build("lenet5")
    program = cpu.lower(graph, random_weights(graph, 0), 2)
    assert program.plan(1).is_brief
    x = np.random.default_rng(0).standard_normal((8, 1, 32, 32)).astype(np.float32)
    expected = [program([x[i : i + 1]])[0] for i in range(8)]

    def call(i: int) -> bool:
        return all(np.array_equal(program([x[i : i + 1]])[0], expected[i]) for _ in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))


def test_no_other_thread_runs_during_a_brief_call() -> None:
    """NumPy gives the lock up to copy more than 500 numbers, as an input has: a waiting thread would take it then."""
    done = in_fresh_process("""
        import sys, threading, time
        import numpy as np
        from netdsl.backends.cpu import lower
        from netdsl.graph.build import build
        from netdsl.weights import random_weights

        graph = build("lenet5")
        program = lower(graph, random_weights(graph, 0), 1)
        x = np.zeros((1, 1, 32, 32), np.float32)
        program([x])
        gate, ran = threading.Lock(), []
        gate.acquire()
        other = threading.Thread(target=lambda: (gate.acquire(), ran.append(True)))
        other.start()
        sys.setswitchinterval(1000)  # nobody asks for the lock: it is taken when it is given up
        gate.release()
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:  # the other thread wakes up and waits for the lock
            pass
        for _ in range(3000):
            program([x])
        early = list(ran)
        sys.setswitchinterval(0.005)
        other.join()
        print(early, ran)
    """)
    assert done.stdout.strip() == "[] [True]", done.stdout + done.stderr


def _child(program: cpu.Program, x: np.ndarray, expected: np.ndarray, queue: object) -> None:
    queue.put(all(np.array_equal(program([x])[0], expected) for _ in range(5)))  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_the_parents_program(small) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, _ = small
    program = cpu.lower(graph, weights, 2)
    (expected,) = program([x])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(program, x, expected, queue))
    child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0 and np.array_equal(program([x])[0], expected)


def test_nan_in_one_call_does_not_reach_the_next(small) -> None:  # type: ignore[no-untyped-def]
    graph, weights, x, _ = small
    program = cpu.lower(graph, weights, 2)
    (expected,) = program([x])
    program([np.full_like(x, np.nan)])
    assert np.array_equal(program([x])[0], expected)


def test_a_prepared_batch_compiles_nothing_when_called(tmp_path: Path) -> None:
    code = f"""
        import numpy as np
        from netdsl.backends.cpu import jit, lower
        from netdsl.graph.build import build
        from netdsl.weights import random_weights
        graph = build({TEXT!r})
        program = lower(graph, random_weights(graph, 0), 2)
        program.prepare(5)
        jit.compile_kernel = None
        program([np.zeros((5, 3, 20, 23), np.float32)])
    """
    done = in_fresh_process(code, NETDSL_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr


NARROW = {
    "8 lanes": ("haswell", "+avx2,+fma,+avx,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+sse,+cx8,+mmx,+fxsr,+popcnt,-avx512f"),
    "4 lanes": ("nehalem", "+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+sse,+cx8,+mmx,+fxsr,+popcnt,-avx,-avx2,-avx512f"),
}


@pytest.mark.skipif("x86" not in os.uname().machine, reason="these features are x86's")
@pytest.mark.parametrize("width", NARROW)
@pytest.mark.parametrize("first", [0, 5])
def test_narrower_vectors_give_the_same_answers(width: str, first: int) -> None:
    name, features = NARROW[width]
    here = Path(__file__).parent
    code = f"""
        import sys
        sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]
        from netdsl.backends.cpu.target import WIDTH
        from shapes import CASES
        from test_operators import close
        assert WIDTH == {width[0]}, WIDTH
        for case in CASES[{first}::10]:
            close(case, batch=2)
    """
    done = in_fresh_process(code, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", CONCATS)
@pytest.mark.parametrize("batch", [1, 3])
def test_branches_write_into_the_joined_tensor(name: str, batch: int) -> None:
    agrees(CONCATS[name], batch)


def agrees(body: str, batch: int) -> None:
    """Assert that two calls of a network of this body agree with its definition."""
    graph = build(f"netdsl 1\nnet sample {{\n  input x 8x9x10\n{kept_by(WIDTH, body)}\n}}\n")
    weights = random_weights(graph, 2)
    x = np.random.default_rng(1).standard_normal((batch, 8, 9, 10)).astype(np.float32)
    program = cpu.lower(graph, weights, 2)
    for _ in range(2):
        for found, expected in zip(program([x]), reference.run(graph, weights, [x]), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(WIDTH < 8, reason="half a block is two channels or fewer: too little to spare")
@pytest.mark.parametrize("layer", ["conv 20 1x1", "conv 20 3x3 pad=1", "conv 12 3x3 pad=1 stride=2 groups=2"])
def test_a_half_full_block_of_inputs_is_read_by_halves(layer: str) -> None:
    body = f"conv {WIDTH * 3 // 2} 1x1 | relu\n {layer}"
    graph = build(f"netdsl 1\nnet sample {{\n  input x 8x9x10\n{body}\n}}\n")
    steps = cpu.lower(graph, random_weights(graph, 2), exact=True).plan(1).steps
    assert WIDTH // 2 in [s.arguments.get("run") for s in steps]
    agrees(body, batch=2)


@pytest.mark.parametrize("side", [6, 280])  # maps that keep their halos, and maps whose halos are cleared
def test_halos_stay_zero_from_call_to_call(side: int) -> None:
    body = f"repeat 5 {{ conv {WIDTH} 3x3 pad=1 }}\n depthwise 5x5 pad=2"
    graph = build(f"netdsl 1\nnet sample {{\n  input x {WIDTH}x{side}x{side}\n{body}\n}}\n")
    weights = random_weights(graph, 2)
    program = cpu.lower(graph, weights, 2)
    factories = [s.kernel.factory for s in program.plan(1).steps]
    assert ("halo" in factories) == (side > 100 and WIDTH > 8)
    x = np.random.default_rng(1).standard_normal((1, WIDTH, side, side)).astype(np.float32)
    (expected,) = program([x])
    assert np.isnan(program([np.full_like(x, np.nan)])[0]).all()
    assert np.array_equal(program([x])[0], expected)
    np.testing.assert_allclose(expected, reference.run(graph, weights, [x])[0], atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_are_overwritten_only_when_nobody_reads_them_later(name: str) -> None:
    agrees(RESIDUALS[name], batch=2)


@pytest.mark.parametrize("name", REWRITTEN)
@pytest.mark.parametrize("batch", [1, 3])
def test_linear_layers_that_are_put_together(name: str, batch: int) -> None:
    agrees(REWRITTEN[name], batch)


def test_a_dense_block_copies_nothing() -> None:
    graph = build(f"netdsl 1\nnet sample {{\n  input x 8x9x10\n{kept_by(WIDTH, CONCATS['cumulative'])}\n}}\n")
    steps = cpu.lower(graph, random_weights(graph, 2)).plan(1).steps
    assert "gather" not in {s.kernel.factory for s in steps}


def test_many_kernels_are_compiled_with_helpers(tmp_path: Path) -> None:
    code = """
        from netdsl.backends.cpu import jit
        seen = []
        kernels = [jit.Kernel("move", f) for f in ("pack", "unpack", "clear", "batch_pixels")] + [jit.SERVE]
        jit.load_all(kernels, lambda name, done, total: seen.append((done, total)))
        assert seen[0] == (0, 5) and seen[-1] == (5, 5) and seen == sorted(seen), seen
        assert all(jit.load(k)[0] for k in kernels)
    """
    done = in_fresh_process(code, NETDSL_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "kernels").glob("*.o"))) == 5


@pytest.mark.parametrize("name", SPECIAL)
def test_nan_goes_where_the_definition_says_and_nowhere_after(name: str) -> None:
    graph = build(f"netdsl 1\nnet sample {{\n  input x 5x9x10\n{SPECIAL[name]}\n}}\n")
    weights = random_weights(graph, 2)
    x = np.random.default_rng(1).standard_normal((2, 5, 9, 10)).astype(np.float32)
    program = cpu.lower(graph, weights, 2, exact=True)
    (before,) = program([x])
    ill = x.copy()
    ill[1, 2, 4, 5] = np.nan
    with np.errstate(invalid="ignore"):
        (expected,) = reference.run(graph, weights, [ill])
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(np.isnan(program([ill])[0]), np.isnan(expected))
    assert np.array_equal(program([x])[0], before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("end", ["relu", "tanh"])
@pytest.mark.parametrize(("width", "channels"), [(9, 20), (19, 40), (19, 500), (29, 33), (14, 16), (3, 16)])
def test_pixels_are_counted_through_rows_that_do_not_touch(width: int, channels: int, end: str, threads: int) -> None:
    """A 1x1's outputs, and what is added to them, have zeros around; rows are not whole tiles, or narrower than one."""
    text = f"""netdsl 1
net rows {{
  input x {channels}x5x{width}
  a: conv 70 1x1
  conv 70 3x3 pad=1 groups=70 | conv 70 1x1 | add a | {end}
  conv 70 3x3 pad=1 groups=70
}}
"""
    graph = build(text)
    weights = random_weights(graph, 0)
    x = np.random.default_rng(0).standard_normal((3, channels, 5, width)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    program = cpu.lower(graph, weights, threads, exact=True)
    found = program([x])[0]
    assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()
    turns = [s.arguments["turn"] for s in program.plan(1).steps if s.kernel.factory == "conv"]
    assert (width in turns) == (width in (19, 29)) or WIDTH != 16


def test_pixels_that_a_stride_passes_over_do_not_count_as_read() -> None:
    at_once = []
    for size, stride in ((112, 2), (56, 1)):
        graph = build(f"netdsl 1\nnet a {{ input x 256x{size}x{size}\nconv 256 1x1 stride={stride} }}\n")
        steps = cpu.lower(graph, random_weights(graph), 2).plan(1).steps
        (cut,) = (step.arguments for step in steps if step.kernel.factory == "conv")
        at_once.append(cut["together"] / cut["bands"])
    assert 0 < at_once[0] < 1
    assert at_once[0] == pytest.approx(at_once[1], rel=0.05)  # bands are whole
