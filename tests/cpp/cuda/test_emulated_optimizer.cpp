// The optimizer of a C++ program on a GPU that a CPU stands in for: the bits of the one on a CPU, when it waits, and
// what it refuses.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "cuda/emulated.hpp"
#include "cuda/optimizer.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::StateKind;

constexpr std::int64_t kRows = 20;
constexpr std::int64_t kCols = 33;
void* const kStream = reinterpret_cast<void*>(0x40);

std::vector<float> numbers(std::size_t count, float first) {
  std::vector<float> made(count);
  for (std::size_t i = 0; i < count; ++i) made[i] = std::sin(first + static_cast<float>(i));
  return made;
}

// An array of the device, which a program would have from cudaMalloc.
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<float>& values)
      : size_(values.size()), data_(static_cast<float*>(emulation::Device::current().allocate(nbytes(), false))) {
    write(values);
  }
  ~DeviceArray() { emulation::Device::current().free(data_, false); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  float* data() const { return data_; }
  void write(const std::vector<float>& values) const {
    emulation::Device::current().write(data_, values.data(), nbytes(), kStream);
  }
  std::vector<float> read() const {
    std::vector<float> values(size_);
    emulation::Device& device = emulation::Device::current();
    device.copy(values.data(), data_, nbytes(), kStream);
    void* event = device.make_event();
    device.record(event, kStream);
    device.await(event);
    device.free_event(event);
    return values;
  }

 private:
  std::int64_t nbytes() const { return static_cast<std::int64_t>(size_ * sizeof(float)); }

  std::size_t size_;
  float* data_;
};

const std::vector<adafactor::LeafSpec>& leaves() {
  static const std::vector<adafactor::LeafSpec> specs{{{kRows, kCols}, DType::float32}, {{kCols}, DType::float32}};
  return specs;
}

Config config_of(adafactor::OnNonfinite on_nonfinite) {
  Config config;
  config.learning_rate = 0.1;
  config.on_nonfinite = on_nonfinite;
  return config;
}

// What a call throws, of one type.
template <class Thrown, class Ask>
std::string words_of(const Ask& ask) {
  try {
    ask();
  } catch (const Thrown& error) {
    return error.what();
  }
  return "nothing";
}

// The same model on a GPU and on a CPU.
struct Both {
  explicit Both(adafactor::OnNonfinite on_nonfinite)
      : here(config_of(on_nonfinite), leaves()),
        there(config_of(on_nonfinite), leaves(), {}, 0, emulation::Device::functions()) {}

  void step(float first) {
    const std::vector<float> of_matrix = numbers(kRows * kCols, first);
    const std::vector<float> of_vector = numbers(kCols, -first);
    gw.write(of_matrix);
    gb.write(of_vector);
    there.step({w.data(), b.data()}, {gw.data(), gb.data()}, kStream);
    here.step({matrix.data(), vector.data()}, {of_matrix.data(), of_vector.data()});
  }
  void check_same() {
    CHECK(w.read() == matrix);
    CHECK(b.read() == vector);
    for (const StateKind kind : {StateKind::row, StateKind::col}) {
      const std::span<const float> expected = here.array<float>(0, kind);
      CHECK(there.array<float>(0, kind) == std::vector<float>(expected.begin(), expected.end()));
    }
    CHECK_EQ(there.iterations(), here.iterations());
    CHECK_EQ(there.calls(), here.calls());
    CHECK_EQ(there.report(0).update_rms, here.report(0).update_rms);
  }

  std::vector<float> matrix = numbers(kRows * kCols, 1);
  std::vector<float> vector = numbers(kCols, 2);
  DeviceArray w{matrix}, b{vector}, gw{matrix}, gb{vector};
  adafactor::Optimizer here;
  adafactor::cuda::Optimizer there;
};

