// What a step allocates: on the first one exactly what scratch_nbytes says, on every other nothing. Counted are the
// calls of malloc, calloc, realloc and aligned_alloc of the whole process, all threads, where the C library lets them
// be replaced, and with them operator new; elsewhere, and under a sanitizer, operator new alone. Stacks are not
// counted.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "adafactor/step/workspace.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

std::atomic<bool> counting{false};
std::atomic<std::int64_t> allocations{0};
std::atomic<std::int64_t> allocated_bytes{0};

void count(std::size_t nbytes) {
  if (!counting.load(std::memory_order_relaxed)) return;
  allocations.fetch_add(1);
  allocated_bytes.fetch_add(static_cast<std::int64_t>(nbytes));
}

}  // namespace

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_MALLOC 1

extern "C" {
void* __libc_malloc(std::size_t nbytes);
void* __libc_calloc(std::size_t count, std::size_t nbytes);
void* __libc_realloc(void* memory, std::size_t nbytes);
void* __libc_memalign(std::size_t alignment, std::size_t nbytes);

void* malloc(std::size_t nbytes) {
  count(nbytes);
  return __libc_malloc(nbytes);
}
void* calloc(std::size_t number, std::size_t nbytes) {
  count(number * nbytes);
  return __libc_calloc(number, nbytes);
}
void* realloc(void* memory, std::size_t nbytes) {
  count(nbytes);
  return __libc_realloc(memory, nbytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t nbytes) {
  count(nbytes);
  return __libc_memalign(alignment, nbytes);
}
}
#else
#define COUNTS_MALLOC 0

void* operator new(std::size_t nbytes) {
  count(nbytes);
  if (void* memory = std::malloc(nbytes == 0 ? 1 : nbytes)) return memory;
  throw std::bad_alloc();
}
// Where GCC inlines one of the pair and not the other, it takes them for mismatched.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace {

struct Counted {
  std::int64_t calls;
  std::int64_t nbytes;
};

template <class Function>
Counted count_during(const Function& function) {
  allocations = 0;
  allocated_bytes = 0;
  counting = true;
  function();
  counting = false;
  return {allocations.load(), allocated_bytes.load()};
}

// A state with its arrays, and the call of a step on them.
class Fixture {
 public:
  Fixture(const std::vector<adafactor::LeafSpec>& leaves, const adafactor::Config& config)
      : plan_(std::make_shared<const adafactor::Plan>(leaves, std::vector{config})),
        state_(plan_),
        parameters_(leaves),
        gradients_(leaves),
        rate_{config.learning_rate, false} {
    parameters_.fill(1, {-2, 2, 0});
    gradients_.fill(100, {-2, 2, 0});
  }

  void step() {
    const adafactor::Call call{parameters_.views(), gradients_.views(), parameters_.views(), &rate_, 1};
    outcome_ = adafactor::step(state_, call, adafactor::cpu_backend());
  }

  const adafactor::Plan& plan() const { return *plan_; }
  const std::shared_ptr<const adafactor::Plan>& shared_plan() const { return plan_; }
  const adafactor::Outcome& outcome() const { return outcome_; }

 private:
  std::shared_ptr<const adafactor::Plan> plan_;
  adafactor::State state_;
  digest::Arrays parameters_;
  digest::Arrays gradients_;
  adafactor::LearningRate rate_;
  adafactor::Outcome outcome_;
};

struct Example {
  std::string name;
  std::vector<adafactor::LeafSpec> leaves;
  adafactor::Config config;
};

std::vector<Example> examples() {
  using adafactor::DType;
  const std::vector<adafactor::LeafSpec> few{{{600, 300}, DType::float32}, {{40}, DType::float64},
                                             {{3, 4, 5}, DType::float64},  {{2, 140000}, DType::float32},
                                             {{0, 3}, DType::float32},     {{}, DType::float32}};
  const std::vector<adafactor::LeafSpec> many(300, {{24, 17}, DType::float32});
  adafactor::Config linked;
  linked.beta_1 = 0.9;
  linked.use_ema = true;
  linked.gradient_accumulation_steps = 2;
  linked.clipnorm = 1.0;
  linked.weight_decay = 0.1;
  adafactor::Config flowing;
  flowing.on_nonfinite = adafactor::OnNonfinite::propagate;
  return {{"plain", few, {}}, {"linked", few, linked}, {"many", many, {}}, {"propagate", few, flowing}};
}

void the_counter_counts() {
  void* volatile memory = nullptr;
  const Counted counted = count_during([&] { memory = ::operator new(1000); });
  ::operator delete(memory);
  CHECK_EQ(counted.calls, 1);
  CHECK_EQ(counted.nbytes, 1000);
#if COUNTS_MALLOC
  const Counted zeros = count_during([&] { memory = std::calloc(10, 30); });
  std::free(memory);
  CHECK_EQ(zeros.nbytes, 300);
#endif
}

// With one thread, so that the threads' library, which keeps what it allocates for all of the process, has no part.
void the_first_step_allocates_the_scratch(const Example& example) {
  adafactor::set_num_threads(1);
  Fixture fixture(example.leaves, example.config);
  const Counted first = count_during([&] { fixture.step(); });
  // All of it comes from calloc.
  const std::int64_t expected = COUNTS_MALLOC ? adafactor::scratch_nbytes(fixture.plan()) : 0;
  CHECK_EQ(example.name + " " + std::to_string(first.nbytes), example.name + " " + std::to_string(expected));
}

void a_steady_step_allocates_nothing(const Example& example) {
  for (const int threads : {1, 2, 5}) {
    adafactor::set_num_threads(threads);
    Fixture fixture(example.leaves, example.config);
    for (int call = 0; call < 4; ++call) fixture.step();
    const Counted steady = count_during([&] {
      for (int call = 0; call < 4; ++call) fixture.step();
    });
    CHECK_EQ(example.name + " " + std::to_string(steady.calls), example.name + " 0");
    CHECK(fixture.outcome().updated);
  }
}

// What is made anew for another number of threads lies where the last lay; the threads themselves were there before.
void a_step_of_another_team_allocates_nothing(const Example& example) {
  Fixture fixture(example.leaves, example.config);
  for (const int threads : {5, 1, 2, 3}) {
    adafactor::set_num_threads(threads);
    for (int call = 0; call < 2; ++call) fixture.step();
  }
  const Counted steady = count_during([&] {
    for (const int threads : {3, 1, 2}) {
      adafactor::set_num_threads(threads);
      fixture.step();
    }
  });
  CHECK_EQ(example.name + " " + std::to_string(steady.calls), example.name + " 0");
}

// What Optimizer keeps of a call, and the views of the arrays, are made once too.
void a_steady_step_of_an_optimizer_allocates_nothing(const Example& example) {
  adafactor::set_num_threads(1);
  adafactor::Optimizer optimizer(example.config, example.leaves);
  digest::Arrays parameters(example.leaves);
  digest::Arrays gradients(example.leaves);
  parameters.fill(1, {-2, 2, 0});
  gradients.fill(100, {-2, 2, 0});
  const std::span params(parameters.views(), example.leaves.size());
  const std::span grads(gradients.views(), example.leaves.size());
  for (int call = 0; call < 2; ++call) optimizer.step(params, grads);
  const Counted steady = count_during([&] { optimizer.step(params, grads, {.learning_rate = 0.1}); });
  CHECK_EQ(example.name + " " + std::to_string(steady.calls), example.name + " 0");
}

void a_state_allocates_its_bytes_and_its_counters(const Example& example) {
  const Fixture fixture(example.leaves, example.config);
  std::unique_ptr<adafactor::State> state;
  const Counted counted = count_during([&] { state = std::make_unique<adafactor::State>(fixture.shared_plan()); });
  const auto counters = static_cast<std::int64_t>(example.leaves.size() * sizeof(adafactor::LeafCount));
  const std::int64_t object = sizeof(adafactor::State);
  CHECK_EQ(counted.nbytes, counters + object + (COUNTS_MALLOC ? fixture.plan().state_nbytes() : 0));
}

void the_size_of_the_scratch_does_not_depend_on_threads(const Example& example) {
  adafactor::set_num_threads(1);
  const adafactor::Plan one(example.leaves, {example.config});
  adafactor::set_num_threads(7);
  const adafactor::Plan seven(example.leaves, {example.config});
  CHECK_EQ(adafactor::scratch_nbytes(one), adafactor::scratch_nbytes(seven));
  CHECK_EQ(one.state_nbytes(), seven.state_nbytes());
}

}  // namespace

int main() {
  the_counter_counts();
  adafactor::cpu_backend();  // chosen once in a process, which is no part of a step
  for (const Example& example : examples()) {
    the_first_step_allocates_the_scratch(example);
    a_steady_step_allocates_nothing(example);
    a_step_of_another_team_allocates_nothing(example);
    a_steady_step_of_an_optimizer_allocates_nothing(example);
    a_state_allocates_its_bytes_and_its_counters(example);
    the_size_of_the_scratch_does_not_depend_on_threads(example);
  }
  return check::report();
}
