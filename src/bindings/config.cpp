// Knobs by name: Python's Config hands over a dictionary, and takes its defaults, ranges and words from here.
#include <optional>
#include <string>

#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

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

  template <class T, class Allowed>
  void operator()(const Knob<T, Allowed>& knob) const {
    config.*knob.member = at(knob.name).template cast<T>();
  }
  template <class T>
  void operator()(const Knob<T, Choices>& knob) const {
    const py::object value = at(knob.name);
    std::string allowed;
    for (std::size_t i = 0; i < std::size(knob.allowed.words) && knob.allowed.words[i]; ++i) {
      const py::object choice = word(knob.allowed, i);
      if (value.is(choice) || (py::isinstance<py::str>(value) && value.equal(choice))) {
        config.*knob.member = static_cast<T>(i);
        return;
      }
      allowed += (i ? ", " : "") + py::repr(choice).cast<std::string>();
    }
    throw Error({.knob = knob.name, .expected = "one of " + allowed, .found = py::repr(value).cast<std::string>()});
  }
};

// Collects {name: (default, choices or None, range in words or None, sentence)}.
struct Describer {
  py::dict& table;

  template <class T>
  void operator()(const Knob<T, Interval>& knob) const {
    table[knob.name] =
        py::make_tuple(py::cast(Config{}.*knob.member), py::none(), detail::words(knob.allowed), knob.sentence);
  }
  template <class T>
  void operator()(const Knob<T, Either>& knob) const {
    table[knob.name] = py::make_tuple(py::cast(Config{}.*knob.member), py::none(), py::none(), knob.sentence);
  }
  template <class T>
  void operator()(const Knob<T, Choices>& knob) const {
    const auto index = static_cast<std::size_t>(Config{}.*knob.member);
    table[knob.name] = py::make_tuple(word(knob.allowed, index), words(knob.allowed), py::none(), knob.sentence);
  }
};

}  // namespace

Config config_from(const py::dict& knobs) {
  Config config;
  visit_knobs(Reader{knobs, config});
  return config;
}

void bind_config(py::module_& m) {
  py::list of_call;
  visit_knobs([&](const auto& knob) {
    if (knob.scope == Scope::call) of_call.append(knob.name);
  });
  m.attr("whole_call_knobs") = of_call;
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
