// The cases of tests/data/digest.txt and the digest of their results; tests/support/digest.py says the same in Python.
// Everything here is arithmetic of integers, so that both languages make the same numbers to the last bit.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/cpu/backend.hpp"
#include "adafactor/cpu/kernels.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/lanes/formats.hpp"

namespace digest {

// The finalizer of splitmix64: every bit of the result depends on all of the word.
inline std::uint64_t mix(std::uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9U;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebU;
  return word ^ (word >> 31);
}

inline std::uint64_t mixed_index(std::size_t index) {
  return mix((static_cast<std::uint64_t>(index) + 1) * 0x9e3779b97f4a7c15U);
}

// Numbers are m * 2^e with e in [low, high] and |m| <= 1; one in `zeros` of them is zero (0: none).
struct Spread {
  int low;
  int high;
  unsigned zeros;
};

// A number of so many bits that depends on the seed and the index alone.
template <class T>
T number(std::uint64_t seed, std::size_t index, const Spread& spread, int fraction = sizeof(T) == 8 ? 53 : 24) {
  const std::uint64_t word = mix(mixed_index(index) + seed * 0x632be59bd9b4e019U);
  const auto whole = static_cast<std::int64_t>(word >> (64 - fraction)) - (std::int64_t{1} << (fraction - 1));
  const int exponent =
      spread.low + static_cast<int>((word & 0x7ff) % static_cast<unsigned>(spread.high - spread.low + 1));
  if (spread.zeros != 0 && mix(word) % spread.zeros == 0) return 0;
  return std::ldexp(static_cast<T>(whole), exponent - (fraction - 1));
}

// Each element's bits are mixed with its index, then added up.
template <class Word>
std::uint64_t fold(std::uint64_t digest, const std::byte* memory, std::size_t count) {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, memory + i * sizeof word, sizeof word);
    total += mix(word + mixed_index(i));
  }
  return mix(digest ^ total);
}

inline std::uint64_t fold(std::uint64_t digest, const std::byte* memory, std::int64_t count, adafactor::DType dtype) {
  const auto elements = static_cast<std::size_t>(count);
  switch (adafactor::item_size(dtype)) {
    case 8:
      return fold<std::uint64_t>(digest, memory, elements);
    case 4:
      return fold<std::uint32_t>(digest, memory, elements);
    default:
      return fold<std::uint16_t>(digest, memory, elements);
  }
}

struct Case {
  std::string name;
  std::string expected;
  int calls = 0;
  Spread spread{};
  Spread of_parameters{-2, 2, 0};
  std::vector<adafactor::LeafSpec> leaves;
  std::vector<adafactor::LeafSpec> gradients;  // the same shapes, in the gradients' types
  adafactor::Config config;
};

// Sets the knob of one name from its text, in Python's words.
struct SetKnob {
  adafactor::Config& config;
  std::string_view name;
  const std::string& text;
  bool found = false;

  template <class T>
  T parse() const {
    if constexpr (std::is_same_v<T, bool>) {
      return text == "True";
    } else {
      return static_cast<T>(std::stod(text));
    }
  }
  template <class T>
  void assign(const char* knob, T adafactor::Config::* member) {
    if (name != knob) return;
    found = true;
    config.*member = parse<T>();
  }
  template <class T>
  void assign(const char* knob, std::optional<T> adafactor::Config::* member) {
    if (name != knob) return;
    found = true;
    if (text == "None") {
      (config.*member).reset();
    } else {
      config.*member = parse<T>();
    }
  }
  template <class T, class Allowed>
  void operator()(const adafactor::Knob<T, Allowed>& knob) {
    assign(knob.name, knob.member);
  }
  template <class T>
  void operator()(const adafactor::Knob<T, adafactor::Choices>& knob) {
    if (name != knob.name) return;
    for (int i = 0; i < 4 && knob.allowed.words[i] != nullptr; ++i) {
      if (text != knob.allowed.words[i]) continue;
      found = true;
      config.*knob.member = static_cast<T>(i);
    }
  }
};

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> fields;
  std::istringstream stream(text);
  for (std::string field; std::getline(stream, field, separator);) {
    if (!field.empty()) fields.push_back(field);
  }
  return fields;
}

inline adafactor::DType dtype_named(const std::string& text) {
  for (const adafactor::DType dtype : adafactor::kDTypes) {
    if (text == adafactor::name(dtype)) return dtype;
  }
  throw std::runtime_error("no such dtype: " + text);
}

