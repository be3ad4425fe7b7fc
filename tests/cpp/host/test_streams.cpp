// What a machine says of its pages: in a file of Linux, of which the word in brackets counts.
#include <string>

#include "adafactor/host/streams.hpp"
#include "support/check.hpp"
#include "support/files.hpp"

namespace {

bool gives_large_pages(const check::Files& files) {
  return check::with_files(files, adafactor::detail::gives_large_pages);
}

void pages_are_large_where_a_file_says_so() {
  const std::string path = "sys/kernel/mm/transparent_hugepage/enabled";
  CHECK(gives_large_pages({{path, "[always] madvise never\n"}}));
  CHECK(!gives_large_pages({{path, "always [madvise] never\n"}}));
  CHECK(!gives_large_pages({{path, "always madvise [never]\n"}}));
  CHECK(!gives_large_pages({{path, ""}}));
  CHECK(!gives_large_pages({}));
}

void nobody_asks_for_pages_that_are_large() {
  if (adafactor::detail::gives_large_pages("")) CHECK(!adafactor::detail::asks_for_pages());
  CHECK_EQ(adafactor::detail::asks_for_pages(), adafactor::detail::asks_for_pages());
}

}  // namespace

int main() {
  pages_are_large_where_a_file_says_so();
  nobody_asks_for_pages_that_are_large();
  return check::report();
}
