// Views of Eigen's matrices: every kind of them gives the bits of the plain array with the same numbers, and writes
// where the matrix is and nowhere else; what cannot be viewed is refused by the compiler.
#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/eigen.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::DType;
using adafactor::Optimizer;
using adafactor::view;
using RowMajorXf = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using AnyStride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
using Numbers = std::array<std::int64_t, 2>;

template <class M>
concept Viewable = requires(M&& matrix) { adafactor::view(std::forward<M>(matrix)); };

static_assert(Viewable<Eigen::MatrixXf&> && Viewable<const Eigen::MatrixXd&> && Viewable<Eigen::Array33f&>);
static_assert(!Viewable<Eigen::MatrixXi&> && !Viewable<Eigen::MatrixXcf&>);
static_assert(!Viewable<Eigen::Matrix<long double, 2, 2>&> && !Viewable<Eigen::Matrix<Eigen::half, 2, 2>&>);
static_assert(!Viewable<Eigen::MatrixXf> && !Viewable<const Eigen::VectorXd>);  // temporaries
static_assert(!Viewable<decltype(Eigen::MatrixXf() + Eigen::MatrixXf())>);      // nowhere in memory
static_assert(!Viewable<std::vector<float>&> && !Viewable<float*&>);
// A view of what is const is a gradient and no parameter.
using Written = decltype(view(std::declval<Eigen::MatrixXf&>()));
using Read = decltype(view(std::declval<const Eigen::MatrixXf&>()));
using ReadMap = decltype(view(std::declval<Eigen::Map<const Eigen::MatrixXf>>()));
static_assert(std::is_convertible_v<Written, adafactor::ParameterArray>);
static_assert(!std::is_convertible_v<Read, adafactor::ParameterArray>);
static_assert(!std::is_convertible_v<ReadMap, adafactor::ParameterArray>);
static_assert(std::is_convertible_v<Read, adafactor::GradientArray>);
static_assert(std::is_convertible_v<Written, adafactor::GradientArray>);

template <class M>
void fill(M&& matrix, std::uint64_t seed) {
  for (Eigen::Index i = 0; i < matrix.rows(); ++i) {
    for (Eigen::Index j = 0; j < matrix.cols(); ++j) {
      matrix(i, j) = digest::number<float>(seed, static_cast<std::size_t>(i * matrix.cols() + j), {-3, 1, 0});
    }
  }
}

void a_view_tells_shape_and_strides() {
  Eigen::MatrixXf columns(5, 7);
  CHECK_EQ(view(columns).shape, (Numbers{5, 7}));
  CHECK_EQ(view(columns).strides, (Numbers{1, 5}));
  CHECK_EQ(view(columns).rank, 2);
  RowMajorXf rows(5, 7);
  CHECK_EQ(view(rows).strides, (Numbers{7, 1}));
  CHECK_EQ(view(rows.transpose()).shape, (Numbers{7, 5}));
  CHECK_EQ(view(rows.transpose()).strides, (Numbers{1, 7}));
  const auto block = columns.block(1, 2, 3, 4);
  CHECK(view(block).data == &columns(1, 2));
  CHECK_EQ(view(block).shape, (Numbers{3, 4}));
  CHECK_EQ(view(block).strides, (Numbers{1, 5}));
  Eigen::VectorXd vector(9);
  CHECK_EQ(view(vector).rank, 1);
  CHECK_EQ(view(vector).shape[0], 9);
  CHECK_EQ(view(columns.row(2)).rank, 1);
  CHECK_EQ(view(columns.row(2)).shape[0], 7);
  CHECK_EQ(view(columns.row(2)).strides[0], 5);
  CHECK_EQ(view(vector.segment(2, 4)).shape[0], 4);
}

// Steps a parameter and a gradient of 6 x 10 through their views and compares with the plain arrays.
template <class P, class G>
void gives_the_bits_of_plain_arrays(P&& parameter, G&& gradient) {
  fill(parameter, 1);
  fill(gradient, 2);
  RowMajorXf expected = parameter;
  const RowMajorXf expected_gradient = gradient;
  adafactor::Config config;
  config.learning_rate = 0.05;
  config.clip_threshold = 0.5;
  const std::vector<adafactor::LeafSpec> leaves{{{6, 10}, DType::float32}};
  Optimizer by_view{config, leaves};
  Optimizer by_pointer{config, leaves};
  for (int call = 0; call < 3; ++call) {
    by_view.step({view(parameter)}, {view(gradient)});
    by_pointer.step({expected.data()}, {expected_gradient.data()});
  }
  CHECK((parameter.array() == expected.array()).all());
  CHECK((gradient.array() == expected_gradient.array()).all());
}

