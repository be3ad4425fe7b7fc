// Closes the region that exact_begin.hpp opened, so that the including program's own code is compiled as it asked for.
#if defined(__clang__)
#pragma float_control(pop)
#elif defined(__GNUC__)
#pragma GCC pop_options
#elif defined(_MSC_VER)
#pragma fp_contract(on)
#endif