void the_bits_are_those_of_a_cpu() {
  for (const auto on_nonfinite : {adafactor::OnNonfinite::raise, adafactor::OnNonfinite::skip}) {
    const emulation::Device device(emulation::Order::shuffled);
    Both both(on_nonfinite);
    CHECK_EQ(both.there.nbytes(), both.here.nbytes());
    CHECK_EQ(both.there.finish().updated, false);
    for (int call = 0; call < 3; ++call) both.step(static_cast<float>(call));
    both.check_same();
    CHECK(both.there.finish().updated);
    CHECK(both.there.array<float>(1, StateKind::row).empty());
  }
}

void who_raises_nothing_does_not_wait() {
  const emulation::Device device(emulation::Order::forward);
  Both both(adafactor::OnNonfinite::skip);
  both.step(1);
  both.there.finish();
  const std::int64_t waits = device.waits();
  both.step(2);
  CHECK_EQ(device.waits(), waits);
  CHECK_EQ(both.there.iterations(), 2);
  CHECK_EQ(device.waits(), waits + 1);
}

void a_gradient_that_is_not_finite_is_skipped_or_thrown() {
  for (const auto on_nonfinite : {adafactor::OnNonfinite::raise, adafactor::OnNonfinite::skip}) {
    const emulation::Device device(emulation::Order::forward);
    Both both(on_nonfinite);
    both.step(1);
    std::vector<float> spoilt = numbers(kRows * kCols, 3);
    spoilt[5] = std::numeric_limits<float>::infinity();
    both.gw.write(spoilt);
    const auto step = [&] { both.there.step({both.w.data(), both.b.data()}, {both.gw.data(), nullptr}, kStream); };
    const std::string words = words_of<adafactor::Error>(step);
    const bool raises = on_nonfinite == adafactor::OnNonfinite::raise;
    CHECK_EQ(words.substr(0, 21), std::string(raises ? "grads leaf 0: values," : "nothing"));
    CHECK(both.there.finish().skipped);
    CHECK_EQ(both.there.iterations(), 1);
    CHECK(both.w.read() == both.matrix);
    both.step(4);
    both.check_same();
  }
}

void what_cannot_be_stepped_is_refused() {
  emulation::Device device(emulation::Order::forward);
  Both both(adafactor::OnNonfinite::skip);
  both.step(1);
  auto* shifted = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(both.gw.data()) + 1);
  CHECK_EQ(words_of<adafactor::Error>(
               [&] { both.there.step({both.w.data(), both.b.data()}, {shifted, both.gb.data()}, kStream); }),
           std::string("grads leaf 0: a misaligned array, expected elements at multiples of their size"));
  CHECK_EQ(
      words_of<adafactor::Error>([&] { both.there.step({both.w.data(), both.b.data()}, {nullptr, nullptr}, kStream); }),
      std::string("grads: every one is absent, expected at least one"));
  device.capture(kStream, false);
  CHECK_EQ(words_of<std::runtime_error>(
               [&] { both.there.step({both.w.data(), both.b.data()}, {both.gw.data(), both.gb.data()}, kStream); }),
           std::string("a CUDA graph is being captured, expected a stream that runs"));
  device.end_capture();
  CHECK_EQ(words_of<adafactor::Error>([&] { both.there.array<double>(0, StateKind::row); }),
           std::string("row leaf 0: dtype float64, expected float32"));
  both.step(2);
  both.check_same();
}

// Whoever looks while a graph forbids to wait may look again; and a step that a graph forbids waits for nothing.
void a_graph_leaves_the_last_step_as_it_is() {
  emulation::Device device(emulation::Order::forward);
  Both both(adafactor::OnNonfinite::skip);
  both.step(1);
  const std::string words = "CUDA: operation not permitted when stream is capturing";
  device.failure_to_await = words.c_str();
  device.is_of_capture = true;
  for (int look = 0; look < 2; ++look) {
    CHECK_EQ(words_of<adafactor::cuda::CaptureError>([&] { both.there.finish(); }), words);
  }
  device.failure_to_await = nullptr;
  const std::int64_t waits = device.waits();
  device.capture(kStream, false);
  CHECK_EQ(words_of<std::runtime_error>(
               [&] { both.there.step({both.w.data(), both.b.data()}, {both.gw.data(), both.gb.data()}, kStream); }),
           std::string("a CUDA graph is being captured, expected a stream that runs"));
  CHECK_EQ(device.waits(), waits);
  device.capture(kStream, true);
  CHECK_EQ(words_of<std::runtime_error>([&] { both.there.array<float>(0, StateKind::row); }),
           std::string("a CUDA graph is being captured, expected a stream that runs"));
  CHECK_EQ(both.there.iterations(), 1);
  device.end_capture();
  both.step(2);
  both.check_same();
}

