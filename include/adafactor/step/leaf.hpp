// One leaf during one step, in four parts by lifetime: what the plan fixed, where its arrays lie, by which numbers the
// call treats it, what the phases found. Plain data, so that every instruction set and every device sees the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/plan/tile.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// One axis on a walk through memory.
struct Axis {
  std::int64_t extent;
  std::int64_t stride;  // in elements
};

// An array of the caller's in the order of the leaf's layout. Slices and columns may each run over several axes, the
// last the fastest: an unfactored leaf of any rank is one row, and its memory need not be contiguous.
struct Walk {
  std::byte* data = nullptr;
  std::int64_t row_stride = 0;
  const Axis* slice_axes = nullptr;
  const Axis* col_axes = nullptr;
  int slice_rank = 0;
  int col_rank = 0;
  DType dtype = DType::float32;
  bool contiguous = false;  // the columns of a row lie side by side
  bool whole = false;       // all elements lie side by side, in the order of the layout
};

// The state of one leaf, each array in the layout's order: [slice][row], [slice][col] or [slice][row][col].
struct StateArrays {
  void* row = nullptr;
  void* col = nullptr;
  void* full = nullptr;
  void* momentum = nullptr;
  void* average = nullptr;
  void* accumulator = nullptr;
};

// The state of one leaf before a call and after it; the same arrays where it is in place.
struct StateSlots {
  StateArrays before;
  StateArrays after;
};

// What the random bits of one leaf in one update depend on, beside the element; philox.hpp says how.
struct Noise {
  std::uint64_t key = 0;
  std::uint64_t update = 0;
  std::int64_t first = 0;  // the element of the whole leaf that a part begins with
};

// What a call does to a leaf, if nothing keeps it from that.
enum class Action : std::uint8_t {
  update,      // the whole rule
  keep,        // the parameter stays (it is copied where the output is another array); the average may still move
  accumulate,  // the gradient is added to the accumulator
};

// What the plan fixed of a leaf: how it is laid out and cut. Written when the workspace is made.
struct LeafShape {
  DType arithmetic = DType::float32;
  bool factored = false;
  bool shares_rows = false;  // whether other parts have more rows of its slices, or more columns
  bool shares_cols = false;
  std::int64_t slices = 1;
  std::int64_t rows = 1;
  std::int64_t cols = 1;
  std::int64_t row_blocks = 1;  // tiles that one column of a slice passes through
  std::int64_t col_blocks = 1;  // tiles that one row of a slice passes through
  std::int64_t first_tile = 0;
  std::int64_t tile_count = 0;
  std::int64_t whole_rows = 1;  // of all parts, where the leaf is one of several
  std::int64_t whole_cols = 1;
  std::int64_t whole_size = 1;

  ADAFACTOR_ALWAYS_INLINE std::int64_t size() const { return slices * rows * cols; }
  // Whether a tile may hold several slices; otherwise it is one, or a part of one.
  ADAFACTOR_ALWAYS_INLINE bool tiles_hold_slices() const { return tile_count < slices * row_blocks * col_blocks; }
};

// Where the arrays of a leaf lie. Written by places.hpp: once, and for each call whose arrays have moved.
struct LeafArrays {
  // The caller's. A gradient without data is absent and reads as zero.
  Walk gradient;
  Walk parameter;
  Walk parameter_out;
  Walk elements;  // which element, in C order of the whole leaf, lies where, of a parameter that is rounded by noise

  StateArrays before;
  StateArrays after;

  // Scratch. `row_moment` and `col_moment` hold means of g^2 after `moments` and the new moments after `factors`.
  void* row_moment = nullptr;
  void* col_moment = nullptr;
  void* col_factor = nullptr;
  void* row_factor = nullptr;     // null unless slices are small
  double* mean_moment = nullptr;  // M of each slice; until `factors` its sum of G^2, where tiles hold several; or null
  double* row_partial = nullptr;  // [slice][col block][row], where rows are cut
  double* col_partial = nullptr;  // [slice][row block][col], where columns are cut

