// Every instruction set that this machine can run gives the digests, and ADAFACTOR_ISA chooses among them.
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/dispatch.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::compiled_kernels;
using adafactor::KernelTable;
using adafactor::cpu::usable_kernels;

void every_instruction_set_gives_the_digests() {
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    for (const KernelTable* table : usable_kernels()) {
      const std::string name = std::string(table->isa) + " " + what.name + " ";
      CHECK_EQ(name + digest::run(what, 1, false, *table).digest, name + what.expected);
      for (const int threads : {1, 2, 3, 7}) {
        CHECK_EQ(name + digest::run(what, threads, true, *table).digest, name + what.expected);
      }
    }
  }
}

void an_unknown_name_is_refused_each_time() {
  setenv("ADAFACTOR_ISA", "x87", 1);
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      compiled_kernels();
      CHECK(false);
    } catch (const adafactor::Error& error) {
      CHECK_EQ(error.knob(), "ADAFACTOR_ISA");
      CHECK_EQ(error.found(), "'x87'");
      for (const KernelTable* table : usable_kernels()) {
        CHECK(error.expected().find("'" + std::string(table->isa) + "'") != std::string::npos);
      }
    }
  }
}

void a_name_is_taken_once() {
  setenv("ADAFACTOR_ISA", usable_kernels().front()->isa, 1);
  CHECK(&compiled_kernels() == usable_kernels().front());
  setenv("ADAFACTOR_ISA", "x87", 1);
  CHECK(&compiled_kernels() == usable_kernels().front());
}

}  // namespace

int main() {
  CHECK(!usable_kernels().empty());
  every_instruction_set_gives_the_digests();
  an_unknown_name_is_refused_each_time();
  a_name_is_taken_once();
  return check::report();
}
