// A program of another project that steps an array in the memory of a GPU.
#include <adafactor/adafactor.hpp>
#include <iostream>
#include <stdexcept>
#include <vector>

#include "cuda/optimizer.hpp"

namespace {

// What a program would do by cudaMalloc and cudaMemcpy.
float* on_device(const adafactor::cuda::Functions& cuda, const std::vector<float>& values) {
  const auto nbytes = static_cast<std::int64_t>(values.size() * sizeof(float));
  void* memory = nullptr;
  adafactor::cuda::check(cuda.allocate(nbytes, &memory));
  adafactor::cuda::check(cuda.copy(memory, values.data(), nbytes, nullptr));
  return static_cast<float*>(memory);
}

}  // namespace

int main() {
  try {
    const adafactor::cuda::Functions& cuda = *adafactor_cuda_functions();
    adafactor::Config config;
    config.learning_rate = 0.1;
    adafactor::cuda::Optimizer optimizer{config, {{{64, 32}, adafactor::DType::float32}}};
    std::vector<float> values(64 * 32, 1.0F);
    float* const parameters = on_device(cuda, values);
    float* const gradients = on_device(cuda, values);
    optimizer.step({parameters}, {gradients});
    optimizer.finish();
    const auto nbytes = static_cast<std::int64_t>(values.size() * sizeof(float));
    adafactor::cuda::check(cuda.copy(values.data(), parameters, nbytes, nullptr));
    optimizer.array<float>(0, adafactor::StateKind::row);  // waits
    std::cout << values.front() << '\n';
  } catch (const std::runtime_error& error) {
    std::cout << error.what() << '\n';
  }
}
