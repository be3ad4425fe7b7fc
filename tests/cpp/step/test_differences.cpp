// Calls that write differences: what they write, added to the parameter, is what a call in place makes of it, to one
// rounding; the state is the same; and what needs the new parameter is refused.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::Call;
using adafactor::DType;
using adafactor::Output;

// The leaves with elements of their arithmetic's type.
std::vector<adafactor::LeafSpec> in_arithmetic(std::vector<adafactor::LeafSpec> leaves) {
  for (adafactor::LeafSpec& leaf : leaves) leaf.dtype = adafactor::arithmetic_of(leaf.dtype);
  return leaves;
}

template <class Body>
void with_elements(const adafactor::TensorView& view, std::int64_t index, const Body& body) {
  const auto at = [&](auto type) { return static_cast<decltype(type)*>(view.data) + index; };
  switch (view.dtype) {
    case DType::float64:
      return body(*at(double{}));
    case DType::float32:
      return body(*at(float{}));
    case DType::float16:
      return body(*at(adafactor::Float16{}));
    case DType::bfloat16:
      return body(*at(adafactor::Bfloat16{}));
  }
}

double number_at(const adafactor::TensorView& view, std::int64_t index) {
  double number = 0;
  with_elements(view, index, [&](auto& element) {
    if constexpr (sizeof(element) == 2) {
      number = adafactor::to_float(element);
    } else {
      number = element;
    }
  });
  return number;
}

bool is_zero(const digest::Arrays& arrays, std::size_t leaf) {
  for (std::int64_t i = 0; i < arrays.count(leaf); ++i) {
    if (number_at(arrays.views()[leaf], i) != 0) return false;
  }
  return true;
}

// Half a unit in the last place of a number as it is stored.
double half_unit(double number, DType dtype) {
  const int digits = dtype == DType::float64 ? 53 : dtype == DType::float32 ? 24 : dtype == DType::float16 ? 11 : 8;
  const double least = dtype == DType::float16 ? 0x1p-14 : 0x1p-126;
  int exponent = 0;
  std::frexp(std::fmax(std::fabs(number), least), &exponent);
  return std::ldexp(0.5, exponent - digits);
}

bool allows_differences(const adafactor::Config& config) {
  return !config.use_ema && config.rounding == adafactor::Rounding::nearest;
}

struct Pair {
  explicit Pair(const digest::Case& what) : plain(digest::plan_of(what)), differing(digest::plan_of(what)) {}

  adafactor::State plain;
  adafactor::State differing;
};

bool have_equal_states(const Pair& pair) {
  const auto nbytes = static_cast<std::size_t>(pair.plain.plan().state_nbytes());
  return nbytes == 0 || std::memcmp(pair.plain.memory(), pair.differing.memory(), nbytes) == 0;
}

// p + d, which is rounded once as d and once as p', is p' to that: in the arithmetic of the leaf the rounding of d is
// none.
void is_the_step(const digest::Arrays& before, const digest::Arrays& differences, const digest::Arrays& expected,
                 std::size_t leaf, bool in_arithmetic) {
  const adafactor::TensorView& d_view = differences.views()[leaf];
  const DType stored = before.views()[leaf].dtype;
  bool same = true;
  for (std::int64_t i = 0; i < before.count(leaf); ++i) {
    const double p = number_at(before.views()[leaf], i);
    const double d = number_at(d_view, i);
    const double wanted = number_at(expected.views()[leaf], i);
    const double room = 2 * half_unit(wanted, stored) + (in_arithmetic ? 0 : half_unit(d, d_view.dtype));
    if (in_arithmetic && stored == d_view.dtype) {
      const bool single = stored == DType::float32;
      same = same && wanted == (single ? static_cast<double>(static_cast<float>(p) + static_cast<float>(d)) : p + d);
    } else {
      same = same && std::fabs(p + d - wanted) <= room;
    }
  }
  CHECK(same);
}

// All calls of a case: by one state in place, by the other as differences, which are written in the arithmetic of the
// leaf, in the type of the gradient, or over the gradient.
enum class Where { arithmetic, gradient, over_gradient };

void are_the_steps(const digest::Case& what, Where where) {
  Pair pair(what);
  digest::Arrays parameters(what.leaves);
  digest::Arrays moved(what.leaves);
  digest::Arrays gradients(what.gradients);
  const auto leaves = where == Where::arithmetic ? in_arithmetic(what.leaves) : what.gradients;
  digest::Arrays own(leaves);
  parameters.fill(1, what.of_parameters);
  const adafactor::LearningRate rate{what.config.learning_rate, false};
  const digest::Arrays& differences = where == Where::over_gradient ? gradients : own;
  for (int call = 0; call < what.calls; ++call) {
    gradients.fill(1000 * (static_cast<std::uint64_t>(call) + 1), what.spread);
    const adafactor::Outcome plain = adafactor::step(
        pair.plain, {parameters.views(), gradients.views(), moved.views(), &rate, 1}, adafactor::cpu_backend());
    Call differing{parameters.views(), gradients.views(), differences.views(), &rate, 1};
    differing.output = Output::differences;
    const std::uint64_t before = parameters.fold_into(0);
    const adafactor::Outcome outcome = adafactor::step(pair.differing, differing, adafactor::cpu_backend());
    CHECK_EQ(parameters.fold_into(0), before);
    CHECK_EQ(outcome.updated, plain.updated);
    CHECK(have_equal_states(pair));
    for (std::size_t leaf = 0; leaf < what.leaves.size(); ++leaf) {
      is_the_step(parameters, differences, moved, leaf, where == Where::arithmetic);
      CHECK(plain.updated || is_zero(differences, leaf));
    }
    parameters.copy_from(moved);
  }
}

