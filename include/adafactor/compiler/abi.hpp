// The inline namespaces that everything lives in. Two files of one program may be compiled with different flags; their
// copies of a template must then be two symbols, or the linker keeps one of them and one file runs the other's code.
//
// ADAFACTOR_DATA has the plain data that loops of all instruction sets are handed, and nothing that becomes code of its
// own; ADAFACTOR_LOOPS the loops, one namespace for each instruction set; ADAFACTOR_ABI the rest.
#pragma once

// The one place where the version stands; the wheel, the CMake package and the inline namespaces read it from here.
#define ADAFACTOR_VERSION "0.1.0"
#define ADAFACTOR_VERSION_TAG v0_1_0

#if !defined(__cpp_concepts) || __cpp_concepts < 201907L
#error "adafactor is C++20: compile this file with -std=c++20 or newer."
#endif

#if defined(__FAST_MATH__)
#error "adafactor promises the same bits for every compiler and CPU: compile this file without -ffast-math."
#endif

#if (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(_M_FP_FAST)
#error "adafactor finds gradients that are not finite: compile this file without -ffinite-math-only, or /fp:fast."
#endif

// GCC sets its mark of IEEE 754 below 2 for each of these flags. Clang is told otherwise where it compiles the headers
// (exact_begin.hpp).
#if defined(__GCC_IEC_559) && __GCC_IEC_559 < 2 && !defined(__clang__)
#error \
    "adafactor computes as IEEE 754 says: compile this file without -funsafe-math-optimizations and what it is made \
of (-fassociative-math, -freciprocal-math, -fno-signed-zeros), and without -fsingle-precision-constant."
#endif

#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "adafactor rounds every number to its own type: compile this file with -mfpmath=sse and not for the x87."
#endif

// Whether sixteen numbers are one in each of sixteen threads, as on a GPU (lanes/threads.hpp).
#if !defined(ADAFACTOR_LANES_ARE_THREADS)
#define ADAFACTOR_LANES_ARE_THREADS 0
#endif

// The instruction set of the loops; a build that compiles them for several gives each its name.
#if !defined(ADAFACTOR_ISA_TAG)
#if ADAFACTOR_LANES_ARE_THREADS
#define ADAFACTOR_ISA_TAG threads
#elif defined(__AVX512F__)
#define ADAFACTOR_ISA_TAG avx512
#elif defined(__AVX2__)
#define ADAFACTOR_ISA_TAG avx2
#elif defined(__AVX__)
#define ADAFACTOR_ISA_TAG avx
#elif defined(__SSE4_2__)
#define ADAFACTOR_ISA_TAG sse4
#elif defined(__SSE2__)
#define ADAFACTOR_ISA_TAG sse2
#elif defined(__ARM_NEON)
#define ADAFACTOR_ISA_TAG neon
#else
#define ADAFACTOR_ISA_TAG generic
#endif
#endif

// Who runs the loops: openmp, pool or serial, as the build says (-DADAFACTOR_THREADS=pool); where it says nothing,
// OpenMP if the compiler has it on.
#if !defined(ADAFACTOR_THREADS)
#if defined(_OPENMP)
#define ADAFACTOR_THREADS openmp
#else
#define ADAFACTOR_THREADS serial
#endif
#endif

#define ADAFACTOR_JOIN_TAGS(version, tag) version##_##tag
#define ADAFACTOR_EXPAND_TAGS(version, tag) ADAFACTOR_JOIN_TAGS(version, tag)
#define ADAFACTOR_DATA ADAFACTOR_VERSION_TAG

