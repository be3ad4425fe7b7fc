// Small files as the operating system would have them, in a folder of their own.
#pragma once

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace check {

using Files = std::vector<std::pair<std::string, std::string>>;  // of each its path and its text

// What body(folder) answers while the files lie in the folder.
template <class Body>
auto with_files(const Files& files, const Body& body) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("adafactor_test_" + std::to_string(std::random_device{}()));
  for (const auto& [name, text] : files) {
    fs::create_directories((folder / name).parent_path());
    std::ofstream(folder / name) << text;
  }
  const auto answer = body(folder.string());
  fs::remove_all(folder);
  return answer;
}

}  // namespace check