void differences_lead_where_the_step_leads() {
  adafactor::set_num_threads(2);
  int cases = 0;
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    if (!allows_differences(what.config)) continue;
    ++cases;
    for (const Where where : {Where::arithmetic, Where::gradient, Where::over_gradient}) are_the_steps(what, where);
  }
  CHECK(cases > 30);
}

// A leaf without a gradient, and every leaf of a call that is skipped, is to stay where it is.
void what_stays_has_no_difference() {
  const std::vector<adafactor::LeafSpec> leaves{{{3, 5}}, {{40, 50}}, {{7}, DType::bfloat16}, {{20, 3, 3}}};
  adafactor::Config config;
  config.weight_decay = 0.1;
  config.on_nonfinite = adafactor::OnNonfinite::skip;
  for (const bool skipped : {true, false}) {
    adafactor::State state(std::make_shared<const adafactor::Plan>(leaves, std::vector{config}));
    digest::Arrays parameters(leaves);
    digest::Arrays gradients(leaves);
    digest::Arrays differences(leaves);
    for (digest::Arrays* arrays : {&parameters, &gradients, &differences}) arrays->fill(5, {-2, 2, 0});
    std::vector<adafactor::TensorView> given(gradients.views(), gradients.views() + leaves.size());
    if (!skipped) given = {{}, given[1], {}, {}};
    const adafactor::LearningRate rate{0.1, false};
    Call call{parameters.views(), given.data(), differences.views(), &rate, 1};
    call.output = Output::differences;
    if (skipped) call.grad_multiplier = std::nan("");
    CHECK_EQ(adafactor::step(state, call, adafactor::cpu_backend()).skipped, skipped);
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      CHECK_EQ(is_zero(differences, leaf), skipped || leaf != 1);
    }
  }
}

// Over the gradients there is no place for the difference of a leaf whose gradient is absent, and it needs none. Only
// where its window of accumulation is completed it does, and is refused before anything is done.
void what_stays_needs_no_output(adafactor::OnNonfinite on_nonfinite) {
  const std::vector<adafactor::LeafSpec> leaves{{{3, 5}}, {{40, 50}}, {{7}, DType::bfloat16}, {{20, 3, 3}}, {{0, 4}}};
  adafactor::Config config;
  config.on_nonfinite = on_nonfinite;
  config.gradient_accumulation_steps = 2;
  const auto plan = std::make_shared<const adafactor::Plan>(leaves, std::vector{config});
  adafactor::State over(plan);
  adafactor::State apart(plan);
  digest::Arrays parameters(leaves);
  digest::Arrays gradients(leaves);
  digest::Arrays differences(leaves);
  parameters.fill(1, {-2, 2, 0});
  const adafactor::LearningRate rate{0.1, false};
  const auto step = [&](adafactor::State& state, const std::vector<adafactor::TensorView>& given, bool is_over) {
    Call call{parameters.views(), given.data(), is_over ? given.data() : differences.views(), &rate};
    call.output = Output::differences;
    return adafactor::step(state, call, adafactor::cpu_backend());
  };
  for (std::uint64_t i = 0; i < 4; ++i) {
    std::vector<adafactor::TensorView> given(gradients.views(), gradients.views() + leaves.size());
    given[0] = given[2] = given[4] = {};
    gradients.fill(5 + i, {-2, 2, 0});
    CHECK_EQ(step(apart, given, false).updated, i % 2 == 1);
    step(over, given, true);
    CHECK_EQ(std::memcmp(over.memory(), apart.memory(), static_cast<std::size_t>(plan->state_nbytes())), 0);
    for (const std::size_t leaf : {std::size_t{1}, std::size_t{3}}) {
      const auto nbytes = static_cast<std::size_t>(gradients.count(leaf)) * sizeof(float);
      CHECK_EQ(std::memcmp(gradients.views()[leaf].data, differences.views()[leaf].data, nbytes), 0);
    }
  }
  step(over, {gradients.views(), gradients.views() + leaves.size()}, true);
  CHECK_EQ(CHECK_THROWS(step(over, std::vector<adafactor::TensorView>(leaves.size()), true), adafactor::Error),
           std::string("leaf 0: none, expected an output for the difference of a leaf that is updated"));
  CHECK_EQ(over.counters.calls, 5);
}

void what_needs_the_new_parameter_is_refused() {
  const auto refusal = [](const adafactor::Config& config) {
    const std::vector<adafactor::LeafSpec> leaves{{{4}, DType::bfloat16}};
    adafactor::State state(std::make_shared<const adafactor::Plan>(leaves, std::vector{config}));
    digest::Arrays arrays(leaves);
    const adafactor::LearningRate rate{0.1, false};
    Call call{arrays.views(), arrays.views(), arrays.views(), &rate, 1};
    call.output = Output::differences;
    const std::string words = CHECK_THROWS(adafactor::step(state, call, adafactor::cpu_backend()), adafactor::Error);
    CHECK_EQ(state.counters.calls, 0);
    return words;
  };
  adafactor::Config averaging;
  averaging.use_ema = true;
  CHECK_EQ(refusal(averaging), std::string("use_ema: True, expected False for a call that writes differences"));
  adafactor::Config noisy;
  noisy.rounding = adafactor::Rounding::stochastic;
  CHECK_EQ(refusal(noisy),
           std::string("rounding: \"stochastic\", expected \"nearest\" for a call that writes differences"));
}

}  // namespace

int main() {
  differences_lead_where_the_step_leads();
  what_stays_has_no_difference();
  what_stays_needs_no_output(adafactor::OnNonfinite::skip);
  what_stays_needs_no_output(adafactor::OnNonfinite::propagate);
  what_needs_the_new_parameter_is_refused();
  return check::report();
}
