// For the small functions that loops are made of: inlined always, since a call for each sixteen numbers would cost more
// than they do. Where nothing is optimized they are functions like others: inlined, they would be most of a program.
#pragma once

#if defined(__GNUC__)
// Of plain data, which files of all instruction sets share: no function of it becomes a symbol of an object.
#define ADAFACTOR_ALWAYS_INLINE inline __attribute__((always_inline))
// With buffers of its own: what is inlined beside others adds them to the frame of its caller, and stacks may be small.
#define ADAFACTOR_OWN_FRAME __attribute__((noinline))
// In a loop over what is left of sixteen, which the compiler would make vectors of, too.
#define ADAFACTOR_STAY_SCALAR __asm__ volatile("")
#else
#define ADAFACTOR_ALWAYS_INLINE inline
#define ADAFACTOR_OWN_FRAME
#define ADAFACTOR_STAY_SCALAR
#endif

#if defined(__GNUC__) && defined(__OPTIMIZE__)
#define ADAFACTOR_INLINE ADAFACTOR_ALWAYS_INLINE
#define ADAFACTOR_INLINE_LAMBDA __attribute__((always_inline))
#else
#define ADAFACTOR_INLINE inline
#define ADAFACTOR_INLINE_LAMBDA
#endif
