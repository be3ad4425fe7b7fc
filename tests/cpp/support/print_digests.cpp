// Prints the name and the digest of every case of the file argv[1], once in place with argv[2] threads and once into
// other arrays. Not a test by itself: tests/numbers/test_bits.py compiles it with flags and compilers of all sorts and
// reads it.
#include <cstdlib>
#include <iostream>

#include "digest.hpp"

// The user's own code, after the headers: fused where the flags ask for it, which shows that the headers are not fused
// although they could be, and that they leave the rest of the file alone. tests/numbers/test_bits.py looks at the
// machine code.
extern "C" double multiply_add(double a, double b, double c) { return a * b + c; }

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  for (const digest::Case& what : digest::read_cases(argv[1])) {
    std::cout << what.name << ' ' << digest::run(what, std::atoi(argv[2]), true).digest << ' '
              << digest::run(what, 1, false).digest << '\n';
  }
  return 0;
}