// "float32[3,4]", or "bfloat16:float32[3,4]" where the gradient's type is another. The path is the index of the leaf.
inline void parse_leaf(const std::string& text, Case& what) {
  const std::size_t open = text.find('[');
  const std::vector<std::string> dtypes = split(text.substr(0, open), ':');
  const std::string index = std::to_string(what.leaves.size());
  adafactor::LeafSpec spec;
  spec.dtype = dtype_named(dtypes.front());
  spec.path = std::string(3 - index.size(), '0') + index;
  for (const std::string& extent : split(text.substr(open + 1, text.size() - open - 2), ',')) {
    spec.shape.push_back(std::stoll(extent));
  }
  what.leaves.push_back(spec);
  spec.dtype = dtype_named(dtypes.back());
  what.gradients.push_back(spec);
}

inline Case parse_case(const std::string& line) {
  const std::vector<std::string> fields = split(line, '|');
  if (fields.size() < 5) throw std::runtime_error("not a case: " + line);
  Case result;
  std::istringstream(fields[0]) >> result.name;
  std::istringstream(fields[1]) >> result.expected;
  std::istringstream(fields[2]) >> result.calls;
  char colon = 0;
  std::istringstream numbers(fields[3]);
  numbers >> result.spread.low >> colon >> result.spread.high >> result.spread.zeros;
  Spread of_parameters{};
  if (numbers >> of_parameters.low >> colon >> of_parameters.high) result.of_parameters = of_parameters;
  std::istringstream leaves(fields[4]);
  for (std::string leaf; leaves >> leaf;) parse_leaf(leaf, result);
  std::istringstream knobs(fields.size() > 5 ? fields[5] : "");
  for (std::string knob; knobs >> knob;) {
    const std::size_t equals = knob.find('=');
    const std::string name = knob.substr(0, equals);
    const std::string value = knob.substr(equals + 1);
    SetKnob setter{result.config, name, value};
    adafactor::visit_knobs(setter);
    if (!setter.found) throw std::runtime_error("no such knob or word: " + knob);
  }
  return result;
}

// Where the cases lie.
inline std::string data_file() {
  const std::filesystem::path here = __FILE__;
  return (here.parent_path() / "../../data/digest.txt").string();
}

inline std::vector<Case> read_cases(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.front() != '#') cases.push_back(parse_case(line));
  }
  return cases;
}

// The arrays of one kind (parameters, gradients, outputs), each in C order.
class Arrays {
 public:
  explicit Arrays(const std::vector<adafactor::LeafSpec>& leaves) : leaves_(leaves), memory_(leaves.size()) {
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      // A view without data would be of a gradient that is absent.
      const std::int64_t elements = std::max<std::int64_t>(count(i), 1);
      memory_[i].resize(static_cast<std::size_t>(elements * adafactor::item_size(leaves[i].dtype)));
      const int rank = static_cast<int>(leaves[i].shape.size());
      views_.push_back({memory_[i].data(), leaves[i].dtype, {}, rank, leaves[i].shape.data(), nullptr});
    }
  }
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  std::int64_t count(std::size_t leaf) const {
    std::int64_t size = 1;
    for (const std::int64_t extent : leaves_[leaf].shape) size *= extent;
    return size;
  }
  const adafactor::TensorView* views() const { return views_.data(); }

  void fill(std::uint64_t seed, const Spread& spread) {
    for (std::size_t leaf = 0; leaf < leaves_.size(); ++leaf) {
      switch (leaves_[leaf].dtype) {
        case adafactor::DType::float64:
          fill_leaf<double>(leaf, [&](std::size_t i) { return number<double>(seed + leaf, i, spread, 53); });
          break;
        case adafactor::DType::float32:
          fill_leaf<float>(leaf, [&](std::size_t i) { return number<float>(seed + leaf, i, spread, 24); });
          break;
        case adafactor::DType::float16:
          fill_leaf<adafactor::Float16>(leaf, [&](std::size_t i) {
            return adafactor::round_to<adafactor::Float16>(number<float>(seed + leaf, i, spread, 11));
          });
          break;
        case adafactor::DType::bfloat16:
          fill_leaf<adafactor::Bfloat16>(leaf, [&](std::size_t i) {
            return adafactor::round_to<adafactor::Bfloat16>(number<float>(seed + leaf, i, spread, 8));
          });
          break;
      }
    }
  }

  // Takes over the elements of arrays of the same leaves.
  void copy_from(const Arrays& other) {
    for (std::size_t leaf = 0; leaf < memory_.size(); ++leaf) {
      std::copy(other.memory_[leaf].begin(), other.memory_[leaf].end(), memory_[leaf].begin());
    }
  }

  std::uint64_t fold_into(std::uint64_t digest) const {
    for (std::size_t leaf = 0; leaf < leaves_.size(); ++leaf) {
      digest = fold(digest, memory_[leaf].data(), count(leaf), leaves_[leaf].dtype);
    }
    return digest;
  }

 private:
  template <class T, class Make>
  void fill_leaf(std::size_t leaf, const Make& make) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(count(leaf)); ++i) {
      const T value = make(i);
      std::memcpy(memory_[leaf].data() + i * sizeof value, &value, sizeof value);
    }
  }

  const std::vector<adafactor::LeafSpec>& leaves_;
  std::vector<std::vector<std::byte>> memory_;
  std::vector<adafactor::TensorView> views_;
};