  bool asks_for_pages = false;  // whether the loops over long rows do, before they come to them (host/streams.hpp)

  double* shared = nullptr;  // what the parts of a leaf add up, as SharedNumbers says; null: it is whole
};

// By which numbers a call treats a leaf. Written by rule.hpp, before the first phase.
struct Rule {
  Action action = Action::keep;

  // Gradient links.
  double multiplier = 1;     // of g where it is loaded
  bool accumulates = false;  // g <- (accumulator + multiplier g) mean_factor
  double mean_factor = 1;    // 1 / gradient_accumulation_steps
  double report_scale = 1;   // the report multiplies norms by it: 1 / N in an open window of accumulation, else 1
  double clip_value = 0;     // 0: no clipping by value

  double beta_2 = 0;
  double one_minus_beta_2 = 1;
  double epsilon_1 = 0;
  bool clamps = false;  // epsilon_1_mode = clamp
  double rho = 0;
  double epsilon_2 = 0;
  double max_parameter_scale = 0;  // infinity: none
  double clip_threshold = 0;       // infinity: none
  bool scales_parameter = false;
  double clipnorm = 0;         // infinity: none
  bool clips_by_norm = false;  // by the leaf's or by that of all

  // Update links.
  double beta_1 = 0;
  bool has_momentum = false;
  bool momentum_of_scaled = true;
  bool uses_exact_momentum = false;
  bool momentum_is_bfloat16 = false;
  double weight_decay = 0;      // what multiplies p, or alpha p
  bool decays_by_step = false;  // it is alpha p
  bool decays_first = true;
  double ema_momentum = 0;
  bool averages = false;
  bool averages_early = false;     // also on calls that only accumulate
  bool starts_average = false;     // the first update, or one after a stop: the average becomes the parameter
  bool overwrites = false;         // the parameter becomes the average
  bool writes_difference = false;  // the output is what is to be added to the parameter, which stays

  bool rounds_by_noise = false;
  Noise noise;
};

// What the phases of a call found, and what was decided from it. Written by decide.hpp.
struct Found {
  bool held = false;             // the call is skipped: every parameter stays
  bool stopped = false;          // something else than the gradient is not finite: this leaf is left alone
  bool clamp_binds = false;      // some estimate may lie below epsilon_1 where that is its least
  bool wide = false;             // U, U^2 or what they are made of leaves float: `rms` and `apply` work in double
  bool at_floor = false;         // epsilon_2 is the parameter's scale
  double gradient_squares = 0;   // sum of G^2
  double norm_factor = 1;        // what clipping by norm multiplies G by
  double update_squares = 0;     // sum of U^2
  double parameter_squares = 0;  // sum of P^2
  double clip_factor = 1;        // what clipping by rms multiplies U by
  double step_size = 0;          // alpha
  double weight_decay = 0;       // what multiplies p
};

// All that a kernel is told of a leaf, by lifetime.
struct Leaf {
  LeafShape shape;
  LeafArrays at;
  Rule rule;
  Found found;

  // Whether it is a part of a leaf, whose numbers are complete when those of the other parts are added.
  ADAFACTOR_ALWAYS_INLINE bool is_part() const { return at.shared != nullptr; }
  ADAFACTOR_ALWAYS_INLINE SharedNumbers shared() const {
    return shape.factored ? SharedNumbers{shape.slices, shape.rows, shape.cols} : SharedNumbers{};
  }
  ADAFACTOR_ALWAYS_INLINE bool shares_slices() const { return shape.shares_rows || shape.shares_cols; }
  // The sums by row and column to which other parts add; null where none does.
  ADAFACTOR_ALWAYS_INLINE double* row_sums() const {
    return shape.shares_cols ? at.shared + shared().row_sums() : nullptr;
  }
  ADAFACTOR_ALWAYS_INLINE double* col_sums() const {
    return shape.shares_rows ? at.shared + shared().col_sums() : nullptr;
  }
  // Whether something is to be added up after `moments`.
  ADAFACTOR_ALWAYS_INLINE bool adds_up() const { return at.row_partial || at.col_partial || shares_slices(); }
  // Whether there is a gradient, or what is left of one, in this call.
  ADAFACTOR_ALWAYS_INLINE bool in_verdict() const { return rule.action != Action::keep; }
  // Whether the parameter and its average stay as they are, whatever the rule says.
  ADAFACTOR_ALWAYS_INLINE bool is_left_alone() const { return found.held || found.stopped; }
  ADAFACTOR_ALWAYS_INLINE bool updates() const { return rule.action == Action::update && !is_left_alone(); }
  ADAFACTOR_ALWAYS_INLINE bool adds() const { return rule.action == Action::accumulate && !is_left_alone(); }
  ADAFACTOR_ALWAYS_INLINE bool averages() const { return rule.averages && !is_left_alone(); }
  // Whether its update leaves it alone, with what the calls of the window have gathered: that is forgotten, and so is
  // an average that has moved on these calls, and may have taken NaN. It begins again when the leaf is updated.
  ADAFACTOR_ALWAYS_INLINE bool forgets() const { return rule.action == Action::update && found.stopped && !found.held; }
  ADAFACTOR_ALWAYS_INLINE bool forgets_average() const { return forgets() && rule.averages_early; }
  // Whether the parameter's scale or the clipping of U asks for `rms`.
  ADAFACTOR_ALWAYS_INLINE bool measures() const {
    return updates() && (rule.scales_parameter || rule.clip_threshold < __builtin_inf());
  }
  // Whether `rms` needs nothing that `moments` of other tiles find: then both are one pass over the tile.
  ADAFACTOR_ALWAYS_INLINE bool measures_early() const { return measures() && !shape.factored && !rule.clips_by_norm; }
  // Whether slices are small, and a tile has all that their factors are made of: then a CPU makes them, and measures,
  // along with `moments`, if its loops are compiled once (lanes/stored.hpp).
  ADAFACTOR_ALWAYS_INLINE bool makes_factors_early() const {
    return at.row_factor && rule.action == Action::update && !rule.clips_by_norm && !rule.clamps && !is_part();
  }
  // Whether what was made so holds: a norm that is not finite goes into all that follows.
  ADAFACTOR_ALWAYS_INLINE bool made_factors_early() const { return makes_factors_early() && found.norm_factor == 1; }
  // What the elements of a gradient, as it is read, still have to be multiplied by to be G.
  ADAFACTOR_ALWAYS_INLINE double gradient_scale() const { return links_gradient() ? 1 : rule.multiplier; }
  ADAFACTOR_ALWAYS_INLINE bool links_gradient() const { return rule.accumulates || rule.clip_value > 0; }
  // Without momentum, and with momentum of the scaled update, alpha goes into the row factor.
  ADAFACTOR_ALWAYS_INLINE bool scales_early() const { return !rule.has_momentum || rule.momentum_of_scaled; }
  // Whether U is (g * row factor) * column factor and nothing else.
  ADAFACTOR_ALWAYS_INLINE bool is_plain() const { return shape.factored && !found.wide && !found.clamp_binds; }
  ADAFACTOR_ALWAYS_INLINE double update_scale() const {
    return found.clip_factor * (scales_early() ? found.step_size : 1);
  }
  ADAFACTOR_ALWAYS_INLINE bool links_update() const {
    return rule.has_momentum || found.weight_decay != 0 || averages() || rule.accumulates || rule.writes_difference;
  }
};

// The smallest moment above zero and the largest; infinity and zero where there is none.
struct MomentRange {
  double smallest = 0;
  double largest = 0;
};

// What the phases find in one tile.
struct TileSums {
  double gradient_squares = 0;  // before clipping by value
  double clipped_squares = 0;   // after it
  double update_squares = 0;
  double parameter_squares = 0;
  double row_moments = 0;  // sum of the old R of the tile's rows, where it is a part of one slice
  MomentRange rows;        // of the new row moments
  MomentRange cols;        // of the new column moments
};

}}  // namespace adafactor::ADAFACTOR_DATA