// With the headers alone every file defines what it calls, inline. With ADAFACTOR_COMPILED files only declare it, and
// it is defined once in the program: in the library adafactor::compiled, whose files (src/cpu) each define a part, or
// in the one file that defines ADAFACTOR_IMPLEMENTATION before it includes a header. What is compiled once in a program
// has all loops, what each file compiles again has fewer (lanes/stored.hpp).
#if defined(ADAFACTOR_COMPILED) || defined(ADAFACTOR_IMPLEMENTATION)
#define ADAFACTOR_FUNCTION
#define ADAFACTOR_COMPILED_ONCE 1
#define ADAFACTOR_ABI ADAFACTOR_EXPAND_TAGS(ADAFACTOR_VERSION_TAG, compiled)
#define ADAFACTOR_LOOPS ADAFACTOR_EXPAND_TAGS(ADAFACTOR_ABI, ADAFACTOR_ISA_TAG)
#else
#define ADAFACTOR_FUNCTION inline
#define ADAFACTOR_COMPILED_ONCE 0
#define ADAFACTOR_LOOPS ADAFACTOR_EXPAND_TAGS(ADAFACTOR_VERSION_TAG, ADAFACTOR_ISA_TAG)
#define ADAFACTOR_ABI ADAFACTOR_EXPAND_TAGS(ADAFACTOR_LOOPS, ADAFACTOR_THREADS)
#endif
#if !defined(ADAFACTOR_COMPILED) || defined(ADAFACTOR_IMPLEMENTATION)
#define ADAFACTOR_DEFINES_STEP 1
#define ADAFACTOR_DEFINES_THREADS 1
#define ADAFACTOR_DEFINES_LOOPS 1
#endif

// ADAFACTOR_INLINE marks the small functions that loops are made of: they are inlined always, since a call for each
// sixteen numbers would cost more than they do. Where nothing is optimized they are functions like others: inlined,
// they would be most of a program.
//
// ADAFACTOR_DEVICE marks functions that are compiled for a GPU, too.
#if defined(__CUDACC__)
#define ADAFACTOR_DEVICE __host__ __device__
#define ADAFACTOR_ALWAYS_INLINE __host__ __device__ __forceinline__
#define ADAFACTOR_OWN_FRAME
#define ADAFACTOR_RARE
#define ADAFACTOR_STAY_SCALAR
#define ADAFACTOR_UNROLL _Pragma("unroll")
#define ADAFACTOR_KEEP_ROLLED _Pragma("unroll 1")
#elif defined(__GNUC__)
#define ADAFACTOR_DEVICE
#define ADAFACTOR_UNROLL
#define ADAFACTOR_KEEP_ROLLED
// This one marks functions of plain data, which files of all instruction sets share: none becomes a symbol of an
// object.
#define ADAFACTOR_ALWAYS_INLINE inline __attribute__((always_inline))
// This one has buffers of its own: what is inlined beside others adds them to the frame of its caller, and stacks may
// be small.
#define ADAFACTOR_OWN_FRAME __attribute__((noinline))
// This one is done once for a plan, or says what is wrong: small is better than fast, and quicker to compile.
#define ADAFACTOR_RARE __attribute__((cold))
// This stands in a loop over what is left of sixteen, which the compiler would make vectors of, too.
#define ADAFACTOR_STAY_SCALAR __asm__ volatile("")
#else
#define ADAFACTOR_DEVICE
#define ADAFACTOR_ALWAYS_INLINE inline
#define ADAFACTOR_OWN_FRAME
#define ADAFACTOR_RARE
#define ADAFACTOR_STAY_SCALAR
#define ADAFACTOR_UNROLL
#define ADAFACTOR_KEEP_ROLLED
#endif

// ADAFACTOR_EACH_CALL marks what is done before each call: fast, but in files that compile it again small.
#if ADAFACTOR_COMPILED_ONCE
#define ADAFACTOR_EACH_CALL
#else
#define ADAFACTOR_EACH_CALL ADAFACTOR_RARE
#endif

#if defined(__CUDACC__)
#define ADAFACTOR_INLINE ADAFACTOR_ALWAYS_INLINE
#define ADAFACTOR_INLINE_LAMBDA
#elif defined(__GNUC__) && defined(__OPTIMIZE__)
#define ADAFACTOR_INLINE ADAFACTOR_ALWAYS_INLINE
#define ADAFACTOR_INLINE_LAMBDA __attribute__((always_inline))
#else
#define ADAFACTOR_INLINE inline
#define ADAFACTOR_INLINE_LAMBDA
#endif