// On the second device while the first one is the thread's current one, which it stays.
void all_is_done_on_the_device_of_the_optimizer() {
  const emulation::Device device(emulation::Order::forward);
  emulation::Device::entered = 1;
  {
    const DeviceArray weights(numbers(kCols, 1));
    const DeviceArray gradients(numbers(kCols, 2));
    emulation::Device::entered = 0;
    adafactor::cuda::Optimizer optimizer{
        config_of(adafactor::OnNonfinite::skip), {{{kCols}, DType::float32}}, {}, 1, emulation::Device::functions()};
    for (int call = 0; call < 2; ++call) optimizer.step({weights.data()}, {gradients.data()}, kStream);
    CHECK(optimizer.finish().updated);
    CHECK_EQ(optimizer.array<float>(0, StateKind::full).size(), std::size_t{kCols});
    optimizer.step({weights.data()}, {gradients.data()}, kStream);
    CHECK_EQ(emulation::Device::entered, 0);
    emulation::Device::entered = 1;  // for the arrays
  }
  emulation::Device::entered = 0;
  CHECK_EQ(device.blocks(), 0);
}

// A launch that finds no memory is no step, and what the device has is known to nobody after it.
void a_step_that_fails_is_not_counted() {
  emulation::Device device(emulation::Order::forward);
  Both both(adafactor::OnNonfinite::skip);
  both.step(1);
  both.there.finish();
  device.launches_with_memory = 3;
  const auto step = [&] { both.there.step({both.w.data(), both.b.data()}, {both.gw.data(), both.gb.data()}, kStream); };
  CHECK(words_of<std::bad_alloc>(step) != "nothing");
  const std::string words = "the GPU failed in an earlier step";
  CHECK_EQ(words_of<std::runtime_error>(step).substr(0, words.size()), words);
  CHECK_EQ(words_of<std::runtime_error>([&] { both.there.iterations(); }).substr(0, words.size()), words);
}

void a_report_needs_a_step_and_a_leaf() {
  const emulation::Device device(emulation::Order::forward);
  Both both(adafactor::OnNonfinite::skip);
  CHECK_EQ(words_of<adafactor::Error>([&] { both.there.report(0); }),
           words_of<adafactor::Error>([&] { both.here.report(0); }));
  CHECK_EQ(words_of<adafactor::Error>([&] { both.there.report(2); }),
           words_of<adafactor::Error>([&] { both.here.report(2); }));
}

void a_state_outlives_the_stream_of_its_last_step() {
  emulation::Device device(emulation::Order::forward);
  Both both(adafactor::OnNonfinite::skip);
  both.step(1);
  both.there.finish();
  const std::vector<float> expected = both.there.array<float>(0, StateKind::row);
  device.destroy(kStream);
  CHECK(both.there.array<float>(0, StateKind::row) == expected);
}

void nothing_stays_on_the_device() {
  const emulation::Device device(emulation::Order::forward);
  {
    Both both(adafactor::OnNonfinite::skip);
    both.step(1);
  }
  CHECK_EQ(device.blocks(), 0);
}

}  // namespace

int main() {
  the_bits_are_those_of_a_cpu();
  who_raises_nothing_does_not_wait();
  a_gradient_that_is_not_finite_is_skipped_or_thrown();
  what_cannot_be_stepped_is_refused();
  a_graph_leaves_the_last_step_as_it_is();
  all_is_done_on_the_device_of_the_optimizer();
  a_step_that_fails_is_not_counted();
  a_report_needs_a_step_and_a_leaf();
  a_state_outlives_the_stream_of_its_last_step();
  nothing_stays_on_the_device();
  return check::report();
}
