// Included at the head of every header that computes (exact_end.hpp at its foot): a*b + c stays a product and a sum,
// whatever flags the file is compiled with, because a fused one rounds once and would change the bits from CPU to CPU.
// Clang is told to keep to IEEE 754 besides; with GCC abi.hpp refuses the flags that say otherwise.
// There is no include guard: the pair opens and closes a region of the file that includes it.
#if defined(__clang__)
#pragma float_control(push)
#pragma float_control(precise, on)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif
