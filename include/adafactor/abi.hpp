// The inline namespace that every header lives in. Two files of one program may be compiled with different flags; their
// copies of a template must then be two symbols, or the linker keeps one of them and one file runs the other's code.
#pragma once

#include "adafactor/version.hpp"

#if !defined(__cpp_concepts) || __cpp_concepts < 201907L
#error "adafactor is C++20: compile this file with -std=c++20 or newer."
#endif

#if defined(__FAST_MATH__)
#error "adafactor promises the same bits for every compiler and CPU: compile this file without -ffast-math."
#endif

#if defined(__AVX512F__)
#define ADAFACTOR_ISA_TAG avx512
#elif defined(__AVX__)
#define ADAFACTOR_ISA_TAG avx
#elif defined(__SSE2__)
#define ADAFACTOR_ISA_TAG sse2
#elif defined(__ARM_NEON)
#define ADAFACTOR_ISA_TAG neon
#else
#define ADAFACTOR_ISA_TAG generic
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

#define ADAFACTOR_JOIN_TAGS(version, isa, threads) version##_##isa##_##threads
#define ADAFACTOR_EXPAND_TAGS(version, isa, threads) ADAFACTOR_JOIN_TAGS(version, isa, threads)
#define ADAFACTOR_ABI ADAFACTOR_EXPAND_TAGS(ADAFACTOR_VERSION_TAG, ADAFACTOR_ISA_TAG, ADAFACTOR_THREADS)
