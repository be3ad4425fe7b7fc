// The binary interface of DLPack, as much of it as is read here: https://dmlc.github.io/dlpack/latest/c_api.html,
// version 1. Declared here because no package of its headers can be relied on where this is built.
#pragma once

#include <cstdint>

namespace adafactor::bindings::dlpack {

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};
inline constexpr std::uint32_t kMajorVersion = 1;

// Kinds of devices; a Device holds its number, since a producer may know more of them.
enum DeviceKind : std::int32_t {
  kCpu = 1,
  kCuda = 2,
  kCudaHost = 3,
  kOpenCl = 4,
  kVulkan = 7,
  kMetal = 8,
  kRocm = 10,
  kRocmHost = 11,
  kCudaManaged = 13,
  kOneApi = 14,
};
struct Device {
  std::int32_t kind;
  std::int32_t index;
};

// Kinds of numbers, in the order of their codes.
inline constexpr const char* kCodeNames[] = {"int",
                                             "uint",
                                             "float",
                                             "handle",
                                             "bfloat",
                                             "complex",
                                             "bool",
                                             "float8_e3m4",
                                             "float8_e4m3",
                                             "float8_e4m3b11fnuz",
                                             "float8_e4m3fn",
                                             "float8_e4m3fnuz",
                                             "float8_e5m2",
                                             "float8_e5m2fnuz",
                                             "float8_e8m0fnu",
                                             "float6_e2m3fn",
                                             "float6_e3m2fn",
                                             "float4_e2m1fn"};
inline constexpr std::uint8_t kFloat = 2;
inline constexpr std::uint8_t kBool = 6;
struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t rank;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null means C order, which versions before 1.2 allow
  std::uint64_t byte_offset;
};

// A tensor with what gives it back: the deleter, which may be null, is called once, by whoever took the tensor.
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};
inline constexpr const char* kLegacyName = "dltensor";
inline constexpr const char* kUsedLegacyName = "used_dltensor";

// What a managed tensor is since version 1. Where the major version is another one, all after the deleter may mean
// something else.
struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};
inline constexpr const char* kVersionedName = "dltensor_versioned";
inline constexpr const char* kUsedVersionedName = "used_dltensor_versioned";
inline constexpr std::uint64_t kReadOnly = 1;
inline constexpr std::uint64_t kIsCopied = 2;

// Functions that a type hands out in a capsule, so that no Python runs between its arrays and who reads them. Each
// returns 0, or -1 with a Python exception set.
struct ExchangeApi {
  Version version;
  const ExchangeApi* previous;  // of an older major version, or null
  void* allocate;
  int (*managed_from_object)(void* object, ManagedTensorVersioned** out);
  void* to_object;
  int (*tensor_from_object)(void* object, Tensor* out);  // or null; what it fills in belongs to the object
  int (*current_work_stream)(std::int32_t device_kind, std::int32_t device_index, void** stream);  // or null
};
inline constexpr const char* kExchangeAttribute = "__dlpack_c_exchange_api__";
inline constexpr const char* kExchangeName = "dlpack_exchange_api";

}  // namespace adafactor::bindings::dlpack