void every_kind_of_matrix_gives_the_same_bits() {
  Eigen::MatrixXf columns(6, 10);
  const Eigen::MatrixXf zeros = Eigen::MatrixXf::Zero(6, 10);
  RowMajorXf rows(6, 10);
  Eigen::Matrix<float, 6, 10> fixed;
  Eigen::ArrayXXf array(6, 10);
  gives_the_bits_of_plain_arrays(columns, rows);
  gives_the_bits_of_plain_arrays(rows, columns);
  gives_the_bits_of_plain_arrays(fixed, array);
  gives_the_bits_of_plain_arrays(array, fixed);

  RowMajorXf transposed(10, 6);
  gives_the_bits_of_plain_arrays(transposed.transpose(), rows);

  std::vector<float> memory(1000);
  std::vector<float> more(1000);
  Eigen::Map<Eigen::MatrixXf> map(memory.data(), 6, 10);
  Eigen::Map<RowMajorXf, Eigen::Unaligned, AnyStride> strided(more.data() + 1, 6, 10, AnyStride(40, 3));
  gives_the_bits_of_plain_arrays(map, strided);
  gives_the_bits_of_plain_arrays(strided, map);
  Eigen::Ref<Eigen::MatrixXf> reference(columns);
  Eigen::Ref<RowMajorXf, 0, AnyStride> strided_reference(strided);
  gives_the_bits_of_plain_arrays(reference, strided_reference);
  CHECK((columns.array() != zeros.array()).any());  // the reference wrote where it refers to
}

void a_block_is_written_and_nothing_around_it() {
  Eigen::MatrixXf whole = Eigen::MatrixXf::Constant(20, 30, -7.0f);
  RowMajorXf gradients = RowMajorXf::Constant(9, 40, 3.0f);
  gives_the_bits_of_plain_arrays(whole.block(3, 4, 6, 10), gradients.block<6, 10>(2, 11));
  CHECK_EQ((whole.array() == -7.0f).count(), 20 * 30 - 6 * 10);
  CHECK_EQ((gradients.array() == 3.0f).count(), 9 * 40 - 6 * 10);
}

void vectors_are_leaves_of_one_axis() {
  Eigen::VectorXd weights = Eigen::VectorXd::LinSpaced(12, 1, 2);
  Eigen::VectorXd expected = weights;
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> table(12, 3);
  table.setRandom();
  const Eigen::VectorXd gradient = table.col(1);
  Optimizer strided{adafactor::Config{}, {{{12}, DType::float64}}};
  Optimizer plain{adafactor::Config{}, {{{12}, DType::float64}}};
  strided.step({view(weights)}, {view(std::as_const(table).col(1))});
  plain.step({expected.data()}, {gradient.data()});
  CHECK((weights.array() == expected.array()).all());
  // A matrix of one column is none: its leaf has two axes.
  Eigen::MatrixXd column(12, 1);
  CHECK_THROWS(plain.step({view(column)}, {gradient.data()}), adafactor::Error);
}

void overlapping_blocks_are_refused() {
  Eigen::MatrixXf whole = Eigen::MatrixXf::Ones(20, 30);
  const Eigen::MatrixXf gradient = Eigen::MatrixXf::Ones(6, 10);
  const adafactor::LeafSpec leaf{{6, 10}, DType::float32};
  Optimizer optimizer{adafactor::Config{}, {leaf, leaf}};
  const auto step = [&](Eigen::Index row) {
    return optimizer.step({view(whole.block(0, 0, 6, 10)), view(whole.block(row, 3, 6, 10))},
                          {view(gradient), view(gradient)});
  };
  CHECK_EQ(CHECK_THROWS(step(5), adafactor::Error),
           std::string("params leaf 0: shares memory with params leaf 1, expected memory of its own"));
  CHECK((whole.array() == 1.0f).all());
  CHECK(step(6).updated);  // side by side in the same columns
}

}  // namespace

int main() {
  a_view_tells_shape_and_strides();
  every_kind_of_matrix_gives_the_same_bits();
  a_block_is_written_and_nothing_around_it();
  vectors_are_leaves_of_one_axis();
  overlapping_blocks_are_refused();
  return check::report();
}
