// Knobs by name: Python's Config hands over a dictionary, and takes its defaults, ranges and words from here.
#include <optional>
#include <string>
#include <type_traits>

#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

template <class T>
inline constexpr bool is_choice = std::is_enum_v<T>;

// The word of a choice as Python spells it: True and False are not strings there.
py::object word(const Choices& choices, std::size_t index) {
  const std::string text = choices.words[index];
  if (text == "True") return py::bool_(true);
  if (text == "False") return py::bool_(false);
  return py::str(text);
}

py::list words(const Choices& choices) {
  py::list list;
  for (std::size_t i = 0; i < std::size(choices.words) && choices.words[i]; ++i) list.append(word(choices, i));
  return list;
}

// Fills a Config from a dictionary in which every knob has a value of the right kind.
struct Reader {
  const py::dict& knobs;
  Config& config;

  py::object at(const char* name) const { return knobs[name]; }

  template <class T>
  void operator()(const char* name, T Config::* knob, const Interval&, const char*) const {
    config.*knob = at(name).cast<T>();
  }
  template <class T>
  void operator()(const char* name, T Config::* knob, const char*) const {
    config.*knob = at(name).cast<T>();
  }
  template <class T>
  void operator()(const char* name, T Config::* knob, const Choices& choices, const char*) const {
    const py::object value = at(name);
    std::string allowed;
    for (std::size_t i = 0; i < std::size(choices.words) && choices.words[i]; ++i) {
      const py::object choice = word(choices, i);
      if (value.is(choice) || (py::isinstance<py::str>(value) && value.equal(choice))) {
        config.*knob = static_cast<T>(i);
        return;
      }
      allowed += (i ? ", " : "") + py::repr(choice).cast<std::string>();
    }
    throw Error({.knob = name, .expected = "one of " + allowed, .found = py::repr(value).cast<std::string>()});
  }
};

// Collects {name: (default, choices or None, range in words or None, sentence)}.
struct Describer {
  py::dict& table;

  template <class T>
  static py::object value(const T& member) {
    return py::cast(member);
  }
  template <class T>
  void operator()(const char* name, T Config::* knob, const Interval& range, const char* sentence) const {
    table[name] = py::make_tuple(value(Config{}.*knob), py::none(), detail::words(range), sentence);
  }
  template <class T>
  void operator()(const char* name, T Config::* knob, const char* sentence) const {
    table[name] = py::make_tuple(value(Config{}.*knob), py::none(), py::none(), sentence);
  }
  template <class T>
  void operator()(const char* name, T Config::* knob, const Choices& choices, const char* sentence) const {
    const auto index = static_cast<std::size_t>(Config{}.*knob);
    table[name] = py::make_tuple(word(choices, index), words(choices), py::none(), sentence);
  }
};

}  // namespace

Config config_from(const py::dict& knobs) {
  Config config;
  visit_knobs(Reader{knobs, config});
  return config;
}

void bind_config(py::module_& m) {
  m.def(
      "check_config", [](const py::dict& knobs) { validate(config_from(knobs)); }, py::arg("knobs"),
      "Raises Error(knob, expected, found) at the first knob that is out of range or contradicts another.");
  m.def(
      "knobs",
      [] {
        py::dict table;
        visit_knobs(Describer{table});
        return table;
      },
      "{name: (default, allowed words or None, range in words or None, one sentence)} of every knob.");
}

}  // namespace adafactor::bindings
