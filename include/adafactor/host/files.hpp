// What Linux says of a machine in small files.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// The text of a small file; none where there is no such file.
inline std::string text_of(const std::string& path) {
  std::string text;
  if (std::FILE* file = std::fopen(path.c_str(), "r")) {
    char piece[4096];
    for (std::size_t n = 0; (n = std::fread(piece, 1, sizeof piece, file)) > 0;) text.append(piece, n);
    std::fclose(file);
  }
  return text;
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