inline std::string hexadecimal(std::uint64_t number) {
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; number >>= 4) text[i] = "0123456789abcdef"[number & 15];
  return text;
}

struct Result {
  std::string digest;
  int threads = 0;  // the most that a call had
};

// What a report says: the norm of all gradients, then the numbers of each leaf; one NaN is like another.
inline std::uint64_t fold_report(std::uint64_t digest, const adafactor::Stepper& stepper,
                                 const adafactor::Outcome& outcome) {
  std::vector<double> numbers{outcome.global_grad_norm};
  for (std::size_t leaf = 0; leaf < stepper.plan().leaves().size(); ++leaf) {
    const adafactor::LeafReport report = adafactor::report(stepper, leaf, outcome.updated);
    numbers.insert(numbers.end(),
                   {report.grad_norm, report.param_rms, report.update_rms, report.clip_factor, report.step_size});
  }
  for (double& number : numbers) {
    if (std::isnan(number)) number = std::numeric_limits<double>::quiet_NaN();
  }
  return fold<std::uint64_t>(digest, reinterpret_cast<const std::byte*>(numbers.data()), numbers.size());
}

inline std::shared_ptr<const adafactor::Plan> plan_of(const Case& what) {
  return std::make_shared<const adafactor::Plan>(what.leaves, std::vector{what.config});
}

// A state in memory of its own, on which `step(state, call)` makes a call.
template <class Step>
class OwnState {
 public:
  OwnState(const Case& what, const Step& step) : state_(plan_of(what)), step_(step) {}

  const adafactor::Stepper& stepper() const { return state_; }
  adafactor::Outcome make(const adafactor::Call& call) { return step_(state_, call); }
  // Where an array of the state lies.
  const std::byte* array(std::size_t leaf, adafactor::StateKind kind) const {
    return state_.memory() + state_.plan().leaves()[leaf].state[static_cast<std::size_t>(kind)].offset;
  }

 private:
  adafactor::State state_;
  const Step& step_;
};

// All calls of a case, in place or into other arrays, on whatever holds its state.
template <class Holder>
Result run_on(Holder& holder, const Case& what, int threads, bool in_place) {
  adafactor::set_num_threads(threads);
  Arrays first(what.leaves);
  Arrays second(what.leaves);
  Arrays gradients(what.gradients);
  first.fill(1, what.of_parameters);
  Arrays* parameters = &first;
  Arrays* outputs = in_place ? &first : &second;
  const adafactor::LearningRate rate{what.config.learning_rate, false};
  Result result;
  std::uint64_t digest = 0;
  for (int call = 0; call < what.calls; ++call) {
    gradients.fill(1000 * (static_cast<std::uint64_t>(call) + 1), what.spread);
    const adafactor::Outcome outcome =
        holder.make(adafactor::Call{parameters->views(), gradients.views(), outputs->views(), &rate, 1});
    digest = fold_report(digest, holder.stepper(), outcome);
    result.threads = std::max(result.threads, outcome.threads);
    std::swap(parameters, outputs);
  }
  adafactor::set_num_threads(0);
  digest = parameters->fold_into(digest);
  const std::vector<adafactor::LeafPlan>& leaves = holder.stepper().plan().leaves();
  for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
    for (std::size_t kind = 0; kind < adafactor::kStateKinds; ++kind) {
      const adafactor::StateArray& array = leaves[leaf].state[kind];
      if (!array.exists()) continue;
      digest = fold(digest, holder.array(leaf, static_cast<adafactor::StateKind>(kind)), array.count, array.dtype);
    }
  }
  result.digest = hexadecimal(digest);
  return result;
}

// The same on a state in memory of its own; `step(state, call)` makes a call.
template <class Step>
Result run_by(const Case& what, int threads, bool in_place, const Step& step) {
  OwnState<Step> holder(what, step);
  return run_on(holder, what, threads, in_place);
}

// The same with the kernels of one instruction set.
inline Result run(const Case& what, int threads, bool in_place,
                  const adafactor::KernelTable& kernels = adafactor::compiled_kernels()) {
  const adafactor::CpuBackend backend(kernels);
  return run_by(what, threads, in_place, [&](adafactor::State& state, const adafactor::Call& call) {
    return adafactor::step(state, call, backend);
  });
}

}  // namespace digest
