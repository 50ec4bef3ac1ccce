"""The state of lowering one graph for one batch size: views of tensors, buffers and the steps so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from netdsl.backends.cpu.bank import WeightBank
from netdsl.backends.cpu.demands import halos, may_lie, planar_maps, winograd_sizes
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.precision import stored_layers
from netdsl.backends.cpu.streams import streamed_maps
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tuned import choices
from netdsl.backends.cpu.turns import images_together
from netdsl.backends.cpu.views import NO_HALO, Address, Argument, Step, View, layout
from netdsl.graph.ir import Graph, Node
from netdsl.plan.residence import homes, spent_residuals
from netdsl.tensor import TensorType

LASTING_BYTES = 4 << 20  # chosen (bench/choices.py tries others): of a map whose halo is not cleared again


class Planner:
    """Collects the steps of one graph for `images` images, of a batch of `whole`, and up to `threads` threads.

    `winograd` says which convolutions Winograd's algorithm runs; None: those that it is faster for.
    """

    def __init__(
        self, graph: Graph, bank: WeightBank, images: int, threads: int, exact: bool, whole: int,
        winograd: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.bank, self.batch, self.threads = graph, bank, images, threads
        self.images = images  # that go together through the node that is lowered now
        self.views: dict[int, View] = {}
        self.flat_maps: dict[int, TensorType] = {}  # vectors that are maps left in blocked order, by node
        self.bytes: list[int] = []  # of each buffer, of one image where it grows with the images
        self.fixed: set[int] = set()  # buffers that do not
        self.lasting: dict[int, tuple[int, ...]] = {}  # buffers whose halos stay clear, and where those lie
        self.steps: list[Step] = []
        self.stored = stored_layers(graph, bank.precision)
        if winograd is None:
            winograd = winograd_sizes(graph, whole, exact, {} if exact else choices(threads))
        self.winograd = winograd
        self.together = images_together(graph, images, winograd)
        # images of a result that are there at a time: as many as its last reader takes
        self.held = [self.together[max(readers, default=i)] for i, readers in enumerate(graph.consumers())]
        self.halos = halos(graph, self.winograd)
        self.planar = planar_maps(graph, self.halos)
        self.streamed = streamed_maps(graph, self.winograd, self.planar, self.together)
        fits = partial(may_lie, graph, self.halos)
        self.homes = homes(graph, WIDTH, fits)
        self.residuals = spent_residuals(graph, self.homes, fits)

    def input_views(self, node: Node) -> list[View]:
        return [self.views[i] for i in node.inputs]

    def buffer(self, view: View, image_bytes: int) -> View:
        """Give a fresh view a buffer of its own."""
        self.bytes.append(image_bytes)
        return replace(view, buffer=len(self.bytes) - 1)

    def output(self, index: int, work: int) -> View:
        """The place of a node's result, with the halo its readers need.

        Small maps keep their halos: memory is clear at first, and only maps of the same form lie there later. Larger
        ones would take much memory that way; theirs are cleared by a step of its own.

        A result that is joined with others lies within the joined tensor from the start; one that is added to a
        residual nobody reads later takes the residual's place.
        """
        if index in self.views:
            return self.views[index]
        if index in self.residuals:
            self.views[index] = self.views[self.residuals[index]]
        elif index in self.homes:
            self.views[index] = self._slice(index, *self.homes[index])
        else:
            self.views[index] = self.room(index, work, self.graph.nodes[index].type.shape[0])
        return self.views[index]

    def _slice(self, index: int, joined: int, first: int) -> View:
        whole = self.output(joined, self.graph.nodes[joined].type.elements * self.images)
        return whole.part(first, self.graph.nodes[index].type.channels)

    def room(self, index: int, work: int, channels: int) -> View:
        """A place of its own for so many channels of a node's result."""
        node = self.graph.nodes[index]
        block = 1 if index in self.planar else WIDTH
        halo = self.halos[index]
        view, size = layout(replace(node.type, shape=(channels, *node.type.shape[1:])), block, halo)
        view = self.buffer(view, size)
        if halo != NO_HALO and size * self.held[index] <= LASTING_BYTES:
            self.lasting[view.buffer] = (*halo, view.image, view.plane, view.row, view.pixel)
        elif halo != NO_HALO:
            top, left, bottom, right = halo
            self.emit(
                Kernel("move", "halo"), node, work,
                x=Address(view, -view.start), planes=self.images * view.blocks, plane=view.plane, row=view.row,
                pixel=view.pixel, top=top, bottom=bottom, left=left, right=right, height=view.height,
            )  # fmt: skip
        return view

    def scratch(self, channels: int, pixels: int) -> View:
        """A map of channels x 1 x pixels, shared by all images of the batch."""
        view, size = layout(TensorType((channels, 1, pixels)))
        return replace(view, buffer=self._fixed(size), image=0)

    def thread_scratch(self, size: int) -> View:
        """`size` bytes for each thread, a multiple of a cache line."""
        return View(self._fixed(size * self.threads), 0, 1, 1, 1, WIDTH, 0, 0, 0)

    def _fixed(self, size: int) -> int:
        self.bytes.append(size)
        self.fixed.add(len(self.bytes) - 1)
        return len(self.bytes) - 1

    def emit(self, kernel: Kernel, node: Node, work: int, units: int = 0, /, **arguments: Argument) -> None:
        self.steps.append(Step(kernel, arguments, max(1, work), node.path, self.images, units))
