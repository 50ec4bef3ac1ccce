"""From a kernel's Python function to machine code: what of Numba kernels need, then LLVM, once.

Kernels are integers, vectors and loops. For any Python program, Numba's own target types and lowers arrays, containers
and exceptions as well; it optimises each function that a kernel calls by itself, makes machine code of it, links it in
and optimises the whole, in two rounds. This is a target of its own, by Numba's target extension interface: it knows
builtin operations on numbers and this package's intrinsics, runs only the passes over Numba's IR that these need, and
hands a kernel to LLVM once, with all that it calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import callconv, codegen, compiler, cpu, dispatcher, target_extension, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.descriptors import TargetDescriptor
from numba.core.llvm_bindings import create_pass_builder
from numba.core.typed_passes import NativeLowering, NoPythonBackend, NopythonTypeInference
from numba.core.typing import templates
from numba.core.untyped_passes import FixupArgs, TranslateByteCode

from netdsl.backends.cpu import words

NAME = "netdsl"
OPTIMISATION = 3  # of LLVM; 2 takes a tenth less, but rolls products of 8 lanes up: 23 instructions a step, not 19
PASSES = TranslateByteCode, FixupArgs, NopythonTypeInference, NativeLowering, NoPythonBackend


class Library(codegen.CPUCodeLibrary):
    """A function's LLVM IR as it was lowered, and the libraries of the functions that it calls."""

    def add_ir_module(self, ir_module: Any) -> None:
        self._final_module.link_in(llvm.parse_assembly(str(ir_module)))

    def add_linking_library(self, library: Any) -> None:
        self._linking_libraries.append(library)

    def optimize(self, symbol: str) -> None:
        """Add what is called, and optimise what `symbol`, which alone is seen from outside, needs of it."""
        module = self._final_module
        for library in self._called({}):
            module.link_in(library._final_module, preserve=True)
        for value in (*module.functions, *module.global_variables):
            if not value.is_declaration and value.name != symbol:
                value.linkage = "internal"
        builder = create_pass_builder(self._codegen._tm, opt=OPTIMISATION, loop_vectorize=True)
        builder.getModulePassManager().run(module, builder)

    def _called(self, found: dict[Any, None]) -> dict[Any, None]:
        for library in self._linking_libraries:
            if library not in found:
                found[library] = None
                library._called(found)
        return found

    def object_code(self) -> bytes:
        code: bytes = self._codegen._tm.emit_object(self._final_module)
        return code

    def assembly(self) -> str:
        text: str = self._codegen._tm.emit_assembly(self._final_module)
        return text


class Codegen(codegen.JITCPUCodegen):
    _library_class = Library


class Convention(callconv.BaseCallConv):
    """How functions are called: they return their result, if any, and cannot fail."""

    def get_function_type(self, restype: Any, argtypes: Any) -> Any:
        result = ir.VoidType() if self._is_void(restype) else self.context.data_model_manager[restype].get_return_type()
        return ir.FunctionType(result, self._get_arg_packer(argtypes).argument_types)

    def get_arguments(self, func: Any) -> Any:
        return func.args

    def decorate_function(self, fn: Any, args: Any, fe_argtypes: Any, noalias: bool = False) -> None:
        """Nothing to add."""

    def _make_call_helper(self, builder: Any) -> None:
        """None is needed."""

    def call_function(self, builder: Any, callee: Any, resty: Any, argtys: Any, args: Any) -> Any:
        result = builder.call(callee, self._get_arg_packer(argtys).as_arguments(builder, args))
        void = self._is_void(resty)
        return self.context.get_dummy_value() if void else self.context.get_returned_value(builder, resty, result)

    def return_value(self, builder: Any, retval: Any) -> None:
        void = isinstance(builder.function.function_type.return_type, ir.VoidType)
        builder.ret_void() if void else builder.ret(retval)

    def return_user_exc(self, builder: Any, *_: Any, **__: Any) -> None:
        builder.unreachable()  # an index beyond a tuple: none is

    @staticmethod
    def _is_void(kind: Any) -> bool:
        return kind in (types.void, types.none)


class Typing(typing.BaseContext):
    """What kernels may call: builtin operations, intrinsics, and `words`."""

    def init(self) -> None:
        self._builtins = templates.RegistryLoader(templates.builtin_registry)

    def load_additional_registries(self) -> None:
        self.install_registry(words.names)

    def _load_builtins(self) -> None:
        for template in self._builtins.new_registrations("functions"):
            self.insert_function(template(self))
        for template in self._builtins.new_registrations("attributes"):
            # an overloaded attribute, of containers and the like, loads the whole of Numba's own target
            if not issubclass(template, templates._OverloadAttributeTemplate):
                self.insert_attributes(template(self))
        for value, kind in self._builtins.new_registrations("globals"):
            if known := self._lookup_global(value):
                self._remove_global(value)
            self.insert_global(value, known.augment(kind) if known else kind)


class Lowering(cpu.CPUContext):
    """What becomes of it in LLVM's IR."""

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = Codegen(NAME)
        self._sizes: dict[Any, int] = {}

    @property
    def call_conv(self) -> Any:
        return Convention(self)

    def get_abi_sizeof(self, ty: Any) -> int:
        if ty not in self._sizes:
            self._sizes[ty] = super().get_abi_sizeof(ty)  # LLVM parses a module for it
        return self._sizes[ty]

    def load_additional_registries(self) -> None:
        from numba.cpython import builtins, numbers, tupleobj  # noqa: F401  # each fills Numba's builtin registry

    def refresh(self) -> None:
        super().refresh()
        self.install_registry(words.words)  # last, as they replace Numba's

    def post_lowering(self, mod: Any, library: Any) -> None:
        """Without Numba's runtime."""


class Descriptor(TargetDescriptor):
    options = cpu.CPUTargetOptions

    @cached_property
    def typing_context(self) -> Any:
        return Typing()

    @cached_property
    def target_context(self) -> Any:
        return Lowering(self.typing_context, NAME)


class Pipeline(compiler.CompilerBase):
    """The passes from Python's bytecode to LLVM's IR."""

    def define_pipelines(self) -> list[PassManager]:
        manager = PassManager(NAME)
        for step in PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


class Leaf(dispatcher.Dispatcher):
    """A Python function that kernels call, compiled for each combination of types that it is called with."""

    targetdescr = Descriptor(NAME)

    def compile(self, sig: Any) -> Any:
        args = tuple(sig)
        if args in self.overloads:
            return
        result = lower(self.py_func, args)

        def call(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            function = context.declare_function(builder.module, result.fndesc)
            return context.call_conv.call_function(builder, function, sig.return_type, args, values)

        call.libs = (result.library,)  # type: ignore[attr-defined]
        self.targetctx.insert_func_defn([(call, result.fndesc, args)])
        self.overloads[args] = result

    def get_overload(self, sig: Any) -> Any:
        return self.overloads[tuple(sig)].fndesc


class Target(target_extension.Generic):
    """The name by which Numba finds all this."""


def leaf(function: Callable[..., Any]) -> Any:
    """A function for kernels to call."""
    return Leaf(function)


target_extension.target_registry[NAME] = Target
target_extension.dispatcher_registry[Target] = Leaf
target_extension.jit_registry[Target] = lambda **options: leaf


def lower(function: Callable[..., Any], args: tuple[Any, ...], returns: Any = None) -> Any:
    """Numba's result for a function of arguments of such types, with its Library."""
    flags = compiler.Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    flags.enable_ssa = flags.nrt = False
    flags.forceinline = True  # so that LLVM simplifies each once, where it is called
    flags.error_model = "numpy"  # floats: no checks for division by zero
    target = Leaf.targetdescr
    with global_compiler_lock:
        return compiler.compile_extra(
            target.typing_context, target.target_context, function, args, returns, flags, {}, pipeline_class=Pipeline
        )
